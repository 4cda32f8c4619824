"""Classification of items that carry several classes at once, in place of a contrast with other items."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.contrast.distributed import own_share
from nearfar.contrast.engine import Memory, Report
from nearfar.contrast.relation import Labels, Relation
from nearfar.contrast.tagged import Tagged
from nearfar.errors import UsageError
from nearfar.objectives.composed import Way
from nearfar.objectives.proxies import ProxyObjective
from nearfar.objectives.registry import register


@register
class CatLIP(ProxyObjective):
    """CatLIP: classes mined from an item's text as the targets of binary classifiers (Mehta et al., 2024).

    ``1/n sum_i sum_c BCE(sigmoid(w_c . z_i + b_c), y_ic)``: the sum over classes, not their mean, over the number of
    items. In [0, inf). It needs no second encoder, and the rows of the classifier are embeddings of the classes.

    Called as ``objective(z, labels=...)`` with the classes of each item, as a list of lists of numbers, as multi-hot
    ``[n, classes]`` (bool, or weights in [0, 1] as soft targets), or as ``[n]`` integers, one class each; or with
    ``relation=Tagged(...)``. An item without a class counts: it is far from all.

    Arguments:
        classes, dimension: see :class:`ProxyObjective`.
        prior: share of the classes that an item carries, in (0, 1): biases start at log(prior / (1 - prior)), which
            avoids the first blow-up. Default None: they start at 0, as in the official code.
        reduction: as in :class:`InfoNCE`.

    Ready-made ``scores [n, classes]`` are logits. Labels that are no class raise ValueError.
    """

    name = "catlip"
    formula = "1/n sum_i sum_c BCE(sigmoid(w_c . z_i + b_c), y_ic)"
    paper = "Mehta 2024, CatLIP: CLIP-level Visual Recognition Accuracy with Faster Pre-training, arXiv:2404.15653"
    default_score = "dot"

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        prior: float | None = None,
        reduction: str = "mean",
    ) -> None:
        if prior is not None and not 0 < prior < 1:
            raise UsageError(f"catlip: prior must lie in (0, 1), got {prior}")
        self._start = 0.0 if prior is None else math.log(prior / (1 - prior))
        super().__init__(classes, dimension, reduction=reduction)
        self.prior = prior
        self.bias: nn.Parameter | None
        if self.proxies is None:
            self.register_parameter("bias", None)

    def make_proxies(self, classes: int, dimension: int) -> None:
        super().make_proxies(classes, dimension)
        self.bias = nn.Parameter(torch.full((classes,), self._start))

    def initial(self, rows: int, dimension: int) -> Tensor:
        """The classifier's rows at the start: small numbers, as of a linear layer."""
        return torch.randn(rows, dimension) / math.sqrt(dimension) / 3

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        labels: Tensor | Sequence[Sequence[int]] | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        """The loss of items ``[n, dimension]`` and the classes they carry."""
        if labels is not None:
            if relation is not None:
                raise ValueError("catlip: give labels or a relation, not both")
            relation = Tagged(labels)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)

    def against(self, relation: Relation | None, tags: Tensor, classes: int) -> Relation:
        if isinstance(relation, Labels) and relation.key_state is None:
            relation = Tagged(relation.query_state["label"])
        if not isinstance(relation, Tagged):
            raise ValueError("catlip takes labelled items: give labels=..., or relation=Tagged(...) or Labels(y)")
        if relation.largest >= classes:
            raise ValueError(f"catlip: there are {classes} classes, got the label {relation.largest}")
        return relation.against(tags)

    def contrast(self, query: Tensor, keys: Tensor, relation: Relation, way: Way) -> tuple[Tensor, Report]:
        assert self.bias is not None
        bias = own_share(self.bias, way.group).to(keys.dtype)
        with_one = torch.cat([query, torch.ones_like(query[:, :1])], dim=1)
        return super().contrast(with_one, torch.cat([keys, bias[:, None]], dim=1), relation, way)

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return torch.ones_like(positive[:, 0], dtype=torch.bool)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return (positive * F.softplus(-scores) + negative * F.softplus(scores)).sum(1)
