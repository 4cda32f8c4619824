"""The examples of the page on masked language models run as they stand, and its options are those of the recipes."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from nearfar.recipes import registry

PAGE = (Path(__file__).parents[2] / "docs" / "masked-language.md").read_text(encoding="utf-8")


def test_every_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 4
    namespace: dict[str, object] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(block, "masked-language.md", "exec"), namespace)
    for name in ("loss", "found", "restored"):
        value = namespace[name]
        assert isinstance(value, torch.Tensor)
        assert bool(value.isfinite())


def test_every_option_that_is_named_exists() -> None:
    options: set[str] = set()
    for name in ("diffcse", "denosent", "clear", "lm-supcon", "simcse"):
        training = registry.find(name).training
        assert training is not None
        options |= set(training.options)
    named = set(re.findall(r"--set (\w+)=", PAGE))
    assert len(named) >= 10
    assert named <= options
