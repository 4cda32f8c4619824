from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nearfar.data import Examples
from nearfar.errors import UsageError
from nearfar.negatives import Batches, NoDuplicateBatches
from nearfar.training import Loader, TextBatches
from nearfar.training import chunking as chunking_module
from nearfar.training.chunking import choose


def embeddings(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        made = torch.cat([model(dict(chunk))["sentence_embedding"] for chunk in batch["chunks"]])
    return made if batch["order"] is None else made[batch["order"]]


@pytest.mark.parametrize("chunk_size", [None, 1, 4, 7])
def test_a_batch_embeds_the_texts_of_its_rows_by_column(bert_model: Any, make_pairs: Any, chunk_size: Any) -> None:
    examples = make_pairs(20, negatives=1)
    batch = TextBatches(bert_model, examples, chunk_size=chunk_size).batch([13, 2, 7, 2])
    taken = examples.take([13, 2, 7, 2])
    texts = [text for name in ("anchor", "positive", "negative_1") for text in taken[name]]
    expected = embeddings(bert_model, {"chunks": [bert_model.preprocess(texts)], "order": None})
    assert torch.allclose(embeddings(bert_model, batch), expected, atol=1e-6)
    assert batch["rows"].tolist() == [13, 2, 7, 2]
    if chunk_size is not None:
        assert max(chunk["input_ids"].shape[0] for chunk in batch["chunks"]) <= chunk_size


def test_chunks_hold_texts_of_like_length_longest_first(bert_model: Any, make_pairs: Any) -> None:
    batch = TextBatches(bert_model, make_pairs(40), chunk_size=8).batch(np.arange(40))
    widths = [chunk["input_ids"].shape[1] for chunk in batch["chunks"]]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]
    padding = sum(int((chunk["attention_mask"] == 0).sum()) for chunk in batch["chunks"])
    whole = TextBatches(bert_model, make_pairs(40)).batch(np.arange(40))["chunks"][0]
    assert padding < int((whole["attention_mask"] == 0).sum()) / 3


def test_equal_texts_have_equal_numbers_where_they_can_meet(static_model: Any) -> None:
    examples = Examples.from_columns({"anchor": ["kab", "lob"], "positive": ["mib", "MIB "], "negative": ["mib", "x"]})
    exclude = TextBatches(static_model, examples, unique=True).batch([0, 1])["exclude"].tolist()
    assert exclude[0] == exclude[1] == exclude[2] != exclude[3]
    assert min(exclude) >= 0
    plain = Examples.from_columns({"anchor": ["kab", "lob"], "positive": ["mib", "neb"]})
    assert "exclude" not in TextBatches(static_model, plain, unique=True).batch([0, 1])
    assert "exclude" in TextBatches(static_model, plain).batch([0, 1])


def test_prompts_of_the_model_are_those_of_evaluation(bert_model: Any, make_pairs: Any) -> None:
    bert_model.prompts = {"query": "kab lob ", "document": "mib "}
    examples = make_pairs(3)
    batch = TextBatches(bert_model, examples).batch([0, 1, 2])
    texts = ["kab lob " + text for text in examples.column("anchor")]
    texts += ["mib " + text for text in examples.column("positive")]
    expected = embeddings(bert_model, {"chunks": [bert_model.preprocess(texts)], "order": None})
    assert torch.allclose(embeddings(bert_model, batch), expected, atol=1e-6)


def test_labels_and_scores_come_along(static_model: Any, make_labelled: Any) -> None:
    examples = make_labelled(10)
    batch = TextBatches(static_model, examples).batch([4, 1])
    assert batch["labels"].tolist() == examples.labels()[0][[4, 1]].tolist()
    scored = Examples.from_columns({"sentence1": ["kab", "lob"], "sentence2": ["mib", "neb"], "score": [0.5, 1.0]})
    assert TextBatches(static_model, scored).batch([1])["targets"].tolist() == [1.0]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_follows_the_batches_and_leaves_the_random_state_alone(
    static_model: Any, make_pairs: Any, workers: int
) -> None:
    examples = make_pairs(30)
    order = NoDuplicateBatches([examples.hashes("anchor"), examples.hashes("positive")], 8, seed=1)
    loader = Loader(TextBatches(static_model, examples), order, workers=workers)
    state = torch.get_rng_state()
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        rows = [batch["rows"].tolist() for batch in loader]
        assert rows == [part.tolist() for part in order.plan(epoch)]
    assert torch.equal(torch.get_rng_state(), state)
    assert len(loader) == len(order)


def test_models_that_cannot_be_tokenised_ahead_are_tokenised_by_the_batch(
    bert_model: Any, make_pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nearfar import encoders
    from nearfar.errors import ModelError

    examples = make_pairs(6)
    expected = embeddings(bert_model, TextBatches(bert_model, examples, chunk_size=3).batch([5, 0, 3]))

    def fail(*_: Any) -> None:
        raise ModelError("not padded token ids")

    monkeypatch.setattr(encoders, "pretokenize", fail)
    batch = TextBatches(bert_model, examples, chunk_size=3).batch([5, 0, 3])
    assert torch.allclose(embeddings(bert_model, batch), expected, atol=1e-6)


def test_chunking_is_chosen_by_memory(bert_model: Any, static_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.full(100, 20)
    static = choose(static_model, lengths, 4096)
    assert (static.size, static.cached) == (None, False)
    monkeypatch.setattr(chunking_module, "_memory", lambda: 2.0**30)
    small = choose(bert_model, lengths, 64)
    assert (small.size, small.cached) == (16, False)
    per_token = 68 * 2 * 16
    monkeypatch.setattr(chunking_module, "_memory", lambda: 4.0 * 17 * 20 * per_token)  # a batch of 17 just fits
    assert not choose(bert_model, lengths, 17).cached
    large = choose(bert_model, lengths, 1000)
    assert large.cached
    assert large.size == 8  # half of the budget, a power of two
    assert choose(bert_model, lengths, 1000, half=True).size == 16
    monkeypatch.setattr(chunking_module, "_memory", lambda: 1.0)
    assert choose(bert_model, lengths, 1000).size == 8
    asked = choose(static_model, lengths, 100, chunk_size=30)
    assert (asked.size, asked.cached) == (30, True)
    assert not choose(static_model, lengths, 100, chunk_size=100).cached
    with pytest.raises(UsageError):
        choose(static_model, lengths, 100, chunk_size=0)


def test_static_chunks(static_model: Any, make_pairs: Any) -> None:
    examples = make_pairs(10)
    whole = TextBatches(static_model, examples).batch(np.arange(10))
    parts = TextBatches(static_model, examples, chunk_size=6).batch(np.arange(10))
    assert len(parts["chunks"]) == 4
    assert torch.allclose(embeddings(static_model, parts), embeddings(static_model, whole))


def test_plain_batches_work_as_well(static_model: Any, make_pairs: Any) -> None:
    loader = Loader(TextBatches(static_model, make_pairs(9)), Batches(9, 4))
    assert [len(batch["rows"]) for batch in loader] == [4, 3, 2]


def test_documents_images_and_domains_come_along(bert_model: Any) -> None:
    documents = Examples.from_columns({"text": ["kab", "lob", "mib", "neb"], "document": ["x", "x", "y", "y"]})
    texts = TextBatches(bert_model, documents)
    batch = texts.batch([1, 2, 3])
    assert batch["documents"].tolist() == [0, 1, 1]
    assert texts.texts_per_row == 1
    assert len(batch["chunks"][0]["input_ids"]) == 3

    captions = Examples.from_columns({"text": ["kab", "lob", "mib"], "image": [[1, 2], None, [1, 2]]})
    texts = TextBatches(bert_model, captions)
    batch = texts.batch([2, 1])
    assert batch["images"].tolist() == [[1, 2], [0, 0]]
    assert batch["images"].dtype == torch.float32
    assert batch["image_ids"].tolist() == [0, -1]
    assert texts.texts_per_row == 2
    assert len(batch["chunks"][0]["input_ids"]) == 4

    domains = Examples.from_columns(
        {"text": ["kab", "lob", "mib"], "label": ["good", "", ""], "domain": ["x", "x", "y"]}, shape="domains"
    )
    batch = TextBatches(bert_model, domains).batch([2, 0, 1])
    assert batch["domains"].tolist() == [1, 0, 0]
    assert batch["labels"].tolist() == [-1, 0, -1]
    assert len(batch["chunks"][0]["input_ids"]) == 6
