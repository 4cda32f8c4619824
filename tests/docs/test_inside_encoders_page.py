"""The examples of docs/inside-encoders.md run, and what the page says of recipes is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from nearfar import recipes
from nearfar.training import by_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "inside-encoders.md").read_text(encoding="utf-8")


def test_the_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "inside-encoders.md", "exec"), namespace)
    prefix, encoder = namespace["prefixed"].prefix, namespace["encoder"]
    assert prefix.table.grad.abs().sum() > 0
    assert all(each.grad is None for each in encoder.parameters())


@pytest.mark.parametrize("command", [line for line in PAGE.splitlines() if line.startswith("nearfar train")])
def test_the_commands_name_options_that_there_are(command: str) -> None:
    words = shlex.split(command)
    name = words[words.index("--recipe") + 1]
    training = recipes.find(name).training
    assert training is not None
    given = dict(word.split("=", 1) for place, word in enumerate(words) if words[place - 1] == "--set")
    assert set(given) <= set(training.options)
    assert by_recipe.complete(name, training, {}).keys() == training.options.keys()


def test_each_recipe_is_there_with_its_data() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", PAGE, flags=re.MULTILINE))
    assert set(rows) == {"promcse", "micse", "sg-bert", "unsee", "supcl-seq"}
    for name, data in rows.items():
        training = recipes.find(name).training
        assert training is not None
        for shape in training.shapes:
            assert shape in data
