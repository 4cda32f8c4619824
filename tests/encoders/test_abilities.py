from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from nearfar import encoders
from nearfar.encoders import abilities
from support.sentence_models import WORDS, bert


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        "plain": bert(place / "plain"),
        "head": bert(place / "head", masked_lm=True),
        "dry": bert(place / "dry", dropout=0.0),
    }


def load(folder: Path) -> Any:
    return encoders.load(folder, device="cpu")


def test_a_transformer_has_layers_and_attention_maps(models: dict[str, Path]) -> None:
    encoder = load(models["plain"])
    before = encoder[0].auto_model.config._attn_implementation
    encoder.train()
    assert abilities.has_transformer(encoder)
    assert abilities.has_attentions(encoder)
    assert encoder[0].auto_model.config._attn_implementation == before
    assert all(module.training for module in encoder.modules())


def test_a_static_encoder_has_neither() -> None:
    encoder = encoders.load("static", texts=WORDS * 2, dimension=8, vocabulary_size=400, device="cpu")
    assert not abilities.has_transformer(encoder)
    assert not abilities.has_attentions(encoder)
    assert not abilities.has_dropout(encoder)


def test_dropout_at_rate_zero_is_none(models: dict[str, Path]) -> None:
    assert abilities.has_dropout(load(models["plain"]))
    assert not abilities.has_dropout(load(models["dry"]))


def test_attention_maps_that_are_not_given_are_missed(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(models["plain"])
    whole = type(encoder[0].auto_model).forward

    def without(self: Any, **features: Any) -> Any:
        return whole(self, **{**features, "output_attentions": False})

    monkeypatch.setattr(type(encoder[0].auto_model), "forward", without)
    assert not abilities.has_attentions(encoder)


def test_the_head_is_found_in_the_folder_not_in_the_encoder(models: dict[str, Path], tmp_path: Path) -> None:
    assert abilities.has_masked_language_head(models["head"])
    assert not abilities.has_masked_language_head(models["plain"])
    saved = tmp_path / "saved"  # an encoder that was saved again has lost it
    encoders.save(load(models["head"]), saved)
    assert not abilities.has_masked_language_head(saved)


def test_the_folder_of_the_transformer(models: dict[str, Path], tmp_path: Path) -> None:
    assert abilities.transformer_folder(models["head"]) == models["head"]
    run = tmp_path / "run"
    encoders.save(load(models["plain"]), run / "model")
    found = abilities.transformer_folder(run)
    assert found.is_relative_to(run / "model")
    assert any(name.startswith("encoder.layer.1.") for name in abilities.weight_names(found))
    (tmp_path / "modules.json").write_text("{}", encoding="utf-8")
    assert abilities.transformer_folder(tmp_path) == tmp_path


def test_eager_attention_ends_with_the_block(models: dict[str, Path]) -> None:
    model = load(models["plain"])[0].auto_model.train()
    with contextlib.suppress(RuntimeError), abilities.eager_attention(model):
        assert model.config._attn_implementation == "eager"
        assert model.training  # maps after dropout are wanted too
        raise RuntimeError
    assert model.config._attn_implementation != "eager"
    assert model.training
    assert torch.is_grad_enabled()
