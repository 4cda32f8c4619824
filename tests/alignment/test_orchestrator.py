"""Weights of several rewards from prompts: targets, divergence, the adapter, and the way through files."""

import math

import pytest
import torch

from nearfar.alignment.orchestrator import (
    Orchestrator,
    WeightAdapter,
    divergence_from_targets,
    target_weights,
    weighted_reward,
)
from nearfar.data.preferences import PreferenceRow, PreferenceSet
from nearfar.data.synthetic.weighted_prompts import WeightedPrompts
from nearfar.errors import ModelError, UsageError

NAMES = ("helpful", "harmless")


def test_targets_and_divergence_are_those_of_plain_loops():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    given = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    target, log_weights = target_weights(rewards, 0.3), torch.log_softmax(given, 1)
    total = 0.0
    for n in range(5):
        raised = [math.exp(float(r) / 0.3) for r in rewards[n]]
        for k in range(3):
            w = raised[k] / sum(raised)
            assert float(target[n, k]) == pytest.approx(w, rel=1e-12)
            total += w * (math.log(w) - float(log_weights[n, k]))
    assert float(divergence_from_targets(log_weights, target)) == pytest.approx(total / 5, rel=1e-12)
    assert float(divergence_from_targets(target.log(), target)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError):
        target_weights(rewards, 0)


def test_limits_of_targets():
    assert torch.equal(target_weights(torch.randn(4, 1)), torch.ones(4, 1))
    assert torch.allclose(target_weights(torch.tensor([1.0, 0.0]), 1e-4), torch.tensor([1.0, 0.0]))
    sharp = target_weights(torch.tensor([[300.0, 0.0]]))
    assert torch.isfinite(divergence_from_targets(torch.log_softmax(torch.zeros(1, 2), 1), sharp))


def test_one_reward_of_several():
    rewards = torch.randn(2, 4, 3)
    weights = torch.softmax(torch.randn(2, 3), 1)
    found = weighted_reward(weights, rewards)
    for n in range(2):
        for k in range(4):
            assert float(found[n, k]) == pytest.approx(
                sum(float(weights[n, r] * rewards[n, k, r]) for r in range(3)), abs=1e-5
            )


def test_an_adapter_finds_the_weights_that_made_the_targets():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 4, generator=generator)
    target = torch.softmax(z @ torch.randn(4, 3, generator=generator), 1)
    adapter = WeightAdapter(4, 3)
    assert torch.allclose(adapter(z).exp(), torch.full((500, 3), 1 / 3))
    adapter.fit(z, target, learning_rate=0.05, weight_decay=0.0)
    with torch.no_grad():
        assert float(divergence_from_targets(adapter(z), target)) < 1e-3
    again = WeightAdapter(4, 3)
    again.fit(z, target, learning_rate=0.05, weight_decay=0.0)
    assert torch.equal(again.linear.weight, adapter.linear.weight)
    with pytest.raises(UsageError):
        WeightAdapter(0, 3)


TOPICS = ("poem about rain", "wound to clean")


def embed(texts):
    return torch.tensor([[1.0, 0.0] if "poem" in text else [0.0, 1.0] for text in texts])


@pytest.fixture
def data():
    """Of poems the helpful answer was preferred, of wounds the harmless one; harmless is measured in hundreds."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for n in range(60):
        values = torch.randn(4, 2, generator=generator)
        best = int(values[:, n % 2].argmax())
        scores = tuple(float(k == best) for k in range(4))
        rewards = tuple((float(a), 100 * float(b) + 7) for a, b in values)
        rows.append(PreferenceRow(TOPICS[n % 2], tuple("abcd"), scores=scores, rewards=rewards))
    return PreferenceSet.from_rows("multi-reward lists", rows, reward_names=NAMES)


def test_prompts_get_the_weights_that_their_like_asked_for(data):
    found = Orchestrator.fit(data, embed, steps=300)
    poem, wound = found.weights(TOPICS)
    assert poem[0] > 0.6
    assert wound[1] > 0.6
    rewards = torch.tensor([[[1.0, -100.0], [-1.0, 100.0]]]).repeat(2, 1, 1)
    assert found.reward(TOPICS, rewards).argmax(1).tolist() == [0, 1]
    assert found.reward(TOPICS, rewards, given=(0, 2)).argmax(1).tolist() == [1, 1]
    assert torch.equal(found.weights(TOPICS, (1, 3)), torch.tensor([[0.25, 0.75]] * 2))
    assert found.asked("poem", (1, 3)) == "poem <helpful> 0.2 <harmless> 0.8"
    for given in ((1,), (-1, 2), (0, 0)):
        with pytest.raises(UsageError):
            found.weights(TOPICS, given)


def test_demonstrations_are_preferred_responses_with_their_targets(data):
    found = Orchestrator.fit(data, embed, steps=1)
    rows = list(found.demonstrations(data))
    assert len(rows) == 60
    for row, made in zip(data, rows, strict=True):
        best = row.scores.index(1.0)
        target = target_weights(found.scale.standardised(torch.tensor(row.rewards[best], dtype=torch.float64)))
        assert made.responses == (row.responses[best],)
        assert made.prompt == f"{row.prompt} <helpful> {target[0]:.1f} <harmless> {target[1]:.1f}"


def test_without_scores_the_first_response_is_the_preferred_one():
    rows = [PreferenceRow("p", ("a", "b"), rewards=((float(n), 0.0), (0.0, float(n)))) for n in range(4)]
    data = PreferenceSet.from_rows("multi-reward lists", rows, reward_names=NAMES)
    found = Orchestrator.fit(data, lambda texts: torch.ones(len(texts), 1), steps=5)
    assert [row.responses for row in found.demonstrations(data)] == [("a",)] * 4


def test_it_is_written_and_read(data, tmp_path):
    found = Orchestrator.fit(data, embed, steps=20, temperature=0.2)
    found.save(tmp_path / "pro")
    again = Orchestrator.load(tmp_path / "pro", embed)
    assert torch.equal(again.weights(TOPICS), found.weights(TOPICS))
    assert again.scale == found.scale
    assert again.temperature == 0.2
    (tmp_path / "pro" / "adapter.safetensors").write_bytes(b"no tensors")
    for folder in (tmp_path / "pro", tmp_path / "nowhere"):
        with pytest.raises(ModelError):
            Orchestrator.load(folder, embed)


def test_data_of_other_kinds_is_refused():
    pairs = PreferenceSet.from_rows("pairs", [PreferenceRow("p", ("a", "b"))])
    with pytest.raises(UsageError):
        Orchestrator.fit(pairs, embed)


def test_the_world_prefers_by_its_weights():
    world = WeightedPrompts(seed=3)
    drawn = world.draw(50, generator=torch.Generator().manual_seed(0))
    raw = (drawn.rewards - world.offsets) / world.units
    assert torch.allclose(raw.sum(2), torch.zeros(50, 8), atol=1e-4)
    utility = (raw * drawn.weights[:, None]).sum(2)
    assert torch.allclose(utility, drawn.utility, atol=1e-4)
    assert torch.equal(drawn.chosen, drawn.utility.argmax(1))
    assert torch.allclose(drawn.weights.sum(1), torch.ones(50))
    with pytest.raises(UsageError):
        WeightedPrompts(rewards=1)
