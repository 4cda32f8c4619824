"""Preference objectives on input with nothing to teach, at the ends of what a number can be, or that does not fit."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import UsageError
from nearfar.objectives import KTO, get
from support.preference_loops import FORMULAS, WITHOUT_REFERENCE
from support.preferences import pairs

EXTREMES = [-1e6, -800.0, -90.0, -1e-9, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*FORMULAS, *WITHOUT_REFERENCE])
def test_never_not_a_number(name: str, dtype: torch.dtype) -> None:
    """Any finite log-probabilities, equal ones, certain ones, a single pair, no pair."""
    make = {**FORMULAS, **WITHOUT_REFERENCE}[name][0]
    grid = torch.tensor(EXTREMES, dtype=dtype)
    one, other = (value.reshape(-1) for value in torch.meshgrid(grid, grid, indexing="ij"))
    for chosen, rejected in ((one, other), (grid, grid), (grid[:1], grid[1:2]), (grid[:0], grid[:0])):
        policy = [value.clone().requires_grad_() for value in (chosen, rejected)]
        references = {} if name in WITHOUT_REFERENCE else {
            "reference_chosen": torch.full_like(chosen, -30), "reference_rejected": torch.full_like(chosen, -20),
        }  # fmt: skip
        lengths = {"chosen_length": torch.ones_like(chosen), "rejected_length": torch.zeros_like(chosen)}
        loss = make()(*policy, **references, **lengths)
        assert not loss.isnan()
        loss.backward()
        assert all(value.grad is not None and not bool(value.grad.isnan().any()) for value in policy)


def test_errors() -> None:
    batch = pairs(0, 4)
    chosen, rejected = batch.policy
    dpo = get("dpo")
    with pytest.raises(ValueError, match=r"chosen is \[4\] and rejected \[3\]"):
        dpo(chosen, rejected[:3])
    with pytest.raises(ValueError, match=r"chosen is \[4\] and reference_rejected \[3\]"):
        dpo(chosen, rejected, reference_chosen=chosen, reference_rejected=rejected[:3])
    with pytest.raises(ValueError, match=r"must be \[n\] floating point"):
        dpo(chosen[:, None], rejected[:, None])
    with pytest.raises(ValueError, match=r"must be \[n\] floating point"):
        dpo(torch.arange(4), torch.arange(4))
    with pytest.raises(ValueError, match="of both responses or of neither"):
        dpo(chosen, rejected, reference_chosen=chosen)
    with pytest.raises(TypeError, match="takes no 'margin'"):
        dpo(chosen, rejected, margin=chosen)
    with pytest.raises(ValueError, match="needs chosen_length and rejected_length"):
        get("simpo")(chosen, rejected)
    with pytest.raises(ValueError, match=r"needs chosen_length \[n\]"):
        get("dpo-nll")(chosen, rejected)
    with pytest.raises(ValueError, match="log-ratios of mismatched"):
        KTO()(chosen, torch.ones(4))
    with pytest.raises(ValueError, match="1 for desirable and 0"):
        get("kto-zero")(chosen, torch.full((4,), -1))
    for name, arguments in (
        ("dpo", {"beta": 0.0}), ("dpo", {"label_smoothing": 0.5}), ("dpo", {"divergence": "kl"}),
        ("dpo", {"alpha": math.inf}),
        ("dpo", {"tokens": "average"}), ("dpo", {"beta": math.nan}), ("dpo", {"likelihood": "all"}),
        ("ipo", {"beta": -1.0}), ("hinge", {"margin": 0.0}), ("exo", {"label_smoothing": 0.0}),
        ("discopop", {"tau": math.inf}), ("kto", {"desirable_weight": -1.0}), ("kto", {"reference_point": "batch"}),
        ("cpo", {"form": "exp"}), ("orpo", {"weight": math.nan}), ("slic-hf", {"delta": 0.0}),
        ("simpo", {"gamma": -0.1}), ("pairwise-link", {"link": "aql"}), ("pairwise-link", {"link": "apo-zero"}),
        ("pairwise-link", {"link": "info-nce"}), ("pairwise-link", {"average": "all"}),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=name):
            get(name, **arguments)


REWARDED = ["copg", "dno", "reward-modeling", "moss-reward", "mapl-dpo"]
POINTS = ["dro-v", "dro-p", "copg-group", "kto-zero", "rwr"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*REWARDED, *POINTS])
def test_never_not_a_number_with_rewards(name: str, dtype: torch.dtype) -> None:
    grid = torch.tensor(EXTREMES, dtype=dtype)
    for count in (5, 1, 0):
        one, other = grid[:count].clone().requires_grad_(), grid.flip(0)[:count].clone().requires_grad_()
        if name in REWARDED:
            rewards = {"copg": ("chosen_reward", "rejected_reward"), "dno": ("chosen_reward", "rejected_reward")}
            loss = get(name)(one, other, **dict.fromkeys(rewards.get(name, ()), torch.ones_like(one)))
        else:
            target = torch.zeros_like(one) if name == "kto-zero" else 100 * torch.ones_like(one)
            more = {"value": other} if name == "dro-v" else {}
            loss = get(name, reduction="mean")(one, target, **more)
        assert not loss.isnan()
        (gradient,) = torch.autograd.grad(loss, one)
        assert not gradient.isnan().any()


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto-pair", "aot", "sppo", "rpo-uniform", "discopop"])
def test_a_reference_gets_no_gradient(name: str) -> None:
    """Also where it comes from a model that is trained, as with adapters switched off."""
    batch = pairs(3, 4)
    references = {key: value.clone().requires_grad_() for key, value in batch.references.items()}
    loss = get(name)(*batch.policy, **references)
    assert [value is None for value in torch.autograd.grad(loss, list(references.values()), allow_unused=True)] == [
        True,
        True,
    ]


def test_references_of_single_responses_get_no_gradient() -> None:
    score, other, target = (torch.randn(4, dtype=torch.float64).requires_grad_() for _ in range(3))
    rewards, value = target.detach(), torch.zeros(4, dtype=torch.float64)
    tokens, sampled = (torch.randn(4, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    losses = [
        get("kto-zero")(score, torch.ones(4), reference=other),
        get("dro-v")(score, rewards, reference=other, value=value).sum(),
        get("dro-p")(score, rewards, reference=other).sum(),
        get("copg-group")(score, rewards, reference=other).sum(),
        get("sft-implicit-reward")(score, other),
        get("grpo", kl_weight=0.1)(tokens, rewards, sampled=sampled, reference=sampled),
    ]
    for loss in losses:
        assert torch.autograd.grad(loss, [other, sampled], allow_unused=True) == (None, None)
        assert any(g is not None for g in torch.autograd.grad(loss, [score, tokens], allow_unused=True))
