"""Simulated descent: how the letters of a sequence change along a branch of a tree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.errors import UsageError

GAP = -1
"""What stands in a sequence of letter numbers where there is no letter (a gap, an unknown residue, padding)."""


class Substitution:
    """A continuous-time Markov chain on letters: ``P(b) = expm(Q b)`` along a branch of length b.

    ``Q [A, A]`` holds the rates at which the row's letter becomes the column's: not negative off the diagonal, rows
    that sum to 0. It is scaled so that a site changes once in a unit of length on average, as phylogenetic trees
    measure it. A site of rate r sees the length ``r b``: conserved sites have rates near 0, neutral ones 1 and more.

    Use :meth:`jukes_cantor` where no letter is special, :meth:`reversible` for GTR, WAG, LG and their like.
    Raises :class:`~nearfar.errors.UsageError` for a matrix that holds no rates.
    """

    def __init__(self, rates: Tensor) -> None:
        Q = rates.detach().double()
        if Q.dim() != 2 or Q.shape[0] != Q.shape[1] or len(Q) < 2 or not bool(torch.isfinite(Q).all()):
            raise UsageError(
                f"a substitution model needs finite rates [A, A] of two letters at least, got {list(Q.shape)}"
            )
        off = Q - torch.diag(Q.diagonal())
        if bool((off < 0).any()) or not torch.allclose(off.sum(1), -Q.diagonal(), rtol=1e-6, atol=1e-9):
            raise UsageError("the rates of changing must be >= 0 and each row of the matrix must sum to 0")
        self.frequencies = _stationary(Q)
        per_unit = float(-(self.frequencies * Q.diagonal()).sum())
        if not per_unit > 0:
            raise UsageError("with these rates no letter ever changes")
        self.rates = Q / per_unit

    @classmethod
    def jukes_cantor(cls, letters: int = 4) -> Substitution:
        """JC69 on ``letters`` letters (Jukes and Cantor, 1969): every letter becomes every other equally fast.

        The same letter is found after b with probability ``1/A + (1 - 1/A) exp(-b A / (A - 1))``.
        """
        if letters < 2:
            raise UsageError(f"letters is {letters}; at least 2 are needed")
        return cls(torch.ones(letters, letters) - letters * torch.eye(letters))

    @classmethod
    def reversible(cls, exchangeabilities: Tensor, frequencies: Tensor) -> Substitution:
        """The general time-reversible model: ``Q_ij = s_ij pi_j`` for ``i != j``.

        ``exchangeabilities [A, A]``: symmetric, >= 0, its diagonal is not read; ``frequencies [A]``: of the letters, a
        distribution. WAG, LG and JTT are tables of these.
        """
        s, pi = exchangeabilities.double(), frequencies.double()
        if s.shape != (len(pi), len(pi)) or not torch.allclose(s, s.T):
            raise UsageError(f"exchangeabilities must be a symmetric [{len(pi)}, {len(pi)}] matrix")
        if bool((pi <= 0).any()) or not math.isclose(float(pi.sum()), 1, abs_tol=1e-4):
            raise UsageError("frequencies must be above 0 and sum to 1")
        Q = s * (pi / pi.sum())
        Q = Q - torch.diag(Q.diagonal())
        return cls(Q - torch.diag(Q.sum(1)))

    @property
    def letters(self) -> int:
        """A, the size of the alphabet."""
        return len(self.frequencies)

    def transitions(self, length: float | Tensor) -> Tensor:
        """``P(b) [..., A, A]`` for branch lengths ``[...]`` >= 0: from the row's letter to the column's; float64."""
        b = torch.as_tensor(length, dtype=torch.float64)
        if bool((b < 0).any()) or not bool(torch.isfinite(b).all()):
            raise UsageError("branch lengths must be finite and >= 0")
        found: Tensor = torch.linalg.matrix_exp(self.rates * b[..., None, None])
        found = found.clamp_min(0)
        return found / found.sum(-1, keepdim=True)

    def changed(self, length: float | Tensor) -> Tensor:
        """Expected share of sites that hold another letter after ``length``, in [0, 1 - sum of squared frequencies]."""
        stay = self.transitions(length).diagonal(dim1=-2, dim2=-1)
        return 1 - (self.frequencies * stay).sum(-1)

    def length_of(self, changed: float) -> float:
        """The branch length after which the share ``changed`` of sites holds another letter (bisection).

        Raises :class:`~nearfar.errors.UsageError` where no length does: saturation is ``1 - sum of squared
        frequencies``.
        """
        limit = 1 - float(self.frequencies.square().sum())
        if not 0 <= changed < limit:
            raise UsageError(f"a share of {changed:g} is never reached: it lies in [0, {limit:g})")
        low, high = 0.0, 1.0
        while float(self.changed(high)) < changed:
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if float(self.changed(middle)) < changed else (low, middle)
        return (low + high) / 2

    def information(self, length: float | Tensor) -> Tensor:
        """Mutual information in bits of a site's letter and its descendant's after ``length``, letters at equilibrium.

        ``log2 A`` at most (that of a copy), decreasing to 0 with the length. Of :meth:`jukes_cantor` this is the
        capacity of the channel: ``log2 A + p log2 p + (1 - p) log2((1 - p) / (A - 1))`` with p the chance of the same
        letter. Views that are too near share everything, views too far nothing.
        """
        P = self.transitions(length)
        pi = self.frequencies
        conditional = (pi[:, None] * torch.special.entr(P)).sum((-2, -1))
        bits: Tensor = (torch.special.entr(pi).sum() - conditional) / math.log(2)
        return bits.clamp_min(0)

    def equilibrium(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent letters of the stationary distribution, int64 of this shape."""
        drawn = torch.multinomial(self.frequencies, math.prod(shape), replacement=True, generator=generator)
        return drawn.view(shape)

    def descend(
        self,
        sequences: Tensor,
        length: float,
        *,
        rates: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Descendants ``[..., L]`` of ``sequences [..., L]`` (int64 letters) after a branch of ``length``.

        Every site changes by itself; ``rates [L]`` >= 0 are those of the sites (default 1). Gaps (below 0) stay.
        """
        if sequences.is_floating_point() or not sequences.dim():
            raise ValueError(f"sequences must be integers [..., L], got {list(sequences.shape)} of {sequences.dtype}")
        if sequences.numel() and int(sequences.max()) >= self.letters:
            raise ValueError(f"there are {self.letters} letters, got the letter {int(sequences.max())}")
        sites = sequences.shape[-1]
        rate = torch.ones(sites) if rates is None else rates
        if rate.shape != (sites,):
            raise ValueError(f"rates must be [{sites}], one a site, got {list(rate.shape)}")
        different, which = torch.unique(rate.double(), return_inverse=True)
        steps = self.transitions(length * different).cumsum(-1).float()
        chances = torch.rand(sequences.shape, generator=generator)
        # the first letter whose cumulated probability exceeds the draw; the last one is open to rounding
        thresholds = steps[which, sequences.clamp_min(0)][..., :-1]
        drawn = (chances[..., None] >= thresholds).sum(-1)
        return torch.where(sequences < 0, sequences, drawn)


def gamma_rates(sites: int, shape: float = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
    """Rates ``[sites]`` of sites from a gamma distribution with mean 1 (Yang, 1993).

    The smaller ``shape``, the more sites are conserved beside a few that change fast; proteins are fitted by 0.2 to 2.
    """
    if sites < 1 or not shape > 0:
        raise UsageError(f"at least one site and a shape above 0 are needed, got {sites} and {shape}")
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):  # gamma draws take no generator
        torch.manual_seed(seed)
        drawn: Tensor = torch.distributions.Gamma(shape, shape).sample((sites,))
    return drawn


def _stationary(Q: Tensor) -> Tensor:
    """The distribution pi with ``pi Q = 0`` and sum 1, by least squares."""
    system = torch.cat([Q.T, torch.ones(1, len(Q), dtype=Q.dtype)])
    target = torch.zeros(len(Q) + 1, dtype=Q.dtype)
    target[-1] = 1
    solved: Tensor = torch.linalg.lstsq(system, target).solution.clamp_min(0)
    return solved / solved.sum()
