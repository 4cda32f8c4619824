"""What an objective's cost says that it estimates, beside the truth where that is known; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from nearfar.contrast import Explicit
from nearfar.contrast.relation import Relation
from nearfar.errors import DataError, UsageError
from nearfar.objectives.base import RowObjective


def information_bound(
    objective: RowObjective, batches: Iterable[Tensor], relation: Relation, *, negatives: int
) -> float:
    """The lower bound of mutual information that a contrastive loss stands for, ``log(1 + negatives) - loss`` nats.

    The loss is the mean over ``batches`` of scores ``[n, n]`` under ``relation``; ``negatives`` is how many each
    positive is told from (van den Oord et al., 2018). A bound of what the scores' critic can tell, at most
    ``log(1 + negatives)``; it is one only where the relation really has that many.

    Raises :class:`~nearfar.errors.DataError` for no batch and :class:`~nearfar.errors.UsageError` for no negative.
    """
    if negatives < 1:
        raise UsageError(f"negatives is {negatives}; a bound needs at least 1")
    losses = [float(objective(scores=scores, relation=relation)) for scores in batches]
    if not losses:
        raise DataError("there is no batch of scores, so there is no bound")
    return math.log(1 + negatives) - sum(losses) / len(losses)


def negative_mass_error(objective: RowObjective, scores: Tensor, true_negative: Tensor) -> float:
    """How far the mean of ``exp(score / T)`` over true negatives is from what an objective puts in its place.

    ``scores [a, 1 + n]``: of each anchor its positive, then n items taken for negatives, of which ``true_negative
    [a, n]`` (bool) says which are some. An objective with the cost ``log(1 + n g / exp(s_p / T))`` has the estimate
    ``g = (exp(cost) - 1) exp(s_p / T) / n``; the error is ``|mean_a g - mean exp(s / T)|``, the second mean over all
    true negatives. At least 0.

    ``objective`` needs a temperature and ``reduction="none"``, such as :class:`~nearfar.objectives.Debiased`. Raises
    :class:`~nearfar.errors.UsageError` for another and :class:`~nearfar.errors.DataError` for shapes that do not fit or
    no true negative.
    """
    if objective.temperature is None or objective.reduction != "none":
        raise UsageError("the estimate is read off the cost of each row", hint='give reduction="none"')
    if scores.dim() != 2 or true_negative.shape != scores[:, 1:].shape or not true_negative.any():
        raise DataError(
            f"scores are {list(scores.shape)}, true negatives {list(true_negative.shape)}; [a, 1 + n] and [a, n] with "
            "at least one are needed"
        )
    near = torch.zeros(scores.shape, dtype=torch.bool)
    near[:, 0] = True
    with torch.no_grad():
        cost = objective(scores=scores, relation=Explicit(near))
    exponentials = (scores / objective.temperature.value).exp()
    estimate = (cost.exp() - 1) * exponentials[:, 0] / true_negative.shape[1]
    return abs(float(estimate.mean()) - float(exponentials[:, 1:][true_negative].mean()))
