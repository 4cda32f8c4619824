"""The memory bank: one past embedding of every item."""

from __future__ import annotations

import pytest
import torch

from nearfar.contrast import normalize
from nearfar.errors import UsageError
from nearfar.negatives.bank import MemoryBank


def test_an_item_moves_when_it_is_seen() -> None:
    torch.manual_seed(0)
    bank = MemoryBank(5, 3, momentum=0.75)
    before = bank.embeddings.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(5))
    seen = torch.randn(2, 3) * 7
    bank.update(torch.tensor([4, 1]), seen)
    for place, item in enumerate((4, 1)):
        moved = normalize(0.75 * before[item] + 0.25 * seen[place] / seen[place].norm())
        torch.testing.assert_close(bank.read(torch.tensor([item]))[0], moved)
    assert torch.equal(bank.embeddings[[0, 2, 3]], before[[0, 2, 3]])


def test_without_momentum_it_keeps_the_last_embedding() -> None:
    bank = MemoryBank(3, 2, momentum=0)
    bank.update(torch.tensor([1]), torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(bank.embeddings[1], torch.tensor([0.6, 0.8]))


def test_it_samples_different_items_and_is_saved() -> None:
    bank = MemoryBank(50, 2)
    drawn = bank.sample(20, generator=torch.Generator().manual_seed(0))
    assert len(drawn.unique()) == 20
    assert sorted(bank.sample(99).tolist()) == list(range(50))
    other = MemoryBank(50, 2)
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.embeddings, bank.embeddings)
    assert len(bank) == 50


def test_what_was_read_does_not_change_with_the_bank() -> None:
    bank = MemoryBank(4, 2)
    read = bank.read(torch.arange(4))
    before = read.clone()
    bank.update(torch.arange(4), torch.ones(4, 2, requires_grad=True))
    assert torch.equal(read, before)
    assert not bank.embeddings.requires_grad


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\[0, 1\)"):
        MemoryBank(3, 2, momentum=1.0)
    with pytest.raises(UsageError, match="at least 1"):
        MemoryBank(0, 2)
    with pytest.raises(ValueError, match="moves 2 embeddings"):
        MemoryBank(3, 2).update(torch.tensor([0, 1]), torch.zeros(2, 3))
