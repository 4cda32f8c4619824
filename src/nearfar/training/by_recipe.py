"""A run by a recipe: its options checked, and whether data and encoder have what it takes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.errors import UsageError
from nearfar.training import processes
from nearfar.training.text_training import Need, Option, TextTraining

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

NEEDS: dict[Need, str] = {
    "transformer": "a transformer",
    "dropout": "dropout at a rate above 0",
    "masked-lm": "a head that predicts masked tokens",
    "attentions": "attention maps that can be looked at",
}
"""What each need asks of an encoder, in a few words."""


_COLUMNS = {
    "documents": "documents are read from columns text and document: --columns text=...,document=...; from plain text "
    "by --columns text,document=blank-line (blank lines end them) or document=file (each file is one)",
    "captions": "captions are read from columns text and image: --columns text=...,image=...",
    "domains": "domains are read from columns text, label and domain: --columns text=...,label=...,domain=...",
}
"""How shapes are asked for that are not found by the names of columns alone."""


@dataclass(frozen=True)
class RecipeRun:
    """The recipe of a run: its ``id`` (or file), its ``paper``, how it trains, and its options, checked and complete.

    ``others()`` gives how every recipe that can train does, by its id; for advice where this one cannot.
    """

    id: str
    paper: str
    training: TextTraining
    options: Mapping[str, Option]
    others: Callable[[], Mapping[str, TextTraining]] = dict


def recommended(run: RecipeRun) -> dict[str, Any]:
    """The settings that the recipe sets, without the length of a text, which is for training alone."""
    return {name: value for name, value in run.training.settings.items() if name != "max_length"}


def complete(name: str, training: TextTraining, given: Mapping[str, Any]) -> dict[str, Option]:
    """All options of a recipe called ``name``: what is ``given``, and the defaults of the rest.

    A whole number does for any number, and what was read as a number for a word. Raises :class:`UsageError`, with all
    options and their defaults, for one that there is not and for a value of another type.
    """
    for option, value in given.items():
        if option not in training.options:
            near = difflib.get_close_matches(option, training.options, n=1)
            raise UsageError(
                f"{name} has no option {option!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                where=_where(option),
                hint=_listed(name, training),
            )
        if not _fits(value, training.options[option]):
            kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
            raise UsageError(
                f"{option} of {name} cannot be {value!r}: it is {kind[type(training.options[option])]}",
                where=_where(option),
                hint=_listed(name, training),
            )
    return {
        option: type(default)(given[option]) if option in given else default
        for option, default in training.options.items()
    }


def _where(option: str) -> str:
    return "--temperature" if option == "temperature" else f"--set {option}=..."


def _fits(value: Any, default: Option) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, int):
        return isinstance(value, int)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, (str, int, float))


def _listed(name: str, training: TextTraining) -> str:
    if not training.options:
        return f"{name} has no options"
    return f"options of {name}: " + ", ".join(f"{option}={value}" for option, value in training.options.items())


def check_shape(run: RecipeRun, shape: str) -> None:
    """Raise :class:`UsageError` where the recipe takes no data of this ``shape``, with those it takes and with the
    recipes that do."""
    if shape in run.training.shapes:
        return
    fitting = [name for name, other in run.others().items() if shape in other.shapes]
    more = [_COLUMNS[wanted] for wanted in run.training.shapes if wanted in _COLUMNS]
    raise UsageError(
        f"{run.id} trains on {' or '.join(run.training.shapes)}, and these data are {shape}",
        where=f"--recipe {run.id}",
        hint="\n".join([*more, _advice(shape, fitting)]),
    )


def check_encoder(run: RecipeRun, shape: str, encoder: SentenceTransformer, source: Path | None) -> None:
    """Raise :class:`UsageError` where the ``encoder``, loaded from the folder ``source``, lacks what the recipe needs,
    with what it lacks and the recipes that would do with this encoder on data of this ``shape``."""
    lacking = [need for need in run.training.needs if not has(encoder, need, source)]
    if not lacking:
        return
    fitting = [
        name
        for name, other in run.others().items()
        if shape in other.shapes and all(has(encoder, need, source) for need in other.needs)
    ]
    use = "a model folder with its masked-LM head" if "masked-lm" in lacking else "another encoder, such as minilm"
    raise UsageError(
        f"{run.id} needs {' and '.join(NEEDS[need] for need in lacking)}; this encoder lacks "
        + ("it" if len(lacking) == 1 else "them"),
        where=f"--encoder {source if source is not None else 'static'}",
        hint=f"use {use}; with this encoder, {_advice(shape, fitting)}",
    )


def check_processes(run: RecipeRun) -> None:
    """Raise :class:`UsageError` where there are several processes and the recipe's method is for one."""
    count = processes.world_size()
    if count > 1 and not getattr(run.training.method, "distributed", False):
        raise UsageError(
            f"{run.id} trains in one process, and there are {count}",
            where="torchrun",
            hint="start it without torchrun, or train by an objective (nearfar objectives), which takes any number",
        )


def has(encoder: SentenceTransformer, need: Need, source: Path | None) -> bool:
    """Whether the ``encoder``, loaded from the folder ``source`` (None: it was made), has what is needed."""
    from nearfar.encoders import abilities

    if need == "transformer":
        return abilities.has_transformer(encoder)
    if need == "dropout":
        return abilities.has_dropout(encoder)
    if need == "attentions":
        return abilities.has_attentions(encoder)
    return source is not None and abilities.has_masked_language_head(source)


def _advice(shape: str, recipes: list[str]) -> str:
    if recipes:
        return f"recipes for {shape}: {', '.join(recipes)}"
    return f"no recipe takes {shape}; see the objectives that do (nearfar objectives)"
