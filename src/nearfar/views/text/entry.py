"""What the catalogue says of a text view."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["words", "characters", "passages", "models", "tokens", "latent"]
Gives = Literal["positive", "negative", "both views"]

LEVELS: Mapping[Level, str] = {
    "words": "strings, word by word",
    "characters": "strings, character by character",
    "passages": "strings, by sentences and spans",
    "models": "strings, by a model or a parser that you name",
    "tokens": "token ids: after tokenising, whatever the language",
    "latent": "inside the encoder",
}
"""What each level works on."""


@dataclass(frozen=True)
class Entry:
    """One view.

    Arguments:
        name: it is found by. numbers: of the transformations it is, of the review's list.
        level: what it works on, see :data:`LEVELS`.
        rule: what it does. usual: how it is set. source: who introduced or used it.
        place: the class, as ``module:name`` within ``nearfar.views``.
        strength: the argument that says how much is changed, "" where there is none.
        preset: arguments that are not for the caller.
        gives: a text of the same meaning, one of another (a hard negative), or both views of a pair.
        random: whether two calls differ.
    """

    name: str
    numbers: tuple[int, ...]
    level: Level
    rule: str
    usual: str
    source: str
    place: str
    strength: str = ""
    preset: Mapping[str, Any] = field(default_factory=dict)
    gives: Gives = "positive"
    random: bool = True

    @property
    def make(self) -> Callable[..., Any]:
        """What makes the view."""
        module, _, name = self.place.partition(":")
        found: Any = importlib.import_module(f"nearfar.views.{module}")
        for part in name.split("."):
            found = getattr(found, part)
        made: Callable[..., Any] = found
        return made

    @property
    def arguments(self) -> dict[str, Any]:
        """What it can be made with and the defaults; ``inspect.Parameter.empty`` for what has to be given."""
        taken = inspect.signature(self.make).parameters.values()
        return {each.name: each.default for each in taken if each.name not in self.preset}

    @property
    def needs(self) -> tuple[str, ...]:
        """The arguments that have to be given: a thesaurus, a model, the special tokens of a vocabulary."""
        return tuple(name for name, default in self.arguments.items() if default is inspect.Parameter.empty)
