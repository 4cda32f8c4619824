"""Who is near whom: each relation against plain loops, whole, by tiles, by columns, sparse and transposed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Explicit, Graded, Labels, Paired, Relation, Views

CPU = torch.device("cpu")
Pairs = set[tuple[int, int]]


def _pairs(weights: Tensor) -> Pairs:
    return {(int(i), int(j)) for i, j in weights.nonzero()}


def _bound(relation: Relation, n: int, m: int | None = None) -> Relation:
    return relation.bind(n, n if m is None else m, self_contrast=m is None, device=CPU)


QUERIES, KEYS = [3, 1, -1, 3, 8], [1, 3, -1, 8, 3, -1, 5]
QUERY_TEXTS, KEY_TEXTS = [0, 1, 2, -1, 0], [1, 0, 2, 0, 4, -1, 0]


def _id_pairs(queries: list[int], keys: list[int], own: bool = False) -> Pairs:
    return {
        (i, j)
        for i in range(len(queries))
        for j in range(len(keys))
        if queries[i] == keys[j] >= 0 and not (own and i == j)
    }


def _all_pairs(n: int, m: int, own: bool = False) -> Pairs:
    return {(i, j) for i in range(n) for j in range(m) if not (own and i == j)}


def _text_pairs() -> Pairs:
    return {
        (i, j)
        for i in range(5)
        for j in range(7)
        if QUERY_TEXTS[i] == KEY_TEXTS[j] >= 0 and (QUERIES[i] != KEYS[j] or QUERIES[i] < 0)
    }


def _relations() -> dict[str, tuple[Relation, Pairs, Pairs]]:
    """Bound relations with their near and far pairs."""
    ids, keys = torch.tensor(QUERIES), torch.tensor(KEYS)
    near = _id_pairs(QUERIES, KEYS)
    own_near = _id_pairs(QUERIES, QUERIES, own=True)
    own_far = _all_pairs(5, 5, own=True) - own_near
    own_texts = {(i, j) for i, j in own_far if QUERY_TEXTS[i] == QUERY_TEXTS[j] >= 0}
    texts = torch.tensor(QUERY_TEXTS)
    views = {(0, 2), (2, 0), (1, 3), (3, 1)}
    three = {(i, j) for i in range(6) for j in range(6) if i != j and i % 2 == j % 2}
    judged = {3: {1: 2.0, 8: 0.0}, 1: {3: 1.0}, 8: {5: 0.5}}
    graded = {(i, j) for i in range(5) for j in range(7) if judged.get(QUERIES[i], {}).get(KEYS[j], 0) > 0}
    zeros = {(i, j) for i in range(5) for j in range(7) if judged.get(QUERIES[i], {}).get(KEYS[j]) == 0}
    positive = torch.tensor([[1, 0, 0], [0, 0, 1]]).bool()
    negative = torch.tensor([[0, 2.0, 0], [0.5, 0, 0]])
    return {
        "positions": (
            _bound(Paired(), 3, 5), {(0, 0), (1, 1), (2, 2)}, _all_pairs(3, 5) - {(0, 0), (1, 1), (2, 2)}
        ),
        "ids": (_bound(Paired(ids, keys), 5, 7), near, _all_pairs(5, 7) - near),
        "ids for both sides": (
            _bound(Paired(torch.tensor([2, 0, 2])), 3, 3),
            {(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)},
            {(0, 1), (1, 0), (1, 2), (2, 1)},
        ),
        "texts": (
            _bound(Paired(ids, keys, query_exclude=texts, key_exclude=torch.tensor(KEY_TEXTS)), 5, 7),
            near,
            _all_pairs(5, 7) - near - _text_pairs(),
        ),
        "own ids": (_bound(Paired(ids), 5), own_near, own_far),
        "own texts": (_bound(Paired(ids, query_exclude=texts), 5), own_near, own_far - own_texts),
        "views": (_bound(Views(2), 4), views, _all_pairs(4, 4, own=True) - views),
        "three views": (_bound(Views(3), 6), three, _all_pairs(6, 6, own=True) - three),
        "labels": (_bound(Labels(ids, keys), 5, 7), near, _all_pairs(5, 7) - near),
        "own labels": (_bound(Labels(ids), 5), own_near, own_far),
        "graded": (_bound(Graded(judged, ids, keys), 5, 7), graded, _all_pairs(5, 7) - graded),
        "judged alone": (_bound(Graded(judged, ids, keys, unjudged="ignored"), 5, 7), graded, zeros),
        "explicit": (_bound(Explicit(positive, negative), 2, 3), {(0, 0), (1, 2)}, {(0, 1), (1, 0)}),
        "ignored": (
            _bound(Paired(ids, keys).ignore(lambda rows, columns: (rows[:, None] + columns) % 2 == 0), 5, 7),
            {(i, j) for i, j in near if (i + j) % 2},
            {(i, j) for i, j in _all_pairs(5, 7) - near if (i + j) % 2},
        ),
        "ignored by a mask": (
            _bound(Labels(ids).ignore(torch.eye(5).roll(1, 1).bool()), 5),
            {(i, j) for i, j in own_near if j != (i + 1) % 5},
            {(i, j) for i, j in own_far if j != (i + 1) % 5},
        ),
    }  # fmt: skip


RELATIONS = _relations()
assert _text_pairs()
assert {(2, 2)} <= _text_pairs()  # both near to nobody, equal text: ignored too


@pytest.mark.parametrize("name", RELATIONS)
def test_near_and_far(name: str) -> None:
    relation, near, far = RELATIONS[name]
    n, m = relation.shape
    positive, negative = relation.tile(slice(0, n))
    assert positive.shape == negative.shape == (n, m)
    assert _pairs(positive) == near
    assert _pairs(negative) == far
    assert near
    assert far


@pytest.mark.parametrize("name", RELATIONS)
def test_tiles_are_parts_of_the_whole(name: str) -> None:
    relation, _, _ = RELATIONS[name]
    n, m = relation.shape
    whole = relation.tile(slice(0, n))
    backwards = torch.arange(m).flip(0)
    for rows in (slice(0, 1), slice(1, n), torch.tensor([1, 0, 1])):
        for part, full in zip(relation.tile(rows), whole, strict=True):
            assert torch.equal(part, full[rows])
        for columns in (slice(1, 3), backwards):
            for part, full in zip(relation.tile(rows, columns), whole, strict=True):
                assert torch.equal(part, full[rows][:, columns])


@pytest.mark.parametrize("name", RELATIONS)
def test_transpose(name: str) -> None:
    relation, near, far = RELATIONS[name]
    n, m = relation.shape
    turned = relation.transpose()
    assert turned.shape == (m, n)
    positive, negative = turned.tile(slice(0, m))
    for part, full in zip((positive, negative), relation.tile(slice(0, n)), strict=True):
        assert torch.equal(part, full.T)
    assert _pairs(turned.tile(slice(1, 3))[0]) == {(j - 1, i) for i, j in near if j in (1, 2)}
    assert _pairs(turned.transpose().tile(slice(0, n))[1]) == far


@pytest.mark.parametrize("name", RELATIONS)
def test_sparse_tiles_say_the_same(name: str) -> None:
    relation, near, far = RELATIONS[name]
    n, m = relation.shape
    for one, shape in ((relation, (n, m)), (relation.transpose(), (m, n))):
        few = one.sparse(slice(1, shape[0]))
        if few is None:
            assert not isinstance(relation, Paired)
            continue
        found_near = [(int(i) + 1, int(j)) for i, j in zip(few.near_rows, few.near_columns, strict=True)]
        ignored = [(int(i) + 1, int(j)) for i, j in zip(few.ignored_rows, few.ignored_columns, strict=True)]
        assert len(set(found_near + ignored)) == len(found_near + ignored)  # none twice
        turned = one is not relation
        expected_near = {(j, i) if turned else (i, j) for i, j in near}
        expected_far = {(j, i) if turned else (i, j) for i, j in far}
        below = {(i, j) for i, j in _all_pairs(*shape) if i >= 1}
        assert set(found_near) == expected_near & below
        assert set(ignored) == below - expected_near - expected_far


@pytest.mark.parametrize("name", RELATIONS)
def test_positive_pairs(name: str) -> None:
    relation, near, _ = RELATIONS[name]
    rows, columns = relation.positive_pairs()
    found = list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert set(found) == near
    assert len(found) == len(near)
    assert rows.tolist() == sorted(rows.tolist())


def test_grades_are_weights() -> None:
    judged = {3: {1: 2.0, 8: 0.0}, 1: {3: 1.5}}
    relation = _bound(Graded(judged, torch.tensor([1, 3]), torch.tensor([8, 1, 3, 1])), 2, 4)
    positive, negative = relation.tile(slice(0, 2))
    assert positive.tolist() == [[0, 0, 1.5, 0], [0, 2.0, 0, 2.0]]
    assert negative.tolist() == [[True, True, False, True], [True, False, True, False]]


def test_grades_in_other_forms() -> None:
    dense = torch.tensor([[0, 2.0, 0], [1.0, 0, 0.5]])
    by_id = {0: {1: 2.0}, 1: {0: 1.0, 2: 0.5}}
    vectors = (torch.tensor([1, 0, 1]), torch.tensor([2, 1, 0]), torch.tensor([0.5, 2.0, 1.0]))
    ids = (torch.arange(2), torch.arange(3))
    for relation in (Graded(dense), Graded(dense.to_sparse()), Graded(by_id, *ids), Graded(vectors, *ids)):
        positive, negative = _bound(relation, 2, 3).tile(slice(0, 2))
        assert torch.equal(positive, dense)
        assert torch.equal(negative, dense == 0)


def test_zeros_of_a_dense_matrix_of_grades_are_judgements() -> None:
    dense = torch.tensor([[0, 2.0, 0], [1.0, 0, 0.5]])
    _, negative = _bound(Graded(dense, unjudged="ignored"), 2, 3).tile(slice(0, 2))
    assert torch.equal(negative, dense == 0)
    stored = torch.sparse_coo_tensor([[0, 0], [1, 2]], [2.0, 0.0], (2, 3), check_invariants=True)
    _, negative = _bound(Graded(stored, unjudged="ignored"), 2, 3).tile(slice(0, 2))
    assert _pairs(negative) == {(0, 2)}


def test_explicit_negatives_default_to_the_rest() -> None:
    positive, negative = _bound(Explicit(torch.tensor([[0.5, 0, 0], [0, 0, 2]])), 2, 3).tile(slice(0, 2))
    assert _pairs(positive) == {(0, 0), (1, 2)}
    assert _pairs(negative) == _all_pairs(2, 3) - {(0, 0), (1, 2)}


def test_explicit_among_themselves_leaves_out_the_diagonal() -> None:
    positive, negative = _bound(Explicit(torch.ones(3, 3), torch.ones(3, 3)), 3).tile(slice(0, 3))
    assert _pairs(positive) == _pairs(negative) == _all_pairs(3, 3, own=True)


def test_reweight_sees_numbers_of_rows_and_columns() -> None:
    def weigh(near: Tensor, far: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        return near * 3.0, far * (10.0 * rows[:, None] + columns)

    relation = _bound(Paired().reweight(weigh), 2, 4)
    positive, negative = relation.tile(slice(1, 2))
    assert positive.tolist() == [[0, 3, 0, 0]]
    assert negative.tolist() == [[10, 0, 12, 13]]
    positive, negative = relation.transpose().tile(slice(2, 4))
    assert not positive.any()
    assert negative.tolist() == [[2, 12], [3, 13]]


def test_nothing_makes_an_item_its_own_candidate() -> None:
    def everything(near: Tensor, far: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(near), torch.ones_like(far, dtype=torch.float32)

    positive, negative = _bound(Labels(torch.tensor([0, 0, 1])).reweight(everything), 3).tile(slice(1, 3))
    assert positive.tolist() == [[True, False, True], [True, True, False]]
    assert negative.tolist() == [[1, 0, 1], [1, 1, 0]]


def test_a_relation_can_be_used_for_batches_of_any_size() -> None:
    """Binding makes a copy: without ids one relation serves every batch."""
    relation = Paired().ignore(lambda rows, columns: rows[:, None] < columns)
    for n, m in ((2, 2), (3, 5)):
        positive, negative = _bound(relation, n, m).tile(slice(0, n))
        assert _pairs(positive) == {(i, i) for i in range(n)}
        assert _pairs(negative) == {(i, j) for i in range(n) for j in range(i)}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Paired(None, torch.arange(3)), "without query_ids"),
        (lambda: Paired(torch.zeros(3)), "integers"),
        (lambda: Paired(torch.zeros(3, 1, dtype=torch.long)), "vector"),
        (lambda: Labels(torch.tensor([0.0, 1.0])), "integers"),
        (lambda: Views(1), "at least 2"),
        (lambda: Explicit(torch.ones(2, 3), torch.ones(3, 2)), r"\(2, 3\) and \(3, 2\)"),
        (lambda: Explicit(torch.tensor([[-1.0]])), "negative or not finite"),
        (lambda: Explicit(torch.tensor([[1.0]]), torch.tensor([[torch.nan]])), "negative or not finite"),
        (lambda: Graded(torch.tensor([[-1.0]])), "finite and >= 0"),
        (lambda: Graded(torch.tensor([[torch.inf]])), "finite and >= 0"),
        (lambda: Graded(torch.ones(3)), r"\[n, m\]"),
        (lambda: Graded({0: {1: 1.0}}), "query_ids and key_ids"),
        (lambda: Graded(torch.ones(1, 1), unjudged="maybe"), "unjudged"),
    ],
)  # fmt: skip
def test_relations_that_make_no_sense(make: Callable[[], Relation], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("relation", "n", "m", "says"),
    [
        (Paired(), 3, 2, "3 queries need at least as many keys, got 2"),
        (Paired(), 3, None, "needs query_ids"),
        (Paired(torch.arange(3)), 4, 4, "3 id values for 4 queries"),
        (Paired(torch.arange(3), torch.arange(4)), 3, 5, "4 id values for 5 keys"),
        (Paired(torch.arange(3)), 3, 5, "3 id values for 5 keys"),
        (Paired(torch.arange(2), torch.arange(3), query_exclude=torch.arange(2)), 2, 3, "needed together"),
        (Paired(torch.arange(2), torch.arange(2), key_exclude=torch.arange(2)), 2, 2, "needed together"),
        (Views(2), 4, 4, "no key"),
        (Views(2), 5, None, "5 rows cannot be 2 views"),
        (Labels(torch.arange(3)), 3, 4, "3 queries but no keys; got 3 queries and 4 keys"),
        (Labels(torch.arange(3), torch.arange(4)), 3, 5, "3 queries and 4 keys, got 3 queries and 5 keys"),
        (Labels(torch.arange(3)), 2, None, "3 queries and 3 keys, got 2 queries and 2 keys"),
        (Explicit(torch.ones(2, 3)), 3, 2, r"\[2, 3\], got 3 queries and 2 keys"),
        (Graded(torch.ones(2, 3)), 2, 2, "2 queries and 3 keys, got 2 queries and 2 keys"),
        (Paired().ignore(torch.zeros(2, 3, dtype=torch.bool)), 3, 3, r"\(2, 3\), got 3 queries and 3 keys"),
    ],
)  # fmt: skip
def test_relations_that_do_not_fit(relation: Relation, n: int, m: int | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _bound(relation, n, m)


def test_changes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="bool"):
        _bound(Paired().ignore(torch.zeros(2, 2)), 2, 2).tile(slice(0, 2))
    with pytest.raises(ValueError, match=r"\(2, 2\) bool"):
        _bound(Paired().ignore(lambda rows, columns: torch.zeros(2, dtype=torch.bool)), 2, 2).tile(slice(0, 2))
    with pytest.raises(ValueError, match=r"gave weights \(1, 2\) and \(2, 2\), expected \(2, 2\)"):
        _bound(Paired().reweight(lambda near, far, rows, columns: (near[:1], far)), 2, 2).tile(slice(0, 2))


def test_state_is_linear_in_the_items() -> None:
    n, m = 20_000, 30_000
    relation = Paired(torch.arange(n), torch.arange(m), query_exclude=torch.arange(n), key_exclude=torch.arange(m))
    bound = _bound(relation, n, m)
    held = sum(value.numel() for state in (bound.query_state, bound.key_state) for value in state.values())
    assert held <= 2 * (n + m)
    few = bound.sparse(slice(0, n))
    assert few.near_rows.numel() == n
    assert bound.positive_pairs()[1].tolist()[:3] == [0, 1, 2]
