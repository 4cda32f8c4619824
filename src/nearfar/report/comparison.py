"""The page of a comparison: what can be told apart, by how much, and everything needed to judge that."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nearfar.errors import DataError
from nearfar.report import format as fmt
from nearfar.report.figures import comparison as figures
from nearfar.report.folder import flatten
from nearfar.report.page import Fact, Page, Section, strong
from nearfar.report.table import Column, Table

RESULTS = "results.json"
_SHARED = (
    "columns", "max_bad_rows", "dimension", "vocabulary_size", "initial", "pooling", "max_length", "normalize",
    "batch_size", "chunk_size", "warmup", "schedule", "weight_decay", "duplicates", "precision",
)  # fmt: skip
"""Settings of a comparison that are options of ``nearfar train``, too."""


def is_comparison(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder with the results of a comparison."""
    try:
        return _read(Path(path) / RESULTS).get("differences") is not None
    except DataError:
        return False


def write(folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of the comparison in ``folder`` to ``path`` (default: ``report.html`` inside it), whole or not
    at all.

    Raises :class:`~nearfar.errors.DataError` when the folder is none of a comparison,
    :class:`~nearfar.errors.OutputError` when the report cannot be written, and
    :class:`~nearfar.errors.MissingExtraError` when plotly is not installed.
    """
    place = Path(folder)
    results = _read(place / RESULTS)
    try:
        page = build(results, _read(place / "config.json"), _read(place / "versions.json"))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{RESULTS} is not that of a comparison: {error!r}", where=str(place)) from error
    return page.write(path if path is not None else place / "report.html")


def build(results: Mapping[str, Any], config: Mapping[str, Any], versions: Mapping[str, Any]) -> Page:
    """The page of these results."""
    verdict = results["verdict"]
    page = Page(
        title=_title(results),
        kicker="nearfar comparison",
        lead=[" ".join(verdict["sentences"]), _what(results)],
        facts=_facts(results),
        foot="All of this is in the folder as JSON. The page holds everything it shows and loads nothing.",
    )
    _differences(page.section("Differences"), results)
    _means(page.section("Each one"), results)
    _pairs(page.section("All pairs"), results)
    _search(page.section("Search and learning"), results)
    _rule(page.section("How this was decided"), results)
    _settings(page.section("Settings and versions"), results, config, versions)
    return page


def _title(results: Mapping[str, Any]) -> str:
    verdict, reference = results["verdict"], results["reference"]
    others = len(results["entries"]) - 1
    name = fmt.measure_name(results["measure"])
    if not verdict["better"] and not verdict["worse"]:
        return f"No difference to {reference} was found" if others > 1 else "No difference was found"
    if verdict["better"]:
        best = verdict["better"][0]
        return f"{best} beats {reference} by {_gain(results, best)} of {name}"
    return f"Nothing beats {reference}"


def _gain(results: Mapping[str, Any], name: str) -> str:
    return fmt.points(next(each["value"] for each in results["differences"] if each["first"] == name))


def _what(results: Mapping[str, Any]) -> str:
    rows, seeds = results["rows"], len(results["seeds"])
    steps = sorted({entry["steps"] for entry in results["entries"]})
    each = fmt.plural(steps[0], "step") if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,} steps"
    return (
        f"{len(results['entries'])} entries, each trained {seeds} times for {each} on "
        f"{fmt.plural(rows['training'], 'row')} of {results['shape']}, chosen by {rows['validation']:,} others and "
        f"asked {results['items']:,} more. {fmt.measure_name(results['measure'])} is {results['measured']}."
    )


def _facts(results: Mapping[str, Any]) -> list[Fact]:
    entries = {entry["name"]: entry for entry in results["entries"]}
    name, verdict = fmt.measure_name(results["measure"]), results["verdict"]
    shown = [verdict["best"], *([results["reference"]] if results["reference"] != verdict["best"] else [])]
    words = {verdict["best"]: "highest", results["reference"]: "the reference"}
    facts = [
        Fact(
            f"{name}, {each}",
            fmt.number(entries[each]["mean"]),
            f"{words[each]}; {fmt.interval(entries[each]['low'], entries[each]['high'])}",
        )
        for each in shown
    ]
    untrained = fmt.as_finite(results["untrained"]["test"].get(results["measure"]))
    if untrained is not None:
        facts.append(Fact(f"{name}, untrained", fmt.number(untrained), "the encoder as it begins"))
    seen = [each["visible"] for each in results["differences"] if not each["found"] and each["visible"]]
    if seen:
        facts.append(Fact("Differences seen from", f"{100 * max(seen):.2f}", "points, at this budget"))
    seconds = results["seconds"]
    facts.append(Fact("Training", fmt.duration(seconds["training"] + seconds["search"]), "search and final runs"))
    return facts


def _differences(section: Section, results: Mapping[str, Any]) -> None:
    for note in results.get("notes", ()):
        section.note(f"{note[0].upper()}{note[1:]}.")
    section.figure(figures.forest(results))
    outside = [
        each["first"] for each in results["differences"] if not each["found"] and (each["low"] > 0 or each["high"] < 0)
    ]
    if outside:
        section.text(
            f"The interval of {', '.join(outside)} leaves out zero, and still no difference counts as found: an "
            f"interval speaks of one pair alone, and of {len(results['differences'])} pairs one looks different by "
            "chance more often. The corrected p value accounts for that."
        )


def _means(section: Section, results: Mapping[str, Any]) -> None:
    section.figure(figures.means(results))
    names = sorted({name for entry in results["entries"] for name in entry["measures"]})
    names.sort(key=lambda name: name != results["measure"])
    if len(names) > 1:
        columns = [Column("entry"), *(Column(fmt.measure_name(name), "number", 3) for name in names)]
        rows = [
            [entry["name"], *(_mean(entry["measures"].get(name, ())) for name in names)] for entry in results["entries"]
        ]
        untrained = results["untrained"]["test"]
        rows.append(["untrained", *(untrained.get(name) for name in names)])
        section.text("All measures on the test part, means over the seeds. Only the first was compared.")
        section.table(Table(columns, rows))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _pairs(section: Section, results: Mapping[str, Any]) -> None:
    names = [entry["name"] for entry in results["entries"]]
    found = {(each["first"], each["second"]): each for each in results["pairs"]}
    section.text(
        f"Row minus column in points of {fmt.measure_name(results['measure'])}; bold where the two can be told apart. "
        f"The {fmt.plural(len(found), 'pair')} are a family of their own: here the correction is stronger than above."
    )
    rows: list[list[Any]] = []
    for row in names:
        cells: list[Any] = [row]
        for column in names:
            each, sign = found.get((row, column)), 1
            if each is None:
                each, sign = found.get((column, row)), -1
            text = "" if each is None else fmt.signed(sign * 100 * each["value"] + 0.0, 2)
            cells.append(strong(text) if each is not None and each["found"] else text)
        rows.append(cells)
    section.table(Table([Column(""), *(Column(name, "written") for name in names)], rows))


def _search(section: Section, results: Mapping[str, Any]) -> None:
    if results["search"]:
        section.text(
            "All were searched by the same rule, on one seed that no final run has. Of each the setting that did best "
            f"on the validation part was taken; the test part played no role. {_tries(results)}"
        )
        section.table(_search_table(results), limited=True)
        edges = _at_the_edge(results)
        if edges:
            settings = "best setting" if len(edges) == 1 else "best settings"
            lie, them = ("lies", "it") if len(edges) == 1 else ("lie", "them")
            section.note(
                f"The {settings} of {', '.join(edges)} {lie} at the edge of what was tried, so a better one may lie "
                f"beyond. Give {them} another value, as in name=objective(learning_rate=...), and compare again."
            )
    else:
        section.text("There was no search: every entry has its defaults, or what it fixes.")
    _times(section, results)
    _warnings(section, results)
    curves = figures.curves(results)
    if curves is not None:
        section.figure(curves)


def _tries(results: Mapping[str, Any]) -> str:
    """How many settings were tried, how many of them diverged, and which entries had none to try."""
    tries, searched = results["search"], {run["entry"] for run in results["search"]}
    fixed = [entry["name"] for entry in results["entries"] if entry["name"] not in searched]
    failed = sum(run["validation"] is None for run in tries)
    said = [f"{fmt.plural(len(tries), 'setting was', 'settings were')} tried."]
    if failed:
        said.append(f"{failed} of them diverged and {'was' if failed == 1 else 'were'} left out; the table says how.")
    if fixed:
        said.append(f"{', '.join(fixed)} {'fixes' if len(fixed) == 1 else 'fix'} what could have been searched.")
    return " ".join(said)


def _times(section: Section, results: Mapping[str, Any]) -> None:
    entries = results["entries"]
    if all(fmt.as_finite(entry.get("step_seconds")) is None for entry in entries):
        return
    section.text(
        "What a step takes was estimated before the first run, on a batch of this size; the time of a run is that of "
        "the final ones, the mean over the seeds."
    )
    columns = [
        Column("entry"),
        Column("step, ms", "number"),
        Column("times the quickest", "number", 1),
        Column("steps of a run", "integer"),
        Column("training of a run", "duration"),
    ]
    rows = []
    for entry in entries:
        seconds = fmt.as_finite(entry.get("step_seconds"))
        milliseconds = None if seconds is None else 1000 * seconds
        rows.append([entry["name"], milliseconds, entry.get("times_the_quickest"), entry["steps"], entry["seconds"]])
    section.table(Table(columns, rows), limited=True)


def _warnings(section: Section, results: Mapping[str, Any]) -> None:
    told: dict[tuple[str, str], int] = {}
    for run in results["runs"]:
        for text in run.get("warnings", ()):
            kind = next((key for key in told if key[0] == run["entry"] and key[1][:24] == text[:24]), None)
            told[kind or (run["entry"], text)] = told.get(kind or (run["entry"], text), 0) + 1
    if told:
        section.text("What final runs said of themselves:")
        columns = [Column("entry"), Column("runs", "integer"), Column("warning", "long text")]
        section.table(Table(columns, [[entry, count, text] for (entry, text), count in told.items()]))


def _search_table(results: Mapping[str, Any]) -> Table:
    chosen = {entry["name"]: entry["chosen"] for entry in results["entries"]}
    warm = any("temperature" in run["options"] for run in results["search"])
    columns = [
        Column("entry"),
        *([Column("temperature", "number", 3)] if warm else []),
        Column("learning rate", "written"),
        Column(f"{fmt.measure_name(results['measure'])}, validation", "number", 4),
        Column("what became of it", "text"),
    ]
    rows: list[list[Any]] = []
    emphasis = set()
    for run in results["search"]:
        taken = run["options"] == chosen[run["entry"]]
        if taken:
            emphasis.add(len(rows))
        said = f"left out: {fmt.shorten(run['error'], 80)}" if run["error"] else "taken" if taken else ""
        rows.append(
            [
                run["entry"],
                *([run["options"].get("temperature")] if warm else []),
                f"{run['options']['learning_rate']:g}",
                run["validation"],
                said,
            ]
        )
    return Table(columns, rows, emphasis=frozenset(emphasis))


def _at_the_edge(results: Mapping[str, Any]) -> list[str]:
    edges = []
    for entry in results["entries"]:
        tried = [run["options"] for run in results["search"] if run["entry"] == entry["name"]]
        for name in ("temperature", "learning_rate"):
            values = {options[name] for options in tried if name in options}
            if len(values) > 2 and entry["chosen"].get(name) in (min(values), max(values)):
                edges.append(f"{entry['name']} ({name.replace('_', ' ')} {entry['chosen'][name]:g})")
    return edges


def _rule(section: Section, results: Mapping[str, Any]) -> None:
    seeds, items = len(results["seeds"]), results["items"]
    section.text(
        f"By seed all entries had the same initial weights and the same batches, and all had the same parts of the "
        f"data. Each run's weights are the best of its evaluations on the validation part. The {seeds} final runs of "
        f"an entry were asked the {items:,} items of the test part once."
    )
    section.text(
        "A difference varies with the seeds and with the items. Its 95 % interval accounts for both: its squared "
        "half-width is the sum of the two variances of the mean, each times the square of its own Student quantile. "
        "The p value is the smallest level at which the interval leaves out zero, and a difference counts as found "
        "when its p value, corrected by Holm's method for all differences to the reference, is at most 0.05. If "
        "nothing differed, a whole comparison would find something in at most one of twenty cases."
    )
    section.text(
        "The data were split once: the intervals speak of other seeds and other items like these, trained on this "
        "training part. Another training part may shift all entries."
    )


def _settings(
    section: Section, results: Mapping[str, Any], config: Mapping[str, Any], versions: Mapping[str, Any]
) -> None:
    best = next(entry for entry in results["entries"] if entry["name"] == results["verdict"]["best"])
    command = config.get("command")
    if command:
        section.text("The command that made this comparison:")
        section.code(shlex.join(map(str, command)))
    if best["kind"] == "objective":
        section.text("Train with what has the highest mean here, on all of your data:")
        section.code(_train_command(best, config, results))
    rows = [row for row in flatten(_told_settings(config)) if row[1] not in ("none", "")]
    if rows:
        section.table(Table([Column("Setting"), Column("Value", "long text")], rows))
    rows = flatten(versions)
    if rows:
        section.table(Table([Column("Package"), Column("Version", "long text")], rows))


def _told_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of config.json a reader wants: without what a comparison sets for each run and what stands there twice."""
    kept = {key: value for key, value in config.items() if key not in ("command", "entries", "training", "comparison")}
    comparison = {key: value for key, value in config.get("comparison", {}).items() if key != "training"}
    of_runs = ("objective", "parameters", "learning_rate", "steps", "epochs", "seed", "baselines", "output", "resume")
    training = {key: value for key, value in config.get("training", {}).items() if key not in of_runs}
    resolved = {
        key: value
        for key, value in kept.pop("resolved", {}).items()
        if key in ("batch_size", "batches_per_epoch", "max_gradient_norm", "precision")
    }
    return {**comparison, **{key: value for key, value in training.items() if key not in resolved}, **resolved, **kept}


def _train_command(entry: Mapping[str, Any], config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    data = config.get("comparison", {}).get("data") or ["DATA"]
    words = ["nearfar", "train", *([data] if isinstance(data, str) else data), "--objective", entry["target"]]
    options = {
        **entry["arguments"],
        **({"temperature": value} if (value := entry["chosen"].get("temperature")) else {}),
    }
    for name, value in options.items():
        words += ["--set", f"{name}={value}"]
    rate = entry["chosen"].get("learning_rate") or entry.get("learning_rate")
    if rate:
        words += ["--learning-rate", f"{rate:g}"]
    words += ["--steps", str(entry["steps"]), "--encoder", str(results["encoder"])]
    words += _shared_options(config.get("comparison", {}).get("training", {}))
    return shlex.join(map(str, [*words, "--output", "runs/best"]))


def _shared_options(given: Mapping[str, Any]) -> list[str]:
    """Settings that all runs shared and that are not the default, as ``nearfar train`` takes them."""
    from nearfar.training.settings import TrainingSettings

    words: list[str] = []
    for name in _SHARED:
        value = given.get(name)
        if value in (None, False) or value == getattr(TrainingSettings, name, None):
            continue
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        if path.name != RESULTS:
            return {}
        raise DataError(
            "this is not the folder of a comparison", where=str(path.parent), hint=f"it holds {RESULTS}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.name} cannot be read: {error}", where=str(path)) from None
    if not isinstance(content, dict):
        raise DataError(f"{path.name} holds no JSON object", where=str(path))
    return content
