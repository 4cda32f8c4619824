"""``nearfar recipes`` and ``nearfar reproduce``, as they are called."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nearfar import recipes
from nearfar.claims import scoreboard
from nearfar.cli import app, console

from .conftest import calls


@dataclass
class Done:
    """How a call of the command line ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def nearfar(own: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line, called in the recipe's folder; its workers are processes as ever."""
    monkeypatch.chdir(own.parent)
    monkeypatch.setenv("PYTHONPATH", str(own.parent))
    monkeypatch.syspath_prepend(str(own.parent))
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    for stream in (console.out, console.err):
        monkeypatch.setattr(stream, "_width", 120)

    def call(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            app.run(list(arguments))
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    return call


def test_a_recipe_of_ones_own_from_end_to_end(
    own: Path, nearfar: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = nearfar("reproduce", "own.py", "--workers", "1")
    assert done.returncode == 0, done.stderr
    for part in (
        "The claim of own holds over 5 seeds; its sabotage is caught.",
        "0.5",
        "the gain is left out",
        "[",
        "holds",
    ):
        assert part in done.stdout
    assert "experiments may print" not in done.stdout
    assert len(calls(own)) == 10

    done = nearfar("reproduce", "own.py", "--json")
    (claim,) = json.loads(done.stdout)
    assert (claim["verdict"], claim["sabotage"]["caught"], claim["wing"]) == ("holds", True, "own")
    assert len(calls(own)) == 10

    page = nearfar("recipes", "own.py")
    assert page.returncode == 0, page.stderr
    for part in (
        "A paper of one's own",
        "Woolf, 1929",
        "by more than 0.5 (margin: less is noise)",
        "none recorded",
    ):
        assert part in page.stdout

    # all recipes, as if this were the only one; nothing is run again
    monkeypatch.setattr(recipes, "recipes", lambda wing=None: [recipes.find("own.py")])
    done = nearfar("reproduce", "--all", "--page", "pages")
    assert done.returncode == 0, done.stderr
    assert "Of 1 claim 1 holds. Sabotages caught: 1; none passes." in done.stdout
    assert len(calls(own)) == 10
    board = scoreboard.read("claims-run/scoreboard.json")
    assert board["claims"] == [claim]
    assert scoreboard.read("pages/scoreboard.json") == board
    assert Path("pages/scoreboard.md").read_text() == scoreboard.markdown(board)
    assert Path("claims-run/report.html").read_text().startswith("<!doctype html>")
    assert json.loads(nearfar("reproduce", "--all", "--json").stdout)["claims"] == [claim]
    assert "The claim of own holds over 5 seeds" in nearfar("recipes", "own.py").stdout
    listed = json.loads(nearfar("recipes", "--json").stdout)
    assert listed == [{key: claim[key] for key in ("id", "wing", "title", "paper", "claim")}]
    assert nearfar("recipes", "--search", "nowhere").returncode == 2


def test_a_sabotage_that_passes_and_an_error_end_with_1(own: Path, nearfar: Callable[..., Done]) -> None:
    text = own.read_text()
    own.write_text(text.replace("0.0 if sabotage else gain()", "gain()"))
    done = nearfar("reproduce", "own.py", "--workers", "1")
    assert done.returncode == 1
    assert "but its sabotage passes as well" in done.stdout
    own.write_text(text.replace("0.0 if sabotage else gain()", "1 / 0"))
    done = nearfar("reproduce", "own.py", "--seeds", "1")
    assert done.returncode == 1
    assert "own could not be judged" in done.stdout
    assert "ZeroDivisionError: division by zero (own.py, line" in done.stdout
    own.write_text(text.replace("0.0 if sabotage else gain()", "-gain()"))
    done = nearfar("reproduce", "own.py", "--no-sabotage", "--workers", "1")
    assert done.returncode == 0
    assert "The claim of own fails over 5 seeds." in done.stdout


def test_calls_that_cannot_be_meant_end_with_2(nearfar: Callable[..., Done]) -> None:
    for arguments, said in [
        (["reproduce"], "name recipes, or pass --all"),
        (["reproduce", "supcon", "--all"], "name recipes, or pass --all"),
        (["reproduce", "supkon"], "did you mean supcon"),
        (["reproduce", "none.py"], "there is no file"),
        (["reproduce", "supcon", "--wing", "representation"], "belong to --all"),
        (["recipes", "--wing", "nowhere"], "there is no wing 'nowhere'"),
    ]:
        done = nearfar(*arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert said in done.stderr


def test_the_last_verdict_is_the_latest_of_the_scoreboards(tmp_path: Path, board: dict[str, object]) -> None:
    old, new = json.loads(json.dumps(board)), json.loads(json.dumps(board))
    new["claims"][0]["finished"] = "2027-01-01"
    for place, content in (("old.json", old), ("new.json", new)):
        (tmp_path / place).write_text(json.dumps(content))
    (tmp_path / "spoilt.json").write_text("{")
    places = [tmp_path / name for name in ("new.json", "old.json", "spoilt.json", "none.json")]
    found = scoreboard.recorded("it-holds", *places)
    assert found is not None
    assert found[0]["finished"] == "2027-01-01"
    assert scoreboard.recorded("nothing", *places) is None
