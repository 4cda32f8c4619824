"""What objectives of several terms share: means and positions that hold over processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows, gather_for_all, total_over_processes


def sum_over_processes(part: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum of ``part`` over the processes, with the gradient of this process's part."""
    return part if group is None else part + (total_over_processes(part, group) - part.detach())


def mean_over_processes(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The mean of the values ``[n]`` of all processes, with the gradient of this process's part; 0 where none has any.

    The convention of the engine: every process sees the value, and gradients add up over processes.
    """
    count = total_over_processes(values.new_tensor(float(values.numel())), group)
    return sum_over_processes(values.sum() / count.clamp_min(1), group)


def of_all(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The rows of all processes, without a gradient; without a group, the values."""
    return values.detach() if group is None else GatheredRows(values.shape[0], group, values.device).gather(values)


def of_all_with_own_graph(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The rows of all processes, those of this process with their graph."""
    return values if group is None else gather_for_all(values, GatheredRows(values.shape[0], group, values.device))


def positions(count: int, device: torch.device, group: dist.ProcessGroup | None) -> Tensor:
    """The numbers ``[count]`` of this process's items among those of all processes."""
    start = 0 if group is None else GatheredRows(count, group, device).start
    return torch.arange(start, start + count, device=device)


def check_rows(name: str, what: str, value: Tensor, count: int, dimensions: int = 1) -> None:
    """Raise ValueError where ``value`` does not have ``count`` rows and ``dimensions`` dimensions."""
    if value.dim() != dimensions or value.shape[0] != count:
        raise ValueError(f"{name}: {what} must have {count} rows in {dimensions} dimensions, got {tuple(value.shape)}")
