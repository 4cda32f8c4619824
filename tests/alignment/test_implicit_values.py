"""Values in logits, and what fine-tuning on demonstrations is: the identities of the implicit reward."""

from __future__ import annotations

import pytest
import torch

from nearfar.alignment.implicit_values import action_values, token_rewards
from nearfar.encoders.language_model import tiny_language_model
from nearfar.errors import UsageError
from nearfar.objectives import ImplicitRewardSFT, ProbabilitySFT


def test_values_of_a_language_model_give_its_probabilities() -> None:
    model = tiny_language_model(vocabulary=12, width=16, dtype=torch.float64)
    ids = torch.randint(3, 12, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(ids).logits
    q, v = action_values(logits, 0.5)
    torch.testing.assert_close((q - v[..., None]) / 0.5, logits.log_softmax(-1), rtol=1e-12, atol=1e-12)
    # soft Bellman: with the reward of the next state taken off, Q - V(s') is r for every action
    target = ids[:, 1:]
    log_probability = logits[:, :-1].log_softmax(-1).gather(2, target[..., None])[..., 0]
    chosen = q[:, :-1].gather(2, target[..., None])[..., 0]
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0]])
    rewards = token_rewards(log_probability, v[:, :-1], mask, beta=0.5)
    for row, (first, last) in enumerate([(1, 6), (2, 5)]):
        for place in range(6):
            inside = first <= place < last
            after = v[row, place + 1] if place + 1 < last else 0
            expected = chosen[row, place] - after if inside else torch.zeros(()).double()
            torch.testing.assert_close(rewards[row, place], expected, rtol=1e-10, atol=1e-10)
    reference = -3 * torch.rand(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rewards = token_rewards(log_probability, v[:, :-1], mask, reference=reference, beta=0.5)
    ratios = 0.5 * ((log_probability - reference) * mask).sum(1)
    torch.testing.assert_close(rewards.sum(1), ratios + torch.stack([v[0, 1], v[1, 2]]), rtol=1e-10, atol=1e-10)


def test_what_is_masked_out_may_be_anything() -> None:
    nothing = torch.tensor([[-torch.inf, torch.nan, -1.0]])
    found = token_rewards(nothing, torch.tensor([[torch.nan, torch.inf, 2.0]]), torch.tensor([[0, 0, 1]]))
    assert found.tolist() == [[0, 0, 1]]
    half = token_rewards(*(torch.ones(1, 2, dtype=torch.bfloat16) for _ in range(3)))
    assert half.dtype == torch.float32
    with pytest.raises(ValueError, match="alike"):
        token_rewards(torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 2))
    with pytest.raises(UsageError):
        action_values(torch.ones(2), 0.0)


def test_demonstrations_pull_nowhere_but_up_whatever_the_reference() -> None:
    """Under total variation, with the values telescoped, the gradient is the likelihood's; Pearson's is not."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.randint(8, (6, 5), generator=generator)
    mask = torch.ones(6, 5)

    def gradient(divergence: str | None, seed: int, beta: float = 0.3) -> torch.Tensor:
        log_probability = logits.log_softmax(-1).gather(2, target[..., None])[..., 0]
        drawn = torch.Generator().manual_seed(seed)
        reference = -4 * torch.rand(6, 5, dtype=torch.float64, generator=drawn)
        if divergence is None:
            loss = ProbabilitySFT(0.0)(log_probability.sum(1), torch.ones(6))
        elif divergence == "telescoped":
            value = action_values(logits, beta)[1]
            rewards = token_rewards(log_probability, value, mask, reference=reference, beta=beta)
            loss = -(rewards.sum(1) - value[:, 0]).mean() / beta
        else:
            objective = ImplicitRewardSFT(beta, divergence=divergence)
            loss = objective(log_probability.sum(1), reference.sum(1)) / beta
        return torch.autograd.grad(loss, logits)[0]

    plain = gradient(None, 0)
    for seed in range(3):
        assert float((gradient("telescoped", seed) - plain).abs().max()) < 1e-10
        assert float((gradient("total-variation", seed) - plain).abs().max()) < 1e-10
    assert float((gradient("pearson", 0) - gradient("pearson", 1)).abs().max()) > 1e-3
