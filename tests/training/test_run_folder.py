from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from nearfar.errors import OutputError, TrainingError, UsageError
from nearfar.training import TrainingSettings, folder


def make_run(path: Path, **settings: Any) -> Path:
    path.mkdir()
    stored = TrainingSettings(output=str(path), **settings).to_dict()
    (path / folder.CONFIG).write_text(json.dumps({"nearfar": "0", "settings": stored}), encoding="utf-8")
    return path


def check(path: Path, *, overwrite: bool = False, weights: int = 0) -> None:
    folder.check_output(path, overwrite=overwrite, weights=weights)


def test_a_new_or_empty_folder_is_fine(tmp_path: Path) -> None:
    check(tmp_path / "a" / "b")
    (tmp_path / "empty").mkdir()
    check(tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


def test_nothing_is_overwritten_by_accident(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(OutputError, match="exists already") as caught:
        check(run)
    assert "--overwrite" in (caught.value.hint or "")
    check(run, overwrite=True)
    (tmp_path / "file").write_text("text", encoding="utf-8")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / folder.CONFIG).write_text('{"settings": {}}', encoding="utf-8")
    for precious in ("file", "thesis"):
        with pytest.raises(OutputError, match="not a folder of a run"):
            check(tmp_path / precious, overwrite=True)


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("text", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        check(tmp_path / "file" / "run")
    with pytest.raises(OutputError, match="cannot write"):
        check(Path("/proc/nearfar-run"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 50 * 2**20))
    check(tmp_path / "small", weights=3 * 2**20)
    with pytest.raises(OutputError, match="50 MiB free"):
        check(tmp_path / "large", weights=4 * 2**20)


def test_settings_of_a_resumed_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", batch_size=8, seed=3)
    config = folder.read_config(run)
    settings = folder.stored_settings(config, TrainingSettings(output=str(run), resume=True, workers=1))
    assert (settings.batch_size, settings.seed, settings.workers, settings.resume) == (8, 3, 1, True)
    with pytest.raises(UsageError, match=r"keeps its settings.*: seed"):
        folder.stored_settings(config, TrainingSettings(output=str(run), seed=4))


def test_what_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        folder.read_config(tmp_path / "nowhere")
    with pytest.raises(TrainingError, match="not that of a run"):
        folder.read_config(tmp_path)


def test_versions_name_what_computes() -> None:
    found = folder.versions()
    assert {"nearfar", "python", "torch", "numpy", "sentence-transformers"} <= found.keys()
