"""A static encoder that counts each token of a text once: the sum of the vectors of its distinct tokens.

A word that stands twenty times in a function says little more than one that stands once (term-frequency saturation;
BM25 has it too). On code search (51,000 pairs of docstring and function, d = 256, 4 epochs, a validation split of
unseen modules) the mean reciprocal rank among 1,500 candidates was 0.596, against 0.548 for the mean over all tokens.

In memory it is an embedding bag over distinct ids. On disk it is what sentence-transformers itself calls it: a
``SparseStaticEmbedding`` (which tokens are there) followed by a ``Dense`` layer without bias (the table), so that the
folder loads anywhere and gives the same vectors.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.encoders.sentence_modules import module_class, sentence_transformer_class, sparse_static_class

_NO_LIMIT = 1_000_000
"""Tokenizers that know no limit say 1e30."""


class DistinctEmbedding(module_class("StaticEmbedding")):  # type: ignore[misc]
    """The sum of ``E[t]`` over the distinct tokens t of a text; the zero vector for a text without any."""

    distinct = True

    def __init__(self, tokenizer: Any, embedding_weights: Tensor) -> None:
        super().__init__(tokenizer, embedding_weights=embedding_weights)
        self.embedding = nn.EmbeddingBag.from_pretrained(embedding_weights, freeze=False, mode="sum")

    def preprocess(self, inputs: list[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """``input_ids`` [all distinct tokens] and ``offsets`` [n] of the texts."""
        inputs = [(prompt or "") + text for text in inputs]
        ids = [
            np.unique(np.array(found.ids, dtype=np.int64))
            for found in self.tokenizer.encode_batch(inputs, add_special_tokens=False)
        ]
        offsets = np.cumsum([0, *map(len, ids)])[:-1]
        flat = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
        return {"input_ids": torch.from_numpy(flat), "offsets": torch.from_numpy(offsets)}

    tokenize = preprocess


def is_distinct(model: Any) -> bool:
    """Whether ``model`` begins with a :class:`DistinctEmbedding`."""
    return isinstance(model[0], DistinctEmbedding)


def portable(model: Any) -> Any:
    """The same encoder made of sentence-transformers' own modules, as it is saved."""
    from transformers import PreTrainedTokenizerFast

    bag: DistinctEmbedding = model[0]
    truncation = bag.tokenizer.truncation
    limit = {"model_max_length": int(truncation["max_length"])} if truncation else {}
    # padding writes a 0 at its token, so it must be one that no text has: the byte 0xFF does not occur in UTF-8
    padding = "<0xFF>" if bag.tokenizer.token_to_id("<0xFF>") is not None else "[UNK]"
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bag.tokenizer, pad_token=padding, **limit
    )
    count, dimension = bag.embedding.weight.shape
    present = sparse_static_class()(tokenizer, frozen=True)
    dense = module_class("Dense")(count, dimension, bias=False, activation_function=nn.Identity())
    dense.linear.weight = nn.Parameter(bag.embedding.weight.detach().T.contiguous())
    return sentence_transformer_class()(
        modules=[present, dense, *list(model)[1:]],
        device="cpu",
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        truncate_dim=model.truncate_dim,
    )


def recognised(model: Any) -> Any:
    """``model`` with the two modules that :func:`portable` made as one :class:`DistinctEmbedding` again."""
    from tokenizers import Tokenizer

    kinds = (sparse_static_class(), module_class("Dense"))
    if len(model) < 2 or not all(isinstance(module, kind) for module, kind in zip(model, kinds, strict=False)):
        return model
    present, dense = model[0], model[1]
    plain = dense.linear.bias is None and isinstance(dense.activation_function, nn.Identity)
    if not plain or not bool((present.weight == 1).all()):
        return model
    # the padding token and a post-processor without special tokens were added for the library's tokenizer alone; as a
    # special token the padding would also be found in texts
    state = json.loads(present.tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] != present.tokenizer.pad_token]
    state["padding"] = state["truncation"] = state["post_processor"] = None
    tokenizer = Tokenizer.from_str(json.dumps(state))
    limit = present.tokenizer.model_max_length
    if limit < _NO_LIMIT:
        tokenizer.enable_truncation(limit)
    device = dense.linear.weight.device
    model[0] = DistinctEmbedding(tokenizer, dense.linear.weight.detach().T.contiguous()).to(device)
    del model[1]
    return model
