"""Whether a proposed preference objective can be trained with, told in words that a proposer can act on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives.preference import PreferenceObjective, Preferences

_INPUTS = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def check(objective: PreferenceObjective, *, seed: int = 0, pairs: int = 10) -> None:
    """The checks of Lu et al. (2024), and two of our own.

    On four random vectors ``[pairs]`` (N(0, 1), default 10 pairs) the costs must be finite numbers ``[pairs]``, with a
    finite gradient to each of the four: objectives that ignore the reference are refused, as in the paper. Ours: no
    gradient is 0 everywhere; and costs and gradients are finite where policy and reference agree, where training
    begins.

    Raises UsageError with what is wrong, and whatever the objective itself raises.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(pairs, generator=generator) for _ in _INPUTS]
    _checked(objective, drawn, "on random log-probabilities", needed=True)
    _checked(objective, [*drawn[:2], *drawn[:2]], "where policy and reference agree", needed=False)


def _checked(objective: PreferenceObjective, values: Sequence[Tensor], where: str, *, needed: bool) -> None:
    inputs = [value.clone().requires_grad_() for value in values]
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = inputs
    # not by a call: that gives the reference no gradient, and whether it is looked at would not show
    given = Preferences(
        policy_chosen - reference_chosen,
        policy_rejected - reference_rejected,
        policy_chosen,
        policy_rejected,
        None,
        None,
    )
    costs = objective.pairs(given)
    if not isinstance(costs, Tensor) or costs.shape != values[0].shape:
        found = list(costs.shape) if isinstance(costs, Tensor) else type(costs).__name__
        raise UsageError(f"the costs must be {list(values[0].shape)}, one for each pair, got {found}", where=where)
    if not bool(torch.isfinite(costs).all()):
        raise UsageError("costs are not finite", where=where)
    if not costs.requires_grad:
        raise UsageError("the costs have no gradient to any input", where=where)
    gradients = torch.autograd.grad(costs.sum(), inputs, allow_unused=True)
    for name, gradient in zip(_INPUTS, gradients, strict=True):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            raise UsageError(f"the gradient to {name} is not finite", where=where)
        if needed and (gradient is None or not bool(gradient.any())):
            raise UsageError(f"the costs do not depend on {name}", where=where)
