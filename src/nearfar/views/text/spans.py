"""Both views from one text: spans of it, a sentence and the rest, neighbours."""

from __future__ import annotations

from random import Random

from nearfar.errors import UsageError
from nearfar.views.base import checked_range
from nearfar.views.text.base import TextPairs, share_of, whole
from nearfar.views.text.sentences import sentences


class SpanPairs(TextPairs):
    """An anchor span and a positive span near it (DeCLUTR; Giorgi et al., 2021).

    Lengths in words are ``floor(least + b (most - least))``, b from Beta(4, 2) for anchors (long) and from Beta(2, 4)
    for positives (short). The anchor begins anywhere; the positive begins between one of its lengths before the
    anchor's beginning and the anchor's end, where it fits into the text: the two overlap, touch, or one holds the
    other. In a text of fewer than ``2 most`` words ``most`` is half of it, and ``least`` at most that.

    Arguments: ``least``, ``most``: default 32 and 512; ``anchor``, ``positive``: parameters of the Beta distributions,
    default (4, 2) and (2, 4) (all DeCLUTR; it draws several anchors of a document and takes the mean of two positives).
    """

    def __init__(
        self,
        least: int = 32,
        most: int = 512,
        *,
        anchor: tuple[float, float] = (4.0, 2.0),
        positive: tuple[float, float] = (2.0, 4.0),
    ) -> None:
        self.least, self.most = whole("SpanPairs: least", least), whole("SpanPairs: most", most)
        if least > most:
            raise UsageError(f"SpanPairs: least must not be above most, got {least} and {most}")
        self.anchor, self.positive = anchor, positive
        if len(anchor) != 2 or len(positive) != 2 or min(*anchor, *positive) <= 0:
            raise UsageError("SpanPairs: anchor and positive are two numbers above 0 each")

    def split(self, text: str, draw: Random) -> tuple[str, str]:
        words = text.split()
        if len(words) < 2:
            return text, text
        (start, end), (other, last) = self.places(len(words), draw)
        return " ".join(words[start:end]), " ".join(words[other:last])

    def places(self, count: int, draw: Random) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where, among ``count`` words (2 or more), the anchor begins and ends, and the positive."""
        most = max(1, min(self.most, count // 2))
        least = min(self.least, most)

        def length(parameters: tuple[float, float]) -> int:
            return int(least + draw.betavariate(*parameters) * (most - least))

        own, other = length(self.anchor), length(self.positive)
        start = draw.randint(0, count - own)
        begins = draw.randint(max(0, start - other), min(count - other, start + own))
        return (start, start + own), (begins, begins + other)


class InverseCloze(TextPairs):
    """A random sentence of a text, and the rest of it (Lee et al., 2019, the inverse cloze task).

    The sentence stays in its passage in a share of the texts, so that matching words counts as well.

    Arguments: ``kept``: that share, default 0.1 (the paper).
    """

    def __init__(self, kept: float = 0.1) -> None:
        self.kept = share_of("InverseCloze: kept", kept)

    def split(self, text: str, draw: Random) -> tuple[str, str]:
        parts = sentences(text)
        if len(parts) < 2:
            return text, text
        place = draw.randrange(len(parts))
        rest = parts if draw.random() < self.kept else parts[:place] + parts[place + 1 :]
        return parts[place], " ".join(rest)


class NeighbourSentences(TextPairs):
    """A random sentence of a text and one ``distance`` or fewer further on (Quick-Thoughts, Logeswaran and Lee, 2018:
    the next; CONPONO, Iter et al., 2020: up to k).

    Rows of documents, a sentence each, train with the recipe quick-thoughts. Arguments: ``distance``: default 1.
    """

    def __init__(self, distance: int = 1) -> None:
        self.distance = whole("NeighbourSentences: distance", distance)

    def split(self, text: str, draw: Random) -> tuple[str, str]:
        parts = sentences(text)
        if len(parts) < 2:
            return text, text
        place = draw.randrange(len(parts) - 1)
        return parts[place], parts[draw.randint(place + 1, min(place + self.distance, len(parts) - 1))]


class TwoCrops(TextPairs):
    """Two runs of words of a text, drawn independently (Contriever; Izacard et al., 2021).

    Arguments: ``share``: of the words in each, a number or a range drawn for each, default (0.05, 0.5) (Contriever).
    """

    def __init__(self, share: float | tuple[float, float] = (0.05, 0.5)) -> None:
        self.share = checked_range("TwoCrops: share", share, 0, 1)

    def split(self, text: str, draw: Random) -> tuple[str, str]:
        words = text.split()
        if len(words) < 2:
            return text, text

        def crop() -> str:
            length = max(1, int(draw.uniform(*self.share) * len(words) + 1e-9))
            start = draw.randint(0, len(words) - length)
            return " ".join(words[start : start + length])

        return crop(), crop()
