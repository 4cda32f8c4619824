from __future__ import annotations

import json
import math
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nearfar import report
from nearfar.errors import DataError, OutputError
from nearfar.report.folder import FILES, RunFolder, find, flatten
from nearfar.report.run import build


@pytest.fixture(autouse=True)
def without_plotly_js(monkeypatch: pytest.MonkeyPatch) -> None:
    """The megabytes of plotly.js are tested with the page and in the browser; here they would only take time."""
    monkeypatch.setattr("nearfar.report.page._plotly_js", lambda: "")


def write_files(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        lines = content if name.endswith(".jsonl") else [content]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def visible(html: str) -> str:
    """The page's texts without scripts, styles and markup."""
    html = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return (
        re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&#39;", "'")
    )


def page_text(folder: Path) -> str:
    return visible(report.write(folder).read_text(encoding="utf-8"))


def test_the_report_says_in_words_how_it_ended(run_folder: Path) -> None:
    path = report.write(run_folder)
    assert path == run_folder / "report.html"
    text = visible(path.read_text(encoding="utf-8"))
    assert "MRR went from 0.424 to 0.588 (BM25: 0.521)." in text
    assert "The encoder static was trained with info-nce on 36,812 pairs from my pairs.jsonl in 1 min 25 s" in text
    assert "measured on 200 held-out items" in text
    assert (
        "The 95 % interval of MRR after training lies above the one before training, and overlaps with BM25's." in text
    )
    assert "nearfar train 'my pairs.jsonl'" in text


def test_the_report_holds_every_part(run_folder: Path) -> None:
    html = report.write(run_folder).read_text(encoding="utf-8")
    assert html.count('class="figure-data"') == 5
    assert html.count('class="case"') == 12
    assert "<summary>4 more</summary>" in html
    text = visible(html)
    for expected in (
        "Before training, 36,812 pairs were looked at, for batches of 1,024, against 200 to evaluate on.",
        "long texts",
        "< 0.1 %",
        "at rank 190, score 0.100",
        "objective.temperature",
        "2.13.0",
        "0.551",
        "−3.720",
    ):
        assert expected in text
    check = html[html.index("Before training, 36,812") :]
    assert check.index('tag error">error') < check.index('tag info">info')


def test_intervals_that_lie_apart_are_said_to(tmp_path: Path, run_files: dict[str, Any]) -> None:
    run_files["metrics.json"]["baselines"]["bm25"]["mrr"] = {"value": 0.5, "low": 0.46, "high": 0.54, "n": 200}
    text = page_text(write_files(tmp_path / "run", run_files))
    assert "MRR after training lies above the one before training and BM25's." in text


def test_a_run_that_changed_nothing_says_so(tmp_path: Path, run_files: dict[str, Any]) -> None:
    run_files["metrics.json"]["after"] = run_files["metrics.json"]["before"]
    assert "MRR stayed at 0.424 (BM25: 0.521)." in page_text(write_files(tmp_path / "run", run_files))


def test_a_run_without_a_first_or_a_last_evaluation(tmp_path: Path, run_files: dict[str, Any]) -> None:
    before = run_files["metrics.json"].pop("before")
    assert "MRR is 0.588 after training (BM25: 0.521)." in page_text(write_files(tmp_path / "run", run_files))
    del run_files["metrics.json"]["after"]
    assert "This run has no evaluation recorded." in page_text(write_files(tmp_path / "run", run_files))
    run_files["metrics.json"]["before"] = before
    text = page_text(write_files(tmp_path / "run", run_files))
    assert "MRR was 0.424 before training; there is no evaluation after it (BM25: 0.521)." in text


def test_a_run_that_made_things_worse_says_so(tmp_path: Path, run_files: dict[str, Any]) -> None:
    metrics = run_files["metrics.json"]
    metrics["before"], metrics["after"] = metrics["after"], metrics["before"]
    text = page_text(write_files(tmp_path / "run", run_files))
    assert "MRR went from 0.588 to 0.424" in text
    assert "−0.164" in text
    assert "lies below the one before training and BM25's" in text


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_said_in_a_line(tmp_path: Path, run_files: dict[str, Any], missing: str) -> None:
    del run_files[missing]
    text = page_text(write_files(tmp_path / "run", run_files))
    assert text.count(f"The run folder has no {missing}.") == 1


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("l")])
def test_a_broken_file_is_said_in_a_line(tmp_path: Path, run_files: dict[str, Any], name: str) -> None:
    folder = write_files(tmp_path / "run", run_files)
    (folder / name).write_bytes(b'{"half": [1, \xff')
    assert f"{name} is not JSON" in page_text(folder)
    (folder / name).write_text("[1]")
    assert f"{name} holds no JSON object." in page_text(folder)
    (folder / name).write_text("[" * 100_000)
    assert f"{name} is not JSON" in page_text(folder)


def test_a_log_cut_off_by_a_crash_is_drawn_as_far_as_it_goes(tmp_path: Path, run_files: dict[str, Any]) -> None:
    folder = write_files(tmp_path / "run", run_files)
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"step": 81, "lo')
    text = page_text(folder)
    assert "1 line of metrics.jsonl could not be read." in text
    assert "Loss and evaluation over the training" in text


def test_a_loss_that_is_not_finite_is_named(tmp_path: Path, run_files: dict[str, Any]) -> None:
    run_files["metrics.jsonl"] += [{"step": 81, "loss": math.nan}, {"step": 82, "loss": math.inf}]
    assert "The loss was not finite at step 81, 82." in page_text(write_files(tmp_path / "run", run_files))


def test_missing_parts_of_the_diagnostics_leave_the_others(tmp_path: Path, run_files: dict[str, Any]) -> None:
    diagnostics = run_files["diagnostics.json"]
    del diagnostics["similarities"], diagnostics["geometry"]["before"]
    diagnostics["errors"] = []
    diagnostics["map"]["x"].pop()
    html = report.write(write_files(tmp_path / "run", run_files)).read_text(encoding="utf-8")
    text = visible(html)
    assert html.count('class="figure-data"') == 3
    assert "diagnostics.json holds no similarities." in text
    assert "The map in diagnostics.json is incomplete." in text
    assert "There is none: every query found what was expected first." in text


def test_a_space_without_pairs_or_collapsed(tmp_path: Path, run_files: dict[str, Any]) -> None:
    geometry = run_files["diagnostics.json"]["geometry"]
    for state in geometry.values():
        del state["alignment"]
    geometry["after"]["verdict"] = "The space has collapsed to a point."
    html = report.write(write_files(tmp_path / "run", run_files)).read_text(encoding="utf-8")
    assert html.count('class="figure-data"') == 4
    assert "After training: The space has collapsed to a point." in visible(html)
    assert "Without near pairs there is no alignment" in visible(html)
    assert "−3.720" in visible(html)


def test_texts_of_the_user_never_become_markup(run_folder: Path) -> None:
    html = report.write(run_folder).read_text(encoding="utf-8")
    assert html.count("<script") == 5 + 1 + 2  # figures, colours, plotly.js and the page's own
    outside = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
    assert "<b>" not in outside
    assert "<img" not in outside
    assert "&lt;b&gt;bold&lt;/b&gt;" in outside


def test_something_else_than_a_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run folder"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not the folder of a training run"):
        report.write(tmp_path)


def test_the_report_can_go_elsewhere_and_replaces_an_old_one(run_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "else" / "page.html"
    assert report.write(run_folder, target) == target
    target.write_text("old")
    report.write(run_folder, target)
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in target.parent.iterdir()) == ["page.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        report.write(run_folder, tmp_path / "file" / "page.html")


def test_find_takes_the_shallowest_and_flatten_names_the_path() -> None:
    assert find({"a": {"rows": 1}, "rows": 2}, "rows") == 2
    assert find({"a": {"b": {"rows": 1}}}, "missing", "rows") == 1
    assert find([1], "rows") is None
    nested = {"a": {"b": None, "c": True}, "d": [1, 2], "e": {}, "f": {"g": {"h": {"i": {"j": 1}}}}}
    assert flatten(nested) == [
        ("a.b", "none"),
        ("a.c", "yes"),
        ("d", "1, 2"),
        ("e", "{}"),
        ("f.g.h.i", '{"j": 1}'),
    ]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


ODD = [
    None,
    True,
    "",
    "text",
    -1,
    0,
    1e308,
    -1e308,
    10**30,
    math.nan,
    math.inf,
    [],
    {},
    [[]],
    {"value": "x"},
    [None, "a"],
]


@pytest.mark.parametrize("seed", range(30))
def test_no_value_in_the_files_can_stop_the_report(tmp_path: Path, run_files: dict[str, Any], seed: int) -> None:
    random = Random(seed)
    for name in random.sample(FILES, 3):
        path = random.choice(places(run_files[name]))
        parent: Any = run_files[name]
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = random.choice(ODD)
    html = build(RunFolder.open(write_files(tmp_path / "run", run_files))).render()
    assert html.rstrip().endswith("</html>")
    assert not re.search(r">\s*(nan|NaN|inf|None)\s*<", html)
