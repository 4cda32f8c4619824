"""A step of a reward model's training: chunks, treatments, contrast, unlabelled responses, prompts and gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from nearfar.alignment.reward.contrast import RewardContrast
from nearfar.alignment.reward.meta import at, raised
from nearfar.alignment.reward.method import Extra, RewardBatches, RewardMethod, swapped
from nearfar.alignment.reward.model import rewards
from nearfar.alignment.reward.strength import Treatment, treatment
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.encoders.dropout_rates import dropout_rate
from nearfar.encoders.language_model import tiny_language_model
from nearfar.objectives import MAPL, RewardModeling
from nearfar.objectives.preference_values import reward_spread

VOCABULARY = 15


def classifier() -> Any:
    from transformers import LlamaForSequenceClassification

    config = tiny_language_model(vocabulary=VOCABULARY, width=16).config
    config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(1)
        build: Any = LlamaForSequenceClassification
        return build(config).double()


def drawn(count: int, seed: int, responses: int = 2) -> list[TokenisedRow]:
    random = np.random.default_rng(seed)

    def tokens() -> Any:
        return random.integers(3, VOCABULARY, random.integers(2, 6)).astype(np.int32)

    return [TokenisedRow(tokens(), tuple(tokens() for _ in range(responses))) for _ in range(count)]


PAIRS = drawn(7, 0)
STRENGTH = torch.tensor([-1.0, 0.5, 2.0, -0.3, 1.0, 0.1, 3.0])
PLAIN = treatment(torch.zeros(7))
META = drawn(5, 1, responses=3)


def levels() -> Extra:
    one, two = drawn(14, 2, responses=1), drawn(14, 3)
    return Extra(
        compared={row: [(one[2 * row], one[2 * row + 1])] for row in range(7) if row != 3},
        gaps={row: [(two[2 * row], two[2 * row + 1])] for row in range(7) if row != 5},
    )


def gradients(method: RewardMethod, batch: Any) -> tuple[Tensor, list[Tensor]]:
    method.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss, _ = method(batch)
        found = torch.autograd.grad(loss, list(method.parameters()), allow_unused=True)
    return loss.detach(), [torch.zeros(1) if each is None else each for each in found]


KINDS: dict[str, tuple[dict[str, Any], Treatment, Extra | None]] = {
    "plain": ({}, PLAIN, None),
    "margins": ({}, treatment(STRENGTH, flip="negative", margin=True), None),
    "soft": ({}, treatment(STRENGTH, margin=True, smoothing=0.2), None),
    "meta": ({"meta_rate": 0.3}, PLAIN, Extra(meta=META)),
    "term": ({"meta_rate": 0.3, "meta_form": "term"}, PLAIN, Extra(meta=META)),
    "contrast": ({"contrast": RewardContrast(), "dropout": 0.0}, PLAIN, None),
    "mapl": ({}, PLAIN, levels()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_are_the_whole_batch(kind: str) -> None:
    options, treated, extra = KINDS[kind]
    objective = MAPL() if kind == "mapl" else RewardModeling(reduction="none")
    method = RewardMethod(classifier(), objective, **options)
    whole, expected = gradients(method, RewardBatches(PAIRS, treated, extra).batch(range(7)))
    chunked = RewardBatches(PAIRS, treated, extra, chunk_size=3).batch(range(7))
    assert len(chunked["chunks"]) > 2
    loss, found = gradients(method, chunked)
    torch.testing.assert_close(loss, whole, rtol=1e-12, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert max(float(each.abs().max()) for each in found) > 1e-4


@pytest.mark.parametrize("kind", ["plain", "margins", "soft"])
def test_the_loss_of_pairs_by_loops(kind: str) -> None:
    _, treated, _ = KINDS[kind]
    model = classifier()
    loss, _ = gradients(
        RewardMethod(model, RewardModeling(reduction="none")), RewardBatches(PAIRS, treated).batch(range(7))
    )
    costs = []
    for place, row in enumerate(PAIRS):
        chosen, rejected = rewards(model, [row]).reward
        z = chosen - rejected
        strength = float(STRENGTH[place])
        if kind == "margins":
            z = (z if strength >= 0 else -z) - abs(strength)
        elif kind == "soft":
            z = z - strength
        doubt = 0.2 if kind == "soft" and strength < 0 else 0.0
        costs.append((1 - doubt) * softplus(-z) + doubt * softplus(z))
    torch.testing.assert_close(loss, torch.stack(costs).mean().detach(), rtol=1e-6, atol=1e-7)


def test_metarm_is_the_gradient_at_the_raised_parameters() -> None:
    model = classifier()
    method = RewardMethod(model, RewardModeling(reduction="none"), meta_rate=0.3)
    batch = RewardBatches(PAIRS, PLAIN, Extra(meta=META, meta_rows=9)).batch(range(7))
    assert len(batch["meta"]) == 5
    _, found = gradients(method, batch)
    scorer = method.scorer
    ahead = raised(scorer, reward_spread(scorer(batch["meta"])[:, 0].reshape(5, 3)), 0.3)
    given = at(ahead, scorer, batch["chunks"][0])[:, 0]
    expected = torch.autograd.grad(RewardModeling()(given[0::2], given[1::2]), list(method.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    _, plain = gradients(method, RewardBatches(PAIRS, PLAIN).batch(range(7)))
    assert max(float((a - b).abs().max()) for a, b in zip(found, plain, strict=True)) > 1e-4


def test_the_spread_as_a_term() -> None:
    method = RewardMethod(classifier(), RewardModeling(reduction="none"), meta_rate=0.5, meta_form="term")
    with_meta, logs = method(RewardBatches(PAIRS, PLAIN, Extra(meta=META)).batch(range(7)))
    without, _ = method(RewardBatches(PAIRS, PLAIN).batch(range(7)))
    torch.testing.assert_close(with_meta, without - 0.5 * logs["spread"])


def test_unlabelled_rows_are_drawn_by_the_batch() -> None:
    batches = RewardBatches(PAIRS, PLAIN, Extra(meta=META, meta_rows=2), seed=4)
    one, again, other = (batches.batch(rows)["meta"] for rows in ([0, 1], [0, 1], [2, 3]))
    assert [row.digest() for row in one] == [row.digest() for row in again]
    assert len(one) == len(other) == 2


def test_contrast_takes_two_views() -> None:
    model = classifier()
    term = RewardContrast()
    method = RewardMethod(model, RewardModeling(reduction="none"), contrast=term, contrast_weight=0.25, dropout=0.5)
    batch = RewardBatches(PAIRS, PLAIN).batch(range(7))
    method.train()
    torch.manual_seed(3)
    loss, logs = method(batch)
    torch.manual_seed(3)
    with dropout_rate(model, 0.5):
        one, other = (rewards(model, batch["chunks"][0]) for _ in range(2))
    assert not torch.allclose(one.state, other.state)
    views = [(each.state[0::2], each.state[1::2]) for each in (one, other)]
    expected = sum(RewardModeling()(each.reward[0::2], each.reward[1::2]) for each in (one, other)) / 2
    torch.testing.assert_close(logs["contrast"], term(*views).detach())
    torch.testing.assert_close(loss, expected + 0.25 * term(*views))


def test_mapl_by_hand() -> None:
    model, extra = classifier(), levels()
    method = RewardMethod(model, MAPL(prompt_weight=0.5, gap_weight=0.25))
    batch = RewardBatches(PAIRS, PLAIN, extra).batch([3, 0, 5])
    assert (batch["pairs"], batch["compared"], batch["gaps"]) == (3, 2, 2)
    loss, _ = gradients(method, batch)

    def margins(rows: list[tuple[TokenisedRow, TokenisedRow]]) -> list[Tensor]:
        return [rewards(model, [one]).reward - rewards(model, [other]).reward for one, other in rows]

    own = torch.stack([rewards(model, [PAIRS[row]]).reward for row in (3, 0, 5)])
    prompts = torch.cat(margins([extra.compared[0][0], extra.compared[5][0]]))
    gaps = torch.stack(margins([extra.gaps[3][0], extra.gaps[0][0]]))
    expected = softplus(own[:, 1] - own[:, 0]).mean() + 0.5 * softplus(-prompts).mean()
    expected = expected + 0.25 * softplus(gaps[:, 1] - gaps[:, 0]).mean()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-10)


def test_swapped_rows() -> None:
    row = TokenisedRow(np.array([1], np.int32), (np.array([2], np.int32), np.array([3], np.int32)), True, (True, False))
    other = swapped(row)
    assert [each.tolist() for each in other.responses] == [[3], [2]]
    assert other.cut == (False, True)
    assert other.cut_prompt


def test_what_is_seen_of_a_batch() -> None:
    pairs = [TokenisedRow(row.prompt.clip(3, 12), tuple(each.clip(3, 12) for each in row.responses)) for row in PAIRS]
    pairs[2] = TokenisedRow(pairs[2].prompt, (pairs[2].responses[0], np.array([13, 5], np.int32)))
    method = RewardMethod(classifier(), RewardModeling(reduction="none"))
    method(RewardBatches(pairs, PLAIN, chunk_size=2).batch(range(7)))
    given = torch.stack([rewards(method.scorer.model, [row]).reward.detach() for row in pairs])
    apart = given[:, 0] - given[:, 1]
    torch.testing.assert_close(method.latest["margin"], apart.mean())
    torch.testing.assert_close(method.latest["accuracy"], (apart > 0).double().mean())
    assert method.not_finite() is None
    model: Any = method.scorer.model
    with torch.no_grad():
        model.get_input_embeddings().weight[13] = float("nan")
    method(RewardBatches(pairs, PLAIN).batch(range(7)))
    assert method.not_finite() == [2]
