"""Experiments in processes of their own: each once, none stops another, what is recorded is not run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nearfar.claims import Outcome, reproduce
from nearfar.claims.worker import checked, load
from nearfar.errors import DataError, UsageError
from nearfar.recipes import Recipe, registry

from .conftest import calls


@pytest.fixture
def mine(own: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe of the file, whose folder processes find modules in."""
    monkeypatch.setenv("PYTHONPATH", str(own.parent))
    monkeypatch.syspath_prepend(str(own.parent))
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    return registry.of_file(own)


def behave(own: Path, seed: int, code: str) -> None:
    """Let the experiment of one seed run this first."""
    (own.parent / f"behave-{seed}.py").write_text(code, encoding="utf-8")


def test_each_seed_once_in_one_thread_and_never_again(own: Path, mine: Recipe, tmp_path: Path) -> None:
    ended: list[tuple[int, int]] = []
    done: list[Outcome] = []
    output = tmp_path / "out"
    first = reproduce([mine], output, workers=2, progress=lambda *count: ended.append(count), done=done.append)
    assert calls(own) == [f"{seed} quick {spoilt} 1 1" for seed in range(5) for spoilt in (False, True)]
    assert ended == [(count, 10) for count in range(11)]
    assert done == first
    (outcome,) = first
    assert (outcome.verdict, outcome.caught, outcome.is_wrong) == ("holds", True, False)
    assert outcome.sentence() == "The claim of own holds over 5 seeds; its sabotage is caught."
    assert set(outcome.arms) == {"baseline", "method"}
    assert set(outcome.sabotaged_arms) == {"method"}
    assert outcome.sabotage is not None
    assert outcome.sabotage.findings[0].effect.value == pytest.approx(0, abs=0.3)
    assert outcome.seconds["cpu"] > 0
    assert outcome.seconds["wall"] > 0

    # a record is used again; more seeds run only what is new, another scale runs all
    again = reproduce([mine], output, workers=1)
    assert again[0].to_dict() == outcome.to_dict()
    assert len(calls(own)) == 10
    assert reproduce([mine], output, workers=1, seeds=2, scale="smoke")[0].caught is None
    assert len(calls(own)) == 14

    # other code, or the wish
    text = own.read_text()
    own.write_text(text.replace("quick=0.1", "quick=0.1001"))
    reproduce([registry.of_file(own)], output, workers=1, seeds=1, sabotage=False)
    assert len(calls(own)) == 15
    reproduce([registry.of_file(own)], output, workers=1, seeds=1, sabotage=False, again=True)
    assert len(calls(own)) == 16


def test_what_goes_wrong_stops_no_other_and_is_tried_again(own: Path, mine: Recipe, tmp_path: Path) -> None:
    behave(own, 0, "if sabotage: raise ValueError('no such thing')")
    behave(own, 1, "if sabotage: os.kill(os.getpid(), 9)")
    behave(own, 2, "if sabotage: raise SystemExit(3)")
    behave(own, 3, "if sabotage: os._exit(4)")
    other = own.with_name("other.py")
    other.write_text(own.read_text().replace('id="own"', 'id="other"').replace("behave-", "nothing-"))
    outcomes = reproduce([mine, registry.of_file(other)], tmp_path / "out", workers=2)
    assert [outcome.verdict for outcome in outcomes] == ["error", "holds"]
    assert outcomes[0].is_wrong
    assert outcomes[0].caught is None
    said = "\n".join(outcomes[0].errors)
    assert "seed 0, sabotaged: ValueError: no such thing (<string>, line 1)" in said
    assert "seed 1, sabotaged: its process was ended by SIGKILL (out of memory?)" in said
    assert "SystemExit: 3" in said
    assert "its process was ended with exit code 4" in said
    assert "seed 4" not in said
    assert (
        said in outcomes[0].sentence().replace("; seed", "\nseed", 0) or "could not be judged" in outcomes[0].sentence()
    )

    before = len(calls(own))
    for place in own.parent.glob("behave-*.py"):
        place.unlink()
    outcomes = reproduce([mine], tmp_path / "out", workers=1)
    assert outcomes[0].verdict == "holds"
    assert len(calls(own)) == before + 4


def test_values_that_cannot_be_judged_are_errors(own: Path, mine: Recipe, tmp_path: Path) -> None:
    behave(own, 0, "torch.randn = lambda *a, **k: torch.tensor([float('nan')] * 2)")
    behave(own, 1, "warnings.warn_explicit('look here', UserWarning, 'nearfar/somewhere.py', 1)")
    behave(own, 2, "warnings.warn('a library speaks')")
    (outcome,) = reproduce([mine], tmp_path / "out", workers=1, seeds=1, sabotage=False)
    assert outcome.errors == ["seed 0: accuracy of baseline is nan, which cannot be judged"]
    (own.parent / "behave-0.py").unlink()
    (outcome,) = reproduce([mine], tmp_path / "out", workers=1, seeds=3, sabotage=False)
    assert outcome.errors == []
    assert outcome.warnings == ["look here"]


def test_what_an_experiment_may_return() -> None:
    import torch

    assert checked({"arm": {"measure": torch.tensor(0.5)}}) == {"arm": {"measure": 0.5}}
    for wrong in ({}, None, {"arm": 1.0}, {"arm": {}}, {"arm": {"m": "x"}}, {"arm": {"m": torch.ones(2)}}):
        with pytest.raises(DataError):
            checked(wrong)  # type: ignore[arg-type]


def test_a_recipe_of_the_library_is_loaded_by_its_module() -> None:
    recipe = registry.find("supcon")
    assert load(str(Path(registry.__file__).parent / "representation" / "supcon.py")) is recipe


def test_calls_that_cannot_be_meant(mine: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 seeds"):
        reproduce([mine], tmp_path, seeds=0)
    with pytest.raises(UsageError, match="0 workers"):
        reproduce([mine], tmp_path, workers=0)
    with pytest.raises(UsageError, match="own was named twice"):
        reproduce([mine, mine], tmp_path)


SCRIPT = """
import sys
from nearfar.claims import reproduce
from nearfar.recipes import registry

if __name__ == "__main__":
    reproduce([registry.of_file(sys.argv[1])], sys.argv[2], workers=2)
"""


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_end_from_outside_leaves_no_process_and_loses_only_what_was_running(
    own: Path, mine: Recipe, tmp_path: Path, number: signal.Signals
) -> None:
    behave(own, 1, "while not (HERE / 'go').exists(): time.sleep(0.02)")  # both workers wait at seed 1
    script = own.parent / "script.py"
    script.write_text(SCRIPT)
    output = tmp_path / "out"
    started = subprocess.Popen([sys.executable, script, own, output], start_new_session=True, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(output.glob("records/own/*.json"))) < 2 or len(calls(own)) < 4:
        assert started.poll() is None, started.stderr and started.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    below = children(started.pid)
    assert len(below) >= 2
    if number == signal.SIGINT:
        os.killpg(started.pid, number)  # as a terminal does
    else:
        started.send_signal(number)
    _, said = started.communicate(timeout=60)
    assert said.count(b"KeyboardInterrupt") == (number == signal.SIGINT)  # the parent's own, none of the workers'
    while any(map(alive, below)):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert len(calls(own)) == 4
    if number == signal.SIGKILL:
        (own.parent / "go").touch()
        assert reproduce([mine], output, workers=1)[0].verdict == "holds"
        assert len(calls(own)) == 4 + 8  # the two of seed 0 are not run again
