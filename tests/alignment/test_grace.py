"""GRACE on a tiny language model: what is pooled, what is rewarded, what cancels, and a round of training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.alignment.grace import Grace, Triple
from nearfar.alignment.language import LanguagePolicy
from nearfar.alignment.online.costs import PolicyGradient
from nearfar.alignment.online.loop import OnlineSettings, improve
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model
from nearfar.errors import UsageError
from nearfar.objectives import GRPO
from nearfar.objectives.preference_policy import group_advantages

TRIPLES = [
    Triple("a b", "c d e", "f"),
    Triple("b b a c", "d", "g h"),
    Triple("h g", "d", "a"),  # its positive is that of the one before
]


def made(system: str = "x y", **options: object) -> Grace:
    tokenizer = symbol_tokenizer("abcdefghxy")
    model = tiny_language_model(vocabulary=len(tokenizer), width=16, seed=3)
    policy = LanguagePolicy(model, tokenizer, max_new_tokens=5)
    return Grace(policy, system=system, **options)  # type: ignore[arg-type]


def test_text_and_rationale_are_pooled_and_the_system_message_is_not() -> None:
    grace = made()
    responses = grace.sample(TRIPLES, 3, generator=torch.Generator().manual_seed(0))
    found = grace.pooled(TRIPLES, responses)
    assert found.shape == (3, 3, 16)
    tokenizer, model = grace.policy.tokenizer, grace.policy.model
    for row, triple in enumerate(TRIPLES):
        # <s> <|system|> x y </s> <|user|> text </s> <|assistant|> rationale
        words = f"<s> <|system|> x y </s> <|user|> {triple.positive} </s> <|assistant|>"
        prompt = tokenizer.encode(words, add_special_tokens=False)
        for column, response in enumerate(responses[row]):
            ids = torch.tensor([prompt + response.tokens.tolist()])
            with torch.no_grad():
                states = model(ids, output_hidden_states=True).hidden_states[-1][0]  # type: ignore[operator]
            expected = torch.nn.functional.normalize(states[6:].mean(0), dim=0)
            torch.testing.assert_close(found[row, column], expected, rtol=1e-5, atol=1e-5)
    assert not found.requires_grad
    alone = grace.pooled(TRIPLES[1:2], responses[1:2])[0]
    torch.testing.assert_close(alone, found[1], rtol=1e-5, atol=1e-5)


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


@pytest.mark.parametrize("main", ["positive", "query"])
def test_rewards_are_the_formula_on_pooled_texts(main: str) -> None:
    # at a temperature near 0 the other rationales are the likeliest, and so are known
    grace = made(main=main, other_temperature=1e-4, penalty=False)
    responses = grace.sample(TRIPLES, 2, generator=torch.Generator().manual_seed(1))
    rewards = grace.reward(TRIPLES, responses)

    def likeliest(texts: list[str]) -> Tensor:
        cool = made(other_temperature=1e-4)
        cool.policy.temperature = 1e-4
        return cool.encode(texts)

    texts = [triple.positive if main == "query" else triple.query for triple in TRIPLES]
    other, negative = likeliest(texts), likeliest([triple.negative or "" for triple in TRIPLES])
    rollouts = grace.pooled(TRIPLES, responses)
    for g in range(3):
        for i in range(2):
            own, partner = rollouts[g, i], rollouts[g, 1 - i]
            if main == "positive":
                near, far, alike = cosine(other[g], own), cosine(other[g], negative[g]), cosine(own, partner)
                across = [max(cosine(other[g], rollouts[h, j]) for j in range(2)) for h in range(3) if h != g]
            else:
                near, far, alike = cosine(own, other[g]), cosine(own, negative[g]), 1.0
                across = [cosine(own, other[h]) for h in range(3) if h != g]
            expected = (near - far + 0.2 * alike - 0.2 * sum(across) / 2) / 0.1
            assert float(rewards[g, i]) == pytest.approx(expected, abs=2e-4)


def test_negatives_cancel_as_released_and_count_where_the_query_is_written_about() -> None:
    def advantage(main: str, cross_from: str, **weights: float) -> Tensor:
        grace = made(
            main=main, cross_from=cross_from, penalty=False, generator=torch.Generator().manual_seed(5), **weights
        )
        responses = grace.sample(TRIPLES, 4, generator=torch.Generator().manual_seed(2))
        group = torch.arange(3).repeat_interleave(4)
        return group_advantages(grace.reward(TRIPLES, responses).flatten().double(), group, form="centered")

    def without_negatives(main: str) -> Tensor:
        """The advantages where the negative is another one."""
        grace = made(main=main, penalty=False, generator=torch.Generator().manual_seed(5))
        responses = grace.sample(TRIPLES, 4, generator=torch.Generator().manual_seed(2))
        changed = [triple._replace(negative="h h h a b") for triple in TRIPLES]
        group = torch.arange(3).repeat_interleave(4)
        return group_advantages(grace.reward(changed, responses).flatten().double(), group, form="centered")

    released = advantage("positive", "query")
    torch.testing.assert_close(released, without_negatives("positive"), rtol=0, atol=1e-5)
    torch.testing.assert_close(released, advantage("positive", "query", cross_group=0.0), rtol=0, atol=1e-5)
    assert float((released - advantage("positive", "positive")).abs().max()) > 1e-3
    assert float((advantage("query", "query") - without_negatives("query")).abs().max()) > 1e-3


def test_rationales_without_an_end_have_a_reward_of_their_own() -> None:
    grace = made(generator=torch.Generator().manual_seed(0))
    responses = grace.sample(TRIPLES, 8, generator=torch.Generator().manual_seed(0))
    cut = torch.tensor([[not each.ended for each in row] for row in responses])
    assert cut.any()
    assert not cut.all()
    rewards = grace.reward(TRIPLES, responses)
    assert torch.equal(rewards == -1, cut)


def test_what_triples_must_have() -> None:
    grace, unsupervised = made(), [triple._replace(negative=None) for triple in TRIPLES]
    responses = grace.sample(TRIPLES, 2)
    assert torch.isfinite(grace.reward(unsupervised, responses)).all()
    with pytest.raises(UsageError, match="1 of 3"):
        grace.reward([unsupervised[0], *TRIPLES[1:]], responses)
    with pytest.raises(UsageError, match="3 of 3"):
        made(main="query").reward(unsupervised, responses)
    for wrong in ({"main": "negative"}, {"cross_from": "text"}, {"tau": 0.0}, {"other_temperature": 0.0}):
        with pytest.raises(UsageError):
            made(**wrong)


def test_a_round_of_training_moves_the_policy_alone() -> None:
    pooler = made().policy
    grace = made(system="", pooler=pooler, generator=torch.Generator().manual_seed(0))
    before = grace.frozen()
    rounds = improve(
        grace,
        TRIPLES,
        grace.reward,
        PolicyGradient(GRPO(advantage="centered")),
        OnlineSettings(responses=4, steps=4, refresh=2, learning_rate=1e-2),
    )
    assert len(rounds) == 2
    assert rounds[0].divergence is None  # an objective without a reference
    moved = [
        not torch.equal(one, other)
        for one, other in zip(grace.policy.model.parameters(), before.policy.model.parameters(), strict=True)
    ]
    assert all(moved)
    for one, other in zip(pooler.model.parameters(), made().policy.model.parameters(), strict=True):
        assert torch.equal(one, other)
    vectors = grace.encode(["a b", "c", "c"], generator=torch.Generator().manual_seed(4), batch_size=2)
    assert vectors.shape == (3, 16)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    again = grace.encode(["a b", "c", "c"], generator=torch.Generator().manual_seed(4), batch_size=2)
    assert torch.equal(vectors, again)
