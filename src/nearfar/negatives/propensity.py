"""Positives and negatives drawn against the bias of a naive rule: inverse-propensity sampling.

A reconstruction from the abstract of DebCSE (Miao et al., 2023, arXiv:2309.07396), whose exact propensities could not
be checked. A naive rule takes what looks alike for positives (shared words, like length) and what looks different for
negatives. So each candidate of an item is weighted by how much it means the same (or does not), divided by how likely
its looks would have made the naive rule choose it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.contrast import normalize
from nearfar.errors import DataError, UsageError

_BLOCK = 256
_NOBODY = -1


@dataclass(frozen=True)
class PropensityRules:
    """How candidates are found and weighted.

    ``near``: k, how many nearest neighbours are candidates for positives. ``far``: K, candidates for negatives are the
    neighbours of rank k + 1 to K and K - k random items. ``power``: g, how much meaning counts. ``clip``: the least
    propensity that is divided by, so that no weight explodes. ``same``: above this semantic similarity a candidate is
    no negative. ``inverse``: whether weights are divided by propensities at all. Defaults are our own.

    Raises :class:`~nearfar.errors.UsageError` for numbers that make no sense.
    """

    near: int = 10
    far: int = 100
    power: float = 2.0
    clip: float = 0.1
    same: float = 0.9
    inverse: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.near < self.far:
            raise UsageError(f"there are {self.near} near and {self.far} far candidates; 1 <= near < far is needed")
        if self.power < 0 or not 0 < self.clip <= 1 or not 0 <= self.same <= 1:
            raise UsageError(
                f"power must be at least 0, clip in (0, 1], same in [0, 1], got {self.power}, {self.clip}, {self.same}"
            )


class Words:
    """The different words of texts and how many words they have, to compare what texts look like.

    ``of_ids(ids, padding)`` takes token ids ``[n, L]``; ``Words(texts)`` splits texts at blanks, in lower case.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        number: dict[str, int] = {}
        split = [[number.setdefault(word, len(number)) for word in text.lower().split()] for text in texts]
        self._take([torch.tensor(words, dtype=torch.long) for words in split], len(number))

    @classmethod
    def of_ids(cls, ids: Tensor, *, padding: int = 0) -> Words:
        """Of token ids ``[n, L]``."""
        words = cls.__new__(cls)
        words._take([row[row != padding] for row in ids.cpu()], int(ids.max()) + 1 if ids.numel() else 0)
        return words

    def _take(self, rows: Sequence[Tensor], vocabulary: int) -> None:
        different = [torch.unique(row) for row in rows]
        self.count = vocabulary
        self.lengths = torch.tensor([len(row) for row in rows], dtype=torch.float32)
        self.sizes = torch.tensor([len(row) for row in different], dtype=torch.float32)
        self.ids = torch.full((len(rows), max((len(row) for row in different), default=0) or 1), vocabulary)
        for place, row in enumerate(different):
            self.ids[place, : len(row)] = row

    def __len__(self) -> int:
        return len(self.lengths)

    def surface(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """``0.5 Jaccard(words) + 0.5 min(length) / max(length)`` of each of ``rows [b]`` and its ``candidates [b, m]``:
        ``[b, m]`` in [0, 1]. Two texts without a word look the same."""
        b, m = candidates.shape
        has = torch.zeros(b, self.count + 1, dtype=torch.bool).scatter_(1, self.ids[rows], True)
        has[:, self.count] = False  # what fills up
        shared = has.gather(1, self.ids[candidates].view(b, -1)).view(b, m, -1).sum(2)
        together = self.sizes[rows][:, None] + self.sizes[candidates] - shared
        jaccard = torch.where(together > 0, shared / together.clamp_min(1), 1.0)
        own, other = self.lengths[rows][:, None], self.lengths[candidates]
        longest = torch.maximum(own, other)
        ratio = torch.where(longest > 0, torch.minimum(own, other) / longest.clamp_min(1), 1.0)
        return (jaccard + ratio) / 2


def semantic(reference: Tensor, rows: Tensor, candidates: Tensor) -> Tensor:
    """``(1 + cos) / 2`` of the ``reference [n, d]`` embeddings of ``rows [b]`` and ``candidates [b, m]``, in [0, 1]."""
    unit = normalize(reference)
    return (1 + (unit[rows][:, None] * unit[candidates]).sum(2).clamp(-1, 1)) / 2


def propensity(surface: Tensor) -> Tensor:
    """How likely looks alone make a candidate a positive: ``sigmoid((surf - mean) / sd)`` over each pool ``[..., m]``.

    1/2 where all look alike. That of a negative is 1 minus it.
    """
    spread = surface.std(-1, keepdim=True, unbiased=False)
    return torch.sigmoid((surface - surface.mean(-1, keepdim=True)) / spread.clamp_min(1e-6))


def inverse_weights(value: Tensor, propensities: Tensor, clip: float) -> Tensor:
    """``value / max(propensity, clip)``: draws by the propensities, weighted so, have the mean that draws by ``value``
    would have."""
    return value / propensities.clamp_min(clip)


class PropensitySampler:
    """Draws a positive and a negative for each of n items.

    Candidates and their weights are found once; memory is O(n K). For positives
    ``w+ = sem^g / max(e+, clip)``, for negatives ``w- = (1 - sem)^g / max(1 - e+, clip)``, 0 where sem is above
    ``same``, with sem of :func:`semantic`, e+ of :func:`propensity` in the pool. An item is never its own candidate.

    Arguments:
        reference: embeddings ``[n, d]`` by a frozen encoder.
        words: what the items look like.
        rules: see :class:`PropensityRules`.
        seed: of the random candidates for negatives.

    Raises :class:`~nearfar.errors.DataError` for embeddings that do not fit the words, not finite, or of fewer than
    ``near`` + 2 items.
    """

    def __init__(self, reference: Tensor, words: Words, rules: PropensityRules | None = None, *, seed: int = 0) -> None:
        self.rules = rules = PropensityRules() if rules is None else rules
        n = len(reference)
        if reference.dim() != 2 or n != len(words):
            raise DataError(f"embeddings are {list(reference.shape)} for the words of {len(words)} items")
        if not bool(torch.isfinite(reference).all()):
            raise DataError("a reference embedding is not finite")
        if n < rules.near + 2:
            raise DataError(
                f"{n} items are too few to draw from {rules.near} near ones and others", hint="lower the number of near"
            )
        self.words, self.reference = words, normalize(reference.detach().float().cpu())
        ranked = self._neighbours(min(rules.far, n - 1))
        generator = torch.Generator().manual_seed(seed)
        others = torch.randint(1, n, (n, rules.far - rules.near), generator=generator)
        random = (torch.arange(n)[:, None] + others) % n
        self.positives = ranked[:, : rules.near]
        self.negatives = torch.cat([ranked[:, rules.near :], random], 1)
        self.positive_weights = self._weights(self.positives, positive=True)
        self.negative_weights = self._weights(self.negatives, positive=False)

    def _neighbours(self, count: int) -> Tensor:
        """The ``count`` nearest other items of each by cosine, nearest first."""
        found = []
        for start in range(0, len(self.reference), _BLOCK):
            rows = torch.arange(start, min(start + _BLOCK, len(self.reference)))
            scores = self.reference[rows] @ self.reference.T
            scores[torch.arange(len(rows)), rows] = -torch.inf
            found.append(scores.topk(count, dim=1).indices)
        return torch.cat(found)

    def _weights(self, pool: Tensor, *, positive: bool) -> Tensor:
        rules, found = self.rules, []
        for start in range(0, len(pool), _BLOCK):
            rows = torch.arange(start, min(start + _BLOCK, len(pool)))
            candidates = pool[rows]
            alike = semantic(self.reference, rows, candidates)
            chosen = propensity(self.words.surface(rows, candidates))
            value = alike**rules.power if positive else (1 - alike) ** rules.power
            if not positive:
                chosen = 1 - chosen
                value = value.masked_fill(alike > rules.same, 0)
            found.append(inverse_weights(value, chosen, rules.clip) if rules.inverse else value)
        return torch.cat(found)

    def draw(self, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A positive and a negative of each item ``[n]``, int64: rows; -1 where all weights of a pool are 0."""
        positive = _draw(self.positives, self.positive_weights, generator)
        return positive, _draw(self.negatives, self.negative_weights, generator)


def _draw(pool: Tensor, weights: Tensor, generator: torch.Generator | None) -> Tensor:
    some = weights.sum(1) > 0
    drawn = torch.full((len(pool),), _NOBODY)
    if bool(some.any()):
        place = torch.multinomial(weights[some], 1, generator=generator)
        drawn[some] = pool[some].gather(1, place)[:, 0]
    return drawn
