"""Tiny transformers of several architectures with random weights, and sentence-transformers made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WIDTH = 16


def transformer(kind: str, *, vocabulary: int = 80, dropout: float = 0.1) -> Any:
    """Two layers and two heads of ``WIDTH`` dimensions.

    ``kind``: "bert", "roberta", "distilbert", "mpnet", "modernbert", "albert", "electra" (whose embeddings have another
    width), "t5".
    """
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "max_position_embeddings": 40}
    options: dict[str, Any] = sizes | rates
    names = {"bert": "Bert", "roberta": "Roberta", "mpnet": "MPNet", "albert": "Albert", "electra": "Electra"}
    if kind == "modernbert":
        ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
        rates = dict.fromkeys(("attention_dropout", "mlp_dropout", "embedding_dropout"), dropout)
        options = sizes | rates | ids
    elif kind == "distilbert":
        rates = {"dropout": dropout, "attention_dropout": dropout}
        options = {"vocab_size": vocabulary, "dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, **rates}
    elif kind == "t5":
        options = {"vocab_size": vocabulary, "d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    elif kind == "electra":
        options["embedding_size"] = 8
    name = {"modernbert": "ModernBert", "distilbert": "DistilBert", "t5": "T5"}.get(kind) or names[kind]
    model = getattr(transformers, "T5EncoderModel" if kind == "t5" else f"{name}Model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(getattr(transformers, f"{name}Config")(**options))


def saved(kind: str, folder: Path, tokenizer_of: Path) -> Path:
    """:func:`transformer` in ``folder``, with the tokenizer of another model folder."""
    import shutil

    transformer(kind).save_pretrained(folder, safe_serialization=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_of / name, folder / name)
    return folder


def tokens(n: int = 3, length: int = 7, *, vocabulary: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids ``[n, length]`` without padding ids, and a mask whose second row is shorter."""
    ids = torch.randint(5, vocabulary, (n, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(n, length, dtype=torch.bool)
    mask[1, length - 2 :] = False
    return ids, mask
