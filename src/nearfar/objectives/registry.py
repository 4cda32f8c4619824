"""The catalogue: objectives by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from nearfar.errors import UsageError
from nearfar.objectives.base import Objective

Kind = TypeVar("Kind", bound=type[Objective])

_BY_NAME: dict[str, tuple[type[Objective], dict[str, Any]]] = {}
_CLASSES: dict[str, type[Objective]] = {}


def register(objective: Kind) -> Kind:
    """Class decorator: enter an objective into the catalogue under its ``name`` and ``aliases``."""
    for name, preset in {objective.name: {}, **objective.aliases}.items():
        key = _key(name)
        if key in _BY_NAME and _BY_NAME[key][0] is not objective:
            raise ValueError(f"two objectives are called {name!r}")
        _BY_NAME[key] = (objective, preset)
    _CLASSES[objective.name] = objective
    return objective


def get(name: str, **arguments: Any) -> Objective:
    """The objective called ``name`` or by an alias (case, ``-`` and ``_`` do not matter), made with ``arguments``.

    An objective that wraps another names it in brackets, ``get("matryoshka(info-nce)", temperature=0.05)``; arguments
    that the outer one does not take go to the inner one.

    Raises UsageError for an unknown name (with the nearest ones) and for arguments the objective does not take.
    """
    cls, preset = find(name)
    arguments = {**preset, **arguments}
    known = inspect.signature(cls).parameters
    if "objective" in known:
        arguments = _handed_on(arguments, known)
    takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    unknown = [argument for argument in arguments if argument not in known]
    if unknown and not takes_more:
        raise UsageError(
            f"{cls.name} takes no {', '.join(map(repr, unknown))}",
            hint="it takes " + ", ".join(known),
        )
    return cls(**arguments)


def find(name: str) -> tuple[type[Objective], dict[str, Any]]:
    """The class called ``name`` and the arguments that this name stands for; "Loss" at the end may stand there or not,
    as in the class names of other libraries. Raises UsageError for an unknown name."""
    outer, bracket, inner = name.partition("(")
    if bracket:
        return _wrapped(outer, inner.strip(), name)
    key = _key(name)
    found = _BY_NAME.get(key) or _BY_NAME.get(key.removesuffix("loss"))
    if found is None:
        near = difflib.get_close_matches(key, _BY_NAME, n=3, cutoff=0.5)
        nearest = ", ".join(sorted({_BY_NAME[other][0].name for other in near}))
        raise UsageError(
            f"there is no objective called {name!r}",
            hint=(f"did you mean {nearest}? " if nearest else "") + "`nearfar objectives` lists them",
        )
    return found


def _wrapped(outer: str, inner: str, name: str) -> tuple[type[Objective], dict[str, Any]]:
    """The class and arguments of ``outer(inner)``."""
    if not outer.strip() or not inner.endswith(")") or not inner[:-1].strip():
        raise UsageError(f"{name!r} is not an objective", hint="write outer(inner), e.g. matryoshka(info-nce)")
    cls, preset = find(outer)
    if "objective" not in inspect.signature(cls).parameters:
        takers = ", ".join(c.name for c in catalogue() if "objective" in inspect.signature(c).parameters)
        raise UsageError(f"{cls.name} wraps no other objective", hint=f"these do: {takers}")
    find(inner[:-1])
    return cls, {**preset, "objective": inner[:-1].strip()}


def _handed_on(arguments: dict[str, Any], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The arguments of a wrapper: what it does not take itself makes the objective that it wraps."""
    own = {name: value for name, value in arguments.items() if name in known}
    rest = {name: value for name, value in arguments.items() if name not in known}
    inner = own.get("objective", known["objective"].default)
    if rest and isinstance(inner, str):
        return {**own, "objective": get(inner, **rest)}
    return arguments


def catalogue() -> list[type[Objective]]:
    """All objectives, ordered by kind and name."""
    order = {"row": 0, "view": 1, "point": 2, "preference": 3, "combination": 4}
    return sorted(_CLASSES.values(), key=lambda cls: (order[cls.kind], cls.name))


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
