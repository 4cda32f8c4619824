from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
)
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nearfar.data import Examples, RetrievalSet
from nearfar.errors import DataError, ModelError, UsageError
from nearfar.evaluation import candidates, evaluate

WORDS = [f"word{number}" for number in range(60)]


def toy_model(weights: np.ndarray | None = None, seed: int = 0, **options: Any) -> SentenceTransformer:
    """A bag of words with random vectors."""
    tokenizer = Tokenizer(WordLevel({word: row for row, word in enumerate([*WORDS, "[UNK]"])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    if weights is None:
        weights = np.random.default_rng(seed).standard_normal((len(WORDS) + 1, 16)).astype(np.float32)
    module = StaticEmbedding(tokenizer, embedding_weights=weights)
    return SentenceTransformer(modules=[module], device="cpu", **options)


def sentence(generator: np.random.Generator, size: int) -> list[str]:
    return [WORDS[index] for index in generator.integers(0, 60, size)]


def pairs(n: int = 80, seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    anchors = [sentence(generator, 6) for _ in range(n)]
    positives = [[*generator.permutation(words)[:3], *sentence(generator, 5)] for words in anchors]
    return Examples.from_columns(
        {"anchor": [" ".join(words) for words in anchors], "positive": [" ".join(words) for words in positives]}
    )


def test_pairs_agree_with_the_information_retrieval_evaluator() -> None:
    model, data = toy_model(), candidates(pairs())
    for offset in range(0, 60, 3):  # several relevant documents for some queries
        data.qrels[f"q{offset}"][f"d{offset + 1}"] = 1
    peer = InformationRetrievalEvaluator(
        dict(zip(data.query_ids, data.queries, strict=True)),
        dict(zip(data.document_ids, data.documents, strict=True)),
        {query: set(found) for query, found in data.qrels.items()},
        mrr_at_k=[1, 10, 1000],
        ndcg_at_k=[10],
        accuracy_at_k=[3],
        precision_recall_at_k=[5],
        map_at_k=[1000],
        write_csv=False,
    )(model)
    names = {
        "mrr@1": "cosine_mrr@1",
        "mrr@10": "cosine_mrr@10",
        "mrr": "cosine_mrr@1000",
        "ndcg@10": "cosine_ndcg@10",
        "success@3": "cosine_accuracy@3",
        "recall@5": "cosine_recall@5",
        "precision@5": "cosine_precision@5",
        "map": "cosine_map@1000",
    }
    found = evaluate(model, data, measures=list(names))
    for ours, theirs in names.items():
        assert found.measures[ours].value == pytest.approx(peer[theirs], abs=1e-6), ours
    assert 0.1 < found.measures["mrr"].value < 0.99


def test_scored_pairs_agree_with_the_similarity_evaluator() -> None:
    generator = np.random.default_rng(1)
    first = [" ".join(sentence(generator, 5)) for _ in range(100)]
    second = [" ".join([*one.split()[: number % 6], *sentence(generator, 3)]) for number, one in enumerate(first)]
    scores = [float(number % 6) for number in range(100)]
    model = toy_model()
    peer = EmbeddingSimilarityEvaluator(first, second, scores, main_similarity="cosine", write_csv=False)(model)
    found = evaluate(model, Examples.from_columns({"sentence1": first, "sentence2": second, "score": scores}))
    assert found.main == "spearman"
    assert found.kind == "similarity"
    assert found.measures["spearman"].value == pytest.approx(peer["spearman_cosine"], abs=1e-6)
    assert found.measures["pearson"].value == pytest.approx(peer["pearson_cosine"], abs=1e-6)
    assert found.value > 0.3


def test_pairs_are_ranked_among_all_positives() -> None:
    found = evaluate(toy_model(), pairs())
    assert found.main == "mrr"
    assert found.kind == "retrieval"
    assert found.details["documents"] == found.details["queries"] == 80
    assert len(found.per_item["mrr"]) == 80
    assert found.measures["mrr"].value == pytest.approx(found.per_item["mrr"].mean())
    assert {"mrr", "ndcg@10", "recall@10"} <= set(found.measures)
    again = evaluate(toy_model(), pairs())
    assert again.to_dict() == found.to_dict()


def test_the_order_of_the_rows_does_not_matter() -> None:
    examples = pairs()
    turned = Examples.from_columns({name: examples.column(name)[::-1] for name in ("anchor", "positive")})
    one, two = evaluate(toy_model(), examples), evaluate(toy_model(), turned)
    assert one.per_item["mrr"].tolist() == two.per_item["mrr"][::-1].tolist()


def test_an_encoder_without_order_gets_no_perfect_score() -> None:
    collapsed = evaluate(toy_model(np.ones((61, 16), np.float32)), pairs())
    harmonic = sum(1 / rank for rank in range(1, 81)) / 80
    assert collapsed.measures["mrr"].value == pytest.approx(harmonic, abs=0.02)
    zero = evaluate(toy_model(np.zeros((61, 16), np.float32)), pairs())
    assert zero.measures["mrr"].value == pytest.approx(harmonic, abs=1e-9)


def test_hard_negatives_join_the_candidates() -> None:
    examples = pairs()
    columns = {name: examples.column(name) for name in ("anchor", "positive")}
    # The anchor's own words in another order: nearer than any positive.
    columns["negative"] = [" ".join(text.split()[::-1]) for text in columns["anchor"]]
    found = evaluate(toy_model(), Examples.from_columns(columns))
    assert found.details["documents"] == 160
    assert found.measures["recall@1"].value == 0.0
    assert evaluate(toy_model(), examples).measures["recall@1"].value > 0.1


def test_duplicates_of_the_positive_are_right_answers() -> None:
    examples = pairs(20)
    twice = Examples.from_columns({name: examples.column(name) * 2 for name in ("anchor", "positive")})
    assert evaluate(toy_model(), twice).to_dict() == evaluate(toy_model(), examples).to_dict()


def test_queries_and_documents_get_their_prompts() -> None:
    plain = evaluate(toy_model(), pairs())
    prompted = evaluate(toy_model(prompts={"query": "word1 word2 word3 ", "document": ""}), pairs())
    assert prompted.to_dict() != plain.to_dict()


def labelled(n: int = 90, seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    texts = [" ".join(WORDS[index] for index in 20 * label + generator.integers(0, 20, 6)) for label in labels]
    return Examples.from_columns({"text": texts, "label": [("red", "green", "blue")[label] for label in labels]})


def test_labelled_texts_are_classified() -> None:
    alone = evaluate(toy_model(), labelled())
    assert alone.kind == "classification"
    assert alone.main == "probe_accuracy"
    assert alone.value > 0.7
    assert alone.measures["knn_accuracy"].n == 90
    taught = evaluate(toy_model(), labelled(), train=labelled(200, seed=1))
    assert taught.value > 0.8
    assert taught.details["training_items"] == 200


def test_a_retrieval_set_has_its_own_main_measure() -> None:
    found = evaluate(toy_model(), candidates(pairs()))
    assert found.main == "ndcg@10"


def test_texts_alone_are_an_error_that_says_what_is_needed() -> None:
    with pytest.raises(DataError, match="pairs") as caught:
        evaluate(toy_model(), Examples.from_columns({"text": ["one", "two"]}))
    assert "label" in str(caught.value)


def test_what_cannot_be_evaluated_is_an_error() -> None:
    model = toy_model()
    with pytest.raises(DataError, match="one class only"):
        evaluate(model, Examples.from_columns({"text": ["word1", "word2"], "label": ["a", "a"]}))
    with pytest.raises(DataError, match="nothing to tell apart"):
        evaluate(model, Examples.from_columns({"anchor": ["word1"], "positive": ["word2"]}))
    with pytest.raises(DataError, match="no query has a relevant"):
        evaluate(model, RetrievalSet(["a", "b"], ["x", "y"], ["q"], ["z"], {"q": {"a": 0}}))
    with pytest.raises(UsageError):
        evaluate(model, pairs(), train=labelled())
    with pytest.raises(UsageError):
        evaluate(model, labelled(), train=pairs())
    broken = np.ones((61, 16), np.float32)
    broken[:, 3] = np.nan
    with pytest.raises(ModelError):
        evaluate(toy_model(broken), pairs())
