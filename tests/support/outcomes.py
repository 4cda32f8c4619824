"""What an example of the catalogue gives on a batch: its loss and the gradient of everything that has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from nearfar.contrast import tiles
from nearfar.objectives import RowObjective
from support.batches import Part

Outcome = dict[str, Tensor]
"""By name: "loss", "query", "key" (empty without keys), "parameter <name>" and "buffer <name>"."""


@contextmanager
def tiles_of(rows: int | None) -> Iterator[None]:
    """Within it the engine's tiles have that many rows; None leaves the choice to the engine."""
    if rows is None:
        yield
        return
    with mock.patch.object(tiles, "rows_that_fit", lambda n, *_: max(1, min(n, rows))):
        yield


def outcome(
    make: Callable[[], RowObjective],
    part: Part,
    *,
    tile_rows: int | None = None,
    change: Callable[[RowObjective], object] = lambda objective: None,
    factor: float = 3.0,
    **where: Any,
) -> Outcome:
    """Loss and gradients of ``factor * loss`` in float64; rows of ``reduction="none"`` weigh 1, 2, 3 ..."""
    torch.manual_seed(0)
    objective = make().double()
    change(objective)
    query = part.query.clone().requires_grad_()
    key = None if part.key is None else part.key.clone().requires_grad_()
    with tiles_of(tile_rows):
        if next(objective.buffers(), None) is not None:  # what is kept from batch to batch is tried in the second
            with torch.no_grad():
                objective(query, key, relation=part.relation, **where)
        loss = objective(query, key, relation=part.relation, **where)
    scalar = (loss * torch.arange(1, loss.numel() + 1, dtype=loss.dtype)).sum() if loss.dim() else loss
    (factor * scalar).backward()
    found = {"loss": loss.detach(), "query": gradient_of(query), "key": query.new_zeros(0)}
    if key is not None:
        found["key"] = gradient_of(key)
    return found | of_objective(objective)


def of_objective(objective: RowObjective) -> Outcome:
    gradients = {f"parameter {name}": gradient_of(value) for name, value in objective.named_parameters()}
    return gradients | {f"buffer {name}": value.clone() for name, value in objective.named_buffers()}


def gradient_of(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad


def assert_same(found: Outcome, expected: Outcome, tolerance: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
