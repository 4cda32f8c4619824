"""``nearfar compare`` and ``nearfar report`` as a user types them, and the verdict in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar.cli.app import run
from nearfar.compare.verdict import judge
from nearfar.evaluation.comparison import against_reference, all_pairs

from .conftest import pairs


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = pairs(160)
    path.write_text("".join(json.dumps(rows[index]) + "\n" for index in range(len(rows))), encoding="utf-8")
    return path


def test_from_the_file_to_the_report(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = "infonce(temperature=0.1),wide=dcl(temperature=0.5,learning_rate=0.01)"
    words = ["compare", file, "--objectives", entries, "--seeds", 2, "--budget", 4, "--dimension", 8]
    words += ["--batch-size", 32, "--output", tmp_path / "cmp"]
    code, out, err = call(capsys, *words)
    assert code == 0, err
    assert "infonce(temperature=0.1)" in out
    assert "wide" in out
    assert "MRR" in out
    assert "7/7" in err
    code, _, err = call(capsys, *words)
    assert code == 1
    assert "--overwrite" in err
    (tmp_path / "cmp" / "report.html").unlink()
    code, out, _ = call(capsys, "report", tmp_path / "cmp")
    assert code == 0
    page = (tmp_path / "cmp" / "report.html").read_text(encoding="utf-8")
    assert out.split() == [str(tmp_path / "cmp" / "report.html")]
    assert "--dimension 8 --batch-size 32 --output runs/best" in page  # what to train with has what was asked for here
    for words_of_page in ("Differences to infonce", "Means and seeds", "Learning", "All pairs", "nearfar train"):
        assert words_of_page in page


def test_json_for_scripts(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(
        capsys, "compare", file, "--objectives", "infonce,barlow-twins", "--reference", "barlow-twins", "--no-search",
        "--seeds", 2, "--budget", 2, "--dimension", 8, "--batch-size", 32, "--output", tmp_path / "cmp", "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["reference"] == "barlow-twins"
    assert [each["first"] for each in found["differences"]] == ["infonce"]
    assert found["verdict"]["sentences"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objectives", "infonce"], "at least two"),
        (["--objectives", "infonce,infonec"], "info-nce"),
        (["--objectives", "infonce,cosent"], "point objective"),
        (["--objectives", "infonce,dcl", "--seeds", "1"], "seeds cannot be 1"),
        (["--objectives", "infonce,dcl", "--budget", "tomorrow"], "budget"),
        ([], "at least two"),
    ],
)
def test_wrong_calls_end_with_2_and_advice(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = call(capsys, "compare", file, *arguments, "--output", tmp_path / "cmp")
    assert code == 2
    assert message in " ".join(err.split())
    assert "mend:" in err
    assert not (tmp_path / "cmp").exists()


def said(shifts: list[float], *, reference: str = "a") -> str:
    names = "abcdefgh"[: len(shifts)]
    random = np.random.default_rng(0)
    values = random.normal(0.5, 0.1, (1, 1, 300)) + random.normal(0, 0.02, (len(shifts), 5, 300))
    values += np.array(shifts)[:, None, None]
    means = dict(zip(names, values.mean((1, 2)).tolist(), strict=True))
    found = against_reference(values, names, reference, resamples=20)
    return str(judge(found, all_pairs(values, names, resamples=20), means, reference=reference, measure="ndcg@10"))


def test_the_verdict_in_words() -> None:
    text = said([0.0, 0.05, 0.1, -0.03, 0.0])
    assert text.startswith("c and b are better than a by 4.99 to 10.1 points of nDCG@10. d is worse than a by ")
    assert "e cannot be told apart from a at this budget: a difference of less than about 0." in text
    assert text.endswith("c is the best of all: every other one can be told apart from it.")
    assert said([0.0, 0.0]).startswith("b cannot be told apart from a at this budget")
    assert said([0.0, 0.0, 0.0]).startswith("Neither b nor c can be told apart")
    four = said([0.0, 0.0, 0.0, 0.0])
    assert four.startswith("None of the other three (b, c and d) can be told apart")
    assert four.endswith("No two of them can be told apart.")
    wide = np.random.default_rng(0).random((2, 2, 4))
    unsure = against_reference(wide, ["a", "b"], "a", resamples=20)
    means = {"a": 0.5, "b": 0.5}
    text = str(judge(unsure, unsure, means, reference="a", measure="mrr"))
    assert text == "b cannot be told apart from a at this budget: even a difference of 100 points would not be seen."
    assert "c has the highest mean; b cannot be told apart from it." in said([0.0, 0.1, 0.0991])
