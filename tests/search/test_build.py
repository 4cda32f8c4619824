from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nearfar import encoders
from nearfar.errors import DataError, OutputError
from nearfar.search import Index
from nearfar.search import build as building

from .conftest import DOCUMENTS, make_documents


class StopHereError(Exception):
    pass


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(building, "STEP", 16)


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
@pytest.mark.parametrize("stop_at", [1, 16, 49, 100])
def test_interrupted_and_built_again(kind, stop_at, model, tmp_path, small_steps):
    def stopping():
        for number, document in enumerate(DOCUMENTS):
            if number == stop_at:
                raise StopHereError
            yield document
        raise StopHereError

    with pytest.raises(StopHereError):
        Index.build(tmp_path / "i", model, stopping(), kind=kind)
    assert not (tmp_path / "i").exists()
    with pytest.raises(DataError, match="does not exist") as caught:
        Index.open(tmp_path / "i")
    assert ("interrupted" in str(caught.value.hint)) == (stop_at >= 16), "nothing stored, nothing left"
    seen = []
    index = Index.build(
        tmp_path / "i",
        model,
        DOCUMENTS,
        kind=kind,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    kept = stop_at // 16 * 16
    assert seen[0] == ("embedding", kept or 16, 100)
    whole = Index.build(tmp_path / "whole", model, DOCUMENTS, kind=kind)
    names = ("documents.jsonl", "offsets.npy", "vectors.faiss" if kind == "exact" else "documents.jsonl")
    for name in names:
        assert (index.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert index.search(["fox jumps"]) == whole.search(["fox jumps"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i", "whole"]


@pytest.mark.parametrize("change", ["changed", "shorter", "longer", "other model"])
def test_built_again_with_other_documents(change, model, tmp_path, small_steps):
    def stopping():
        yield from DOCUMENTS[:80]
        raise StopHereError

    with pytest.raises(StopHereError):
        Index.build(tmp_path / "i", model, stopping())
    documents, encoder = list(DOCUMENTS), model
    if change == "changed":
        documents[20] = {"text": "quite another beetle"}
    elif change == "shorter":
        documents = documents[:33]
    elif change == "longer":
        documents += make_documents(300)[100:]
    else:
        encoder = encoders.load("static", texts=["the fox"], dimension=4, device="cpu")
    index = Index.build(tmp_path / "i", encoder, documents)
    whole = Index.build(tmp_path / "whole", encoder, documents)
    for name in ("documents.jsonl", "offsets.npy", "vectors.faiss"):
        assert (index.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_unsaved_tails_are_cut_off(model, tmp_path, small_steps):
    def stopping():
        yield from DOCUMENTS[:40]
        raise StopHereError

    with pytest.raises(StopHereError):
        Index.build(tmp_path / "i", model, stopping())
    for name in ("vectors.faiss", "documents.jsonl", "offsets.int64"):
        with open(tmp_path / ".i.building" / name, "ab") as file:
            file.write(b"half a rec")
    index = Index.build(tmp_path / "i", model, DOCUMENTS)
    assert [index.documents[row] for row in range(100)] == DOCUMENTS
    assert index.search([DOCUMENTS[50]["text"]], k=1)[0][0].id == "d50"


def test_killed_and_built_again(model, tmp_path):
    encoders.save(model, tmp_path / "model")
    script = (
        "import json, sys, time\nfrom nearfar import encoders\nfrom nearfar.search import Index, build\n"
        "build.STEP = 16\n"
        "def slow():\n"
        "    for number, document in enumerate(json.load(open(sys.argv[3]))):\n"
        "        time.sleep(3600 if number == 60 else 0)\n"
        "        yield document\n"
        "Index.build(sys.argv[2], encoders.load(sys.argv[1], device='cpu'), slow())\n"
    )
    (tmp_path / "documents.json").write_text(json.dumps(DOCUMENTS))
    command = [sys.executable, "-c", script, *(str(tmp_path / name) for name in ("model", "i", "documents.json"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(command, env=environment)
    state = tmp_path / ".i.building" / "building.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if state.exists() and json.loads(state.read_text())["done"] == 48:
            break
        time.sleep(0.05)
    with pytest.raises(OutputError, match="another process"):
        Index.build(tmp_path / "i", model, DOCUMENTS)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "STEP", 16)
        index = Index.build(tmp_path / "i", model, DOCUMENTS, progress=lambda _, done, __: seen.append(done))
        whole = Index.build(tmp_path / "whole", model, DOCUMENTS)
    assert seen[:2] == [48, 64]
    for name in ("documents.jsonl", "offsets.npy", "vectors.faiss"):
        assert (index.folder / name).read_bytes() == (whole.folder / name).read_bytes()
