from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nearfar.errors import UsageError
from nearfar.negatives.bank import MemoryBank
from nearfar.objectives import InfoNCE


def test_two_banks_are_the_formula() -> None:
    """Cross-entropy of each view with the other's bank, slot 0 the own item; then both rows move."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 4, generator=generator).requires_grad_() for _ in range(2))
    ids = torch.tensor([5, 0, 2])
    first, third = MemoryBank(8, 4, seed=1), MemoryBank(8, 4, seed=2)
    before = first.rows.clone(), third.rows.clone()
    loss, expected = torch.zeros(()), torch.zeros(())
    for z, bank, rows in ((a, third, before[1]), (b, first, before[0])):
        scores, relation = bank.scores(z, ids, 6, generator=torch.Generator().manual_seed(3))
        drawn = torch.randint(8, (3, 6), generator=torch.Generator().manual_seed(3))
        loss = loss + InfoNCE(temperature=0.07)(scores=scores, relation=relation)
        keys = rows[torch.cat([ids[:, None], drawn], 1)]
        logits = (F.normalize(z, dim=1)[:, None] * keys).sum(-1) / 0.07
        expected = expected + F.cross_entropy(logits, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, [a, b], retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, [a, b]))
    first.update(ids, a)
    moved = F.normalize(0.5 * before[0][ids] + 0.5 * F.normalize(a.detach(), dim=1), dim=1)
    torch.testing.assert_close(first.rows[ids], moved)
    others = torch.tensor([1, 3, 4, 6, 7])
    assert torch.equal(first.rows[others], before[0][others])
    loss.backward()  # moving the rows did not disturb the graph
    torch.testing.assert_close((a.grad, b.grad), found)


def test_rows_start_uniform_and_of_about_unit_length() -> None:
    bank = MemoryBank(2000, 48)
    assert float(bank.rows.abs().max()) <= 0.25
    assert float(bank.rows.square().sum(1).mean()) == pytest.approx(1, abs=0.02)
    assert "rows" in bank.state_dict()
    assert not list(bank.parameters())


def test_what_does_not_fit() -> None:
    bank = MemoryBank(4, 3)
    with pytest.raises(ValueError, match="between 0 and 3"):
        bank.update(torch.tensor([4]), torch.ones(1, 3))
    with pytest.raises(ValueError, match="embeddings must be"):
        bank.scores(torch.ones(2, 3), torch.tensor([1]))
    with pytest.raises(UsageError, match="momentum"):
        MemoryBank(4, 3, momentum=1.0)
