"""The page on language models: its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "language-models.md").read_text(encoding="utf-8")


def test_its_code_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks[1:]:  # the first asks for SmolLM2, and for files
        exec(block, names)
    assert names["scores"].log_probability.shape == (2,)
    assert names["scores"].log_probability.detach().tolist() == pytest.approx(
        names["column"].log_probability.tolist(), abs=1e-5
    )
    assert torch.equal(names["column"].length, torch.tensor([3, 2]))
    assert [place.suffix for place in (tmp_path / "cache").iterdir()] == [".safetensors"]
