"""The page of a comparison, from its JSON: what it says, and how it looks in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar.compare.verdict import judge
from nearfar.errors import DataError
from nearfar.evaluation.comparison import against_reference, all_pairs, mean_over_seeds_and_items
from nearfar.report import comparison
from support.browser import NEEDED, Reader

HOSTILE = '</script><script>window.broken = 1</script><b>x</b>(temperature=0.1, a_very_long_option_name="%{x} $1$")'
NAMES = ["infonce", "dcl", HOSTILE, "supcon", "triplet", "barlow-twins"]


def results(shifts: tuple[float, ...] = (0.0, 0.02, 0.06, 0.0, -0.05, 0.001)) -> dict[str, Any]:
    random = np.random.default_rng(0)
    values = random.uniform(size=(1, 1, 200)) * 0.5 + random.normal(0, 0.05, (6, 5, 200)) + 0.3
    values += np.array(shifts)[:, None, None]
    means = [mean_over_seeds_and_items(each) for each in values]
    found, pairs = against_reference(values, NAMES, "infonce", resamples=20), all_pairs(values, NAMES, resamples=20)
    verdict = judge(
        found, pairs, {n: m.value for n, m in zip(NAMES, means, strict=True)}, reference="infonce", measure="mrr"
    )
    runs = [
        {"entry": name, "seed": seed, "curve": [[10, 0.4], [20, 0.5 + seed / 100]], "warnings": ["collapse is near"]}
        for name in NAMES
        for seed in range(5)
    ]
    search = [
        {"entry": name, "options": {"temperature": warm, "learning_rate": 0.02}, "validation": warm, "error": None}
        for name in NAMES
        for warm in (0.1, 0.03, 0.3)
    ]
    search[1].update(validation=None, error="the loss is not finite")
    return {
        "measure": "mrr", "measured": "the mean reciprocal rank", "reference": "infonce", "seeds": list(range(5)),
        "items": 200, "rows": {"training": 800, "validation": 100, "test": 200}, "shape": "pairs", "encoder": "static",
        "verdict": verdict.to_dict(), "untrained": {"validation": 0.3, "test": {"mrr": 0.31, "ndcg@10": 0.4}},
        "entries": [
            {"name": name, "kind": "objective", "target": "infonce", "arguments": {}, "learning_rate": None,
             "mean": mean.value, "low": mean.low, "high": mean.high, "by_seed": value.mean(1).tolist(),
             "chosen": {"temperature": 0.3, "learning_rate": 0.02}, "steps": 20, "seconds": 3.0,
             "step_seconds": 0.0123, "times_the_quickest": 7.5,
             "measures": {"mrr": [0.5] * 5, "ndcg@10": [0.6] * 5}}
            for name, mean, value in zip(NAMES, means, values, strict=True)
        ],
        "differences": [each.to_dict() for each in found], "pairs": [each.to_dict() for each in pairs],
        "search": search, "runs": runs, "notes": ["4 rows were left out"],
        "seconds": {"search": 10.0, "training": 20.0, "total": 40.0},
    }  # fmt: skip


def folder(place: Path, content: dict[str, Any]) -> Path:
    place.mkdir()
    (place / "results.json").write_text(json.dumps(content), encoding="utf-8")
    (place / "config.json").write_text(json.dumps({"command": ["nearfar", "compare", HOSTILE]}), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return comparison.write(folder(tmp_path_factory.mktemp("comparison") / "cmp", results()))


def test_it_says_what_was_found(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert " beats infonce by " in text
    assert "triplet is worse than infonce by " in text
    assert "lie at the edge of what was tried" in text
    assert "the loss is not finite" in text
    assert "collapse is near" in text
    assert "4 rows were left out." in text
    assert text.count("window.broken = 1</script>") == 0


def test_the_search_in_words(tmp_path: Path) -> None:
    def said(content: dict[str, Any], name: str) -> str:
        return comparison.write(folder(tmp_path / name, content)).read_text(encoding="utf-8")

    one = results()
    text = said(one, "one")
    assert "18 settings were tried. 1 of them diverged and was left out; the table says how." in text
    assert "left out: the loss is not finite" in text
    assert "for 20 steps on 800 rows of pairs" in text
    assert "The best settings of infonce (temperature 0.3), dcl (temperature 0.3)" in text
    two = results()
    two["search"] = two["search"][:3] + [
        {**run, "validation": None, "error": "the loss is nan at step 2"} for run in two["search"][3:5]
    ]
    for entry in two["entries"]:
        entry["steps"] = 1
        entry["chosen"] = {"temperature": 0.3, "learning_rate": 0.02}
    text = said(two, "two")
    assert "5 settings were tried." in text
    assert "supcon, triplet, barlow-twins fix what could have been searched." in text
    assert "3 of them diverged and were left out" in text
    assert "The best setting of infonce (temperature 0.3) lies at the edge of what was tried" in text
    assert "for 1 step on" in text
    three = results()
    three["search"] = three["search"][:1]
    assert "1 setting was tried. dcl, " in said(three, "three")
    four = results()
    four["search"] = [run for run in four["search"] if run["entry"] != "triplet" and run["validation"] is not None]
    assert "14 settings were tried. triplet fixes what could have been searched." in said(four, "four")


def test_a_page_that_found_nothing(tmp_path: Path) -> None:
    nothing = results((0.0,) * 6)
    nothing["search"] = []
    text = comparison.write(folder(tmp_path / "cmp", nothing)).read_text(encoding="utf-8")
    assert "No difference to infonce was found" in text
    assert "There was no search" in text


def test_what_is_no_comparison(tmp_path: Path) -> None:
    assert not comparison.is_comparison(tmp_path)
    with pytest.raises(DataError, match="not the folder of a comparison"):
        comparison.write(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(DataError, match="not that of a comparison"):
        comparison.write(tmp_path)
    (tmp_path / "results.json").write_text("[")
    with pytest.raises(DataError, match="cannot be read"):
        comparison.write(tmp_path)


@NEEDED
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_opens_and_fits_the_screen(reader: Reader, page: Path, width: int, scheme: str) -> None:
    reader.open(page, width=width, scheme=scheme)
    assert reader.complaints() == []
    assert reader.run("window.broken") is None
    assert reader.run("document.querySelectorAll('.plot .main-svg').length") >= 3
    assert reader.run("document.documentElement.scrollWidth") <= width
    assert reader.wider_than(width) == []
    tables = reader.run("[...document.querySelectorAll('figure')].every((figure) => figure.querySelector('tbody tr'))")
    assert tables is True
