"""Fused kernels of the softmax family on CUDA devices; the plain engine says what they must compute."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nearfar.contrast import fused
from nearfar.contrast.kernels.compared import comparable
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Cosine, Dot

if TYPE_CHECKING:
    from nearfar.contrast.engine import RowCosts


def applies(objective: RowCosts, relation: Relation, query: Tensor) -> bool:
    """Whether the kernels compute this objective on this relation and the device of ``query``.

    They serve log-sum-exp costs of cosines or dot products in single or half precision, where comparing ids says who is
    near, far and ignored.
    """
    return (
        available(query.device)
        and query.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and type(objective.score) in (Cosine, Dot)
        and not objective.needs_positive_scores
        and fused.applies(objective, {})
        and comparable(relation)
    )


@cache
def available(device: torch.device) -> bool:
    """Whether the device is CUDA of compute capability 8.0 or more, and triton is installed."""
    if device.type != "cuda" or torch.version.hip is not None or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
