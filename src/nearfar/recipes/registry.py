"""Finding recipes: one module a paper under ``recipes/<wing>/``, each with a ``RECIPE``."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from pathlib import Path

from nearfar.errors import UsageError
from nearfar.recipes.recipe import Recipe

_HERE = Path(__file__).parent
_PACKAGE = __name__.rpartition(".")[0]


@functools.cache
def wings() -> tuple[str, ...]:
    """The wings in alphabetical order."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules([str(_HERE)]) if found.ispkg))


def recipes(wing: str | None = None) -> list[Recipe]:
    """All recipes, or one wing's, by wing and id. Raises :class:`~nearfar.errors.UsageError` for no such wing."""
    if wing is not None and wing not in wings():
        raise UsageError(f"there is no wing {wing!r}", hint=f"choose one of {', '.join(wings())}")
    return [recipe for name in ([wing] if wing else wings()) for recipe in _of_wing(name)]


def find(name: str) -> Recipe:
    """The recipe of that id; case, blanks and underscores do not matter.

    Raises :class:`~nearfar.errors.UsageError` with the nearest ids when there is none.
    """
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    known = {recipe.id: recipe for recipe in recipes()}
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    raise UsageError(
        f"there is no recipe {name!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "nearfar recipes lists all",
    )


@functools.cache
def _of_wing(wing: str) -> tuple[Recipe, ...]:
    modules = (
        importlib.import_module(f"{_PACKAGE}.{wing}.{found.name}")
        for found in pkgutil.iter_modules([str(_HERE / wing)])
        if not found.name.startswith("_")
    )
    return tuple(sorted((module.RECIPE for module in modules), key=lambda recipe: recipe.id))
