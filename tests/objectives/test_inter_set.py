"""The inter-set loss against plain loops over the pairs, its variants, and batches that have nothing to tell apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar import objectives
from nearfar.contrast import Labels, Paired
from nearfar.contrast.engine import evaluate
from nearfar.errors import UsageError
from nearfar.objectives import InfoNCE, SetCSE
from support.loops import cosine
from support.scenarios import embeddings

LABELS = [0, 1, 0, 2, 1, 1, 0, 5, -1]


def _leaf(seed: int, n: int, d: int = 4) -> Tensor:
    return embeddings(seed, n, d).requires_grad_()


def by_loops(z: Tensor, labels: list[int], temperature: float, *, per_pair: bool = False) -> list[Tensor]:
    costs = []
    for name in sorted({label for label in labels if label >= 0}):
        powers = [
            (cosine(z[m], z[n]) / temperature).exp()
            for m in range(len(z))
            for n in range(len(z))
            if labels[m] == name and labels[n] != name
        ]
        total = sum(powers)
        costs.append((total / len(powers) if per_pair else total).log())
    return costs


def _same(found: Tensor, expected: Tensor, z: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    one, other = (torch.autograd.grad(loss.sum(), z, retain_graph=True)[0] for loss in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tile_rows", [None, 1, 4])
@pytest.mark.parametrize("per_pair", [False, True])
def test_loops(per_pair: bool, tile_rows: int | None) -> None:
    z = _leaf(0, len(LABELS))
    expected = torch.stack(by_loops(z, LABELS, 0.3, per_pair=per_pair))
    reduced = {"sum": expected.sum(), "mean": expected.mean(), "none": expected}
    for reduction, value in reduced.items():
        objective = SetCSE(per_pair=per_pair, temperature=0.3, reduction=reduction)
        memory: Any = "dense" if tile_rows is None else "tiled"
        found = evaluate(objective, z, relation=Labels(torch.tensor(LABELS)), memory=memory, tile_rows=tile_rows)
        _same(found, value, z)


def test_each_pair_across_counts_once_for_either_side() -> None:
    z = _leaf(1, 5)
    one, other = SetCSE(temperature=0.2, reduction="none")(z, relation=Labels(torch.tensor([0, 0, 1, 1, 1])))
    assert one.item() == pytest.approx(other.item(), abs=1e-12)  # two sets: the same pairs
    expected = torch.logsumexp(torch.stack([cosine(z[m], z[n]) / 0.2 for m in (0, 1) for n in (2, 3, 4)]), 0)
    assert one.item() == pytest.approx(expected.item(), abs=1e-12)


def test_only_members_of_different_sets_are_moved() -> None:
    """Two sets on one axis each: what pushes is the pair across, and nothing draws members together."""
    z = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3]].requires_grad_()
    SetCSE()(z, relation=Labels(torch.tensor([0, 0, 1, 1]))).backward()
    assert (z.grad[:2, :2] == 0).all()
    assert (z.grad[2:, 2:] == 0).all()
    assert (z.grad[:2, 2:] > 0).all()  # a step against it makes the cosine across smaller


def test_the_size_of_sets_shifts_the_value_unless_per_pair() -> None:
    z, labels = embeddings(2, 6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    twice = Labels(labels.repeat(2))
    assert SetCSE()(torch.cat([z, z]), relation=twice) > SetCSE()(z, relation=Labels(labels)) + 4
    same = [SetCSE(per_pair=True)(rows, relation=of) for rows, of in ((z, Labels(labels)), (torch.cat([z, z]), twice))]
    assert same[0].item() == pytest.approx(same[1].item(), abs=1e-12)


def test_infonce_is_the_softmax_with_the_other_sets_as_negatives() -> None:
    z, labels = _leaf(3, 7), torch.tensor([0, 1, 0, 2, 1, 1, 0])
    costs = []
    for m in range(7):
        far = sum((cosine(z[m], z[n]) / 0.3).exp() for n in range(7) if labels[n] != labels[m])
        fellows = [(cosine(z[m], z[p]) / 0.3).exp() for p in range(7) if p != m and labels[p] == labels[m]]
        if fellows:
            costs.append(-sum((near / (near + far)).log() for near in fellows) / len(fellows))
    found = SetCSE("infonce", temperature=0.3, reduction="mean")(z, relation=Labels(labels))
    _same(found, sum(costs) / len(costs), z)
    assert len(costs) == 6
    other = InfoNCE(temperature=0.3, own_denominator=True)(z, relation=Labels(labels))
    _same(found, other, z)


def test_infonce_with_a_second_view() -> None:
    z, sets = _leaf(4, 8), torch.tensor([0, 0, 1, 2])
    item, where = torch.arange(4).repeat(2), sets.repeat(2)
    costs = []
    for m in range(8):
        far = sum((cosine(z[m], z[n]) / 0.3).exp() for n in range(8) if where[n] != where[m])
        near = (cosine(z[m], z[(m + 4) % 8]) / 0.3).exp()
        costs.append(-(near / (near + far)).log())
    relation = Paired(item, query_exclude=where)
    _same(SetCSE("infonce", temperature=0.3)(z, relation=relation), sum(costs), z)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("name", ["setcse", "setcse-infonce"])
def test_a_single_set_costs_nothing_and_says_so(name: str, memory: Any) -> None:
    z = _leaf(5, 4)
    with pytest.warns(UserWarning, match="it teaches nothing"):
        loss = objectives.get(name)(z, relation=Labels(torch.zeros(4, dtype=torch.long)), memory=memory)
    assert loss.item() == 0
    loss.backward()
    assert (z.grad == 0).all()


def test_rows_in_no_set_alone_cost_nothing() -> None:
    z = _leaf(6, 3)
    loss = SetCSE()(z, relation=Labels(torch.tensor([-1, -1, -1])))
    assert loss.item() == 0
    loss.backward()
    assert (z.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_equal_rows_and_zeros_are_finite(dtype: torch.dtype) -> None:
    relation = Labels(torch.tensor([0, 0, 1, 1]))
    for rows in (torch.ones(4, 3), torch.zeros(4, 3), 1e4 * torch.eye(4, 3), embeddings(7, 4, 3)):
        z = rows.to(dtype).requires_grad_()
        for name in ("setcse", "setcse-infonce"):
            loss = objectives.get(name)(z, relation=relation)
            assert loss.dtype == torch.float32
            assert torch.isfinite(loss)
            (gradient,) = torch.autograd.grad(loss, z)
            assert torch.isfinite(gradient).all()


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="variant must be"):
        SetCSE("pull")
    with pytest.raises(UsageError, match="per_pair is for"):
        SetCSE("infonce", per_pair=True)
    from nearfar.contrast import Explicit

    with pytest.raises(ValueError, match="relation=Labels"):
        SetCSE()(embeddings(8, 2, 3), relation=Explicit(torch.eye(2), 1 - torch.eye(2)))
