"""The scoreboard as a page: a table of all claims, then for each paper a plot of its seeds and the numbers beneath."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from nearfar.report import format as fmt
from nearfar.report.page import Fact, Figure, Page, code, strong
from nearfar.report.style import BLUE, GREY, INK, ORANGE, hover_text, new_figure
from nearfar.report.table import Column, Table

_TAGS = {"holds": "good", "inconclusive": "warning", "fails": "error", "error": "error"}
_RULE = (
    "Every seed runs all arms once; they share data and, wherever they can, initialisation and batches. The effect is "
    "the mean over the seeds of method minus baseline (the other way round where lower is claimed), with its 95 % "
    "Student t interval. A statement holds when the whole interval lies above its margin, fails when it lies wholly "
    "below zero (below the margin where that is negative), and is inconclusive otherwise; a claim holds when all its "
    "statements do. Fewer than five seeds judge nothing. The same is done with the sabotage, a plausible wrong "
    "implementation, which must not hold."
)
_TITLE_WIDTH = 40  # characters of a statement's line; more do not fit on a phone
_LINE, _ROW = 17, 62  # pixels for a line of a statement, and for its dots


def page(board: Mapping[str, Any]) -> Page:
    """The page of a scoreboard, as :func:`nearfar.claims.scoreboard.of` makes it."""
    counts, machine = board["counts"], board["machine"]
    claims = board["claims"]
    passed = board["sabotage"]["passed"]
    lead = [
        f"{fmt.plural(len(claims), 'paper')}, the central claim of each tested again at the {board['scale']} scale: "
        f"{board['counted']}.",
        f"The sabotage of {', '.join(passed)} passes: those experiments cannot tell right from wrong."
        if passed
        else f"{fmt.plural(board['sabotage']['caught'], 'sabotage')} caught, none passes: with the wrong "
        "implementation in place of the right one no claim holds.",
    ]
    facts = [
        Fact("Hold", fmt.integer(counts["holds"]), f"of {len(claims)}"),
        Fact("Inconclusive", fmt.integer(counts["inconclusive"])),
        Fact("Fail", fmt.integer(counts["fails"]), _errors(counts["error"])),
        Fact("CPU time", fmt.duration(board["cpu_seconds"]), f"{board['seeds']} seeds each"),
    ]
    made = Page(
        "Scoreboard",
        kicker=f"nearfar {machine['nearfar']}, {board['date']}",
        lead=lead,
        facts=facts,
        foot="nearfar reproduce --all",
    )
    made.section("All claims").text(_RULE).table(_overview(claims))
    for claim in claims:
        _section(made, claim)
    rows = [(name, str(value)) for name, value in machine.items()]
    rows += [("scale", str(board["scale"])), ("seeds", str(board["seeds"])), ("rule", board["rule"])]
    made.section("Machine and versions").table(Table([Column("what"), Column("value")], rows))
    return made


def verdict_tag(verdict: str) -> Markup:
    """A verdict as a word in its colour."""
    return Markup('<span class="tag {}">{}</span>').format(_TAGS.get(verdict, "info"), verdict)


def _errors(count: int) -> str:
    return f"and {count} could not be judged" if count else ""


def _overview(claims: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for claim in claims:
        link = Markup('<a class="tag" href="#{}">{}</a>').format(claim["id"], claim["id"])
        rows.append(
            [
                link + (" (weak)" if claim["weak"] else ""),
                verdict_tag(claim["verdict"]),
                _sabotage(claim),
                _holding(claim["statements"]),
                claim["seconds"].get("cpu"),
            ]
        )
    columns = [
        Column("recipe"),
        Column("verdict"),
        Column("sabotage"),
        Column("statements", "written"),
        Column("CPU", "duration"),
    ]
    return Table(columns, rows)


def _holding(statements: Sequence[Mapping[str, Any]]) -> str:
    held = sum(said["verdict"] == "holds" for said in statements)
    return f"{held} of {len(statements)} hold" if statements else "none judged"


def _sabotage(claim: Mapping[str, Any]) -> Markup:
    caught = claim["sabotage"]["caught"]
    word = "not judged" if caught is None else "caught" if caught else "passes"
    return Markup('<span class="tag {}">{}</span>').format("error" if caught is False else "info", word)


def _section(made: Page, claim: Mapping[str, Any]) -> None:
    section = made.section(claim["id"])
    section.text(Markup("{}: {}").format(strong(claim["title"]), claim["paper"])).text(claim["claim"])
    kinds = {"holds": "good", "inconclusive": "warning", "fails": "error", "error": "error"}
    passes = claim["sabotage"]["caught"] is False
    section.note(claim["sentence"], "error" if passes else kinds[claim["verdict"]])  # type: ignore[arg-type]
    if claim["weak"]:
        section.note("Weak: the formula is an interpretation, or the paper's figures were not seen.", "warning")
    if claim["statements"]:
        section.figure(_figure(claim))
        section.table(_statements(claim)).table(_arms(claim))
    section.text(Markup("{} {}").format(strong("World."), claim["world"]))
    section.text(Markup("{} {}.").format(strong("Sabotage."), claim["sabotage"]["what"].rstrip(".")))
    if claim["not_asserted"]:
        section.text(Markup("{} {}").format(strong("Not asserted."), claim["not_asserted"]))
    for warning in claim["warnings"]:
        section.note(warning, "warning")
    if claim["seconds"]:
        section.note(
            Markup("{} of CPU time; {}; code {}").format(
                fmt.duration(claim["seconds"]["cpu"]), claim["finished"], code(claim["fingerprint"])
            ),
            "absent",
        )


def _statements(claim: Mapping[str, Any]) -> Table:
    spoilt = claim["sabotage"]["statements"] or [None] * len(claim["statements"])
    rows = []
    for said, other in zip(claim["statements"], spoilt, strict=True):
        digits = _digits(said)
        rows.append(
            [
                said["statement"],
                verdict_tag(said["verdict"]),
                fmt.signed(said["effect"], digits),
                fmt.interval(said["low"], said["high"], digits),
                fmt.number(said["margin"], digits),
                said["because"],
                fmt.signed(other["effect"], digits) if other else None,
                fmt.interval(other["low"], other["high"], digits) if other else None,
            ]
        )
    columns = [
        Column("statement", "long text"),
        Column("verdict"),
        Column("effect", "written"),
        Column("95 % interval", "written"),
        Column("margin", "written"),
        Column("why", "long text"),
        Column("sabotaged", "written"),
        Column("95 % interval", "written"),
    ]
    if not any(said["because"] for said in claim["statements"]):
        del columns[5]
        rows = [[*row[:5], *row[6:]] for row in rows]
    return Table(columns, rows)


def _arms(claim: Mapping[str, Any]) -> Table:
    rows = []
    for arm, measures in claim["arms"].items():
        for name, of in measures.items():
            other = claim["sabotage"]["arms"].get(arm, {}).get(name)
            digits = fmt.decimals([of["mean"]])
            rows.append(
                [
                    arm,
                    name,
                    fmt.number(of["mean"], digits),
                    fmt.interval(of["low"], of["high"], digits),
                    fmt.number(other["mean"], digits) if other else None,
                ]
            )
    return Table(
        [
            Column("arm"),
            Column("measure"),
            Column("mean", "written"),
            Column("95 % interval", "written"),
            Column("sabotaged", "written"),
        ],
        rows,
    )


def _effect(said: Mapping[str, Any]) -> str:
    digits = _digits(said)
    return f"{fmt.signed(said['effect'], digits)} ({fmt.interval(said['low'], said['high'], digits)})"


def _digits(said: Mapping[str, Any]) -> int:
    return fmt.decimals([said["effect"], said["margin"]])


def _figure(claim: Mapping[str, Any]) -> Figure:
    """One row a statement, on an axis of its own: the honest seeds above, the sabotaged ones beneath."""
    statements = claim["statements"]
    spoilt = claim["sabotage"]["statements"] or [None] * len(statements)
    titles = [textwrap.wrap(said["statement"], _TITLE_WIDTH) for said in statements]
    row = _ROW if claim["sabotage"]["statements"] else _ROW * 0.6
    heights = [len(title) * _LINE + row + 34 for title in titles]
    top = 34
    total = top + sum(heights)
    figure = new_figure(height=round(total), margin={"l": 12, "r": 12, "t": top, "b": 0}, dragmode=False)
    inner, above = sum(heights), 0.0
    for index, (said, other, title) in enumerate(zip(statements, spoilt, titles, strict=True)):
        name = "" if index == 0 else str(index + 1)
        high = 1 - (above + len(title) * _LINE) / inner
        low = 1 - (above + len(title) * _LINE + row) / inner
        above += heights[index]
        figure.update_layout(
            {
                f"xaxis{name}": {"anchor": f"y{name}", "domain": [0, 1], "zeroline": False, **_range(said, other)},
                f"yaxis{name}": {
                    "anchor": f"x{name}",
                    "domain": [low, high],
                    "range": [0.5 if other is None else -0.6, 1.6],
                    "showgrid": False,
                    "zeroline": False,
                    "showticklabels": False,
                    "fixedrange": True,
                },
            }
        )
        _draw(figure, said, "honest", 1.0, BLUE, "circle", name, index == 0)
        if other is not None:
            _draw(figure, other, "sabotaged", 0.0, ORANGE, "diamond", name, index == 0)
        for value, dash, colour in [(0.0, "solid", GREY), (said["margin"], "dash", INK)]:
            if value or dash == "solid":
                line = {"color": colour, "width": 1 if dash == "solid" else 2, "dash": dash}
                figure.add_shape(
                    type="line", xref=f"x{name}", yref=f"y{name} domain", x0=value, x1=value, y0=0, y1=1, line=line
                )
        if said["margin"] and index == next(i for i, each in enumerate(statements) if each["margin"]):
            figure.add_scatter(  # stands for the shapes in the legend
                x=[None], y=[None], mode="lines", name="margin", line={"color": INK, "width": 2, "dash": "dash"}
            )
        figure.add_annotation(
            text="<br>".join(hover_text(line) for line in title),
            xref="paper",
            yref="paper",
            x=0,
            y=high,
            xanchor="left",
            yanchor="bottom",
            align="left",
            showarrow=False,
            font={"size": 13},
        )
    caption = (
        "Dots are the seeds' differences, lines the mean with its 95 % interval. The claim holds where every honest "
        "interval lies wholly to the right of its margin (of zero where none is drawn)."
    )
    return Figure("Differences by seed", figure, _numbers(statements, spoilt), caption)


def _range(said: Mapping[str, Any], other: Mapping[str, Any] | None) -> dict[str, Any]:
    ends = [0.0, said["margin"]]
    for of in filter(None, (said, other)):
        ends += [*of["differences"], of["low"], of["high"]]
    known = [end for end in ends if end is not None]
    low, high = min(known), max(known)
    space = 0.05 * ((high - low) or 1.0)
    return {"range": [low - space, high + space], "nticks": 6}


def _draw(
    figure: Any, said: Mapping[str, Any], who: str, height: float, colour: str, symbol: str, axis: str, listed: bool
) -> None:
    digits = _digits(said)
    axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    if said["low"] is not None:
        text = f"{who}: mean {_effect(said)}"
        figure.add_scatter(
            x=[said["low"], said["effect"], said["high"]],
            y=[height] * 3,
            mode="lines+markers",
            line={"color": colour, "width": 3},
            marker={"color": colour, "size": [0, 17, 0], "symbol": "line-ns", "line": {"color": colour, "width": 3}},
            text=[hover_text(text)] * 3,
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
            legendgroup=who,
            **axes,
        )
    figure.add_scatter(
        x=said["differences"],
        y=[height + 0.36] * len(said["differences"]),
        name=who,
        legendgroup=who,
        mode="markers",
        marker={"color": colour, "size": 8, "symbol": symbol, "opacity": 0.75},
        text=[
            hover_text(f"{who}, seed {seed}: {fmt.signed(value, digits)}")
            for seed, value in enumerate(said["differences"])
        ],
        hovertemplate="%{text}<extra></extra>",
        showlegend=listed,
        **axes,
    )


def _numbers(statements: Sequence[Mapping[str, Any]], spoilt: Sequence[Mapping[str, Any] | None]) -> Table:
    rows = []
    for said, other in zip(statements, spoilt, strict=True):
        for seed, value in enumerate(said["differences"]):
            beside = other["differences"][seed] if other else None
            digits = _digits(said)
            rows.append([said["statement"], seed, fmt.signed(value, digits), fmt.signed(beside, digits)])
    columns = [
        Column("statement", "long text"),
        Column("seed", "integer"),
        Column("difference", "written"),
        Column("sabotaged", "written"),
    ]
    return Table(columns, rows)
