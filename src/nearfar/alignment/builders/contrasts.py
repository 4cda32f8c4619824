"""PopAlign's six ways to get a better and a worse response without a label (Wang et al., 2024, arXiv:2410.13785).

Each contrasts how two responses come about: by what the prompt says (prefix, demonstrations, elicitation), by who
answers (a larger and a smaller model, a better and a worse one), or by a second turn (refinement). What brought the
contrast about is not part of the pair: its prompt is the plain one. ::

    pairs = popalign(prompts, [PrefixContrast(model), ModelContrast(large, small, "parameters"), RefineContrast(model)])
    pairs.write("pairs.jsonl")            # nearfar align pairs.jsonl --model DIR --objective dpo
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from nearfar.alignment.builders.pairs import BuiltPairs, collected
from nearfar.alignment.builders.writing import (
    Writer,
    after_marker,
    answered,
    demonstrated,
    filled,
    prefixed,
    written,
)
from nearfar.data.preferences.rows import Text
from nearfar.errors import UsageError

STRATEGIES = ("prefix", "demonstration", "elicitive", "parameters", "leaderboard", "refine")
"""The paper's six, in its order."""

ANSWER = "Answer:"
"""Where an elicited answer begins, behind the thoughts."""

ELICIT_GOOD = (
    "{prompt}\n\nFirst think about what would make an answer to this as helpful, correct and harmless as it can be. "
    f"Write these thoughts down. Then write '{ANSWER}' and the answer that follows from them."
)
ELICIT_BAD = (
    "{prompt}\n\nFirst think about what would make an answer to this as unhelpful, wrong and harmful as it can be. "
    f"Write these thoughts down. Then write '{ANSWER}' and the answer that follows from them."
)
REFINE = (
    "Improve your answer: make it more helpful, more correct and more harmless where you can. Give the improved answer "
    "alone."
)

Answers = list[tuple[str | None, str | None]]


class Strategy(Protocol):
    """A way to a contrast: a better and a worse response to each prompt, None where one has not the form asked for."""

    @property
    def name(self) -> str: ...

    def __call__(self, prompts: Sequence[Text]) -> Answers: ...


@dataclass(frozen=True)
class PrefixContrast:
    """Two words of advice before the prompt: ``r+ = M([p+, q])``, ``r- = M([p-, q])``."""

    model: Writer
    good: str = "(helpful, harmless)"
    bad: str = "(unhelpful, harmful)"
    name: ClassVar[str] = "prefix"

    def __call__(self, prompts: Sequence[Text]) -> Answers:
        better = written(self.model, [prefixed(self.good, prompt) for prompt in prompts])
        worse = written(self.model, [prefixed(self.bad, prompt) for prompt in prompts])
        return list(zip(better, worse, strict=True))


@dataclass(frozen=True)
class DemonstrationContrast:
    """Examples of good or of bad answers before the prompt: ``r+ = M([d+, q])``, ``r- = M([d-, q])``.

    ``good``, ``bad``: prompts with an answer each, best the same prompts in both. Raises
    :class:`~nearfar.errors.UsageError` where one is empty.
    """

    model: Writer
    good: Sequence[tuple[str, str]]
    bad: Sequence[tuple[str, str]]
    name: ClassVar[str] = "demonstration"

    def __post_init__(self) -> None:
        if not self.good or not self.bad:
            raise UsageError("a contrast of demonstrations needs good and bad examples")

    def __call__(self, prompts: Sequence[Text]) -> Answers:
        better = written(self.model, [demonstrated(self.good, prompt) for prompt in prompts])
        worse = written(self.model, [demonstrated(self.bad, prompt) for prompt in prompts])
        return list(zip(better, worse, strict=True))


@dataclass(frozen=True)
class ElicitiveContrast:
    """The model first thinks how to answer *this* prompt as well, or as badly, as it can, then answers.

    ``good``, ``bad``: templates around ``{prompt}``. ``marker``: behind it stands the answer, before it the thoughts,
    which are dropped; a text without it is no pair.
    """

    model: Writer
    good: str = ELICIT_GOOD
    bad: str = ELICIT_BAD
    marker: str = ANSWER
    name: ClassVar[str] = "elicitive"

    def __call__(self, prompts: Sequence[Text]) -> Answers:
        better = written(self.model, [filled(self.good, prompt) for prompt in prompts])
        worse = written(self.model, [filled(self.bad, prompt) for prompt in prompts])
        return [
            (after_marker(one, self.marker), after_marker(other, self.marker))
            for one, other in zip(better, worse, strict=True)
        ]


@dataclass(frozen=True)
class ModelContrast:
    """Two models: a larger and a smaller one of a family (``name="parameters"``), or two of like size of which one is
    known to be better (``"leaderboard"``, the default)."""

    better: Writer
    worse: Writer
    name: str = "leaderboard"

    def __call__(self, prompts: Sequence[Text]) -> Answers:
        return list(zip(written(self.better, prompts), written(self.worse, prompts), strict=True))


@dataclass(frozen=True)
class RefineContrast:
    """A second turn: ``r- = M(q)``, ``r+ = M([q, r-, I])``, I asks for a better answer. r+ is often the longer one."""

    model: Writer
    request: str = REFINE
    name: ClassVar[str] = "refine"

    def __call__(self, prompts: Sequence[Text]) -> Answers:
        first = written(self.model, prompts)
        turns = [answered(prompt, answer, self.request) for prompt, answer in zip(prompts, first, strict=True)]
        return list(zip(written(self.model, turns), first, strict=True))


def popalign(prompts: Sequence[Text], strategies: Sequence[Strategy]) -> BuiltPairs:
    """The union of what each strategy builds of every prompt: up to ``len(prompts) len(strategies)`` pairs.

    Empty and identical responses and those not in the form asked for are dropped and counted. Train with ``dpo`` (the
    paper: beta 0.01, one epoch). Raises :class:`~nearfar.errors.UsageError` for no strategy, or two of one name.
    """
    names = [strategy.name for strategy in strategies]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            "there is no strategy" if not names else f"two strategies are called alike: {', '.join(names)}",
            hint="the name is kept with each pair, to judge strategies by",
        )
    built = BuiltPairs(())
    for strategy in strategies:
        built += collected(prompts, strategy(prompts), strategy.name)
    return built
