"""The tiny transformer: a plain transcription of its formula, padding, what it shows of its inside, dropout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nearfar.encoders.dropout_rates import dropout_rate
from nearfar.encoders.heads import Pooler
from nearfar.encoders.states import SpecialTokens
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.errors import UsageError

IDS = torch.tensor([[3, 4, 5, 0, 0, 0], [6, 3, 3, 7, 8, 9], [9, 0, 0, 0, 0, 0]])


def made(**options: object) -> TokenTransformer:
    torch.manual_seed(0)
    return TokenTransformer(10, 8, heads=2, hidden=12, **options).double().eval()  # type: ignore[arg-type]


def by_hand(encoder: TokenTransformer, ids: list[int]) -> tuple[Tensor, list[Tensor]]:
    """Tokens ``[t, d]`` after all layers, and the attention maps ``[heads, t, t]``, for one text without padding."""
    x = torch.stack([encoder.table[i] for i in ids])
    if encoder.places is not None:
        x = x + encoder.places[: len(ids)]
    maps = []
    for layer in encoder.layers:
        width = encoder.dimension // 2
        projected = layer.projections(layer.before(x))
        q, k, v = projected.split(encoder.dimension, dim=1)
        heads, weights = [], []
        for h in range(2):
            part = slice(h * width, (h + 1) * width)
            rows, weight_rows = [], []
            for i in range(len(ids)):
                scores = torch.stack([(q[i, part] * k[j, part]).sum() / math.sqrt(width) for j in range(len(ids))])
                weight = scores.exp() / scores.exp().sum()
                weight_rows.append(weight)
                rows.append(sum(weight[j] * v[j, part] for j in range(len(ids))))
            heads.append(torch.stack(rows))
            weights.append(torch.stack(weight_rows))
        x = x + layer.out(torch.cat(heads, 1))
        x = x + layer.down(layer.up(layer.between(x)).clamp_min(0))
        maps.append(torch.stack(weights))
    return x, maps


@pytest.mark.parametrize(("layers", "positions"), [(0, None), (1, None), (2, None), (2, 6)])
def test_it_is_what_the_formula_says(layers: int, positions: int | None) -> None:
    encoder = made(layers=layers, positions=positions)
    states = encoder.states(IDS, attentions=True)
    for row, ids in enumerate(IDS.tolist()):
        text = [i for i in ids if i]
        expected, maps = by_hand(encoder, text)
        torch.testing.assert_close(states.hidden[row, : len(text)], expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(encoder(IDS)[row], expected.mean(0), atol=1e-10, rtol=0)
        assert states.attentions is not None
        for found, attention in zip(states.attentions, maps, strict=True):
            torch.testing.assert_close(found[row, :, : len(text), : len(text)], attention, atol=1e-10, rtol=0)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_padding_changes_nothing(layers: int, pooling: str) -> None:
    encoder = made(layers=layers, pooling=pooling, positions=9)
    together = encoder(torch.cat([IDS, torch.zeros(3, 3, dtype=torch.int64)], 1))
    alone = torch.cat([encoder(row[row != 0][None]) for row in IDS])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)
    # what stands at padding is of no account either, where a mask says so
    filled = torch.where(IDS == 0, 7, IDS)
    torch.testing.assert_close(encoder(filled, IDS != 0), encoder(IDS), atol=1e-12, rtol=0)


def test_without_positions_the_order_does_not_count_and_with_them_it_does() -> None:
    swapped = IDS[1:2].flip(1)
    plain, placed = made(layers=2), made(layers=2, positions=6)
    torch.testing.assert_close(plain(swapped), plain(IDS[1:2]))
    assert float((placed(swapped) - placed(IDS[1:2])).detach().abs().max()) > 1e-3


def test_states_show_layers_and_attentions() -> None:
    encoder = made(layers=3)
    states = encoder.states(IDS, layers=True, attentions=True)
    assert states.layers is not None
    assert states.attentions is not None
    assert [tuple(each.shape) for each in states.layers] == [(3, 6, 8)] * 4
    assert [tuple(each.shape) for each in states.attentions] == [(3, 2, 6, 6)] * 3
    assert torch.equal(states.layers[0], encoder.embed(IDS))
    assert torch.equal(states.layers[-1], states.hidden)
    for attention in states.attentions:
        torch.testing.assert_close(attention.sum(3), torch.ones(3, 2, 6).double())
        for row, real in enumerate((IDS != 0).tolist()):
            assert not bool(attention[row][..., ~torch.tensor(real)].any())
    shorter = encoder.states(IDS)
    assert shorter.layers is None
    assert shorter.attentions is None
    assert torch.equal(shorter.hidden, states.hidden)
    # each layer's output is what the next one begins with
    torch.testing.assert_close(made(layers=1).states(IDS).hidden, states.layers[1])


def test_inputs_take_the_place_of_embeddings() -> None:
    encoder = made(layers=2, positions=6)
    torch.testing.assert_close(encoder.states(IDS, inputs=encoder.embed(IDS)).hidden, encoder.states(IDS).hidden)
    other = encoder.embed(IDS).detach().requires_grad_()
    encoder.pool(encoder.states(IDS, inputs=other)).sum().backward()
    assert other.grad is not None
    assert bool((other.grad[IDS != 0].abs().sum(1) > 0).all())
    assert not bool(other.grad[IDS == 0].any())


def test_no_layers_make_a_bag_of_words() -> None:
    encoder = made(layers=0)
    expected = torch.stack([encoder.table[row[row != 0]].mean(0) for row in IDS])
    torch.testing.assert_close(encoder(IDS), expected)
    assert encoder.states(IDS, attentions=True, layers=True).attentions == []


def test_a_text_without_tokens_is_zero_and_disturbs_nobody() -> None:
    encoder = made(layers=2)
    empty = torch.zeros(1, 6, dtype=torch.int64)
    assert not bool(encoder(empty).any())
    with_it = encoder(torch.cat([IDS, empty]))
    torch.testing.assert_close(with_it[:3], encoder(IDS))
    assert encoder(IDS[:0]).shape == (0, 8)
    with_it.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in encoder.parameters())


def test_gradients_agree_with_those_of_the_plain_formula() -> None:
    encoder = made(layers=2)
    encoder(IDS).square().sum().backward()
    found = {name: p.grad for name, p in encoder.named_parameters()}
    encoder.zero_grad()
    texts = [by_hand(encoder, [i for i in row if i])[0].mean(0) for row in IDS.tolist()]
    torch.stack(texts).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-10, rtol=0, msg=name)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_leaves_out_the_share_it_is_asked_to_and_keeps_the_mean(rate: float) -> None:
    encoder = TokenTransformer(2, 1, layers=0, heads=1, dropout=rate, vectors=torch.ones(2, 1)).train()
    torch.manual_seed(0)
    kept = encoder.embed(torch.ones(300, 1001, dtype=torch.int64))
    assert sorted(kept.unique().tolist()) == pytest.approx([0.0, 1 / (1 - rate)])
    assert float((kept == 0).double().mean()) == pytest.approx(rate, abs=0.003)
    # neighbours are independent, although four of them come from one random number
    both = ((kept[:, :-1] == 0) & (kept[:, 1:] == 0)).double().mean()
    assert float(both) == pytest.approx(rate**2, abs=0.003)


def test_views_differ_in_training_only_and_come_from_torchs_generator() -> None:
    encoder = made(layers=1)
    assert torch.equal(encoder(IDS), encoder(IDS))
    encoder.train()
    torch.manual_seed(3)
    one, other = encoder(IDS), encoder(IDS)
    torch.manual_seed(3)
    assert torch.equal(encoder(IDS), one)
    assert not torch.equal(one, other)
    with dropout_rate(encoder, 0.0):
        assert torch.equal(encoder(IDS), encoder.eval()(IDS))


def test_half_precision_and_the_start_from_vectors() -> None:
    vectors = torch.randn(10, 8)
    encoder = TokenTransformer(10, 8, heads=2, vectors=vectors)
    assert torch.equal(encoder.table, vectors)
    assert encoder.table.data_ptr() != vectors.data_ptr()
    half = encoder.to(torch.bfloat16).train()
    assert bool(half(IDS).isfinite().all())
    assert half(IDS).dtype == torch.bfloat16


def test_special_tokens_name_the_padding() -> None:
    encoder = TokenTransformer(10, 8, heads=2, special=SpecialTokens(padding=9)).eval()
    states = encoder.states(torch.tensor([[0, 1, 9]]))
    assert states.mask.tolist() == [[True, True, False]]


def test_what_it_refuses() -> None:
    with pytest.raises(UsageError, match="multiple of heads"):
        TokenTransformer(10, 9, heads=2)
    with pytest.raises(UsageError, match="dropout"):
        TokenTransformer(10, 8, dropout=1.0)
    with pytest.raises(UsageError, match="pooling"):
        TokenTransformer(10, 8, pooling="last")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="vectors"):
        TokenTransformer(10, 8, vectors=torch.zeros(9, 8))
    encoder = made(positions=5)
    with pytest.raises(ValueError, match="integers"):
        encoder(IDS.double())
    with pytest.raises(ValueError, match="5 positions"):
        encoder(IDS)
    with pytest.raises(ValueError, match="mask"):
        encoder(IDS, torch.ones(3, 5))
    with pytest.raises(ValueError, match="inputs"):
        made().states(IDS, inputs=torch.zeros(3, 6, 7))


def test_the_pooler_is_a_dense_layer_and_tanh() -> None:
    torch.manual_seed(0)
    head = Pooler(4, 3).double()
    x = torch.randn(5, 4).double()
    expected = torch.stack(
        [
            torch.stack(
                [
                    torch.tanh(sum(x[i, k] * head.dense.weight[j, k] for k in range(4)) + head.dense.bias[j])
                    for j in range(3)
                ]
            )
            for i in range(5)
        ]
    )
    torch.testing.assert_close(head(x), expected)
    assert isinstance(Pooler(4).dense, nn.Linear)
    assert Pooler(4)(x.float()).shape == (5, 4)
    with pytest.raises(UsageError, match="pooler"):
        Pooler(0)
