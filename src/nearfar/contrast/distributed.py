"""Gathering rows over processes, with the gradient that the single-process global batch would have."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class GatheredRows:
    """How many rows each process of ``group`` holds; uneven parts work. ``start``: those before this process's."""

    def __init__(self, rows: int, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        counts = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(dist.get_world_size(group))]
        dist.all_gather(counts, torch.tensor([rows], device=device), group=group)
        self.counts = [int(count) for count in counts]
        self.start = sum(self.counts[: self.rank])

    def gather(self, values: Tensor) -> Tensor:
        """The rows of all processes in the order of their ranks, without a gradient."""
        longest = max(self.counts)
        padded = values.new_zeros(longest, *values.shape[1:])
        padded[: values.shape[0]] = values.detach()
        parts = [torch.empty_like(padded) for _ in self.counts]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:count] for part, count in zip(parts, self.counts, strict=True)])

    def gather_with_gradient(self, values: Tensor) -> Tensor:
        """The rows of all processes; each process gets the sum over processes of the gradient of its own rows."""
        gathered: Tensor = _Gather.apply(values, self)  # type: ignore[no-untyped-call]
        return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: GatheredRows) -> Tensor:
        ctx.rows = rows
        return rows.gather(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows: GatheredRows = ctx.rows
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=rows.group)
        return total[rows.start : rows.start + rows.counts[rows.rank]], None


def own_share(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The rows of a tensor that every process holds alike (proxies, a queue) that this process contributes.

    Rows ``rank, rank + size, ...``: the shares of all processes together are the tensor, each row once, so that the
    engine may gather them as it gathers the rows of a batch, and the sum over processes of the gradients that reach the
    tensor is that of one process. Without a group, all rows.
    """
    return values if group is None else values[dist.get_rank(group) :: dist.get_world_size(group)]


def gather_for_all(values: Tensor, rows: GatheredRows) -> Tensor:
    """The rows of all processes, those of this process with their graph.

    For a value that every process computes alike from all rows: each then holds the gradient of its own rows alone.
    """
    parts = list(torch.split(rows.gather(values), rows.counts))
    parts[rows.rank] = values
    return torch.cat(parts)


def total_over_processes(value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum of a scalar over the processes of ``group`` (the value itself without one), without a gradient."""
    if group is None:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total, group=group)
    return total


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
