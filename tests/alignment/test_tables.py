"""Policies that are tables, against sums over all answers."""

import pytest
import torch

from nearfar.alignment.tables import (
    FeaturePolicy,
    LinearPolicy,
    TabularPolicy,
    best_regularised,
    divergence,
    entropy,
    expected,
)
from nearfar.errors import UsageError


@pytest.fixture
def policy():
    return TabularPolicy(torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def test_probabilities_are_those_of_a_softmax(policy):
    prompt, answer = torch.tensor([3, 0]), torch.tensor([[1, 2, 1], [0, 3, 3]])
    found = policy.log_probability(prompt, answer)
    for i in range(2):
        for k in range(3):
            logits = policy.logits[prompt[i]]
            direct = logits[answer[i, k]] - logits.exp().sum().log()
            assert torch.allclose(found[i, k], direct, atol=1e-12)
    assert torch.equal(policy.log_probability(prompt, answer[:, 1]), found[:, 1])
    scores = policy.scores(prompt, answer, tokens=True)
    assert torch.equal(scores.tokens.sum(-1), scores.log_probability)
    assert torch.equal(scores.mean, scores.log_probability)
    assert bool(scores.mask.all())


def test_samples_have_the_probabilities_of_the_table(policy):
    drawn = policy.sample(torch.tensor([2]), 20_000, generator=torch.Generator().manual_seed(1))
    share = torch.bincount(drawn[0], minlength=4) / 20_000
    assert torch.allclose(share.double(), policy.table()[2].exp().detach(), atol=0.02)


def test_the_best_regularised_policy_beats_its_neighbours(policy):
    reference, beta = policy.frozen(), 0.3
    reward = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    best = best_regularised(reference, reward, beta)

    def value(other):
        return (expected(other, reward) - beta * divergence(other, reference)).sum()

    for seed in range(5):
        noise = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(10 + seed))
        assert value(TabularPolicy(best.logits + 0.1 * noise)) < value(best)
    gradient = torch.autograd.grad(value(best), best.logits)[0]
    assert float(gradient.abs().max()) < 1e-12


def test_a_reference_does_not_move_with_the_policy(policy):
    reference = policy.frozen()
    with torch.no_grad():
        policy.logits.add_(1.0)
        policy.logits[0, 0] += 3
    assert float(divergence(policy, reference)[0].detach()) > 0.1
    assert float(divergence(policy, reference)[1:].detach().abs().max()) < 1e-12
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    assert float(entropy(TabularPolicy(torch.zeros(1, 8))).detach()) == pytest.approx(2.0794415)


def test_features_are_shared_by_prompts():
    generator = torch.Generator().manual_seed(3)
    features, others = torch.randn(6, 4, 3, generator=generator), torch.randn(2, 5, 3, generator=generator)
    offset = torch.randn(6, 4, generator=generator)
    policy = FeaturePolicy(features, offset)
    assert torch.allclose(policy.table(), torch.log_softmax(offset, 1))
    on_others = policy.on(others)
    with torch.no_grad():
        policy.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    assert torch.allclose(on_others.table(), torch.log_softmax(others @ policy.weight, 1))
    assert len(list(on_others.parameters())) == 1


@pytest.mark.parametrize(
    "logits", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.long), torch.tensor([[0.0, torch.nan]])]
)
def test_what_is_no_table_is_refused(logits):
    with pytest.raises(UsageError, match="finite numbers"):
        TabularPolicy(logits)


def test_a_linear_policy_holds_for_other_prompts():
    generator = torch.Generator().manual_seed(0)
    inputs, offset = torch.randn(3, 4, generator=generator), torch.randn(3, 5, generator=generator)
    policy = LinearPolicy(inputs, offset)
    assert torch.allclose(policy.table(), torch.log_softmax(offset, 1))
    other = policy.on(inputs[:1] * 2, offset[1:2])
    other.log_probability(torch.tensor([0]), torch.tensor([2])).sum().backward()
    assert torch.equal(policy.weight.grad, other.weight.grad)
    with torch.no_grad():
        policy.weight.add_(torch.randn(4, 5, generator=generator))
    weight = policy.weight.detach()
    expected_logits = [
        sum(2 * float(inputs[0, f]) * float(weight[f, a]) for f in range(4)) + float(offset[1, a]) for a in range(5)
    ]
    assert torch.allclose(other.table()[0], torch.tensor(expected_logits).log_softmax(0), atol=1e-5)
    assert [name for name, _ in policy.named_parameters()] == ["weight"]
    frozen = policy.frozen()
    assert torch.equal(frozen.table(), policy.table())
    assert not frozen.weight.requires_grad
    for wrong in ((inputs[0], offset), (inputs, offset[:2])):
        with pytest.raises(UsageError):
            LinearPolicy(*wrong)
