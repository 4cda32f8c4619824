"""Likelihoods of tokens and sequences: formulas, identities, and what cannot be a number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives import GRPO, ImplicitRewardSFT, ProbabilitySFT, get
from nearfar.objectives.likelihood import (
    divergence_estimate,
    divergence_penalty,
    sequence_log_probability,
    sequence_scores,
)
from nearfar.objectives.preference_policy import group_advantages


def _same(one: Tensor, other: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    gradients = (torch.autograd.grad(value.sum(), inputs, retain_graph=True) for value in (one, other))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


def _tokens(seed: int, n: int = 4, t: int = 5) -> tuple[Tensor, Tensor]:
    """Log-probabilities with nonsense where the mask is 0; the last completion is empty."""
    generator = torch.Generator().manual_seed(seed)
    values = -3 * torch.rand(n, t, generator=generator, dtype=torch.float64)
    mask = torch.rand(n, t, generator=generator) < 0.6
    mask[-1] = False
    values = values.masked_fill(~mask, -torch.inf)
    return values.requires_grad_(), mask


def test_sequences() -> None:
    values, mask = _tokens(0)
    kept = [[values[i, j] for j in range(5) if mask[i, j]] for i in range(4)]
    total = torch.stack([sum(row) if row else values[0, 0] * 0 for row in kept[:-1]])
    found = sequence_log_probability(values, mask)
    _same(found[:-1], total, [values])
    assert found[-1] == 0
    count = torch.tensor([len(row) for row in kept[:-1]])
    average = sequence_log_probability(values, mask.double(), "mean")
    _same(average[:-1], total / count, [values])
    assert average[-1] == 0
    (gradient,) = torch.autograd.grad(average.sum(), values)
    assert gradient.isfinite().all()
    assert sequence_log_probability(values.detach().bfloat16(), mask).dtype == torch.float32
    with pytest.raises(ValueError, match=r"\[n, t\] alike"):
        sequence_log_probability(values, mask[:2])
    with pytest.raises(UsageError, match="tokens"):
        sequence_log_probability(values, mask, "median")


def test_scores_and_divergence_of_samples() -> None:
    values, mask = _tokens(1)
    sampled = values.detach() + 0.1 * torch.arange(5)
    apart = [[values[i, j] - sampled[i, j] for j in range(5) if mask[i, j]] for i in range(4)]
    ratio = sequence_scores(values, mask, sampled=sampled, form="likelihood-ratio")
    _same(ratio[:-1], torch.stack([sum(x.exp() for x in row) / len(row) for row in apart[:-1]]), [values])
    assert ratio[-1] == 0
    torch.testing.assert_close(sequence_scores(values, mask), sequence_log_probability(values, mask, "mean"))
    everyone = [x for row in apart for x in row]
    plain = divergence_estimate(values, sampled, mask)
    _same(plain, -sum(everyone) / len(everyone), [values])
    low = divergence_estimate(values, sampled, mask, "low-variance")
    _same(low, sum(x.exp() - 1 - x for x in everyone) / len(everyone), [values])
    assert low > 0
    assert divergence_estimate(values, sampled, torch.zeros_like(mask)) == 0
    with pytest.raises(ValueError, match="needs sampled"):
        sequence_scores(values, mask, form="likelihood-ratio")


def test_penalty() -> None:
    for excess in (-0.01, 0.02):
        k = torch.tensor(0.05 + excess, dtype=torch.float64, requires_grad=True)
        penalty = divergence_penalty(k, limit=0.05, weight=3.0)
        assert penalty.item() == pytest.approx(1.5 * max(0.0, excess) ** 2, abs=1e-15)
        shown = divergence_penalty(k, limit=0.05, weight=3.0, surrogate=True)
        assert shown.item() == pytest.approx(3 * max(0.0, excess) * k.item(), abs=1e-15)
        one, other = (torch.autograd.grad(value, k)[0] for value in (penalty, shown))
        assert one == pytest.approx(other.item(), abs=1e-15)
        assert divergence_penalty(k, weight=3.0, form="linear").item() == pytest.approx(3 * k.item())


PROBABILITIES = {
    "0": (ProbabilitySFT(0.0), lambda p: -p.log()),
    "1": (ProbabilitySFT(), lambda p: 1 - p),
    "10": (ProbabilitySFT(10.0), lambda p: (1 - p**10) / 10),
    "half": (ProbabilitySFT(0.5), lambda p: (1 - p**0.5) / 0.5),
    "below zero": (ProbabilitySFT(-0.5), lambda p: (p**-0.5 - 1) / 0.5),
}


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("keep", ["all", "top", "bottom"])
def test_functions_of_the_probability(name: str, keep: str) -> None:
    objective, function = PROBABILITIES[name]
    values, mask = _tokens(2, 6, 8)
    counted = [
        values[i, j]
        for i in range(6)
        for j in range(8)
        if mask[i, j] and {"all": True, "top": values[i, j] >= -1, "bottom": values[i, j] <= -1}[keep]
    ]
    assert len(counted) > 3
    objective = ProbabilitySFT(objective.alpha, keep=keep, threshold=math.exp(-1))
    expected = sum(function(value.exp()) for value in counted) / len(counted)
    _same(objective(values, mask), expected, [values])
    total = ProbabilitySFT(objective.alpha, keep=keep, threshold=math.exp(-1), reduction="sum")
    _same(total(values, mask), expected * len(counted), [values])
    each = ProbabilitySFT(objective.alpha, keep=keep, threshold=math.exp(-1), reduction="none")(values, mask)
    assert each.shape == values.shape
    assert each.sum().item() == pytest.approx(float(expected.detach()) * len(counted), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 10.0])
def test_the_gradient_by_the_logit(alpha: float) -> None:
    """``-p^alpha (1 - p)``, largest at p = alpha / (1 + alpha)."""
    for p in (0.01, 0.4, alpha / (1 + alpha), 0.97):
        if p == 0:
            continue
        logits = torch.tensor([[math.log(p), math.log1p(-p)]], dtype=torch.float64, requires_grad=True)
        loss = ProbabilitySFT(alpha)(torch.log_softmax(logits, 1)[:, 0], torch.ones(1))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient[0, 0].item() == pytest.approx(-(p**alpha) * (1 - p), rel=1e-9)


def test_limits_and_the_detached_form() -> None:
    values, mask = _tokens(3)
    likelihood = get("sft")(values, mask)
    kept = values[mask]
    _same(likelihood, -kept.mean(), [values])
    torch.testing.assert_close(ProbabilitySFT(1e-9)(values, mask), likelihood, rtol=1e-7, atol=0)
    plain, detached = ProbabilitySFT()(values, mask), get("dft")(values, mask)
    one, other = (torch.autograd.grad(value, values, retain_graph=True)[0] for value in (plain, detached))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
    assert abs(plain - detached) > 1e-2
    flat = ProbabilitySFT()(kept, torch.ones_like(kept))
    torch.testing.assert_close(flat, plain)


def test_nothing_kept_and_extreme_probabilities() -> None:
    for alpha in (-0.5, 0.0, 1.0, 10.0):
        score = torch.tensor([-1e5, -200.0, -1e-9, 0.0], requires_grad=True)
        for keep in ("all", "top", "bottom"):
            objective = ProbabilitySFT(alpha, keep=keep)
            for mask in (torch.ones(4), torch.zeros(4)):
                loss = objective(score, mask)
                (gradient,) = torch.autograd.grad(loss, score)
                assert not loss.isnan()
                assert not gradient.isnan().any()
                if not mask.any():
                    assert loss.item() == 0
                    assert gradient.norm() == 0
    half = torch.tensor([-1.0, -30.0], dtype=torch.float16)
    assert get("sft")(half, torch.ones(2)).item() == pytest.approx(15.5, rel=1e-3)


def test_what_token_objectives_refuse() -> None:
    with pytest.raises(ValueError, match=r"\[n\] or \[n, t\] alike"):
        ProbabilitySFT()(torch.zeros(3), torch.zeros(4))
    with pytest.raises(TypeError, match="takes no"):
        ProbabilitySFT()(torch.zeros(3), torch.zeros(3), weight=torch.zeros(3))
    for arguments in ({"alpha": math.nan}, {"alpha": 0.0, "detach": True}, {"threshold": 1.5}, {"keep": "some"}):
        with pytest.raises(UsageError, match="probability-sft"):
            get("probability-sft", **arguments)
    with pytest.raises(UsageError, match="divergence"):
        ImplicitRewardSFT(divergence="chi")


PHI = {
    "total-variation": lambda u: u,
    "pearson": lambda u: u - u**2 / 4,
    "squared-hellinger": lambda u: u / (1 + u),
    "jensen-shannon": lambda u: (2 - (-u).exp()).log(),
    "forward-kl": lambda u: 1 + u.log(),
    "reverse-kl": lambda u: -(-(u + 1)).exp(),
}


@pytest.mark.parametrize("divergence", PHI)
def test_implicit_reward_under_each_divergence(divergence: str) -> None:
    score = torch.linspace(-14, -6, 7, dtype=torch.float64).requires_grad_()
    reference = score.detach() - torch.linspace(0.5, 9, 7, dtype=torch.float64)
    found = ImplicitRewardSFT(0.4, divergence=divergence, reduction="none")(score, reference)
    _same(found, -PHI[divergence](0.4 * (score - reference)), [score])
    tokens = ImplicitRewardSFT(0.4, divergence=divergence)(score[None], reference[None])
    torch.testing.assert_close(tokens, found.mean())


@pytest.mark.parametrize("divergence", PHI)
def test_outside_of_the_domain_the_cost_goes_on(divergence: str) -> None:
    """As a line, continuous in value and slope: costs and gradients stay numbers."""
    objective = ImplicitRewardSFT(1.0, divergence=divergence, reduction="none")
    score = torch.tensor([-1e6, -80.0, -1.0, -math.log(2), -0.1, 0.0, 1.0], requires_grad=True)
    cost = objective(score, torch.zeros_like(score))
    (gradient,) = torch.autograd.grad(cost.sum(), score)
    assert cost.isfinite().all()
    assert gradient.isfinite().all()
    bound = {"squared-hellinger": -1.0, "jensen-shannon": -math.log(2), "forward-kl": 0.0}.get(divergence)
    if bound is None:
        return
    assert (gradient < 0).all()
    around = torch.tensor([bound + 0.01 - 1e-7, bound + 0.01 + 1e-7], dtype=torch.float64, requires_grad=True)
    value = objective(around, torch.zeros_like(around))
    (slope,) = torch.autograd.grad(value.sum(), around)
    assert value[0].item() == pytest.approx(value[1].item(), rel=1e-3)
    assert slope[0].item() == pytest.approx(slope[1].item(), rel=1e-3)


def test_total_variation_is_the_likelihood_and_forgets_the_reference() -> None:
    score = -5 * torch.rand(6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    score.requires_grad_()
    references = [torch.full_like(score, value) for value in (-7.0, -2.0)]
    gradients = {
        divergence: [
            torch.autograd.grad(ImplicitRewardSFT(0.3, divergence=divergence)(score, reference), score)[0]
            for reference in references
        ]
        for divergence in ("total-variation", "pearson")
    }
    likelihood = torch.autograd.grad(-score.mean(), score)[0]
    for gradient in gradients["total-variation"]:
        torch.testing.assert_close(gradient, 0.3 * likelihood, rtol=1e-12, atol=0)
    assert (gradients["pearson"][0] - gradients["pearson"][1]).norm() > 1e-3
    leash = torch.tensor([2 / 0.3], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(ImplicitRewardSFT(0.3)(leash, torch.zeros_like(leash)), leash)
    assert gradient.abs().item() < 1e-15


# -- policy gradients -----------------------------------------------------------------------------------------------

GROUP = torch.tensor([1, 0, 1, 0, 1, 2])


def _loop_advantages(rewards: Tensor, form: str) -> list[float]:
    found = []
    for i in range(len(rewards)):
        mates = [float(rewards[j]) for j in range(len(rewards)) if GROUP[j] == GROUP[i]]
        mean = sum(mates) / len(mates)
        value = float(rewards[i]) - mean
        if form == "leave-one-out" and len(mates) > 1:
            value = float(rewards[i]) - (sum(mates) - float(rewards[i])) / (len(mates) - 1)
        elif form == "standardized":
            deviation = math.sqrt(sum((m - mean) ** 2 for m in mates) / max(1, len(mates) - 1))
            value = value / (deviation + 1e-6)
        found.append(value)
    return found


def test_the_only_response_of_a_prompt() -> None:
    """verl gives it its own reward: mean 0, deviation 1."""
    rewards, group = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64), torch.tensor([0, 1, 1])
    assert group_advantages(rewards, group)[0] == 0
    found = group_advantages(rewards, group, alone="reward")
    assert found.tolist() == pytest.approx([2 / (1 + 1e-6), -1 / (2**0.5 + 1e-6), 1 / (2**0.5 + 1e-6)], abs=1e-12)
    assert group_advantages(rewards, group, form="centered", alone="reward").tolist() == [2.0, -1.0, 1.0]
    score = torch.full((3, 4), -1.0)
    assert get("grpo", alone="reward", reduction="none")(score, rewards, group=group)[0].item() == pytest.approx(
        -2.0, abs=1e-5
    )
    assert get("grpo", reduction="none")(score, rewards, group=group)[0] == 0
    with pytest.raises(UsageError, match="alone"):
        get("grpo", alone="one")


@pytest.mark.parametrize("form", ["standardized", "centered", "leave-one-out"])
def test_group_advantages(form: str) -> None:
    rewards = torch.randn(6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert group_advantages(rewards, GROUP, form=form).tolist() == pytest.approx(
        _loop_advantages(rewards, form), abs=1e-12
    )
    equal = group_advantages(torch.ones(6), GROUP, form=form)
    assert equal.tolist() == [0.0] * 6
    assert group_advantages(torch.randint(0, 2, (6,)).half(), form=form).isfinite().all()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("grpo", {"kl_weight": 0.3}),
        ("grpo", {"clip": 0.05, "clip_high": 0.6}),
        ("dapo", {}),
        ("dr-grpo", {}),
        ("dr-grpo", {"length": 20}),
        ("rloo", {}),
    ],
)
def test_grpo(name: str, arguments: dict[str, float]) -> None:
    generator = torch.Generator().manual_seed(6)
    sampled = -2 * torch.rand(6, 4, generator=generator, dtype=torch.float64)
    score = (sampled + 0.4 * torch.randn(6, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    reference = sampled - 0.1
    mask = torch.arange(4)[None, :] < torch.tensor([4, 1, 3, 2, 4, 2])[:, None]
    rewards = torch.randn(6, generator=generator, dtype=torch.float64)
    objective = get(name, **arguments)
    advantage = _loop_advantages(rewards, objective.advantage)
    low, high = 1 - objective.clip, 1 + objective.clip_high
    costs = []
    for i in range(6):
        total = score[i, 0] * 0
        for t in range(4):
            if mask[i, t]:
                rho = (score[i, t] - sampled[i, t]).exp()
                total = total - torch.minimum(rho * advantage[i], rho.clamp(low, high) * advantage[i])
                q = reference[i, t] - score[i, t]
                total = total + objective.kl_weight * (q.exp() - q - 1)
        count = float(mask[i].sum())
        costs.append({
            "sequences": total / count,
            "tokens": total * 6 / float(mask.sum()),
            "length": total / float(arguments.get("length", 4)),
        }[objective.average])  # fmt: skip
    more = {"mask": mask, "sampled": sampled, "group": GROUP}
    if objective.kl_weight:
        more["reference"] = reference
    _same(objective(score, rewards, **more), torch.stack(costs).mean(), [score])
    objective.reduction = "none"
    _same(objective(score, rewards, **more), torch.stack(costs), [score])


def test_on_the_sampling_policy_grpo_is_reinforce_with_a_group_baseline() -> None:
    score = torch.randn(6, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64).requires_grad_()
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(GRPO()(score, rewards, group=GROUP), score)
    expected = -torch.tensor(_loop_advantages(rewards, "standardized"))[:, None] / 18
    torch.testing.assert_close(gradient, expected.expand(6, 3).double(), rtol=1e-6, atol=1e-9)


def test_grpo_stays_a_number_and_refuses_what_does_not_fit() -> None:
    score = torch.tensor([[-1e4, -1.0], [-2.0, 0.0]], requires_grad=True)
    for sampled in (torch.zeros(2, 2), torch.full((2, 2), -1e4)):
        for rewards in (torch.zeros(2), torch.tensor([1.0, -1.0])):
            loss = GRPO(kl_weight=0.1)(score, rewards, sampled=sampled, reference=sampled)
            (gradient,) = torch.autograd.grad(loss, score)
            assert not loss.isnan()
            assert not gradient.isnan().any()
    with pytest.raises(ValueError, match=r"mask must be \[2, 2\]"):
        GRPO()(score, torch.zeros(2), mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"group must be \[2\]"):
        GRPO()(score, torch.zeros(2), group=torch.zeros(3))
    with pytest.raises(ValueError, match=r"target \[n\]"):
        GRPO()(score, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="needs reference"):
        GRPO(kl_weight=1.0)(score, torch.zeros(2))
    with pytest.raises(TypeError, match="takes no 'old'"):
        GRPO()(score, torch.zeros(2), old=score)
    for arguments in ({"clip": -0.1}, {"length": 0}, {"advantage": "none"}, {"average": "batch"}, {"epsilon": -1.0}):
        with pytest.raises(UsageError):
            get("grpo", **arguments)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 1.0, 10.0])
@pytest.mark.parametrize("keep", ["all", "top", "bottom"])
def test_the_gradient_weight_is_the_pull_at_the_logit(alpha: float, keep: str) -> None:
    objective = ProbabilitySFT(alpha, keep=keep, threshold=0.15, reduction="sum")
    logits = 2 * torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    score = logits.log_softmax(1)[:, 0]
    pull = torch.autograd.grad(objective(score, torch.ones(40)), logits)[0][:, 0]
    weight = objective.gradient_weight(score)
    torch.testing.assert_close(weight, -pull, rtol=1e-10, atol=1e-12)
    assert not weight.requires_grad
    assert bool((weight == 0).any()) == (keep != "all")
