"""Throughput of ``nearfar train corpus.txt --recipe simcse`` beside sentence-transformers' own way to the same end."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.training import ours, theirs
from nearfar import encoders
from nearfar.data import Examples, collect_code
from nearfar.errors import MissingExtraError

CASE: dict[str, Any] = {
    "recipe": "simcse",
    "batch_size": 64,
    "steps": 8,
    "learning_rate": 3e-5,
    "max_length": 32,
}


def run(repeat: int = 3) -> None:
    """Print texts per second of the recipe and of ``MultipleNegativesRankingLoss`` over each text and itself, in turn,
    tokenising included, and their ratio."""
    print(f"unsupervised SimCSE of MiniLM, temperature 0.05, AdamW; {machine()}")
    items = collect_code(["torch", "transformers", "sklearn"])
    texts = list(dict.fromkeys(item.summary for item in items))[: CASE["batch_size"] * CASE["steps"]]
    corpus = Examples.from_columns({"text": texts})
    twice = Examples.from_columns({"anchor": texts, "positive": texts})
    try:
        with tempfile.TemporaryDirectory() as folder:
            start = Path(folder) / "start"
            encoders.save(encoders.load("minilm", max_length=CASE["max_length"]), start)
            pairs = [(ours(start, corpus, CASE), theirs(start, twice, CASE)) for _ in range(repeat)]
    except MissingExtraError as error:
        print(error.message)
        return
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / two for one, two in pairs)
    print(
        f"batch {CASE['batch_size']}, {CASE['steps']} steps, {CASE['max_length']} tokens: nearfar {mine:,.0f} texts/s, "
        f"sentence-transformers {other:,.0f} texts/s, ratio {ratio:.2f}"
    )
