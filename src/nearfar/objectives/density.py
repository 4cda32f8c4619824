"""Densities by contrast with noise."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.contrast.engine import Memory
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Dot
from nearfar.errors import UsageError
from nearfar.objectives.base import PointObjective
from nearfar.objectives.information import moving_log_average
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import SoftmaxObjective


@register
class BinaryNCE(PointObjective):
    """Binary noise-contrastive estimation: data or noise? (Gutmann & Hyvarinen, 2010).

    ``h = score + c - log_noise - log(ratio)``; cost ``log(1 + exp(-h))`` of a data point (target 1),
    ``log(1 + exp(h))`` of a noise point (target 0). With ``score`` the unnormalised log-density of the model,
    ``log_noise`` the log-density of the noise and ``ratio`` noise points for each data point, the optimum is the data's
    density and c the model's negative log-normaliser.
    Without ``log_noise`` and with ratio 1 it is the logistic loss (negative sampling). Costs are in [0, inf).

    Called with ``score [n]``, ``target [n]`` in {0, 1} (bool, integer or float; soft targets in [0, 1] are allowed) and
    optionally ``log_noise [n]``. Raises ValueError for targets outside [0, 1].

    Arguments: ``ratio`` > 0, default 1; ``learn_normalizer``: whether c is a parameter (default False: c = 0);
    ``reduction``: "none" (default), "mean" or "sum".
    """

    name = "binary-nce"
    aliases = {"nce": {}}  # noqa: RUF012
    formula = "log(1 + exp(-h)) for data, log(1 + exp(h)) for noise; h = score + c - log_noise - log(ratio)"
    paper = "Gutmann 2010, Noise-contrastive estimation"
    extras = ("log_noise",)

    def __init__(self, ratio: float = 1.0, *, learn_normalizer: bool = False, reduction: str = "none") -> None:
        super().__init__(reduction=reduction)
        if not 0 < ratio < math.inf:
            raise UsageError(f"binary-nce: ratio must be a finite number > 0, got {ratio}")
        self.ratio = ratio
        self.normalizer = nn.Parameter(torch.zeros(())) if learn_normalizer else None

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        h = score - math.log(self.ratio)
        if "log_noise" in extra:
            h = h - extra["log_noise"]
        if self.normalizer is not None:
            h = h + self.normalizer
        target = target.to(h.dtype)
        if not bool(((target >= 0) & (target <= 1)).all()):
            raise ValueError("binary-nce: targets must lie in [0, 1]: 1 for data, 0 for noise")
        return target * F.softplus(-h) + (1 - target) * F.softplus(h)


@register
class RankingNCE(SoftmaxObjective):
    """Ranking noise-contrastive estimation: which of these is the true one? (Ma & Collins, 2018).

    ``-( h_0 - log sum_j exp(h_j) )`` over the true point and the noise points of a row, with
    ``h = log p0 - log q``: the model's unnormalised log-density and the noise's. The normaliser of a row cancels, so it
    is consistent for conditional models without estimating it. InfoNCE is the case of noise drawn from the marginal,
    where log q drops out; with embeddings and the sampling probability of each key it is the sampled softmax with its
    correction. In [0, inf); log of the number of candidates when h says nothing.

    Called with ``scores [n, m]`` (log p0) or with embeddings whose dot product is log p0, and ``log_noise``: log q,
    ``[m]`` for each candidate, or ``[n, m]`` beside ready-made scores; left out, scores are h already.

    Arguments: ``score`` default "dot", which ``log_noise`` needs beside embeddings; ``temperature`` default 1; those of
    :class:`InfoNCE`.
    """

    name = "ranking-nce"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"conditional-nce": {}, "sampled-softmax": {}}
    formula = "-log( exp(h_0) / sum_j exp(h_j) ), h = log p0 - log q"
    paper = "Ma 2018, Noise Contrastive Estimation and Negative Sampling for Conditional Models, arXiv:1809.01812"
    default_score = "dot"
    default_temperature = 1.0
    needs_negative = False

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
        log_noise: Tensor | None = None,
    ) -> Tensor:
        """The loss; see :meth:`RowObjective.forward`. ``log_noise`` is divided by the temperature like the scores."""
        if log_noise is not None and scores is not None:
            if log_noise.shape not in (scores.shape, scores.shape[1:]):
                raise ValueError(
                    f"ranking-nce: log_noise must be {list(scores.shape)} or {list(scores.shape[1:])}, got "
                    f"{list(log_noise.shape)}"
                )
            scores = scores - log_noise
        elif log_noise is not None and query is not None:
            query, key = self._with_noise(query, query if key is None else key, key is None, log_noise)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)

    def _with_noise(
        self, query: Tensor, key: Tensor, among_themselves: bool, log_noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embeddings with one more dimension, so that their dot product is ``q.k - log q(k)``."""
        if type(self.score) is not Dot or among_themselves:
            raise ValueError("ranking-nce: log_noise needs queries and keys under the score 'dot'")
        if log_noise.shape != key.shape[:1]:
            raise ValueError(f"ranking-nce: log_noise must be [{key.shape[0]}], got {list(log_noise.shape)}")
        ones = query.new_ones(query.shape[0], 1)
        return torch.cat([query, ones], 1), torch.cat([key, -log_noise[:, None].to(key)], 1)


@register
class MECO(PointObjective):
    """MECO: the likelihood of an unnormalised model, its normaliser by noise and a moving average (Jiang et al., 2023).

    Minus ``mean_i log p0(x_i) - log Z`` over data points, ``Z = E_noise[ p0 / q ]``. Of each batch,
    ``G = mean_j p0(z_j) / q(z_j)`` over the noise points and ``u <- (1 - rate) u + rate G``, u = G at first; the value
    is ``-mean_i log p0(x_i) + log u`` and the gradient ``-mean_i grad log p0(x_i) + grad G / u``. ``rate`` 1 is plain
    importance sampling, whose gradient is biased. It is :class:`MINE` with the critic log p0 - log q. The noise must
    cover the model: the variance of p0 / q decides over everything.

    Called with ``score [n]`` (log p0), ``target [n]``: 1 for data, 0 for noise, and ``log_noise``: log q of the points,
    of which only noise points use it. The costs ``[n]`` (``reduction="none"``) are such that their mean is the value.
    Raises ValueError for targets other than 0 and 1. Computed in logarithms. Data alone, or noise alone, gives its own
    term.

    u (``log_average``) changes with every call in training mode and is saved with the state. Over several processes
    each keeps that of its own batches.

    Arguments: ``rate`` in (0, 1], default 0.1; ``reduction``: "none" (default), "mean" or "sum".
    """

    name = "meco"
    takes = "log-densities"
    formula = "-mean_i log p0(x_i) + log u, u the moving average of mean_j p0(z_j) / q(z_j)"
    paper = "Jiang 2023, Learning Unnormalized Statistical Models via Compositional Optimization, arXiv:2306.07485"
    extras = ("log_noise",)
    log_average: Tensor
    batches: Tensor

    def __init__(self, rate: float = 0.1, *, reduction: str = "none") -> None:
        super().__init__(reduction=reduction)
        if not 0 < rate <= 1:
            raise UsageError(f"meco: rate must lie in (0, 1], got {rate}")
        self.rate = rate
        self.register_buffer("log_average", torch.zeros(()))
        self.register_buffer("batches", torch.zeros(()))

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        data, noise = target == 1, target == 0
        if not bool((data | noise).all()):
            raise ValueError("meco: targets must be 1 for data and 0 for noise")
        n, of_data, of_noise = score.numel(), int(data.sum()), int(noise.sum())
        costs = torch.where(data, -score * (n / max(of_data, 1)), 0)
        if of_noise:
            log_ratios = (score - extra["log_noise"].to(score) if "log_noise" in extra else score)[noise]
            log_mean = torch.logsumexp(log_ratios, 0) - math.log(of_noise)
            log_average = moving_log_average(self.log_average, self.batches, log_mean.detach(), self.rate)
            if self.training:
                self.log_average, self.batches = log_average.to(self.log_average), self.batches + 1
            pushes = (log_ratios - log_average).exp()
            costs = costs.masked_scatter(noise, pushes * (n / of_noise))
            return costs + log_average - pushes.detach().mean()
        return costs + self.log_average.to(score)
