"""Objectives that contrast in a subspace, chosen by a gate."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.engine import Memory
from nearfar.contrast.paired import Paired
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score, normalize
from nearfar.contrast.temperature import Temperature
from nearfar.objectives.base import RowObjective, masked
from nearfar.objectives.registry import register


class GatedCosine(Score):
    """The cosine of ``z_i * g_i`` and ``z_j * g_i``, row i's gate on both sides; a zero vector scores 0.

    Queries are ``torch.cat([z * g, g])``, keys ``z``: :meth:`of_queries` and :meth:`of_keys` make of them what
    two matrix products compare, without an array of rows x keys x dimensions.
    """

    def of_queries(self, items: Tensor, gate: Tensor) -> Tensor:
        """``[n, d]``, ``[n, d]`` -> ``[n, 2 d]``."""
        return torch.cat([normalize(normalize(items) * gate) * gate, gate.square()], dim=1)

    def of_keys(self, items: Tensor) -> Tensor:
        """``[m, d] -> [m, 2 d]``."""
        unit = normalize(items)
        return torch.cat([unit, unit.square()], dim=1)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        pull, gates = query.chunk(2, dim=1)
        items, squares = keys.chunk(2, dim=1)
        return _quotient(pull @ items.T, gates @ squares.T)

    def paired(self, query: Tensor, keys: Tensor) -> Tensor:
        pull, gates = query.chunk(2, dim=1)
        items, squares = keys.chunk(2, dim=1)
        return _quotient((pull * items).sum(1), (gates * squares).sum(1))


def _quotient(product: Tensor, squared: Tensor) -> Tensor:
    some = squared > 0
    return torch.where(some, product / torch.where(some, squared, 1).sqrt(), 0)


@register
class Hydra(RowObjective):
    """Hydra (SimLAP): any two classes as a positive pair, in a subspace that a gate opens (Wu et al., 2024).

    Items of class y_i meet items of a partner class p_i, drawn at will, in the dimensions that the gate ``g_i`` in
    (0, 1)^d, a function of both classes, selects: ``s_ij = cos(z_i * g_i, z_j * g_i)``. For a positive j (of class p_i)
    ``L_ij = log( exp(s_ij/T) + sum_{n: y_n not in {y_i, p_i}} exp(s_in/T) ) - s_ij/T``; items of the anchor's own class
    are ignored unless it is the partner class. Mean over all positive pairs of the batch. In [0, inf).

    Called as ``Hydra()(z, gate=g, labels=y, partners=p)``: ``z [n, d]`` (normalised after gating, not before),
    ``gate [n, d]`` >= 0, ``labels [n]`` and ``partners [n]`` integers (labels below 0: unlabelled, far from everybody).
    With keys of their own ``key [m, d]`` also ``key_labels [m]``. Memory is linear in n: the gated cosine is two matrix
    products.

    Arguments:
        include_self: whether an item whose partner class is its own is a positive of itself, as in the official code
            (default False).
        temperature: default 0.1 (the official code's). reduction: as in :class:`~nearfar.objectives.InfoNCE`; "sum"
            sums over pairs, "none" gives each row's mean.

    Raises ValueError for shapes that do not fit.
    """

    name = "hydra"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"simlap": {}}
    formula = "log( exp(s_ij/T) + sum_n exp(s_in/T) ) - s_ij/T, s_ij = cos(z_i g_i, z_j g_i)"
    paper = "Wu 2024, Rethinking Positive Pairs in Contrastive Learning, arXiv:2410.18200"
    default_temperature = 0.1
    needs_negative = False
    needs = ("gate", "labels", "partners")

    def __init__(
        self,
        *,
        include_self: bool = False,
        temperature: float | str | Temperature | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=GatedCosine(), reduction=reduction)
        self.include_self = include_self

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        some = (negative > 0).any(1, keepdim=True)
        far = torch.logsumexp(torch.where(some, masked(scores, negative), 0), dim=1, keepdim=True)
        cost = torch.where(some, F.softplus(far - scores), 0)
        weight = positive.to(scores.dtype)
        return (weight * cost).sum(1) / weight.sum(1)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return positive.to(scores.dtype).sum(1)

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor | None = None,
        *,
        gate: Tensor,
        labels: Tensor,
        partners: Tensor,
        key_labels: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        """The loss; ``report`` then says what was active and how it ran."""
        if query.dim() != 2 or gate.shape != query.shape:
            raise ValueError(
                f"hydra: query and gate must be [n, d] alike, got {tuple(query.shape)} and {tuple(gate.shape)}"
            )
        if not bool((gate >= 0).all()):
            raise ValueError("hydra: a gate lies in (0, 1), e.g. torch.sigmoid(logits); it has values below 0")
        if (key is None) != (key_labels is None):
            raise ValueError("hydra: key and key_labels are needed together")
        others = labels if key_labels is None else key_labels
        relation: Relation = Paired(partners, others, query_exclude=labels, key_exclude=others)
        if key is None and not self.include_self:
            relation = relation.ignore(lambda rows, columns: rows[:, None] == columns[None, :])
        score = self.score
        assert isinstance(score, GatedCosine)
        features = score.of_queries(at_least_float32(query), at_least_float32(gate))
        keys = score.of_keys(at_least_float32(query if key is None else key))
        return super().forward(features, keys, relation=relation, memory=memory, group=group)
