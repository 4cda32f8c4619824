"""Finding recipes: one module a paper under ``recipes/<wing>/``, each with a ``RECIPE``."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

from nearfar.errors import DataError, UsageError
from nearfar.recipes.recipe import Recipe

_HERE = Path(__file__).parent
_PACKAGE = __name__.rpartition(".")[0]


@functools.cache
def wings() -> tuple[str, ...]:
    """The wings in alphabetical order."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules([str(_HERE)]) if found.ispkg))


def names(wing: str | None = None) -> dict[str, str]:
    """The module of each recipe by its id, of all wings or one, by wing and id; nothing is imported.

    Raises :class:`~nearfar.errors.UsageError` for no such wing.
    """
    if wing is not None and wing not in wings():
        raise UsageError(f"there is no wing {wing!r}", hint=f"choose one of {', '.join(wings())}")
    return {
        found.name.replace("_", "-"): f"{_PACKAGE}.{each}.{found.name}"
        for each in ([wing] if wing else wings())
        for found in sorted(pkgutil.iter_modules([str(_HERE / each)]))
        if not found.name.startswith("_")
    }


def recipes(wing: str | None = None) -> list[Recipe]:
    """All recipes, or one wing's, by wing and id. Raises :class:`~nearfar.errors.UsageError` for no such wing."""
    return [of_module(module) for module in names(wing).values()]


def find(name: str) -> Recipe:
    """The recipe of that id (case, blanks and underscores do not matter), or of a file ``name.py`` of one's own.

    Raises :class:`~nearfar.errors.UsageError` with the nearest ids when there is none.
    """
    if name.strip().endswith(".py"):
        return of_file(name.strip())
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    known = names()
    if wanted in known:
        return of_module(known[wanted])
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.65)
    raise UsageError(
        f"there is no recipe {name!r}",
        hint=(f"did you mean {' or '.join(near)}? " if near else "") + "nearfar recipes lists all",
    )


def of_file(path: str | Path) -> Recipe:
    """The ``RECIPE`` of a Python file, which is run as an import would, anew each time.

    Raises :class:`~nearfar.errors.UsageError` when there is no such file, :class:`~nearfar.errors.DataError` when it
    cannot be run or holds no recipe.
    """
    place = Path(path).resolve()
    if not place.is_file():
        raise UsageError(f"there is no file {str(path)!r}", hint="name a Python file with a RECIPE, or a recipe's id")
    # a name of its own by the place, so that two files called alike do not take each other's
    name = f"nearfar_recipe_{hashlib.sha256(str(place).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise DataError(f"the file cannot be run: {type(error).__name__}: {error}", where=str(place)) from error
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise DataError("the file holds no RECIPE", where=str(place), hint="RECIPE = nearfar.recipes.Recipe(...)")
    return recipe


def of_module(name: str) -> Recipe:
    """The ``RECIPE`` of an importable module. Raises :class:`~nearfar.errors.DataError` when it holds none."""
    recipe = getattr(importlib.import_module(name), "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise DataError("the module holds no RECIPE", where=name)
    return recipe
