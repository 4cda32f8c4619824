"""A copy of an encoder that follows it slowly: the key encoder of MoCo, the target of BYOL, the teacher of DINO."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from nearfar.errors import UsageError


class MomentumCopy(nn.Module):
    """An exponential moving average of another module's parameters: ``p_copy = m p_copy + (1 - m) p``.

    Runs without gradients. Call :meth:`update` after each optimiser step (a method's ``after_step`` hook). Buffers
    (running statistics of batch normalisation) are copied, not averaged, as MoCo and BYOL do. The copy is a part of
    checkpoints, the followed module is not held twice.

    Arguments:
        module: what is followed.
        momentum: m in [0, 1]; default 0.999 (MoCo, He et al., 2020). BYOL and DINO start at 0.996.
        final_momentum, steps: with both, m rises from ``momentum`` to ``final_momentum`` by a half cosine over
            ``steps`` updates (BYOL, Grill et al., 2020: to 1).

    Raises UsageError for a momentum outside [0, 1] or a schedule without steps.
    """

    updates: torch.Tensor

    def __init__(
        self,
        module: nn.Module,
        momentum: float = 0.999,
        *,
        final_momentum: float | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        for value in (momentum, final_momentum):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"a momentum lies in [0, 1], got {value}")
        if (final_momentum is None) != (steps is None) or (steps is not None and steps < 1):
            raise UsageError("a rising momentum needs both final_momentum and steps >= 1")
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.steps = steps
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        # in a list, so that it is no part of this module: its parameters are trained and saved elsewhere
        self._followed = [module]

    @property
    def present_momentum(self) -> float:
        """The momentum of the next update."""
        if self.final_momentum is None or self.steps is None:
            return self.momentum
        share = min(1.0, int(self.updates) / self.steps)
        return self.final_momentum - (self.final_momentum - self.momentum) * (math.cos(math.pi * share) + 1) / 2

    @torch.no_grad()
    def update(self) -> None:
        """Move the copy towards the followed module once."""
        momentum = self.present_momentum
        (followed,) = self._followed
        for mine, theirs in zip(self.module.parameters(), followed.parameters(), strict=True):
            mine.lerp_(theirs.to(mine), 1 - momentum)
        for kept, present in zip(self.module.buffers(), followed.buffers(), strict=True):
            kept.copy_(present)
        self.updates += 1

    @torch.no_grad()
    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the copy gives, without a gradient."""
        return self.module(*inputs, **named)
