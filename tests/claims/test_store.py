from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from nearfar.claims import Record, Store, Task
from nearfar.claims import store as stores
from nearfar.errors import OutputError

TASK = Task("own", "/a/own.py", "quick", 3, False, "0123456789abcdef")
RECORD = Record({"method": {"accuracy": 0.5}}, {"wall": 1.0, "cpu": 0.5}, "2026-01-02T03:04:05+00:00", ["a warning"])


def test_a_record_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get(TASK) is None
    store.put(TASK, RECORD)
    assert store.get(TASK) == RECORD
    assert Store(tmp_path).get(dataclasses.replace(TASK, source="/elsewhere/own.py")) == RECORD
    assert json.loads(store.path(TASK).read_text())["key"]["seed"] == 3


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"scale": "full"}, {"sabotage": True}, {"fingerprint": "f" * 16}, {"recipe": "other"}],
    ids=lambda change: next(iter(change)),
)
def test_it_stands_for_no_other_task(tmp_path: Path, change: dict[str, object]) -> None:
    store = Store(tmp_path)
    store.put(TASK, RECORD)
    other = dataclasses.replace(TASK, **change)  # type: ignore[arg-type]
    assert store.get(other) is None
    store.put(other, dataclasses.replace(RECORD, finished="later"))
    assert store.get(TASK) == RECORD


@pytest.mark.parametrize("package", ["python", *stores.PACKAGES])
def test_it_is_void_with_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    store = Store(tmp_path)
    store.put(TASK, RECORD)
    changed = {**stores.versions(), package: "99.0"}
    monkeypatch.setattr(stores, "versions", lambda: changed)
    assert store.get(TASK) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"key": {}, "arms": {}, "seconds": {}, "finished": ""}',
        "half",
        "more fields",
        "no numbers",
        "\xff",
    ],
)
def test_what_is_no_record_counts_as_absent(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.put(TASK, RECORD)
    whole = store.path(TASK).read_text()
    spoilt = {
        "half": whole[: len(whole) // 2],
        "more fields": whole.replace('"warnings"', '"warming"'),
        "no numbers": whole.replace("0.5\n", '"half"\n', 1),
    }.get(text, text)
    assert spoilt != whole
    store.path(TASK).write_bytes(spoilt.encode("latin-1"))
    assert store.get(TASK) is None
    store.put(TASK, RECORD)
    assert store.get(TASK) == RECORD


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        Store(tmp_path / "records").put(TASK, RECORD)
