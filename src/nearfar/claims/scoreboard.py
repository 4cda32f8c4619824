"""The scoreboard: what came out of all recipes, as JSON, as a page of the documentation and as an HTML report."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nearfar
from nearfar.claims import pool
from nearfar.claims.reproduce import SAID, Outcome
from nearfar.claims.store import PACKAGES, versions
from nearfar.errors import DataError
from nearfar.evaluation.seeds import MINIMUM_SEEDS
from nearfar.files import write_json, write_text

FILE = "scoreboard.json"
_FORMAT = 1


def of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything that the scoreboard's pages show, ready for JSON."""
    verdicts = [outcome.verdict for outcome in outcomes]
    return {
        "format": _FORMAT,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "scale": outcomes[0].scale if outcomes else None,
        "seeds": outcomes[0].seeds if outcomes else None,
        "rule": f"at least {MINIMUM_SEEDS} seeds; 95 % Student t interval of the differences paired by seed; holds: "
        "wholly above the margin; fails: wholly below 0, or below a negative margin; else inconclusive",
        "machine": machine(),
        "counts": {name: verdicts.count(name) for name in SAID},
        "counted": ", ".join(
            f"{verdicts.count(name)} {words[verdicts.count(name) > 1]}"
            for name, words in SAID.items()
            if name in verdicts
        ),
        "sabotage": {
            "caught": sum(outcome.caught is True for outcome in outcomes),
            "passed": [outcome.recipe.id for outcome in outcomes if outcome.caught is False],
        },
        "cpu_seconds": sum(outcome.seconds.get("cpu", 0.0) for outcome in outcomes),
        "claims": [outcome.to_dict() for outcome in outcomes],
    }


def machine() -> dict[str, Any]:
    """What the experiments ran on, and with."""
    return {
        "processor": _processor(),
        "cores": pool.cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: versions()[name] for name in PACKAGES},
        "nearfar": nearfar.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write(board: Mapping[str, Any], folder: str | os.PathLike[str], *, report: bool = True) -> list[Path]:
    """Write ``scoreboard.json``, ``scoreboard.md`` and, with ``report``, ``report.html``; returns their paths.

    Raises :class:`~nearfar.errors.OutputError` when that cannot be, :class:`~nearfar.errors.MissingExtraError` when
    the report's packages are missing.
    """
    place = Path(folder)
    write_json(place / FILE, board)
    write_text(place / "scoreboard.md", markdown(board))
    if not report:
        return [place / FILE, place / "scoreboard.md"]
    from nearfar.report.claims import page

    return [place / FILE, place / "scoreboard.md", page(board).write(place / "report.html")]


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A scoreboard as :func:`write` wrote it. Raises :class:`~nearfar.errors.DataError` for anything else."""
    try:
        board = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the scoreboard cannot be read: {error}", where=str(path)) from None
    if not isinstance(board, dict) or board.get("format") != _FORMAT:
        raise DataError("this is no scoreboard of this version", where=str(path), hint="make claims")
    return board


def recorded(recipe: str, *places: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A recipe's last entry on the scoreboards at ``places``, by date, with its board; None where it is on none."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for place in places:
        try:
            board = read(place)
        except DataError:
            continue
        found += [(claim, board) for claim in board["claims"] if claim["id"] == recipe]
    return max(found, key=lambda pair: str(pair[0]["finished"]), default=None)


def summary_line(board: Mapping[str, Any]) -> str:
    """The scoreboard in a sentence or two."""
    passed = board["sabotage"]["passed"]
    count = len(board["claims"])
    said = f"Of {count} claim{'s' if count != 1 else ''} {board['counted']}. "
    if passed:
        return said + f"The sabotage of {', '.join(passed)} passes: these experiments tell nothing."
    return said + f"Sabotages caught: {board['sabotage']['caught']}; none passes."


def markdown(board: Mapping[str, Any]) -> str:
    """The scoreboard as a page of the documentation."""
    facts = board["machine"]
    lines = [
        "<!-- Written by `make claims` (nearfar reproduce --all); not to be edited. -->\n",
        "# Scoreboard\n",
        f"The central claim of each paper, tested again. {summary_line(board)} What a verdict means, what a sabotage "
        "is and how the figures are to be read: [claims](claims.md). The papers themselves: [recipes](recipes.md).\n",
        f"Scale {board['scale']}, {board['seeds']} seeds; {board['date']}; {facts['cores']} cores "
        f"({facts['processor']}), {facts['system']}; Python {facts['python']}, "
        + ", ".join(f"{name} {facts[name]}" for name in (*PACKAGES, "nearfar"))
        + f"; {board['cpu_seconds']:,.0f} s of CPU time in all.\n",
        "| recipe | verdict | effect [95 % interval] | margin | sabotage | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for claim in board["claims"]:
        effects = [f"{said['measure']}: {effect(said)}" for said in claim["statements"]]
        margins = [f"{said['margin']:g}" for said in claim["statements"]]
        cells = [
            f"[{claim['id']}](#{claim['id']})" + (" (weak)" if claim["weak"] else ""),
            f"**{claim['verdict']}**" if claim["verdict"] != "holds" else "holds",
            "<br>".join(effects) or "; ".join(claim["errors"]),
            "<br>".join(margins),
            caught_word(claim),
            f"{claim['seconds'].get('cpu', 0.0):.1f}",
        ]
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    for claim in board["claims"]:
        lines += _section(claim)
    return "\n".join(lines) + "\n"


def _section(claim: Mapping[str, Any]) -> list[str]:
    lines = [f"\n## {claim['id']}\n", f"{claim['title']} ({claim['paper']}). {claim['claim']}\n"]
    lines.append(f"**{claim['sentence']}**" + (" " + _WEAK if claim["weak"] else "") + "\n")
    if claim["statements"]:
        spoilt = claim["sabotage"]["statements"] or [None] * len(claim["statements"])
        lines += ["| statement | effect [95 % interval] | margin | verdict | sabotaged |", "|---|---|---|---|---|"]
        for said, other in zip(claim["statements"], spoilt, strict=True):
            cells = [said["statement"], effect(said), f"{said['margin']:g}", said["verdict"], effect(other)]
            lines.append("| " + " | ".join(map(_cell, cells)) + " |")
        lines += ["", "| arm | measure | mean [95 % interval] | sabotaged |", "|---|---|---|---|"]
        for arm, measures in claim["arms"].items():
            for name, of in measures.items():
                other = claim["sabotage"]["arms"].get(arm, {}).get(name)
                lines.append("| " + " | ".join(map(_cell, [arm, name, mean(of), mean(other)])) + " |")
        lines.append("")
    lines.append(f"World: {claim['world']}\n")
    lines.append(f"Sabotage ({caught_word(claim)}): {claim['sabotage']['what']}.\n")
    margins = dict.fromkeys(
        (f"margin {said['margin']:g}: " if said["margin"] else "") + said["because"]
        for said in claim["statements"]
        if said["because"]
    )
    if margins:
        lines.append("Why: " + "; ".join(margins) + ".\n")
    if claim["not_asserted"]:
        lines.append(f"Not asserted: {claim['not_asserted']}\n")
    lines += [f"Warned: {warning}\n" for warning in claim["warnings"]]
    seconds = claim["seconds"]
    if seconds:
        lines.append(
            f"{seconds['cpu']:.1f} s of CPU time, {seconds['wall']:.1f} s on the wall of its workers; "
            f"{claim['finished']}; code `{claim['fingerprint']}`."
        )
    return [line if line.startswith("|") else _plain(line) for line in lines]


_WEAK = "Weak: the formula is an interpretation, or the paper's figures were not seen."


def _cell(text: str) -> str:
    return "<br>".join(_plain(" ".join(line.split())).replace("|", "\\|") for line in text.split("<br>"))


def _plain(text: str) -> str:
    """A text that is not read as HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def caught_word(claim: Mapping[str, Any]) -> str:
    """``caught``, ``passes``, ``not judged`` or, where the claim itself does not hold, ``caught (says little)``."""
    if claim["sabotage"]["caught"] is None:
        return "not judged"
    if not claim["sabotage"]["caught"]:
        return "passes"
    return "caught" if claim["verdict"] == "holds" else "caught (says little)"


def effect(statement: Mapping[str, Any] | None) -> str:
    """``+0.031 [+0.012, +0.050]``."""
    if statement is None:
        return ""
    return f"{signed(statement['effect'])} [{signed(statement['low'])}, {signed(statement['high'])}]"


def mean(of: Mapping[str, Any] | None) -> str:
    """``0.931 [0.912, 0.950]``."""
    return "" if of is None else f"{number(of['mean'])} [{number(of['low'])}, {number(of['high'])}]"


def number(value: float | None) -> str:
    """A figure with about four digits, and no more than three decimals; ``…`` for an end that is not there."""
    if value is None:
        return "…"
    size = abs(value)
    if size and (size < 0.0005 or size >= 1e6):
        return f"{value:.2e}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"


def signed(value: float | None) -> str:
    """Like :func:`number`, with a plus sign before positive figures."""
    return f"+{number(value)}" if value is not None and value > 0 else number(value)
