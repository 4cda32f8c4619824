"""Objectives for labels that are numbers: nearer in label, nearer in space."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import tiles
from nearfar.contrast.distributed import of_all, sum_over_processes, total_over_processes
from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.kernel import Kernel
from nearfar.contrast.precision import at_least_float32, without_autocast
from nearfar.contrast.relation import Relation, candidates
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, masked
from nearfar.objectives.registry import register


class _RealItems(RowObjective):
    """Of each row: ``log sum_j w_ij exp(s_ij)`` over all items, the sum of its positives' scores, and their number."""

    name = "supremix-items"
    default_temperature = 1.0
    costs_a_row = 3

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ((positive > 0) | (negative > 0)).any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        near = positive.to(scores.dtype)
        log_sum = log_sum_exp(scores, candidates(positive, negative))
        return torch.stack([log_sum, (near * scores).sum(1), near.sum(1) + 0 * log_sum], dim=1)


class Mixtures(NamedTuple):
    """Mixed items of some anchors: ``share * first + (1 - share) * second``, indices of keys ``[t, R]``; which of the
    R places are filled, ``[t, R]`` bool."""

    first: Tensor
    second: Tensor
    share: Tensor
    filled: Tensor


@register
class SupReMix(RowObjective):
    """SupReMix: supervised contrast for regression, with mixed negatives and positives (Wu et al., 2023).

    Items with labels y (numbers) among themselves, ``SupReMix()(z, relation=Kernel(y))``, two views of each best. Items
    of equal labels are near. All others are far and weigh ``|y_i - y_j| + 1``. To an anchor i come mixtures of items,
    which carry no gradient: negatives ``a z_i + (1 - a) z_k`` for every k of another label, ``a ~ Beta(2, 8)``, label
    ``a y_i + (1 - a) y_k``; and positives ``a z_j + (1 - a) z_k`` for every j and k with ``y_j < y_i < y_k`` within
    ``window`` of y_i, a such that the mixed label is y_i. With P the positives of both kinds and D all items but i and
    all mixtures of i, ``L_i = log sum_{d in D} w_id exp(s_id/T) - mean_{p in P} s_ip/T``, mean over anchors with a
    positive.

    All positive mixtures would be n^2 for each anchor: at most ``mixtures`` of each kind are drawn for an anchor, so
    that memory is linear in n; fewer mixtures weigh less in the sum. The official code (since taken down) has faults
    that are not followed: two scales within one log-sum, weights of other mixtures, one positive too many.

    Arguments:
        window: > 0, default 5 (years of age in the paper; 0.5 for STS-B).
        mixtures: at most that many of each kind an anchor, default 64; None: all.
        mix_positive, mix_negative: whether there are such mixtures (default True).
        share: a of the negatives: (alpha, beta) of a Beta distribution, default (2, 8) (the official code's; it offers
            (8, 2) and (5, 5)), or one number in [0, 1] for all.
        distance: "l1" (default), weights ``|y_i - y_j| + 1``, or "l2", ``(y_i - y_j)^2 + 1``.
        temperature: default 0.3 (the official code's). score: "cosine" (default) or "dot". reduction: as in
            :class:`~nearfar.objectives.InfoNCE`.

    Raises ValueError where the relation is not a :class:`~nearfar.contrast.Kernel` of single numbers or there are keys.
    """

    name = "supremix"
    needs = ("relation=Kernel(labels)",)
    formula = "log sum_d w_id exp(s_id/T) - mean_p s_ip/T, w_id = |y_i - y_d| + 1, mixtures among d and p"
    paper = "Wu 2023, Mixup Your Own Pairs, arXiv:2309.16633"
    default_temperature = 0.3

    def __init__(
        self,
        window: float = 5.0,
        *,
        mixtures: int | None = 64,
        mix_positive: bool = True,
        mix_negative: bool = True,
        share: float | tuple[float, float] = (2.0, 8.0),
        distance: str = "l1",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)
        if not self.score.bilinear:
            raise UsageError("supremix: the score must be 'cosine' or 'dot': only there a mixture's score is a mixture")
        if not window > 0 or (mixtures is not None and mixtures < 1):
            raise UsageError(f"supremix: window must be > 0 and mixtures >= 1 or None, got {window} and {mixtures}")
        if distance not in ("l1", "l2"):
            raise UsageError(f"supremix: distance must be 'l1' or 'l2', got {distance!r}")
        good = 0 <= share <= 1 if isinstance(share, (int, float)) else len(share) == 2 and min(share) > 0
        if not good:
            raise UsageError(f"supremix: share must be a number in [0, 1] or two numbers > 0, got {share!r}")
        self.window, self.mixtures, self.share, self.distance = window, mixtures, share, distance
        self.mix_positive, self.mix_negative = mix_positive, mix_negative

    def weight(self, difference: Tensor) -> Tensor:
        """What a far item weighs, by the difference of the labels."""
        return (difference.square() if self.distance == "l2" else difference.abs()) + 1

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
        """How the engine evaluates it: items among themselves, then the mixtures of each anchor."""
        if not isinstance(relation, Kernel) or relation.query_state["condition"].shape[1] != 1:
            raise ValueError("supremix needs the labels of the items, numbers [n]: relation=Kernel(labels)")
        if query is None or key is not None or scores is not None:
            raise ValueError("supremix contrasts items among themselves: give their embeddings and no keys or scores")
        labels = relation.query_state["condition"].to(query.device).double()

        def far(one: Tensor, other: Tensor) -> Tensor:
            difference = one - other.T
            return self.weight(difference) * (difference != 0)

        items = _RealItems(temperature=self.temperature, score=self.score, reduction="none")
        sums, report = evaluate_rows(
            items,
            query,
            None,
            relation=Kernel(labels, "delta", far=far),
            scores=None,
            memory=memory,
            tile_rows=tile_rows,
            group=group,
        )
        log_sum, pull, count = sums.unbind(1)
        with without_autocast(query.device):
            mixed = self._mixed(self.score.embed(at_least_float32(query)), labels[:, 0], group)
        for logits, weight, near in mixed:
            log_sum = torch.logaddexp(log_sum, _log_sum(logits, weight))
            if near:
                pull = pull + (weight * logits).sum(1)
                count = count + weight.sum(1)
        active = count > 0
        costs = torch.where(active, log_sum - pull / count.clamp_min(1), 0)
        report = Report(
            report.anchors, active.sum(), report.positive_pairs, report.negative_pairs, report.mode, report.tile_rows,
            report.fused,
        )  # fmt: skip
        if self.reduction == "none":
            return costs, report
        total = costs.sum()
        if self.reduction == "mean":
            total = total / total_over_processes(active.sum(), group).clamp_min(1)
        return sum_over_processes(total, group), report

    def _mixed(
        self, items: Tensor, labels: Tensor, group: dist.ProcessGroup | None
    ) -> list[tuple[Tensor, Tensor, bool]]:
        """``(logits [n, R], weights [n, R], whether they are near)`` of the mixtures, 0 being the weight of none."""
        if not (self.mix_positive or self.mix_negative):
            return []
        assert self.temperature is not None
        keys, key_labels = of_all(items, group), of_all(labels, group)
        scale = self.temperature.scale()
        step = tiles.rows_that_fit(items.shape[0], keys.shape[0], items.element_size(), 8.0)
        found: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}
        for rows in tiles.steps(items.shape[0], step):
            scores, own = items[rows] @ keys.T, (items[rows] * items[rows].detach()).sum(1, keepdim=True)
            difference = (key_labels[None, :] - labels[rows, None]).to(scores.dtype)
            if self.mix_positive:
                mix = self.positives(difference)
                logits = mix.share * scores.gather(1, mix.first) + (1 - mix.share) * scores.gather(1, mix.second)
                found[True].append((logits * scale, mix.filled.to(logits.dtype)))
            if self.mix_negative:
                mix = self.negatives(difference, rows.start)
                logits = mix.share * own + (1 - mix.share) * scores.gather(1, mix.second)
                apart = (1 - mix.share) * difference.gather(1, mix.second)
                found[False].append((logits * scale, (self.weight(apart) * mix.filled).to(logits.dtype)))
        return [(*_padded(parts), near) for near, parts in found.items() if parts]

    def positives(self, difference: Tensor) -> Mixtures:
        """Items below and above an anchor's label within the window; ``difference [t, m]``: keys' labels minus it."""
        below = (difference < 0) & (difference > -self.window)
        above = (difference > 0) & (difference < self.window)
        pairs = below.sum(1) * above.sum(1)
        if self.mixtures is None or int(pairs.max()) <= self.mixtures:
            lows, low_filled = _columns(below)
            highs, high_filled = _columns(above)
            first = lows[:, :, None].expand(-1, -1, highs.shape[1]).flatten(1)
            second = highs[:, None, :].expand(-1, lows.shape[1], -1).flatten(1)
            filled = (low_filled[:, :, None] & high_filled[:, None, :]).flatten(1)
        else:
            some = pairs > 0
            first, second = (
                torch.multinomial(torch.where(some[:, None], side, True).float(), self.mixtures, replacement=True)
                for side in (below, above)
            )
            filled = some[:, None].expand_as(first)
        low, high = difference.gather(1, first), difference.gather(1, second)
        share = torch.where(filled, high / torch.where(filled, high - low, 1), 0)
        return Mixtures(first, second, share, filled)

    def negatives(self, difference: Tensor, start: int) -> Mixtures:
        """Items of other labels than an anchor's; ``first`` stands for the anchor itself, row ``start + i``."""
        other = difference != 0
        most = int(other.sum(1).max())
        if self.mixtures is not None and most > self.mixtures:
            drawn = torch.rand(other.shape, device=other.device).masked_fill(~other, -1).topk(self.mixtures, dim=1)
            second, filled = drawn.indices, drawn.values >= 0
        else:
            second, filled = _columns(other)
        first = torch.arange(start, start + len(second), device=second.device)[:, None].expand_as(second)
        return Mixtures(first, second, self.shares(first, second).to(difference), filled)

    def shares(self, anchors: Tensor, others: Tensor) -> Tensor:
        """The anchors' shares ``[t, R]`` of negative mixtures with ``others [t, R]``."""
        if isinstance(self.share, (int, float)):
            return torch.full(others.shape, float(self.share), dtype=torch.float64, device=others.device)
        drawn: Tensor = torch.distributions.Beta(*self.share).sample(others.shape)
        return drawn.to(others.device)


def _columns(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen columns of each row, to the left, ``[t, k]``, and which places are filled."""
    most = int(chosen.sum(1).max())
    found = chosen.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    return found.indices[:, :most], found.values[:, :most] > 0


def _padded(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Tiles of logits and weights, one below the other; places beyond a tile's own weigh 0."""
    most = max(logits.shape[1] for logits, _ in parts)

    def joined(which: int) -> Tensor:
        return torch.cat([torch.nn.functional.pad(part[which], (0, most - part[which].shape[1])) for part in parts])

    return joined(0), joined(1)


def _log_sum(logits: Tensor, weight: Tensor) -> Tensor:
    """``log sum_r weight_ir exp(logit_ir)``, -inf without a gradient where a row has none."""
    some = (weight > 0).any(1)
    safe = torch.where(some[:, None], masked(logits, weight), 0) if logits.shape[1] else logits.new_zeros(len(some), 1)
    return torch.where(some, torch.logsumexp(safe, 1), -math.inf)
