"""Groups in order: a differentiable sorting network, and the cost of positives sorted among negatives."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective
from nearfar.objectives.registry import register


class SoftSort(NamedTuple):
    """An odd-even network of soft comparisons, as it ran on rows of wires (Petersen et al., 2021 and 2022)."""

    keeps: list[Tensor]
    """Of each layer, the share ``[t, comparisons]`` of a wire that stays where it is."""

    def ranked(self, marks: Tensor) -> Tensor:
        """``X @ marks [t, w]``: for each input, the marks ``[t, w]`` of the ranks that it ends on, by its shares.

        ``X [t, w, w]``, whose rows and columns sum to 1, says which share of each input ends on which rank (the last
        being the highest); it is not made.
        """
        for layer in range(len(self.keeps) - 1, -1, -1):
            marks = _exchange(marks, self.keeps[layer], layer % 2)
        return marks


def soft_sort(values: Tensor, steepness: float, wires: Tensor | None = None) -> SoftSort:
    """Sort rows ``values [t, w]``, ascending, by as many layers as there are wires.

    A comparison of neighbours a, b keeps ``1/2 + atan(steepness (b - a)) / pi`` of each where it is. Of a row only the
    first ``wires [t]`` are sorted, by as many layers (default: all).
    """
    width = values.shape[1]
    wires = torch.full_like(values[:, 0], width, dtype=torch.long) if wires is None else wires
    keeps = []
    for layer in range(width):
        first = torch.arange(layer % 2, width - 1, 2, device=values.device)
        runs = (first + 1 < wires[:, None]) & (layer < wires[:, None])
        keep = 0.5 + torch.atan(steepness * (values[:, first + 1] - values[:, first])) / math.pi
        keeps.append(torch.where(runs, keep, 1.0))
        values = _exchange(values, keeps[-1], layer % 2)
    return SoftSort(keeps)


def _exchange(values: Tensor, keep: Tensor, start: int) -> Tensor:
    """Values after a layer that compares wires ``start`` and ``start + 1``, and so on."""
    end = start + 2 * keep.shape[1]
    low, high = values[:, start:end:2], values[:, start + 1 : end : 2]
    pair = torch.stack([keep * low + (1 - keep) * high, (1 - keep) * low + keep * high], 2).flatten(1)
    return torch.cat([values[:, :start], pair, values[:, end:]], 1)


@register
class GroCo(RowObjective):
    """Group ordering constraints: positives end above the hardest negatives in a soft sort (Shvetsova et al., 2023).

    The K highest negatives of a row and its P positives, each group ascending, go through an odd-even sorting network
    of soft comparisons (``1/2 + atan(steepness (b - a)) / pi``). With ``x_r`` the share of input r that ends on the
    lowest K ranks, the cost is the binary cross-entropy of "is a negative",
    ``L_i = -1/(K+P) [ sum_{r negative} log x_r + sum_{r positive} log(1 - x_r) ]``, mean over rows. Only the groups are
    ordered, nothing within them. Weights do not matter beyond > 0.

    The paper: views of items with negatives of the same view, ``Views(count, negatives="same-view")``, and 10 of them.
    Rows with fewer than K negatives sort all they have. Keys carry no gradient, as in the paper: each item is moved as
    an anchor only. Cosines differ by less than 2, so that with the paper's steepness of 1 comparisons stay soft and the
    cost does not fall to 0 (it stays above 0.2): compare it with itself only. Logarithms are held at -100.

    Time of a row grows with (K + P)^2.

    Arguments:
        hardest: K >= 1, default 10 (the paper's).
        steepness: > 0, default 1 (the paper's; diffsort's is 10).
        keys_have_gradient: default False (the official code's ``stop_grad=False`` is True).
        score: default "cosine"; ``reduction`` as in InfoNCE. For both directions call it twice.
    """

    name = "groco"
    formula = "BCE(share of each input on the lowest K ranks of a soft sort, is a negative)"
    paper = (
        "Shvetsova 2023, Learning by Sorting: Self-supervised Learning with Group Ordering Constraints, "
        "arXiv:2301.02009"
    )

    def __init__(
        self,
        hardest: int = 10,
        *,
        steepness: float = 1.0,
        keys_have_gradient: bool = False,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(score=score, reduction=reduction)
        if isinstance(hardest, bool) or not isinstance(hardest, int) or hardest < 1:
            raise UsageError(f"groco: hardest must be a whole number >= 1, got {hardest!r}")
        if not 0 < steepness < math.inf:
            raise UsageError(f"groco: steepness must be a finite number > 0, got {steepness}")
        self.hardest = hardest
        self.steepness = steepness
        self.keys_have_gradient = keys_have_gradient

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        values, is_negative, wires = self._groups(scores, positive, negative)
        sort = soft_sort(values, self.steepness, wires)
        low = torch.arange(values.shape[1], device=values.device) < is_negative.sum(1, keepdim=True)
        share = sort.ranked(low.to(values.dtype)).clamp(0, 1)
        cost = F.binary_cross_entropy(share, is_negative.to(values.dtype), reduction="none")
        inside = torch.arange(values.shape[1], device=values.device) < wires[:, None]
        return (cost * inside).sum(1) / wires

    def arrays(self, positives: int) -> float:
        return 8.0 + 8.0 * (self.hardest + positives)

    def _groups(self, scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The hardest negatives, then the positives, each ascending and moved to the left ``[t, w]``; which of them are
        negatives; and their number ``[t]``."""
        near, far = positive > 0, negative > 0
        hardest = min(self.hardest, int(far.sum(1).max()))
        far_columns = scores.masked_fill(~far, -torch.inf).topk(hardest, dim=1).indices
        near_columns = near.to(torch.uint8).topk(int(near.sum(1).max()), dim=1).indices
        counts = torch.cat([far.gather(1, far_columns), near.gather(1, near_columns)], 1)
        is_near = torch.arange(counts.shape[1], device=counts.device) >= hardest
        group = torch.where(counts, is_near.to(torch.long), 2)
        values = scores.gather(1, torch.cat([far_columns, near_columns], 1))
        order = torch.sort(values.detach(), dim=1, stable=True).indices
        order = order.gather(1, torch.sort(group.gather(1, order), dim=1, stable=True).indices)
        return values.gather(1, order), group.gather(1, order) == 0, counts.sum(1)

    def evaluation(
        self,
        query: Tensor | None,
        key: Tensor | None,
        *,
        relation: Relation | None,
        scores: Tensor | None,
        memory: Memory,
        tile_rows: int | None,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Report]:
        """How the engine evaluates it: against keys without a gradient."""
        where: dict[str, Any] = {"memory": memory, "tile_rows": tile_rows, "group": group}
        if query is not None and not self.keys_have_gradient:
            if key is None and relation is not None:
                n = query.shape[0]
                relation = _Bound(relation.bind(n, n, self_contrast=True, device=query.device))
                key = query
            key = None if key is None else key.detach()
        return evaluate_rows(self, query, key, relation=relation, scores=scores, **where)


class _Bound(Relation):
    """A relation of items among themselves that is bound already, for keys that are the queries without a gradient."""

    def __init__(self, inner: Relation) -> None:
        super().__init__({}, {})
        self.inner = inner

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        return self.inner
