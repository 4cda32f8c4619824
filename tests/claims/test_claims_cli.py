"""``nearfar recipes`` and ``nearfar reproduce``, as they are called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from nearfar.claims import scoreboard

from .conftest import calls


def nearfar(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "nearfar", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )


def test_a_recipe_of_ones_own_from_end_to_end(own: Path, tmp_path: Path) -> None:
    folder = own.parent
    done = nearfar("reproduce", "own.py", "--workers", "2", folder=folder)
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

    done = nearfar("reproduce", "own.py", "--json", folder=folder)
    (claim,) = json.loads(done.stdout)
    assert (claim["verdict"], claim["sabotage"]["caught"], claim["wing"]) == ("holds", True, "own")
    assert len(calls(own)) == 10

    page = nearfar("recipes", "own.py", folder=folder)
    assert page.returncode == 0, page.stderr
    for part in (
        "A paper of one's own",
        "Woolf, 1929",
        "by more than 0.5 (the margin: less is noise)",
        "none recorded",
    ):
        assert part in page.stdout


def test_a_sabotage_that_passes_and_an_error_end_with_1(own: Path) -> None:
    text = own.read_text()
    own.write_text(text.replace("0.0 if sabotage else gain()", "gain()"))
    done = nearfar("reproduce", "own.py", "--workers", "2", folder=own.parent)
    assert done.returncode == 1
    assert "but its sabotage passes as well" in done.stdout
    own.write_text(text.replace("0.0 if sabotage else gain()", "1 / 0"))
    done = nearfar("reproduce", "own.py", "--seeds", "1", folder=own.parent)
    assert done.returncode == 1
    assert "own could not be judged" in done.stdout
    assert "ZeroDivisionError: division by zero (own.py, line" in done.stdout
    own.write_text(text.replace("0.0 if sabotage else gain()", "-gain()"))
    done = nearfar("reproduce", "own.py", "--no-sabotage", "--workers", "2", folder=own.parent)
    assert done.returncode == 0
    assert "The claim of own fails over 5 seeds." in done.stdout


def test_calls_that_cannot_be_meant_end_with_2(tmp_path: Path) -> None:
    for arguments, said in [
        (["reproduce"], "name recipes, or pass --all"),
        (["reproduce", "supcon", "--all"], "name recipes, or pass --all"),
        (["reproduce", "supkon"], "did you mean supcon?"),
        (["reproduce", "none.py"], "there is no file"),
        (["reproduce", "supcon", "--wing", "representation"], "belong to --all"),
        (["recipes", "--wing", "nowhere"], "there is no wing 'nowhere'"),
    ]:
        done = nearfar(*arguments, folder=tmp_path)
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
