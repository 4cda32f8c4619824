"""Time and peak memory over the batch size, objectives and peers side by side; each measurement in its own process.

``python -m benchmarks scaling`` prints the table and writes ``benchmarks/scaling.json``, from which
``benchmarks/picture.py`` draws the README's picture. What does not fit into 20 GiB of memory, or takes longer than ten
minutes, is said to be so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import machine, measure

SIZES = [512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536]
DIMENSION = 384
MEMORY_LIMIT = 20 * 2**30
TIME_LIMIT = 600
DOES_NOT_FIT = "does not fit"
TOO_SLOW = "over ten minutes"
OUT_OF_MEMORY = ("can't allocate memory", "MemoryError", "bad_alloc", "not enough memory")
RESULTS = Path(__file__).with_name("scaling.json")

Make = Callable[[int], Callable[[], Tensor]]
"""From the batch size to a call that gives the loss of fresh gradients' inputs."""


def _embeddings(n: int, count: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(n, DIMENSION, requires_grad=True) for _ in range(count)]


def _labels(n: int) -> Tensor:
    return torch.arange(n) % (n // 4)


def _pairs(objective: Callable[[], Any], peer: str = "nearfar") -> Make:
    def make(n: int) -> Callable[[], Tensor]:
        query, key = _embeddings(n, 2)
        made = objective()
        if peer == "nearfar":
            return lambda: made(query, key)
        features = [{"sentence_embedding": query}, {"sentence_embedding": key}]
        return lambda: made(features, None)

    return make


def _labelled(objective: Callable[[], Any], peer: str = "nearfar") -> Make:
    def make(n: int) -> Callable[[], Tensor]:
        from nearfar.contrast import Labels

        (items,), labels, made = _embeddings(n, 1), _labels(n), objective()
        if peer == "nearfar":
            return lambda: made(items, relation=Labels(labels))
        return lambda: made(items, labels)

    return make


def _views(objective: Callable[[], Any]) -> Make:
    def make(n: int) -> Callable[[], Tensor]:
        from nearfar.contrast import Views

        (items,), made = _embeddings(n, 1), objective()
        if made.kind == "view":
            return lambda: made(*items.chunk(2))
        return lambda: made(items, relation=Views(2))

    return make


def _nearfar(name: str, **arguments: Any) -> Callable[[], Any]:
    def made() -> Any:
        from nearfar import objectives

        return objectives.get(name, **arguments)

    return made


def _sentence_transformers(name: str, **arguments: Any) -> Callable[[], Any]:
    def made() -> Any:
        from sentence_transformers.sentence_transformer import losses

        from benchmarks.peers import Ready

        return getattr(losses, name)(Ready(), **arguments)

    return made


def _metric_learning(name: str, miner: str | None = None, **arguments: Any) -> Callable[[], Any]:
    def made() -> Any:
        from pytorch_metric_learning import losses, miners

        loss = getattr(losses, name)(**arguments)
        if miner is None:
            return loss
        mining = getattr(miners, miner)()
        return lambda items, labels: loss(items, labels, mining(items, labels))

    return made


CASES: dict[str, dict[str, Make]] = {
    "InfoNCE": {
        "nearfar": _pairs(_nearfar("info-nce", temperature=0.05)),
        "sentence-transformers": _pairs(
            _sentence_transformers("MultipleNegativesRankingLoss", scale=20.0), "sentence-transformers"
        ),
        "sentence-transformers, cached": _pairs(
            _sentence_transformers("CachedMultipleNegativesRankingLoss", scale=20.0, mini_batch_size=256),
            "sentence-transformers",
        ),
    },
    "SupCon": {
        "nearfar": _labelled(_nearfar("supcon", temperature=0.1)),
        "pytorch-metric-learning": _labelled(_metric_learning("SupConLoss", temperature=0.1), "peer"),
    },
    "triplet-hard": {
        "nearfar": _labelled(
            _nearfar("triplet", mining="hard", average="active", margin=0.2, score="negative-normalized-euclidean")
        ),
        "pytorch-metric-learning": _labelled(
            _metric_learning("TripletMarginLoss", "BatchHardMiner", margin=0.2), "peer"
        ),
    },
    "multi-similarity": {
        "nearfar": _labelled(_nearfar("multi-similarity", base=0.5, epsilon=None)),
        "pytorch-metric-learning": _labelled(
            _metric_learning("MultiSimilarityLoss", alpha=2, beta=50, base=0.5), "peer"
        ),
    },
    "DCL": {"nearfar": _views(_nearfar("dcl", temperature=0.1))},
    "Barlow Twins": {"nearfar": _views(_nearfar("barlow-twins"))},
    "lambda-rank": {"nearfar": _pairs(_nearfar("lambda-rank"))},
}


def run(sizes: Iterable[int] = SIZES, names: Iterable[str] | None = None) -> None:
    """Measure everything, small batches first, print the table and write the results as they grow.

    What was measured before and is not now stays; what did not fit or took too long is not tried at larger sizes.
    """
    sizes, chosen = list(sizes), list(CASES if names is None else names)
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows: list[dict[str, Any]] = [row for row in kept if row["objective"] not in chosen or row["n"] not in sizes]
    stopped = {(row["objective"], row["library"]): row["failed"] for row in rows if "failed" in row}
    print(f"d = {DIMENSION}, float32, forward + backward, a process each; {machine()}")
    print(f"{'objective':18s}{'library':32s}{'n':>8s}{'seconds':>10s}{'peak MiB':>10s}{'x nearfar':>11s}")
    for n, name in itertools.product(sizes, chosen):
        own: dict[str, Any] | None = None
        for library in CASES[name]:
            why = stopped.get((name, library))
            found = _in_a_process(name, library, n) if why is None else {"failed": why}
            rows.append({"objective": name, "library": library, "n": n, **found})
            if "failed" in found:
                stopped[name, library] = found["failed"]
                print(f"{name:18s}{library:32s}{n:8,}  {found['failed']}", flush=True)
                continue
            own = found if library == "nearfar" else own
            ratio = "" if own is None else f"{found['seconds'] / own['seconds']:11.2f}"
            differs = own is not None and abs(found["loss"] - own["loss"]) > 1e-3 * abs(own["loss"])
            print(
                f"{name:18s}{library:32s}{n:8,}{found['seconds']:10.3f}{found['peak'] / 2**20:10.0f}{ratio}"
                + ("   another loss" if differs else ""),
                flush=True,
            )
        rows.sort(key=lambda row: (list(CASES).index(row["objective"]), row["n"]))
        results = {"machine": machine(), "dimension": DIMENSION, "rows": rows}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def _in_a_process(name: str, library: str, n: int) -> dict[str, Any]:
    """``{"seconds", "peak", "loss"}``, or ``{"failed": why}``."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--objective", name, "--library", library, "--n", str(n)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": TOO_SLOW}
    if done.returncode:
        if any(
            sign in done.stderr for sign in ("can't allocate memory", "MemoryError", "bad_alloc", "not enough memory")
        ):
            return {"failed": DOES_NOT_FIT}
        raise RuntimeError(f"{name}, {library}, n = {n}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _limit_memory() -> None:
    """Let an allocation beyond the limit fail instead of filling the machine; what is mapped already does not count."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_LIMIT, mapped + MEMORY_LIMIT))


def measured(name: str, library: str, n: int) -> dict[str, Any]:
    """One measurement in this process: median of three, of one at large sizes."""
    call = CASES[name][library](n)
    values: list[float] = []

    def forward_backward() -> None:
        loss = call()
        loss.backward()
        values.append(loss.item())

    cost = measure(forward_backward, repeat=3 if n <= 8_192 else 1, warm_up=n <= 8_192)
    return {"seconds": cost.seconds, "peak": cost.peak, "loss": values[-1]}


def main() -> None:
    """``--objective NAME --library NAME --n N``: one measurement, as a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--objective", required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("--n", type=int, required=True)
    chosen = parser.parse_args()
    CASES[chosen.objective][chosen.library](64)()  # imports and first allocations do not count
    _limit_memory()
    print(json.dumps(measured(chosen.objective, chosen.library, chosen.n)))


if __name__ == "__main__":
    main()
