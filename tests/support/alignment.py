"""Preferences of letters and a tiny model that reads them, for tests of alignment runs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from nearfar.alignment.fit import method_of
from nearfar.alignment.inputs import ResponseBatches
from nearfar.alignment.method import AlignmentMethod
from nearfar.alignment.prepare import Prepared, prepare, read
from nearfar.alignment.settings import AlignmentSettings
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model, write_language_model

LETTERS = "abcdefghij"
ROWS = 40


def words(draw: random.Random, count: int) -> str:
    """So many letters."""
    return " ".join(draw.choice(LETTERS) for _ in range(count))


def rows_of(kind: str, count: int = ROWS, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of "pairs", "scored pairs", "unpaired", "lists" (of 2 to 4 responses, some of equal scores), "right and
    wrong" (lists with scores 0 and 1) or "demonstrations". Good responses begin with a b."""
    draw = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(count):
        prompt = words(draw, draw.randint(2, 5))
        good, bad = " a b " + words(draw, draw.randint(1, 4)), " " + words(draw, draw.randint(1, 6))
        if kind in ("pairs", "scored pairs"):
            row: dict[str, Any] = {"prompt": prompt, "chosen": good, "rejected": bad}
            if kind == "scored pairs":
                row.update(score_chosen=draw.choice([0.7, 0.9]), score_rejected=draw.choice([0.1, 0.4]))
        elif kind == "unpaired":
            row = {"prompt": prompt, "completion": good if number % 2 else bad, "label": bool(number % 2)}
        elif kind == "demonstrations":
            row = {"prompt": prompt, "completion": good}
        else:
            others = [" " + words(draw, draw.randint(1, 5)) for _ in range(draw.randint(1, 3))]
            values = [0.0, 1.0] if kind == "right and wrong" else [0.0, 0.2, 0.5]
            scores = [1.0, *(draw.choice(values) for _ in others)]
            row = {"prompt": prompt, "responses": [good, *others], "scores": scores}
        made.append(row)
    return made


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """``rows`` as a file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_place(folder: Path, *, dropout: float = 0.0) -> Path:
    """A folder with ``model`` and a file for each kind of rows (``pairs.jsonl``, ``right-and-wrong.jsonl``, ...)."""
    tokenizer = symbol_tokenizer(LETTERS)
    model = tiny_language_model(vocabulary=len(tokenizer), width=16, dropout=dropout)
    write_language_model(model, tokenizer, folder / "model")
    for kind in ("pairs", "scored pairs", "unpaired", "lists", "right and wrong", "demonstrations"):
        write_rows(folder / f"{kind.replace(' ', '-')}.jsonl", rows_of(kind))
    return folder


def settings_for(place: Path, data: str = "pairs", objective: str = "dpo", **more: Any) -> AlignmentSettings:
    """Settings of a short run on the CPU; options of the objective by ``parameters``."""
    usual: dict[str, Any] = {
        "output": str(place / "run"),
        "device": "cpu",
        "batch_size": 8,
        "steps": 6,
        "learning_rate": 3e-3,
        "log_every": 1,
        "checkpoint_every": 2,
    }
    return AlignmentSettings(
        data=str(place / f"{data}.jsonl"),
        model=str(place / "model"),
        objective=objective,
        **{**usual, **more},
    )


def prepared(settings: AlignmentSettings, cache: Path) -> tuple[Prepared, AlignmentMethod]:
    """A run before its first step, all its columns filled, and what it trains."""
    from nearfar.alignment import beside

    run = prepare(settings, *read(settings, None, None))
    states = beside.fill(run, cache, lambda text: None)
    return run, method_of(run, states)


def batch_of(run: Prepared, rows: Any, chunk_size: int | None = None) -> Any:
    """The batch of these rows."""
    return ResponseBatches(run.table, chunk_size=chunk_size, mismatched=run.mismatched).batch(rows)
