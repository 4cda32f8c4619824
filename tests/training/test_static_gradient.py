from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.training import TextBatches, static


def dense(ids: np.ndarray, offsets: np.ndarray, gradient: torch.Tensor, size: int) -> torch.Tensor:
    """The gradient of the table, by plain loops."""
    table = torch.zeros(size, gradient.shape[1], dtype=gradient.dtype)
    for text in range(len(offsets) - 1):
        tokens = ids[offsets[text] : offsets[text + 1]]
        for token in tokens:
            table[token] += gradient[text] / len(tokens)
    return table


@pytest.mark.parametrize("lengths", [[3, 1, 4], [0, 2, 0, 5, 1, 0], [0, 0]])
def test_transposed_lists_give_the_gradient_of_the_table(lengths: list[int]) -> None:
    random = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = random.integers(0, 7, offsets[-1])
    gradient = torch.randn(len(lengths), 5, generator=torch.Generator().manual_seed(0))
    features = static.transposed(ids, offsets, 7)
    found = torch.nn.functional.embedding_bag(
        features[static.TEXTS],
        gradient,
        features[static.STARTS],
        mode="sum",
        per_sample_weights=features[static.WEIGHTS],
        include_last_offset=True,
    )
    assert torch.allclose(found, dense(ids, offsets, gradient, 7), atol=1e-6)


@pytest.mark.parametrize(("normalize", "pooling"), [(False, "mean"), (True, "mean"), (True, "distinct")])
def test_quick_embedding_and_gradient_are_those_of_the_model(make_pairs: Any, normalize: bool, pooling: str) -> None:
    examples = make_pairs(40)
    model = encoders.load(
        "static", texts=list(examples.texts()), dimension=8, normalize=normalize, pooling=pooling, device="cpu"
    )
    batch = TextBatches(model, examples).batch(np.arange(40))
    features = batch["chunks"][0]
    assert static.TEXTS in features
    target = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    quick = static.embed(model, features)
    quick.backward(target)
    gradient = model[0].embedding.weight.grad
    model.zero_grad()
    plain = model({name: features[name] for name in ("input_ids", "offsets")})["sentence_embedding"]
    plain.backward(target)
    assert torch.equal(quick, plain)
    assert torch.allclose(gradient, model[0].embedding.weight.grad, atol=1e-7)
    assert type(quick.grad_fn).__name__ != type(plain.grad_fn).__name__ or normalize


def test_other_encoders_take_their_own_way(bert_model: Any, static_model: Any) -> None:
    assert static.quick_vocabulary(bert_model) is None
    assert static.quick_vocabulary(static_model) == static_model[0].num_embeddings
    static_model[0].embedding.padding_idx = 0
    assert static.quick_vocabulary(static_model) is None
