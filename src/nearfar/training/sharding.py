"""Weights that are shared out among processes (FSDP; Zhao et al., 2023): made whole, and shared out again.

Of every such parameter, of its gradient and of what the optimiser keeps of it each process holds a part, a ``DTensor``.
All processes call these functions together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.training.processes import is_main, world_size


def is_part(value: Any) -> bool:
    """Whether ``value`` is this process's part of a tensor: a ``DTensor``, whose import takes a while."""
    return hasattr(value, "full_tensor")


def whole(values: Any) -> Any:
    """``values`` (tensors, and dictionaries, lists and tuples of them) with whole tensors on the CPU in the place of
    shared ones: on the main process; on others such tensors are None, so that they need no memory for them."""
    if is_part(values):
        value = values.full_tensor()
        return value.cpu() if is_main() else None
    if isinstance(values, dict):
        return {name: whole(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(whole(value) for value in values)
    return values


def full(value: Tensor) -> Tensor:
    """``value`` whole, on every process."""
    found: Any = value
    return found.full_tensor() if is_part(value) else value


def part(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of ``value``, which every process holds, shared out as ``like`` is; ``value`` itself where
    ``like`` is not."""
    if not is_part(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    place: Any = like
    return distribute_tensor(value.to(like.device, like.dtype), place.device_mesh, place.placements, src_data_rank=None)


def optimiser_part(state: dict[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole state of an optimiser (its ``state_dict()`` as :func:`whole` gives it) as ``optimiser`` takes it."""
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    like = dict(zip(numbers, parameters, strict=True))
    held = {
        number: {name: _like(value, like[number]) for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": held}


def _like(value: Any, parameter: nn.Parameter) -> Any:
    """A value for each weight as the weights are, anything else (a count of steps) as it is."""
    return part(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give the parameters that every process holds whole the mean of the processes' gradients; those of shared ones are
    means already."""
    for parameter in parameters:
        if is_part(parameter) or not parameter.requires_grad:
            continue
        if parameter.grad is None:  # another process may have one
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size()


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The Euclidean norm of all gradients (0 without one), of shared parameters and of others."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    shared = [each for each in gradients if is_part(each)]
    others = [each for each in gradients if not is_part(each)]
    if not shared:
        return nn.utils.get_total_norm(others)
    norm = full(nn.utils.get_total_norm(shared))
    return torch.hypot(norm, nn.utils.get_total_norm(others).to(norm)) if others else norm


def clip_gradients(parameters: Iterable[nn.Parameter], most: float, norm: Tensor) -> None:
    """Scale all gradients so that their norm, which is ``norm``, is at most ``most``."""
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for parameter in parameters:
        groups[is_part(parameter.grad)].append(parameter)
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, most, norm)
