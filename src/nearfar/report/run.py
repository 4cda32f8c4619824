"""The report of a training run: what was trained on what, how it ended up, and everything needed to judge that."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nearfar.report import alignment, figures
from nearfar.report import format as fmt
from nearfar.report.figures.values import mapping, sequence
from nearfar.report.folder import RunFolder, flatten
from nearfar.report.page import Case, Page, Section
from nearfar.report.style import BLUE, GOLD, GREEN, GREY, ORANGE, PINK, clean
from nearfar.report.summary import Summary
from nearfar.report.table import Column, Table

_ERRORS = 50
_EXAMPLES = 3


def write(run_folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of ``run_folder`` to ``path`` (default: ``report.html`` inside it), whole or not at all.

    Reads config.json, metrics.jsonl, metrics.json, data-check.json, versions.json and diagnostics.json; where one is
    missing or unreadable, its section says so.

    Raises :class:`~nearfar.errors.DataError` when the folder is none of a run, :class:`~nearfar.errors.OutputError`
    when the report cannot be written, and :class:`~nearfar.errors.MissingExtraError` when plotly is not installed.
    """
    folder = RunFolder.open(run_folder)
    return build(folder).write(path if path is not None else folder.path / "report.html")


def build(folder: RunFolder) -> Page:
    """The report of a run folder as a page."""
    summary = Summary.of(folder)
    page = Page(
        title=summary.title,
        kicker="nearfar training report",
        lead=summary.lead(),
        facts=summary.facts(),
        foot="All of this is in the run folder as JSON. The page holds everything it shows and loads nothing.",
    )
    _result(page.section("Result"), folder, summary)
    aligned = alignment.is_alignment(folder)
    if aligned:
        alignment.preferences(page.section("Chosen and rejected"), folder)
    _training(page.section("Training"), folder, summary)
    if not aligned:
        _space(page.section("Embedding space"), folder)
        if "diagnostics.json" not in folder.absent:
            _errors(page.section("Hardest errors"), folder)
    _data_check(page.section("Data check"), folder)
    _settings(page.section("Settings and versions"), folder)
    return page


def _result(section: Section, folder: RunFolder, summary: Summary) -> None:
    _measures(section, folder, summary)
    general = summary.general_sentence()
    if general:
        section.text(general)
    warning = summary.general.get("warning")
    if isinstance(warning, str):
        section.note(warning[:1].upper() + warning[1:], "warning")


def _measures(section: Section, folder: RunFolder, summary: Summary) -> None:
    systems = {name: measures for name, measures in summary.systems.items() if mapping(measures)}
    if not systems:
        section.note(folder.absent.get("metrics.json", "metrics.json holds no measures."), "absent")
        return
    for sentence in summary.comparisons():
        section.text(sentence)
    spare = iter((GOLD, GREEN, PINK))
    fixed = {summary.before_name: GREY, summary.after_name: BLUE}
    baselines = [name for name in systems if name not in fixed]
    colours = [fixed.get(name) or (ORANGE if name == baselines[0] else next(spare, GREY)) for name in systems]
    section.figure(figures.measure_intervals(systems, main=summary.main, colours=colours))


def _training(section: Section, folder: RunFolder, summary: Summary) -> None:
    if "metrics.jsonl" in folder.absent:
        section.note(folder.absent["metrics.jsonl"], "absent")
        return
    if folder.bad_lines:
        section.note(f"{fmt.plural(folder.bad_lines, 'line')} of metrics.jsonl could not be read.", "warning")
    if not any("loss" in record or "evaluation" in record for record in folder.records):
        section.note("metrics.jsonl holds no logged step.", "absent")
        return
    broken = [
        record.get("step") for record in folder.records if "loss" in record and fmt.as_finite(record["loss"]) is None
    ]
    if broken:
        steps = ", ".join(map(fmt.integer, broken[:5])) + (", …" if len(broken) > 5 else "")
        section.note(f"The loss was not finite at step {steps}.", "error")
    section.figure(figures.training_curve(folder.records, main=summary.main))


def _diagnostics(section: Section, folder: RunFolder, key: str, what: str) -> Any:
    """The part ``key`` of diagnostics.json, or None after saying in the section that it is not there."""
    value = folder.mapping("diagnostics.json").get(key)
    if not value:
        section.note(folder.absent.get("diagnostics.json", f"diagnostics.json holds no {what}."), "absent")
        return None
    return value


def _space(section: Section, folder: RunFolder) -> None:
    if "diagnostics.json" in folder.absent:
        section.note(folder.absent["diagnostics.json"], "absent")
        return
    _map(section, folder)
    _similarities(section, folder)
    _geometry(section, folder)


def _map(section: Section, folder: RunFolder) -> None:
    points = mapping(_diagnostics(section, folder, "map", "map"))
    if not points:
        return
    x, y, text = (sequence(points.get(key)) for key in ("x", "y", "text"))
    group = points.get("group")
    if not x or not len(x) == len(y) == len(text) or (group is not None and len(sequence(group)) != len(x)):
        section.note("The map in diagnostics.json is incomplete.", "warning")
        return
    section.figure(figures.embedding_map(x, y, [str(item) for item in text], sequence(group) or None))


def _states(value: Any) -> dict[str, Mapping[str, Any]]:
    names = {"before": "before training", "after": "after training"}
    return {names.get(key, key): item for key, item in mapping(value).items() if isinstance(item, Mapping) and item}


def _geometry(section: Section, folder: RunFolder) -> None:
    value = _diagnostics(section, folder, "geometry", "geometry")
    states = _states(value)
    if states:
        for name, state in states.items():
            if isinstance(state.get("verdict"), str):
                section.note(f"{name.capitalize()}: {state['verdict']}", "warning")
        figure = figures.geometry_plane(states)
        if figure.plot.data:
            section.figure(figure)
        else:
            section.text("Without near pairs there is no alignment; what is known of the geometry:")
            section.table(figure.table)
    elif value:
        section.note("The geometry in diagnostics.json is incomplete.", "warning")


def _similarities(section: Section, folder: RunFolder) -> None:
    value = _diagnostics(section, folder, "similarities", "similarities")
    states = {name: state for name, state in _states(value).items() if any(map(sequence, state.values()))}
    if states:
        section.figure(figures.similarity_histograms(states))
    elif value:
        section.note("The similarities in diagnostics.json are incomplete.", "warning")


def _errors(section: Section, folder: RunFolder) -> None:
    diagnostics = folder.mapping("diagnostics.json")
    if "errors" in diagnostics and not diagnostics["errors"]:
        section.note("There is none: every query found what was expected first.", "good")
        return
    errors = [
        item
        for item in sequence(_diagnostics(section, folder, "errors", "list of errors"))
        if isinstance(item, Mapping)
    ]
    if not errors:
        return
    section.text(
        "Queries whose expected text was found furthest down among the texts drawn for this page, with the text that "
        "the model put first instead. "
        "Often such a list shows duplicates and wrong labels of the data before it shows faults of the model."
    )
    section.cases([_case(error) for error in errors[:_ERRORS]])
    if len(errors) > _ERRORS:
        section.note(f"The {_ERRORS} hardest of {len(errors):,}; the others are in diagnostics.json.")


def _case(error: Mapping[str, Any]) -> Case:
    rank = fmt.as_finite(error.get("expected_rank"))
    found, expected = (f"score {fmt.number(error.get(key))}" for key in ("found_score", "expected_score"))
    if rank is not None:
        expected = f"at rank {fmt.integer(rank)}, {expected}"
    return Case(
        str(error.get("query") or ""),
        "",
        [
            ("Expected", str(error.get("expected") or ""), expected),
            ("Found first", str(error.get("found") or ""), found),
        ],
    )


def _data_check(section: Section, folder: RunFolder) -> None:
    check = folder.mapping("data-check.json")
    if "data-check.json" in folder.absent or "findings" not in check:
        section.note(folder.absent.get("data-check.json", "data-check.json holds no findings."), "absent")
        return
    if fmt.as_finite(check.get("rows")) is not None:
        section.text(_checked(check))
    findings = [item for item in sequence(check["findings"]) if isinstance(item, Mapping)]
    if not findings:
        section.note("Nothing was found that could harm training or evaluation.", "good")
        return
    order = {"error": 0, "warning": 1}
    findings.sort(key=lambda finding: order.get(str(finding.get("severity")), 2))
    columns = [
        Column("Severity"),
        Column("Finding"),
        Column("Count", "written"),
        Column("Share", "percent"),
        Column("What it means", "long text"),
        Column("Examples", "long text"),
    ]
    section.table(Table(columns, [_finding(finding) for finding in findings]))


def _checked(check: Mapping[str, Any]) -> str:
    rows, shape = check.get("rows"), check.get("shape")
    text = f"Before training, {fmt.integer(rows)} {shape if isinstance(shape, str) else 'rows'} were looked at"
    if fmt.as_finite(check.get("batch_size")) is not None:
        text += f", for batches of {fmt.integer(check['batch_size'])}"
    if fmt.as_finite(check.get("evaluation_rows")) is not None:
        text += f", against {fmt.integer(check['evaluation_rows'])} to evaluate on"
    return text + "."


def _finding(finding: Mapping[str, Any]) -> list[Any]:
    severity = str(finding.get("severity") or "info")
    style = severity if severity in ("error", "warning") else "info"
    examples = "\n".join(
        fmt.shorten(example if isinstance(example, str) else _example(example), 160)
        for example in sequence(finding.get("examples"))[:_EXAMPLES]
    )
    return [
        Markup('<span class="tag {}">{}</span>').format(style, clean(severity)),
        str(finding.get("name") or "").replace("-", " "),
        fmt.count(finding.get("count")),
        finding.get("share"),
        finding.get("detail"),
        examples,
    ]


def _example(example: Any) -> str:
    if isinstance(example, Mapping):
        return ", ".join(f"{key}: {value}" for key, value in example.items())
    return " / ".join(map(str, example)) if isinstance(example, list) else str(example)


def _settings(section: Section, folder: RunFolder) -> None:
    if "config.json" in folder.absent:
        section.note(folder.absent["config.json"], "absent")
    else:
        config = dict(folder.mapping("config.json"))
        command = config.pop("command", None)
        if command:
            section.text("The command that made this run:")
            section.code(shlex.join(map(str, command)) if isinstance(command, list) else str(command))
        settings = config.pop("settings", {})
        _key_values(section, "Setting", "Value", {**config, **settings} if isinstance(settings, Mapping) else config)
    if "versions.json" in folder.absent:
        section.note(folder.absent["versions.json"], "absent")
    else:
        _key_values(section, "Package", "Version", folder.mapping("versions.json"))


def _key_values(section: Section, key: str, value: str, values: Mapping[str, Any]) -> None:
    rows = flatten(values)
    if rows:
        section.table(Table([Column(key), Column(value, "long text")], rows))
    else:
        section.note("Nothing was recorded.", "absent")
