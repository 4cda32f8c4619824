from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nearfar.errors import OutputError, TrainingError
from nearfar.training import checkpoints

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def make(folder: Path, step: int, run: str = "run") -> Path:
    inner = checkpoints.unfinished(folder, step) / f"checkpoint-{step}"
    inner.mkdir(parents=True)
    for name in FILES:
        (inner / name).write_bytes(b"x" * step)
    return checkpoints.put_in_place(folder, step, {"run": run, "seconds": 1.5})


def test_the_newest_complete_checkpoint_is_taken(tmp_path: Path) -> None:
    assert checkpoints.last(tmp_path / "nowhere", "run") is None
    assert checkpoints.last(tmp_path, "run") is None
    make(tmp_path, 5)
    newest = make(tmp_path, 20)
    make(tmp_path, 10)
    assert checkpoints.steps(tmp_path) == [5, 10, 20]
    assert checkpoints.last(tmp_path, "run") == newest
    assert checkpoints.manifest(newest)["seconds"] == 1.5
    assert not list(tmp_path.glob(".*"))


def test_one_that_was_being_made_is_not_taken(tmp_path: Path) -> None:
    older = make(tmp_path, 5)
    half = checkpoints.unfinished(tmp_path, 9) / "checkpoint-9"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"x")
    assert checkpoints.last(tmp_path, "run") == older


@pytest.mark.parametrize("damage", ["shorter", "missing", "manifest", "no manifest", "not listed"])
def test_one_that_is_not_whole_is_not_taken(tmp_path: Path, damage: str) -> None:
    older, newer = make(tmp_path, 5), make(tmp_path, 9)
    if damage == "shorter":
        (newer / "optimizer.pt").write_bytes(b"x")
    elif damage == "missing":
        (newer / "model.safetensors").unlink()
    elif damage == "manifest":
        (newer / checkpoints.MANIFEST).write_text("{", encoding="utf-8")
    elif damage == "no manifest":
        (newer / checkpoints.MANIFEST).unlink()
    else:
        (newer / checkpoints.MANIFEST).write_text('{"run": "run", "files": {}}', encoding="utf-8")
    assert checkpoints.last(tmp_path, "run") == older


def test_one_of_another_run_is_refused(tmp_path: Path) -> None:
    make(tmp_path, 5, run="another")
    with pytest.raises(TrainingError, match="belongs to another run"):
        checkpoints.last(tmp_path, "run")


def test_thinning_out_keeps_the_newest_and_removes_what_is_not_whole(tmp_path: Path) -> None:
    for step in (5, 9, 12):
        make(tmp_path, step)
    checkpoints.unfinished(tmp_path, 15).mkdir()
    (tmp_path / "checkpoint-99").mkdir()
    (tmp_path / "best").mkdir()
    checkpoints.thin_out(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "checkpoint-12", "checkpoint-9"]
    checkpoints.thin_out(tmp_path, keep=0)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: No space left on device"),
    ],
)
def test_a_full_disk_is_said_and_the_checkpoint_before_stays(tmp_path: Path, error: Exception) -> None:
    older = make(tmp_path, 5)
    checkpoints.unfinished(tmp_path, 9).mkdir()
    with pytest.raises(OutputError, match="no space left") as caught, checkpoints.writing(tmp_path, 9):
        raise error
    assert "--resume" in (caught.value.hint or "")
    assert checkpoints.last(tmp_path, "run") == older
    assert not checkpoints.unfinished(tmp_path, 9).exists()


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), checkpoints.writing(tmp_path, 9):
        raise ZeroDivisionError
