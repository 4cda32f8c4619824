"""The memory bank: one past embedding of every item."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from nearfar.errors import UsageError
from nearfar.negatives import MemoryBank
from nearfar.objectives import InfoNCE


def test_an_item_moves_when_it_is_seen() -> None:
    bank = MemoryBank(5, 3, momentum=0.75)
    before = bank.rows.clone()
    seen = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)) * 7
    bank.update(torch.tensor([4, 1]), seen.requires_grad_())
    for place, item in enumerate((4, 1)):
        moved = normalize(0.75 * before[item] + 0.25 * seen[place] / seen[place].norm(), dim=0)
        torch.testing.assert_close(bank.rows[item], moved.detach())
    assert torch.equal(bank.rows[[0, 2, 3]], before[[0, 2, 3]])
    assert not bank.rows.requires_grad


def test_without_momentum_it_keeps_the_last_embedding() -> None:
    bank = MemoryBank(3, 2, momentum=0)
    bank.update(torch.tensor([1]), torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(bank.rows[1], torch.tensor([0.6, 0.8]))


def test_scores_are_of_the_own_row_and_of_rows_drawn() -> None:
    bank, z = MemoryBank(6, 4), torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ids = torch.tensor([5, 0, 2])
    scores, relation = bank.scores(z, ids, 200, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scores[:, 0], (normalize(z, dim=1) * bank.rows[ids]).sum(1))
    everything = normalize(z, dim=1) @ bank.rows.T
    apart = (scores[:, 1:, None] - everything[:, None]).detach().abs()
    assert float(apart.min(2).values.max()) < 1e-6
    assert len(apart.argmin(2).unique()) == 6
    loss = InfoNCE(temperature=0.5)(scores=scores, relation=relation)
    expected = -torch.log_softmax(scores / 0.5, 1)[:, 0].mean()
    torch.testing.assert_close(loss, expected)
    bank.update(ids, z)  # before the gradient is taken
    loss.backward()
    assert z.grad is not None
    assert bool((z.grad.abs().sum(1) > 0).all())


def test_the_same_seed_gives_the_same_bank_and_it_is_saved() -> None:
    one, other = MemoryBank(50, 8, seed=3), MemoryBank(50, 8, seed=4)
    assert torch.equal(one.rows, MemoryBank(50, 8, seed=3).rows)
    assert not torch.equal(one.rows, other.rows)
    assert float(one.rows.norm(dim=1).mean()) == pytest.approx(1, abs=0.1)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.rows, one.rows)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\[0, 1\)"):
        MemoryBank(3, 2, momentum=1.0)
    with pytest.raises(UsageError, match="at least 1"):
        MemoryBank(0, 2)
    with pytest.raises(ValueError, match="embeddings must be"):
        MemoryBank(3, 2).update(torch.tensor([0, 1]), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="between 0 and 2"):
        MemoryBank(3, 2).scores(torch.zeros(1, 2), torch.tensor([3]))
