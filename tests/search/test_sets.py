"""Set algebra over similarities: the formula by loops, and what the operations promise."""

from __future__ import annotations

import pytest
import torch

from nearfar.errors import UsageError
from nearfar.search.sets import difference, direction, intersection, order, series_scores, set_similarity
from support.loops import cosine
from support.scenarios import embeddings

ITEMS, B1, B2, C1, C2 = (embeddings(seed, n, 5) for seed, n in enumerate((30, 4, 7, 3, 2)))


def test_similarity_is_the_mean_cosine() -> None:
    expected = torch.stack([sum(cosine(x, s) for s in B1) / len(B1) for x in ITEMS])
    torch.testing.assert_close(set_similarity(ITEMS, B1), expected, rtol=1e-12, atol=1e-12)
    assert set_similarity(ITEMS, B1[:1]).tolist() == pytest.approx([cosine(x, B1[0]).item() for x in ITEMS])
    # neither a maximum nor the cosine with the mean
    assert set_similarity(ITEMS, B1).abs().max() < 1
    to_mean = torch.cosine_similarity(ITEMS, torch.nn.functional.normalize(B1, dim=1).mean(0)[None])
    assert not torch.allclose(to_mean, expected)
    assert order(to_mean).tolist() == order(expected).tolist()  # for one set the same order


def test_series_by_loops() -> None:
    expected = []
    for x in ITEMS:
        near = [sum(cosine(x, s) for s in members) / len(members) for members in (B1, B2)]
        far = [sum(cosine(x, s) for s in members) / len(members) for members in (C1, C2)]
        expected.append(sum(near) - sum(far))
    found = series_scores(ITEMS, [B1, B2], [C1, C2])
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_intersection_and_difference_are_series_of_one() -> None:
    assert intersection(ITEMS, B1).tolist() == order(series_scores(ITEMS, [B1])).tolist()
    assert difference(ITEMS, C1).tolist() == order(series_scores(ITEMS, [], [C1])).tolist()
    assert intersection(ITEMS, B1).flip(0).tolist() == difference(ITEMS, B1).tolist()
    assert sorted(difference(ITEMS, C1).tolist()) == list(range(30))  # nothing is left out


def test_the_order_of_sets_does_not_matter_but_which_side_does() -> None:
    torch.testing.assert_close(series_scores(ITEMS, [B1, B2], [C1, C2]), series_scores(ITEMS, [B2, B1], [C2, C1]))
    assert len(intersection(ITEMS, B1)) != len(intersection(B1, ITEMS))  # A gives the elements, B the criterion
    torch.testing.assert_close(series_scores(ITEMS, [B1], [C1]), -series_scores(ITEMS, [C1], [B1]))


def test_equal_items_keep_their_order() -> None:
    items = ITEMS[[0, 1, 2]].repeat(50, 1)
    found = intersection(items, B1).view(3, 50)
    assert (found[:, 1:] > found[:, :-1]).all()
    assert torch.equal(found % 3, found[:, :1].expand(3, 50) % 3)


def test_a_shared_sentence_does_not_cancel_unless_the_sets_are_equal() -> None:
    shared = torch.cat([B1[:1], C1])
    assert series_scores(ITEMS, [B1], [shared]).abs().max() > 1e-3
    assert series_scores(ITEMS, [B1], [B1.flip(0)]).abs().max() < 1e-12


def test_scale_zero_rows_and_half_precision() -> None:
    torch.testing.assert_close(set_similarity(3 * ITEMS, 0.1 * B1), set_similarity(ITEMS, B1))
    with_zero = torch.cat([B1, torch.zeros(1, 5)])
    torch.testing.assert_close(set_similarity(ITEMS, with_zero), set_similarity(ITEMS, B1) * 4 / 5)
    assert set_similarity(torch.zeros(1, 5), B1).item() == 0
    half = set_similarity(ITEMS.half(), B1.half())
    torch.testing.assert_close(half, set_similarity(ITEMS, B1), rtol=0, atol=2e-3)


def test_no_sets_and_no_members() -> None:
    with pytest.raises(UsageError, match="no set to compare"):
        series_scores(ITEMS, [])
    with pytest.raises(UsageError, match="at least one member"):
        direction(torch.zeros(0, 5))
