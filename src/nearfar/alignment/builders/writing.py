"""Who writes: any function from a prompt to a text; and prompts with something said before, around or after them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nearfar.data.preferences.rows import Text, as_messages, plain
from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch

    from nearfar.alignment.policy import Policy

Writer = Callable[[Text], str]
"""``write(prompt) -> text``: a language model, a template, a person. What has a method ``many(prompts)`` as well, such
as :class:`PolicyWriter`, is asked for all at once."""

Judge = Callable[[Text, str, str], float]
"""``judge(prompt, first, second)``: above 0 where the first response is better, below where the second is, 0 for
neither."""

Score = Callable[[Text, str], float]
"""``score(prompt, response)``: a number, higher is better; a metric, a rule or a reward model."""

PLACE = "{prompt}"
"""Where a template takes the prompt."""


@dataclass(frozen=True)
class PolicyWriter:
    """A policy as a writer: one sampled response a prompt.

    ``policy``: anything that samples texts, such as a language model's
    :class:`~nearfar.alignment.language.LanguagePolicy`. ``generator``: of its draws. ``batch_size``: prompts asked
    at once, default 32.
    """

    policy: Policy
    generator: torch.Generator | None = None
    batch_size: int = 32

    def __call__(self, prompt: Text) -> str:
        return self.many([prompt])[0]

    def many(self, prompts: Sequence[Text]) -> list[str]:
        """A response to each prompt."""
        found: list[str] = []
        for start in range(0, len(prompts), self.batch_size):
            block = prompts[start : start + self.batch_size]
            found += [responses[0] for responses in self.policy.sample(block, 1, generator=self.generator)]
        return found


def written(writer: Writer, prompts: Iterable[Text]) -> list[str]:
    """What ``writer`` writes to each prompt, stripped of white space around it.

    Raises :class:`~nearfar.errors.DataError` where that is no text.
    """
    asked = list(prompts)
    many: Any = getattr(writer, "many", None)
    answers = list(many(asked)) if callable(many) else [writer(prompt) for prompt in asked]
    if len(answers) != len(asked):
        raise DataError(f"the writer gave {len(answers)} texts for {len(asked)} prompts")
    for prompt, answer in zip(asked, answers, strict=True):
        if not isinstance(answer, str):
            raise DataError(
                f"a writer gives texts, this one gave {type(answer).__name__}", where=f"prompt {plain(prompt)[:80]!r}"
            )
    return [answer.strip() for answer in answers]


def by_score(score: Score) -> Judge:
    """The judge that prefers the higher ``score``."""
    return lambda prompt, first, second: score(prompt, first) - score(prompt, second)


def both_ways(judge: Judge) -> Judge:
    """A judge that is asked in both orders and decides nothing where the answers contradict each other, as a model that
    leans towards the first place does."""

    def decided(prompt: Text, first: str, second: str) -> float:
        one, other = judge(prompt, first, second), -judge(prompt, second, first)
        return one + other if one * other > 0 else 0.0

    return decided


def after_marker(text: str, marker: str) -> str | None:
    """What stands after the last ``marker``; None where there is none, or nothing behind it."""
    _, found, rest = text.rpartition(marker)
    return rest.strip() or None if found else None


def filled(template: str, prompt: Text) -> Text:
    """The prompt (of a conversation its last message) put into the place ``{prompt}`` of a template.

    Raises :class:`~nearfar.errors.UsageError` for a template without that place.
    """
    if PLACE not in template:
        raise UsageError(f"the template has no {PLACE}", where=repr(template[:80]))
    return _last(prompt, lambda content: template.replace(PLACE, content))


def prefixed(prefix: str, prompt: Text) -> Text:
    """``prefix`` and the prompt, or its last message, on a line of its own."""
    return _last(prompt, lambda content: f"{prefix}\n{content}")


def demonstrated(examples: Sequence[tuple[str, str]], prompt: Text) -> Text:
    """Examples of prompts and answers before the prompt: as turns of a conversation before its last message, or as
    paragraphs before a text."""
    if isinstance(prompt, str):
        shown = [f"{asked}\n{answer}\n\n" for asked, answer in examples]
        return "".join([*shown, f"{prompt}\n"])
    turns = [
        message
        for asked, answer in examples
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
    ]
    return (*prompt[:-1], *turns, *prompt[-1:])


def answered(prompt: Text, answer: str, request: str) -> Text:
    """The prompt, an answer to it and what is asked then: further turns, or paragraphs of a text."""
    if isinstance(prompt, str):
        return f"{prompt}\n\n{answer}\n\n{request}\n"
    return (*prompt, {"role": "assistant", "content": answer}, {"role": "user", "content": request})


def response_to(prompt: Text, answer: str) -> Text:
    """``answer`` in the prompt's own form: a message where the prompt is a conversation."""
    return answer if isinstance(prompt, str) else as_messages(answer, "assistant")


def _last(prompt: Text, change: Callable[[str], str]) -> Text:
    if isinstance(prompt, str):
        return change(prompt)
    if not prompt or prompt[-1]["role"] != "user":
        raise DataError("the last message of a prompt is the user's", where=plain(prompt)[:80] or "an empty prompt")
    return (*prompt[:-1], {**prompt[-1], "content": change(prompt[-1]["content"])})
