from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nearfar.data import Examples, RetrievalSet
from nearfar.diagnostics import alignment, collect, random_similarity, uniformity
from nearfar.diagnostics.run import ERRORS, TEXT_LIMIT, project
from nearfar.diagnostics.samples import draw
from nearfar.errors import DataError, ModelError, UsageError

WORDS = [f"word{number}" for number in range(60)]


def bag_of_words(weights: np.ndarray | None = None, seed: int = 0) -> SentenceTransformer:
    tokenizer = Tokenizer(WordLevel({word: row for row, word in enumerate([*WORDS, "[UNK]"])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    if weights is None:
        weights = np.random.default_rng(seed).standard_normal((len(WORDS) + 1, 24)).astype(np.float32)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")


def pairs(n: int = 60, seed: int = 0, negatives: bool = False) -> Examples:
    generator = np.random.default_rng(seed)
    columns: dict[str, list[str]] = {"anchor": [], "positive": []}
    for _ in range(n):
        words = [WORDS[index] for index in generator.integers(0, 60, 6)]
        columns["anchor"].append(" ".join(words))
        columns["positive"].append(" ".join([*words[:3], *(WORDS[index] for index in generator.integers(0, 60, 4))]))
    if negatives:
        columns["negative"] = [" ".join(text.split()[::-1]) for text in columns["anchor"]]
    return Examples.from_columns(columns)


def check_json(found: dict[str, Any], limit: int = 1_000) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    places = found["map"]
    assert len(places["x"]) == len(places["y"]) == len(places["group"]) == len(places["text"]) <= limit
    assert all(len(text) <= TEXT_LIMIT for text in places["text"])


def test_pairs_give_everything_a_report_draws() -> None:
    model, before = bag_of_words(), bag_of_words(seed=1)
    examples = pairs()
    found = collect(model, examples, before)
    check_json(found)
    assert set(found) == {"map", "similarities", "geometry", "errors"}
    assert set(found["similarities"]) == set(found["geometry"]) == {"before", "after"}
    assert found["map"]["group"].count("anchor") == found["map"]["group"].count("positive") == 60
    for side in ("positive", "negative"):
        assert len(found["similarities"]["after"][side]) == 60
    assert (
        np.mean(found["similarities"]["after"]["positive"]) > np.mean(found["similarities"]["after"]["negative"]) + 0.2
    )
    one, two = (model.encode(examples.column(name)) for name in ("anchor", "positive"))
    geometry = found["geometry"]["after"]
    assert geometry["alignment"] == pytest.approx(alignment(one, two), abs=1e-5)
    both = np.concatenate([one, two])
    assert geometry["uniformity"] == pytest.approx(uniformity(both), abs=1e-5)
    assert geometry["random_similarity"] == pytest.approx(random_similarity(both), abs=1e-5)
    assert "verdict" not in geometry


def test_errors_are_the_worst_first_with_the_answer_that_stands_first() -> None:
    model, examples = bag_of_words(), pairs()
    anchors, positives = examples.column("anchor"), examples.column("positive")
    one, two = (model.encode(texts, normalize_embeddings=True) for texts in (anchors, positives))
    scores = one @ two.T
    ranks = {anchor: 1 + int((scores[row] > scores[row, row]).sum()) for row, anchor in enumerate(anchors)}
    errors = collect(model, examples)["errors"]
    wrong = sorted((rank for rank in ranks.values() if rank > 1), reverse=True)
    assert len(wrong) > 3
    assert [error["expected_rank"] for error in errors] == wrong[:ERRORS]
    for error in errors:
        row = anchors.index(error["query"])
        assert ranks[error["query"]] == error["expected_rank"]
        assert error["expected"] == positives[row]
        assert error["found"] == positives[int(scores[row].argmax())]
        assert error["expected_score"] == pytest.approx(scores[row, row], abs=1e-5)
        assert error["found_score"] == pytest.approx(scores[row].max(), abs=1e-5)


def test_a_perfect_model_has_no_errors() -> None:
    examples = Examples.from_columns({"anchor": WORDS[:20], "positive": [f"{word} {word}" for word in WORDS[:20]]})
    found = collect(bag_of_words(), examples)
    assert found["errors"] == []
    assert min(found["similarities"]["after"]["positive"]) > 0.999


def test_hard_negatives_compete() -> None:
    errors = collect(bag_of_words(), pairs(negatives=True))["errors"]
    assert len(errors) == ERRORS
    assert all(error["found_score"] > 0.999 for error in errors)


def test_several_right_answers_are_no_errors() -> None:
    anchors = ["word1 word2", "word1 word2", "word3"]
    positives = ["word40", "word1 word2 word2", "word3 word3"]
    found = collect(bag_of_words(), Examples.from_columns({"anchor": anchors, "positive": positives}))
    assert found["errors"] == []


def test_a_collapsed_model_is_said_to_be_so() -> None:
    found = collect(bag_of_words(np.ones((61, 24), np.float32)), pairs())
    check_json(found)
    assert "collapsed" in found["geometry"]["after"]["verdict"]
    assert set(found["map"]["x"]) == {0.0}
    assert len(found["errors"]) == ERRORS
    assert found["errors"][0]["expected_rank"] > 10


def test_a_diverged_model_is_an_error() -> None:
    with pytest.raises(ModelError):
        collect(bag_of_words(np.full((61, 24), np.nan, np.float32)), pairs())


def test_the_limit_and_the_seed() -> None:
    examples = pairs(200)
    found = collect(bag_of_words(), examples, limit=50, seed=3)
    check_json(found, 50)
    assert len(found["map"]["x"]) == 50
    assert len(found["similarities"]["after"]["positive"]) == 50
    assert found == collect(bag_of_words(), examples, limit=50, seed=3)
    assert found["map"]["text"] != collect(bag_of_words(), examples, limit=50, seed=4)["map"]["text"]
    with pytest.raises(UsageError):
        collect(bag_of_words(), examples, limit=1)


def test_groups_colour_the_map() -> None:
    examples = pairs(30)
    groups = [f"module{number % 3}" for number in range(30)]
    found = collect(bag_of_words(), examples, groups=groups, limit=20)["map"]
    both = {
        text: group
        for name in ("anchor", "positive")
        for text, group in zip(examples.column(name), groups, strict=True)
    }
    assert [both[text] for text in found["text"]] == found["group"]
    with pytest.raises(UsageError, match="groups"):
        collect(bag_of_words(), examples, groups=groups[:5])


def test_long_texts_are_cut() -> None:
    examples = pairs(12)
    columns = {name: [f"{text} {'x' * 400}" for text in examples.column(name)] for name in ("anchor", "positive")}
    found = collect(bag_of_words(), Examples.from_columns(columns))
    check_json(found)
    assert all(text.endswith("…") for text in found["map"]["text"])


def labelled(n: int = 60) -> Examples:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, n)
    texts = [" ".join(WORDS[index] for index in 20 * label + generator.integers(0, 20, 5)) for label in labels]
    return Examples.from_columns({"text": texts, "label": [("red", "green", "blue")[label] for label in labels]})


def test_labelled_texts() -> None:
    examples = labelled()
    found = collect(bag_of_words(), examples)
    check_json(found)
    label_of = dict(zip(examples.column("text"), examples.column("label"), strict=True))
    assert [label_of[text] for text in found["map"]["text"]] == found["map"]["group"]
    after = found["similarities"]["after"]
    assert len(after["positive"]) == len(after["negative"]) == 60
    assert np.mean(after["positive"]) > np.mean(after["negative"])
    for error in found["errors"]:
        assert label_of[error["query"]] == label_of[error["expected"]] != label_of[error["found"]]
        assert error["query"] != error["expected"]
        assert error["found_score"] >= error["expected_score"]
    assert found["errors"]


def test_far_pairs_are_far() -> None:
    examples = labelled()
    sample = draw(examples, 1_000, 0)
    label_of = dict(zip(examples.column("text"), examples.column("label"), strict=True))
    assert all(label_of[sample.texts[one]] == label_of[sample.texts[two]] for one, two in sample.near)
    assert all(label_of[sample.texts[one]] != label_of[sample.texts[two]] for one, two in sample.far)
    of_pairs = draw(pairs(), 1_000, 0)
    assert not set(of_pairs.near) & set(of_pairs.far)
    assert len(of_pairs.far) == 60


def test_scored_pairs() -> None:
    generator = np.random.default_rng(0)
    first = [" ".join(WORDS[index] for index in generator.integers(0, 60, 5)) for _ in range(80)]
    second = [" ".join([*one.split()[: number % 6], "word0 word1"]) for number, one in enumerate(first)]
    scores = [float(number % 6) for number in range(80)]
    found = collect(bag_of_words(), Examples.from_columns({"sentence1": first, "sentence2": second, "score": scores}))
    check_json(found)
    after = found["similarities"]["after"]
    assert len(after["positive"]) == sum(score >= 4 for score in scores)
    assert len(after["negative"]) == sum(score <= 1 for score in scores)
    assert min(after["positive"]) > np.mean(after["negative"])
    equal = Examples.from_columns({"sentence1": first, "sentence2": second, "score": [3.0] * 80})
    assert "similarities" not in collect(bag_of_words(), equal)


def test_texts_alone() -> None:
    found = collect(bag_of_words(), Examples.from_columns({"text": [*WORDS, *WORDS]}))
    check_json(found)
    assert set(found) == {"map", "geometry"}
    assert len(found["map"]["x"]) == 60
    assert "alignment" not in found["geometry"]["after"]


def test_a_retrieval_set() -> None:
    examples = pairs(40)
    documents = [*examples.column("positive"), *(f"{word} word0" for word in WORDS)]
    document_ids = [f"d{number}" for number in range(len(documents))]
    query_ids = [f"q{number}" for number in range(40)]
    qrels = {f"q{number}": {f"d{number}": 2, f"d{(number + 1) % 40}": 1, "d45": 0} for number in range(39)}
    data = RetrievalSet(document_ids, documents, query_ids, examples.column("anchor"), qrels)
    found = collect(bag_of_words(), data, limit=60)
    check_json(found, 60)
    assert set(found["map"]["group"]) == {"query", "document"}
    assert len(found["similarities"]["after"]["positive"]) == 39
    for error in found["errors"]:
        number = examples.column("anchor").index(error["query"])
        right = {documents[number], documents[(number + 1) % 40]}
        assert error["expected"] in right
        assert error["found"] not in right
    with pytest.raises(DataError, match="relevant"):
        collect(bag_of_words(), RetrievalSet(document_ids, documents, query_ids, examples.column("anchor"), {}))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 12])
def test_few_texts(n: int) -> None:
    found = collect(bag_of_words(), Examples.from_columns({"text": WORDS[:n]}))
    check_json(found)
    assert len(set(zip(found["map"]["x"], found["map"]["y"], strict=True))) == n


def test_one_row() -> None:
    found = collect(bag_of_words(), Examples.from_columns({"text": ["word1"]}))
    check_json(found)
    assert found["geometry"] == {}
    pair = collect(bag_of_words(), Examples.from_columns({"anchor": ["word1"], "positive": ["word2"]}))
    check_json(pair)
    assert pair["errors"] == []
    assert pair["similarities"]["after"]["negative"] == []


def test_the_map_keeps_clusters_together() -> None:
    generator = np.random.default_rng(0)
    cluster = np.repeat(np.arange(3), 40)
    points = generator.standard_normal((3, 30))[cluster] * 4 + generator.standard_normal((120, 30))
    places = project(points)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, math.inf)
    assert (cluster[distances.argmin(1)] == cluster).all()
    assert (project(points) == places).all()


def test_a_map_of_one_dimension() -> None:
    places = project(np.arange(6.0)[:, None])
    assert places.shape == (6, 2)
    assert np.isfinite(places).all()
