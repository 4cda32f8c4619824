"""The command line end to end, as a user types it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar.cli.app import run

WORDS = [
    "red",
    "green",
    "blue",
    "fast",
    "slow",
    "sort",
    "list",
    "array",
    "file",
    "open",
    "read",
    "graph",
    "node",
    "tree",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    drawn = random.Random(0)

    def words(count: int) -> str:
        return " ".join(drawn.choice(WORDS) for _ in range(count))

    rows = []
    for _ in range(200):
        anchor = words(5)
        rows.append({"anchor": anchor, "positive": " ".join([*anchor.split()[:2], words(3)])})
    write = {
        "pairs.jsonl": [json.dumps(row) for row in rows[:160]],
        "dev.jsonl": [json.dumps(row) for row in rows[160:]],
        "documents.jsonl": [json.dumps({"id": f"d{i}", "text": words(6), "name": f"T{i}"}) for i in range(50)],
        "broken.jsonl": [json.dumps(rows[0]), '{"anchor": "x", ', json.dumps(rows[1])],
        "equal.jsonl": [json.dumps(rows[0])] * 20,
        "one.jsonl": [json.dumps(rows[0])],
        "empty.jsonl": [],
    }
    for name, lines in write.items():
        (folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


class Called:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: Any) -> tuple[int, str, str]:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run([str(argument) for argument in arguments])
        captured = self.capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture
def nearfar(capsys: pytest.CaptureFixture[str]) -> Called:
    return Called(capsys)


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    folder = place / "runs" / "mine"
    with pytest.raises(SystemExit) as stop:
        run(
            ["train", str(place / "pairs.jsonl"), "--encoder", "static", "--dimension", "16", "--objective", "infonce",
             "--temperature", "0.05", "--two-sided", "--batch-size", "32", "--epochs", "2",
             "--evaluate", str(place / "dev.jsonl"), "--output", str(folder)]
        )  # fmt: skip
    assert stop.value.code == 0
    return folder


def test_train_leaves_a_whole_run_folder(trained: Path) -> None:
    names = {item.name for item in trained.iterdir()}
    assert {
        "model",
        "config.json",
        "metrics.json",
        "metrics.jsonl",
        "data-check.json",
        "versions.json",
        "report.html",
    } <= names
    config = json.loads((trained / "config.json").read_text())
    assert config["settings"]["parameters"] == {"temperature": 0.05, "two_sided": True}
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["main"] == "mrr"
    assert metrics["after"]["mrr"]["value"] > metrics["before"]["mrr"]["value"] - 0.2
    assert "bm25" in metrics["baselines"]


def test_train_refuses_what_is_there_and_resumes_what_is_done(place: Path, trained: Path, nearfar: Called) -> None:
    code, _, err = nearfar("train", place / "pairs.jsonl", "--output", trained)
    assert code == 1
    assert "exists already" in err
    assert "--overwrite" in err
    code, out, _ = nearfar("train", "--resume", "--output", trained, "--json")
    assert code == 0
    assert json.loads(out)["steps"] == 10


def test_evaluate_reports_intervals_and_a_baseline(place: Path, trained: Path, nearfar: Called) -> None:
    code, out, _ = nearfar("evaluate", trained, place / "dev.jsonl", "--baseline", "bm25", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["bm25"]["main"] == "mrr"
    measure = found[str(trained)]["measures"]["mrr"]
    assert measure["low"] <= measure["value"] <= measure["high"]
    assert measure["n"] == 40
    code, out, _ = nearfar("evaluate", trained, place / "dev.jsonl")
    assert code == 0
    assert "95 % interval" in out


def test_index_and_search(place: Path, trained: Path, nearfar: Called) -> None:
    code, out, _ = nearfar(
        "index", trained, place / "documents.jsonl", "--output", place / "index", "--overwrite", "--json"
    )
    assert (code, json.loads(out)["documents"]) == (0, 50)
    first = json.loads((place / "documents.jsonl").read_text().splitlines()[0])
    code, out, _ = nearfar("search", place / "index", first["text"], "green tree", "-k", "3", "--json")
    hits = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(hits) == 6
    assert (hits[0]["id"], hits[0]["rank"], hits[0]["fields"]) == (first["id"], 1, {"name": first["name"]})
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    code, out, _ = nearfar("search", place / "index", first["text"], "-k", "2")
    assert code == 0
    assert first["id"] in out
    code, _, err = nearfar("search", trained, "x")
    assert code == 2
    assert "nearfar index" in err


def test_encode_writes_the_vectors_of_the_model(place: Path, trained: Path, nearfar: Called) -> None:
    from nearfar import encoders

    code, out, _ = nearfar(
        "encode", trained, place / "documents.jsonl", "--column", "text", "--output", place / "vectors", "--json"
    )
    assert (code, json.loads(out)["rows"]) == (0, 50)
    texts = [json.loads(line)["text"] for line in (place / "documents.jsonl").read_text().splitlines()]
    expected = encoders.encode(encoders.load(trained / "model"), texts)
    np.testing.assert_allclose(np.load(place / "vectors.npy"), expected, atol=1e-6)
    code, _, err = nearfar(
        "encode", trained, place / "documents.jsonl", "--column", "text", "--output", place / "vectors"
    )
    assert code == 1
    assert "exists already" in err


def test_mine_writes_pairs_to_train_on(place: Path, trained: Path, nearfar: Called) -> None:
    mined = place / "mined.jsonl"
    code, out, _ = nearfar(
        "mine", place / "pairs.jsonl", "--model", trained, "--negatives", "2", "--ratio", "0.95", "--output", mined,
        "--json",
    )  # fmt: skip
    assert (code, json.loads(out)["rows"]) == (0, 160)
    rows = [json.loads(line) for line in mined.read_text().splitlines()]
    assert all({"anchor", "positive", "negative_1", "negative_2"} == set(row) for row in rows)
    for column, name in (("anchor", "q"), ("positive", "d")):
        code, *_ = nearfar(
            "encode", trained, place / "pairs.jsonl", "--column", column, "--output", place / f"mine-{name}"
        )
        assert code == 0
    call = ["mine", place / "pairs.jsonl", "--query-embeddings", place / "mine-q.npy", "--document-embeddings",
            place / "mine-d.npy", "--negatives", "2", "--ratio", "0.95", "--output", place / "again.jsonl"]  # fmt: skip
    code, out, _ = nearfar(*call)
    assert code == 0
    assert "mean similarity" in out
    assert (place / "again.jsonl").read_text() == mined.read_text()
    code, _, err = nearfar(*call)
    assert code == 1
    assert "--overwrite" in err
    code, _, err = nearfar(*call, "--overwrite", "--ranks", "5-10")
    assert code == 2
    assert "first:last" in err
    code, *_ = nearfar("train", mined, "--dimension", "8", "--steps", "2", "--output", place / "runs" / "hard")
    assert code == 0


def test_report_is_written_again(trained: Path, nearfar: Called) -> None:
    (trained / "report.html").unlink()
    code, out, _ = nearfar("report", trained)
    assert code == 0
    assert out.strip().endswith("report.html")
    assert (trained / "report.html").stat().st_size > 10_000


def test_data_check(place: Path, nearfar: Called) -> None:
    code, out, _ = nearfar(
        "data", "check", place / "pairs.jsonl", "--batch-size", "32", "--evaluate", place / "dev.jsonl"
    )
    assert code == 0
    assert "160 rows" in out
    code, out, _ = nearfar("data", "check", place / "equal.jsonl", "--json")
    assert code == 0
    assert {finding["name"] for finding in json.loads(out)["findings"]} >= {"all-rows-equal"}
    assert nearfar("data", "check", place / "equal.jsonl", "--strict")[0] == 1


def test_a_broken_line_is_named_and_can_be_skipped(place: Path, nearfar: Called) -> None:
    code, _, err = nearfar("data", "check", place / "broken.jsonl")
    assert code == 1
    assert "line 2" in err
    code, out, _ = nearfar("data", "check", place / "broken.jsonl", "--max-bad-rows", "1", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 2


def test_a_retrieval_set_is_described_and_its_broken_rows_can_be_skipped(tmp_path: Path, nearfar: Called) -> None:
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "d1", "title": "a", "text": "graph tree"}\n{"_id": \n', encoding="utf-8"
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "tree"}\n', encoding="utf-8")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", encoding="utf-8")
    code, _, err = nearfar("data", "check", tmp_path)
    assert code == 1
    assert "line 2" in err
    code, out, _ = nearfar("data", "check", tmp_path, "--max-bad-rows", "1", "--json")
    assert code == 0
    assert json.loads(out)["shape"] == "retrieval set"


def test_objectives_are_listed_and_explained(nearfar: Called) -> None:
    code, out, _ = nearfar("objectives", "--json")
    listed = json.loads(out)
    assert code == 0
    assert {"name", "kind", "aliases", "paper"} == set(listed[0])
    assert {"info-nce", "supcon", "dcl", "triplet", "vicreg", "binary-nce"} <= {entry["name"] for entry in listed}
    assert "info-nce" in nearfar("objectives")[1]
    code, out, _ = nearfar("objectives", "clip")
    assert code == 0
    assert "clip stands for info-nce with" in out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "dpo",
            ["DPO(beta: float = 0.1, *, label_smoothing", "(chosen: Tensor, rejected: Tensor, *, reference_chosen"],
        ),
        ("dpo", ["PreferenceObjective: Costs of pairs", "tokens of the completions, needed where"]),
        (
            "proxy-nca",
            ["ProxyObjective: Base of", "labels: Tensor | None = None", "see also: nearfar objectives info-nce"],
        ),
        ("sppo", ["extra: win_rate"]),
    ],
)
def test_a_page_says_how_the_objective_is_called(nearfar: Called, name: str, says: list[str]) -> None:
    code, out, _ = nearfar("objectives", name)
    assert code == 0
    for said in says:
        assert said in " ".join(out.split())


def test_objectives_are_narrowed_down(nearfar: Called) -> None:
    code, out, _ = nearfar("objectives", "--kind", "view", "--json")
    assert code == 0
    assert {entry["kind"] for entry in json.loads(out)} == {"view"}
    code, out, _ = nearfar("objectives", "--search", "sinkhorn", "--json")
    assert [entry["name"] for entry in json.loads(out)] == ["swav"]
    code, _, err = nearfar("objectives", "--kind", "column")
    assert code == 2
    assert "choose one of combination, point, preference, row, view" in err
    code, _, err = nearfar("objectives", "--search", "no such word anywhere")
    assert code == 2
    assert "no objective fits" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "pairs.jsonl", "--output", "o", "--temperature", "0"], 2, "temperature"),
        (["train", "pairs.jsonl", "--output", "o", "--temperature=-1"], 2, "temperature"),
        (["train", "pairs.jsonl", "--output", "o", "--temperature", "nan"], 2, "temperature"),
        (["train", "pairs.jsonl", "--output", "o", "--objective", "info-nec"], 2, "did you mean"),
        (["train", "pairs.jsonl", "--output", "o", "--set", "margin=1"], 2, "takes no 'margin'"),
        (["train", "pairs.jsonl", "--output", "o", "--objective", "dpo"], 2, "log-probabilities of responses"),
        (["train", "pairs.jsonl", "--output", "o", "--objective", "mopq"], 2, "mopq needs codebook"),
        (["train", "pairs.jsonl", "--output", "o", "--encoder", "not/here/at-all"], 1, "model"),
        (["train", "empty.jsonl", "--output", "o"], 1, "empty"),
        (["train", "one.jsonl", "--output", "o"], 1, "1 row cannot be contrasted"),
        (["train", "equal.jsonl", "--output", "o"], 1, "same text"),
        (["train", "pears.jsonl", "--output", "o"], 1, "did you mean"),
        (["train", "--output", "o"], 2, "no data"),
        (["train", "--nonsense"], 2, "No such option"),
        (["search", "o"], 2, "nothing to search for"),
        (["objectives", "nothing"], 2, "there is no objective"),
        (["encode", "pairs.jsonl", "pairs.jsonl", "--output", "v"], 1, "model"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_block(
    place: Path, nearfar: Called, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(place)
    found, _, err = nearfar(*arguments)
    assert found == code
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert not (place / "o").exists()


def test_debug_shows_the_traceback(place: Path) -> None:
    with pytest.raises(Exception, match="did you mean"):
        run(["train", str(place / "pears.jsonl"), "--output", str(place / "o"), "--debug"])


def test_help_of_every_command_shows_an_example(nearfar: Called) -> None:
    for command in ("demo", "train", "evaluate", "encode", "index", "search", "report", "objectives"):
        code, out, _ = nearfar(command, "--help")
        assert code == 0
        assert f"nearfar {command}" in " ".join(out.split())
    assert nearfar("data", "check", "--help")[0] == 0
    assert nearfar("--version")[1].startswith("nearfar ")


def test_as_a_module_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nearfar", "objectives", "dcl"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Decoupled" in done.stdout
