"""CLAIR's pairs, a model's answer beside its minimal revision, and three ways that revise nothing.

D'Oosterlinck et al., 2024, arXiv:2408.06266. How much the two responses of a pair have in common is measured in
:mod:`nearfar.alignment.builders.contrastiveness`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nearfar.alignment.builders.pairs import UNDECIDED, BuiltPairs, collected
from nearfar.alignment.builders.writing import Judge, Writer, after_marker, written
from nearfar.data.preferences.rows import Text, plain

Reviser = Callable[[Text, str], str | None]
"""``revise(prompt, answer)``: the answer with as little changed as makes it better; None where it failed."""

REVISED = "Revised answer:"
"""Where the revision begins, behind the reasoning."""

REQUEST = (
    "Below are a task and an answer to it. First reason about how the answer could be improved: where it could be "
    "clearer, more correct or more engaging. Then revise it. Change as little as the improvements need, copy "
    "everything else word for word, and do not mention that it is a revision.\n\nTask:\n{prompt}\n\nAnswer:\n{answer}"
    f"\n\nWrite your reasoning, then '{REVISED}' and the whole revised answer."
)


@dataclass(frozen=True)
class WrittenRevision:
    """A reviser that asks a language model to reason and then to revise.

    ``writer``: the model, usually a stronger one. ``request``: with the places ``{prompt}`` and ``{answer}``.
    ``marker``: behind its last mention stands the revision; a text without it failed.
    """

    writer: Writer
    request: str = REQUEST
    marker: str = REVISED

    def __call__(self, prompt: Text, answer: str) -> str | None:
        return self.many([prompt], [answer])[0]

    def many(self, prompts: Sequence[Text], answers: Sequence[str]) -> list[str | None]:
        """A revision of each answer."""
        asked = [self._asked(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return [after_marker(text, self.marker) for text in written(self.writer, asked)]

    def _asked(self, prompt: Text, answer: str) -> str:
        # one place after the other: the prompt or the answer may hold the name of a place
        before, place, behind = self.request.partition("{prompt}")
        task = plain(prompt) if place else ""
        return before.replace("{answer}", answer) + task + behind.replace("{answer}", answer)


def clair(prompts: Sequence[Text], model: Writer, reviser: Reviser) -> BuiltPairs:
    """Contrastive learning from AI revisions: ``y_l`` is what ``model``, which is to be aligned, answers; ``y_w`` what
    ``reviser`` makes of it. Revisions that failed or changed nothing are dropped and counted."""
    answers = written(model, prompts)
    many: Any = getattr(reviser, "many", None)
    revised = many(prompts, answers) if callable(many) else list(map(reviser, prompts, answers))
    better = [None if each is None else each.strip() for each in revised]
    return collected(prompts, zip(better, answers, strict=True), "clair")


def on_policy_judge(prompts: Sequence[Text], model: Writer, judge: Judge) -> BuiltPairs:
    """Two samples of the model that is to be aligned; a judge picks."""
    return _judged(prompts, written(model, prompts), written(model, prompts), judge, "on-policy judge")


def off_policy_judge(prompts: Sequence[Text], first: Writer, second: Writer, judge: Judge) -> BuiltPairs:
    """A sample of each of two other models; a judge picks."""
    return _judged(prompts, written(first, prompts), written(second, prompts), judge, "off-policy judge")


def stronger_preferred(prompts: Sequence[Text], stronger: Writer, model: Writer) -> BuiltPairs:
    """A stronger model's own answer is taken to be better than that of the model to be aligned; nobody judges."""
    pairs = zip(written(stronger, prompts), written(model, prompts), strict=True)
    return collected(prompts, pairs, "stronger preferred")


def _judged(prompts: Sequence[Text], first: list[str], second: list[str], judge: Judge, name: str) -> BuiltPairs:
    kept: list[Text] = []
    numbers: list[int] = []
    pairs: list[tuple[str | None, str | None]] = []
    undecided = 0
    for number, (prompt, one, other) in enumerate(zip(prompts, first, second, strict=True)):
        verdict = judge(prompt, one, other) if one and other and one != other else 1.0
        if verdict == 0:
            undecided += 1
            continue
        kept.append(prompt)
        numbers.append(number)
        pairs.append((one, other) if verdict > 0 else (other, one))
    found = collected(kept, pairs, name, numbers)
    lost = {(name, UNDECIDED): undecided} if undecided else {}
    return BuiltPairs(found.pairs, Counter(found.dropped) + Counter(lost))
