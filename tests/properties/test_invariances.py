"""What must not change a loss: order, tiling, names of ids, scale, rotation, where a batch is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nearfar.contrast import Explicit, Labels, Paired, Relation, evaluate, evaluate_with_report
from nearfar.objectives import DCL, DCLW, InfoNCE, PairwiseLogistic, RowObjective, SupCon, Triplet

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
OBJECTIVES: dict[str, Callable[..., RowObjective]] = {
    "info-nce": lambda **more: InfoNCE(temperature=0.3, **more),
    "supcon in": lambda **more: SupCon("in", temperature=0.3, **more),
    "dcl": lambda **more: DCL(temperature=0.3, **more),
    "dclw": lambda **more: DCLW(temperature=0.3, **more),
    "triplet active": lambda **more: Triplet(average="active", **more),
    "triplet hard": lambda **more: Triplet("hard", smooth=True, **more),
    "triplet semi-hard": lambda **more: Triplet("semi-hard", **more),
    "pairwise pairs": lambda **more: PairwiseLogistic(temperature=0.3, average="pairs", **more),
}


@dataclass
class Batch:
    query: Tensor
    key: Tensor
    query_ids: Tensor
    key_ids: Tensor
    query_texts: Tensor
    key_texts: Tensor
    memory: str
    tile_rows: int
    seed: int

    def relation(self, rows: Tensor | slice = slice(None), columns: Tensor | slice = slice(None)) -> Relation:
        return Paired(
            self.query_ids[rows],
            self.key_ids[columns],
            query_exclude=self.query_texts[rows],
            key_exclude=self.key_texts[columns],
        )

    def loss(
        self,
        objective: RowObjective,
        query: Tensor | None = None,
        key: Tensor | None = None,
        relation: Relation | None = None,
    ) -> Tensor:
        return evaluate(
            objective,
            self.query if query is None else query,
            self.key if key is None else key,
            relation=self.relation() if relation is None else relation,
            memory=self.memory,
            tile_rows=self.tile_rows,
        )

    def order(self, n: int) -> Tensor:
        return torch.randperm(n, generator=torch.Generator().manual_seed(self.seed + 1))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    n, m, d = draw(st.integers(1, 6)), draw(st.integers(1, 7)), draw(st.integers(2, 4))
    seed = draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)

    def numbers(count: int) -> Tensor:
        return torch.randint(-1, 4, (count,), generator=generator)

    return Batch(
        torch.randn(n, d, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.randn(m, d, generator=generator, dtype=torch.float64).requires_grad_(),
        numbers(n),
        numbers(m),
        numbers(n),
        numbers(m),
        draw(st.sampled_from(["dense", "tiled"])),
        draw(st.integers(1, 6)),
        seed,
    )


def _gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def _assert_equal(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", OBJECTIVES)
@few
@given(batch=batches(), two_sided=st.booleans())
def test_order_of_queries_and_keys(name: str, two_sided: bool, batch: Batch) -> None:
    """Ids travel with the items, so any order gives the same loss and the same gradients, reordered."""
    objective = OBJECTIVES[name](two_sided=two_sided)
    rows, columns = batch.order(len(batch.query)), batch.order(len(batch.key))
    loss, d_query, d_key = _gradients(batch.loss(objective), batch.query, batch.key)
    query, key = batch.query.detach()[rows].requires_grad_(), batch.key.detach()[columns].requires_grad_()
    moved = _gradients(batch.loss(objective, query, key, batch.relation(rows, columns)), query, key)
    _assert_equal(moved, [loss, d_query[rows], d_key[columns]])


@pytest.mark.parametrize("name", OBJECTIVES)
@few
@given(batch=batches())
def test_order_among_themselves(name: str, batch: Batch) -> None:
    objective = OBJECTIVES[name]()
    rows = batch.order(len(batch.key))
    items, labels = batch.key, batch.key_ids
    way = {"memory": batch.memory, "tile_rows": batch.tile_rows}
    loss, gradient = _gradients(evaluate(objective, items, relation=Labels(labels), **way), items)
    moved = items.detach()[rows].requires_grad_()
    found = _gradients(evaluate(objective, moved, relation=Labels(labels[rows]), **way), moved)
    _assert_equal(found, [loss, gradient[rows]])
    by_ids = evaluate(objective, items, relation=Paired(labels), **way)
    _assert_equal(_gradients(by_ids, items), [loss, gradient])


@pytest.mark.parametrize("name", OBJECTIVES)
@few
@given(batch=batches(), two_sided=st.booleans())
def test_tiling(name: str, two_sided: bool, batch: Batch) -> None:
    objective = OBJECTIVES[name](two_sided=two_sided)
    expected = _gradients(
        evaluate(objective, batch.query, batch.key, relation=batch.relation(), memory="dense"), batch.query, batch.key
    )
    tiled = evaluate(
        objective, batch.query, batch.key, relation=batch.relation(), memory="tiled", tile_rows=batch.tile_rows
    )
    _assert_equal(_gradients(tiled, batch.query, batch.key), expected)


@pytest.mark.parametrize("name", OBJECTIVES)
@few
@given(batch=batches())
def test_names_of_ids_do_not_matter(name: str, batch: Batch) -> None:
    objective = OBJECTIVES[name]()
    names = torch.tensor([70, 3, 10**12, 0])

    def renamed(ids: Tensor) -> Tensor:
        return torch.where(ids >= 0, names[ids.clamp_min(0)], ids - 5)

    relation = Paired(
        renamed(batch.query_ids),
        renamed(batch.key_ids),
        query_exclude=renamed(batch.query_texts),
        key_exclude=renamed(batch.key_texts),
    )
    torch.testing.assert_close(batch.loss(objective, relation=relation), batch.loss(objective), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["info-nce", "supcon in", "dcl", "dclw", "pairwise pairs"])
@few
@given(batch=batches(), exponent=st.floats(-3, 3))
def test_length_does_not_matter_to_the_cosine(name: str, batch: Batch, exponent: float) -> None:
    """Scaling a vector scales its gradient inversely; the gradient is at right angles to the vector."""
    objective = OBJECTIVES[name]()
    loss, d_query, d_key = _gradients(batch.loss(objective), batch.query, batch.key)
    assert (d_query * batch.query).sum(1).abs().max() < 1e-9
    assert (d_key * batch.key).sum(1).abs().max() < 1e-9
    lengths = 10.0 ** (exponent * torch.linspace(-1, 1, len(batch.key), dtype=torch.float64))[:, None]
    key = (batch.key * lengths).detach().requires_grad_()
    found = _gradients(batch.loss(objective, key=key), batch.query, key)
    for a, b in zip(found, [loss, d_query, d_key / lengths], strict=True):
        assert (a - b).norm() <= 1e-9 * (1 + b.norm())


@pytest.mark.parametrize("score", ["cosine", "dot", "negative-euclidean", "negative-squared-euclidean"])
@few
@given(batch=batches())
def test_rotation(score: str, batch: Batch) -> None:
    turn = torch.linalg.qr(torch.randn(batch.query.shape[1], batch.query.shape[1], dtype=torch.float64,
                                       generator=torch.Generator().manual_seed(batch.seed)))[0]  # fmt: skip
    for objective in (InfoNCE(temperature=0.3, score=score), Triplet(score=score)):
        torch.testing.assert_close(
            batch.loss(objective, batch.query @ turn, batch.key @ turn), batch.loss(objective), rtol=1e-9, atol=1e-9
        )


@few
@given(batch=batches(), shift=st.floats(-5, 5))
def test_translation_does_not_matter_to_distances(batch: Batch, shift: float) -> None:
    for score in ("negative-euclidean", "negative-squared-euclidean"):
        objective = InfoNCE(temperature=0.3, score=score)
        moved = batch.loss(objective, batch.query + shift, batch.key + shift)
        torch.testing.assert_close(moved, batch.loss(objective), rtol=1e-8, atol=1e-8)


@few
@given(batch=batches(), factor=st.floats(0.2, 5))
def test_temperature_is_the_unit_of_the_scores(batch: Batch, factor: float) -> None:
    for cls in (InfoNCE, DCL, PairwiseLogistic):
        one = batch.loss(cls(temperature=0.5, score="dot"))
        other = batch.loss(cls(temperature=0.5 * factor, score="dot"), query=batch.query * factor)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "dclw"])
@few
@given(batch=batches(), cut=st.integers(0, 6), reduction=st.sampled_from(["mean", "sum"]))
def test_a_batch_may_be_cut_anywhere(name: str, reduction: str, batch: Batch, cut: int) -> None:
    """What each of two processes computes of its own rows against all keys adds up to the whole."""
    objective = OBJECTIVES[name](reduction="sum")
    parts = [rows for rows in (slice(0, cut), slice(cut, None)) if len(batch.query[rows])]
    total: Tensor = sum(  # type: ignore[assignment]
        batch.loss(objective, batch.query[rows], relation=batch.relation(rows)) for rows in parts
    )
    if reduction == "mean":
        whole = OBJECTIVES[name](reduction="mean")
        positive, negative = batch.relation().bind(
            len(batch.query), len(batch.key), self_contrast=False, device=torch.device("cpu")
        ).tile(slice(None))  # fmt: skip
        active = whole.active(positive, negative)
        scores = whole.score(whole.score.embed(batch.query), whole.score.embed(batch.key)).detach()
        if not active.any():
            return
        weight = whole.weights(scores[active], positive[active], negative[active]).sum()
        total = total / weight if weight > 0 else total
    found = batch.loss(OBJECTIVES[name](reduction=reduction))
    _assert_equal(_gradients(found, batch.query, batch.key), _gradients(total, batch.query, batch.key))


@pytest.mark.parametrize("name", ["info-nce", "supcon in", "dcl", "dclw", "triplet hard"])
@few
@given(batch=batches())
def test_single_costs_make_the_mean(name: str, batch: Batch) -> None:
    """Of objectives whose mean is over rows, not over triplets or pairs."""
    costs = batch.loss(OBJECTIVES[name](reduction="none"))
    loss, report = evaluate_with_report(OBJECTIVES[name](), batch.query, batch.key, relation=batch.relation())
    assert costs.shape == (len(batch.query),)
    torch.testing.assert_close(costs.sum() / report.active_anchors.clamp_min(1), loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
@few
@given(batch=batches())
def test_ignored_keys_might_as_well_be_absent(name: str, batch: Batch) -> None:
    objective = OBJECTIVES[name]()
    more = torch.cat([batch.key, batch.query.detach()])
    ids = torch.cat([batch.key_ids, batch.query_ids])
    texts = torch.cat([batch.key_texts, batch.query_texts])
    relation = Paired(batch.query_ids, ids, query_exclude=batch.query_texts, key_exclude=texts).ignore(
        lambda rows, columns: (columns >= len(batch.key)).expand(len(rows), -1)
    )
    found = batch.loss(objective, key=more, relation=relation)
    _assert_equal(_gradients(found, batch.query, batch.key), _gradients(batch.loss(objective), batch.query, batch.key))


@pytest.mark.parametrize("name", ["info-nce", "supcon in", "dcl", "pairwise pairs", "triplet all"])
@few
@given(batch=batches())
def test_a_weight_of_two_is_a_second_copy(name: str, batch: Batch) -> None:
    """Of a negative always; of a positive not where it is a candidate, which counts once in the denominator."""
    objective = Triplet() if name == "triplet all" else OBJECTIVES[name]()
    n, m = len(batch.query), len(batch.key)
    positive, negative = batch.relation().bind(n, m, self_contrast=False, device=torch.device("cpu")).tile(slice(None))
    weighed = Explicit(2 * positive.double(), 2 * negative.double())
    once = torch.zeros_like(positive) if name in ("info-nce", "supcon in") else positive
    copied = Explicit(torch.cat([positive, once], dim=1), negative.repeat(1, 2))
    _assert_equal(
        _gradients(batch.loss(objective, relation=weighed), batch.query, batch.key),
        _gradients(
            batch.loss(objective, key=torch.cat([batch.key, batch.key]), relation=copied), batch.query, batch.key
        ),
    )
