"""A user's transformer that can be looked into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nearfar import encoders
from nearfar.encoders.inside import Inside
from nearfar.encoders.sentence_modules import module_class, sentence_transformer_class
from nearfar.errors import ModelError
from support.sentence_models import bert, texts
from support.transformers_of import WIDTH, saved

KINDS = ["bert", "roberta", "distilbert", "mpnet", "modernbert"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("bert") / "plain")


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    kind = request.param
    place = folder if kind == "bert" else saved(kind, tmp_path_factory.mktemp(kind) / "plain", folder)
    return encoders.load(place, device="cpu").eval()


def batch(encoder: Any, rows: int = 5) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    features = encoders.tokenize(encoder, texts(rows))
    return features["input_ids"], features["attention_mask"].bool(), features


def test_the_pooled_states_are_the_embedding(encoder: Any) -> None:
    inside = Inside(encoder)
    ids, mask, features = batch(encoder)
    with torch.no_grad():
        expected = encoder(dict(features))
        states = inside.states(ids, mask)
        torch.testing.assert_close(states.hidden[mask], expected["token_embeddings"][mask])
        torch.testing.assert_close(inside.pool(states), expected["sentence_embedding"])
    assert states.mask.equal(mask)
    assert states.layers is None
    assert states.attentions is None
    assert (inside.dimension, inside.depth) == (WIDTH, 2)
    assert inside.vocabulary == encoder[0].auto_model.config.vocab_size


def test_layers_and_attention_maps(encoder: Any) -> None:
    inside = Inside(encoder)
    ids, mask, _ = batch(encoder)
    usual = inside.model.config._attn_implementation
    with torch.no_grad():
        plain = inside.states(ids, mask)
        states = inside.states(ids, mask, layers=True, attentions=True)
    assert states.layers is not None
    assert states.attentions is not None
    assert len(states.layers) == 3
    torch.testing.assert_close(states.layers[-1], states.hidden)
    torch.testing.assert_close(states.layers[0][mask], inside.embed(ids)[mask])
    torch.testing.assert_close(states.hidden[mask], plain.hidden[mask])
    n, length = ids.shape
    assert [tuple(each.shape) for each in states.attentions] == [(n, 2, length, length)] * 2
    for each in states.attentions:
        rows = each.transpose(1, 2)[mask]
        torch.testing.assert_close(rows.sum(2), torch.ones(rows.shape[:2]))
        assert (each.transpose(1, 3)[~mask].transpose(1, 2)[:, :, 0] == 0).all()  # nobody looks at padding
    assert inside.model.config._attn_implementation == usual


def test_chosen_maps_are_empty_in_the_rows_of_padding(encoder: Any) -> None:
    inside = Inside(encoder)
    ids, mask, _ = batch(encoder)
    with torch.no_grad():
        states = inside.states(ids, mask, attentions=True)
        maps = states.maps([1, 0])
        assert states.attentions is not None
        for place, layer in enumerate((1, 0)):
            for text in range(len(ids)):
                there = mask[text]
                torch.testing.assert_close(maps[text, place][:, there], states.attentions[layer][text][:, there])
                assert (maps[text, place][:, ~there] == 0).all()
        with pytest.raises(ValueError, match="without attention maps"):
            inside.states(ids, mask).maps([0])


def test_maps_are_those_after_dropout(encoder: Any) -> None:
    """Where an entry of a map was dropped it is 0, and what is left is larger."""
    inside = Inside(encoder)
    ids, mask, _ = batch(encoder)
    encoder.train()
    torch.manual_seed(0)
    states = inside.states(ids, mask, attentions=True)
    encoder.eval()
    assert states.attentions is not None
    square = (mask[:, None, :, None] & mask[:, None, None, :]).expand_as(states.attentions[0])
    entries = torch.cat([each[square] for each in states.attentions])
    assert 0.05 < (entries == 0).float().mean() < 0.16
    assert entries.requires_grad


def test_given_inputs_take_the_place_of_the_embeddings(encoder: Any) -> None:
    inside = Inside(encoder)
    ids, mask, _ = batch(encoder)
    with torch.no_grad():
        plain = inside.states(ids, mask).hidden
        given = inside.embed(ids)
        torch.testing.assert_close(inside.states(ids, mask, inputs=given).hidden[mask], plain[mask])
        other = torch.full_like(ids, 9)  # the ids do not count then
        torch.testing.assert_close(inside.states(other, mask, inputs=given).hidden[mask], plain[mask])
        changed = inside.states(ids, mask, inputs=given.flip(0)).hidden
        assert (changed - plain)[mask].abs().max() > 1e-3
        torch.testing.assert_close(inside.states(ids, mask).hidden, plain)  # and nothing stays behind
    leaf = given.clone().requires_grad_()
    inside.pool(inside.states(ids, mask, inputs=leaf)).square().sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad[mask].abs().sum(1) > 0).all()
    with pytest.raises(ValueError, match="inputs must be"):
        inside.states(ids, mask, inputs=given[:, 1:])


def test_without_a_mask_padding_is_left_out(encoder: Any) -> None:
    inside = Inside(encoder)
    ids, mask, _ = batch(encoder)
    with torch.no_grad():
        states = inside.states(ids)
    assert states.mask.equal(mask)
    assert inside.special.padding == 0
    assert (inside.special.first, inside.special.last, inside.special.mask) == (2, 3, 4)
    assert inside.special.all == {0, 1, 2, 3, 4}


def test_it_holds_nothing_of_its_own(folder: Path) -> None:
    encoder = encoders.load(folder, device="cpu")
    method = nn.Module()
    method.encoder = encoder
    method.inside = Inside(encoder)
    assert len(list(method.state_dict())) == len(list(encoder.state_dict()))


def test_one_text_and_half_precision(folder: Path) -> None:
    encoder = encoders.load(folder, device="cpu").eval().bfloat16()
    inside = Inside(encoder)
    states = inside.states(torch.tensor([[2, 7, 3]]), attentions=True, layers=True)
    assert inside.pool(states).shape == (1, WIDTH)
    assert states.hidden.dtype == torch.bfloat16
    assert states.hidden.isfinite().all()


def test_a_pooling_over_layers(folder: Path) -> None:
    build = sentence_transformer_class()
    begin = module_class("Transformer")(str(folder), config_kwargs={"output_hidden_states": True})
    weights = module_class("WeightedLayerPooling")(WIDTH, num_hidden_layers=2, layer_start=0)
    pooling = module_class("Pooling")(WIDTH, "mean")
    encoder = build(modules=[begin, weights, pooling, module_class("Normalize")()], device="cpu").eval()
    inside = Inside(encoder)
    ids, mask, features = batch(encoder)
    with torch.no_grad():
        torch.testing.assert_close(inside.pool(inside.states(ids, mask)), encoder(features)["sentence_embedding"])


def test_what_cannot_be_looked_into(folder: Path, tmp_path: Path) -> None:
    static = encoders.load("static", texts=texts(40), dimension=8, vocabulary_size=400, device="cpu")
    with pytest.raises(ModelError, match="no transformer that can be looked into"):
        Inside(static)
    t5 = Inside(encoders.load(saved("t5", tmp_path / "t5", folder), device="cpu"))
    with pytest.raises(ModelError, match="no embedding layer"):
        t5.embed(torch.tensor([[1, 2]]))
    electra = Inside(encoders.load(saved("electra", tmp_path / "electra", folder), device="cpu"))
    with pytest.raises(ModelError, match="another space"):
        electra.embed(torch.tensor([[1, 2]]))
    build = sentence_transformer_class()
    bare = Inside(build(modules=[module_class("Transformer")(str(folder))], device="cpu"))
    with pytest.raises(ModelError, match="one vector"):
        bare.pool(bare.states(torch.tensor([[1, 2]])))


def test_a_model_that_gives_no_maps(folder: Path) -> None:
    """A transformer whose attention hides its maps, whatever it is asked for."""
    encoder = encoders.load(folder, device="cpu").eval()
    inside = Inside(encoder)
    inside.model._can_set_attn_implementation = lambda: False
    with pytest.raises(ModelError, match="no maps of its attention"):
        inside.states(torch.tensor([[2, 7, 3]]), attentions=True)
