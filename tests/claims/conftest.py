"""Recipes whose experiments are arithmetic, and a scoreboard of every kind of outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nearfar.claims import Outcome, Record, Task, scoreboard
from nearfar.claims.reproduce import conclude
from nearfar.recipes import Arms, Paper, Recipe, Scale, Statement

HOSTILE = '</script><script>window.broken = 1</script><b>bold</b><img src=x onerror="window.broken = 1"> & %{x} | $1$'

OWN = '''"""A recipe of one's own."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import torch
from beside import gain

from nearfar.recipes import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.steps import seeded

HERE = Path(__file__).parent


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Each call leaves a line in calls.txt."""
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(f"{seed} {scale} {sabotage} {torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']}\\n")
    behave = HERE / f"behave-{seed}.py"
    if behave.exists():
        exec(behave.read_text())
    with seeded(seed) as generator:
        noise = torch.randn(2, generator=generator) * at(scale, smoke=0.5, quick=0.1, full=0.01)
    print("experiments may print")
    method = {"accuracy": 1 + float(noise[0]) + (0.0 if sabotage else gain())}
    return {"method": method} if sabotage else {"baseline": {"accuracy": 1 + float(noise[1])}, "method": method}


RECIPE = Recipe(
    id="own",
    paper=Paper("A paper of one's own", "Woolf", 1929),
    claim="The method is better.",
    parts={"objective": "arithmetic"},
    world="numbers",
    statements=[Statement("accuracy", "method", "baseline", margin=0.5, because="less is noise")],
    experiment=experiment,
    sabotage="the gain is left out",
)
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A recipe in a file of its own, with a module beside it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "beside.py").write_text("def gain():\n    return 2.0\n", encoding="utf-8")
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    return folder / "own.py"


def calls(own: Path) -> list[str]:
    """What the experiment was called with so far, sorted."""
    place = own.parent / "calls.txt"
    return sorted(place.read_text().splitlines()) if place.exists() else []


def never(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    raise AssertionError("the experiment is not run here")


def recipe(*statements: Statement, name: str = "made-up", **texts: Any) -> Recipe:
    """A recipe that is judged only."""
    said = {"claim": "A claim.", "world": "A world.", "sabotage": "a sabotage", **texts}
    return Recipe(
        id=name,
        paper=Paper("A title", "An author", 2020, "2001.00001"),
        parts={"objective": "none"},
        statements=statements,
        experiment=never,
        **said,
    )


def outcome(of: Recipe, honest: Sequence[Arms | str], sabotaged: Sequence[Arms | str] = ()) -> Outcome:
    """What comes out of a recipe whose seeds measured this, or failed with that text."""
    answers: dict[Task, Record | str] = {}
    for kind, measured in ((False, honest), (True, sabotaged)):
        for seed, arms in enumerate(measured):
            task = Task(of.id, "nowhere.py", "quick", seed, kind, "0123456789abcdef")
            record = arms
            if not isinstance(arms, str):
                record = Record(
                    arms, {"wall": 2.0, "cpu": 1.5}, "2026-01-02T03:04:05+00:00", ["a warning"] * (seed < 2)
                )
            answers[task] = record  # type: ignore[assignment]
    return conclude(of, answers)


def arms(method: float, baseline: float = 0.0, **others: float) -> Arms:
    """Two arms with one measure."""
    return {"method": {"accuracy": method, **others}, "baseline": {"accuracy": baseline, **others}}


NOISE = (0.01, -0.01, 0.02, -0.02, 0.0)


def outcomes() -> list[Outcome]:
    """One of each kind: holds, inconclusive, fails, an error, a sabotage that passes, one seed."""
    plain = Statement("accuracy", "method", "baseline")
    long = "accuracy of the class that is rarest of all classes in the long tail of the training data"
    made = [
        outcome(
            recipe(
                plain,
                Statement("accuracy", "method", 0.2, margin=0.1, because="a third of what was seen | elsewhere"),
                Statement(long, "method", "baseline", direction="lower", margin=-15),
                name="it-holds",
                weak=True,
            ),
            [{a: {**m, long: 100 * noise} for a, m in arms(0.5 + noise).items()} for noise in NOISE],
            [{"method": {"accuracy": noise, long: 20.0}} for noise in NOISE],
        ),
        outcome(recipe(plain, name="undecided", not_asserted=HOSTILE, claim=HOSTILE), [arms(noise) for noise in NOISE]),
        outcome(recipe(plain, name="it-fails"), [arms(noise - 1) for noise in NOISE], [arms(-2)] * 5),
        outcome(recipe(plain, name="it-errs"), [arms(1), f"ValueError: {HOSTILE}", arms(1)]),
        outcome(
            recipe(plain, name="blind"),
            [arms(1 + noise) for noise in NOISE],
            [arms(1e-5 + noise / 1e6) for noise in NOISE],
        ),
        outcome(recipe(plain, name="one-seed"), [arms(1.0)], [arms(0.0)]),
    ]
    assert [each.verdict for each in made] == ["holds", "inconclusive", "fails", "error", "holds", "inconclusive"]
    return made


@pytest.fixture(scope="session")
def board() -> dict[str, Any]:
    """A scoreboard of every kind of outcome."""
    return scoreboard.of(outcomes())


@pytest.fixture(scope="session")
def board_report(tmp_path_factory: pytest.TempPathFactory, board: dict[str, Any]) -> Path:
    """Its HTML report."""
    return scoreboard.write(board, tmp_path_factory.mktemp("board"))[-1]


Writer = Callable[[str], Path]
