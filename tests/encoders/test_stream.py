from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nearfar import data, encoders
from nearfar.errors import DataError, OutputError, UsageError

from .conftest import SCRIPTS, corpus

TEXTS = [*SCRIPTS.values(), *corpus()[:90]]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture(params=["static_model", "bert_model"])
def model(request):
    return request.getfixturevalue(request.param)


class InterruptedHereError(Exception):
    pass


def interrupt_at(rows: int):
    def progress(done: int, _: int) -> None:
        if done >= rows:
            raise InterruptedHereError

    return progress


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_holds_what_encode_gives(model, source, tmp_path, dtype):
    result = encoders.encode_file(model, source, tmp_path / "out", window=40, batch_size=8, dtype=dtype)
    assert (result.path, result.sidecar) == (tmp_path / "out.npy", tmp_path / "out.json")
    assert {path.name for path in tmp_path.iterdir()} == {"texts.jsonl", "out.npy", "out.json"}
    stored = np.load(result.path)
    assert stored.dtype == np.dtype(dtype)
    expected = encoders.encode(model, TEXTS)
    tolerance = {"float32": 1e-6, "float16": 1e-3, "int8": 1 / 254 + 1e-5}[dtype]
    np.testing.assert_allclose(result.vectors(), expected, atol=tolerance)
    np.testing.assert_allclose(result.vectors(3, 5), expected[3:5], atol=tolerance)
    described = json.loads(result.sidecar.read_text())
    assert described["rows"] == len(TEXTS)
    assert described["dimension"] == expected.shape[1]
    assert described["dtype"] == dtype
    assert described["scale"] == (pytest.approx(1 / 127) if dtype == "int8" else None)
    assert described["array"] == "out.npy"
    assert described["model"] == encoders.fingerprint(model)


@pytest.mark.parametrize("stop_at", [1, 40, 41, 80, len(TEXTS)])
def test_interrupted_and_resumed_gives_the_same_bytes(model, source, tmp_path, stop_at):
    whole = encoders.encode_file(model, source, tmp_path / "whole", window=40, batch_size=8)
    with pytest.raises(InterruptedHereError):
        encoders.encode_file(model, source, tmp_path / "part", window=40, batch_size=8, progress=interrupt_at(stop_at))
    assert not (tmp_path / "part.npy").exists()
    assert (tmp_path / "part.npy.part").exists() == (stop_at > 40), "nothing finished, nothing left"
    seen = []
    result = encoders.encode_file(
        model, source, tmp_path / "part", window=40, batch_size=8, progress=lambda done, rows: seen.append((done, rows))
    )
    assert result.path.read_bytes() == whole.path.read_bytes()
    assert seen[0][0] > 40 * ((stop_at - 1) // 40), "finished windows are not embedded again"
    assert seen[-1] == (len(TEXTS), len(TEXTS))
    assert not list(tmp_path.glob("*.part*"))


def test_killed_and_resumed_gives_the_same_bytes(static_model, source, tmp_path, child_environment):
    whole = encoders.encode_file(static_model, source, tmp_path / "whole", window=20)
    encoders.save(static_model, tmp_path / "model")
    script = (
        "import sys, time\nfrom nearfar import encoders\n"
        "def slow(done, rows):\n    time.sleep(3600 if done > 40 else 0)\n"
        "model = encoders.load(sys.argv[1], device='cpu')\n"
        "encoders.encode_file(model, sys.argv[2], sys.argv[3], window=20, progress=slow)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model"), str(source), str(tmp_path / "killed")]
    child = subprocess.Popen(command, env=child_environment)
    state = tmp_path / "killed.npy.part.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if state.exists() and json.loads(state.read_text())["done"] == 40:
            break
        time.sleep(0.05)
    with pytest.raises(OutputError, match="another process"):
        encoders.encode_file(static_model, source, tmp_path / "killed", window=20)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    seen = []
    result = encoders.encode_file(
        static_model, source, tmp_path / "killed", window=20, progress=lambda done, _: seen.append(done)
    )
    assert seen[0] == 60
    assert result.path.read_bytes() == whole.path.read_bytes()


def test_work_of_another_job_is_not_continued(static_model, source, tmp_path):
    def run(**changes):
        options = {"window": 40, "batch_size": 8, **changes}
        return encoders.encode_file(static_model, source, tmp_path / "out", **options)

    with pytest.raises(InterruptedHereError):
        run(progress=interrupt_at(41))
    with pytest.raises(OutputError, match="another window"):
        run(window=30)
    with pytest.raises(OutputError, match="another dtype, normalize"):
        run(dtype="float16", normalize=False)
    source.write_text('{"text": "something else"}\n')
    with pytest.raises(OutputError, match="another rows, source"):
        run()
    assert (tmp_path / "out.npy.part").exists()
    assert run(resume=False).rows == 1


def test_a_shortened_part_is_begun_anew(static_model, source, tmp_path):
    whole = encoders.encode_file(static_model, source, tmp_path / "whole", window=40)
    with pytest.raises(InterruptedHereError):
        encoders.encode_file(static_model, source, tmp_path / "out", window=40, progress=interrupt_at(80))
    part = tmp_path / "out.npy.part"
    part.write_bytes(part.read_bytes()[:200])
    result = encoders.encode_file(static_model, source, tmp_path / "out", window=40)
    assert result.path.read_bytes() == whole.path.read_bytes()


def test_an_output_that_exists(static_model, source, tmp_path):
    first = encoders.encode_file(static_model, source, tmp_path / "out.npy")
    assert first.path == tmp_path / "out.npy"
    with pytest.raises(OutputError, match="exists"):
        encoders.encode_file(static_model, source, tmp_path / "out")
    second = encoders.encode_file(static_model, source, tmp_path / "out", dtype="float16", overwrite=True)
    assert np.load(second.path).dtype == np.float16


def test_sources(static_model, tmp_path):
    expected = encoders.encode(static_model, TEXTS)
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS[:7]).encode()))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "query,document\n" + "".join(f'"{a}","{b}"\n' for a, b in zip(TEXTS[10:20], TEXTS[20:30], strict=True))
    )
    examples = data.read(pairs)

    def run(name, source, **options):
        return encoders.encode_file(static_model, source, tmp_path / name, **options).vectors()

    np.testing.assert_array_equal(run("a", tmp_path / "t.txt.gz"), expected[:7])
    np.testing.assert_array_equal(run("b", pairs, column="document"), expected[20:30])
    np.testing.assert_array_equal(run("c", examples, column="anchor"), expected[10:20])
    np.testing.assert_array_equal(run("d", TEXTS), expected)
    assert run("e", []).shape == (0, 24)
    with pytest.raises(UsageError, match="anchor, positive"):
        run("f", pairs)
    with pytest.raises(UsageError, match="no text column"):
        run("g", examples, column="body")
    with pytest.raises(DataError):
        run("h", tmp_path / "missing.jsonl")


def test_rows_left_out_are_counted(static_model, source, tmp_path):
    with open(source, "a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError):
        encoders.encode_file(static_model, source, tmp_path / "out")
    result = encoders.encode_file(static_model, source, tmp_path / "out", max_bad_rows=1)
    assert (result.rows, result.skipped_rows) == (len(TEXTS), 1)
    assert json.loads(result.sidecar.read_text())["skipped_rows"] == 1


def test_a_full_disk_is_reported_and_work_is_kept(static_model, source, tmp_path, monkeypatch):
    import os

    whole = encoders.encode_file(static_model, source, tmp_path / "whole", window=40)
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        encoders.encode_file(static_model, source, tmp_path / "out", window=40)
    monkeypatch.undo()
    seen = []
    result = encoders.encode_file(
        static_model, source, tmp_path / "out", window=40, progress=lambda done, _: seen.append(done)
    )
    assert seen[0] == 80
    assert result.path.read_bytes() == whole.path.read_bytes()


def test_what_is_refused(static_model, source, tmp_path):
    with pytest.raises(UsageError, match="window"):
        encoders.encode_file(static_model, source, tmp_path / "out", window=0)
    with pytest.raises(UsageError, match="length 1"):
        encoders.encode_file(static_model, source, tmp_path / "out", dtype="int8", normalize=False)
    (tmp_path / "a-file").write_text("")
    with pytest.raises(OutputError):
        encoders.encode_file(static_model, source, tmp_path / "a-file" / "out")
