"""Neighbours in a graph: edges, tables of nearest neighbours, other views of an item."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.contrast import Labels, Neighbours
from nearfar.objectives import InfoNCE, SupCon

CPU = torch.device("cpu")


def _by_loops(
    edges: set[tuple[int, int]], ids: list[int], keys: list[int], own: str, *, self_contrast: bool
) -> tuple[list[list[bool]], list[list[bool]]]:
    positive, negative = ([[False] * len(keys) for _ in ids] for _ in range(2))
    for i, a in enumerate(ids):
        for j, b in enumerate(keys):
            if self_contrast and i == j:
                continue
            near = a != b and (a, b) in edges and min(a, b) >= 0
            ignored = False
            if a == b and a >= 0:
                near, ignored = own == "near", own == "ignored"
            positive[i][j], negative[i][j] = near, not near and not ignored
    return positive, negative


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_tiles_are_what_the_edges_say(data: Any) -> None:
    ids = data.draw(st.lists(st.integers(-1, 5), min_size=1, max_size=6))
    self_contrast = data.draw(st.booleans())
    keys = ids if self_contrast else data.draw(st.lists(st.integers(-1, 5), min_size=1, max_size=7))
    edges = data.draw(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), max_size=12))
    own = data.draw(st.sampled_from(["near", "ignored", "far"]))
    symmetric = data.draw(st.booleans())
    relation = Neighbours(
        torch.tensor(edges, dtype=torch.long).reshape(-1, 2), torch.tensor(ids),
        None if self_contrast else torch.tensor(keys), symmetric=symmetric, own=own,
    ).bind(len(ids), len(keys), self_contrast=self_contrast, device=CPU)  # fmt: skip
    known = set(edges) | ({(b, a) for a, b in edges} if symmetric else set())
    expected = _by_loops(known, ids, keys, own, self_contrast=self_contrast)
    found = relation.tile(slice(0, len(ids)))
    assert [part.tolist() for part in found] == list(expected)
    rows = torch.tensor(data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=4)))
    for part, whole in zip(relation.tile(rows), found, strict=True):
        assert torch.equal(part, whole[rows])
    for part, whole in zip(relation.transpose().tile(slice(0, len(keys))), found, strict=True):
        assert torch.equal(part, whole.T)
    few = relation.sparse(slice(0, len(ids)))
    listed = [*zip(few.near_rows.tolist(), few.near_columns.tolist(), strict=True)]
    assert len(listed) == len(set(listed)) == int(found[0].sum())
    left = [*zip(few.ignored_rows.tolist(), few.ignored_columns.tolist(), strict=True)]
    assert len(left) == len(set(left)) == int((~found[0] & ~found[1]).sum())


def test_a_table_of_nearest_neighbours() -> None:
    table = torch.tensor([[1, 2], [0, -1], [3, 0], [2, 1]])
    relation = Neighbours.nearest(table).bind(4, 4, self_contrast=True, device=CPU)
    positive, negative = relation.tile(slice(0, 4))
    assert positive.int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0]]
    assert torch.equal(negative, ~positive & ~torch.eye(4, dtype=torch.bool))
    names = torch.where(table < 0, table, 10 * table)
    named = Neighbours.nearest(names, torch.tensor([30, 0, 20]), of=10 * torch.arange(4))
    found = named.bind(3, 3, self_contrast=True, device=CPU).tile(slice(0, 3))[0]
    assert found.int().tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


def test_cliques_are_labels() -> None:
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    edges = (labels[:, None] == labels[None, :]).nonzero()
    items = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for memory in ("dense", "tiled"):
        by_graph = SupCon()(items, relation=Neighbours(edges, torch.arange(6)), memory=memory)
        torch.testing.assert_close(by_graph, SupCon()(items, relation=Labels(labels), memory=memory))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Neighbours(torch.zeros(4, 3, dtype=torch.long)), r"\[e, 2\] integers, got \(4, 3\)"),
        (lambda: Neighbours(torch.zeros(4, 2)), "float32"),
        (lambda: Neighbours(torch.zeros(4, 2).long(), own="away"), "own must be"),
        (lambda: Neighbours(torch.zeros(4, 2).long(), key_ids=torch.arange(2)), "without ids"),
        (lambda: Neighbours.nearest(torch.zeros(4).long()), r"\[r, k\] integers"),
        (lambda: Neighbours.nearest(torch.zeros(4, 2).long(), of=torch.arange(3)), "3 items for a table of 4 rows"),
        (lambda: Neighbours(torch.zeros(4, 2).long(), torch.arange(4)), "describes 4 queries"),
    ],
)
def test_what_does_not_fit(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        InfoNCE()(torch.randn(3, 2, generator=torch.Generator().manual_seed(1)), relation=make())
