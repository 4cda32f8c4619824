"""Tokenizers without weights, and conversations, for tests of preference data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CORPUS = [
    "the sky is blue", "the sky is green", "what colour is the sky ?", "it is blue today", "bluebell and bluebird",
    "who are you ?", "I am a helpful assistant .", "no idea", "say it again", "blueberry", "a bluebell",
] * 3  # fmt: skip

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""Turns closed by a token that is not the end of the sequence."""

CHAT_EOS = CHAT.replace("<|end|>", "</s>")
CHAT_OPEN = CHAT.replace("<|end|>", "")
CHAT_THINKS = CHAT.replace("%}<|assistant|>\n{% endif", "%}<|assistant|>\n<think>\n{% endif")
"""What opens an answer is not what stands there once there is one."""


def byte_pairs(
    *, begins: bool = False, template: str | None = None, bos: str | None = "<s>", eos: str | None = "</s>"
) -> Any:
    """A small byte-level BPE tokenizer, whose tokens merge over words' ends."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(CORPUS, trainer)
    if begins:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    build: Any = PreTrainedTokenizerFast
    tokenizer = build(
        tokenizer_object=made, pad_token="<pad>", bos_token=bos, eos_token=eos, additional_special_tokens=special[3:]
    )
    tokenizer.chat_template = template
    return tokenizer


def turns(*contents: str, system: str | None = None) -> tuple[dict[str, str], ...]:
    """User and assistant in turn, the user first."""
    said = tuple(
        {"role": "assistant" if place % 2 else "user", "content": content} for place, content in enumerate(contents)
    )
    return said if system is None else ({"role": "system", "content": system}, *said)


def answer(content: str) -> tuple[dict[str, str], ...]:
    """One message of the assistant."""
    return ({"role": "assistant", "content": content},)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """``path`` with ``rows`` as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
