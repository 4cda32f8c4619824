"""Center loss: classification, and items close to the moving centre of their class."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import tiles
from nearfar.contrast.engine import Report
from nearfar.contrast.relation import Relation
from nearfar.errors import UsageError
from nearfar.objectives.composed import Way
from nearfar.objectives.proxies import ProxyObjective, cross_entropy
from nearfar.objectives.registry import register


@register
class Center(ProxyObjective):
    """Center loss: softmax classification, plus a pull of each item to the centre of its class (Wen et al., 2016).

    ``-log softmax(w . x_i)_y + weight/2 |x_i - c_y|^2``, mean over items with a class. In [0, inf). Centres are no
    parameters: in training mode each call moves them by
    ``c_j -= rate sum_{y_i = j} (c_j - x_i) / (1 + number of i with y_i = j)``, after the loss.

    Arguments:
        classes, dimension: see :class:`ProxyObjective`; ``proxies`` are the rows of the classifier, without biases.
        weight: lambda >= 0, default 0.003; rate: alpha in [0, 1], default 0.5 (both the paper's).
        reduction: as in :class:`InfoNCE`.

    Centres start at 0 and are saved with the state. Over several processes all move them alike, by the items of all.
    The pull alone, without the classifier, would draw all centres to one point. Takes embeddings, no ready-made scores.
    """

    name = "center"
    formula = "-log softmax(w . x_i)_y + weight/2 |x_i - c_y|^2"
    paper = "Wen 2016, A Discriminative Feature Learning Approach for Deep Face Recognition (ECCV 2016)"
    default_score = "dot"

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        weight: float = 0.003,
        rate: float = 0.5,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, reduction=reduction)
        if not 0 <= weight < float("inf"):
            raise UsageError(f"center: weight must be a finite number >= 0, got {weight}")
        if not 0 <= rate <= 1:
            raise UsageError(f"center: rate must lie in [0, 1], got {rate}")
        self.weight = weight
        self.rate = rate
        self.centers: Tensor | None
        if self.proxies is None:
            self.register_buffer("centers", None)

    def make_proxies(self, classes: int, dimension: int) -> None:
        super().make_proxies(classes, dimension)
        self.register_buffer("centers", torch.zeros(classes, dimension))

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return cross_entropy(scores, positive, negative)

    def contrast(self, query: Tensor, keys: Tensor, relation: Relation, way: Way) -> tuple[Tensor, Report]:
        assert self.centers is not None
        loss, report = super().contrast(query, keys, relation, way)
        labels = relation.query_state["label"]
        labelled = labels >= 0
        items, classes = query[labelled], labels[labelled]
        pulls = self.weight / 2 * (items - self.centers[classes].to(items.dtype)).square().sum(1)
        if self.reduction == "none":
            loss = loss + torch.zeros_like(query[:, 0]).masked_scatter(labelled, pulls)
        else:
            count = torch.tensor(float(pulls.numel()), dtype=query.dtype, device=query.device)
            loss = loss + tiles.finish(self, pulls.sum(), count, way.group)[0]
        if self.training:
            self._move(items.detach(), classes, way.group)
        return loss, report

    def _move(self, items: Tensor, classes: Tensor, group: dist.ProcessGroup | None) -> None:
        assert self.centers is not None
        count = torch.bincount(classes, minlength=len(self.centers)).to(self.centers.dtype)
        total = torch.zeros_like(self.centers).index_add(0, classes, items.to(self.centers.dtype))
        if group is not None:
            dist.all_reduce(count, group=group)
            dist.all_reduce(total, group=group)
        apart = count[:, None] * self.centers - total
        self.centers -= self.rate * apart / (1 + count[:, None])
