"""Classifiers of a few frozen embeddings that start from the rows of another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives import CatLIP
from nearfar.training.few_shot import few_shot_accuracy

AXES = torch.eye(4, 6)


def _pretrained() -> CatLIP:
    """A classifier that tells six axes apart, of which a task has four."""
    made = CatLIP(6, 6)
    with torch.no_grad():
        assert made.proxies is not None
        made.proxies.copy_(8 * torch.eye(6))
    return made


def _items(count: int, noise: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(4).repeat(count)
    drawn = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(seed))
    return AXES[labels] + noise * drawn, labels


def test_rows_are_a_start_that_needs_no_step() -> None:
    task, test = _items(1), _items(5, 0.05, seed=1)
    assert few_shot_accuracy(_pretrained(), [0, 1, 2, 3], task, test, steps=0) == 1
    assert few_shot_accuracy(_pretrained(), [1, 2, 3, 0], task, test, steps=0) == 0
    assert few_shot_accuracy(_pretrained(), [0, 1, 3, 2], task, test, steps=0) == 0.5


def test_training_mends_wrong_rows_and_makes_up_for_none() -> None:
    task, test = _items(10, 0.1), _items(20, 0.1, seed=1)
    for rows in ([None] * 4, [1, 0, None, 3]):
        assert few_shot_accuracy(_pretrained(), rows, task, test, steps=400, learning_rate=0.1) == 1


def test_what_is_given_stays_and_the_seed_decides() -> None:
    pretrained, task, test = _pretrained(), _items(2, 0.5), _items(50, 0.8, seed=1)
    assert pretrained.proxies is not None
    before, embeddings = pretrained.proxies.detach().clone(), task[0].clone()
    torch.manual_seed(1)
    found = [few_shot_accuracy(pretrained, [None] * 4, task, test, steps=3, seed=seed) for seed in (5, 5, 6, 7, 8)]
    assert torch.equal(pretrained.proxies, before)
    assert torch.equal(task[0], embeddings)
    assert found[0] == found[1]
    assert len(set(found)) > 1


def test_rows_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="none of the 6 rows"):
        few_shot_accuracy(_pretrained(), [0, 1, 2, 6], _items(1), _items(1))
    with pytest.raises(UsageError, match="dimensions"):
        few_shot_accuracy(CatLIP(6, 5), [0, 1, 2, 3], _items(1), _items(1))
    with pytest.raises(ValueError, match="there are 3 classes"):
        few_shot_accuracy(_pretrained(), [0, 1, 2], _items(1), _items(1))
