"""The passes before and after the rows: statistics remembered by id, and rows joined into groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Explicit, Labels, Paired, Views, evaluate
from nearfar.objectives import InfoNCE, RowObjective
from nearfar.objectives.base import log_sum_exp

WAYS = [{"memory": "dense"}, {"memory": "tiled"}, {"memory": "tiled", "tile_rows": 2}]


class LogSumOfItem(RowObjective):
    """``log`` of the sum over an item's rows of ``sum_j exp(s_ij)``: joins by log-sum-exp."""

    default_temperature = 0.5
    joins_rows = True

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return log_sum_exp(scores, negative)

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        assert ids is not None
        names = ids.unique()
        return torch.stack([costs[ids == name].logsumexp(0) for name in names])


class AgainstTheUsual(RowObjective):
    """A row's log-sum minus what it was on average for its item so far: remembers by id."""

    default_temperature = 0.5
    needs_row_statistics = True

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)
        self.register_buffer("usual", torch.zeros(10, dtype=torch.float64))

    def statistic(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return log_sum_exp(scores, negative)

    def remember(self, statistics: Tensor, ids: Tensor) -> dict[str, Tensor]:
        before = self.usual[ids]
        if self.training:
            self.usual[ids] = 0.5 * before + 0.5 * statistics
        return {"before": before, "highest": statistics.max()}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return log_sum_exp(scores, negative) - state["before"] + state["highest"]


def _items(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def _log_sums(items: Tensor, keys: Tensor, far: Tensor) -> list[Tensor]:
    unit, key = (torch.nn.functional.normalize(value, dim=1) for value in (items, keys))
    scores = unit @ key.T / 0.5
    return [scores[i][far[i]].logsumexp(0) for i in range(len(items))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_rows_are_joined_by_item(way: dict[str, object], reduction: str) -> None:
    items, ids = _items(7), torch.tensor([3, 3, 5, 8, 5, 5, 8])
    far = ids[:, None] != ids[None, :]
    log_sums = _log_sums(items, items, far)
    by_item = [torch.stack([log_sums[i] for i in rows]).logsumexp(0) for rows in ([0, 1], [2, 4, 5], [3, 6])]
    expected = torch.stack(by_item)
    expected = {"mean": expected.mean(), "sum": expected.sum(), "none": expected}[reduction]
    loss = evaluate(LogSumOfItem(reduction=reduction), items, relation=Views(3, ids=ids), **way)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    factors = torch.arange(1, 1 + loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    one, other = (torch.autograd.grad((value * factors).sum(), items)[0] for value in (loss, expected))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_rows_that_count_for_nothing_are_not_joined() -> None:
    items, keys = _items(3), _items(4, 1)
    relation = Paired(torch.tensor([0, 1, 7]), torch.tensor([0, 1, -1, -1]))
    seen = []

    class Seeing(LogSumOfItem):
        def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
            seen.append(ids)
            return super().join(costs, ids)

    evaluate(Seeing(), items, keys, relation=relation)
    assert seen[0].tolist() == [0, 1]
    nobody = evaluate(Seeing(), items, keys, relation=Paired(torch.tensor([5, 6, 7]), torch.tensor([0, 1, -1, -1])))
    assert len(seen) == 1
    assert nobody.item() == 0
    assert torch.autograd.grad(nobody, items)[0].abs().sum() == 0


def test_ready_made_scores_are_joined_too() -> None:
    scores = torch.tensor([[0.2, 0.4, -1.0], [0.3, 0.1, 0.6]], dtype=torch.float64)
    relation = Labels(torch.tensor([4, 4]), torch.tensor([4, 2, 3]))
    loss = LogSumOfItem()(scores=scores, relation=relation)
    assert loss.item() == pytest.approx((scores[:, 1:] / 0.5).flatten().logsumexp(0).item(), rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_statistics_are_remembered_by_id(way: dict[str, object]) -> None:
    objective = AgainstTheUsual()
    query, key, ids = _items(4), _items(4, 1), torch.tensor([7, 2, 9, 4])
    far = ~torch.eye(4, dtype=torch.bool)
    log_sums = torch.stack(_log_sums(query, key, far))
    highest = log_sums.detach().max()
    first = evaluate(objective, query, key, relation=Paired(ids), **way)
    torch.testing.assert_close(first, log_sums.mean() + highest)
    torch.testing.assert_close(objective.usual[ids], log_sums.detach() / 2)
    order = torch.tensor([2, 0, 3, 1])
    second = evaluate(objective, query[order], key[order], relation=Paired(ids[order]), **way)
    torch.testing.assert_close(second, (log_sums / 2).mean() + highest)
    one, other = (torch.autograd.grad(value, (query, key)) for value in (first, log_sums.mean()))
    torch.testing.assert_close(one, other)  # what is remembered carries no gradient
    kept = objective.usual.clone()
    evaluate(objective.eval(), query, key, relation=Paired(ids), **way)
    torch.testing.assert_close(objective.usual, kept, rtol=0, atol=0)


def test_only_active_rows_are_remembered() -> None:
    objective = AgainstTheUsual()
    relation = Paired(torch.tensor([1, 3, 5]), torch.tensor([1, 5, -1, -1]))
    costs = evaluate(AgainstTheUsual(reduction="none"), _items(3), _items(4, 1), relation=relation)
    assert costs[1] == 0
    evaluate(objective, _items(3), _items(4, 1), relation=relation)
    assert objective.usual.nonzero().flatten().tolist() == [1, 5]


@pytest.mark.parametrize("relation", [None, Explicit(torch.eye(4, dtype=torch.bool))])
def test_remembering_needs_ids(relation: Explicit | None) -> None:
    with pytest.raises(ValueError, match="needs their ids"):
        evaluate(AgainstTheUsual(), _items(4), _items(4, 1), relation=relation)


def test_soft_targets_do_not_change_the_candidates() -> None:
    """Cross-entropy with a target distribution: a positive counts once in the denominator, whatever its weight."""
    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5], [3.0, 0, 1.0, 0, 0]], dtype=torch.float64)
    loss = InfoNCE(temperature=1.0)(scores=scores, relation=Explicit(target))
    expected = torch.nn.functional.cross_entropy(scores, target / target.sum(1, keepdim=True))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
