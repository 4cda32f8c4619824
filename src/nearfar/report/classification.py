"""The page of a few-shot classification: how good it is, beside what, on which labels it errs, and why it says so."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearfar.errors import DataError
from nearfar.report import format as fmt
from nearfar.report.figures.confusion import confusion_matrix
from nearfar.report.figures.explanations import word_weights
from nearfar.report.figures.measures import measure_intervals
from nearfar.report.folder import flatten
from nearfar.report.page import Fact, Page, Section
from nearfar.report.style import BLUE, GOLD, GREEN, GREY, ORANGE, PINK
from nearfar.report.table import Column, Table

RESULTS = "results.json"
_COLOURS = {"setfit": BLUE, "untuned": GREY, "linear head": GREEN, "tf-idf": ORANGE}
_NAMES = {
    "setfit": "tuned on pairs",
    "untuned": "untuned encoder",
    "linear head": "plain linear head",
    "tf-idf": "TF-IDF",
}


def is_classification(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder with the results of a classification."""
    try:
        return _read(Path(path) / RESULTS).get("gains") is not None
    except DataError:
        return False


def write(
    folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None, *, title: str | None = None
) -> Path:
    """Write the report of the classification in ``folder`` to ``path`` (default: ``report.html`` inside it), whole or
    not at all. ``title``: its kicker names this in the place of the folder.

    Raises :class:`~nearfar.errors.DataError` when the folder is none of a classification,
    :class:`~nearfar.errors.OutputError` when the report cannot be written, and
    :class:`~nearfar.errors.MissingExtraError` when plotly is not installed.
    """
    place = Path(folder)
    results = _read(place / RESULTS)
    try:
        page = build(results, _read(place / "config.json"), _read(place / "versions.json"), title or place.name)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{RESULTS} is not that of a classification: {error!r}", where=str(place)) from error
    return page.write(path if path is not None else place / "report.html")


def build(results: Mapping[str, Any], config: Mapping[str, Any], versions: Mapping[str, Any], title: str) -> Page:
    """The page of these results."""
    page = Page(
        title=f"{fmt.percent(results['measures']['setfit']['accuracy']['value'])} right "
        + ("from all examples" if results["shots"] is None else f"from {results['shots']} examples a label"),
        kicker=f"nearfar classification, {title}",
        lead=[_outcome(results), _making(results)],
        facts=_facts(results),
        foot="All of this is in the folder as JSON. The page holds everything it shows and loads nothing.",
    )
    _result(page.section("Result"), results)
    _labels(page.section("Labels"), results)
    _confusions(page.section("Confusions"), results)
    _explanations(page.section("Explanations"), results)
    _settings(page.section("Settings and versions"), config, versions)
    return page


def _outcome(results: Mapping[str, Any]) -> str:
    better = [each for each in results["gains"] if each["found"] and each["value"] > 0]
    worse = [each for each in results["gains"] if each["found"] and each["value"] < 0]
    same = [each for each in results["gains"] if not each["found"]]
    parts = []
    if better:
        parts.append("better than " + _listed(better))
    if worse:
        parts.append("worse than " + _listed(worse))
    if same:
        parts.append("not told apart from " + _listed(same))
    return f"The classifier tuned on pairs is {'; '.join(parts)}." if parts else "Nothing was compared."


def _listed(gains: list[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{_NAMES.get(each['second'], each['second'])} ({fmt.signed(100 * each['value'], 1)} points)" for each in gains
    )


def _making(results: Mapping[str, Any]) -> str:
    labels = fmt.plural(len(results["labels"]), "label")
    return (
        f"{fmt.plural(results['draws'], 'draw')} of {fmt.plural(results['examples'], 'example')} of {labels}, each "
        f"tuned in {fmt.plural(results['steps'], 'step')} and asked {fmt.plural(results['asked'], 'text')}. The saved "
        "model is that of the first draw."
    )


def _facts(results: Mapping[str, Any]) -> list[Fact]:
    found = results["measures"]["setfit"]
    facts = [
        Fact(
            name,
            fmt.percent(found[key]["value"]),
            f"{fmt.percent(found[key]['low'])} to {fmt.percent(found[key]['high'])}",
        )
        for key, name in (("accuracy", "Accuracy"), ("macro_f1", "Macro-F1"))
    ]
    for each in results["gains"]:
        if each["second"] == "tf-idf":
            facts.append(
                Fact(
                    "Before TF-IDF",
                    f"{fmt.signed(100 * each['value'], 1)}",
                    f"points, {fmt.interval(100 * each['low'], 100 * each['high'], 1)}",
                )
            )
    facts.append(Fact("Examples", fmt.integer(results["examples"]), f"of {len(results['labels'])} labels"))
    facts.append(Fact("Time", fmt.duration(results["seconds"].get("total")), "all draws and baselines"))
    return facts


def _result(section: Section, results: Mapping[str, Any]) -> None:
    for note in results.get("notes", ()):
        section.note(f"{note[0].upper()}{note[1:]}.", "warning")
    systems = {_NAMES.get(name, name): measures for name, measures in results["measures"].items()}
    colours = [_COLOURS.get(name, GOLD if index % 2 else PINK) for index, name in enumerate(results["measures"])]
    section.figure(measure_intervals(systems, main=results["main"], colours=colours))
    if results["gains"]:
        section.text(
            "What tuning on pairs gains in points of accuracy. Intervals are over draws and texts; p values are "
            "corrected together (Holm)."
        )
        rows = [
            [
                _NAMES.get(each["second"], each["second"]),
                fmt.signed(100 * each["value"], 2),
                fmt.interval(100 * each["low"], 100 * each["high"], 2),
                f"{each['corrected']:.2g}",
                ("better" if each["value"] > 0 else "worse") if each["found"] else "not told apart",
            ]
            for each in results["gains"]
        ]
        columns = [
            Column("against"),
            Column("points", "written"),
            Column("95 % interval", "written"),
            Column("p", "written"),
            Column("tuned is"),
        ]
        section.table(Table(columns, rows))
    if len(results["by_draw"]) > 1:
        names = results["methods"]
        rows = [[number + 1, *(draw[name] for name in names)] for number, draw in enumerate(results["by_draw"])]
        columns = [Column("draw", "integer"), *(Column(_NAMES.get(name, name), "percent") for name in names)]
        section.text("The accuracy of each draw:").table(Table(columns, rows))


def _labels(section: Section, results: Mapping[str, Any]) -> None:
    section.text("The classifier tuned on pairs, all draws together; the weakest labels first.")
    rows = sorted(results["classes"], key=lambda each: (each["f1"] is not None, each["f1"] or 0.0))
    columns = [
        Column("label"),
        Column("precision", "percent"),
        Column("recall", "percent"),
        Column("F1", "percent"),
        Column("asked", "integer"),
    ]
    names = ("label", "precision", "recall", "f1", "asked")
    section.table(Table(columns, [[each[name] for name in names] for each in rows]), limited=True)


def _confusions(section: Section, results: Mapping[str, Any]) -> None:
    if results.get("table") is not None:
        section.figure(confusion_matrix(results["table"], results["labels"]))
        return
    if not results["confusions"]:
        section.note("There is none: every text was taken for what it is.", "good")
        return
    section.text("What was taken for what most often, all draws together.")
    columns = [
        Column("label"),
        Column("taken for"),
        Column("times", "integer"),
        Column("share of the label", "percent"),
    ]
    names = ("label", "taken_for", "count", "share")
    section.table(Table(columns, [[each[name] for name in names] for each in results["confusions"]]), limited=True)


def _explanations(section: Section, results: Mapping[str, Any]) -> None:
    if not results["explanations"]:
        section.note(
            "No prediction was explained (nearfar classify explain does so, with the extra explain).", "absent"
        )
        return
    section.text(
        "Words are left out at random, and a linear model of what the classifier then says (LIME) gives each word a "
        "weight. The surest right answers, then the surest mistakes."
    )
    for each in results["explanations"]:
        section.figure(word_weights(each))


def _settings(section: Section, config: Mapping[str, Any], versions: Mapping[str, Any]) -> None:
    rest = dict(config)
    command = rest.pop("command", None)
    if command:
        section.text("The command that made this:").code(shlex.join(map(str, command)))
    for heading, values in (
        ("Setting", {**rest.pop("classification", {}), **rest}),
        ("Package", dict(versions)),
    ):
        if values:
            section.table(Table([Column(heading), Column("Value", "long text")], flatten(values)))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise DataError(f"{path.name} holds no JSON object", where=str(path))
    return value
