"""Items among themselves by half of what is symmetric: the same as the whole, with two products instead of three."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Labels, Paired, Relation, Views, evaluate, evaluate_with_report, symmetric, tiles
from nearfar.contrast.fused import one_sided
from nearfar.objectives import DCL, InfoNCE, RowObjective
from support.products import Multiplications

IDS = torch.tensor([3, 1, 3, 2, 7, 1, -1, 3, -1, 8, 2])
TEXTS = torch.tensor([0, 1, 2, 1, 0, -1, 2, 0, 0, 3, -1])
RELATIONS: dict[str, Relation] = {
    "ids": Paired(IDS),
    "ignored": Paired(IDS, query_exclude=TEXTS),
    "nobody far": Paired(torch.zeros(11, dtype=torch.long)),
    "nobody near": Paired(torch.arange(11)),
    "no candidates for some": Paired(torch.arange(11) % 10, query_exclude=torch.tensor([5] * 5 + [-1] * 6)),
}


def _items(seed: int, n: int = 11, d: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _outcome(objective: RowObjective, items: Tensor, relation: Relation, **way: Any) -> list[Tensor]:
    items = items.clone().requires_grad_()
    loss = evaluate(objective, items, relation=relation, **way)
    return [loss.detach(), *torch.autograd.grad(loss, [items, *objective.parameters()])]


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("cls", [InfoNCE, DCL])
@pytest.mark.parametrize("tile_rows", [1, 4, 11])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_half_is_the_whole(cls: type[RowObjective], name: str, tile_rows: int, reduction: str) -> None:
    objective = cls(temperature="learned:0.2", score="dot", reduction=reduction).double()
    found = _outcome(objective, _items(0), RELATIONS[name], memory="tiled", tile_rows=tile_rows)
    expected = _outcome(objective, _items(0), RELATIONS[name], memory="dense")
    for one, other in zip(found, expected, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_half_is_the_closed_form_of_one_direction() -> None:
    items = _items(1, 40)
    relation = Paired(torch.arange(40) % 13).bind(40, 40, self_contrast=True, device=items.device)
    problem = tiles.Problem(InfoNCE(), relation, 9, None, (), ())
    found = []
    for half in (True, False):
        leaf = items.clone().requires_grad_()
        counts = tiles.Counts(items.device)
        loss = symmetric.loss(problem, leaf, 5.0, counts) if half else one_sided(problem, leaf, leaf, 5.0, counts)
        found.append([loss.detach(), torch.autograd.grad(loss, leaf)[0], *counts.values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tile_rows", [1, 3, 6])
def test_rows_whose_log_sums_lie_far_apart(dtype: torch.dtype, tile_rows: int) -> None:
    """Item 2 is long ago forgotten by the others, whose scores among themselves are 200 nats higher."""
    items = _items(2, 6, dtype=torch.float32) + torch.tensor([15.0, 0, 0, 0])
    items[2, 0] = 1.0
    relation = Paired(torch.tensor([0, 1, 2, 2, 1, 0]))
    objective = InfoNCE(temperature="learned:1.0", score="dot").to(dtype)
    found = _outcome(objective, items.to(dtype), relation, memory="tiled", tile_rows=tile_rows)
    expected = _outcome(objective.double(), items.double(), relation, memory="dense")
    for one, other in zip(found, expected, strict=True):
        if dtype == torch.float64:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        else:
            assert (one.double() - other).norm() <= 1e-4 * other.norm()


def test_matrix_products() -> None:
    """One for the scores, one for the gradient."""
    n, d, step = 64, 48, 5
    items = _items(3, n, d).requires_grad_()
    with Multiplications() as counter:
        evaluate(InfoNCE(), items, relation=Views(2), memory="tiled", tile_rows=step).backward()
    assert counter.count == 2 * n * n * d


def test_where_it_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    actual = symmetric.loss

    def counted(*arguments: Any) -> Tensor:
        called.append(1)
        return actual(*arguments)

    monkeypatch.setattr(symmetric, "loss", counted)
    items = _items(4, 12)
    for relation, half in (
        (Views(2), True),
        (Views(2, negatives="same-view"), False),
        (Paired(torch.arange(12) % 5), True),
        (Labels(torch.arange(12) % 5), False),
        (Views(2).reweight(lambda near, far, rows, columns: (near, far)), False),
    ):
        _, report = evaluate_with_report(InfoNCE(), items, relation=relation, memory="tiled")
        assert report.fused
        assert len(called) == half
        called.clear()
    evaluate(InfoNCE(), items, items.clone(), memory="tiled")
    assert called == []
