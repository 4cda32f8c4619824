"""One augmentation for many items: what a part of the batch has in common."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


def shared_by_part(values: Tensor, rows: int) -> Tensor:
    """The draws ``values [parts, ...]`` of an augmentation's settings as one a row ``[rows, ...]``.

    Every part of the batch, ``rows // parts`` rows in sequence, gets one draw: the parts are those of
    :class:`~nearfar.objectives.Equivariance` with ``chunks=parts``. The last ``rows mod parts`` rows, which that leaves
    out, share the last draw. Raises :class:`~nearfar.errors.UsageError` for fewer rows than parts or no part.
    """
    parts = len(values)
    if not 1 <= parts <= rows:
        raise UsageError(f"{rows} rows cannot be divided into {parts} parts")
    return values[
        torch.arange(rows, device=values.device).div(rows // parts, rounding_mode="floor").clamp_max(parts - 1)
    ]
