"""Runs of `align` from data to model: what they leave, how they are broken off and gone on with, what they refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nearfar import alignment, report
from nearfar.alignment.fit import AlignmentMethod
from nearfar.alignment.settings import AlignmentSettings
from nearfar.data.preferences import PreferenceSet
from nearfar.data.preferences.rows import PreferenceRow
from nearfar.encoders.language_model import language_model
from nearfar.errors import DataError, ModelError, OutputError, TrainingError, UsageError
from nearfar.objectives import DPO
from nearfar.report.run import write as write_report
from support.alignment import rows_of, settings_for, words, write_place, write_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_place(tmp_path_factory.mktemp("runs"))
    write_rows(folder / "held-out.jsonl", rows_of("pairs", 24, seed=5))
    return folder


pytestmark = pytest.mark.filterwarnings("ignore:.*becoming less likely")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "write", lambda folder: Path(folder) / "report.html")


def start(place: Path, output: Path, data: str = "pairs", objective: str = "dpo", **more):
    return alignment.align(settings_for(place, data, objective, output=str(output), **more))


def resume(output: Path, **more):
    return alignment.align(AlignmentSettings(output=str(output), resume=True, **more))


def weights(run) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors" if (run.model / "adapter_config.json").exists() else "model.safetensors"
    return load_file(run.model / name)


def same(one, other) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_a_model_that_prefers_the_chosen(place, tmp_path):
    run = start(place, tmp_path / "run", evaluate=str(place / "held-out.jsonl"), steps=20, learning_rate=1e-2)
    write_report(run.folder)
    assert not run.interrupted
    assert (run.steps, run.main) == (20, "accuracy")
    assert run.before["accuracy"]["value"] == 0.5
    assert run.after["accuracy"]["value"] > 0.8
    assert run.after["accuracy"]["low"] > 0.5
    assert run.after["margin"]["value"] > 1
    assert run.after["log_p_chosen"]["n"] == 24
    model, tokenizer = language_model(run.model)
    kept = load_file(run.folder / "checkpoints" / "checkpoint-20" / "model.safetensors")
    for name, value in model.state_dict().items():
        if f"policy.{name}" in kept:
            assert torch.equal(value, kept[f"policy.{name}"])
    assert tokenizer.chat_template
    assert sorted(path.name for path in run.folder.iterdir() if not path.name.startswith(".")) == [
        "checkpoints",
        "config.json",
        "data-check.json",
        "metrics.json",
        "metrics.jsonl",
        "model",
        "reference",
        "report.html",
        "versions.json",
    ]
    logged = [line for line in lines(run) if "loss" in line]
    assert len(logged) == 20
    names = {"log_p_chosen", "log_p_rejected", "margin", "accuracy", "log_ratio", "length_chosen", "cut"}
    assert names <= logged[0].keys()
    assert logged[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Chosen and rejected" in page
    assert "Embedding space" not in page
    config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert (config["kind"], config["objective"], config["tokens"]["responses"]) == ("alignment", "dpo", 80)


def test_what_is_told_before_and_while_it_goes(place, tmp_path):
    from io import StringIO

    from rich.console import Console

    told = StringIO()
    settings = settings_for(place, "lists", "lipo-lambda", output=str(tmp_path / "run"), hold_out=0.2, max_response=4)
    alignment.align(settings, console=Console(file=told, width=200))
    text = told.getvalue()
    for part in (
        "responses: ",
        "cut to the budget of 4",
        "objective: lambda-rank on the scores of each prompt's responses",
        "grades auto",
        "reference: the model as it begins",
        "step 0: policy and reference are at most",
        "log p chosen",
        "margin",
    ):
        assert part in text, part


def test_a_seed_gives_the_same_weights_and_another_one_others(place, tmp_path):
    one, two = (start(place, tmp_path / name) for name in ("one", "two"))
    assert same(one, two)
    assert not same(one, start(place, tmp_path / "three", seed=1))


@pytest.mark.parametrize(
    ("data", "objective", "more"),
    [
        ("pairs", "dpo", {"chunk_size": 3, "dropout": True}),
        ("pairs", "bco-pair", {}),
        ("unpaired", "kto", {"chunk_size": 3}),
        ("lists", "dro-v", {"chunk_size": 2}),
        ("pairs", "aot", {"lora": True, "rank": 2, "lora_dropout": 0.1, "chunk_size": 3}),
    ],
)
def test_a_run_that_is_interrupted_resumes_to_the_same_weights(place, tmp_path, monkeypatch, data, objective, more):
    """Across the end of an epoch; with dropout, what a procedure keeps, a value head, an adapter."""
    more = {"steps": 8, "hold_out": 0.2, "evaluate_every": 3, **more}
    whole = start(place, tmp_path / "whole", data, objective, **more)

    def after_step(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(AlignmentMethod, "after_step", after_step)
        broken = start(place, tmp_path / "broken", data, objective, **more)
    assert (broken.interrupted, broken.steps, broken.ended) == (True, 5, "SIGTERM")
    assert not broken.model.exists()
    resumed = resume(tmp_path / "broken")
    assert (resumed.interrupted, resumed.steps) == (False, 8)
    assert same(whole, resumed)
    assert (whole.before, whole.after) == (resumed.before, resumed.after)
    keep = ("step", "loss", "margin", "log_p_chosen", "evaluation")
    assert [[line.get(k) for k in keep] for line in lines(whole)] == [
        [line.get(k) for k in keep] for line in lines(resumed)
    ]
    again = resume(tmp_path / "broken")
    assert (again.policy, again.steps, again.after) == (None, 8, resumed.after)


def test_a_run_that_is_killed_resumes_to_the_same_weights(place, tmp_path):
    whole = start(place, tmp_path / "whole")
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from nearfar import alignment, report
        from nearfar.alignment.fit import AlignmentMethod
        from support.alignment import settings_for
        from pathlib import Path
        report.write = lambda folder: folder
        AlignmentMethod.after_step = lambda self, step: os.kill(os.getpid(), signal.SIGKILL) if step == 5 else None
        alignment.align(settings_for(Path({str(place)!r}), output={str(tmp_path / "killed")!r}))
        """
    )
    source = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(source), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=120)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").glob("checkpoint-*")] == ["checkpoint-4"]
    assert same(whole, resume(tmp_path / "killed"))


def test_an_adapter_is_written_read_and_merged(place, tmp_path):
    from peft import PeftModel

    run = start(
        place, tmp_path / "run", lora=True, rank=3, lora_targets="q_proj,v_proj", merge=True, learning_rate=1e-2
    )
    checkpoint = load_file(run.folder / "checkpoints" / "checkpoint-6" / "model.safetensors")
    assert all("lora_" in name for name in checkpoint)
    base, _ = language_model(place / "model")
    ids = torch.randint(4, 14, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = base(input_ids=ids).logits
        merged = language_model(run.model)[0](input_ids=ids).logits
        trained = run.policy.eval()(input_ids=ids).logits
        read = PeftModel.from_pretrained(base, run.folder / "adapter").eval()(input_ids=ids).logits
    torch.testing.assert_close(read, trained, rtol=0, atol=1e-6)
    torch.testing.assert_close(merged, trained, rtol=0, atol=1e-5)
    assert (before - trained).abs().max() > 1e-3
    settings = json.loads((run.folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(place / "model")


def test_without_merging_the_model_is_the_adapter(place, tmp_path):
    run = start(place, tmp_path / "run", lora=True, rank=2)
    assert (run.model / "adapter_model.safetensors").is_file()
    assert not (run.folder / "adapter").exists()
    with pytest.raises(UsageError, match="the adapter does not fit"):
        start(place, tmp_path / "other", lora=True, lora_targets="w_proj")


def test_recomputing_activations_changes_nothing(place, tmp_path):
    plain = start(place, tmp_path / "plain", chunk_size=3)
    again = start(place, tmp_path / "again", chunk_size=3, checkpointing=True)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(again)[name], value, rtol=0, atol=1e-6)


def test_another_model_as_the_reference(place, tmp_path):
    first = start(place, tmp_path / "first", learning_rate=1e-2)
    second = start(place, tmp_path / "second", reference=str(first.model), evaluate=str(place / "held-out.jsonl"))
    assert second.before["log_ratio"]["value"] != 0
    assert second.before["accuracy"]["value"] < 0.5  # of the one that has not learned yet
    assert "reference" in json.loads((second.folder / "config.json").read_text(encoding="utf-8"))["data"]


def test_evaluation_of_every_kind_of_data(place, tmp_path):
    lists = start(place, tmp_path / "lists", "lists", "lipo-lambda", evaluate=str(place / "lists.jsonl"), steps=12)
    assert lists.main == "accuracy"
    assert lists.after["accuracy"]["value"] > 0.5
    labels = start(place, tmp_path / "labels", "unpaired", "kto", evaluate=str(place / "unpaired.jsonl"), steps=12)
    assert labels.main == "auc"
    assert labels.before["auc"]["value"] == 0.5
    assert labels.after["auc"]["value"] > 0.5
    tuned = start(place, tmp_path / "sft", "demonstrations", "sft", hold_out=0.2, steps=12)
    assert tuned.main == "log_p_token"
    assert tuned.after["log_p_token"]["value"] > tuned.before["log_p_token"]["value"]
    assert "margin" not in tuned.after
    free = start(place, tmp_path / "free", "pairs", "simpo", evaluate=str(place / "held-out.jsonl"))
    assert "log_ratio" not in free.after


def test_a_chosen_that_falls_while_the_margin_grows_is_told(place, tmp_path):
    """Chosen and rejected share all but one letter, which is the rejected's: pushing it down takes the rest along."""
    import random

    draw = random.Random(0)
    rows = []
    for _ in range(40):
        shared = words(draw, 6)
        rows.append({"prompt": words(draw, 2), "chosen": f" {shared} c", "rejected": f" {shared} d d d d d d"})
    data = write_rows(tmp_path / "shared.jsonl", rows)
    settings = settings_for(
        place, output=str(tmp_path / "run"), evaluate=str(data), steps=40, learning_rate=1e-2, objective="hinge",
        parameters={"beta": 0.01},
    )  # fmt: skip
    settings.data = str(data)
    run = alignment.align(settings)
    assert run.after["margin"]["value"] > 0
    assert run.after["log_p_chosen"]["value"] < run.before["log_p_chosen"]["value"] - 1
    assert "becoming less likely" in (run.warning or "")
    assert json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))["warning"] == run.warning


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_before_the_first_step_nothing_is_preferred(place, tmp_path, precision):
    """In half precision scores hang on which rows are computed together, and the policy would seem to prefer some."""
    held_out = str(place / "held-out.jsonl")
    run = start(place, tmp_path / "run", evaluate=held_out, precision=precision, steps=2)
    assert run.before["accuracy"]["value"] == 0.5
    assert run.before["margin"]["value"] == run.before["log_ratio"]["value"] == 0
    assert run.before["log_p_chosen"]["value"] == pytest.approx(run.after["log_p_chosen"]["value"], abs=2)
    assert run.after["margin"]["value"] != 0


@pytest.mark.parametrize("reference", [True, False])
def test_without_evaluation_single_batches_do_not_speak_for_the_run(tmp_path, reference):
    """Which responses a batch holds changes their mean log-probability by more than training does."""
    from nearfar.alignment.results import verdict_of_run

    def said(falls: float, spread: float, steps: int = 60) -> str | None:
        lines = []
        for step in range(1, steps + 1):
            of_batch = spread * (-1) ** step - falls * step / steps
            line = {"step": step, "loss": 0.5, "margin": step / steps, "log_p_chosen": -80 + of_batch}
            if reference:
                line |= {"log_ratio_chosen": -falls * step / steps, "log_ratio": 0.0}
            lines.append(json.dumps(line) + "\n")
        (tmp_path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        return verdict_of_run(tmp_path, {}, {})

    assert said(falls=0.1, spread=30) is None
    assert said(falls=0.1, spread=30, steps=4) is None
    assert "fell by" in (said(falls=10, spread=0.5) or "")
    assert (said(falls=10, spread=30) is None) is not reference


def test_the_best_weights_are_kept_where_that_is_asked(place, tmp_path):
    common = {"evaluate": str(place / "held-out.jsonl"), "steps": 12, "evaluate_every": 2, "learning_rate": 1e-2}
    best = start(place, tmp_path / "best", keep_best=True, **common)
    values = [line["evaluation"]["accuracy"]["value"] for line in lines(best) if "evaluation" in line]
    assert best.after["accuracy"]["value"] == max(values)
    early = start(place, tmp_path / "early", early_stop=1, **common)
    assert early.ended in ("early stop", "all steps")
    with pytest.raises(UsageError, match="nothing to evaluate on"):
        settings_for(place, keep_best=True)


def test_a_bad_row_is_found_before_the_first_step(place, tmp_path, monkeypatch):
    rows = [json.dumps(row) for row in rows_of("pairs", 30)]
    (tmp_path / "bad.jsonl").write_text("\n".join([*rows[:20], '{"prompt": "a", "chosen": 3, "rejected": "b"}', *rows]))
    monkeypatch.setattr(AlignmentMethod, "forward", lambda *_: pytest.fail("a step was made"))
    settings = settings_for(place, output=str(tmp_path / "run"))
    settings.data = str(tmp_path / "bad.jsonl")
    with pytest.raises(DataError, match=r"bad\.jsonl") as refused:
        alignment.align(settings)
    assert "21" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_bad_rows_may_be_skipped_and_are_counted(place, tmp_path):
    rows = [json.dumps(row) for row in rows_of("pairs", 30)]
    (tmp_path / "bad.jsonl").write_text("\n".join([*rows[:20], '{"prompt": "a"}', *rows[20:]]))
    settings = settings_for(place, output=str(tmp_path / "run"), max_bad_rows=1)
    settings.data = str(tmp_path / "bad.jsonl")
    run = alignment.align(settings)
    check = json.loads((run.folder / "data-check.json").read_text(encoding="utf-8"))
    assert check["rows"] == 30
    assert any(finding["count"] == 1 for finding in check["findings"])


def test_data_in_memory_and_objectives_that_were_made(place, tmp_path):
    rows = [PreferenceRow(row["prompt"], (row["chosen"], row["rejected"])) for row in rows_of("pairs")]
    settings = settings_for(place, output=str(tmp_path / "memory"))
    settings.data = None
    made = alignment.align(settings, preferences=PreferenceSet.from_rows("pairs", rows), objective=DPO(0.1))
    assert same(made, start(place, tmp_path / "file"))


def test_what_a_resumed_run_began_with_has_to_be_there(place, tmp_path, monkeypatch):
    def after_step(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    own = write_place(tmp_path / "own")
    with monkeypatch.context() as patched:
        patched.setattr(AlignmentMethod, "after_step", after_step)
        assert start(own, tmp_path / "run").interrupted
    with pytest.raises(UsageError, match="given another value: learning_rate"):
        resume(tmp_path / "run", learning_rate=0.5)
    config = own / "model" / "config.json"
    kept = config.read_text(encoding="utf-8")
    config.write_text(kept.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'), encoding="utf-8")
    with pytest.raises(TrainingError, match="the model has changed since the run began"):
        resume(tmp_path / "run")
    config.write_text(kept, encoding="utf-8")
    rows = (own / "pairs.jsonl").read_text(encoding="utf-8")
    (own / "pairs.jsonl").write_text(rows.replace("a b", "b a", 1), encoding="utf-8")
    with pytest.raises(TrainingError, match="the train data has changed"):
        resume(tmp_path / "run")
    (own / "pairs.jsonl").write_text(rows, encoding="utf-8")
    assert resume(tmp_path / "run").steps == 6


def test_a_loss_that_is_not_finite_stops_the_run_with_good_weights(place, tmp_path, monkeypatch):
    forward = AlignmentMethod.forward
    calls = []

    def diverging(self, batch):
        calls.append(1)
        loss, logs = forward(self, batch)
        return (loss * float("inf") if len(calls) == 4 else loss), logs

    monkeypatch.setattr(AlignmentMethod, "forward", diverging)
    with pytest.raises(TrainingError, match="step 4") as stopped:
        start(place, tmp_path / "run")
    assert "data rows" in (stopped.value.where or "")
    model, _ = language_model(tmp_path / "run" / "checkpoints" / "last-good")
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize("launched", [False, True])
def test_one_process_has_nobody_to_share_weights_with(place, tmp_path, monkeypatch, launched):
    if launched:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="there is one") as refused:
        start(place, tmp_path / "run", shard=not launched)
    assert refused.value.where == "--shard"
    assert "torchrun" in refused.value.hint
    assert not (tmp_path / "run").exists()


def test_refusals_come_before_any_work(place, tmp_path):
    with pytest.raises(UsageError, match="no place to write"):
        alignment.align(settings_for(place, output=""))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        start(place, tmp_path / "there")
    settings = settings_for(place, output=str(tmp_path / "none"))
    settings.model = str(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no language model"):
        alignment.align(settings)
    with pytest.raises(TrainingError, match="not a run that can be resumed"):
        resume(tmp_path / "nothing")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"batch_size": 0}, "batch size cannot be 0"),
        ({"learning_rate": -1.0}, "learning rate cannot be"),
        ({"hold_out": 0.1, "evaluate": "x"}, "both given"),
        ({"steps": 1, "epochs": 1.0}, "both given"),
        ({"side": "middle"}, "choose one of left, right"),
        ({"layout": "both"}, "choose one of auto"),
        ({"precision": "fp16"}, "choose one of auto, fp32, bf16"),
        ({"merge": True}, "no adapter to merge"),
        ({"max_prompt": -1}, "max prompt cannot be -1"),
        ({"parameters": 3}, "give a mapping"),
        ({"lora_dropout": 1.0}, "lora dropout cannot be"),
    ],
)
def test_settings_that_cannot_be(given, told):
    with pytest.raises(UsageError, match=told):
        AlignmentSettings(**given)


def test_half_precision_follows_its_reference(place, tmp_path):
    run = start(place, tmp_path / "run", precision="bf16", steps=3, evaluate=str(place / "held-out.jsonl"))
    logged = [line for line in lines(run) if "loss" in line]
    assert logged[0]["loss"] == pytest.approx(0.6931, abs=2e-2)
    assert {value.dtype for value in weights(run).values()} == {torch.float32}
