"""What steps cost: the estimate on given timings, the rule on given plans, and a comparison with an entry that is slow
by a clock of its own."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from nearfar.compare import Comparison, costs
from nearfar.compare.costs import LONGEST, Plan, check, estimate, told
from nearfar.compare.runs import Bench
from nearfar.errors import ModelError, TrainingError, UsageError
from nearfar.objectives import InfoNCE, registry

from .conftest import labelled, pairs
from .test_compare_runs import bench

Small = Callable[..., Comparison]


class Steps:
    """Steps that take ``seconds(n)``; ``made`` are the sizes that were asked for."""

    def __init__(self, seconds: Callable[[int], float], *, least: int = 0, wrong: type[Exception] = ValueError) -> None:
        self.seconds, self.least, self.wrong = seconds, least, wrong
        self.made: list[int] = []

    def __call__(self, rows: int) -> float:
        if rows < self.least:
            raise self.wrong("too few rows")
        self.made.append(rows)
        return self.seconds(rows)


@pytest.mark.parametrize(("power", "scale"), [(3, 1e-8), (4, 1e-9), (2, 1e-5), (1, 1e-2)])
def test_a_slow_step_is_found_out_without_being_made(power: int, scale: float) -> None:
    steps = Steps(lambda n: scale * n**power)
    found = estimate(steps, 1000)
    assert found is not None
    assert found.seconds == pytest.approx(scale * 1000**power)
    assert found.growth == pytest.approx(power if steps.made[-1] < 1000 else 0)
    assert max(map(steps.seconds, steps.made)) <= LONGEST
    assert sum(map(steps.seconds, steps.made)) <= 2 * LONGEST


def test_a_quick_step_is_made_at_full_size() -> None:
    steps = Steps(lambda n: 0.001)
    found = estimate(steps, 1000)
    assert steps.made == [8, 16, 32, 64, 128, 256, 512, 1000]
    assert found == costs.Cost(0.001, 1000)
    few = Steps(lambda n: 30.0)
    assert estimate(few, 6) == costs.Cost(30.0, 6)
    assert few.made == [6]


def test_growth_is_that_of_the_last_sizes() -> None:
    """What begins with a constant cost is not taken for one that stays so."""
    found = estimate(Steps(lambda n: 0.01 + 1e-8 * n**3), 4096)
    assert found is not None
    assert found.seconds == pytest.approx(1e-8 * 4096**3, rel=0.15)
    assert found.timed == 512
    jump = estimate(Steps(lambda n: 1e-3 if n == 8 else 1.0), 1024)
    assert jump is not None
    assert jump.growth == costs.MOST_GROWTH


@pytest.mark.parametrize("wrong", [ValueError, UsageError, RuntimeError, ZeroDivisionError])
def test_sizes_that_cannot_be_made_are_passed_over(wrong: type[Exception]) -> None:
    steps = Steps(lambda n: 1e-4 * n, least=60, wrong=wrong)
    found = estimate(steps, 200)
    assert steps.made == [64, 128, 200]
    assert found is not None
    assert found.seconds == pytest.approx(0.02)
    assert estimate(Steps(lambda n: 1.0, least=10**6, wrong=wrong), 200) is None


def plans(*seconds: float | None, runs: int = 10, steps: int = 100) -> list[Plan]:
    return [Plan(name, runs, steps, each) for name, each in zip("abcdef", seconds, strict=False)]


def test_the_rule() -> None:
    assert check(plans(0.01, 0.02, 0.04), batch_size=64, timed=False) == []
    assert check(plans(None, 5.0), batch_size=64, timed=False) == []  # nothing to hold it against
    assert check(plans(1.0, 1.2, 1.1), batch_size=64, timed=False) == []  # long, but alike
    assert check(plans(1e-4, 1e-2), batch_size=64, timed=False) == []  # 100 times, but ten seconds in all
    (note,) = check(plans(0.01, 0.01, 0.08), batch_size=64, timed=False)
    assert note == "a run of c is estimated to take 8.0 times as long as one of the others, 1 min 20 s in all"
    assert len(check(plans(0.01, 0.5), batch_size=64, timed=False)) == 1  # 50 times, but less than ten minutes


@pytest.mark.parametrize(
    ("seconds", "whole"),
    [
        ((0.01, 5.0), "1 h 24 min"),
        ((5.0, 0.01, 5.0), "2 h 47 min"),
        ((0.02, 0.01, 0.03, 5.0), "1 h 24 min"),
        ((0.01, None, 5.0), "1 h 24 min"),
    ],
)
def test_one_that_takes_all_the_time_is_refused(seconds: tuple[float, ...], whole: str) -> None:
    with pytest.raises(UsageError, match="estimated to take") as refused:
        check(plans(*seconds), batch_size=1024, timed=False)
    slow = "abcdef"[seconds.index(5.0)]
    assert refused.value.where == slow
    assert f"a run of {slow}" in refused.value.message
    assert "(8 min 20 s instead of " in refused.value.message
    assert refused.value.message.endswith(f", and the whole comparison {whole}")
    assert refused.value.hint is not None
    assert "leave it out, give a smaller --batch-size (it is 1,024), or a --budget in seconds (--budget 80s)" in (
        refused.value.hint
    )


def test_a_budget_in_seconds_that_ten_steps_exceed_is_refused_with_other_advice() -> None:
    asked = [Plan("a", 10, 600, 0.1), Plan("b", 10, 10, 600.0)]
    with pytest.raises(UsageError, match="a run of b") as refused:
        check(asked, batch_size=1024, timed=True)
    assert "--budget" not in str(refused.value.hint)


def test_what_is_said() -> None:
    assert told(plans(0.02, 0.0016, 4.0)) == [
        "a step of b is estimated to take 1.6 ms, of a 12 times, of c 2,500 times as long",
        "training is estimated to take 1 h 7 min in all",
    ]
    assert told(plans(0.5, None)) == [
        "a step of a is estimated to take 0.5 s",
        "training is estimated to take 8 min 20 s in all",
    ]
    assert told(plans(None)) == []


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An objective of the catalogue, ``"slow"``, that costs the cube of the batch by a clock that stands still
    otherwise; the batches it was called with."""
    now, called = [0.0], []

    class Slow(InfoNCE):
        name = "slow"

        def forward(self, query: Tensor | None = None, key: Tensor | None = None, **named: Any) -> Tensor:
            assert query is not None
            called.append(len(query))
            now[0] += 1e-3 * len(query) ** 3
            loss: Tensor = super().forward(query, key, **named)
            return loss

    monkeypatch.setitem(registry._BY_NAME, "slow", (Slow, {}))
    monkeypatch.setattr(costs, "clock", lambda: now[0])
    return called


def test_a_comparison_with_a_slow_entry_is_refused_and_leaves_nothing(
    small: Small, slow: list[int], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"a run of slow .* the whole comparison ") as refused:
        small(pairs(), "infonce,slow,dcl", budget="2epochs")
    assert refused.value.where == "slow"
    assert slow
    assert max(slow) < 64 / 2  # of a batch of 64
    assert list(tmp_path.iterdir()) == []
    found = small(pairs(), "infonce,dcl", search=False)  # what the advice comes to
    assert found.names == ["infonce", "dcl"]


def test_a_slow_entry_that_is_not_refused_is_noted(
    small: Small, slow: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    monkeypatch.setattr(costs, "LONG", math.inf)
    found = small(pairs(), "infonce,slow", budget=2, search=False, console=Console(width=400))
    said = capsys.readouterr().out
    by_name = {entry["name"]: entry for entry in found.results["entries"]}
    assert by_name["slow"]["step_seconds"] == pytest.approx(1e-3 * 64**3, rel=1e-4)
    assert by_name["infonce"]["times_the_quickest"] == 1.0
    assert by_name["slow"]["times_the_quickest"] > 1e6
    assert any(note.startswith("a run of slow is estimated to take") for note in found.results["notes"])
    assert "a step of infonce is estimated to take" in said
    assert "note: a run of slow is estimated" in said
    assert found.results["seconds"]["estimated"] == pytest.approx(2 * 2 * 1e-3 * 64**3, rel=1e-4)
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert "times the quickest" in page
    assert json.loads((found.folder / "results.json").read_text())["entries"][1]["step_seconds"] > 200


def test_the_estimate_leaves_weights_and_gradients_alone() -> None:
    made = bench(labelled())
    made.begin(0)
    before = {name: value.clone() for name, value in made.encoder.state_dict().items()}
    found = made.costs()
    assert set(found) == {"infonce", "supcon", "cosface"}
    assert all(seconds is not None and 0 < seconds < 60 for seconds in found.values())
    made.begin(0)
    assert all(bool((before[name] == value).all()) for name, value in made.encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in made.encoder.parameters())


def test_a_disturbance_of_one_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([0.1, 500.0, None, 0.2, 0.3, 0.25])  # two rounds of three entries
    monkeypatch.setattr(costs, "of_encoder", lambda *given: costs.Cost(1.0, 64))
    monkeypatch.setattr(
        costs, "of_objective", lambda *given: None if (took := next(found)) is None else costs.Cost(took, 64)
    )
    assert bench(labelled()).costs() == {"infonce": 1.1, "supcon": 1.3, "cosface": 1.25}
    assert costs.lowest([None, None]) is None


def fitted(seconds: Callable[[str, int], float]) -> Any:
    def fit(self: Bench, entry: Any, seed: int, options: Any, steps: int, folder: Path, **more: Any) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        took = seconds(entry.name, steps)
        folder.rmdir()
        return types.SimpleNamespace(seconds=took), []

    return fit


def test_an_entry_that_diverges_while_it_is_timed_goes_by_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(name: str, steps: int) -> float:
        if name == "supcon" and steps > 4:
            raise TrainingError("the loss is nan at step 5")
        if name == "cosface":
            raise ModelError("embeddings are not finite")
        return 1.0 + 0.5 * steps

    monkeypatch.setattr(Bench, "_fit", fitted(seconds))
    made = bench(labelled())
    made.settings.budget = "60s"
    found = made.steps(tmp_path / "t", {"infonce": 0.1, "supcon": 0.25, "cosface": None})
    assert found == {"infonce": 120, "supcon": 240, "cosface": 10}
    assert not (tmp_path / "t").exists()


def test_what_diverged_while_it_was_timed_is_said_by_the_search(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    class Sick(InfoNCE):
        name = "sick"

        def forward(self, *given: Any, **named: Any) -> Tensor:
            loss: Tensor = super().forward(*given, **named)
            return loss * math.nan

    monkeypatch.setitem(registry._BY_NAME, "sick", (Sick, {}))
    with pytest.raises(TrainingError, match="no setting of the search could be trained: the loss is nan") as ended:
        small(pairs(), "infonce(temperature=0.1),sick", budget="0.01s", console=Console(width=400))
    assert ended.value.where == "sick"
    said = capsys.readouterr().out
    assert "infonce(temperature=0.1), search" in said
    assert said.count("sick, search") == 5


def test_timing_is_bounded_by_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []

    def seconds(name: str, steps: int) -> float:
        timed.append(name)
        return 0.5 * steps

    monkeypatch.setattr(Bench, "_fit", fitted(seconds))
    made = bench(labelled())
    made.settings.budget = "30s"
    found = made.steps(tmp_path / "t", {"infonce": 0.4, "supcon": 2.0, "cosface": 10_000.0})
    assert set(timed) == {"infonce"}
    assert found == {"infonce": 60, "supcon": 15, "cosface": 10}
    made.settings.budget = "10min"  # what is timed may take as long as a run
    assert made.steps(tmp_path / "t", {"infonce": 0.4, "supcon": 2.0, "cosface": 10_000.0})["supcon"] == 600
    assert "supcon" in timed


def test_noise_that_leaves_no_difference_is_not_taken_for_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short run that was disturbed would make a million steps of a budget of seconds."""
    monkeypatch.setattr(Bench, "_fit", fitted(lambda name, steps: 9.0 if steps == 4 else 2.0))
    made = bench(labelled())
    took = made._seconds(tmp_path / "t", {"infonce": 0.1, "supcon": 0.1, "cosface": 0.1}, 60.0)
    assert set(took.values()) == {0.05}


def test_an_interrupt_while_timing_is_none_of_a_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfar.compare.runs import ComparisonInterruptedError

    def stop(name: str, steps: int) -> float:
        raise ComparisonInterruptedError("SIGINT")

    monkeypatch.setattr(Bench, "_fit", fitted(stop))
    with pytest.raises(ComparisonInterruptedError):
        bench(labelled())._seconds(tmp_path / "t", {}, 60.0)
