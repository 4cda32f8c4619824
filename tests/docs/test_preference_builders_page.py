"""The page on built preferences: its code runs, and names every strategy and builder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nearfar.alignment import builders
from nearfar.data.preferences import read_preferences
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model
from nearfar.training.steps import seeded

PAGE = Path(__file__).parents[2] / "docs" / "preference-builders.md"


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = symbol_tokenizer("abcdefgh")
    given: dict[str, Any] = {
        "model": tiny_language_model(vocabulary=len(tokenizer), width=16),
        "tokenizer": tokenizer,
        "prompts": ["a b", "c d e", "f g"],
        "strong": lambda prompt: "a a a b",
        "len_of": lambda prompt, response: len(response),
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 5
    with seeded(0):
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), given)
    assert len(read_preferences("pairs.jsonl")) == len(given["pairs"]) > 0
    assert len(given["lists"]) > 0
    assert given["vectors"].shape == (2, 16)


def test_every_builder_is_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in set(builders.__all__) - {"STRATEGIES", "BuiltPair", "BuiltPairs", "Judge", "Score", "Writer"}:
        assert name in text or name in ("edit_distance", "token_overlap"), name
