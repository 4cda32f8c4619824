"""Relations in which an item is far only from a part of the others: views, moments, queues, directions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Paired, Relation, Views, evaluate
from nearfar.contrast.directions import DIRECTIONS, Directions
from nearfar.objectives import InfoNCE
from support.scenarios import embeddings


def _bound(relation: Relation, n: int, m: int | None = None) -> Relation:
    return relation.bind(n, n if m is None else m, self_contrast=m is None, device=torch.device("cpu"))


def _tiles(relation: Relation) -> tuple[Tensor, Tensor]:
    """All weights; the same by rows, by columns and transposed."""
    n, m = relation.shape
    positive, negative = relation.tile(slice(0, n))
    for rows in (slice(1, n), torch.tensor([n - 1, 0])):
        for whole, part in zip((positive, negative), relation.tile(rows), strict=True):
            assert torch.equal(whole[rows], part)
    columns = torch.tensor([m - 1, 0, 1])
    for whole, part in zip((positive, negative), relation.tile(slice(0, n), columns), strict=True):
        assert torch.equal(whole[:, columns], part)
    for whole, part in zip((positive, negative), relation.transpose().tile(slice(0, m)), strict=True):
        assert torch.equal(whole.T, part)
    return positive.bool(), negative.bool()


@pytest.mark.parametrize("negatives", ["all", "same-view", "other-view"])
@pytest.mark.parametrize("numbered", [False, True])
def test_views_are_far_within_or_across(negatives: str, numbered: bool) -> None:
    item, view = torch.arange(9) % 3, torch.arange(9) // 3
    order = torch.arange(9)
    relation = Views(3, negatives=negatives)
    if numbered:
        order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
        relation = Views(3, ids=item[order] + 5, views=view[order], negatives=negatives)
    item, view = item[order], view[order]
    positive, negative = _tiles(_bound(relation, 9))
    for i in range(9):
        for j in range(9):
            assert positive[i, j] == (i != j and item[i] == item[j])
            allowed = {"all": True, "same-view": view[i] == view[j], "other-view": view[i] != view[j]}[negatives]
            assert negative[i, j] == (item[i] != item[j] and allowed)


def test_views_far_from_other_views_are_clip_on_both_sides() -> None:
    a, b = embeddings(0, 5, 3), embeddings(1, 5, 3)
    objective = InfoNCE(temperature=0.3)
    for memory in ("dense", "tiled"):
        across = evaluate(objective, torch.cat([a, b]), relation=Views(2, negatives="other-view"), memory=memory)
        torch.testing.assert_close(across, InfoNCE(temperature=0.3, two_sided=True)(a, b))


def test_views_keep_their_negatives_apart() -> None:
    relation = Views(2, ids=torch.tensor([0, 1, 0, 1]), views=torch.tensor([0, 0, 1, 1]))
    within = relation.far_from("same-view")
    assert (relation.negatives, within.negatives) == ("all", "same-view")
    assert _tiles(_bound(within, 4))[1].sum() == 4


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Views(2, negatives="none"), "'all', 'same-view' or 'other-view'"),
        (lambda: Views(2, views=torch.tensor([0, 1])), "no ids were given"),
        (lambda: Views(2, ids=torch.tensor([0, 0]), views=torch.tensor([0, -1])), "from 0 on"),
        (lambda: _bound(Views(2, ids=torch.tensor([0, 0]), negatives="same-view"), 2), "give views beside ids"),
        (lambda: _bound(Paired(query_within=torch.tensor([0, 1])), 2, 3), "query_within and key_within"),
        (
            lambda: _bound(Paired(query_within=torch.tensor([0, 1]), key_within=torch.tensor([0])), 2, 2),
            "1 within values for 2 keys",
        ),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_own_hard_negatives_alone() -> None:
    own, nobody = torch.arange(3), torch.full((3,), -1)
    relation = Paired(query_within=own, key_within=torch.cat([nobody, own]))
    positive, negative = _tiles(_bound(relation, 3, 6))
    eye, none = torch.eye(3).bool(), torch.zeros(3, 3).bool()
    assert torch.equal(positive, torch.cat([eye, none], 1))
    assert torch.equal(negative, torch.cat([none, eye], 1))


@pytest.mark.parametrize("directions", [DIRECTIONS, DIRECTIONS[:1], DIRECTIONS[:2], DIRECTIONS[:3]])
def test_directions(directions: tuple[str, ...]) -> None:
    """Three queries, their documents, and two hard negatives of each."""
    relation = Directions(3, 9, directions=directions)
    positive, negative = relation.bind(12, 12, self_contrast=True, device=torch.device("cpu")).tile(slice(0, 12))
    for i in range(12):
        for j in range(12):
            name = f"{'query' if i < 3 else 'doc'}_to_{'query' if j < 3 else 'doc'}"
            pair = {i, j} in [{k, k + 3} for k in range(3)] and name in directions
            assert positive[i, j] == pair
            own = i == j or (i >= 3 and j >= 3 and i % 3 == j % 3)
            assert negative[i, j] == (not pair and not own and name in directions), (i, j)
    bound = _bound(relation, 12)
    assert bound.row_ids is not None
    assert bound.row_ids.tolist() == [0, 1, 2, 0, 1, 2, -1, -1, -1, -1, -1, -1]
    assert not bound.has_given_ids
