"""Small transformers for texts, made and saved in a moment."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

WORDS = [first + second for first, second in itertools.product(("ka", "lo", "mi", "ne", "po", "ru"), "bdfgklmnprst")]
"""Words that the vocabulary knows where no others are given."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def bert(
    folder: Path,
    *,
    words: Sequence[str] = WORDS,
    masked_lm: bool = False,
    dropout: float = 0.1,
    dimension: int = 16,
    layers: int = 2,
    length: int = 48,
    seed: int = 0,
) -> Path:
    """Save a BERT of ``layers`` small layers over ``words`` in ``folder``, which is returned: a transformers folder,
    with a tokenizer of whole words. ``masked_lm``: with the head that predicts masked tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

    vocabulary = {name: number for number, name in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=dimension,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * dimension,
        max_position_embeddings=length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = BertForMaskedLM(config) if masked_lm else BertModel(config)
    model.save_pretrained(folder, safe_serialization=True)
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, SPECIAL, strict=True))).save_pretrained(
        folder
    )
    return folder


def texts(rows: int, *, words: Sequence[str] = WORDS, least: int = 3, most: int = 8, seed: int = 0) -> list[str]:
    """Different texts of ``least`` to ``most`` words."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, None] = {}
    while len(found) < rows:
        count = int(torch.randint(least, most + 1, (), generator=generator))
        found[" ".join(words[place] for place in torch.randint(len(words), (count,), generator=generator).tolist())] = (
            None
        )
    return list(found)
