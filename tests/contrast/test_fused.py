"""The closed form of the softmax family: where it applies, what it costs, and where float32 would lose a column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Labels, Paired, Relation, Views, evaluate, evaluate_with_report
from nearfar.contrast import two_sided as both_directions
from nearfar.objectives import DCL, DCLW, InfoNCE, RowObjective, SupCon
from support.products import Multiplications


def _items(seed: int, n: int, d: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _outcome(objective: RowObjective, query: Tensor, key: Tensor, relation: Relation, **way: Any) -> list[Tensor]:
    query, key = query.clone().requires_grad_(), key.clone().requires_grad_()
    loss = evaluate(objective, query, key, relation=relation, **way)
    return [loss.detach(), *torch.autograd.grad(loss, [query, key, *objective.parameters()])]


def _is_fused(objective: RowObjective, **arguments: Any) -> bool:
    given = {"query": _items(0, 5), "key": _items(1, 6), "memory": "tiled", **arguments}
    return evaluate_with_report(objective, **given)[1].fused


def test_where_it_applies() -> None:
    own = {"key": None, "relation": Views(2), "query": _items(0, 6)}
    for make in (InfoNCE, SupCon, DCL):
        for two_sided in (False, True):
            assert _is_fused(make(two_sided=two_sided))
            assert _is_fused(make(two_sided=two_sided, reduction="sum", temperature="learned", score="dot"))
            assert _is_fused(make(), **own)
            assert _is_fused(make(two_sided=two_sided), relation=Labels(torch.arange(5) % 2, torch.arange(6) % 2))
        assert not _is_fused(make(), memory="dense")
        assert not _is_fused(make(reduction="none"))
        assert not _is_fused(make(score="negative-euclidean"))
    assert not _is_fused(SupCon("in"))
    assert not _is_fused(DCLW())


class Rewritten(InfoNCE):
    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return 2 * super().rows(scores, positive, negative) + 1


class RewrittenDecoupled(DCL):
    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return 2 * super().rows(scores, positive, negative) + 1


class Weighed(InfoNCE):
    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return 1 + (scores * positive).sum(1).square()


class Choosy(InfoNCE):
    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return super().active(positive, negative) & (positive.sum(1) == 1)


class OtherDenominator(DCL):
    def denominator(self, positive: Tensor, negative: Tensor) -> Tensor:
        return negative + 0.5 * positive


class Child(Weighed):
    """Inherits the change, and with it the generic way."""


@pytest.mark.parametrize("cls", [Rewritten, RewrittenDecoupled, Weighed, Choosy, OtherDenominator, Child])
def test_a_formula_written_anew_leaves_it_behind(cls: type[RowObjective]) -> None:
    relation = Paired(torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([0, 1, 2, 2, 3, 7, -1, 3]))
    for two_sided in (False, True):
        objective = cls(two_sided=two_sided)
        dense, tiled = (
            _outcome(objective, _items(0, 6), _items(1, 8), relation, memory=memory, tile_rows=4)
            for memory in ("dense", "tiled")
        )
        for one, other in zip(dense, tiled, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        _, report = evaluate_with_report(objective, _items(0, 6), _items(1, 8), relation=relation, memory="tiled")
        assert not report.fused


class Needy(InfoNCE):
    """Of the same formula, for rows that have something to be told from."""

    needs_negative = True


@pytest.mark.parametrize("two_sided", [False, True])
def test_rows_without_a_negative_count_only_where_the_objective_says_so(two_sided: bool) -> None:
    relation = Paired(
        torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]),
        query_exclude=torch.tensor([5, 5, 6]), key_exclude=torch.tensor([6, 6, 5]),
    )  # fmt: skip
    query, key = _items(0, 3), _items(1, 3)
    for cls, active in ((Needy, 0), (InfoNCE, 3)):
        objective = cls(two_sided=two_sided)
        dense, tiled = (
            _outcome(objective, query, key, relation, memory=memory, tile_rows=2) for memory in ("dense", "tiled")
        )
        for one, other in zip(dense, tiled, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        _, report = evaluate_with_report(objective, query, key, relation=relation, memory="tiled")
        assert report.fused
        assert report.active_anchors == active * (2 if two_sided else 1)


def test_a_subclass_keeps_the_denominator_of_its_parent() -> None:
    one, other = (cls(temperature=0.2)(_items(0, 6), _items(1, 8)) for cls in (RewrittenDecoupled, DCL))
    torch.testing.assert_close(one, 2 * other + 1)
    assert abs(one - 2 * InfoNCE(temperature=0.2)(_items(0, 6), _items(1, 8)) - 1) > 0.1


def test_closed_form_and_denominator_cannot_contradict_each_other() -> None:
    with pytest.raises(TypeError, match="softmax_form is 'negative', decoupled = False"):
        type("Contradiction", (InfoNCE,), {"softmax_form": "negative"})
    assert type("Decoupled", (InfoNCE,), {"decoupled": True}).softmax_form == DCL.softmax_form == "negative"
    assert DCLW.softmax_form is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("two_sided", "products"), [(False, 3), (True, 4)])
def test_matrix_products(two_sided: bool, products: int, dtype: torch.dtype) -> None:
    """Three for one direction, four for both; the second direction's sums are one matrix-vector product more."""
    n, m, d = 12, 15, 64
    query, key = _items(0, n, d, dtype).requires_grad_(), _items(1, m, d, dtype).requires_grad_()
    more = n * m if two_sided else 0
    with Multiplications() as counter:
        evaluate(InfoNCE(two_sided=two_sided), query, key, memory="tiled", tile_rows=5).backward()
    assert counter.count == products * n * m * d + more
    with Multiplications() as counter, torch.no_grad():
        evaluate(InfoNCE(two_sided=two_sided), query, key, memory="tiled", tile_rows=5)
    assert counter.count == n * m * d + more


# -- columns far below every row's peak --------------------------------------------------------------------------------


def _lonely_column(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """At temperature 0.01 key 2, opposite to all queries, lies about 200 nats below the peak of every row."""
    towards = torch.tensor([1.0, 0.0, 0.0, 0.0])
    query = towards + 0.1 * _items(0, 6, dtype=torch.float32)
    key = towards + 0.1 * _items(1, 7, dtype=torch.float32)
    key[2] = -towards + 0.1 * key[2]
    return query.to(dtype), key.to(dtype)


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    actual: Callable[..., Tensor] = both_directions._log_sums

    def counted(*arguments: Any) -> Tensor:
        calls.append(1)
        return actual(*arguments)

    monkeypatch.setattr(both_directions, "_log_sums", counted)
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cls", [InfoNCE, DCL])
@pytest.mark.parametrize("tile_rows", [1, 4, 6])
def test_a_column_that_the_rows_would_lose(
    cls: type[RowObjective], dtype: torch.dtype, tile_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key = _lonely_column(dtype)
    scores = torch.nn.functional.normalize(query) @ torch.nn.functional.normalize(key).T / 0.01
    assert (scores[:, 2] < scores.amax(1).min() - 150).all()
    calls = _counted(monkeypatch)
    objective = cls(temperature="learned:0.01", two_sided=True).to(dtype)
    found = _outcome(objective, query, key, Paired(), memory="tiled", tile_rows=tile_rows)
    assert calls == [1]
    expected = _outcome(cls(temperature="learned:0.01", two_sided=True).double(), query.double(), key.double(),
                        Paired(), memory="dense")  # fmt: skip
    for one, other in zip(found, expected, strict=True):
        if dtype == torch.float64:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        else:
            assert (one.double() - other).norm() <= 2e-5 * other.norm()
    assert found[2][2].norm() > 1  # the lonely key is pulled, hard


def test_columns_that_only_lie_low_are_not_summed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a column within reach, nor one that no query needs, nor one without candidates is worth another visit."""
    calls = _counted(monkeypatch)
    query, key = _items(0, 6), _items(1, 7)
    evaluate(InfoNCE(temperature=0.05, two_sided=True), query, key, memory="tiled", tile_rows=2)
    query, key = _lonely_column(torch.float32)
    nobody = Paired(torch.arange(6), torch.tensor([0, 1, -1, 3, 4, 5, 2]))
    evaluate(InfoNCE(temperature=0.01, two_sided=True), query, key, relation=nobody, memory="tiled", tile_rows=2)
    ignored = Paired(
        torch.arange(6),
        torch.tensor([0, 1, 9, 3, 4, 5, 2]),
        query_exclude=torch.zeros(6, dtype=torch.long),
        key_exclude=torch.tensor([1, 2, 0, 3, 4, 5, 6]),
    )
    evaluate(InfoNCE(temperature=0.01, two_sided=True), query, key, relation=ignored, memory="tiled", tile_rows=2)
    assert calls == []


@pytest.mark.parametrize("cls", [InfoNCE, DCL])
@pytest.mark.parametrize("low", [58.0, 62.0])
def test_both_ways_agree_at_the_threshold(cls: type[RowObjective], low: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32, key 1 just within and just beyond what is summed through the rows."""
    calls = _counted(monkeypatch)
    query = torch.eye(4)[:3] + 0.01 * _items(0, 3, dtype=torch.float32)
    key = 40 * (torch.ones(5, 4) + 0.01 * _items(1, 5, dtype=torch.float32))
    key[1] -= low
    objective = cls(temperature=1.0, score="dot", two_sided=True)
    found = _outcome(objective, query, key, Paired(), memory="tiled", tile_rows=2)
    assert len(calls) == (low > 60)
    expected = _outcome(objective, query.double(), key.double(), Paired(), memory="dense")
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= 2e-5 * other.norm()


@pytest.mark.parametrize("cls", [InfoNCE, DCL])
@pytest.mark.parametrize("tile_rows", [1, 2, 4])
def test_rows_and_columns_without_candidates(cls: type[RowObjective], tile_rows: int) -> None:
    """Row 0 and column 1 are ignored altogether, query 3 and key 2 are near to nobody."""
    relation = Paired(
        torch.tensor([5, 1, 2, 9]),
        torch.tensor([1, 6, 8, 2, 2]),
        query_exclude=torch.tensor([0, 1, 2, 3]),
        key_exclude=torch.tensor([0, 4, 0, 0, 0]),
    ).ignore(lambda rows, columns: (rows[:, None] == 0) | (columns == 1))
    sparse = Paired(
        torch.tensor([5, 1, 2, 9]),
        torch.tensor([1, 8, 2, 2]),
        query_exclude=torch.tensor([0, 1, 2, 3]),
        key_exclude=torch.tensor([0, 0, 0, 0]),
    )
    for one, key in ((relation, _items(1, 5)), (sparse, _items(1, 4))):
        objective = cls(two_sided=True)
        dense, tiled = (
            _outcome(objective, _items(0, 4), key, one, memory=memory, tile_rows=tile_rows)
            for memory in ("dense", "tiled")
        )
        for a, b in zip(dense, tiled, strict=True):
            assert torch.isfinite(a).all()
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        assert (dense[1][0] == 0).all()


@pytest.mark.parametrize("relation", [Paired(), Paired(torch.tensor([0]), torch.tensor([-1]))])
def test_one_pair_alone(relation: Relation) -> None:
    for objective in (InfoNCE(two_sided=True), DCL(two_sided=True)):
        for value in _outcome(objective, _items(0, 1), _items(1, 1), relation, memory="tiled"):
            torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [InfoNCE, DCL])
def test_a_row_without_candidates_beside_very_low_scores(cls: type[RowObjective]) -> None:
    """Its sum over nothing must not be compared with the others' in a way that overflows."""
    relation = Paired(
        torch.tensor([8, 1, 2]),
        torch.tensor([9, 1, 2]),
        query_exclude=torch.tensor([0, 1, 2]),
        key_exclude=torch.tensor([0, 0, 0]),
    )
    query, key = _items(0, 3, dtype=torch.float32), _items(1, 3, dtype=torch.float32)
    query[:, 0], key[:, 0] = 20, -20  # dot products of about -400
    objective = cls(temperature=1.0, score="dot", two_sided=True)
    found = _outcome(objective, query, key, relation, memory="tiled", tile_rows=2)
    expected = _outcome(objective, query.double(), key.double(), relation, memory="dense")
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= 2e-4 * other.norm()  # scores of 400 have 5 decimals


def test_two_sided_where_near_pairs_hold_next_to_nothing_of_their_rows() -> None:
    generator = torch.Generator().manual_seed(5)
    query = torch.nn.functional.normalize(torch.randn(12, 6, dtype=torch.float64, generator=generator), dim=1)
    key = -query + 0.01 * torch.randn(
        12, 6, dtype=torch.float64, generator=generator
    )  # 100 nats and more below the best
    objective = InfoNCE(temperature=0.01, two_sided=True)
    found = []
    for memory, tile_rows in (("dense", None), ("tiled", 5)):
        leaves = [query.clone().requires_grad_(), key.clone().requires_grad_()]
        loss = evaluate(objective, *leaves, memory=memory, tile_rows=tile_rows)
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)
