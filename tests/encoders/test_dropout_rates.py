"""Every dropout at one rate for some passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nearfar.encoders.dropout_rates import dropout_rate, dropout_rates
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.errors import ModelError, UsageError


def transformer(kind: str) -> nn.Module:
    from transformers import (
        BertConfig,
        BertModel,
        DistilBertConfig,
        DistilBertModel,
        ModernBertConfig,
        ModernBertModel,
        MPNetConfig,
        MPNetModel,
        T5Config,
        T5EncoderModel,
    )

    torch.manual_seed(0)
    common: Any = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "bert":
        return BertModel(BertConfig(**common, intermediate_size=32, hidden_dropout_prob=0.3))
    if kind == "mpnet":
        return MPNetModel(MPNetConfig(**common, intermediate_size=32))
    if kind == "modernbert":
        ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
        return ModernBertModel(ModernBertConfig(**common, intermediate_size=32, attention_dropout=0.4, **ids))
    if kind == "distilbert":
        return DistilBertModel(DistilBertConfig(vocab_size=30, dim=16, n_layers=2, n_heads=2, hidden_dim=32))
    return T5EncoderModel(T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))


KINDS = ["bert", "distilbert", "mpnet", "modernbert", "t5"]


def differs(model: Any) -> float:
    """How far two passes over the same tokens lie apart."""
    ids = torch.arange(1, 13).view(2, 6)
    with torch.no_grad():
        first, second = (model(input_ids=ids).last_hidden_state for _ in range(2))
    return float((first - second).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_all_rates_are_set_and_each_comes_back(kind: str) -> None:
    model = transformer(kind).train()
    before = dropout_rates(model)
    assert len(before) >= 4
    with dropout_rate(model, 0.25):
        assert set(dropout_rates(model)) == {0.25}
        assert differs(model) > 0
    assert dropout_rates(model) == before


@pytest.mark.parametrize("kind", KINDS)
def test_at_rate_zero_training_mode_is_the_plain_pass(kind: str) -> None:
    """Any dropout that was overlooked would show."""
    model = transformer(kind)
    ids = torch.arange(1, 13).view(2, 6)
    with torch.no_grad():
        plain = model.eval()(input_ids=ids).last_hidden_state
        with dropout_rate(model.train(), 0.0):
            torch.testing.assert_close(model(input_ids=ids).last_hidden_state, plain)
            assert differs(model) == 0


def test_the_small_transformer() -> None:
    model = TokenTransformer(30, 16, layers=2, dropout=0.2).train()
    ids = torch.arange(1, 13).view(2, 6)
    assert dropout_rates(model) == [0.2, 0.2, 0.2]
    with dropout_rate(model, 0.0):
        torch.testing.assert_close(model(ids), model.eval()(ids))
    assert dropout_rates(model) == [0.2, 0.2, 0.2]


def test_a_higher_rate_makes_views_differ_more() -> None:
    model = transformer("bert").train()
    apart = []
    for rate in (0.01, 0.5):
        torch.manual_seed(1)
        with dropout_rate(model, rate):
            apart.append(sum(differs(model) for _ in range(10)))
    assert apart[1] > 1.5 * apart[0]


def test_rates_come_back_after_an_error_and_blocks_nest() -> None:
    model = nn.Sequential(nn.Dropout(0.1), nn.Dropout1d(0.3), nn.MultiheadAttention(4, 2, dropout=0.2))

    def failing() -> None:
        with dropout_rate(model, 0.5):
            with dropout_rate(model, 0.0):
                assert dropout_rates(model) == [0.0, 0.0, 0.0]
            assert dropout_rates(model) == [0.5, 0.5, 0.5]
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert dropout_rates(model) == [0.1, 0.3, 0.2]


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_what_is_no_rate(rate: float) -> None:
    with pytest.raises(UsageError, match=r"\[0, 1\)"), dropout_rate(nn.Dropout(0.1), rate):
        pass


def test_a_model_without_dropout() -> None:
    with pytest.raises(ModelError, match="no dropout"), dropout_rate(nn.Linear(2, 2), 0.1):
        pass
