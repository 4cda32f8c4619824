"""Text views by name, and as they are written on the command line: ``synonym:0.2+punctuation``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from nearfar.errors import UsageError
from nearfar.views.text.catalogue import CATALOGUE, ELSEWHERE, LEVELS, Entry

RESOURCES: Mapping[str, str] = {
    "thesaurus": "a file, a mapping or WordNet's folder: thesaurus=synonyms.txt",
    "antonyms": "a file, a mapping or WordNet's folder: antonyms=opposites.txt",
    "texts": "the texts whose words are counted; in training those that are trained on",
    "model": "the folder of a model, or a function of texts",
    "there": "the folder of a translation model, or a function of texts",
    "back": "the folder of a translation model, or a function of texts",
    "parse": "a function from a text to its words and their heads",
    "special": "the ids of special tokens, those of an encoder",
    "similar": "tokens that are similar to each, from an encoder's table",
    "vocabulary": "how many ids there are, those of an encoder",
}
"""What a view can need and what that is."""


def names(level: str | None = None) -> list[str]:
    """The names of all views, or of those of a level."""
    return [entry.name for entry in CATALOGUE if level in (None, entry.level)]


def find(name: str) -> Entry:
    """The entry of that name (case, blanks and underscores do not matter).

    Raises :class:`~nearfar.errors.UsageError` with the nearest names where there is none.
    """
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    for entry in CATALOGUE:
        if entry.name == wanted:
            return entry
    near = difflib.get_close_matches(wanted, names(), n=3, cutoff=0.6)
    raise UsageError(
        f"there is no text view {name!r}",
        hint=(f"did you mean {' or '.join(near)}? " if near else "") + "nearfar views lists all",
    )


def get(name: str, strength: Any = None, **options: Any) -> Any:
    """The view ``name``, made with ``options``; ``strength`` stands for the argument that says how much is changed.

    On strings it is a :class:`~nearfar.views.text.base.TextView` (a
    :class:`~nearfar.views.text.base.TextPairs` where it gives both views), on token ids a
    :class:`~nearfar.views.View`, inside the encoder what :mod:`nearfar.views.text.latent` says.

    Raises UsageError for a name or an option that there is not, and for what has to be given and is missing.
    """
    entry = find(name)
    taken = entry.arguments
    if strength is not None:
        if not entry.strength:
            raise UsageError(f"{entry.name} has nothing that says how much is changed", hint=_listed(entry))
        options = {entry.strength: strength, **options}
    for option in options:
        if option not in taken:
            raise UsageError(f"{entry.name} has no option {option!r}", hint=_listed(entry))
    missing = [need for need in entry.needs if need not in options]
    if missing:
        raise UsageError(
            f"{entry.name} needs {' and '.join(missing)}",
            hint="; ".join(f"{each}: {RESOURCES.get(each, 'see its page')}" for each in missing),
        )
    return entry.make(**entry.preset, **options)


def parse(written: str) -> list[tuple[Entry, dict[str, Any]]]:
    """Views as they are written: names joined by ``+``, each with a strength behind a colon and options behind commas,
    ``crop:0.5..0.9+keyboard:0.02,p=0.5``.

    A range is two numbers joined by ``..``. Raises UsageError for what is written otherwise, and as :func:`find`.
    """
    found = []
    for part in written.split("+"):
        head, *more = part.split(",")
        name, colon, strength = head.partition(":")
        entry = find(name)
        options: dict[str, Any] = {}
        if colon:
            if not entry.strength:
                raise UsageError(f"{entry.name} has nothing that says how much is changed", hint=_listed(entry))
            options[entry.strength] = value_of(strength)
        for each in more:
            option, equals, value = each.partition("=")
            if not equals or not option.strip():
                raise UsageError(f"{each!r} is not an option", hint="write name:strength,option=value")
            options[option.strip()] = value_of(value)
        for option in options:
            if option not in entry.arguments:
                raise UsageError(f"{entry.name} has no option {option!r}", hint=_listed(entry))
        found.append((entry, options))
    return found


def value_of(written: str) -> Any:
    """A value as it is written: a whole number, a number, a range ``low..high``, true, false, none or words."""
    text = written.strip()
    low, dots, high = text.partition("..")
    if dots and low and high:
        pair = value_of(low), value_of(high)
        if all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in pair):
            return pair
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return text


def table() -> str:
    """All views as a table of Markdown, level by level, and what of the list is none."""
    lines = []
    for level, what in LEVELS.items():
        lines += [f"### {level[0].upper()}{level[1:]}: {what}", "", *_head()]
        for entry in CATALOGUE:
            if entry.level == level:
                lines.append(_row(entry))
        lines.append("")
    return "\n".join([*lines, *(f"{number}. {where}" for number, where in ELSEWHERE.items())])


def _head() -> list[str]:
    names_of = ("name", "no.", "what it does", "strength", "usual", "needs", "gives", "after")
    return [f"| {' | '.join(names_of)} |", "|" + "---|" * len(names_of)]


def _row(entry: Entry) -> str:
    cells = [
        f"`{entry.name}`",
        ", ".join(map(str, entry.numbers)),
        entry.rule,
        f"`{entry.strength}`" if entry.strength else "",
        entry.usual,
        ", ".join(entry.needs),
        entry.gives,
        entry.source,
    ]
    return f"| {' | '.join(cells)} |"


def _listed(entry: Entry) -> str:
    import inspect

    shown = [
        name if default is inspect.Parameter.empty else f"{name}={default!r}"
        for name, default in entry.arguments.items()
        if not isinstance(default, frozenset)
    ]
    return f"options of {entry.name}: " + (", ".join(shown) or "none")
