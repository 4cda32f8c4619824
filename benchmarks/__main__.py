"""``python -m benchmarks [engine] [peers] [training]``: all of them without an argument."""

from __future__ import annotations

import sys


def main() -> None:
    chosen = sys.argv[1:] or ["engine", "peers", "training"]
    unknown = set(chosen) - {"engine", "peers", "training"}
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; choose among engine, peers, training")
    for name in chosen:
        module = __import__(f"benchmarks.{name}", fromlist=["run"])
        module.run()
        print()


if __name__ == "__main__":
    main()
