"""A run folder as training leaves it, small, with texts that would break a careless page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar import report

HOSTILE = '</script><script>window.broken = 1</script><b>bold</b><img src=x onerror="window.broken = 1"> & %{x} $1$'


def estimate(value: float, n: int = 200) -> dict[str, float]:
    return {"value": value, "low": value - 0.04, "high": value + 0.03, "n": n}


def contents() -> dict[str, Any]:
    random = np.random.default_rng(0)
    steps: list[dict[str, Any]] = [
        {
            "step": step,
            "epoch": step / 40,
            "loss": 5 * math.exp(-step / 30) + 1.5,
            "learning_rate": 2e-5 * (1 - step / 81),
            "examples_per_second": 1500.0 + step,
            "seconds": step * 0.5,
        }
        for step in range(1, 81)
    ]
    steps += [{"step": step, "evaluation": {"mrr": estimate(0.4 + step / 500)}} for step in (20, 40, 60, 80)]
    texts = [f"text number {index}\nof the map" for index in range(60)]
    texts[0] = HOSTILE
    texts[1] = "تحويل النص \U0001f642 文字列"
    return {
        "config.json": {
            "command": ["nearfar", "train", "my pairs.jsonl"],
            "settings": {"encoder": "static", "objective": {"name": "info-nce", "temperature": 0.05}, "note": HOSTILE},
            "data": {"train": {"path": "data/my pairs.jsonl", "rows": 36812, "shape": "pairs", "sha256": "ab" * 32}},
        },
        "metrics.jsonl": steps,
        "metrics.json": {
            "before": {"mrr": estimate(0.4243), "ndcg@10": estimate(0.4611)},
            "after": {"mrr": estimate(0.5884), "ndcg@10": estimate(0.6322)},
            "main": "mrr",
            "baselines": {"bm25": {"mrr": estimate(0.5209), "ndcg@10": estimate(0.5514)}},
            "seconds": {"training": 85.2, "total": 190.0},
        },
        "data-check.json": {
            "shape": "pairs",
            "rows": 36812,
            "batch_size": 1024,
            "evaluation_rows": 200,
            "findings": [
                {
                    "severity": "info",
                    "name": "long-texts",
                    "count": 7,
                    "share": 0.0002,
                    "detail": "cut",
                    "examples": [],
                },
                {
                    "severity": "error",
                    "name": "empty",
                    "count": 2.4,
                    "share": None,
                    "detail": "why",
                    "examples": [HOSTILE],
                },
            ],
        },
        "versions.json": {"python": "3.11.7", "torch": "2.13.0"},
        "diagnostics.json": {
            "map": {
                "x": random.normal(size=60).tolist(),
                "y": random.normal(size=60).tolist(),
                "group": [f"group {index % 12}" for index in range(60)],
                "text": texts,
            },
            "similarities": {
                state: {
                    "positive": random.normal(high, 0.1, 200).tolist(),
                    "negative": random.normal(0.1, 0.1, 200).tolist(),
                }
                for state, high in (("before", 0.3), ("after", 0.6))
            },
            "geometry": {
                "before": {"alignment": 1.07, "uniformity": -2.61, "effective_rank": 88.4, "random_similarity": 0.231},
                "after": {"alignment": 0.93, "uniformity": -3.72, "effective_rank": 161.3, "random_similarity": 0.028},
            },
            "errors": [
                {
                    "query": HOSTILE if index == 0 else f"query {index}",
                    "expected": "def expected():\n    return 1\n" * 10,
                    "found": f"found text {index}",
                    "expected_rank": 190 - index,
                    "expected_score": 0.1,
                    "found_score": 0.7,
                }
                for index in range(12)
            ],
        },
    }


def write_folder(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        lines = content if name.endswith(".jsonl") else [content]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a complete run, as users get it."""
    return report.write(write_folder(tmp_path_factory.mktemp("finished") / "my run", contents()))


@pytest.fixture
def run_files() -> dict[str, Any]:
    """The files of a run, to be changed by a test."""
    return contents()


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A complete run folder called ``my run``."""
    return write_folder(tmp_path / "my run", contents())
