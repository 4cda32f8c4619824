"""The softmax family's kernels, called with tensors: log-sums of rows, derivatives with respect to scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from nearfar.contrast.kernels import programs

LOG2_E = 1.4426950408889634


class Side(NamedTuple):
    """The queries or the keys as the kernels see them."""

    items: Tensor
    """``[n, d]``, contiguous: float16, bfloat16 or float32."""
    factor: Tensor
    """``[n]`` float32: what their scores are multiplied by."""
    ids: Tensor
    """``[n]`` int32; equal ids are near, and an item that is near to nobody has an id that the other side has not."""
    exclude: Tensor | None
    """``[n]`` int32, or None; pairs that are not near and equal here are ignored."""
    within: Tensor | None
    """``[n]`` int32, or None; pairs that are not near and differ here are ignored."""


class Sums(NamedTuple):
    """What the rows' costs are made of, ``[n]`` each."""

    log_sum: Tensor  # over the denominator; -inf where it is empty
    target: Tensor  # the sum of the near scores


class Shape(NamedTuple):
    block_m: int
    block_n: int
    block_d: int
    warps: int
    stages: int


HALF = Shape(128, 128, 64, 8, 3)
SINGLE = Shape(64, 64, 32, 4, 3)


def log_sums(
    query: Side, key: Side, *, first: int, self_contrast: bool, only_far: bool, parts: int | None = None
) -> Sums:
    """The sums of all rows; ``first``: which item the first query is, in self-contrast.

    ``parts``: into how many parts the columns are cut that are summed apart; by default enough to keep the device busy.
    """
    n, m = query.items.shape[0], key.items.shape[0]
    if not n or not m:
        return Sums(query.factor.new_full((n,), -torch.inf), query.factor.new_zeros(n))
    shape = _shape(query)
    row_blocks = triton.cdiv(n, shape.block_m)
    column_blocks = triton.cdiv(m, shape.block_n)
    if parts is None:
        parts = max(1, min(column_blocks, 2 * _processors(query.items.device) // row_blocks))
    columns_a_part = triton.cdiv(column_blocks, parts) * shape.block_n
    parts = triton.cdiv(m, columns_a_part)
    peak, total, target = (query.factor.new_empty(parts, n) for _ in range(3))
    programs.log_sums[(row_blocks, parts)](
        *_arguments(query, key), peak, total, target, n, m, query.items.shape[1], first, columns_a_part,
        **_constants(query, self_contrast, only_far, shape),
    )  # fmt: skip
    # a part without candidates has a peak of -inf and a sum of 0
    highest = peak.amax(0)
    reference = torch.where(highest == -torch.inf, 0, highest)
    summed = (total * (peak - reference).exp2()).sum(0)
    return Sums((summed.log2() + reference) / LOG2_E, target.sum(0) / LOG2_E)


class Pull(NamedTuple):
    """Of each row (or column) ``[n]``: its log-sum in units of log 2, infinite where it does not count; the weight of
    its softmax; and what each of its near pairs is pulled by."""

    log_sum: Tensor
    weight: Tensor
    pull: Tensor


def derivatives(
    query: Side,
    key: Side,
    rows: slice,
    columns: slice,
    row: Pull,
    column: Pull | None,
    out: Tensor,
    *,
    first: int,
    self_contrast: bool,
    only_far: bool,
) -> Tensor:
    """The derivative of the cost with respect to the scores of ``rows`` and ``columns``, ``[rows, columns]``, in the
    memory of the flat tensor ``out`` and in the precision of the items."""
    shape = _shape(query)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    found = out[: height * width].view(height, width)
    blocks = triton.cdiv(height, shape.block_m) * triton.cdiv(width, shape.block_n)
    programs.derivatives[(blocks,)](
        *_arguments(query, key), *row, *((None, None, None) if column is None else column), found,
        rows.start, rows.stop, columns.start, columns.stop, query.items.shape[1], first,
        both_sides=column is not None, group_rows=8, **_constants(query, self_contrast, only_far, shape),
    )  # fmt: skip
    return found


def _arguments(query: Side, key: Side) -> tuple[Tensor | None, ...]:
    # units of log 2: exponentials are then those that the device has
    return (
        query.items, key.items, query.factor * LOG2_E, key.factor, query.ids, key.ids, query.exclude, key.exclude,
        query.within, key.within,
    )  # fmt: skip


def _constants(query: Side, self_contrast: bool, only_far: bool, shape: Shape) -> dict[str, Any]:
    exact = query.items.dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return {
        "has_exclude": query.exclude is not None,
        "has_within": query.within is not None,
        "self_contrast": self_contrast,
        "only_far": only_far,
        "ragged": query.items.shape[1] % shape.block_d != 0,
        "widen": query.items.device.type == "cpu",  # triton's interpreter multiplies no bfloat16
        "precision": "ieee" if exact else "tf32",
        "block_m": shape.block_m,
        "block_n": shape.block_n,
        "block_d": shape.block_d,
        "num_warps": shape.warps,
        "num_stages": shape.stages,
    }


def _shape(query: Side) -> Shape:
    return SINGLE if query.items.dtype == torch.float32 else HALF


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
