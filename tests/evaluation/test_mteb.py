from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nearfar import encoders
from nearfar.errors import DataError, MissingExtraError, UsageError
from nearfar.evaluation.mteb import TaskScore, evaluate_mteb


class Fake(ModuleType):
    """What of mteb is used, with tasks that ask the model for two embeddings."""

    def __init__(self) -> None:
        super().__init__("mteb")
        self.calls: list[dict[str, Any]] = []

    def get_task(self, name: str) -> Any:
        if name not in ("STSBenchmark", "SciFact"):
            raise KeyError(name)
        return SimpleNamespace(metadata=SimpleNamespace(name=name, type="STS" if name[0:3] == "STS" else "Retrieval"))

    def ResultCache(self, cache_path: str) -> tuple[str, str]:  # noqa: N802  the name of a class of mteb
        return ("cache", cache_path)

    def evaluate(self, model: Any, tasks: list[Any], **options: Any) -> Any:
        self.calls.append(options)
        size = options["encode_kwargs"]["batch_size"]
        one, other = model.encode(["kab kad", "kab lon"], batch_size=size, normalize_embeddings=True)
        score = float(one @ other)
        results = [
            SimpleNamespace(
                task_name=task.metadata.name, get_score=lambda: score, scores={"test": [{"main_score": score}]}
            )
            for task in tasks
        ]
        return SimpleNamespace(task_results=results)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setitem(sys.modules, "mteb", made)
    return made


@pytest.fixture(scope="module")
def model() -> Any:
    return encoders.load("static", texts=["kab kad", "lon mis"] * 3, dimension=8, vocabulary_size=400, device="cpu")


def test_tasks_are_run_and_named(fake: Fake, model: Any, tmp_path: Path) -> None:
    found = evaluate_mteb(model, ["STSBenchmark", fake.get_task("SciFact")], batch_size=16, cache=tmp_path)
    one, other = encoders.encode(model, ["kab kad", "kab lon"])
    assert [(each.name, each.kind) for each in found] == [("STSBenchmark", "STS"), ("SciFact", "Retrieval")]
    assert found[0].score == pytest.approx(float(one @ other), abs=1e-6)
    assert found[0].scores["test"][0]["main_score"] == found[0].score
    assert fake.calls[0]["encode_kwargs"] == {"batch_size": 16}
    assert fake.calls[0]["cache"] == ("cache", str(tmp_path))
    assert str(TaskScore("A", "STS", 0.81234)) == "A (STS) 0.8123"
    evaluate_mteb(model, ["SciFact"])
    assert fake.calls[1]["cache"] is None


def test_what_cannot_be_run_is_said(fake: Fake, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no task 'STSBench'"):
        evaluate_mteb(model, ["STSBench"])
    with pytest.raises(UsageError, match="no task to run"):
        evaluate_mteb(model, [])

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to the hub\nand more")

    monkeypatch.setattr(fake, "evaluate", unreachable)
    with pytest.raises(DataError, match="cannot run SciFact: no route to the hub"):
        evaluate_mteb(model, ["SciFact"])


def test_without_the_package_the_extra_is_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingExtraError, match="mteb"):
        evaluate_mteb(model, ["SciFact"])
