"""Reward models: their rewards are those of transformers, however they are computed, written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from nearfar.alignment.reward.model import (
    is_reward_model,
    reward_model,
    rewards,
    rewards_in_batches,
    shares_prefix,
    write_reward_model,
)
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model, write_language_model
from nearfar.errors import DataError, ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "language"
    tokenizer = symbol_tokenizer("abcdefgh")
    write_language_model(tiny_language_model(vocabulary=len(tokenizer)), tokenizer, place)
    return place


def rows(count: int = 3, seed: int = 0) -> list[TokenisedRow]:
    random = np.random.default_rng(seed)

    def drawn(low: int, high: int) -> Any:
        return random.integers(3, 15, random.integers(low, high)).astype(np.int32)

    return [TokenisedRow(drawn(2, 9), tuple(drawn(1, 8) for _ in range(1 + place % 3))) for place in range(count)]


def of_transformers(model: Any, data: list[TokenisedRow]) -> Tensor:
    sequences = [torch.from_numpy(np.concatenate([row.prompt, each])).long() for row in data for each in row.responses]
    longest = max(map(len, sequences))
    ids = torch.stack([pad(each, (0, longest - len(each)), value=model.config.pad_token_id) for each in sequences])
    found: Tensor = model(input_ids=ids, attention_mask=(ids != model.config.pad_token_id).long()).logits[:, 0]
    return found


@pytest.mark.parametrize("shared", [True, False, "auto"])
def test_rewards_are_those_of_transformers(folder: Path, shared: Any) -> None:
    model, _ = reward_model(folder, dtype=torch.float64)
    assert shares_prefix(model)
    data = rows()
    found = rewards(model, data, shared_prefix=shared)
    torch.testing.assert_close(found.reward, of_transformers(model, data), rtol=1e-6, atol=1e-6)
    head: Any = model.score
    torch.testing.assert_close(head(found.state).squeeze(1), found.reward)
    parameters = list(model.parameters())
    weights = torch.arange(1.0, len(found.reward) + 1).double()
    one = torch.autograd.grad((found.reward * weights).sum(), parameters)
    other = torch.autograd.grad((of_transformers(model, data) * weights).sum(), parameters)
    for a, b in zip(one, other, strict=True):
        # the architecture's norms compute in float32 whatever the weights are
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_half_precision_gives_float32(folder: Path) -> None:
    model, _ = reward_model(folder, dtype=torch.bfloat16)
    wide, _ = reward_model(folder)
    found = rewards(model, rows()).reward
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, rewards(wide, rows()).reward, rtol=0.1, atol=0.1)


def test_in_batches_and_in_order(folder: Path) -> None:
    model, _ = reward_model(folder)
    model.train()
    data = rows(9, seed=3)
    given, states = rewards_in_batches(model, data, batch_tokens=25)
    expected = rewards(model.train(False), data)
    torch.testing.assert_close(given, expected.reward, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(states, expected.state, rtol=1e-4, atol=1e-5)
    assert not given.requires_grad
    model.train()
    rewards_in_batches(model, data)
    assert model.training, "its mode is as before"


def test_what_is_written_is_read_the_same(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = reward_model(folder, seed=5)
    write_reward_model(model, tokenizer, tmp_path / "run" / "model")
    (tmp_path / "run" / "config.json").write_text("{}")
    assert is_reward_model(tmp_path / "run" / "model")
    assert not is_reward_model(folder)
    again, words = reward_model(tmp_path / "run", seed=6)
    for (name, a), b in zip(again.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b), name
    torch.testing.assert_close(rewards(again, rows()).reward, rewards(model, rows()).reward)
    assert not again.training
    assert words.pad_token_id == again.config.pad_token_id
    from transformers import AutoModelForSequenceClassification

    peer = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    torch.testing.assert_close(of_transformers(peer.eval(), rows()), rewards(model, rows()).reward)


def test_the_seed_decides_the_head_alone(folder: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = (reward_model(folder, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    heads: list[Any] = [model.score for model in (one, same, other)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    assert heads[0].bias is None
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) != name.startswith("score")


def test_padding_is_never_the_end_of_a_response(tmp_path: Path) -> None:
    tokenizer = symbol_tokenizer("abc")
    tokenizer.pad_token = tokenizer.eos_token
    language = tiny_language_model(vocabulary=len(tokenizer))
    language.config.pad_token_id = tokenizer.eos_token_id
    write_language_model(language, tokenizer, tmp_path / "model")
    model, words = reward_model(tmp_path / "model", dtype=torch.float64)
    assert model.config.pad_token_id == words.pad_token_id != words.eos_token_id
    ending = [TokenisedRow(np.array([1, 8], np.int32), (np.array([9, 2], np.int32), np.array([8, 8, 2], np.int32)))]
    torch.testing.assert_close(rewards(model, ending).reward, of_transformers(model, ending))


def test_what_is_no_reward_model_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    three = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    write_language_model(three, symbol_tokenizer("abcdefgh"), tmp_path / "three")
    with pytest.raises(ModelError, match="3 labels"):
        reward_model(tmp_path / "three")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text(json.dumps({"model_type": "no such"}))
    with pytest.raises(ModelError):
        reward_model(tmp_path / "bad")
    model, _ = reward_model(folder)
    with pytest.raises(DataError, match="without tokens"):
        rewards(model, [TokenisedRow(np.array([1], np.int32), (np.array([], np.int32),))])
