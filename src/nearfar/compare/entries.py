"""What is compared: objectives of the catalogue and recipes, with options and names of their own, from a line of text.

``"infonce, mine=infonce(temperature=0.1), matryoshka(dcl)"`` names three entries. An entry is

    ``[name=]objective[(inner objective, option=value, ...)]``

where the name is what tables call it (default: the text itself) and options are the objective's arguments.
``learning_rate=`` is understood everywhere. What an entry fixes is not searched.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives import Objective, find, get

_HINT = "write [name=]objective(option=value, ...), e.g. mine=infonce(temperature=0.1)"


@dataclass(frozen=True)
class Entry:
    """One of the things compared.

    Attributes:
        name: what tables call it.
        target: the name of an objective (with the one it wraps in brackets), or the id of a recipe.
        arguments: of the objective. learning_rate: fixed for this entry; None: searched.
        kind: "objective" or "recipe".
    """

    name: str
    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    kind: Literal["objective", "recipe"] = "objective"

    def make(self, **more: Any) -> Objective:
        """The objective, with ``more`` arguments. Raises UsageError for arguments that it does not take."""
        arguments = {**self.arguments, **more}
        if self.kind == "objective":
            return get(self.target, **arguments)
        build = self._build()
        try:
            inspect.signature(build).bind(**arguments)
        except TypeError as error:
            raise UsageError(f"the recipe {self.target} cannot be made so: {error}", where=self.name) from None
        made: Objective = build(**arguments)
        return made

    def makes_vectors_of(self, dimension: int) -> dict[str, int]:
        """``{"dimension": ...}`` where the objective holds vectors as long as the embeddings (prototypes), or {}."""
        maker = find(self.target)[0] if self.kind == "objective" else self._build()
        takes = "dimension" in inspect.signature(maker).parameters
        needed = takes and self.make().kind == "view" and "dimension" not in self.arguments
        return {"dimension": dimension} if needed else {}

    def temperature(self) -> float | None:
        """The temperature that it has by default, where that is a fixed one which may be set; None otherwise."""
        if "temperature" in self.arguments:
            return None
        made: Any = self.make()
        found = getattr(made, "temperature", None)
        while found is None and isinstance(getattr(made, "objective", None), Objective):
            made = made.objective
            found = getattr(made, "temperature", None)
        if isinstance(found, Temperature):
            found = None if found.varies else found.value
        if isinstance(found, bool) or not isinstance(found, (int, float)) or found <= 0:
            return None
        try:
            self.make(temperature=float(found))
        except (UsageError, TypeError):
            return None
        return float(found)

    def digest(self) -> str | None:
        """Of the file, where the entry is a recipe in a file of one's own, which may change between two calls."""
        if self.kind != "recipe" or not self.target.endswith(".py"):
            return None
        return hashlib.sha256(Path(self.target).read_bytes()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "target": self.target,
            "arguments": {key: value if _is_plain(value) else str(value) for key, value in self.arguments.items()},
            "learning_rate": self.learning_rate,
        }

    def _build(self) -> Any:
        from nearfar.recipes.registry import find as find_recipe

        recipe = find_recipe(self.target)
        if recipe.build is None:
            raise UsageError(
                f"the recipe {recipe.id} makes no objective for data of one's own",
                where="--recipes",
                hint=f"nearfar reproduce {recipe.id} repeats its experiment",
            )
        return recipe.build


def parse_entries(
    objectives: str | Sequence[str | Entry], recipes: str | Sequence[str | Entry] = ()
) -> tuple[Entry, ...]:
    """Entries from lines (or lists) of objectives and recipes, each checked: it exists and can be made.

    Raises :class:`UsageError` for what cannot be read, unknown names (with the nearest ones), options that are not
    taken, names given twice, and fewer than two entries.
    """
    entries: list[Entry] = []
    kinds: tuple[tuple[Literal["objective", "recipe"], str | Sequence[str | Entry]], ...] = (
        ("objective", objectives),
        ("recipe", recipes),
    )
    for kind, given in kinds:
        for item in _parts(given) if isinstance(given, str) else given:
            entries.append(item if isinstance(item, Entry) else _entry(item.strip(), kind))
    for entry in entries:
        entry.make()
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"{', '.join(map(repr, twice))} stands there twice", hint=f"give each a name: again={twice[0]}"
        )
    if len(entries) < 2:
        raise UsageError(
            f"a comparison needs at least two entries, and there {'is one' if entries else 'are none'}",
            where="--objectives",
            hint="--objectives infonce,dcl,supcon",
        )
    return tuple(entries)


def _entry(text: str, kind: Literal["objective", "recipe"]) -> Entry:
    name, spec = text, text
    before, sign, after = text.partition("=")
    if sign and "(" not in before:
        name, spec = before.strip(), after.strip()
    outer, bracket, rest = spec.partition("(")
    if not name or not outer.strip() or "=" in outer or (bracket and not rest.rstrip().endswith(")")):
        raise UsageError(f"{text!r} is no entry of a comparison", hint=_HINT)
    inner: list[str] = []
    arguments: dict[str, Any] = {}
    for part in _parts(rest.rstrip()[:-1]) if bracket else ():
        key, equals, value = part.partition("=")
        if equals and "(" not in key:
            arguments[key.strip().replace("-", "_")] = _value(value.strip())
        else:
            inner.append(part.strip())
    if len(inner) > 1 or (inner and kind == "recipe"):
        raise UsageError(f"{text!r} is no entry of a comparison", hint=_HINT)
    rate = arguments.pop("learning_rate", None)
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1e6):
        raise UsageError(f"the learning rate of {name} cannot be {rate!r}", hint="give a number above 0")
    target = f"{outer.strip()}({inner[0]})" if inner else outer.strip()
    return Entry(name, target, arguments, None if rate is None else float(rate), kind)


def _parts(text: str) -> list[str]:
    """``text`` cut at the commas outside of brackets; empty parts are left out."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise UsageError(f"the brackets of {text!r} do not match", hint=_HINT)
    return [part for part in parts if part.strip()]


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
