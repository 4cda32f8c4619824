"""Views of passages, by their sentences; templates around texts; texts joined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from nearfar.errors import UsageError
from nearfar.views.text.base import TextView, checked, counted, share_of

_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|(?<=[。！？])|\n+")


def sentences(text: str) -> list[str]:
    """The sentences of a text, by the marks that end them and by lines: ``"A b. C? D"`` has three.

    Abbreviations are taken for ends: what stands behind "Dr." is a sentence.
    """
    parts, start = [], 0
    for found in _END.finditer(text):
        parts.append(text[start : found.end()].strip())
        start = found.end()
    parts.append(text[start:].strip())
    return [part for part in parts if part]


class SentenceView(TextView):
    """Base of views that change which sentences stand where; a text of one sentence stays as it is."""

    def change(self, text: str, draw: Random) -> str:
        parts = sentences(text)
        changed = self.change_sentences(list(parts), draw) if len(parts) > 1 else parts
        return " ".join(changed) if changed != parts else text

    def change_sentences(self, parts: list[str], draw: Random) -> list[str]:
        """A new version of the sentences, at least two of them before and one afterwards."""
        raise NotImplementedError


class SentencePermutation(SentenceView):
    """The sentences of a text in random order (BART; Lewis et al., 2020). Arguments: ``p``: default 1."""

    def change_sentences(self, parts: list[str], draw: Random) -> list[str]:
        draw.shuffle(parts)
        return parts


class SentenceDeletion(SentenceView):
    """``ceil(share * sentences)`` random sentences left out; at least one stays.

    Arguments: ``share``: default 0.2; ``p``: default 1.
    """

    def __init__(self, share: float = 0.2, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.share = share_of("SentenceDeletion: share", share)

    def change_sentences(self, parts: list[str], draw: Random) -> list[str]:
        count = min(counted(self.share, len(parts)), len(parts) - 1)
        gone = set(draw.sample(range(len(parts)), count))
        return [part for place, part in enumerate(parts) if place not in gone]


class Templates(TextView):
    """A text within one of some templates, drawn at random (PromptBERT; Jiang et al., 2022).

    For token ids, with the answer's place and the template's bias, see :mod:`nearfar.views.text.templates`.

    Arguments: ``templates``: each with ``{text}`` once; default two that mean little by themselves; ``p``: default 1.
    """

    DEFAULT = ('This sentence: "{text}" means something.', 'The sentence: "{text}" says something.')

    def __init__(self, templates: Sequence[str] = DEFAULT, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.templates = (templates,) if isinstance(templates, str) else tuple(templates)
        for template in self.templates:
            if template.count("{text}") != 1:
                raise UsageError(f"Templates: {template!r} must hold {{text}} once")
        if not self.templates:
            raise UsageError("Templates: there is none")

    def change(self, text: str, draw: Random) -> str:
        return draw.choice(self.templates).replace("{text}", text)


class Concatenation(TextView):
    """A text with another one behind or before it: a mixture of the two, nearer to the one with more words.

    The other is drawn from ``partners``, or else from the texts beside it in the batch (a text alone stays as it is).
    Of it are taken the first ``floor(share * words)`` words, at least one, so that with a small share the text remains
    what it is mostly about.

    Arguments: ``share``: of the other's words, default 0.3; ``partners``: default those of the batch; ``p``: default 1.
    """

    def __init__(self, share: float = 0.3, *, partners: Sequence[str] = (), p: float = 1.0) -> None:
        super().__init__(p)
        self.share = share_of("Concatenation: share", share)
        self.partners = list(checked("Concatenation", partners))
        self._beside: list[str] = []

    def by_seeds(self, texts: Sequence[str], numbers: Sequence[int]) -> list[str]:
        self._beside = self.partners or list(texts)
        return super().by_seeds(texts, numbers)

    def change(self, text: str, draw: Random) -> str:
        others = [other for other in dict.fromkeys(self._beside) if other != text and other.split()]
        if not others:
            return text
        words = draw.choice(others).split()
        part = " ".join(words[: max(1, int(self.share * len(words) + 1e-9))])
        return f"{text} {part}" if draw.random() < 0.5 else f"{part} {text}"
