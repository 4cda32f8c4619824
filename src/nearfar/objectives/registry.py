"""The catalogue: objectives by name."""

from __future__ import annotations

import difflib
import inspect
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

    Raises UsageError for an unknown name (with the nearest ones) and for arguments the objective does not take.
    """
    cls, preset = find(name)
    arguments = {**preset, **arguments}
    known = inspect.signature(cls).parameters
    takes_more = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    unknown = [argument for argument in arguments if argument not in known]
    if unknown and not takes_more:
        raise UsageError(
            f"{cls.name} takes no {', '.join(map(repr, unknown))}",
            hint="it takes " + ", ".join(known),
        )
    return cls(**arguments)


def find(name: str) -> tuple[type[Objective], dict[str, Any]]:
    """The class called ``name`` and the arguments that this name stands for. Raises UsageError for an unknown name."""
    found = _BY_NAME.get(_key(name))
    if found is None:
        near = difflib.get_close_matches(_key(name), _BY_NAME, n=3, cutoff=0.5)
        nearest = ", ".join(sorted({_BY_NAME[key][0].name for key in near}))
        raise UsageError(
            f"there is no objective called {name!r}",
            hint=(f"did you mean {nearest}? " if nearest else "") + "`nearfar objectives` lists them",
        )
    return found


def catalogue() -> list[type[Objective]]:
    """All objectives, ordered by kind and name."""
    order = {"row": 0, "view": 1, "point": 2, "preference": 3}
    return sorted(_CLASSES.values(), key=lambda cls: (order[cls.kind], cls.name))


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
