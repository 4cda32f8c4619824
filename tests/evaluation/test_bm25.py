from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from nearfar.data import Examples, RetrievalSet
from nearfar.errors import DataError, UsageError
from nearfar.evaluation import bm25, candidates, retrieval_run
from nearfar.evaluation.bm25 import tokenize


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("The mean of a List", False, ["mean", "list"]),
        ("readJSON_file", False, ["readjson_file"]),
        ("readJSON_file", True, ["read", "json", "file", "readjson_file"]),
        ("def __init__(self):", True, ["def", "init", "self"]),
        ("XMLParser2", True, ["xml", "parser2", "xmlparser2"]),
        ("x = numpy.array_equal(a, B)", True, ["x", "numpy", "array", "equal", "array_equal", "b"]),
        ("__", True, ["__"]),
        ("Straße naïve Ünïcode", False, ["straße", "naïve", "ünïcode"]),
        ("検索 engine", False, ["検", "索", "engine"]),
        ("", False, []),
    ],
)
def test_words(text: str, code: bool, words: list[str]) -> None:
    assert tokenize(text, code=code) == words


def test_stop_words_can_be_kept() -> None:
    assert tokenize("if not in the list", stop_words=False) == ["if", "not", "in", "the", "list"]
    assert tokenize("if not in the list") == ["list"]


WORDS = ("sort", "list", "file", "read", "open", "close", "mean", "value", "tree", "node", "edge", "graph")


def random_pairs(seed: int, n: int = 40) -> Examples:
    generator = np.random.default_rng(seed)
    anchors, positives = [], []
    for number in range(n):
        own = generator.choice(WORDS, 3)
        anchors.append(" ".join([*own, f"only{number}"]))
        positives.append(" ".join([*own, *generator.choice(WORDS, generator.integers(1, 9))]))
    return Examples.from_columns({"anchor": anchors, "positive": positives})


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (2.0, 0.0)])
def test_the_ranking_is_that_of_the_formula(k1: float, b: float) -> None:
    examples = random_pairs(0)
    data = candidates(examples)
    documents = [tokenize(text) for text in data.documents]
    frequency = Counter(word for words in documents for word in set(words))
    mean_length = sum(map(len, documents)) / len(documents)
    run: dict[str, dict[str, float]] = {}
    for identity, query in zip(data.query_ids, data.queries, strict=True):
        run[identity] = {}
        for name, words in zip(data.document_ids, documents, strict=True):
            score = 0.0
            for word in tokenize(query):
                count = words.count(word)
                idf = math.log(1 + (len(documents) - frequency[word] + 0.5) / (frequency[word] + 0.5))
                score += idf * count / (count + k1 * (1 - b + b * len(words) / mean_length))
            run[identity][name] = round(score, 5)
    expected = retrieval_run(run, data.qrels, main="mrr")
    found = bm25(examples, k1=k1, b=b)
    assert found.main == "mrr"
    assert found.per_item["mrr"] == pytest.approx(expected.per_item["mrr"], abs=1e-9)
    assert found.measures["ndcg@10"].value == pytest.approx(expected.measures["ndcg@10"].value)
    assert 0.2 < found.value < 1.0


def test_documents_without_a_common_word_stand_last_in_the_order_of_ids() -> None:
    ids = [f"d{number}" for number in range(5)]
    texts = ["alpha beta", "gamma", "delta", "epsilon", "zeta"]
    data = RetrievalSet(
        ids,
        texts,
        ["q", "r", "s"],
        ["alpha", "nothing known", "the"],
        {
            "q": {"d0": 1},
            "r": {"d0": 1},
            "s": {"d4": 1},
        },
    )
    assert bm25(data, measures=["mrr"]).per_item["mrr"].tolist() == [1.0, 1 / 5, 1.0]


def test_code_is_found_by_the_parts_of_its_names() -> None:
    examples = Examples.from_columns(
        {
            "anchor": ["shuffle the array", "parse a json file", "open a socket"],
            "positive": ["def shuffleArray(x): pass", "def parse_json_file(y): pass", "def openSocket(z): pass"],
        }
    )
    assert bm25(examples, code=True).value == 1.0
    assert bm25(examples, code=False).value < 1.0


def test_a_retrieval_set_has_its_own_main_measure() -> None:
    assert bm25(candidates(random_pairs(1))).main == "ndcg@10"


def test_nothing_to_match_is_an_error() -> None:
    with pytest.raises(DataError, match="word"):
        bm25(Examples.from_columns({"anchor": ["a?", "b!"], "positive": ["...", "!!!"]}))
    with pytest.raises(UsageError):
        bm25(random_pairs(0), k1=-1)
    with pytest.raises(UsageError):
        bm25(random_pairs(0), b=float("nan"))


def test_pairs_become_candidates() -> None:
    examples = Examples.from_columns(
        {
            "anchor": ["q1", "q2", "q1", "q3"],
            "positive": ["a", "b", "c", "a"],
            "negative_1": ["b", "x", "y", "x"],
            "negative_2": ["z", "a", "y", "w"],
        }
    )
    data = candidates(examples)
    assert sorted(data.documents) == ["a", "b", "c", "w", "x", "y", "z"]
    assert data.queries == ["q1", "q2", "q3"]
    assert len(set(data.document_ids)) == 7
    by_text = {
        query: {data.documents[data.document_ids.index(key)] for key in data.qrels[identity]}
        for identity, query in zip(data.query_ids, data.queries, strict=True)
    }
    assert by_text == {"q1": {"a", "c"}, "q2": {"b"}, "q3": {"a"}}


def test_one_positive_for_all_is_an_error_and_no_perfect_score() -> None:
    with pytest.raises(DataError, match="nothing to tell apart"):
        bm25(Examples.from_columns({"anchor": ["one", "two"], "positive": ["same", "same"]}))
