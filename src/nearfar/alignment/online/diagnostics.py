"""What is measured of on-policy training: gradients over many draws, and how hard a step pulls on each prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nearfar.alignment.online.costs import Cost
from nearfar.alignment.online.loop import cost_of_batch
from nearfar.alignment.online.rollouts import Rollouts
from nearfar.alignment.policy import Policy


def gradient_samples(
    policy: Policy, cost: Cost, draw: Callable[[], Rollouts], count: int, parts: Sequence[nn.Module]
) -> Tensor:
    """The gradient of ``cost`` on ``count`` fresh draws of rollouts, flattened over the parameters of ``parts``:
    ``[count, D]``. The policy is left as it is."""
    parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
    found = []
    for _ in range(count):
        rollouts = cost.prepare(draw())
        loss = cost_of_batch(policy, cost, rollouts, torch.arange(len(rollouts)))
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([value.flatten() for value in gradient]))
    return torch.stack(found)


def gradient_variance(gradients: Tensor) -> float:
    """The trace of the covariance of gradients ``[count, D]``: ``sum_d Var(g_d)``, unbiased."""
    return float(gradients.var(0, correction=1).sum())


def pull_on_success(loss: Tensor, logits: Tensor, right: Tensor) -> Tensor:
    """How hard one descent step pulls up the log-odds of a right answer to each prompt, ``[P]``.

    ``- sum_{a right} dL/dlogits[x, a]`` for a tabular policy's ``logits [P, A]``, ``right``: bool ``[P, A]``; summed
    losses give it free of the number of prompts. An objective that is ``s_right - s_wrong`` of a prompt's mean
    log-probabilities has 1, GRPO's ``sqrt(p (1 - p))`` at the rate p of right answers.
    """
    (gradient,) = torch.autograd.grad(loss, [logits], retain_graph=True)
    return -(gradient * right).sum(1)
