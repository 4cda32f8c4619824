"""What an encoder has beside its embedding: layers to be looked into, dropout, attention maps, a language head."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nearfar.encoders.encode import evaluating

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MASKED_LANGUAGE_HEADS = (
    "cls.predictions.",
    "lm_head.",
    "vocab_transform.",
    "predictions.",
    "generator_predictions.",
    "generator_lm_head.",
    "decoder.bias",
)
"""How the names of the weights of a masked-LM head begin: BERT and MPNet's kin, RoBERTa, DistilBERT, ALBERT, ELECTRA
and ConvBERT (both), ModernBERT."""


def has_transformer(encoder: SentenceTransformer) -> bool:
    """Whether the encoder begins with a transformer of the transformers library, whose layers can be looked into."""
    return transformer_of(encoder) is not None


def transformer_of(encoder: SentenceTransformer) -> Any:
    """The transformer that the encoder begins with (a ``transformers.PreTrainedModel``), None where there is none."""
    model = getattr(encoder[0], "auto_model", None)
    layers = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    return model if isinstance(layers, int) else None


def has_dropout(encoder: nn.Module) -> bool:
    """Whether some layer drops values at a rate above 0."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in encoder.modules())


def has_attentions(encoder: SentenceTransformer) -> bool:
    """Whether the transformer gives the maps of its attention when it computes them step by step ("eager"): tried on
    two tokens."""
    model = transformer_of(encoder)
    if model is None:
        return False
    ids = torch.zeros(1, 2, dtype=torch.int64, device=encoder.device)
    try:
        with evaluating(model), eager_attention(model), torch.no_grad():
            found = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True)
    except (AttributeError, TypeError, ValueError, NotImplementedError):  # what an architecture without them raises
        return False
    maps = getattr(found, "attentions", None) or ()
    return len(maps) > 0 and all(each is not None and each.dim() == 4 for each in maps)


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Inside the block a transformer computes its attention step by step, so that there are maps to be had.

    A model whose attention cannot be exchanged is left alone: it computes it in one way only.
    """
    before = model.config._attn_implementation
    if before == "eager" or not model._can_set_attn_implementation():
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def has_masked_language_head(folder: Path) -> bool:
    """Whether the weights in ``folder``, a transformers or sentence-transformers one, hold a head that predicts masked
    tokens."""
    return any(name.startswith(MASKED_LANGUAGE_HEADS) for name in weight_names(transformer_folder(folder)))


def transformer_folder(folder: Path) -> Path:
    """Where in the folder of a model (or of a run) the transformer's weights are."""
    if not (folder / "modules.json").exists() and (folder / "model" / "modules.json").is_file():
        folder = folder / "model"
    try:
        first = json.loads((folder / "modules.json").read_text(encoding="utf-8"))[0]["path"]
    except (OSError, ValueError, LookupError, TypeError):
        return folder
    return folder / str(first)


def weight_names(folder: Path) -> list[str]:
    """The names of all weights in the safetensors files of ``folder``; nothing is read but their heads."""
    from safetensors import safe_open

    names: list[str] = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as weights:
            names += weights.keys()
    return names
