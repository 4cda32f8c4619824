"""Momentum contrast as a procedure: what happens in a step, and in which order."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nearfar.errors import TrainingError, UsageError
from nearfar.negatives import Queue
from nearfar.objectives import InfoNCE, MoCo, MoCoDualHard, RowObjective
from nearfar.training.momentum import MomentumContrast, fill_at_random
from nearfar.training.steps import train_steps

SIZE = 5


def _encoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def _queue() -> Queue:
    return fill_at_random(Queue(SIZE, 3, dtype=torch.float64), generator=torch.Generator().manual_seed(9))


def _views(step: int) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)
    return drawn[0], drawn[1]


def _train(contrast: MomentumContrast, steps: int, **named: Any) -> list[float]:
    batches = [torch.tensor(step) for step in range(steps)]
    return train_steps(
        lambda batch: contrast(*_views(int(batch)), **named),
        [contrast],
        batches,
        optimizer="sgd",
        learning_rate=0.5,
        after_step=contrast.after_step,
    )


def _by_hand(steps: int, momentum: float, t: float, hardest: int) -> tuple[nn.Sequential, list[float], Tensor]:
    """The algorithm of MoCo, line by line, on the most similar entries of the queue."""
    encoder, follower, queue = _encoder(), copy.deepcopy(_encoder()), list(_queue().stored()[0])
    losses = []
    for step in range(steps):
        first, second = _views(step)
        with torch.no_grad():
            keys = normalize(follower(second))
        costs = []
        for query, key in zip(normalize(encoder(first)), keys, strict=True):
            far = torch.stack([query @ other for other in queue]).sort(descending=True).values[:hardest]
            scores = torch.cat([(query @ key)[None], far]) / t
            costs.append(scores.logsumexp(0) - scores[0])
        loss = torch.stack(costs).mean()
        losses.append(loss.item())
        encoder.zero_grad()
        loss.backward()
        with torch.no_grad():
            for mine, theirs in zip(encoder.parameters(), follower.parameters(), strict=True):
                mine -= 0.5 * mine.grad
                theirs.copy_(momentum * theirs + (1 - momentum) * mine)
        queue = [*queue, *keys][-SIZE:]
    return encoder, losses, torch.stack(queue)


@pytest.mark.parametrize(
    ("objective", "hardest"),
    [
        (MoCo(temperature=0.2), SIZE),
        (MoCoDualHard("query", temperature=0.2), SIZE),
        (MoCoDualHard("query", hardest=2, temperature=0.2), 2),
    ],
)
def test_a_run_is_the_algorithm_by_hand(objective: RowObjective, hardest: int) -> None:
    contrast = MomentumContrast(_encoder(), objective, _queue(), momentum=0.8)
    losses = _train(contrast, 4)
    encoder, expected, queue = _by_hand(4, 0.8, 0.2, hardest)
    assert losses == pytest.approx(expected, rel=1e-9)
    for mine, theirs in zip(contrast.encoder.parameters(), encoder.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    kept = contrast.queue.stored()[0]
    # the queue is a ring: the same entries, begun elsewhere
    torch.testing.assert_close(torch.roll(kept, -int(contrast.queue.pushed) % SIZE, 0), queue)


class _Seen(MoCo):
    """MoCo that writes down what it is called with."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        self.calls = [*getattr(self, "calls", []), (*inputs, named)]
        loss: Tensor = super().forward(*inputs, **named)
        return loss


def test_keys_are_pushed_after_their_loss_and_come_from_the_copy() -> None:
    objective = _Seen()
    contrast = MomentumContrast(_encoder(), objective, Queue(SIZE, 3, dtype=torch.float64), momentum=1.0)
    start = copy.deepcopy(contrast.encoder)
    assert _train(contrast, 1) == [0.0]  # nothing is far yet
    _train(contrast, 1)
    (_, key, first), (_, _, second) = objective.calls
    assert first["queue"].shape == (0, 3)
    torch.testing.assert_close(second["queue"], key)
    torch.testing.assert_close(key, normalize(start(_views(0)[1])))
    assert not key.requires_grad


def test_an_items_own_earlier_key_is_ignored_by_its_id() -> None:
    contrast = MomentumContrast(_encoder(), MoCo(temperature=0.2), _queue())
    ids = torch.tensor([3, 1, 4, 5])
    _train(contrast, 1, ids=ids)
    embeddings, numbers = contrast.queue.stored()
    assert sorted(numbers.tolist()) == [-1, 1, 3, 4, 5]
    first, second = _views(1)
    query, key = contrast.encoder(first), contrast.copy(second)
    costs = [MoCo(temperature=0.2)(query[i][None], key[i][None], queue=embeddings[numbers != ids[i]]) for i in range(4)]
    torch.testing.assert_close(contrast(first, second, ids=ids), torch.stack(costs).mean())
    apart = contrast(first, second).item()
    assert apart > float(torch.stack(costs).mean()) + 1e-3


def test_views_are_exchanged_where_the_objective_asks_for_it() -> None:
    symmetric = MomentumContrast(_encoder(), MoCoDualHard(hardest=2), _queue())
    plain = MomentumContrast(_encoder(), MoCoDualHard("query", hardest=2), _queue())
    first, second = _views(0)
    torch.testing.assert_close(symmetric(first, second), (plain(first, second) + plain(second, first)) / 2)
    for contrast in (symmetric, plain):
        contrast(first, second)
        contrast.after_step(1)
    torch.testing.assert_close(symmetric.queue.stored()[0], plain.queue.stored()[0])


def test_only_training_fills_the_queue() -> None:
    contrast = MomentumContrast(_encoder(), MoCo(), _queue())
    before = contrast.queue.stored()[0]
    contrast.eval()
    contrast(*_views(0))
    with pytest.raises(TrainingError, match="after a loss in training mode"):
        contrast.after_step(1)
    contrast.train()
    contrast(*_views(0))
    contrast.after_step(1)
    assert not torch.equal(contrast.queue.stored()[0], before)
    with pytest.raises(TrainingError, match="after a loss"):
        contrast.after_step(2)


def test_an_evaluation_between_loss_and_step_changes_nothing() -> None:
    undisturbed, looked_at = (MomentumContrast(_encoder(), MoCo(), _queue()) for _ in range(2))
    for contrast in (undisturbed, looked_at):
        contrast(*_views(0))
    looked_at.eval()
    looked_at(*_views(1))
    looked_at.train()
    for contrast in (undisturbed, looked_at):
        contrast.after_step(1)
    torch.testing.assert_close(looked_at.queue.stored(), undisturbed.queue.stored(), rtol=0, atol=0)
    looked_at(*_views(0))
    looked_at(*_views(1))  # of two losses before a step the last counts
    undisturbed(*_views(1))
    for contrast in (undisturbed, looked_at):
        contrast.after_step(2)
    torch.testing.assert_close(looked_at.queue.stored(), undisturbed.queue.stored(), rtol=0, atol=0)


def test_state_goes_on_where_it_was_saved() -> None:
    one = MomentumContrast(_encoder(), MoCo(), _queue())
    _train(one, 3)
    other = MomentumContrast(_encoder(), MoCo(), _queue())
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(_train(other, 2), _train(one, 2))
    assert not any(parameter.requires_grad for parameter in one.copy.parameters())


def test_a_queue_filled_at_random() -> None:
    queue = _queue()
    assert len(queue) == SIZE
    embeddings, numbers = queue.stored()
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(SIZE, dtype=torch.float64))
    assert set(numbers.tolist()) == {-1}


def test_an_objective_needs_a_queue() -> None:
    with pytest.raises(UsageError, match="info-nce takes no queue"):
        MomentumContrast(_encoder(), InfoNCE(), _queue())
