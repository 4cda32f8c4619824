"""Trained keys and values before those of every layer."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar import encoders
from nearfar.encoders.inside import Inside
from nearfar.encoders.prefix import Prefix, Prefixed, attending_to
from nearfar.encoders.prefix_transformer import PREFIX_FILE, PrefixTransformer, add_prefix
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.errors import ModelError, UsageError
from support.sentence_models import bert, texts
from support.transformers_of import WIDTH, tokens, transformer

KINDS = ["bert", "roberta", "distilbert", "modernbert", "electra", "albert"]


def a_prefix(length: int = 4, *, dropout: float = 0.0) -> Prefix:
    torch.manual_seed(3)
    prefix = Prefix(2, WIDTH, length, dropout=dropout).eval()
    with torch.no_grad():
        prefix.table.mul_(50)  # so large that it shows
    return prefix


def hidden(model: Any, ids: Tensor, mask: Tensor, prefix: Prefix | None, *, maps: bool = False) -> Any:
    if prefix is None:
        return model(input_ids=ids, attention_mask=mask.long(), output_attentions=maps)
    with attending_to(model, prefix(len(ids)), maps=maps):
        return model(input_ids=ids, attention_mask=mask.long(), output_attentions=maps)


def test_what_a_prefix_gives() -> None:
    prefix = Prefix(3, 8, 5, dropout=0.5)
    assert prefix.table.shape == (5, 3, 2, 8)
    assert prefix.length == 5
    assert 0.01 < prefix.table.std() < 0.03
    keys, values = prefix.eval()(4)[1]
    assert keys.shape == values.shape == (4, 5, 8)
    torch.testing.assert_close(keys[2], prefix.table[:, 1, 0])
    torch.testing.assert_close(values[3], prefix.table[:, 1, 1])
    drawn = prefix.train()(2)[0][0]
    assert not torch.equal(drawn[0], drawn[1])  # each text has a mask of its own
    kept = drawn != 0
    torch.testing.assert_close(drawn[kept], 2 * prefix.table[:, 0, 0].expand(2, 5, 8)[kept])


def test_one_layer_by_plain_loops() -> None:
    """The attention of the small transformer, written out in float64."""
    torch.manual_seed(0)
    model = TokenTransformer(20, 6, layers=1, heads=2, hidden=4, dropout=0.0).double().eval()
    prefix = Prefix(1, 6, 3).double().eval()
    with torch.no_grad():
        prefix.table.mul_(50)
    ids = torch.tensor([[3, 4, 5], [6, 7, 0]])
    model.requires_grad_(False)
    prefix.requires_grad_(False)
    found = model.states(ids, prefix=prefix(2), attentions=True)
    assert found.attentions is not None
    layer = model.layers[0]
    for text in range(2):
        there = [t for t in range(3) if ids[text, t] != 0]
        x = [model.table[ids[text, t]] for t in there]
        projected = [layer.projections(layer.before(vector)) for vector in x]
        for place, vector in enumerate(x):
            mixed = []
            for head in range(2):
                part = slice(3 * head, 3 * head + 3)
                query = projected[place][:6][part]
                keys = [prefix.table[p, 0, 0][part] for p in range(3)] + [each[6:12][part] for each in projected]
                values = [prefix.table[p, 0, 1][part] for p in range(3)] + [each[12:][part] for each in projected]
                scores = [float(query @ key) / math.sqrt(3) for key in keys]
                total = sum(math.exp(score) for score in scores)
                weights = [math.exp(score) / total for score in scores]
                mixed.append(sum(w * value for w, value in zip(weights, values, strict=True)))
                expected = torch.zeros(6, dtype=torch.float64)
                expected[: len(weights)] = torch.tensor(weights)
                torch.testing.assert_close(found.attentions[0][text, head, place], expected)
            y = vector + layer.out(torch.cat(mixed))
            y = y + layer.down(torch.relu(layer.up(layer.between(y))))
            torch.testing.assert_close(found.hidden[text, place], y, rtol=1e-10, atol=1e-12)


def test_encoder_and_prefix_as_one_module() -> None:
    model, prefix = TokenTransformer(80, WIDTH, layers=2).eval(), a_prefix()
    ids, mask = tokens()
    both = Prefixed(model.requires_grad_(False), prefix).eval()
    expected = model.states(ids, mask, prefix=prefix(3)).mean()
    torch.testing.assert_close(both(ids, mask), expected)
    assert (both(ids, mask) - model(ids, mask)).abs().max() > 1e-3
    both(ids).sum().backward()
    assert prefix.table.grad is not None
    assert (prefix.table.grad.abs().sum((0, 3)) > 0).all()
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_fused_and_stepwise_agree_and_padding_takes_no_part(kind: str) -> None:
    model, prefix = transformer(kind).eval(), a_prefix()
    ids, mask = tokens()
    with torch.no_grad():
        plain = hidden(model, ids, mask, None).last_hidden_state
        fused = hidden(model, ids, mask, prefix).last_hidden_state
        stepwise = hidden(model, ids, mask, prefix, maps=True)
        torch.testing.assert_close(fused[mask], stepwise.last_hidden_state[mask])
        assert (fused - plain)[mask].abs().max() > 1e-3
        torch.testing.assert_close(hidden(model, ids, mask, None).last_hidden_state, plain)  # nothing stays behind
        other = torch.where(mask, ids, 7)
        torch.testing.assert_close(hidden(model, other, mask, prefix).last_hidden_state[mask], fused[mask])
    assert [tuple(each.shape) for each in stepwise.attentions] == [(3, 2, 7, 11)] * 2
    torch.testing.assert_close(stepwise.attentions[0].sum(3), torch.ones(3, 2, 7))
    assert (stepwise.attentions[1][..., :4] > 0).all()
    assert (stepwise.attentions[1][1, ..., 9:] == 0).all()
    assert model.config._attn_implementation == "sdpa"


def test_parity_with_the_cache_of_bert() -> None:
    """The official code hands the prefix to BERT as past keys and values."""
    from transformers import DynamicCache

    model, prefix = transformer("bert").eval(), a_prefix()
    ids, mask = tokens()
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(prefix(3)):
        cache.update(*(part.reshape(3, 4, 2, WIDTH // 2).transpose(1, 2) for part in (keys, values)), layer)
    seen = torch.cat([torch.ones(3, 4, dtype=torch.bool), mask], 1)[:, None, None, :].expand(3, 1, 7, 11)
    name = "cache" if "cache" in inspect.signature(model.encoder.layer[0].forward).parameters else "past_key_values"
    with torch.no_grad():
        expected = model(
            input_ids=ids, attention_mask=seen, position_ids=torch.arange(7)[None], **{name: cache}
        ).last_hidden_state
        found = hidden(model, ids, mask, prefix).last_hidden_state
    torch.testing.assert_close(found[mask], expected[mask])


def test_the_prefix_learns_and_the_transformer_stays_bit_for_bit(tmp_path: Path) -> None:
    model = encoders.load(bert(tmp_path / "bert"), device="cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prefix = add_prefix(model, 3)
    assert prefix.dropout.p == 0.1
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["0.prefix.table"]
    features = encoders.tokenize(model, texts(6))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.03)
    start = prefix.table.detach().clone()
    model.train()
    for _ in range(8):
        z = model(dict(features))["sentence_embedding"]
        cost = (z[:3] - z[3:]).square().sum()
        optimizer.zero_grad()
        cost.backward()
        assert prefix.table.grad is not None
        assert prefix.table.grad.abs().sum((0, 3)).min() > 0  # keys and values of every layer
        optimizer.step()
    assert not torch.equal(start, prefix.table)
    for name, value in before.items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_saved_and_loaded_it_gives_equal_vectors(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = encoders.load(bert(tmp_path / "bert"), device="cpu")
    sentences = texts(9)
    without = encoders.encode(model, sentences)
    prefix = add_prefix(model, 5, dropout=0.25)
    with torch.no_grad():
        prefix.table.mul_(50)
    with_prefix = encoders.encode(model, sentences)
    assert np.abs(with_prefix - without).max() > 1e-3
    encoders.save(model, tmp_path / "saved")
    again = encoders.load(tmp_path / "saved", device="cpu")
    assert isinstance(again[0], PrefixTransformer)
    assert again[0].prefix.dropout.p == 0.25
    np.testing.assert_array_equal(encoders.encode(again, sentences), with_prefix)
    assert encoders.fingerprint(again) == encoders.fingerprint(model)
    # the library by itself does not leave the prefix out in silence
    with pytest.raises(ValueError, match="PrefixTransformer"):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    trusted = SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    plain = trusted.encode(sentences, normalize_embeddings=True)
    np.testing.assert_allclose(plain, with_prefix, atol=1e-6)


def test_an_encoder_with_a_prefix_uses_it_inside_too(tmp_path: Path) -> None:
    model = encoders.load(bert(tmp_path / "bert"), device="cpu").eval()
    prefix = add_prefix(model, 5)
    with torch.no_grad():
        prefix.table.mul_(50)
        features = encoders.tokenize(model, texts(4))
        inside = Inside(model)
        found = inside.pool(inside.states(features["input_ids"], features["attention_mask"]))
        torch.testing.assert_close(found, model(features)["sentence_embedding"])


def test_a_damaged_folder(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = encoders.load(bert(tmp_path / "bert"), device="cpu")
    add_prefix(model, 5)
    encoders.save(model, tmp_path / "saved")
    save_file({"table": torch.zeros(5, 3, 2, 16)}, tmp_path / "saved" / PREFIX_FILE)
    with pytest.raises(ModelError, match=r"\[5, 3, 2, 16\]"):
        encoders.load(tmp_path / "saved")
    (tmp_path / "saved" / PREFIX_FILE).unlink()
    with pytest.raises(ModelError, match=r"prefix\.safetensors is missing"):
        encoders.load(tmp_path / "saved")


def test_no_other_class_of_ones_own_is_loaded(tmp_path: Path) -> None:
    model = encoders.load(bert(tmp_path / "bert"), device="cpu")
    add_prefix(model, 5)
    encoders.save(model, tmp_path / "saved")
    modules = tmp_path / "saved" / "modules.json"
    written = modules.read_text()
    for other in ("nearfar.encoders.prefix.Prefixed", "elsewhere.PrefixTransformer"):
        modules.write_text(written.replace("nearfar.encoders.prefix_transformer.PrefixTransformer", other))
        with pytest.raises(ModelError, match="code outside sentence-transformers"):
            encoders.load(tmp_path / "saved")


def test_what_cannot_be_given_a_prefix(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="attention of its own"), attending_to(transformer("mpnet"), a_prefix()(1)):
        pass
    model = transformer("bert")
    model.gradient_checkpointing_enable()
    with pytest.raises(ModelError, match="gradient checkpointing"), attending_to(model, a_prefix()(1)):
        pass
    static = encoders.load("static", texts=texts(40), dimension=8, vocabulary_size=400, device="cpu")
    with pytest.raises(ModelError, match="StaticEmbedding cannot be given a prefix"):
        add_prefix(static)
    encoder = encoders.load(bert(tmp_path / "bert"), device="cpu")
    add_prefix(encoder)
    with pytest.raises(UsageError, match="already"):
        add_prefix(encoder)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_prefix_of_another_number_of_layers(layers: int) -> None:
    ids, mask = tokens()
    with pytest.raises(ModelError, match="attending layers"):
        hidden(transformer("bert").eval(), ids, mask, Prefix(layers, WIDTH, 2))
    with pytest.raises(ValueError, match="layers"):
        TokenTransformer(80, WIDTH, layers=2).states(ids, prefix=Prefix(layers, WIDTH, 2)(3))
    assert hidden(transformer("bert").eval(), ids, mask, None).last_hidden_state.shape == (3, 7, WIDTH)


def test_a_prefix_of_another_width_or_batch() -> None:
    ids, _ = tokens()
    for prefix in (Prefix(2, 2 * WIDTH, 2)(3), Prefix(2, WIDTH, 2)(2)):
        with pytest.raises(ValueError, match="a prefix of 3 texts"):
            TokenTransformer(80, WIDTH, layers=2).states(ids, prefix=prefix)


def test_half_precision() -> None:
    model, prefix = transformer("bert").eval().bfloat16(), a_prefix()
    ids, mask = tokens()
    with torch.no_grad():
        found = hidden(model, ids, mask, prefix).last_hidden_state
    assert found.dtype == torch.bfloat16
    assert found.isfinite().all()


@pytest.mark.parametrize("sizes", [(0, 8, 4), (2, 0, 4), (2, 8, 0)])
def test_sizes_below_one(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="at least one"):
        Prefix(*sizes)
    with pytest.raises(UsageError, match="dropout"):
        Prefix(2, 8, 4, dropout=1.0)
