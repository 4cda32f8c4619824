"""How keys are made, and how far a gradient gets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nearfar.contrast import evaluate, normalize
from nearfar.errors import TrainingError, UsageError
from nearfar.objectives import InfoNCE
from nearfar.training.keys import REGIMES, Banked, EndToEnd, OnlineOffline, PreTrained, regime
from nearfar.views.pairs import Multisensory, Pairs, looks

ITEMS = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _parts() -> tuple[nn.Linear, nn.Linear]:
    return nn.Linear(6, 5), nn.Linear(5, 3)


def _pairs(*index: int) -> Pairs:
    return Multisensory(looks(ITEMS), sensors=2, events=10)(torch.tensor(index))


def _grad(keys: Tensor, module: nn.Module) -> float:
    if not keys.requires_grad:
        return 0.0
    found = torch.autograd.grad(keys.square().sum(), list(module.parameters()), allow_unused=True, retain_graph=True)
    return sum(float(value.abs().sum()) for value in found if value is not None)


def test_end_to_end_trains_queries_and_keys() -> None:
    encoder, head = _parts()
    pairs = _pairs(3, 4, 15)
    contrast = EndToEnd(encoder, head)(pairs)
    torch.testing.assert_close(contrast.query, head(encoder(ITEMS[[3, 4, 15]])))
    torch.testing.assert_close(contrast.keys, head(encoder(ITEMS[[13, 14, 5]])))
    assert _grad(contrast.keys, encoder) > 0
    assert InfoNCE()(*contrast[:2], relation=contrast.relation) > 0


def test_end_to_end_with_an_encoder_for_each_side() -> None:
    (encoder, head), (other, other_head) = _parts(), _parts()
    contrast = EndToEnd(encoder, head, key_encoder=other, key_head=other_head)(_pairs(3, 4))
    torch.testing.assert_close(contrast.keys, other_head(other(ITEMS[[13, 14]])))
    assert _grad(contrast.keys, other) > 0
    assert _grad(contrast.keys, encoder) == 0


def test_online_offline_keys_follow_slowly_and_are_remembered() -> None:
    encoder, head = _parts()
    keys = OnlineOffline(encoder, head, dimension=3, momentum=0.5, size=4)
    first = keys(_pairs(0, 1, 2))
    assert len(first.keys) == 3
    assert not first.keys.requires_grad
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.add_(1.0)
    keys.after_step(1)
    second = keys(_pairs(3, 11))
    torch.testing.assert_close(second.keys[2:], first.keys)
    stands = nn.functional.linear(encoder(ITEMS[[13, 1]]), before + 0.5, head.bias)
    torch.testing.assert_close(second.keys[:2], stands)
    # an earlier key of the query's own event (11 and 1 are one) is neither near nor far
    positive, negative = second.relation.bind(2, 5, self_contrast=False, device=torch.device("cpu")).tile(slice(0, 2))
    assert positive.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert negative.tolist() == [[0, 1, 1, 1, 1], [1, 0, 1, 0, 1]]


def test_a_batch_is_remembered_once() -> None:
    keys = OnlineOffline(*_parts(), dimension=3, size=8)
    keys(_pairs(0, 1))
    keys.after_step(1)
    with pytest.raises(TrainingError, match="after a loss"):
        keys.after_step(2)
    keys.eval()(_pairs(2, 3))
    assert len(keys.offline.queue) == 2


def test_an_evaluation_between_loss_and_step_leaves_the_bank_its_update() -> None:
    encoder, head = _parts()
    keys = Banked(encoder, head, dimension=3, items=20, momentum=0.0)
    before = keys.bank.rows.clone()
    keys(_pairs(3, 4))
    keys.eval()
    keys(_pairs(7, 8))
    keys.train()
    keys.after_step(1)
    changed = (keys.bank.rows != before).any(1).nonzero()[:, 0]
    assert changed.tolist() == [3, 4]


def test_keys_of_a_bank_are_past_embeddings_of_the_partners() -> None:
    encoder, head = _parts()
    keys = Banked(encoder, head, dimension=3, items=20, labels=torch.arange(20) % 10, momentum=0.0)
    bank = keys.bank.rows.clone()
    contrast = keys(_pairs(0, 12))
    torch.testing.assert_close(contrast.keys[:2], bank[[10, 2]])
    assert len(contrast.keys) == 22
    assert not contrast.keys.requires_grad
    bound = contrast.relation.bind(2, 22, self_contrast=False, device=torch.device("cpu"))
    positive, negative = bound.tile(slice(0, 2))
    assert positive.sum(1).tolist() == [1, 1]
    assert negative.sum(1).tolist() == [19, 19]  # the other positive, and all but the two vectors of the own event
    keys.after_step(1)
    torch.testing.assert_close(keys.bank.rows[[0, 12]], normalize(contrast.query.detach()))
    rest = [number for number in range(20) if number not in (0, 12)]
    assert torch.equal(keys.bank.rows[rest], bank[rest])


def test_pre_trained_keys_stay_while_the_head_learns_from_them() -> None:
    encoder, head = _parts()
    keys = PreTrained(encoder, head).train()
    assert keys.frozen is not None
    assert not keys.frozen.training
    given = encoder(ITEMS[[13, 14]]).detach()
    with torch.no_grad():
        encoder.weight.add_(1.0)
    contrast = keys(_pairs(3, 4))
    torch.testing.assert_close(contrast.keys, head(given))
    assert _grad(contrast.keys, encoder) == 0
    assert _grad(contrast.keys, head) > 0
    assert not any(parameter.requires_grad for parameter in keys.frozen.parameters())


def test_pre_trained_keys_may_be_trained() -> None:
    encoder, head = _parts()
    contrast = PreTrained(encoder, head, train_keys=True)(_pairs(3, 4))
    assert _grad(contrast.keys, encoder) > 0


def test_without_gradient_into_keys_the_loss_is_the_same_and_the_gradient_is_the_query_s() -> None:
    encoder, head = _parts()
    pairs = _pairs(0, 1, 2, 3)
    end, off = EndToEnd(encoder, head)(pairs), OnlineOffline(encoder, head, dimension=3)(pairs)
    losses = [evaluate(InfoNCE(), c.query, c.keys, relation=c.relation) for c in (end, off)]
    torch.testing.assert_close(*losses)
    of_queries = evaluate(InfoNCE(), end.query, end.keys.detach(), relation=end.relation)
    wanted, found, whole = (
        torch.autograd.grad(loss, head.weight, retain_graph=True)[0] for loss in (of_queries, losses[1], losses[0])
    )
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, whole)


def test_the_regimes_are_found_by_name() -> None:
    assert list(REGIMES) == ["end-to-end", "online-offline", "memory-bank", "pre-trained"]
    assert regime("memory-bank") is Banked
    with pytest.raises(UsageError, match="no key regime") as error:
        regime("moco")
    assert "online-offline" in str(error.value.hint)
