"""Which responses are contrasted, against loops."""

import pytest
import torch

from nearfar.alignment.online.practical import practical_pairs
from nearfar.alignment.online.selection import all_pairs, best_and_worst, select_group, widest_pairs
from nearfar.errors import UsageError
from nearfar.objectives.preference_selection import coreset, opt_select

REWARDS = torch.tensor([[0.0, 2.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.1, 0.2, 5.0]])


def listed(pairs):
    return list(zip(*(part.tolist() for part in pairs), strict=True))


@pytest.mark.parametrize("margin", [0.0, 0.15, 1.0, 9.0])
def test_all_pairs_beyond_the_margin(margin):
    expected = [
        (i, a, b)
        for i in range(3)
        for a in range(4)
        for b in range(4)
        if REWARDS[i, a] > REWARDS[i, b] and REWARDS[i, a] - REWARDS[i, b] >= margin
    ]
    assert listed(all_pairs(REWARDS, margin)) == expected


def test_best_and_worst_are_the_first_of_those_alike():
    assert listed(best_and_worst(REWARDS)) == [(0, 1, 0), (2, 3, 0)]
    assert listed(best_and_worst(REWARDS, 3.0)) == [(2, 3, 0)]
    of_winner, of_loser = best_and_worst(REWARDS).of(REWARDS)
    assert of_winner.tolist() == [2.0, 5.0]
    assert of_loser.tolist() == [0.0, 0.0]


def test_the_widest_pairs_are_those_of_the_largest_gaps():
    whole = listed(all_pairs(REWARDS))
    gaps = {pair: float(REWARDS[pair[0], pair[1]] - REWARDS[pair[0], pair[2]]) for pair in whole}
    kept = listed(widest_pairs(REWARDS, 0.3))
    assert len(kept) == round(0.3 * len(whole))
    assert min(gaps[pair] for pair in kept) >= max(gap for pair, gap in gaps.items() if pair not in kept)
    assert listed(widest_pairs(REWARDS, 1.0)) == whole
    assert len(listed(widest_pairs(REWARDS, 1e-6))) == 1
    assert listed(widest_pairs(torch.zeros(2, 3), 0.5)) == []
    with pytest.raises(UsageError):
        widest_pairs(REWARDS, 0.0)


@pytest.mark.parametrize("strategy", ["bottom-k", "coreset", "opt-select", "random", "all"])
def test_groups_hold_the_best_and_k_of_the_rest(strategy):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(6, 9, generator=generator)
    rewards[3] = 1.0
    embeddings = torch.randn(6, 9, 2, generator=generator)
    chosen, rejected = select_group(rewards, 3, strategy, embeddings=embeddings, generator=generator)
    assert not bool((chosen & rejected).any())
    for row in range(6):
        if row == 3:
            assert not bool(chosen[row].any() | rejected[row].any())
            continue
        assert chosen[row].nonzero().flatten().tolist() == [int(rewards[row].argmax())]
        assert int(rejected[row].sum()) == (8 if strategy == "all" else 3)
        by = {"coreset": coreset, "opt-select": opt_select}.get(strategy)
        if by is not None:
            assert rejected[row].nonzero().flatten().tolist() == by(rewards[row], embeddings[row], 3).tolist()
        if strategy == "bottom-k":
            assert rejected[row].nonzero().flatten().tolist() == sorted(rewards[row].argsort()[:3].tolist())


def test_what_a_strategy_needs_is_named():
    with pytest.raises(UsageError, match="embeddings"):
        select_group(REWARDS, 2, "coreset")
    with pytest.raises(UsageError, match="strategy"):
        select_group(REWARDS, 2, "best")
    with pytest.raises(ValueError, match=r"\[n, K\]"):
        all_pairs(torch.zeros(3))
    with pytest.raises(UsageError, match="margin"):
        all_pairs(REWARDS, -1.0)


def test_practical_pairs_are_good_and_clearly_better():
    scores = torch.tensor([[5.0, 4.0, 3.0, 6.0], [4.0, 3.0, 0.0, 4.5], [5.0, 3.5, 5.0, 5.0]])
    teacher = torch.tensor([[False, False, False, True]]).expand(3, 4)
    expected = []
    for i in range(3):
        for a in range(4):
            for b in range(4):
                gap = 2.0 if teacher[i, a] else 1.0
                if scores[i, a] >= 5 and scores[i, a] - scores[i, b] >= gap:
                    expected.append((i, a, b))
    assert expected == [(0, 0, 1), (0, 0, 2), (0, 3, 1), (0, 3, 2), (2, 0, 1), (2, 2, 1)]
    assert listed(practical_pairs(scores, teacher)) == expected
    both = torch.ones(1, 2, dtype=torch.bool)
    assert listed(practical_pairs(torch.tensor([[6.0, 0.0]]), both)) == []
    with pytest.raises(ValueError, match="alike"):
        practical_pairs(scores, both)
