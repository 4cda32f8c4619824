"""View objectives without negatives: one branch predicts the other's embeddings, or its assignment to prototypes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nearfar.contrast import temperature as temperature_module
from nearfar.contrast.precision import without_autocast
from nearfar.contrast.score import normalize
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import ViewObjective
from nearfar.objectives.correlation import CorInfoMax
from nearfar.objectives.multiview import BarlowTwins, VICReg
from nearfar.objectives.registry import register
from nearfar.objectives.state import GrowingBuffers


@register
class NegativeCosine(ViewObjective):
    """Minus the mean cosine of two views: ``-mean_i cos(z1_i, z2_i)``, in [-1, 1] (Chen & He, 2021).

    Half of :class:`Alignment` (alpha 2) minus 1. The term SimSiam and BYOL are made of; by itself it collapses unless
    z2 comes without a gradient from a branch that z1 has to predict. A zero row has cosine 0.

    Arguments: ``stop_gradient``: whether z2 gets no gradient (default False).
    """

    name = "negative-cosine"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"negative-cosine-similarity": {}}
    formula = "-mean_i cos(z1_i, z2_i)"
    paper = "Chen 2021, Exploring Simple Siamese Representation Learning, arXiv:2011.10566"

    def __init__(self, *, stop_gradient: bool = False) -> None:
        super().__init__()
        self.stop_gradient = stop_gradient

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=1)
        if self.stop_gradient:
            z2 = z2.detach()
        return -(normalize(z1) * normalize(z2)).sum(1).mean()


class Predicting(ViewObjective):
    """Base of objectives in which predictions from one view meet the other view's targets, both ways around.

    Called with the embeddings ``z1, z2 [n, d]`` of the online branch and ``targets=(t1, t2)``, the embeddings of the
    same views by the other branch (a momentum copy of the encoder); without targets, z1 and z2 themselves. Targets
    never carry a gradient. ``predictor`` is applied to z1 and z2 where one was given; its parameters are the
    objective's.
    """

    def __init__(self, predictor: nn.Module | None = None) -> None:
        super().__init__()
        self.predictor = predictor

    def between(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The cost of a view's predictions given the other view's targets (without a gradient)."""
        raise NotImplementedError

    def crossed(self, z1: Tensor, z2: Tensor, targets: Sequence[Tensor] | None, minimum: int = 1) -> Tensor:
        """``between(p1, t2) + between(p2, t1)``."""
        t1, t2 = _targets(self.name, (z1, z2), targets, 2)
        p1, p2 = (z1, z2) if self.predictor is None else (self.predictor(z1), self.predictor(z2))
        p1, p2, t1, t2 = self.views(p1, p2, t1, t2, minimum=minimum)
        return self.between(p1, t2) + self.between(p2, t1)


@register
class SimSiam(Predicting):
    """SimSiam: each view predicts the other, which stands still (Chen & He, 2021).

    ``-1/2 ( mean_i cos(p1_i, sg z2_i) + mean_i cos(p2_i, sg z1_i) )`` with p = predictor(z) and sg: no gradient. In
    [-1, 1]. Without a predictor it collapses: then the deviation of normalised embeddings goes to 0 instead of
    1/sqrt(d).

    Called as ``objective(z1, z2)``, or ``objective(p1, p2, targets=(z1, z2))`` where the predictor is applied outside.

    Arguments: ``predictor``: a module ``[n, d] -> [n, d]``, default None; the paper's has two layers, d to d/4 to d,
    with batch normalisation and ReLU between.
    """

    name = "simsiam"
    formula = "-( mean_i cos(p1_i, sg z2_i) + mean_i cos(p2_i, sg z1_i) ) / 2"
    paper = NegativeCosine.paper

    def between(self, prediction: Tensor, target: Tensor) -> Tensor:
        return -(normalize(prediction) * normalize(target)).sum(1).mean() / 2

    def forward(self, z1: Tensor, z2: Tensor, *, targets: Sequence[Tensor] | None = None) -> Tensor:
        return self.crossed(z1, z2, targets)


@register
class BYOL(Predicting):
    """BYOL: predict what a slowly moving copy of the encoder makes of the other view (Grill et al., 2020).

    ``mean_i (2 - 2 cos(p1_i, t2_i)) + mean_i (2 - 2 cos(p2_i, t1_i))`` with p = predictor(z), t the momentum copy's
    embeddings, which the predictor does not see. In [0, 8]. Without targets it is 4 + 4 SimSiam. Without a predictor,
    or where the copy is not moved after each step, nothing is learned or everything collapses.

    Called as ``objective(z1, z2, targets=(t1, t2))``, or with predictions for z1, z2 where the predictor is applied
    outside.

    Arguments: ``predictor``: a module ``[n, d] -> [n, d]``, default None.
    """

    name = "byol"
    formula = "mean_i (2 - 2 cos(p1_i, sg t2_i)) + mean_i (2 - 2 cos(p2_i, sg t1_i))"
    paper = "Grill 2020, Bootstrap your own latent, arXiv:2006.07733"

    def between(self, prediction: Tensor, target: Tensor) -> Tensor:
        return 2 - 2 * (normalize(prediction) * normalize(target)).sum(1).mean()

    def forward(self, z1: Tensor, z2: Tensor, *, targets: Sequence[Tensor] | None = None) -> Tensor:
        return self.crossed(z1, z2, targets)


_UNSEE: dict[str, Callable[[], ViewObjective]] = {
    "vicreg": VICReg,
    "barlow-twins": lambda: BarlowTwins(0.0051),
    "corinfomax": lambda: CorInfoMax(2000.0, 0.2),
}


@register
class UNSEE(Predicting):
    """UNSEE: objectives without negatives for sentences, against a target network (Cagatan, 2024).

    ``l(p1, sg t2) + l(p2, sg t1)`` with p = predictor(z) and t the momentum copy's embeddings. ``form`` names l:
    "vicreg" (25, 25, 1), "barlow-twins" (weight 0.0051), "corinfomax" (invariance 2000, covariance 0.2; its running
    estimates are updated by both terms, one after the other) or "byol" (``mean (2 - 2 cos)``). Alone, on dropout views,
    these collapse; the target network prevents it. Variances and covariances of the targets are part of the value and
    carry no gradient. The official Barlow Twins normalises by a layer with a trainable scale and shift.

    Called as ``objective(z1, z2, targets=(t1, t2))``; see :class:`BYOL`. State: that of :class:`CorInfoMax`.

    Arguments: ``form`` default "vicreg"; ``predictor``: a module, default None (the paper: 4 blocks of three layers, 3
    for BYOL).
    """

    name = "unsee"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        f"unsee-{form}": {"form": form} for form in ("vicreg", "barlow-twins", "corinfomax", "byol")
    }
    formula = "l(p1, sg t2) + l(p2, sg t1), l one of VICReg, Barlow Twins, CorInfoMax and BYOL"
    paper = "Cagatan 2024, UNSEE: Unsupervised Non-Contrastive Sentence Embeddings, arXiv:2401.15316"

    def __init__(self, form: str = "vicreg", predictor: nn.Module | None = None) -> None:
        super().__init__(predictor)
        if form not in (*_UNSEE, "byol"):
            raise UsageError(f"there is no form {form!r} of unsee", hint=f"choose one of {', '.join(_UNSEE)}, byol")
        self.form = form
        self.inner = None if form == "byol" else _UNSEE[form]()

    def between(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self.inner is None:
            return 2 - 2 * (normalize(prediction) * normalize(target)).sum(1).mean()
        cost: Tensor = self.inner(prediction, target)
        return cost

    def forward(self, z1: Tensor, z2: Tensor, *, targets: Sequence[Tensor] | None = None) -> Tensor:
        return self.crossed(z1, z2, targets, minimum=1 if self.form == "byol" else 2)


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignments ``[n, k]`` of items to prototypes that use all prototypes about equally (Cuturi, 2013).

    Starts from ``exp(scores [n, k] / epsilon)``; each iteration gives every prototype the same total, then every item a
    total of 1. Computed in logarithms: nothing overflows. Rows sum to 1.
    """
    log_codes = scores / epsilon
    for _ in range(iterations):
        log_codes = log_codes - torch.logsumexp(log_codes, 0, keepdim=True)
        log_codes = log_codes - torch.logsumexp(log_codes, 1, keepdim=True)
    return log_codes.exp()


@register
class SwaV(ViewObjective):
    """SwaV: predict a view's cluster from another view, with clusters of equal size (Caron et al., 2020).

    Scores ``s = z C^T`` of normalised embeddings and normalised prototypes C. The codes q of a view come from its
    scores by :func:`sinkhorn`, without a gradient; the cost of a pair of views is
    ``-mean_i sum_k q_ik log softmax(s'_i / T)_k``, averaged over all pairs of a view that gives codes, the first
    ``assigning`` ones, with another view. In [0, inf); log K at first.

    Called with two or more views ``[n, d]``. ``queues``: for each of the views that give codes, embeddings ``[q, d]``
    of earlier batches, which take part in the codes alone; wanted where a batch is smaller than the number of
    prototypes. :meth:`of_scores` is the same on ready-made scores. The codes depend on the whole batch: over several
    processes call it on the global one, as training does. Prototypes are normalised within the formula, where the
    official code overwrites them; the paper freezes them for the first epoch.

    Arguments:
        prototypes: K, default 3000; ``dimension``: d, default 128 (the paper's).
        temperature: T, default 0.1. ``epsilon`` of the codes, default 0.05; ``iterations``, default 3.
        assigning: how many views give codes, default 2.
    """

    name = "swav"
    formula = "-mean_i sum_k sinkhorn(s)_ik log softmax(s'_i / T)_k"
    paper = "Caron 2020, Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv:2006.09882"

    def __init__(
        self,
        prototypes: int = 3000,
        dimension: int = 128,
        *,
        temperature: float | str | Temperature = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        assigning: int = 2,
    ) -> None:
        super().__init__()
        if min(prototypes, dimension, iterations, assigning) < 1:
            raise UsageError("swav: prototypes, dimension, iterations and assigning must be at least 1")
        if not 0 < epsilon < math.inf:
            raise UsageError(f"swav: epsilon must be a finite number > 0, got {epsilon}")
        self.temperature = temperature_module.get(temperature, 0.1)
        self.epsilon = epsilon
        self.iterations = iterations
        self.assigning = assigning
        self.prototypes = nn.Parameter(normalize(torch.randn(prototypes, dimension)))

    def forward(self, *views: Tensor, queues: Sequence[Tensor] | None = None) -> Tensor:
        checked = self.views(*views, minimum=1)
        dimension = self.prototypes.shape[1]
        queued = [] if queues is None else self.views(*queues, minimum=1)
        for view in (*checked, *queued):
            if view.shape[1] != dimension:
                raise ValueError(
                    f"swav: prototypes have {dimension} dimensions, got views {tuple(view.shape)}; make it with "
                    f"dimension={view.shape[1]}"
                )
        prototypes = normalize(self.prototypes.to(checked[0].dtype))
        with without_autocast(prototypes.device):
            scores, queued = ([normalize(view) @ prototypes.T for view in part] for part in (checked, queued))
        return self.of_scores(scores, None if queues is None else queued)

    def of_scores(self, scores: Sequence[Tensor], queued: Sequence[Tensor] | None = None) -> Tensor:
        """The cost of the views' scores ``[n, K]``, and of the queues' ``[q, K]``, against the prototypes."""
        assigning = min(self.assigning, len(scores))
        if len(scores) < 2:
            raise ValueError(f"swav: needs at least 2 views, got {len(scores)}")
        if queued is not None and len(queued) != assigning:
            raise ValueError(f"swav: {assigning} views give codes and need as many queues, got {len(queued)}")
        predictions = [torch.log_softmax(score * self.temperature.scale(), 1) for score in scores]
        costs = []
        for a in range(assigning):
            everything = scores[a] if queued is None else torch.cat([scores[a], queued[a]])
            codes = sinkhorn(everything.detach(), self.epsilon, self.iterations)[: scores[a].shape[0]]
            costs += [-(codes * predictions[b]).sum(1).mean() for b in range(len(scores)) if b != a]
        return torch.stack(costs).mean()


@register
class DINO(GrowingBuffers, ViewObjective):
    """DINO: the student's outputs follow a momentum teacher's, centred and sharpened (Caron et al., 2021).

    ``-mean_i sum_k softmax((t_i - c) / Tt)_k log softmax(s'_i / Ts)_k``, averaged over all pairs of a teacher's view
    and another view of the student; then ``c <- momentum c + (1 - momentum) mean t``. The centre keeps one output from
    winning everywhere, the low teacher temperature keeps the outputs from being uniform; either alone collapses.

    Called as ``objective(s1, s2, s3, ..., targets=(t1, t2))``: outputs ``[n, K]`` of the student for all views and of
    the teacher for the first of them, in the same order. Without targets, the student's first two stand for the
    teacher's. Teacher outputs carry no gradient.

    The centre ``[K]`` changes after the loss, in training mode only, and is saved with the state. Over several
    processes call it on the global batch on every process, as training does, and it stays the same everywhere.

    Arguments:
        student_temperature: Ts, default 0.1. ``teacher_temperature``: Tt, default 0.04 (the official code's; the paper
            warms it up from 0.04 to 0.07: a :class:`Temperature` may change as training goes).
        momentum: of the centre, in [0, 1), default 0.9.
    """

    name = "dino"
    formula = "-mean_i sum_k softmax((t_i - c) / Tt)_k log softmax(s'_i / Ts)_k"
    paper = "Caron 2021, Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294"
    centre: Tensor

    def __init__(
        self,
        student_temperature: float | Temperature = 0.1,
        teacher_temperature: float | Temperature = 0.04,
        *,
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise UsageError(f"dino: momentum must lie in [0, 1), got {momentum}")
        self.student_temperature = temperature_module.get(student_temperature, 0.1)
        self.teacher_temperature = temperature_module.get(teacher_temperature, 0.04)
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(0))

    def forward(self, *views: Tensor, targets: Sequence[Tensor] | None = None) -> Tensor:
        count = min(2, len(views)) if targets is None else len(targets)
        everything = self.views(*views, *_targets(self.name, views, targets, count), minimum=1)
        students, teachers = everything[: len(views)], everything[len(views) :]
        if not 1 <= len(teachers) <= len(students) or len(students) < 2:
            raise ValueError(f"dino: {len(teachers)} teacher views for {len(students)} student views leave no pair")
        centre = self.centre.to(teachers[0]) if self.centre.numel() else teachers[0].new_zeros(teachers[0].shape[1])
        if centre.shape[0] != teachers[0].shape[1]:
            raise ValueError(f"dino: the centre has {centre.shape[0]} outputs, got {tuple(teachers[0].shape)}")
        wanted = [torch.softmax((view - centre) * self.teacher_temperature.scale(), 1).detach() for view in teachers]
        found = [torch.log_softmax(view * self.student_temperature.scale(), 1) for view in students]
        costs = [-(wanted[t] * found[s]).sum(1).mean() for t in range(len(wanted)) for s in range(len(found)) if s != t]
        if self.training:
            self.centre = self.momentum * centre + (1 - self.momentum) * torch.cat(teachers).mean(0)
        return torch.stack(costs).mean()


def _targets(name: str, views: Sequence[Tensor], targets: Sequence[Tensor] | None, count: int) -> list[Tensor]:
    """The targets of the first ``count`` views, without a gradient; the views themselves where none are given."""
    given = views[:count] if targets is None else targets
    if len(given) != count:
        raise ValueError(f"{name}: needs the targets of {count} views, got {len(given)}")
    return [target.detach() for target in given]
