"""``nearfar align`` as a user types it, from a file of preferences to a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nearfar import report
from nearfar.cli.app import run
from support.alignment import write_place

pytestmark = pytest.mark.filterwarnings("ignore:.*becoming less likely")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("align"))


def call(arguments: list[str], capsys: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        run(arguments)
    printed = capsys.readouterr()
    code = stopped.value.code
    return (code if isinstance(code, int) else 0), printed.out, " ".join(printed.err.split())


def align(place: Path, output: Path, capsys: Any, *more: str, data: str = "pairs") -> tuple[int, str, str]:
    usual = ["--model", str(place / "model"), "--output", str(output), "--device", "cpu", "--steps", "4"]
    return call(["align", str(place / f"{data}.jsonl"), *usual, "--lr", "0.01", *more], capsys)


def test_from_pairs_to_a_report(place: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "run"
    code, out, err = align(place, output, capsys, "--set", "beta=0.2", "--hold-out", "0.2", "--max-response", "5")
    assert code == 0, err
    assert "accuracy (main)" in out
    assert "log_p_chosen" in out
    assert "model: 4 steps" in " ".join(out.split())  # a long path is wrapped
    for part in ("objective: dpo", "beta 0.2", "cut to the budget of 5", "step 0: policy and reference"):
        assert part in err, part
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "was aligned with" in page
    assert "lost their end to the budget" in page
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert config["settings"]["parameters"] == {"beta": 0.2}
    assert config["command"][0] == "nearfar"


def test_json_for_scripts_and_a_run_that_is_complete(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "write", lambda folder: Path(folder) / "report.html")
    output = tmp_path / "run"
    lora = ["--lora", "--rank", "2", "--merge", "--json", "--hold-out", "0.2"]
    code, out, err = align(place, output, capsys, "--objective", "lipo-lambda", *lora, data="lists")
    assert code == 0, err
    found = json.loads(out)
    assert found["model"] == str(output / "model")
    assert found["main"] == "accuracy"
    assert set(found["after"]) >= {"accuracy", "margin", "log_p_chosen", "log_p_rejected", "log_ratio"}
    assert (output / "adapter" / "adapter_model.safetensors").is_file()
    code, out, err = call(["align", "--resume", "--output", str(output), "--json"], capsys)
    assert code == 0
    assert json.loads(out)["after"] == found["after"]
    assert "is complete" in err


@pytest.mark.parametrize(
    ("more", "data", "told"),
    [
        (["--objective", "dpoo"], "pairs", "there is no objective called 'dpoo'"),
        (["--objective", "dpo"], "unpaired", "cannot be trained on unpaired"),
        (["--objective", "copg"], "pairs", "score_chosen and score_rejected"),
        (["--set", "betta=1"], "pairs", "dpo takes no 'betta'"),
        (["--objective", "grpo"], "lists", "align-online"),
        (["--merge"], "pairs", "no adapter to merge"),
    ],
)
def test_what_does_not_fit_is_said_with_what_does(
    place: Path, tmp_path: Path, capsys: Any, more: list[str], data: str, told: str
) -> None:
    code, out, err = align(place, tmp_path / "run", capsys, *more, data=data)
    assert code != 0
    assert told in err
    assert out == ""
    assert not (tmp_path / "run").exists()


def test_a_bad_row_is_named_with_its_line(place: Path, tmp_path: Path, capsys: Any) -> None:
    rows = (place / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "bad.jsonl").write_text("\n".join([*rows[:6], "{broken", *rows[6:]]), encoding="utf-8")
    arguments = ["align", str(tmp_path / "bad.jsonl"), "--model", str(place / "model"), "-o", str(tmp_path / "run")]
    code, _, err = call(arguments, capsys)
    assert code == 1
    assert "bad.jsonl, line 7" in err
