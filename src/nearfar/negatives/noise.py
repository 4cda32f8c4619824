"""Negatives made of noise, pushed by gradient steps to where they cost most."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import Temperature, evaluate, normalize
from nearfar.contrast.engine import Memory
from nearfar.contrast.relation import Relation
from nearfar.errors import UsageError
from nearfar.objectives import InfoNCE


def gaussian(like: Tensor, times: float = 1.0, *, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal rows, ``int(times * n)`` of them for embeddings ``like [n, d]`` (DCLR's noise negatives)."""
    if not 0 <= times < float("inf"):
        raise UsageError(f"gaussian: times must be a finite number >= 0, got {times}")
    shape = (int(times * like.shape[0]), like.shape[1])
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def harder(
    noise: Tensor,
    query: Tensor,
    key: Tensor,
    *,
    steps: int = 4,
    step_size: float = 1e-3,
    temperature: float | Temperature = 0.05,
    relation: Relation | None = None,
    memory: Memory = "auto",
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Noise after steps uphill on the contrast that it takes part in (DCLR; Zhou et al., 2022).

    Each of ``steps`` steps adds ``step_size * g / |g|`` to each row, g its gradient in
    ``InfoNCE(query, [key | noise])``; a row without a gradient stays (the official code sets it to 0).

    Arguments:
        noise: ``[h, d]``, e.g. of :func:`gaussian`; query ``[n, d]`` and key ``[m, d]``: the batch.
        steps: default 4; step_size: default 1e-3; temperature: default 0.05 (the paper's).
        relation: of the queries to ``[key | noise]``; by default query i belongs to key i.
        memory, group: as for an objective.

    The result is a constant: no gradient flows through the steps.
    Raises ValueError for shapes that do not fit.
    """
    if steps < 0 or not 0 <= step_size < float("inf"):
        raise UsageError(f"harder: steps and step_size must be >= 0, got {steps} and {step_size}")
    objective = InfoNCE(temperature=temperature)
    if not len(noise) and group is None:
        return noise
    query, key, made = query.detach(), key.detach(), noise.detach()
    for _ in range(steps):
        with torch.enable_grad():
            candidate = made.clone().requires_grad_()
            keys = torch.cat([key, candidate])
            loss = evaluate(objective, query, keys, relation=relation, memory=memory, group=group)
        (gradient,) = torch.autograd.grad(loss, candidate)
        made = made + step_size * normalize(gradient)
    return made
