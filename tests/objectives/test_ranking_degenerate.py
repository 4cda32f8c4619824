"""Ranking and distillation where there is little to rank, and input that does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nearfar.contrast import Explicit, Graded, Labels, Paired, Relation, Views, evaluate
from nearfar.errors import UsageError
from nearfar.objectives import (
    IRPO,
    KL,
    AnglE,
    ApproxNDCG,
    CoSENT,
    GroCo,
    LambdaRank,
    ListMLE,
    ListNet,
    MannWhitney,
    MarginMSE,
    PairwiseHinge,
    PairwiseLogistic,
    PointMSE,
    PointSigmoid,
    RowObjective,
    SmoothAP,
)

OBJECTIVES: dict[str, Callable[..., RowObjective]] = {
    "ranknet": lambda **more: PairwiseLogistic(pairs="graded", average="pairs", **more),
    "hinge": PairwiseHinge,
    "point-mse": PointMSE,
    "point-sigmoid": lambda **more: PointSigmoid(average="items", **more),
    "listnet": ListNet,
    "listnet raw": lambda **more: ListNet("raw", **more),
    "listmle": lambda **more: ListMLE(divide=True, **more),
    "listmle columns": lambda **more: ListMLE("columns", **more),
    "lambda-rank": LambdaRank,
    "lambda-rank dcg": lambda **more: LambdaRank("dcg", average="pairs", times_length=True, **more),
    "lambda-rank loss2++": lambda **more: LambdaRank("ndcg-loss2++", k=1, average="pairs", **more),
    "approx-ndcg": ApproxNDCG,
    "smooth-ap": SmoothAP,
    "smooth-ap own": lambda **more: SmoothAP(own=True, **more),
    "irpo": IRPO,
    "irpo discount": lambda **more: IRPO("discount", **more),
    "mw-loss": MannWhitney,
    "groco": lambda **more: GroCo(3, **more),
    "kl": KL,
    "kl both": lambda **more: KL("both", **more),
}
NEED_AN_ORDER = ["ranknet", "hinge", "listmle", "lambda-rank", "approx-ndcg", "smooth-ap", "irpo", "groco"]


def items(seed: int, n: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def difficult() -> dict[str, tuple[Tensor, Tensor | None, Relation | None]]:
    zeros, ones = torch.zeros(4, 3), torch.ones(4, 3)
    some = items(4, 4)
    return {
        "all zero": (zeros, zeros, None),
        "all zero among themselves": (zeros, None, Labels(torch.tensor([0, 0, 1, 1]))),
        "all equal": (ones, ones, None),
        "all equal among themselves": (ones, None, Views(2)),
        "opposite": (some, -some, None),
        "coinciding": (some, some, None),
        "tiny": (1e-20 * some, 1e-20 * some.flip(0), None),
        "huge": (1e15 * some, 1e15 * some.flip(0), None),
        "one dimension": (some[:, :1], some[:, 1:2], None),
        "everything ignored": (some, some, Explicit(torch.zeros(4, 4), torch.zeros(4, 4))),
        "nobody far": (some, some, Explicit(torch.eye(4) + 1, torch.zeros(4, 4))),
        "one class": (some, None, Labels(torch.zeros(4, dtype=torch.long))),
        "tiny weights": (some, some.flip(0), Explicit(1e-30 * torch.eye(4), 1e-30 * (1 - torch.eye(4)))),
        "large weights": (some, some.flip(0), Explicit(1e15 * torch.eye(4), 1e15 * (1 - torch.eye(4)))),
        "grades far apart": (some, some, Explicit(torch.tensor([[300.0, 1e-30, 1, 0]]).expand(4, -1))),
        "one row with a positive": (some, some, Paired(torch.tensor([0, 7, 8, 9]), torch.arange(4))),
        "one row and column": (some[:1], some[:1], None),
    }


@pytest.mark.filterwarnings("ignore:.*no anchor")
@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_never_nan_for_finite_input(name: str, memory: str) -> None:
    for case, (one, other, relation) in difficult().items():
        if name == "point-sigmoid" and case in ("large weights", "grades far apart", "nobody far"):
            continue  # grades above 1, which it refuses
        # a dot product of 1e30 exceeds float32 when it is squared
        if case == "huge" and OBJECTIVES[name]().default_score == "dot":
            continue
        for reduction in ("mean", "sum", "none"):
            query = one.clone().requires_grad_()
            key = None if other is None else other.clone().requires_grad_()
            loss = evaluate(
                OBJECTIVES[name](reduction=reduction), query, key, relation=relation, memory=memory, tile_rows=3
            )
            loss.sum().backward()
            for value in (loss, query.grad, *([] if key is None else [key.grad])):
                assert value is None or torch.isfinite(value).all(), (case, reduction, value)


@pytest.mark.parametrize("name", NEED_AN_ORDER)
def test_a_batch_without_an_order_costs_nothing_and_says_so(name: str) -> None:
    for scores, relation in (
        (items(0, 2), Explicit(torch.ones(2, 3) / 2, torch.zeros(2, 3))),  # all of one grade
        (items(1, 2), Explicit(torch.zeros(2, 3))),  # all far
        (items(2, 2), Explicit(torch.eye(2, 3), torch.zeros(2, 3))),  # a single column
    ):
        if name == "irpo" and relation.query_state["positive"].count_nonzero() == 6:
            continue  # its items compete whatever their grades
        scores.requires_grad_()
        with pytest.warns(UserWarning, match="no anchor"):
            loss = OBJECTIVES[name]()(scores=scores, relation=relation)
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, scores)[0] == 0).all()


@pytest.mark.parametrize("name", NEED_AN_ORDER)
def test_lists_without_an_order_leave_the_mean(name: str) -> None:
    scores = items(3, 4, 5)
    grades = torch.tensor([[1.0, 0, 0, 2, 0], [0.0] * 5, [0.0] * 5, [0, 0, 3, 1, 0]])
    found = OBJECTIVES[name]()(scores=scores, relation=Explicit(grades))
    alone = OBJECTIVES[name]()(scores=scores[[0, 3]], relation=Explicit(grades[[0, 3]]))
    torch.testing.assert_close(found, alone)


@given(
    lists=st.integers(1, 4),
    length=st.integers(2, 9),
    seed=st.integers(0, 10_000),
    name=st.sampled_from([name for name in OBJECTIVES if name not in ("point-sigmoid", "listmle columns")]),
)
@settings(max_examples=80, deadline=None)
def test_ignored_columns_and_the_order_of_columns_do_not_matter(lists: int, length: int, seed: int, name: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(lists, length, generator=generator, dtype=torch.float64)
    positive = torch.randint(0, 3, (lists, length), generator=generator).double()
    negative = (positive == 0) & (torch.rand(lists, length, generator=generator) < 0.7)
    objective = OBJECTIVES[name]().double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = objective(scores=scores, relation=Explicit(positive, negative))
        order = torch.randperm(length + 5, generator=generator)
        wide = [
            torch.cat([values, torch.full((lists, 5), fill).to(values)], 1)[:, order]
            for values, fill in ((scores, 77.0), (positive, 0), (negative, 0))
        ]
        found = objective(scores=wide[0], relation=Explicit(wide[1], wide[2]))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ranknet", "lambda-rank", "approx-ndcg"])
def test_tiles_of_objectives_on_pairs_of_columns_are_small(name: str) -> None:
    """A row of 500 graded columns has some 80,000 pairs: few such rows fit in a tile."""
    query, key = items(5, 16, 4), items(6, 500, 4)
    grades = torch.randint(0, 3, (16, 500), generator=torch.Generator().manual_seed(0)).float()
    objective = OBJECTIVES[name]()
    tiled = objective(query, key, relation=Graded(grades))
    assert objective.report is not None
    assert objective.report.mode == "tiled"
    assert objective.report.tile_rows < 16
    torch.testing.assert_close(tiled, objective(query, key, relation=Graded(grades), memory="dense"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PairwiseLogistic(pairs="all"), "'near-far' or 'graded'"),
        (lambda: PairwiseHinge(0.0), "margin"),
        (lambda: PairwiseHinge(average="batch"), "'rows' or 'pairs'"),
        (lambda: PointMSE(average="columns"), "'rows' or 'items'"),
        (lambda: ListNet("sum"), "target"),
        (lambda: ListMLE("random"), "'together' or 'columns'"),
        (lambda: LambdaRank("map"), "weighting must be one of ndcg"),
        (lambda: LambdaRank(gain="cubic"), "gain"),
        (lambda: LambdaRank(k=0), "k must be a whole number"),
        (lambda: LambdaRank(mu=-1.0), "mu"),
        (lambda: LambdaRank(logarithm="decimal"), "logarithm"),
        (lambda: LambdaRank(average="lists"), "average"),
        (lambda: ApproxNDCG(gain="none"), "gain"),
        (lambda: SmoothAP(own=True, score="dot"), "cosine"),
        (lambda: IRPO("gain"), "weighting"),
        (lambda: IRPO(targets="scores"), "targets"),
        (lambda: IRPO(own="kept"), "own"),
        (lambda: GroCo(0), "hardest"),
        (lambda: GroCo(steepness=0.0), "steepness"),
        (lambda: KL("backward"), "direction"),
        (lambda: CoSENT(0.0), "temperature"),
        (lambda: AnglE(score="angular"), "no score"),
        (lambda: MarginMSE(reduction="average"), "reduction"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_input_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\], got one of 2"):
        PointSigmoid()(scores=items(7, 2), relation=Explicit(torch.tensor([[2.0, 0, 0], [1, 0, 0]])))
    with pytest.raises(ValueError, match=r"\(3,\) of torch.float32 and \(2,\)"):
        CoSENT()(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="not a number"):
        CoSENT()(torch.ones(2), torch.tensor([1.0, torch.nan]))
    with pytest.raises(TypeError, match="takes no 'weight'"):
        CoSENT()(torch.ones(2), torch.ones(2), weight=torch.ones(2))
    with pytest.raises(ValueError, match=r"\[3, 2\] and \[2, 2\]"):
        CoSENT().of_embeddings(torch.ones(3, 2), torch.ones(2, 2), torch.ones(3))
    for target in (torch.ones(3, 5), torch.ones(3, 2), torch.ones(2, 4), torch.ones(3)):
        with pytest.raises(ValueError, match=r"targets \[n, k\] or \[n, k - 1\], got \[3, 4\]"):
            MarginMSE()(torch.ones(3, 4), target)
    with pytest.raises(ValueError, match="k >= 2"):
        MarginMSE()(torch.ones(3, 1), torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"\[3, 2\] and \[3, 4, 5\]"):
        MarginMSE().of_embeddings(torch.ones(3, 2), torch.ones(3, 4, 5), torch.ones(3, 4))
    with pytest.raises(ValueError, match="embeddings"):
        MannWhitney()(torch.ones(2, 2), scores=torch.ones(2, 2))


def test_half_precision_and_nothing_at_all() -> None:
    score, target = items(8, 6)[:, 0], torch.tensor([0, 1, 2, 0, 1, 2])
    for dtype in (torch.float16, torch.bfloat16):
        half = score.to(dtype).requires_grad_()
        loss = CoSENT()(half, target)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, CoSENT()(half.float(), target))
        assert torch.autograd.grad(loss, half)[0].dtype == dtype
        one, other = items(9, 4).to(dtype), items(10, 4).to(dtype)
        assert AnglE().of_embeddings(one, other, target[:4]).dtype == torch.float32
        lists = MarginMSE(reduction="mean")(items(11, 4).to(dtype), items(12, 4).to(dtype))
        assert lists.dtype == torch.float32
    for count in (0, 1):
        empty = torch.zeros(count, requires_grad=True)
        loss = CoSENT()(empty, torch.zeros(count))
        assert loss.item() == 0
        loss.backward()
    zeros = torch.zeros(3, 4, requires_grad=True)
    for objective in (CoSENT(), AnglE()):
        loss = objective.of_embeddings(zeros, zeros, torch.arange(3))
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, zeros)[0]).all()
