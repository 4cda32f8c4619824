"""The examples of the page on views and parts run as they stand, and the page names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from nearfar import views

PAGE = Path(__file__).parents[2] / "docs" / "views.md"


def test_every_example_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 8
    namespace: dict[str, object] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), namespace)


def test_every_view_of_the_library_is_named() -> None:
    named = set(re.findall(r"`(\w+)", PAGE.read_text(encoding="utf-8"))) | {"Compose", "View", "views_of"}
    modules = ("image", "tabular", "sequence", "embedding")
    own = {name for name in views.__all__ if getattr(views, name).__module__.rpartition(".")[2] in modules}
    assert own - named == set()
