"""Classifiers as contrast: items against one weight vector a class, with margins in angle, or many classes at once."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.engine import Report
from nearfar.contrast.relation import Relation
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.composed import Way
from nearfar.objectives.margin_structured import cosine_of_sum
from nearfar.objectives.proxies import ProxyObjective, cross_entropy
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import SoftmaxObjective


@register
class NormSoftmax(ProxyObjective, SoftmaxObjective):
    """Normalised softmax: classification by cosine, with a temperature (Zhai & Wu, 2019; NormFace, 2017).

    ``-log( exp(cos_iy / T) / sum_c exp(cos_ic / T) )``: :class:`InfoNCE` of items against proxies. In [0, inf);
    log(classes) when the cosines say nothing.

    Arguments:
        classes, dimension: see :class:`ProxyObjective`.
        temperature: T > 0, default 0.05 (the paper's); and ``reduction``, both as in :class:`InfoNCE`.
    """

    name = "norm-softmax"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"normalized-softmax": {}, "normface": {}}
    formula = "-log( exp(cos_iy / T) / sum_c exp(cos_ic / T) )"
    paper = "Zhai 2019, Classification is a Strong Baseline for Deep Metric Learning, arXiv:1811.12649"
    default_temperature = 0.05

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        temperature: float | str | Temperature | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, temperature=temperature, reduction=reduction)


class AngularMargin(ProxyObjective):
    """Base of softmax classifiers whose own class has to win by a margin: ``logits = scale * target(cos)`` of the own
    class, ``scale * cos`` of the others. With several sub-centres a class counts by its nearest one."""

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        scale: float,
        sub_centers: int = 1,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, per_class=sub_centers, reduction=reduction)
        if not 0 < scale < float("inf"):
            raise UsageError(f"{self.name}: scale must be a finite number > 0, got {scale}")
        self.scale = scale

    def target(self, cosine: Tensor) -> Tensor:
        """What takes the place of the cosine of the own class."""
        raise NotImplementedError

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.per_class > 1:
            negative = self.by_class(scores, negative)[1]
            centers, positive = self.by_class(scores, positive)
            scores = centers.amax(2)
        logits = torch.where(positive > 0, self.target(scores), scores)
        return cross_entropy(self.scale * logits, positive, negative)


@register
class ArcFace(AngularMargin):
    """ArcFace: the angle to the own class has a margin added (Deng et al., 2019).

    ``-log softmax(scale l)_y`` with ``l_c = cos theta_c`` and ``l_y = cos(theta_y + margin)``; where theta_y + margin
    passes pi, ``l_y = cos theta_y - margin sin(margin)`` keeps it falling (the official code). In [0, inf).

    Arguments:
        classes, dimension: see :class:`ProxyObjective`.
        margin: in radians, in [0, pi), default 0.5 (the paper's; pytorch-metric-learning's 28.6 degrees are 0.49916).
        scale: > 0, default 64 (the paper's; about 30 on small data).
        easy_margin: the official option: the margin only where theta_y < pi/2, ``cos theta_y`` beyond.
        sub_centers: proxies a class, of which the nearest counts (sub-center ArcFace, 2020: 3); default 1.
        reduction: as in :class:`InfoNCE`.

    A large margin from the start may not converge: begin with a smaller one. Cosines of 1 and -1 are safe: there the
    derivative of the sine is taken as 0.
    """

    name = "arcface"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"sub-center-arcface": {"sub_centers": 3}}
    formula = "-log softmax(scale l)_y, l_c = cos theta_c, l_y = cos(theta_y + margin)"
    paper = "Deng 2019, ArcFace: Additive Angular Margin Loss for Deep Face Recognition, arXiv:1801.07698"

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        margin: float = 0.5,
        scale: float = 64.0,
        easy_margin: bool = False,
        sub_centers: int = 1,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, scale=scale, sub_centers=sub_centers, reduction=reduction)
        if not 0 <= margin < math.pi:
            raise UsageError(f"arcface: the margin must be an angle in [0, pi), got {margin}", hint="give radians")
        self.margin = margin
        self.easy_margin = easy_margin

    @property
    def sub_centers(self) -> int:
        return self.per_class

    def target(self, cosine: Tensor) -> Tensor:
        with_margin = cosine_of_sum(cosine, self.margin)
        if self.easy_margin:
            return torch.where(cosine > 0, with_margin, cosine)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine >= -math.cos(self.margin), with_margin, beyond)


@register
class CosFace(AngularMargin):
    """CosFace, or AM-softmax: the cosine to the own class has a margin taken off (Wang et al., 2018).

    ``-log softmax(scale l)_y`` with ``l_c = cos theta_c`` and ``l_y = cos theta_y - margin``. In [0, inf).

    Arguments:
        classes, dimension: see :class:`ProxyObjective`.
        margin: >= 0, default 0.35; scale: > 0, default 64 (both the paper's).
        sub_centers: proxies a class, of which the nearest counts; default 1.
        reduction: as in :class:`InfoNCE`.
    """

    name = "cosface"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"am-softmax": {}}
    formula = "-log softmax(scale l)_y, l_c = cos theta_c, l_y = cos theta_y - margin"
    paper = "Wang 2018, CosFace: Large Margin Cosine Loss for Deep Face Recognition, arXiv:1801.09414"

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        margin: float = 0.35,
        scale: float = 64.0,
        sub_centers: int = 1,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, scale=scale, sub_centers=sub_centers, reduction=reduction)
        if not 0 <= margin < float("inf"):
            raise UsageError(f"cosface: the margin must be a finite number >= 0, got {margin}")
        self.margin = margin

    def target(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin


@register
class SphereFace(AngularMargin):
    """SphereFace, or A-softmax: the angle to the own class is multiplied (Liu et al., 2017).

    ``-log softmax(scale |x| l)_y`` with ``l_c = cos theta_c`` and ``l_y = (lambda cos theta_y + psi(theta_y)) /
    (1 + lambda)``, ``psi(theta) = (-1)^k cos(margin theta) - 2 k`` on ``[k pi/margin, (k + 1) pi/margin]``. At least 0.

    Arguments:
        classes, dimension: see :class:`ProxyObjective`.
        margin: a whole number >= 1, default 4 (the paper's).
        annealing: lambda >= 0, default 0, the formula of the paper. Its code starts at 1,500 and lowers it to 5: set
            ``objective.annealing`` as training goes.
        scale: > 0, default 1.
        reduction: as in :class:`InfoNCE`.

    The length of an embedding counts, that of a proxy does not. Takes embeddings, no ready-made scores.
    """

    name = "sphereface"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"a-softmax": {}}
    formula = "-log softmax(|x| l)_y, l_c = cos theta_c, l_y = (-1)^k cos(margin theta_y) - 2 k"
    paper = "Liu 2017, SphereFace: Deep Hypersphere Embedding for Face Recognition, arXiv:1704.08063"
    needs_positive_scores = True

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        margin: int = 4,
        annealing: float = 0.0,
        scale: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, scale=scale, reduction=reduction)
        if isinstance(margin, bool) or not isinstance(margin, int) or margin < 1:
            raise UsageError(f"sphereface: the margin must be a whole number >= 1, got {margin!r}")
        if not 0 <= annealing < float("inf"):
            raise UsageError(f"sphereface: annealing must be a finite number >= 0, got {annealing}")
        self.margin = margin
        self.annealing = annealing
        self._lengths: Tensor | None = None

    def contrast(self, query: Tensor, keys: Tensor, relation: Relation, way: Way) -> tuple[Tensor, Report]:
        lengths = torch.linalg.vector_norm(query, dim=1)
        if way.group is not None:
            lengths = GatheredRows(len(query), way.group, query.device).gather_with_gradient(lengths)
        self._lengths = lengths
        try:
            return super().contrast(query, keys, relation, way)
        finally:
            self._lengths = None

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        if self._lengths is None:
            raise ValueError("sphereface needs embeddings: the length of an item does not follow from its cosines")
        return {"length": self._lengths}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        logits = torch.where(positive > 0, self.target(scores), scores)
        return cross_entropy(self.scale * state["length"][:, None] * logits, positive, negative)

    def target(self, cosine: Tensor) -> Tensor:
        before, multiple = torch.ones_like(cosine), cosine  # cos(0 theta), cos(1 theta)
        for _ in range(self.margin - 1):
            before, multiple = multiple, 2 * cosine * multiple - before
        angle = torch.acos(cosine.detach().clamp(-1, 1))
        cell = (angle * (self.margin / math.pi)).floor().clamp_max(self.margin - 1)
        sign = 1 - 2 * (cell % 2)
        return (self.annealing * cosine + sign * multiple - 2 * cell) / (1 + self.annealing)
