from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from nearfar.alignment.language import LanguagePolicy, SampledText
from nearfar.data.preferences.tokens import Budget
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model
from nearfar.errors import DataError, UsageError

PROMPTS = ["a b c", "d", ({"role": "user", "content": "a"},)]


@pytest.fixture(scope="module")
def tokenizer():
    return symbol_tokenizer("abcdefgh")


def policy(tokenizer, **settings) -> LanguagePolicy:
    return LanguagePolicy(
        tiny_language_model(vocabulary=len(tokenizer)), tokenizer, **{"max_new_tokens": 5, **settings}
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_samples_are_decided_by_the_generator_alone(tokenizer):
    asked = policy(tokenizer)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = asked.sample(PROMPTS, 4, generator=generator())
    assert torch.equal(torch.rand(1), expected)
    assert first == asked.sample(PROMPTS, 4, generator=generator())
    going_on = generator()
    asked.sample(PROMPTS, 4, generator=going_on)
    assert first != asked.sample(PROMPTS, 4, generator=going_on)
    assert [len(each) for each in first] == [4, 4, 4]


def test_responses_are_drawn_from_the_distribution_that_scores_say(tokenizer):
    """Of one-token responses the counts are those of exp(score) to within four standard errors, at a temperature."""
    asked = policy(tokenizer, max_new_tokens=1, temperature=0.8, batch_size=4000)
    # what a model was saved with does not leak in
    asked.model.generation_config.repetition_penalty = 5.0
    drawn = asked.sample(["a b", "c"], 4000, generator=generator())
    for prompt, texts in zip(["a b", "c"], drawn, strict=True):
        counts = Counter(int(text.tokens[0]) for text in texts)
        every = [SampledText.of("", np.array([token], np.int32), True) for token in range(len(tokenizer))]
        chance = asked.scores([prompt], [every]).log_probability[0].detach().exp().tolist()
        assert sum(chance) == pytest.approx(1, abs=1e-4)
        for token, share in enumerate(chance):
            assert abs(counts[token] - 4000 * share) < 4 * math.sqrt(4000 * share * (1 - share)) + 1


def test_padding_does_not_change_what_is_drawn(tokenizer):
    """A prompt alone, and beside a longer one: the likeliest tokens (the narrowest nucleus) are the same."""
    asked = policy(tokenizer, top_p=1e-6)
    alone = asked.sample(["d"], 1)[0][0]
    beside = asked.sample(["a b c d e f g h a b c", "d"], 1)[1][0]
    assert alone.tokens.tolist() == beside.tokens.tolist()


def test_a_response_ends_where_the_token_of_the_end_was_drawn(tokenizer):
    asked = policy(tokenizer, max_new_tokens=30)
    texts = [text for texts in asked.sample(PROMPTS, 40, generator=generator()) for text in texts]
    assert {text.ended for text in texts} == {True, False}
    for text in texts:
        assert (text.tokens[-1] == 2) == text.ended
        assert 2 not in text.tokens[:-1].tolist()
        assert text.ended or len(text.tokens) == 30
        assert "</s>" not in text


def test_scores_of_samples_are_of_the_tokens_that_were_drawn(tokenizer):
    asked = policy(tokenizer, temperature=0.7)
    drawn = asked.sample(PROMPTS, 3, generator=generator())
    found = asked.scores(PROMPTS, drawn, tokens=True)
    assert found.length.tolist() == [[len(text.tokens) for text in texts] for texts in drawn]
    torch.testing.assert_close(found.tokens.sum(2), found.log_probability)
    for row, (prompt, texts) in enumerate(zip(PROMPTS, drawn, strict=True)):
        begun = asked.rows([prompt], [texts])[0].prompt
        for column, text in enumerate(texts):
            ids = torch.from_numpy(np.concatenate([begun, text.tokens]).astype(np.int64))[None]
            log_p = torch.log_softmax(asked.model(input_ids=ids).logits[0] / 0.7, 1)
            each = [log_p[len(begun) - 1 + place, token] for place, token in enumerate(text.tokens.tolist())]
            assert found.log_probability[row, column].item() == pytest.approx(sum(each).item(), abs=1e-4)


def test_other_texts_are_tokenised_and_ended(tokenizer):
    asked = policy(tokenizer)
    (row,) = asked.rows(["a b"], [["c d", "e"]])
    assert row.prompt.tolist() == [1, 7, 8]
    assert [response.tolist() for response in row.responses] == [[9, 10, 2], [11, 2]]
    spoken = asked.rows([PROMPTS[2]], [["c"]])[0]
    assert spoken.prompt.tolist() == [1, 5, 7, 2, 6]
    assert spoken.responses[0].tolist() == [9, 2]
    mixed = asked.rows(["a", "b"], [asked.sample(["a"], 2)[0], ["c", "d"]])
    assert [len(row.responses) for row in mixed] == [2, 2]
    assert asked.scores(["a", "b"], [["c"], ["d"]]).log_probability.requires_grad


def test_prompts_keep_to_the_budget(tokenizer):
    asked = policy(tokenizer, budget=Budget(prompt=3, response=2))
    assert asked.rows(["a b c d"], [["e f g"]])[0].prompt.tolist() == [1, 9, 10]
    assert len(asked.sample(["a b c d"], 2)[0]) == 2


def test_dropout_is_off_while_sampling_and_the_mode_comes_back(tokenizer):
    model = tiny_language_model(vocabulary=len(tokenizer), dropout=0.5).train()
    asked = LanguagePolicy(model, tokenizer, max_new_tokens=4, top_p=1e-6)
    assert len({tuple(text.tokens.tolist()) for text in asked.sample(["a b"], 20)[0]}) == 1
    assert model.training


def test_a_frozen_policy_stays_as_it_was(tokenizer):
    asked = policy(tokenizer)
    drawn = asked.sample(PROMPTS, 2, generator=generator())
    before = asked.scores(PROMPTS, drawn).detach().log_probability
    kept = asked.frozen()
    with torch.no_grad():
        for parameter in asked.parameters():
            parameter.mul_(1.1)
    assert torch.equal(kept.scores(PROMPTS, drawn).log_probability, before)
    assert not torch.allclose(asked.scores(PROMPTS, drawn).log_probability, before)
    assert not any(parameter.requires_grad for parameter in kept.parameters())


def test_of_a_new_adapter_the_frozen_policy_is_the_same_weights_without_it(tokenizer):
    from peft import LoraConfig, get_peft_model

    model = tiny_language_model(vocabulary=len(tokenizer))
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    asked = LanguagePolicy(wrapped, tokenizer, max_new_tokens=4)
    kept = asked.frozen()
    assert kept.model is asked.model
    drawn = asked.sample(PROMPTS, 2, generator=generator())
    before = asked.scores(PROMPTS, drawn).detach().log_probability
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    torch.testing.assert_close(kept.scores(PROMPTS, drawn).log_probability, before)
    assert not torch.allclose(asked.scores(PROMPTS, drawn).log_probability, before)
    again = asked.frozen()
    assert again.model is not asked.model
    torch.testing.assert_close(
        again.scores(PROMPTS, drawn).log_probability, asked.scores(PROMPTS, drawn).log_probability
    )


def test_a_step_up_the_gradient_raises_what_it_should(tokenizer):
    asked = policy(tokenizer)
    optimizer = torch.optim.SGD(asked.parameters(), lr=0.1)
    first = asked.scores(["a b"], [["c d"]]).log_probability.sum()
    (-first).backward()
    optimizer.step()
    assert asked.scores(["a b"], [["c d"]]).log_probability.sum().item() > first.item()


def test_what_cannot_be_is_refused(tokenizer):
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"max_new_tokens": 0}, {"batch_size": 0}):
        with pytest.raises(UsageError):
            policy(tokenizer, **wrong)
    with pytest.raises(ValueError, match="different numbers"):
        policy(tokenizer).scores(["a", "b"], [["c"], ["d", "e"]])
    silent = symbol_tokenizer("ab")
    silent.eos_token = None
    with pytest.raises(DataError, match=r"no tokens|no row is left"):
        LanguagePolicy(tiny_language_model(), silent).scores(["a"], [[""]])
