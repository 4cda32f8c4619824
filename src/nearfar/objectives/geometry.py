"""View objectives on the geometry of a batch: distances to neighbours, angles that augmentations keep, two heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.contrast.engine import evaluate
from nearfar.contrast.paired import Views
from nearfar.contrast.relation import Labels, candidates
from nearfar.contrast.score import normalize
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, ViewObjective, log_sum_exp
from nearfar.objectives.multiview import Alignment, Uniformity
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import InfoNCE


@register
class KoLeo(ViewObjective):
    """KoLeo: every item keeps away from its nearest neighbour (Sablayrolles et al., 2019).

    ``-mean_i log( min_{j != i} |z_i - z_j| + eps )`` of normalised rows (the Kozachenko-Leonenko estimate of their
    negative entropy), averaged over the views given (one or more). The gradient reaches both ends of a distance. At
    least -log(2 + eps); duplicates cost -log(eps), with a zero gradient. Memory is linear in n; needs at least 2 rows.

    DINOv2's code and lightly add eps to every coordinate of the difference instead of to the distance, which differs
    by as much as eps.

    Arguments: ``eps`` > 0, default 1e-8; ``normalize``: rows are normalised first (default True).
    """

    name = "koleo"
    formula = "-mean_i log( min_{j != i} |z_i - z_j| + eps )"
    paper = "Sablayrolles 2019, Spreading vectors for similarity search, arXiv:1806.03198"

    def __init__(self, eps: float = 1e-8, *, normalize: bool = True) -> None:
        super().__init__()
        if not 0 < eps < math.inf:
            raise UsageError(f"koleo: eps must be a finite number > 0, got {eps}")
        self.eps = eps
        self.normalize = normalize
        self.nearest = _NearestDistance(eps)

    def forward(self, *views: Tensor) -> Tensor:
        checked = [normalize(view) if self.normalize else view for view in self.views(*views)]
        return torch.stack(
            [evaluate(self.nearest, view, relation=Labels(torch.arange(view.shape[0]))) for view in checked]
        ).mean()


class _NearestDistance(RowObjective):
    """``-log( min_j d_ij + eps )`` of each row, d being the distances to its far columns."""

    name = "nearest-distance"
    default_score = "negative-euclidean"

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return negative.any(1)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        nearest = scores.masked_fill(negative == 0, -torch.inf).max(1).values
        return -(self.eps - nearest).log()


@register
class Equivariance(ViewObjective):
    """An augmentation should act as one rotation of the sphere, the same for all items (Gupta et al., 2023).

    ``2 mean_i sum_{j != i} (z1_i.z1_j - z2_i.z2_j)^2`` of normalised rows, averaged over ``chunks`` parts of the batch.
    0 exactly when an orthogonal R takes every z1_i of a part to z2_i = R z1_i. Coinciding views are such a zero as
    well, and so is total collapse: it needs an alignment or uniformity beside it, and none that is too strong.

    ``z1`` and ``z2`` must be a part's items under *one* augmentation each: drawn once for all items of the part, not
    for each item, which is what makes this differ from the two views of other objectives. The last ``n mod chunks``
    rows are left out. The sum over j is not a mean: the value grows with the size of a part. Memory is linear in n.
    Parts of one row have no pairs and cost 0; more chunks than rows raise ValueError.

    Arguments: ``chunks`` >= 1, default 1 (the official scripts: 8 or 16 with batches of 256); ``normalize``: rows are
    normalised first (default True).
    """

    name = "equivariance"
    formula = "2 mean_i sum_{j != i} (z1_i.z1_j - z2_i.z2_j)^2"
    paper = "Gupta 2023, Structuring Representation Geometry with Rotationally Equivariant Contrastive Learning, " + (
        "arXiv:2306.13924"
    )

    def __init__(self, chunks: int = 1, *, normalize: bool = True) -> None:
        super().__init__()
        if chunks < 1:
            raise UsageError(f"equivariance: chunks must be at least 1, got {chunks}")
        self.chunks = chunks
        self.normalize = normalize
        self.squares = _SumOfSquares()

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=1)
        size = z1.shape[0] // self.chunks
        if not size:
            raise ValueError(f"{self.name}: {self.chunks} chunks need as many rows, got {tuple(z1.shape)}")
        if size == 1:
            return (z1.sum() + z2.sum()) * 0.0
        if self.normalize:
            z1, z2 = normalize(z1), normalize(z2)
        # z1_i.z1_j - z2_i.z2_j is one dot product, which the engine evaluates in linear memory
        query, key = torch.cat([z1, z2], 1), torch.cat([z1, -z2], 1)
        parts = [slice(start * size, (start + 1) * size) for start in range(self.chunks)]
        return 2 * torch.stack([evaluate(self.squares, query[rows], key[rows]) for rows in parts]).mean()


class _SumOfSquares(RowObjective):
    """``sum_j s_ij^2`` of each row over its far columns."""

    name = "sum-of-squares"
    default_score = "dot"

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return (scores.square() * negative).sum(1)


@register
class CARE(ViewObjective):
    """CARE: InfoNCE and equivariance to augmentations (Gupta et al., 2023).

    ``InfoNCE(z1, z2) + weight * equivariance(e1, e2)``: NT-Xent of two views, every item augmented on its own, and
    :class:`Equivariance` of two more embeddings of the same items, every part of the batch under one augmentation. The
    paper encodes each item four times. Called with ``z1, z2`` alone, both terms see the same views, which is right only
    when the augmentations are shared within the parts.

    Arguments: ``weight`` >= 0, default 0.01 (the official code's; 0.03 in its CIFAR-10 script); ``temperature`` of
    InfoNCE, default 0.5; ``chunks`` as in :class:`Equivariance`.
    """

    name = "care"
    formula = "-log( exp(s_ip/T) / sum_j exp(s_ij/T) ) + weight 2 mean_i sum_{j != i} (e1_i.e1_j - e2_i.e2_j)^2"
    paper = Equivariance.paper

    def __init__(self, weight: float = 0.01, *, temperature: float = 0.5, chunks: int = 1) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise UsageError(f"care: weight must be a finite number >= 0, got {weight}")
        self.weight = weight
        self.contrast = InfoNCE(temperature=temperature)
        self.equivariance = Equivariance(chunks)

    def forward(self, z1: Tensor, z2: Tensor, e1: Tensor | None = None, e2: Tensor | None = None) -> Tensor:
        if (e1 is None) != (e2 is None):
            raise ValueError("care: give both e1 and e2, or neither")
        z1, z2 = self.views(z1, z2)
        apart: Tensor = self.equivariance(z1 if e1 is None else e1, z2 if e2 is None else e2)
        return evaluate(self.contrast, torch.cat([z1, z2]), relation=Views(2)) + self.weight * apart


@register
class SepCLR(ViewObjective):
    """SepCLR: what two data sets share apart from what only one has (Louiset et al., 2024).

    Two heads: common ``c`` (normalised here) and salient ``s`` (as it is). ``labels``: 1 for an item of the target set,
    0 for the background, whose salient codes should vanish. With k(a, b) = exp(-|a - b|^2 / (2 tau)),
    align(a, b) = mean_i |a_i - b_i|^2 / (2 tau), uniform(a) = log mean_{i<j} k(a_i, a_j), and s~ being s with 0 in the
    rows of the background::

        common          align(c1, c2) + uniform(c1) + uniform(c2)
        salient         align(s1, s2) over the targets + uniform(s~1) + uniform(s~2)
        infoless        mean over the background of (|s1_i|^2 + |s2_i|^2) / (4 tau)
        joint_entropy   1/2 sum_views mean_i log mean_j k(s~_i, s~_j) k(c_i, c_j), j = i included
        loss            common + salient_weight salient + infoless_weight infoless + joint_weight joint_entropy

    The last term is minus the estimated joint entropy: making it large removes what c and s share. :meth:`terms` gives
    each by name. Called with ``c1, c2 [n, d]``, ``s1, s2 [n, e]`` and ``labels [n]``. A batch without targets, or
    without background, has no align(s1, s2) or no infoless term. Memory is linear in n; needs at least 2 rows.

    Arguments: ``tau`` > 0, default 0.5; ``salient_weight`` and ``infoless_weight`` default 1, ``joint_weight`` default
    10 (the official scripts differ by data set, up to 1000, 1000 and 10).
    """

    name = "sepclr"
    formula = "align(c) + uniform(c) + align(s) + uniform(s~) + |s|^2 of the background - joint entropy of (c, s~)"
    paper = "Louiset 2024, SepCLR: separating common from salient patterns with contrastive learning, arXiv:2402.11928"
    needs = ("s1", "s2", "labels")

    def __init__(
        self,
        tau: float = 0.5,
        *,
        salient_weight: float = 1.0,
        infoless_weight: float = 1.0,
        joint_weight: float = 10.0,
    ) -> None:
        super().__init__()
        if not 0 < tau < math.inf:
            raise UsageError(f"sepclr: tau must be a finite number > 0, got {tau}")
        if not all(0 <= weight < math.inf for weight in (salient_weight, infoless_weight, joint_weight)):
            raise UsageError("sepclr: weights must be finite numbers >= 0")
        self.tau = tau
        self.salient_weight = salient_weight
        self.infoless_weight = infoless_weight
        self.joint_weight = joint_weight
        self.align = Alignment(normalize=False)
        self.uniform = Uniformity(1 / (2 * tau), normalize=False)
        self.density = _LogMeanKernel(temperature=2 * tau)

    def forward(self, c1: Tensor, c2: Tensor, s1: Tensor, s2: Tensor, labels: Tensor) -> Tensor:
        terms = self.terms(c1, c2, s1, s2, labels)
        return (
            terms["common"]
            + self.salient_weight * terms["salient"]
            + self.infoless_weight * terms["infoless"]
            + self.joint_weight * terms["joint_entropy"]
        )

    def terms(self, c1: Tensor, c2: Tensor, s1: Tensor, s2: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The four terms, not weighted: "common", "salient", "infoless", "joint_entropy"."""
        c1, c2 = (normalize(view) for view in self.views(c1, c2))
        s1, s2 = self.views(s1, s2)
        if labels.shape != (c1.shape[0],) or s1.shape[0] != c1.shape[0]:
            raise ValueError(
                f"sepclr: c, s and labels must have the same rows, got {tuple(c1.shape)}, {tuple(s1.shape)} and "
                f"{tuple(labels.shape)}"
            )
        target = labels > 0
        seen1, seen2 = (view * target[:, None] for view in (s1, s2))
        nothing = (s1.sum() + s2.sum()) * 0.0
        near = self.align(s1[target], s2[target]) / (2 * self.tau) if bool(target.any()) else nothing
        infoless = nothing
        if not bool(target.all()):
            infoless = (s1[~target].square().sum(1) + s2[~target].square().sum(1)).mean() / (4 * self.tau)
        joint = [torch.cat([seen, common], 1) for seen, common in ((seen1, c1), (seen2, c2))]
        return {
            "common": self.align(c1, c2) / (2 * self.tau) + 2 * self.uniform(c1, c2),
            "salient": near + 2 * self.uniform(seen1, seen2),
            "infoless": infoless,
            "joint_entropy": torch.stack([evaluate(self.density, view, view) for view in joint]).mean(),
        }


class _LogMeanKernel(RowObjective):
    """``log mean_j exp(-|x_i - x_j|^2 / T)`` of each row over all columns."""

    name = "log-mean-kernel"
    default_score = "negative-squared-euclidean"
    default_temperature = 1.0
    needs_negative = False

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return log_sum_exp(scores, candidates(positive, negative)) - math.log(scores.shape[1])
