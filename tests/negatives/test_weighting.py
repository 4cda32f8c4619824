"""Which negatives count, and how much."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nearfar.contrast import Labels, Paired, Relation
from nearfar.errors import UsageError
from nearfar.negatives import by_cluster, by_complement, gaussian, own_negatives
from nearfar.objectives import DCLR, InfoNCE


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _weights(relation: Relation, n: int, m: int) -> tuple[list[list[float]], list[list[float]]]:
    bound = relation.bind(n, m, self_contrast=False, device=torch.device("cpu"))
    positive, negative = bound.tile(slice(0, n))
    part = bound.tile(torch.tensor([n - 1]), torch.tensor([0, m - 1]))
    for whole, found in zip((positive, negative), part, strict=True):
        assert torch.equal(whole[n - 1, [0, m - 1]], found[0])
    return positive.double().tolist(), negative.double().tolist()


def test_a_complementary_model_takes_out_what_it_finds_alike() -> None:
    f1, f2 = _drawn(0, 4, 2), _drawn(1, 4, 2)
    f2[2] = 3 * f1[0]
    relation = Paired().reweight(by_complement(f1, f2, threshold=0.7, keys=6))
    positive, negative = _weights(relation, 4, 6)
    assert positive == torch.eye(4, 6).tolist()
    for i in range(4):
        for j in range(6):
            alike = j < 4 and float(cosine_similarity(f1[i], f2[j], dim=0)) >= 0.7
            assert negative[i][j] == float(i != j and not alike)
    assert negative[0][2] == 0
    assert _weights(Paired().reweight(by_complement(f1, f2, threshold=1.1)), 4, 4)[1] == (1 - torch.eye(4)).tolist()
    # a negative threshold takes out everything that the model knows, but no noise
    assert _weights(Paired().reweight(by_complement(f1, f2, threshold=-2.0, keys=5)), 4, 5)[1] == [[0, 0, 0, 0, 1]] * 4
    with pytest.raises(ValueError, match="do not compare"):
        by_complement(f1, f2[:, :1])
    with pytest.raises(ValueError, match="has 3"):
        by_complement(f1, f2, keys=3)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_dclr_with_nothing_alike_is_simcse(memory: Any) -> None:
    z1, z2 = _drawn(2, 5, 3).requires_grad_(), _drawn(3, 5, 3).requires_grad_()
    expected = InfoNCE(temperature=0.05)(z1, z2)
    relation = Paired().reweight(by_complement(z1, z2, threshold=1.1))
    for objective in (DCLR(), DCLR()):
        loss = objective(z1, torch.cat([z2, gaussian(z2, 0)]), relation=relation, memory=memory)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss = DCLR()(z1, z2, relation=relation, memory=memory)
    gradients = (torch.autograd.grad(each, [z1, z2]) for each in (loss, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_clusters() -> None:
    queries, keys = torch.tensor([0, 1, -1]), torch.tensor([1, 1, 0, -1, 0])
    same = [[float(q == k and q >= 0) for k in keys] for q in queries]
    base = torch.eye(3, 5)
    for inside, outside in ((0.0, 1.0), (1.0, 0.0), (0.5, 2.0), (0.0, 0.0)):
        relation = Paired().reweight(by_cluster(queries, keys, same=inside, other=outside))
        positive, negative = _weights(relation, 3, 5)
        assert positive == base.tolist()
        for i in range(3):
            for j in range(5):
                assert negative[i][j] == (0 if i == j else inside if same[i][j] else outside)
    kept = Labels(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1, 0, 1])).reweight(by_cluster(queries, keys))
    assert kept.bind(3, 5, self_contrast=False, device=torch.device("cpu")).tile(slice(0, 3))[1].dtype == torch.bool
    with pytest.raises(ValueError, match="integers"):
        by_cluster(queries.float(), keys)
    with pytest.raises(UsageError, match=">= 0"):
        by_cluster(queries, keys, same=-1.0)


def test_own_hard_negatives() -> None:
    positive, negative = _weights(Paired().reweight(own_negatives(2, 6, logit=0.7)), 2, 6)
    own = math.exp(0.7)
    assert positive == torch.eye(2, 6).tolist()
    assert negative == [[0, 1, own, 1, own, 1], [1, 0, 1, own, 1, own]]
    _, alone = _weights(Paired().reweight(own_negatives(2, 6, others=0, in_batch=0)), 2, 6)
    assert alone == [[0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 1]]
    _, mixed = _weights(Paired().reweight(own_negatives(2, 4, weight=3.0, others=0.5, in_batch=2.0)), 2, 4)
    assert mixed == [[0, 2, 3, 0.5], [2, 0, 0.5, 3]]
    scores = torch.tensor([[1.0, 0.2, 0.5, 0.9], [0.3, 1.0, 0.8, -0.1]], dtype=torch.float64)
    relation = Paired().reweight(own_negatives(2, 4, logit=0.7))
    loss = InfoNCE(temperature=0.5)(scores=scores, relation=relation)
    shifted = scores / 0.5 + torch.tensor([[0, 0, 0.7, 0], [0, 0, 0, 0.7]], dtype=torch.float64)
    expected = (shifted.logsumexp(1) - shifted[[0, 1], [0, 1]]).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for keys in (1, 5):
        with pytest.raises(ValueError, match="are not a positive and hard negatives"):
            own_negatives(2, keys)
    with pytest.raises(UsageError, match="finite numbers"):
        own_negatives(2, 4, others=math.inf)
