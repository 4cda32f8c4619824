"""Mixed items with soft targets, and negatives made of hard ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Paired, evaluate
from nearfar.errors import UsageError
from nearfar.negatives import mix_hard_negatives, mix_items
from nearfar.objectives import InfoNCE


def _embeddings(seed: int, n: int, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_mixed_items_have_soft_targets(memory: str) -> None:
    """i-Mix: w CE(x', y_i) + (1 - w) CE(x', y_r(i))."""
    items, keys = _embeddings(0, 8).requires_grad_(), _embeddings(1, 8)
    mixed, relation = mix_items(items, alpha=1.0, generator=torch.Generator().manual_seed(3))
    bound = relation.bind(8, 8, self_contrast=False, device=torch.device("cpu"))
    weight, _ = bound.tile(slice(None))
    torch.testing.assert_close(weight.sum(1), torch.ones(8, dtype=weight.dtype))
    assert ((weight > 0).sum(1) <= 2).all()
    assert (weight > 0).sum() > 10
    torch.testing.assert_close(mixed, weight @ items)  # an item is mixed as its target is
    loss = evaluate(InfoNCE(temperature=0.5), mixed, keys, relation=relation, memory=memory)
    unit, far = (torch.nn.functional.normalize(value, dim=1) for value in (mixed, keys))
    expected = torch.nn.functional.cross_entropy(unit @ far.T / 0.5, weight)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    one, other = (torch.autograd.grad(value, items, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_small_alpha_hardly_mixes() -> None:
    items = _embeddings(0, 400)
    generator = torch.Generator().manual_seed(0)
    _, few = mix_items(items, alpha=0.05, generator=generator)
    _, many = mix_items(items, alpha=5.0, generator=generator)
    share = [
        relation.bind(400, 400, self_contrast=False, device=torch.device("cpu")).tile(slice(None))[0].amax(1).mean()
        for relation in (few, many)
    ]
    assert share[0] > 0.9 > 0.75 > share[1]


def test_more_than_two_axes_are_mixed_by_item() -> None:
    images = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    mixed, relation = mix_items(images, generator=torch.Generator().manual_seed(1))
    weight, _ = relation.bind(4, 4, self_contrast=False, device=torch.device("cpu")).tile(slice(None))
    torch.testing.assert_close(mixed, torch.einsum("ij,jkl->ikl", weight, images))


def test_alpha_must_be_positive() -> None:
    with pytest.raises(UsageError, match="alpha must be > 0"):
        mix_items(torch.zeros(2, 2), alpha=0)


def test_made_negatives_lie_between_the_hardest() -> None:
    query, far = _embeddings(0, 5), _embeddings(1, 40)
    made, owner = mix_hard_negatives(
        query, far, hardest=4, count=6, with_query=2, generator=torch.Generator().manual_seed(0)
    )
    assert made.shape == (5 * 8, 6)
    assert owner.tolist() == [i for i in range(5) for _ in range(8)]
    torch.testing.assert_close(made.norm(dim=1), torch.ones(40, dtype=torch.float64))
    unit = torch.nn.functional.normalize(query, dim=1)
    hard = torch.nn.functional.normalize(far, dim=1)
    for i in range(5):
        similarity = hard @ unit[i]
        basis = hard[similarity.topk(4).indices]
        mine = made[owner == i]
        # in the cone of the hard ones (and of the query for the last two): non-negative weights reproduce them
        weights = torch.linalg.lstsq(basis.T, mine[:6].T).solution
        torch.testing.assert_close(basis.T @ weights, mine[:6].T, rtol=1e-8, atol=1e-8)
        assert (weights > -1e-9).all()
        assert (mine[:6] @ unit[i] >= similarity.topk(4).values[-1] - 1e-9).all()
        spanned = torch.cat([basis, unit[i : i + 1]])
        weights = torch.linalg.lstsq(spanned.T, mine[6:].T).solution
        torch.testing.assert_close(spanned.T @ weights, mine[6:].T, rtol=1e-8, atol=1e-8)
        assert (weights[-1] > 0).all()


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_made_negatives_count_for_their_query_alone(memory: str) -> None:
    query, key = _embeddings(0, 4).requires_grad_(), _embeddings(1, 4)
    made = mix_hard_negatives(query, key, hardest=2, count=3, generator=torch.Generator().manual_seed(0))
    relation = made.for_owners_alone(Paired(), keys=4)
    loss = evaluate(
        InfoNCE(temperature=0.5), query, torch.cat([key, made.negatives]), relation=relation, memory=memory, tile_rows=3
    )
    unit, near = (torch.nn.functional.normalize(value, dim=1) for value in (query, key))
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(4):
        candidates = torch.cat([near, made.negatives[made.owner == i]])
        expected = expected - torch.log_softmax(candidates @ unit[i] / 0.5, 0)[i] / 4
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)


def test_fewer_negatives_than_asked_for() -> None:
    made = mix_hard_negatives(_embeddings(0, 3), _embeddings(1, 2), hardest=100, count=4)
    assert made.negatives.shape == (12, 6)
    assert torch.isfinite(made.negatives).all()
    with pytest.raises(UsageError, match="hardest"):
        mix_hard_negatives(_embeddings(0, 3), _embeddings(1, 2), hardest=0)
