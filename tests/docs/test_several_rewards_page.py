"""The examples of the pages on several rewards and on the search for losses run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar.alignment.discovery.expressions import ELEMENTWISE, MARGINS, OF_THE_BATCH, PAIRS
from nearfar.data.synthetic.letter_counts import LetterCounts
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model, write_language_model

DOCS = Path(__file__).parents[2] / "docs"


def run(page: str, namespace: dict[str, Any], count: int) -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == count
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(block, page, "exec"), namespace)
    return namespace


def test_several_rewards(tmp_path: Path) -> None:
    world = LetterCounts(length=6)
    tokenizer = symbol_tokenizer(world.symbols())
    write_language_model(tiny_language_model(vocabulary=len(tokenizer)), tokenizer, tmp_path / "base")
    data = world.draw(200, generator=torch.Generator().manual_seed(0))
    given = {
        "data": data,
        "base": str(tmp_path / "base"),
        "work": str(tmp_path),
        "rewards": world.rewards,
        "embed": lambda texts: torch.tensor([[float(len(text)), 1.0] for text in texts]),
    }
    found = run("several-rewards.md", given, 3)
    assert re.fullmatch(r"tell <first> \S+ <second> \S+", found["asked"])
    assert len(found["responses"][0]) == 2
    assert len(found["made"]) == 40
    assert len(found["merged"]) > 0
    assert (tmp_path / "round" / "model" / "config.json").exists()
    assert found["weights"].shape == (2, 2)
    assert found["chosen"].tolist() == [[0.25, 0.75]]
    assert found["one_reward"].shape == (1, 4)
    assert len(found["prompts"]) == 200


def test_discovery(capsys: pytest.CaptureFixture[str]) -> None:
    found = run("discovery.md", {}, 3)
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert found["archive"].entries[-1].outcome.error == ""
    assert found["chosen"].grad is not None


def test_every_name_of_the_grammar_is_told() -> None:
    page = (DOCS / "discovery.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in (*MARGINS, *PAIRS, *ELEMENTWISE, *OF_THE_BATCH) if name != "z")
