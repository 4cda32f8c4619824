"""Families of sequences that descend from an ancestor: sites that carry the function change slowly, others freely."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.views.substitution import Substitution


class HomologFamilies:
    """Families of homologous sequences whose function is written in a few hidden sites.

    Each of ``functions`` has a motif, fixed letters on the same ``conserved`` hidden sites; the ancestor of a family
    has the motif of its function and random letters elsewhere. Members descend from it independently along branches of
    length ``branch`` under ``model``; conserved sites change at ``slow``, the others at ``fast``. With
    branches of about 1 the neutral sites are close to saturation and the conserved ones nearly intact.

    Arguments:
        families, members: how many families, and members of each.
        branch: length of the branch from the ancestor to every member.
        sites, conserved: length of a sequence, and how many of its sites hold the motif.
        slow, fast: rates of conserved and of neutral sites.
        functions: how many motifs; no two are equal.
        model: of substitution; default Jukes-Cantor on 4 letters.
        rates: ``[sites]`` rates in place of ``slow`` and ``fast``.
        seed: of everything random here; the draws do not depend on ``branch`` or the rates, so that worlds of one seed
            with different branches have the same motifs and ancestors.

    ``sequences [families * members, sites]`` (int64), ``family`` and ``function`` of each, ``motif_sites [conserved]``,
    ``ancestors [families, sites]`` and ``rates [sites]`` are the truth.
    """

    def __init__(
        self,
        families: int = 1500,
        members: int = 2,
        *,
        branch: float = 1.0,
        sites: int = 80,
        conserved: int = 5,
        slow: float = 0.1,
        fast: float = 2.0,
        functions: int = 8,
        model: Substitution | None = None,
        rates: Tensor | Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        if min(families, members, functions) < 1 or not 1 <= conserved <= sites:
            raise UsageError("families, members and functions must be at least 1, conserved between 1 and sites")
        self.model = Substitution.jukes_cantor(4) if model is None else model
        if self.model.letters**conserved < functions:
            raise UsageError(
                f"{conserved} sites of {self.model.letters} letters do not tell {functions} functions apart"
            )
        self.branch = branch
        self.generator = torch.Generator().manual_seed(seed)
        self.motif_sites = torch.randperm(sites, generator=self.generator)[:conserved].sort().values
        self.motifs = self._different(functions, conserved)
        self.rates = torch.full((sites,), fast)
        self.rates[self.motif_sites] = slow
        if rates is not None:
            self.rates = torch.as_tensor(rates, dtype=torch.float32)
        self.family_function = torch.randint(functions, (families,), generator=self.generator)
        self.ancestors = self.ancestors_of(self.family_function)
        self.family = torch.repeat_interleave(torch.arange(families), members)
        self.function = self.family_function[self.family]
        self.sequences = self.descend(self.ancestors[self.family])

    def ancestors_of(self, function: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Fresh ancestors ``[n, sites]`` of families with these functions ``[n]``."""
        drawn = self.generator if generator is None else generator
        made = self.model.equilibrium(len(function), len(self.rates), generator=drawn)
        made[:, self.motif_sites] = self.motifs[function]
        return made

    def descend(self, ancestors: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One descendant ``[n, sites]`` of each, at the world's branch length and rates."""
        drawn = self.generator if generator is None else generator
        return self.model.descend(ancestors, self.branch, rates=self.rates, generator=drawn)

    def _different(self, functions: int, conserved: int) -> Tensor:
        motifs = self.model.equilibrium(functions, conserved, generator=self.generator)
        while len(torch.unique(motifs, dim=0)) < functions:
            motifs = self.model.equilibrium(functions, conserved, generator=self.generator)
        return motifs
