"""``python -m benchmarks [NAME ...]``: those of :data:`BENCHMARKS`, all of them without an argument."""

from __future__ import annotations

import sys

BENCHMARKS = ["engine", "peers", "training", "simcse", "real_text", "dpo", "scaling", "kernels"]


def main() -> None:
    chosen = sys.argv[1:] or BENCHMARKS
    unknown = set(chosen) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; choose among {', '.join(BENCHMARKS)}")
    for name in chosen:
        module = __import__(f"benchmarks.{name}", fromlist=["run"])
        module.run()
        print()


if __name__ == "__main__":
    main()
