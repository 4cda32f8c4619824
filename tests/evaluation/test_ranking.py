from __future__ import annotations

import math

import numpy as np
import pytest

from nearfar.data import RetrievalSet
from nearfar.errors import DataError, ModelError, UsageError
from nearfar.evaluation import ranking, retrieval, retrieval_run
from nearfar.evaluation.ranking import judged, measure_ranks, ranks_by_embedding, tie_order

Run = dict[str, dict[str, float]]
Qrels = dict[str, dict[str, int]]


def random_task(seed: int, queries: int = 25, documents: int = 40) -> tuple[Run, Qrels]:
    """Many ties, documents without judgement, relevant ones not returned, ids whose order is not that of numbers."""
    generator = np.random.default_rng(seed)
    ids = [f"d{number}" for number in range(documents)] + ["é", "Z", "z", "文"]
    run: Run = {}
    qrels: Qrels = {}
    for number in range(queries):
        returned = generator.permutation(len(ids))[: generator.integers(1, len(ids))]
        levels = generator.integers(1, 6)
        run[f"q{number}"] = {ids[index]: float(generator.integers(0, levels)) / 3 for index in returned}
        chosen = generator.permutation(len(ids))[: generator.integers(1, 25)]
        qrels[f"q{number}"] = {ids[index]: int(generator.integers(0, 4)) for index in chosen}
        qrels[f"q{number}"][ids[chosen[0]]] = int(generator.integers(1, 4))
    return run, qrels


@pytest.mark.parametrize("seed", range(6))
def test_measures_are_those_of_trec_eval(seed: int) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    run, qrels = random_task(seed)
    names = {
        "ndcg@1": "ndcg_cut_1",
        "ndcg@5": "ndcg_cut_5",
        "ndcg@10": "ndcg_cut_10",
        "ndcg": "ndcg",
        "mrr": "recip_rank",
        "map": "map",
        "map@5": "map_cut_5",
        "recall@1": "recall_1",
        "recall@5": "recall_5",
        "recall@20": "recall_20",
        "precision@5": "P_5",
        "success@5": "success_5",
    }
    wanted = {"ndcg", "recip_rank", "map"} | {
        f"{kind}.1,5,10,20" for kind in ("ndcg_cut", "map_cut", "recall", "P", "success")
    }
    peer = pytrec_eval.RelevanceEvaluator(qrels, wanted).evaluate(run)
    found = retrieval_run(run, qrels, measures=list(names), resamples=10)
    for ours, theirs in names.items():
        expected = [peer[query][theirs] for query in qrels]
        assert found.per_item[ours] == pytest.approx(expected, abs=1e-9), ours
        assert found.measures[ours].value == pytest.approx(np.mean(expected), abs=1e-9)


def test_a_run_is_compared_in_single_precision_as_trec_eval_does() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    run = {"q": {"a": 0.5 + 1e-12, "b": 0.5}}
    qrels = {"q": {"a": 1}}
    peer = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)["q"]["recip_rank"]
    assert retrieval_run(run, qrels, measures=["mrr"]).value == peer == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_embeddings_are_ranked_as_their_run_is(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(seed)
    queries, documents = 30, 50
    # Few distinct whole-number coordinates: exact scores with many ties.
    query = generator.integers(-1, 2, (queries, 3)).astype(np.float32)
    document = generator.integers(-1, 2, (documents, 3)).astype(np.float32)
    query_ids = [f"q{number}" for number in range(queries)]
    document_ids = [f"d{number}" for number in range(documents)]
    qrels = {
        identity: {f"d{index}": int(generator.integers(0, 3)) for index in generator.permutation(documents)[:size]}
        for identity, size in zip(query_ids, generator.integers(1, 40, queries), strict=True)
    }
    qrels["q0"] = {"d3": 0}  # nothing relevant
    del qrels["q1"]  # not judged
    qrels["q2"] = {"missing": 1, "d4": 2}
    data = RetrievalSet(document_ids, document_ids, query_ids, query_ids, qrels)
    scores = query @ document.T
    run = {
        identity: {name: float(scores[row, column]) for column, name in enumerate(document_ids)}
        for row, identity in enumerate(query_ids)
        if row != 1
    }
    expected = retrieval_run(run, qrels, resamples=10)
    whole = retrieval(query, document, data, resamples=10)
    assert whole.details["excluded_queries"] == expected.details["excluded_queries"] + 1
    assert whole.details["queries"] == expected.details["queries"]
    for name, values in expected.per_item.items():
        assert whole.per_item[name] == pytest.approx(values, abs=1e-12), name
    monkeypatch.setattr(ranking, "_SCORES_AT_ONCE", 70)  # one query at a time
    chunked = retrieval(query, document, data, resamples=10)
    for name, values in whole.per_item.items():
        assert (chunked.per_item[name] == values).all()


def by_definition(name: str, order: list[str], grades: dict[str, int], k: int | None, gain: str) -> float:
    """The measures as plain loops over a ranked list."""
    top = order[:k]
    relevant = {key for key, grade in grades.items() if grade > 0}
    if name == "mrr":
        return next((1 / rank for rank, key in enumerate(top, 1) if key in relevant), 0.0)
    if name == "recall":
        return len(relevant & set(top)) / len(relevant)
    if name == "map":
        hits, total = 0, 0.0
        for rank, key in enumerate(top, 1):
            if key in relevant:
                hits += 1
                total += hits / rank
        return total / len(relevant)
    worth = {key: grades[key] if gain == "linear" else 2 ** grades[key] - 1 for key in relevant}
    found = sum(worth.get(key, 0) / math.log2(rank + 1) for rank, key in enumerate(top, 1))
    best = sum(value / math.log2(rank + 1) for rank, value in enumerate(sorted(worth.values(), reverse=True)[:k], 1))
    return found / best


@pytest.mark.parametrize("gain", ["linear", "exponential"])
@pytest.mark.parametrize("k", [None, 1, 3, 10])
def test_measures_by_their_definition(gain: str, k: int | None) -> None:
    run, qrels = random_task(11)
    for name in ("mrr", "recall", "map", "ndcg"):
        measure = name if k is None else f"{name}@{k}"
        found = retrieval_run(run, qrels, measures=[measure], gain=gain, resamples=10).per_item[measure]
        expected = []
        for query, grades in qrels.items():
            order = sorted(sorted(run[query], reverse=True), key=lambda key, query=query: -run[query][key])
            expected.append(by_definition(name, order, grades, k, gain))
        assert found == pytest.approx(expected, abs=1e-12)


def test_exponential_gain_differs_from_linear() -> None:
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}
    qrels = {"q": {"a": 1, "b": 3}}
    linear = retrieval_run(run, qrels, measures=["ndcg@10"]).value
    exponential = retrieval_run(run, qrels, measures=["ndcg@10"], gain="exponential").value
    assert linear == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert exponential == pytest.approx((1 + 7 / math.log2(3)) / (7 + 1 / math.log2(3)))


def test_a_query_that_is_not_in_the_run_found_nothing() -> None:
    found = retrieval_run({"a": {"x": 1.0}}, {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 0}}, measures=["mrr", "ndcg"])
    assert found.per_item["mrr"].tolist() == [1.0, 0.0]
    assert found.details["excluded_queries"] == 1


def test_a_collapsed_encoder_gets_the_measure_of_chance() -> None:
    size = 200
    ids = [f"d{number}" for number in range(size)]
    data = RetrievalSet(ids, ids, ids, ids, {identity: {identity: 1} for identity in ids})
    same = np.full((size, 8), 1 / math.sqrt(8), np.float32)
    found = retrieval(same, same, data, resamples=10)
    assert found.measures["mrr"].value == pytest.approx(sum(1 / rank for rank in range(1, size + 1)) / size)
    assert found.measures["recall@10"].value == pytest.approx(10 / size)
    assert found.measures["mrr"].value < 0.05


def test_embeddings_that_are_not_finite_are_an_error_and_no_perfect_score() -> None:
    ids = ["a", "b", "c"]
    data = RetrievalSet(ids, ids, ids, ids, {identity: {identity: 1} for identity in ids})
    good = np.eye(3, dtype=np.float32)
    bad = good.copy()
    bad[1, 1] = np.nan
    with pytest.raises(ModelError, match="row 1"):
        retrieval(good, bad, data)
    with pytest.raises(ModelError):
        retrieval(bad, good, data)
    assert retrieval(good, good, data).measures["mrr"].value == 1.0


def test_data_that_do_not_fit_are_errors() -> None:
    ids = ["a", "b"]
    data = RetrievalSet(ids, ids, ids, ids, {"a": {"a": 1}})
    good = np.eye(2, dtype=np.float32)
    with pytest.raises(DataError, match="do not belong"):
        retrieval(good[:1], good, data)
    with pytest.raises(DataError, match="compared"):
        retrieval(good, good[:, :1], data)
    with pytest.raises(DataError, match="at least 2"):
        retrieval(good, good[:1], RetrievalSet(["a"], ["a"], ids, ids, {"a": {"a": 1}}))
    with pytest.raises(DataError, match="no query has a relevant"):
        retrieval(good, good, RetrievalSet(ids, ids, ids, ids, {"a": {"a": 0}}))
    with pytest.raises(DataError, match="twice"):
        retrieval(good, good, RetrievalSet(["a", "a"], ids, ids, ids, {"a": {"a": 1}}))
    with pytest.raises(DataError, match="not a number"):
        retrieval_run({"q": {"a": float("nan")}}, {"q": {"a": 1}})


@pytest.mark.parametrize("name", ["ndgc", "ndcg@0", "ndcg@", "precision", "MRR", "recall@-1"])
def test_unknown_measures_are_errors(name: str) -> None:
    with pytest.raises(UsageError):
        retrieval_run({"q": {"a": 1.0}}, {"q": {"a": 1}}, measures=[name])


def test_unknown_gain_and_no_measure_are_errors() -> None:
    with pytest.raises(UsageError):
        retrieval_run({"q": {"a": 1.0}}, {"q": {"a": 1}}, gain="cubic")
    with pytest.raises(UsageError):
        retrieval_run({"q": {"a": 1.0}}, {"q": {"a": 1}}, measures=[])


def test_many_relevant_documents_are_ranked_as_few_are() -> None:
    generator = np.random.default_rng(0)
    document_ids = [f"d{number}" for number in range(60)]
    query, document = generator.integers(-2, 3, (4, 2)), generator.integers(-2, 3, (60, 2))
    many = judged(
        ["q0", "q1", "q2", "q3"], document_ids, {f"q{row}": dict.fromkeys(document_ids, 1) for row in range(4)}
    )
    tie = tie_order(document_ids)
    ranks = ranks_by_embedding(query.astype(np.float32), document.astype(np.float32), many, tie).reshape(4, 60)
    assert (np.sort(ranks, axis=1) == np.arange(1, 61)).all()
    for number in range(0, 60, 7):
        few = judged(["q0", "q1", "q2", "q3"], document_ids, {f"q{row}": {document_ids[number]: 1} for row in range(4)})
        alone = ranks_by_embedding(query.astype(np.float32), document.astype(np.float32), few, tie)
        assert (alone == ranks[:, number]).all()


def test_a_main_measure_that_was_not_listed_is_measured_too() -> None:
    found = retrieval_run({"q": {"a": 1.0}}, {"q": {"a": 1}}, measures=["ndcg@5"], main="mrr")
    assert found.main == "mrr"
    assert list(found.measures) == ["mrr", "ndcg@5"]


def test_recall_of_more_documents_than_there_are() -> None:
    entries = judged(["q"], ["a", "b"], {"q": {"a": 1, "b": 1}})
    assert measure_ranks("recall@100", entries, np.array([1.0, 2.0])) == pytest.approx([1.0])
    assert measure_ranks("recall", entries, np.array([1.0, np.inf])) == pytest.approx([0.5])
