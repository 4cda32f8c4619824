"""Comparators of sentences for tasks of coherence: which comes first, which comes next, what joins them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.errors import UsageError


class Highway(nn.Module):
    """``g * relu(W x + b) + (1 - g) * x`` with ``g = sigmoid(V x + c)``, ``[..., dimension] -> [..., dimension]``
    (Srivastava et al., 2015)."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.change = nn.Linear(dimension, dimension)
        self.gate = nn.Linear(dimension, dimension)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.relu(self.change(x)) + (1 - gate) * x


class Comparator(nn.Module):
    """Bilinear scores of two vectors after a transform of each: ``s_q = (A_q T_l(l) + a_q) . T_r(r)`` for every class q
    (DiscSent; Jernite et al., 2017). T_l and T_r are :class:`Highway` layers of their own.

    Called with ``left [n, d]`` and ``right [n, d]``, it gives ``[n, classes]``; with ``right [n, k, d]``,
    ``[n, k, classes]``. A starts uniform in ``+- 1 / sqrt(d)``, a at 0 (the official code's).

    Arguments:
        dimension: d. classes: how many scores, default 1.
        symmetric: one transform for both and ``A_q + A_q^T`` in the place of A_q, without a: then the order of the two
            cannot matter. For comparison only; default False.

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1.
    """

    def __init__(self, dimension: int, classes: int = 1, *, symmetric: bool = False) -> None:
        super().__init__()
        if min(dimension, classes) < 1:
            raise UsageError(f"a comparator has sizes of at least 1, got {dimension} and {classes}")
        self.symmetric = symmetric
        self.left = Highway(dimension)
        self.right = self.left if symmetric else Highway(dimension)
        self.core = nn.Parameter(torch.empty(classes, dimension, dimension).uniform_(-1, 1) / dimension**0.5)
        self.bias = None if symmetric else nn.Parameter(torch.zeros(classes, dimension))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        core = self.core + self.core.transpose(1, 2) if self.symmetric else self.core
        asked = torch.einsum("qde,ne->nqd", core, self.left(left))
        if self.bias is not None:
            asked = asked + self.bias
        return torch.einsum("nqd,n...d->n...q", asked, self.right(right))


class Discourse(nn.Module):
    """The heads of DiscSent's three tasks on sentence vectors (Jernite et al., 2017).

    :meth:`order`: is s1 before s2? :meth:`next`: which candidate follows the sentences of the context? The context is
    one vector ``c = W [e_1; ...; e_k]``. :meth:`conjunction`: what kind of conjunction opened s2 before it was removed?

    Arguments:
        dimension: of a sentence's vector. conjunctions: how many kinds (0: no such task).
        context: sentences of the context, default 3 (the paper's).
        symmetric: see :class:`Comparator`; for :meth:`order` alone.
    """

    def __init__(self, dimension: int, conjunctions: int = 9, *, context: int = 3, symmetric: bool = False) -> None:
        super().__init__()
        if context < 1 or conjunctions < 0:
            raise UsageError(f"context must be at least 1 and conjunctions at least 0, got {context}, {conjunctions}")
        self.ordering = Comparator(dimension, symmetric=symmetric)
        self.context = nn.Linear(context * dimension, dimension)
        self.following = Comparator(dimension)
        self.joining = Comparator(dimension, conjunctions) if conjunctions else None

    def order(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits ``[n]`` that ``first [n, d]`` stands before ``second [n, d]``."""
        scores: Tensor = self.ordering(first, second)
        return scores[:, 0]

    def next(self, context: Tensor, candidates: Tensor) -> Tensor:
        """Scores ``[n, k]`` of ``candidates [n, k, d]`` as what follows ``context [n, c, d]``."""
        scores: Tensor = self.following(self.context(context.flatten(1)), candidates)
        return scores[..., 0]

    def conjunction(self, first: Tensor, second: Tensor) -> Tensor:
        """Scores ``[n, conjunctions]`` of what joined ``first [n, d]`` and ``second [n, d]``."""
        if self.joining is None:
            raise UsageError("this was made without kinds of conjunctions")
        scores: Tensor = self.joining(first, second)
        return scores
