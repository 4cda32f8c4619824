"""Views of biological sequences that evolution made: homologs of one family, and what an alignment says of a site.

A sequence is a row of letter numbers (int64), :data:`~nearfar.views.substitution.GAP` where there is none; an
alignment ``[n, L]`` has the members of a family as rows and homologous sites as columns. Simulated descent is in
:mod:`nearfar.views.substitution`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.errors import DataError, UsageError
from nearfar.views.substitution import GAP

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
NUCLEOTIDES = "ACGT"


def letter_numbers(sequences: Sequence[str], alphabet: str = AMINO_ACIDS, *, length: int | None = None) -> Tensor:
    """Sequences of letters as ``[n, L]`` numbers: their place in ``alphabet``, in either case.

    Everything else (``-``, ``.``, ``X``, ``*``) is a gap. Shorter sequences are padded with gaps on the right to the
    longest, or to ``length``; longer ones than that are cut.
    """
    number = {letter: i for i, letter in enumerate(alphabet)}
    width = max((len(each) for each in sequences), default=0) if length is None else length
    table = torch.full((len(sequences), width), GAP, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        found = [number.get(letter, GAP) for letter in sequence.upper()[:width]]
        table[row, : len(found)] = torch.tensor(found, dtype=torch.long)
    return table


def one_hot(sequences: Tensor, letters: int) -> Tensor:
    """Float ``[..., L, letters]``: 1 at the letter; a gap is all zeros, so that it says nothing."""
    return (sequences[..., None] == torch.arange(letters, device=sequences.device)).float()


def without_gaps(sequences: Tensor) -> Tensor:
    """The rows of ``[n, L]`` with their gaps moved to the right end: what a sequence is outside of an alignment."""
    order = (sequences < 0).long().argsort(dim=1, stable=True)
    return sequences.gather(1, order)


def match_columns(alignment: Tensor, *, largest_gap_share: float = 0.5) -> Tensor:
    """Which columns ``[L]`` (bool) of an alignment ``[n, L]`` hold gaps in at most that share of the rows.

    The others are insertions of few members; profile models leave them out as well. ``alignment[:, columns]`` keeps
    what the family has in common.
    """
    return (_checked(alignment) < 0).float().mean(0) <= largest_gap_share


class Homologs:
    """Members of families in pairs: evolution as the augmentation (Lu et al., 2020).

    ``views(families)`` draws two members of each family. A batch must hold a family once (its members are no
    negatives of each other), so batches are drawn over ``families``, not over sequences, and a split into training and
    test goes by family.

    Arguments:
        sequences: ``[n, ...]``, anything that is indexed by row.
        family: ``[n]`` integers.
        distance: ``[n, n]`` distances on a tree or between sequences, read only where ``farthest`` is given.
        farthest: the second view lies within this distance of the first; a member without one that near is its own.

    Raises :class:`~nearfar.errors.DataError` for a family with one member.
    """

    def __init__(
        self, sequences: Tensor, family: Tensor, *, distance: Tensor | None = None, farthest: float | None = None
    ) -> None:
        if len(sequences) != len(family) or family.dim() != 1 or family.is_floating_point():
            raise DataError(f"family must be [{len(sequences)}] integers, got {list(family.shape)} of {family.dtype}")
        if (distance is None) != (farthest is None):
            raise UsageError("a largest distance needs the distances, and they are of no use without it")
        if distance is not None and distance.shape != (len(family), len(family)):
            raise DataError(f"distances must be [{len(family)}, {len(family)}], got {list(distance.shape)}")
        self.sequences, self.distance, self.farthest = sequences, distance, farthest
        self.families, which, counts = torch.unique(family, return_inverse=True, return_counts=True)
        if not len(counts) or int(counts.min()) < 2:
            alone = self.families[counts < 2][:5].tolist()
            raise DataError(f"a family needs two members to be seen twice; one member have: {alone}")
        self._members = which.argsort(stable=True)
        self._start, self._count = counts.cumsum(0) - counts, counts

    def __len__(self) -> int:
        return len(self.families)

    def pairs(self, index: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Rows ``[n], [n]`` of two different members of each family ``families[index]``."""
        count, start = self._count[index], self._start[index]
        first = (torch.rand(len(index), generator=generator) * count).long()
        if self.distance is None:
            other = (first + 1 + (torch.rand(len(index), generator=generator) * (count - 1)).long()) % count
            return self._members[start + first], self._members[start + other]
        one = self._members[start + first]
        return one, torch.stack([self._near(row, at, generator) for row, at in zip(one, index, strict=True)])

    def views(self, index: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two members ``[n, ...], [n, ...]`` of each family ``families[index]``."""
        one, other = self.pairs(index, generator=generator)
        return self.sequences[one], self.sequences[other]

    def _near(self, row: Tensor, family: Tensor, generator: torch.Generator | None) -> Tensor:
        start, count = int(self._start[family]), int(self._count[family])
        members = self._members[start : start + count]
        assert self.distance is not None
        assert self.farthest is not None
        near = members[(self.distance[row, members] <= self.farthest) & (members != row)]
        return near[torch.randint(len(near), (), generator=generator)] if len(near) else row


class ColumnProfile:
    """The letters of each column of an alignment, as a distribution to draw from.

    ``frequencies [L, letters]`` are the counts of a column plus ``pseudocount`` times the letters' share of the whole
    alignment; ``gap_share [L]`` is that of rows without a letter there.

    Arguments:
        alignment: ``[n, L]`` of one family.
        letters: size of the alphabet.
        pseudocount: how many rows' worth of background each column gets; default 1.
    """

    def __init__(self, alignment: Tensor, letters: int, *, pseudocount: float = 1.0) -> None:
        if pseudocount < 0:
            raise UsageError(f"pseudocount is {pseudocount}; it must be >= 0")
        rows = _checked(alignment)
        if not len(rows):
            raise DataError("an alignment without rows has no profile")
        counts = one_hot(rows, letters).sum(0)
        total = counts.sum()
        if not total:
            raise DataError("the alignment holds gaps only")
        counts = counts + pseudocount * counts.sum(0) / total
        # a column of gaps alone, without pseudocounts, has no letter to prefer
        empty = counts.sum(1, keepdim=True) == 0
        counts = torch.where(empty, torch.ones_like(counts), counts)
        self.frequencies = counts / counts.sum(1, keepdim=True)
        self.gap_share = (rows < 0).float().mean(0)

    def information(self) -> Tensor:
        """How conserved the columns are, in bits ``[L]``: ``log2 letters`` minus the entropy; 0 where all are alike."""
        entropy = torch.special.entr(self.frequencies).sum(1)
        bits: Tensor = (math.log(self.frequencies.shape[1]) - entropy) / math.log(2)
        return bits.clamp_min(0)

    def sample(self, count: int, *, gaps: bool = True, generator: torch.Generator | None = None) -> Tensor:
        """``[count, L]`` sequences, each site by itself; with ``gaps`` a site is one as often as in its column."""
        drawn = torch.multinomial(self.frequencies, count, replacement=True, generator=generator).T.contiguous()
        if not gaps:
            return drawn
        missing = torch.rand(drawn.shape, generator=generator) < self.gap_share
        return drawn.masked_fill(missing, GAP)

    def resample(self, sequences: Tensor, share: float, *, generator: torch.Generator | None = None) -> Tensor:
        """``sequences [n, L]`` with ``share`` of their letters drawn again from their columns; gaps stay.

        Conserved sites come out as they were and free ones change: a view of a sequence that needs no second one.
        """
        if not 0 <= share <= 1:
            raise UsageError(f"share must lie in [0, 1], got {share}")
        if sequences.dim() != 2 or sequences.shape[1] != len(self.frequencies):
            raise ValueError(f"sequences must be [n, {len(self.frequencies)}], got {list(sequences.shape)}")
        again = torch.rand(sequences.shape, generator=generator) < share
        fresh = self.sample(len(sequences), gaps=False, generator=generator)
        return torch.where(again & (sequences >= 0), fresh, sequences)


def _checked(alignment: Tensor) -> Tensor:
    if alignment.dim() != 2 or alignment.is_floating_point():
        raise DataError(f"an alignment is [n, L] integers, got {list(alignment.shape)} of {alignment.dtype}")
    return alignment
