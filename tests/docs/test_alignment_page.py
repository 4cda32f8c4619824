"""The page on alignment: its code runs, and it names every objective that is fed in its own way, with its options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nearfar import report
from nearfar.alignment.needs import NEEDS, REFUSED
from nearfar.objectives import find
from support.alignment import rows_of, write_place, write_rows

PAGE = Path(__file__).parents[2] / "docs" / "alignment.md"


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "write", lambda folder: Path(folder) / "report.html")
    write_rows(write_place(tmp_path) / "prefs.jsonl", rows_of("pairs"))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    given: dict[str, object] = {}
    exec(compile(block, str(PAGE), "exec"), given)
    assert (tmp_path / "runs" / "dpo" / "model" / "model.safetensors").is_file()


def test_every_objective_and_option_is_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for name, need in NEEDS.items():
        row = next((row for row in rows if f"`{name}`" in row.split("|")[1]), None)
        assert row is not None, name
        for option in need.options.keys() - {"score", "tokens"}:
            assert f"`{option}`" in row or (option == "rewards" and "`dro-v`" in text), (name, option)
    for name in ("grpo", "mapl"):
        assert name in REFUSED
        assert f"`{name}`" in text


def test_every_name_in_the_table_is_of_the_catalogue() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.M)
    names = [name for row in rows for name in re.findall(r"`([a-z-]+)`", row)]
    assert len(names) > 50
    for name in names:
        find(name)
