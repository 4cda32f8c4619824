"""Rows and batches that have nothing to teach, and input that does not fit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Explicit, Labels, Paired, Relation, Views, evaluate
from nearfar.errors import UsageError
from nearfar.objectives import (
    DCL,
    DCLW,
    Alignment,
    BarlowTwins,
    BinaryNCE,
    InfoNCE,
    PairwiseLogistic,
    RowObjective,
    SupCon,
    Triplet,
    Uniformity,
    VICReg,
    ViewObjective,
)

ROW_OBJECTIVES: dict[str, Callable[..., RowObjective]] = {
    "info-nce": lambda **more: InfoNCE(temperature="learned", **more),
    "info-nce two-sided": lambda **more: InfoNCE(temperature="learned", two_sided=True, **more),
    "supcon": lambda **more: SupCon(temperature="learned", **more),
    "supcon in": lambda **more: SupCon("in", temperature="learned", **more),
    "dcl": lambda **more: DCL(temperature="learned", **more),
    "dclw": lambda **more: DCLW(temperature="learned", **more),
    "triplet": Triplet,
    "triplet active": lambda **more: Triplet(average="active", **more),
    "triplet hard": lambda **more: Triplet("hard", **more),
    "triplet semi-hard": lambda **more: Triplet("semi-hard", smooth=True, **more),
    "pairwise": PairwiseLogistic,
    "pairwise pairs": lambda **more: PairwiseLogistic(average="pairs", **more),
}
NEEDS_NO_NEGATIVE = ("info-nce", "supcon")
VIEW_OBJECTIVES = [Alignment, Uniformity, BarlowTwins, VICReg]
MEMORY = ["dense", "tiled"]


def _items(seed: int, n: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _zero_and_connected(objective: RowObjective, relation: Relation | None, n: int, m: int | None, memory: str) -> None:
    query = _items(0, n).requires_grad_()
    key = None if m is None else _items(1, m).requires_grad_()
    loss = objective(query, key, relation=relation, memory=memory)
    assert loss.item() == 0
    loss.backward()
    inputs = [query, *([] if key is None else [key]), *objective.parameters()]
    for value in inputs:
        assert value.grad is not None
        assert (value.grad == 0).all()


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", ROW_OBJECTIVES)
def test_a_batch_without_positives_costs_nothing_and_says_so(name: str, memory: str) -> None:
    objective = ROW_OBJECTIVES[name]()
    nobody = Paired(torch.tensor([0, 1, 2]), torch.tensor([3, 4, -1, 5]))
    for count in (1, 2):
        with pytest.warns(UserWarning, match=rf"no anchor of this batch .* \({count} such batches so far\)"):
            _zero_and_connected(objective, nobody, 3, 4, memory)
        assert objective.empty_batches == count
        objective.zero_grad()
    with pytest.warns(UserWarning, match="no anchor"):
        _zero_and_connected(objective, Labels(torch.arange(4)), 4, None, memory)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert objective(_items(0, 3), _items(1, 4), memory=memory).item() != 0
    assert objective.empty_batches == 3


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", ROW_OBJECTIVES)
def test_one_class_has_no_negatives(name: str, memory: str) -> None:
    objective = ROW_OBJECTIVES[name]()
    relation = Labels(torch.zeros(4, dtype=torch.long))
    if name.startswith(NEEDS_NO_NEGATIVE):
        query = _items(0, 4).requires_grad_()
        loss = objective(query, relation=relation, memory=memory)
        loss.backward()
        assert torch.isfinite(query.grad).all()
        if name == "supcon in":
            assert loss.item() == pytest.approx(math.log(3), rel=1e-6)  # whatever the scores
            assert query.grad.abs().max() < 1e-6
        else:
            assert query.grad.abs().max() > 1e-3  # the positives are spread evenly
    else:
        with pytest.warns(UserWarning, match="a positive and a negative"):
            _zero_and_connected(objective, relation, 4, None, memory)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", ROW_OBJECTIVES)
def test_one_row(name: str, memory: str) -> None:
    objective = ROW_OBJECTIVES[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _zero_and_connected(objective, None, 1, 1, memory)  # a positive, and nothing beside it
        _zero_and_connected(objective, Labels(torch.tensor([0])), 1, None, memory)  # nothing at all
    query = _items(0, 1).requires_grad_()
    key = torch.cat([-query.detach(), query.detach()])  # a far positive and a near negative
    loss = objective(query, key, memory=memory)
    assert loss.item() > 0
    loss.backward()
    assert torch.isfinite(query.grad).all()


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", [name for name in ROW_OBJECTIVES if "two-sided" not in name])
def test_rows_without_a_positive_leave_numerator_and_denominator(name: str, reduction: str, memory: str) -> None:
    objective = ROW_OBJECTIVES[name](reduction=reduction)
    ids, keys = torch.tensor([0, 7, 1, 8, 2]), torch.tensor([2, 0, 1, -1])
    query, key = _items(2, 5), _items(3, 4)
    some = objective(query, key, relation=Paired(ids, keys), memory=memory)
    alone = objective(query[[0, 2, 4]], key, relation=Paired(ids[[0, 2, 4]], keys), memory=memory)
    if reduction == "none":
        assert some[[1, 3]].tolist() == [0, 0]
        some = some[[0, 2, 4]]
    torch.testing.assert_close(some, alone)


def _difficult() -> dict[str, tuple[Tensor, Tensor | None, Relation | None]]:
    zeros, ones = torch.zeros(4, 3), torch.ones(4, 3)
    items = _items(4, 4)
    return {
        "all zero": (zeros, zeros, None),
        "all zero among themselves": (zeros, None, Labels(torch.tensor([0, 0, 1, 1]))),
        "all equal": (ones, ones, None),
        "all equal among themselves": (ones, None, Views(2)),
        "opposite": (items, -items, None),
        "coinciding": (items, items, None),
        "tiny": (1e-20 * items, 1e-20 * items.flip(0), None),
        "huge": (1e15 * items, 1e15 * items.flip(0), None),
        "one dimension": (items[:, :1], items[:, 1:2], None),
        "everything ignored": (items, items, Explicit(torch.zeros(4, 4), torch.zeros(4, 4))),
        "tiny weights": (items, items.flip(0), Explicit(1e-30 * torch.eye(4), 1e-30 * (1 - torch.eye(4)))),
        "large weights": (items, items.flip(0), Explicit(1e15 * torch.eye(4), 1e15 * (1 - torch.eye(4)))),
        "one row with a positive": (items, items, Paired(torch.tensor([0, 7, 8, 9]), torch.arange(4))),
    }


@pytest.mark.filterwarnings("ignore:.*no anchor")
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("case", _difficult())
@pytest.mark.parametrize("name", ROW_OBJECTIVES)
def test_never_nan_for_finite_input(name: str, case: str, memory: str) -> None:
    for reduction in ("mean", "sum") if "two-sided" in name else ("mean", "sum", "none"):
        objective = ROW_OBJECTIVES[name](reduction=reduction)
        query, key, relation = _difficult()[case]
        query = query.clone().requires_grad_()
        key = None if key is None else key.clone().requires_grad_()
        loss = evaluate(objective, query, key, relation=relation, memory=memory, tile_rows=3)
        loss.sum().backward()
        for value in (loss, query.grad, *([] if key is None else [key.grad])):
            assert torch.isfinite(value).all(), value


@pytest.mark.parametrize("cls", VIEW_OBJECTIVES)
def test_views_never_nan(cls: type[ViewObjective]) -> None:
    items = _items(5, 4)
    constant = items.clone()
    constant[:, 1] = 2.0
    for one, other in (
        (items, items), (items, -items), (torch.zeros(4, 3), torch.zeros(4, 3)), (torch.ones(4, 3), items),
        (constant, constant), (items[:2], items[2:]), (items[:, :1], items[:, 1:2]), (1e-20 * items, 1e8 * items),
    ):  # fmt: skip
        one, other = one.clone().requires_grad_(), other.clone().requires_grad_()
        loss = cls()(one, other)
        assert loss.dim() == 0
        loss.backward()
        for value in (loss, one.grad, other.grad):
            assert torch.isfinite(value).all()


@pytest.mark.parametrize("cls", VIEW_OBJECTIVES)
def test_views_that_do_not_fit(cls: type[ViewObjective]) -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\), \(5, 3\)"):
        cls()(_items(0, 4), _items(1, 5))
    with pytest.raises(ValueError, match=r"\(4, 3\), \(4, 2\)"):
        cls()(_items(0, 4), _items(1, 4, 2))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        cls()(_items(0, 4)[:, 0], _items(1, 4)[:, 0])
    with pytest.raises(ValueError, match="int64"):
        cls()(torch.ones(4, 3).long(), torch.ones(4, 3).long())
    if cls is Alignment:
        assert cls()(_items(0, 1), _items(1, 1)).item() > 0
    else:
        with pytest.raises(ValueError, match=r"at least 2 rows, got \(1, 3\)"):
            cls()(_items(0, 1), _items(1, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cls", VIEW_OBJECTIVES)
def test_views_in_half_precision_are_computed_in_float32(cls: type[ViewObjective], dtype: torch.dtype) -> None:
    one, other = _items(6, 16).to(dtype).requires_grad_(), _items(7, 16).to(dtype)
    loss = cls()(one, other)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cls()(one.float(), other.float()))
    loss.backward()
    assert one.grad.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(cls()(one.float(), other.float()), loss, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: InfoNCE(reduction="average"), "'mean', 'sum' or 'none'"),
        (lambda: InfoNCE(score="manhattan"), "no score 'manhattan'"),
        (lambda: SupCon("inner"), "'out' or 'in'"),
        (lambda: DCLW(0.0), "sigma"),
        (lambda: DCLW(float("nan")), "sigma"),
        (lambda: Triplet("hardest"), "'all', 'hard' or 'semi-hard'"),
        (lambda: Triplet(average="some"), "'all' or 'active'"),
        (lambda: Triplet(margin=-0.1), "margin"),
        (lambda: Triplet(margin=float("nan")), "margin"),
        (lambda: PairwiseLogistic(average="batch"), "'rows' or 'pairs'"),
        (lambda: Alignment(0.0), "alpha"),
        (lambda: Uniformity(float("inf")), "t must be"),
        (lambda: BarlowTwins(-1.0), "weight"),
        (lambda: BarlowTwins(eps=0.0), "eps"),
        (lambda: VICReg(-1.0), "weights"),
        (lambda: VICReg(eps=0.0), "eps"),
        (lambda: BinaryNCE(0.0), "ratio"),
        (lambda: BinaryNCE(reduction="average"), "reduction"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_points_that_do_not_fit() -> None:
    objective = BinaryNCE()
    with pytest.raises(ValueError, match=r"\(3,\) of torch.float32 and \(2,\)"):
        objective(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match=r"\(3, 1\)"):
        objective(torch.ones(3, 1), torch.ones(3, 1))
    with pytest.raises(ValueError, match="int64"):
        objective(torch.ones(3).long(), torch.ones(3))
    with pytest.raises(ValueError, match=r"log_noise must be \[3\], got \[3, 1\]"):
        objective(torch.ones(3), torch.ones(3), log_noise=torch.ones(3, 1))
    with pytest.raises(TypeError, match="takes no 'lognoise'"):
        objective(torch.ones(3), torch.ones(3), lognoise=torch.ones(3))
    for bad in (2.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            objective(torch.ones(3), torch.tensor([0.0, 1.0, bad]))


def test_points_of_nothing() -> None:
    score = torch.zeros(0, requires_grad=True)
    assert BinaryNCE()(score, torch.zeros(0)).shape == (0,)
    for reduction in ("mean", "sum"):
        loss = BinaryNCE(reduction=reduction)(score, torch.zeros(0))
        assert loss.item() == 0
        loss.backward()


def test_reductions_of_points() -> None:
    score, target = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([True, False, True])
    costs = BinaryNCE()(score, target, log_noise=torch.tensor(0.3))
    assert costs.shape == (3,)
    for reduction, expected in (("mean", costs.mean()), ("sum", costs.sum())):
        torch.testing.assert_close(BinaryNCE(reduction=reduction)(score, target, log_noise=torch.tensor(0.3)), expected)
    assert BinaryNCE()(score.bfloat16(), target).dtype == torch.float32
