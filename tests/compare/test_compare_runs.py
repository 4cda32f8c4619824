"""Comparisons end to end on a tiny encoder: fair, repeatable, whole, resumed, and finding nothing where nothing is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar.compare import Comparison, compare
from nearfar.compare.judging import Judge
from nearfar.compare.runs import Bench
from nearfar.compare.settings import SEARCH_SEED, CompareSettings
from nearfar.compare.splitting import LEAST, split
from nearfar.data import Examples, RetrievalSet
from nearfar.errors import DataError, ModelError, OutputError, TrainingError, UsageError

from .conftest import SMALL, labelled, pairs, scored

Small = Callable[..., Comparison]


def texts_of(part: Examples | RetrievalSet) -> set[str]:
    return set(part.texts()) if isinstance(part, Examples) else {*part.queries, *part.documents}


@pytest.mark.parametrize("data", [labelled(), pairs(negatives=1), scored()], ids=lambda data: data.shape)
def test_the_parts_cover_the_data_and_share_no_text(data: Examples) -> None:
    doubled = data.select([*range(len(data)), *range(30)])  # rows that stand there twice
    parts = split(doubled, seed=3)
    assert sum(parts.sizes().values()) == len(doubled)
    columns = data.text_columns[:2]
    seen = [
        {text for name in columns for text in part.column(name)}
        for part in (parts.training, parts.validation, parts.test)
        if isinstance(part, Examples)
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not seen[one] & seen[other]
    assert parts.sizes()["test"] == pytest.approx(0.2 * len(doubled), abs=6)
    again, other = split(doubled, seed=3), split(doubled, seed=4)
    assert again.to_dict() == parts.to_dict() != other.to_dict()


def test_where_few_positives_serve_many_anchors_only_anchors_are_kept_apart() -> None:
    data = Examples.from_columns(
        {"anchor": [f"question {i}" for i in range(200)], "positive": [f"answer {i % 5} {i % 2}" for i in range(200)]}
    )
    parts = split(data)
    assert "may share texts as positive" in parts.notes[0] or not parts.notes
    single = split(Examples.from_columns({"anchor": data.column("anchor"), "positive": ["one", "two"] * 100}))
    assert "may share texts as positive" in single.notes[0]
    assert single.sizes()["test"] == 40


def test_given_parts_are_kept_and_their_texts_leave_the_training_data() -> None:
    data, more = labelled(), labelled(100, seed=9)
    test = Examples.from_columns(
        {
            "text": [*more.column("text"), *data.column("text")[:7]],
            "label": [*more.column("label"), *data.column("label")[:7]],
        }
    )
    parts = split(data, test=test)
    assert len(parts.test) == 107  # type: ignore[arg-type]
    assert not texts_of(parts.training) & texts_of(parts.test)
    assert "left out" in parts.notes[0]


def test_too_little_data_is_said_before_anything_runs(small: Small, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too small to be split in three"):
        small(labelled(LEAST["test"] + 10), "infonce,supcon")
    with pytest.raises(DataError, match="same text"):
        small(Examples.from_columns({"text": ["x"] * 90, "label": ["a", "b"] * 45}), "infonce,supcon")
    with pytest.raises(DataError, match="--dev and --test"):
        small(Examples.from_columns({"text": list(labelled().texts())}), "infonce,dcl")
    assert list(tmp_path.iterdir()) == []


def test_an_objective_that_does_not_fit_is_refused_before_anything_runs(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="vicreg is a view objective") as refused:
        small(labelled(), "infonce,vicreg")
    assert "objectives that fit labelled texts" in str(refused.value)
    with pytest.raises(UsageError, match="classes of items"):
        small(pairs(), "infonce,cosface")
    with pytest.raises(UsageError, match="no entry 'dcl'"):
        small(labelled(), "infonce,supcon", reference="dcl")
    with pytest.raises(UsageError, match="cannot be compared"):
        small(labelled(), "infonce,supcon", measure="mrr")
    assert not (tmp_path / "cmp").exists()


def bench(data: Examples, entries: str = "infonce,supcon,cosface", **options: Any) -> Bench:
    from nearfar.compare import parse_entries

    parts = split(data)
    settings = CompareSettings(
        output="cmp", budget=4, training={"dimension": 8, "vocabulary_size": 400, "batch_size": 64}, **options
    )
    judge = Judge.of(None, parts.training, parts.validation, parts.test, 0)
    return Bench(settings, parse_entries(entries), parts, judge)


def test_by_seed_all_begin_alike_and_see_the_same_batches() -> None:
    made = bench(labelled())
    begins: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}
    batches: dict[int, list[list[list[int]]]] = {0: [], 1: [], 2: []}
    for seed in begins:
        for entry in made.entries:
            run = made._prepared(entry, seed, {}, 4, True)
            begins[seed].append(run.encoder.state_dict()["0.embedding.weight"].clone())
            batches[seed].append([rows.tolist() for rows in run.batches.plan(0)])
            with torch.no_grad():
                run.encoder[0].embedding.weight.add_(1.0)  # as training would
    for seed in begins:
        assert all(torch.equal(begins[seed][0], other) for other in begins[seed])
        assert all(batches[seed][0] == other for other in batches[seed])
    assert not torch.equal(begins[0][0], begins[1][0])
    assert batches[0][0] != batches[1][0]


def test_the_test_part_is_asked_once_a_final_model(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    judged = Judge.__call__

    def count(self: Judge, encoder: Any, data: Any) -> Any:
        asked.append(len(data))
        return judged(self, encoder, data)

    monkeypatch.setattr(Judge, "__call__", count)
    found = small(labelled(), "infonce(learning_rate=0.01),supcon(learning_rate=0.01,temperature=0.2)")
    test = found.results["rows"]["test"]
    assert asked.count(test) == 1 + 2 * 2  # untrained, and two seeds of two entries
    assert {run["seed"] for run in found.results["search"]} == {SEARCH_SEED}
    assert SEARCH_SEED not in found.seeds


def test_the_same_objective_under_two_names_is_no_difference(small: Small) -> None:
    found = small(labelled(), "a=infonce,b=infonce,c=infonce", search=False)
    assert np.array_equal(found.values[0], found.values[1])
    assert [each.value for each in found.differences] == [0.0, 0.0]
    assert not any(each.found for each in [*found.differences, *found.pairs])
    assert "exactly the same values" in str(found.verdict)
    assert found.verdict.better == found.verdict.worse == []


def test_the_search_takes_the_best_on_the_validation_part(small: Small) -> None:
    found = small(labelled(), "infonce,fixed=infonce(temperature=0.1,learning_rate=0.02),triplet")
    tried = {name: [run for run in found.results["search"] if run["entry"] == name] for name in found.names}
    assert [len(tried[name]) for name in found.names] == [5, 0, 3]
    for entry in found.results["entries"]:
        if entry["name"] != "fixed":
            best = max(tried[entry["name"]], key=lambda run: run["validation"])
            assert entry["chosen"] == best["options"]
    assert found.results["entries"][1]["chosen"] == {"learning_rate": 0.02}
    assert not any("temperature" in run["options"] for run in tried["triplet"])


def test_a_setting_that_diverges_is_left_out_and_one_that_cannot_be_trained_is_an_error(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Bench._run

    def diverge(self: Bench, done: Any, entry: Any, folder: Path) -> Any:
        if done.options.get("learning_rate", 0) > 0.03 or entry.name == "triplet":
            raise TrainingError("the loss is not finite")
        return run(self, done, entry, folder)

    monkeypatch.setattr(Bench, "_run", diverge)
    found = small(labelled(), "infonce(temperature=0.1),supcon(temperature=0.1)")
    assert [run["error"] for run in found.results["search"] if run["error"]] == ["the loss is not finite"] * 2
    assert all(entry["chosen"]["learning_rate"] <= 0.02 for entry in found.results["entries"])
    with pytest.raises(TrainingError, match="no setting of the search"):
        small(labelled(), "infonce,triplet", overwrite=True)


def test_a_search_survives_weights_that_overflow_in_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss was finite, so that only the evaluation sees it."""
    made = bench(labelled())

    def judged(self: Any, encoder: Any, data: Any) -> Any:
        raise ModelError("embeddings are not finite")

    monkeypatch.setattr(type(made.judge), "__call__", judged)
    done = made.search(made.entries[0], {}, 2, tmp_path / "run")
    assert done.error == "embeddings are not finite"
    assert done.validation is None
    assert not (tmp_path / "run").exists()


def test_a_setting_that_diverged_speaks_of_no_weights_that_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(labelled())
    monkeypatch.setattr("nearfar.training.method.scale_gradient", lambda loss, factor: loss * float("nan"))
    done = made.search(made.entries[0], {"learning_rate": 0.1}, 4, tmp_path / "run")
    assert done.error == "the loss is nan at step 1"
    assert not (tmp_path / "run").exists()
    with pytest.raises(TrainingError, match="the weights before it are in") as ended:
        made.final(made.entries[0], {"learning_rate": 0.1}, 0, 4, tmp_path / "run")
    assert Path(ended.value.message.rpartition(" in ")[2]).is_dir()


def test_budgets_in_steps_epochs_and_seconds(tmp_path: Path) -> None:
    made = bench(labelled())
    made.settings.budget = "7"
    assert made.steps(tmp_path / "t", {}) == {"infonce": 7, "supcon": 7, "cosface": 7}
    made.settings.budget = "2 epochs"
    per_epoch = made.prepared.resolved.batches_per_epoch
    assert made.steps(tmp_path / "t", {})["infonce"] == 2 * per_epoch
    made.settings.budget = None
    assert made.steps(tmp_path / "t", {})["infonce"] == 4 * per_epoch
    made.settings.budget = "5s"
    made._seconds = lambda *given: {"infonce": 0.1, "supcon": 0.5, "cosface": 50.0}  # type: ignore[method-assign]
    assert made.steps(tmp_path / "t", {}) == {"infonce": 50, "supcon": 10, "cosface": 10}


def test_what_a_killed_timing_left_is_not_taken_up(tmp_path: Path) -> None:
    made = bench(labelled())
    made.settings.budget = "5s"
    left = tmp_path / "timing" / "checkpoints"
    left.mkdir(parents=True)
    seen: list[bool] = []
    made._seconds = lambda *given: seen.append(left.exists()) or {"infonce": 1.0}  # type: ignore[method-assign]
    made.steps(tmp_path / "timing", {})
    assert seen == [False]


def test_a_step_is_timed(tmp_path: Path) -> None:
    took = bench(labelled(), "infonce,cosface")._seconds(tmp_path / "timing", {}, 60.0)
    assert set(took) == {"infonce", "cosface"}
    assert all(0 < seconds < 60 for seconds in took.values())
    assert not (tmp_path / "timing").exists()


@pytest.mark.parametrize(
    ("data", "objectives", "measure"),
    [
        (pairs(), "infonce,dcl", "mrr"),
        (pairs(negatives=2), "infonce,triplet", "mrr"),
        (scored(), "cosent,binary-nce", "spearman"),
        (labelled(), "infonce,supcon", "knn_accuracy"),
    ],
    ids=["pairs", "hard negatives", "scored pairs", "labelled texts"],
)
def test_all_shapes_of_data(small: Small, data: Examples, objectives: str, measure: str) -> None:
    found = small(data, objectives, search=False)
    assert found.measure == measure
    assert found.values.shape[:2] == (2, 2)
    assert np.isfinite(found.values).all()
    for place, entry in enumerate(found.results["entries"]):
        assert entry["measures"][measure] == pytest.approx(found.values[place].mean(1).tolist())


def test_a_view_objective_and_a_recipe_on_pairs(small: Small) -> None:
    found = small(pairs(), "infonce,barlow-twins", recipes="supcon", search=False, measure="ndcg@10")
    assert found.measure == "ndcg@10"
    assert found.names == ["infonce", "barlow-twins", "supcon"]


def test_a_retrieval_set_to_be_asked(small: Small) -> None:
    test = RetrievalSet.from_pairs(pairs(60, seed=5))
    found = small(pairs(), "infonce,dcl", test=test, dev=pairs(40, seed=6), search=False)
    assert found.measure == "ndcg@10"
    assert found.values.shape[2] == 60


def test_the_folder_is_whole_and_says_the_same(small: Small, tmp_path: Path) -> None:
    found = small(labelled(), "infonce,cosface", command=["nearfar", "compare", "x"], search=False)
    names = {path.name for path in found.folder.iterdir()}
    assert names == {"config.json", "results.json", "items.npz", "data-check.json", "versions.json", "report.html"}
    assert [path.name for path in tmp_path.iterdir()] == ["cmp"]
    results = json.loads((found.folder / "results.json").read_text())
    assert results == json.loads(json.dumps(found.results))
    with np.load(found.folder / "items.npz", allow_pickle=False) as items:
        assert items["entries"].tolist() == found.names
        assert items["seeds"].tolist() == [0, 1]
        assert items["values"] == pytest.approx(found.values)
    with pytest.raises(OutputError, match="exists already"):
        small(labelled(), "infonce,supcon")
    again = small(labelled(), "infonce,cosface", overwrite=True, search=False)
    assert np.array_equal(again.values, found.values)


def test_another_folder_is_not_overwritten(small: Small, tmp_path: Path) -> None:
    (tmp_path / "cmp").mkdir()
    (tmp_path / "cmp" / "letters.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a folder of a comparison"):
        small(labelled(), "infonce,supcon", overwrite=True)
    assert (tmp_path / "cmp" / "letters.txt").read_text() == "mine"


def test_a_killed_comparison_goes_on_where_it_was(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = "infonce(temperature=0.1),supcon(temperature=0.3,learning_rate=0.01)"  # 3 runs of a search, 4 final ones
    whole = small(labelled(), entries, output=tmp_path / "whole")
    made = 0
    run = Bench._run

    def until(self: Bench, done: Any, entry: Any, folder: Path) -> Any:
        nonlocal made
        made += 1
        if made == 5:
            raise KeyboardInterrupt
        return run(self, done, entry, folder)

    monkeypatch.setattr(Bench, "_run", until)
    with pytest.raises(KeyboardInterrupt):
        small(labelled(), entries)
    assert not (tmp_path / "cmp").exists()
    with pytest.raises(OutputError, match="differ in entries"):
        small(labelled(), "infonce,triplet")
    found = small(labelled(), entries)
    assert made == 5 + 7 - 4
    assert np.array_equal(found.values, whole.values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cmp", "whole"]


def test_it_is_the_training_that_train_does(tmp_path: Path) -> None:
    """A final run of a comparison gives the weights that ``nearfar train`` gives with the same settings."""
    from nearfar import training

    made = bench(labelled(), evaluations=1)
    done = made.final(made.entries[0], {"temperature": 0.1, "learning_rate": 0.01}, 1, 6, tmp_path / "run")
    run = training.train(
        training.TrainingSettings(
            output=str(tmp_path / "train"), objective="infonce", parameters={"temperature": 0.1}, learning_rate=0.01,
            seed=1, steps=6, dimension=8, vocabulary_size=400, batch_size=64,
        ),
        examples=made.parts.training,
    )  # fmt: skip
    expected = made.judge(run.encoder, made.parts.test)
    assert done.items is not None
    assert done.best_step == 6
    assert done.items.tolist() == expected.per_item[made.judge.measure].tolist()
    made.begin(1)
    assert made.judge(made.encoder, made.parts.test).per_item[made.judge.measure].tolist() != done.items.tolist()


def test_compare_settings_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seeds"):
        compare(tmp_path / "there is no such file", "infonce,dcl", output=tmp_path / "cmp", seeds=1)
    with pytest.raises(DataError, match="no such"):
        compare(tmp_path / "missing.jsonl", "infonce,dcl", output=tmp_path / "cmp")
    assert SMALL["seeds"] == 2
