"""MetaRM: a reward model that learns from old preferences as it would after telling new responses apart better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nearfar.objectives.preference import positive


def raised(module: nn.Module, objective: Tensor, rate: float) -> dict[str, Tensor]:
    """The parameters of ``module`` a step up the gradient of ``objective``: ``theta' = theta + rate grad J``.

    The step is a constant: the gradient of a loss at ``theta'`` (:func:`at`) reaches the parameters as it is, which is
    MetaRM's first-order update ``theta <- theta - alpha grad L(theta')`` (Wang et al., 2024, arXiv:2401.06080, section
    3.2), whatever optimiser takes it. ``objective``: a scalar of the module's output, such as
    :func:`~nearfar.objectives.preference_values.reward_spread` of rewards of unlabelled responses; it is not added to
    the loss. ``rate`` > 0, the paper's eta (no value is given there; start at the learning rate).

    Parameters that the objective does not depend on, or that are frozen, stay. Raises
    :class:`~nearfar.errors.UsageError` for a rate of 0 or less.
    """
    positive("metarm", "rate", rate)
    known = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not known or not objective.requires_grad:
        return dict(module.named_parameters())
    gradients = torch.autograd.grad(objective, list(known.values()), allow_unused=True)
    moved = {
        name: parameter if gradient is None else parameter + rate * gradient.detach()
        for (name, parameter), gradient in zip(known.items(), gradients, strict=True)
    }
    return {**dict(module.named_parameters()), **moved}


def at(parameters: Mapping[str, Tensor], module: nn.Module, *inputs: Any, **named: Any) -> Any:
    """What ``module`` gives for ``inputs`` with these parameters in place of its own, which stay as they are."""
    return functional_call(module, dict(parameters), inputs, named)
