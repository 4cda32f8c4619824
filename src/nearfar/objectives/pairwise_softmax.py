"""Relatives of InfoNCE that count pairs: multi-class N-pair, neighbourhood components, sigmoids, CPC's predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.contrast.distributed import mean_over_processes, positions
from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.paired import Paired
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import InfoNCE, SoftmaxObjective


@register
class NPairs(InfoNCE):
    """Multi-class N-pair loss: one pair a class, dot products, cross-entropy over the classes (Sohn, 2016).

    ``L_i = -log( exp(a_i.p_i) / sum_j exp(a_i.p_j) )``, called as ``NPairs()(anchors, positives)`` with one pair of
    each class (:func:`one_pair_a_label` picks them out of a labelled batch, the first pair of each label, as
    pytorch-metric-learning does; a second pair of a class would be a false negative). The embeddings are not
    normalised, which the paper makes up for by a penalty on their lengths; pytorch-metric-learning normalises them
    (``score="cosine"``).

    Arguments:
        length_penalty: >= 0, default 0: this times the mean squared length of anchors and of positives, averaged, is
            added to the loss (TensorFlow's npairs_loss: 0.001).
        temperature: default 1; ``score`` "dot"; and those of :class:`~nearfar.objectives.InfoNCE` up to
            ``reduction``.
    """

    name = "n-pairs"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {}
    formula = "-log( exp(a_i.p_i) / sum_j exp(a_i.p_j) )"
    paper = "Sohn 2016, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NIPS"
    default_score = "dot"
    default_temperature = 1.0

    def __init__(
        self,
        length_penalty: float = 0.0,
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not 0 <= length_penalty < float("inf"):
            raise UsageError(f"n-pairs: length_penalty must be a finite number >= 0, got {length_penalty}")
        self.length_penalty = length_penalty

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
        """How the engine evaluates it: the penalty is added to the loss."""
        query, key = (None if side is None else at_least_float32(side) for side in (query, key))
        loss, report = super().evaluation(
            query, key, relation=relation, scores=scores, memory=memory, tile_rows=tile_rows, group=group
        )
        if self.length_penalty and query is not None:
            sides = [side.square().sum(1) for side in (query, key) if side is not None]
            lengths = torch.stack([mean_over_processes(side, group) for side in sides])
            loss = loss + self.length_penalty * lengths.mean()
        return loss, report


def one_pair_a_label(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The first two items of each label that two items have: their rows ``[c]`` and ``[c]``, in the order of labels."""
    order = labels.argsort(stable=True)
    ordered = labels[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    pairs = first[:-1] & ~first[1:]
    return order[:-1][pairs], order[1:][pairs]


@register
class NCA(SoftmaxObjective):
    """Neighbourhood components: a neighbour picked at random is of the anchor's class (Goldberger et al., 2004).

    ``p_ij = exp(-D_ij^2/T) / sum_{k != i} exp(-D_ik^2/T)``, ``L_i = -log sum_{j near i} p_ij``, mean over the rows with
    a positive. Squared Euclidean distances of embeddings as they are; 1/T is pytorch-metric-learning's softmax_scale.
    :class:`~nearfar.objectives.SupCon`'s form "in" without the number of positives.

    Arguments:
        form: "log" (default), or "probability": ``-sum_{j near i} p_ij``, what scikit-learn's
            NeighborhoodComponentsAnalysis maximises the sum of.
        temperature: default 1; ``score`` default "negative-squared-euclidean"; and those of
            :class:`~nearfar.objectives.InfoNCE` up to ``reduction``.
    """

    name = "nca"
    formula = "-log sum_p exp(-D_ip^2) / sum_j exp(-D_ij^2)"
    paper = "Goldberger 2004, Neighbourhood Components Analysis, NIPS"
    default_score = "negative-squared-euclidean"
    default_temperature = 1.0
    needs_negative = False

    def __init__(
        self,
        form: str = "log",
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if form not in ("log", "probability"):
            raise UsageError(f"nca: form must be 'log' or 'probability', got {form!r}")
        self.form = form

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        log_probability = log_sum_exp(scores, positive) - log_sum_exp(scores, self.denominator(positive, negative))
        return -log_probability if self.form == "log" else -log_probability.exp()


@register
class SigLIP(RowObjective):
    """Sigmoid loss: every pair is told near or far by itself (Zhai et al., 2023).

    ``L = -(1/n) sum_i sum_j log sigma( y_ij (s_ij/T + bias) )``, y 1 for near and -1 for far pairs: a sum over a row's
    pairs, divided by the number of rows, not of pairs. Rows with any pair count. Weights of the relation multiply.

    Arguments:
        bias: where the bias starts, default -10 (the paper's): without it far pairs dominate the early loss.
        learned_bias: whether the bias is learned (default True).
        temperature: default "learned" from 0.1 (the paper's t = 10); held within [0.01, 100], which the paper does not.
            And those of :class:`~nearfar.objectives.InfoNCE` up to ``reduction``.
    """

    name = "siglip"
    formula = "-(1/n) sum_ij log sigma( y_ij (s_ij/T + b) )"
    paper = "Zhai 2023, Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343"
    default_temperature = 0.1
    needs_negative = False

    def __init__(
        self,
        *,
        temperature: float | str | Temperature = "learned",
        bias: float = -10.0,
        learned_bias: bool = True,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not abs(bias) < float("inf"):
            raise UsageError(f"siglip: bias must be finite, got {bias}")
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learned_bias)

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return (positive > 0).any(1) | (negative > 0).any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        logits = scores + self.bias.to(scores.dtype)
        return (positive * F.softplus(-logits) + negative * F.softplus(logits)).sum(1)


@register
class CPC(InfoNCE):
    """Contrastive predictive coding: a context predicts what comes k steps later (van den Oord et al., 2018).

    ``L = mean over k of mean_t -log( exp(z_{t+k} . W_k c_t) / sum_{candidates} exp(z_j . W_k c_t) )``, k = 1 ... steps.
    Called as ``CPC(steps, context_dimension, dimension)(context [b, t, c], latents [b, t, d])``; steps that reach
    beyond the end are left out. With predictions made elsewhere, ``CPC()(predictions [n, d], latents [n, d])``, it is
    InfoNCE of dot products. ``log(candidates) - L`` bounds the mutual information of context and latent from below.

    Arguments:
        steps: how far ahead, default 12 (the paper's audio runs).
        context_dimension, dimension: of c and z; None (default) means that both are alike and W_k the identity.
        candidates: "all" (default): latents of all sequences and moments; "sequences": of other sequences at the same
            moment; "moments": of other moments of the same sequence, which keeps the model from keying on what all of a
            sequence has in common.
        temperature: default 1; ``score`` "dot"; and those of :class:`~nearfar.objectives.InfoNCE` up to
            ``reduction``.
    """

    name = "cpc"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {}
    formula = "mean_k,t -log( exp(z_{t+k} . W_k c_t) / sum_j exp(z_j . W_k c_t) )"
    default_score = "dot"
    default_temperature = 1.0

    def __init__(
        self,
        steps: int = 12,
        context_dimension: int | None = None,
        dimension: int | None = None,
        *,
        candidates: str = "all",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if steps < 1:
            raise UsageError(f"cpc: steps must be at least 1, got {steps}")
        if (context_dimension is None) != (dimension is None):
            raise UsageError("cpc: context_dimension and dimension are needed together")
        if candidates not in ("all", "sequences", "moments"):
            raise UsageError(f"cpc: candidates must be 'all', 'sequences' or 'moments', got {candidates!r}")
        self.steps = steps
        self.candidates = candidates
        self.predictors = nn.ModuleList()
        if context_dimension is not None and dimension is not None:
            self.predictors.extend(nn.Linear(context_dimension, dimension, bias=False) for _ in range(steps))

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
        """How the engine evaluates it: one contrast a step."""

        def contrast(
            query: Tensor | None, key: Tensor | None, relation: Relation | None, scores: Tensor | None = None
        ) -> tuple[Tensor, Report]:
            return evaluate_rows(
                self, query, key, relation=relation, scores=scores, memory=memory, tile_rows=tile_rows, group=group
            )

        if query is None or query.dim() == 2:
            return contrast(query, key, relation, scores)
        if key is None or key.dim() != 3 or query.dim() != 3 or query.shape[:2] != key.shape[:2]:
            shapes = tuple(query.shape), None if key is None else tuple(key.shape)
            raise ValueError(f"cpc: context must be [b, t, c] and latents [b, t, d], got {shapes[0]} and {shapes[1]}")
        if relation is not None:
            raise ValueError("cpc: who is near whom follows from the sequences; give no relation")
        if self.reduction == "none":
            raise ValueError("cpc: reduction='none' has no meaning for the mean over steps")
        b, t, _ = key.shape
        if t < 2:
            raise ValueError(f"cpc: a sequence of {t} moments has nothing to predict")
        found = []
        for k in range(1, min(self.steps, t - 1) + 1):
            context = query[:, : t - k]
            predicted = self.predictors[k - 1](context) if self.predictors else context
            near = self._relation(b, t - k, key.device, group)
            found.append(contrast(predicted.flatten(0, 1), key[:, k:].flatten(0, 1), near))
        losses, reports = zip(*found, strict=True)
        counts = ("anchors", "active_anchors", "positive_pairs", "negative_pairs")
        totals = {name: sum(getattr(report, name) for report in reports) for name in counts}
        return torch.stack(losses).mean(), replace(reports[0], **totals)

    def _relation(self, b: int, moments: int, device: torch.device, group: dist.ProcessGroup | None) -> Paired:
        """Prediction i is near latent i; far is what the candidates say."""
        sequence = positions(b, device, group).repeat_interleave(moments)
        moment = torch.arange(moments, device=device).repeat(b)
        within = {"all": None, "sequences": moment, "moments": sequence}[self.candidates]
        return Paired(query_within=within, key_within=within)
