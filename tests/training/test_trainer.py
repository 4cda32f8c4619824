from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import TrainingArguments

from nearfar import objectives
from nearfar.negatives import Batches
from nearfar.training import ContrastiveMethod, Loader, Method, TextBatches, checkpoints, flow
from nearfar.training.flow import Flow, Pace
from nearfar.training.guard import Guard
from nearfar.training.progress import MetricsFile, Progress
from nearfar.training.trainer import Trainer, rate


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    chosen: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": 6,
        "learning_rate": 1e-2,
        "max_grad_norm": 0.0,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }
    return TrainingArguments(**{**chosen, **options})


class Recording(Method):
    """A method of one's own: one number that should become 3."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(()))
        self.events: list[tuple[str, int]] = []

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        return (self.number - 3) ** 2, {"number": self.number.detach().clone()}

    def after_step(self, step: int) -> None:
        self.events.append(("step", step))

    def before_epoch(self, epoch: int) -> None:
        self.events.append(("epoch", epoch))


def test_any_method_is_trained_and_its_hooks_are_called(tmp_path: Path, static_model: Any, make_pairs: Any) -> None:
    method, pace = Recording(), Flow(Pace(1, None, 100))
    loader = Loader(TextBatches(static_model, make_pairs(8)), Batches(8, 4))
    trainer = Trainer(method, arguments(tmp_path, learning_rate=0.5), loader, callbacks=[pace])
    pace.trainer = trainer
    trainer.clock.start()
    trainer.train()
    epochs = [("epoch", 0), ("step", 1), ("step", 2), ("epoch", 1), ("step", 3), ("step", 4), ("epoch", 2)]
    assert method.events == [*epochs, ("step", 5), ("step", 6)]
    assert method.number > 1
    logged = [entry["number"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 6
    assert logged[0] == 0.0
    assert trainer.manifest["ended"] == "all steps"


@pytest.mark.parametrize("accumulated", [1, 3])
def test_cached_gradients_accumulate_as_others_do(
    tmp_path: Path, make_pairs: Any, bert_folder: Path, accumulated: int
) -> None:
    from nearfar import encoders

    found = []
    for chunk_size in (None, 3):
        model = encoders.load(bert_folder, device="cpu")
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # masks depend on how a batch is divided
        method = ContrastiveMethod(model, objectives.get("info-nce", temperature="learned"), chunk_size=chunk_size)
        texts = TextBatches(model, make_pairs(30), chunk_size=chunk_size)
        options = arguments(tmp_path, gradient_accumulation_steps=accumulated, max_steps=2)
        guard = Guard(max_norm=0.5)
        trainer = Trainer(method, options, Loader(texts, Batches(30, 5)), callbacks=[guard])
        guard.trainer = trainer
        trainer.train()
        found.append([parameter.detach().clone() for parameter in method.parameters()])
    assert all((one - other).abs().max() < 1e-5 for one, other in zip(*found, strict=True))


def test_the_objective_has_its_own_rate_and_no_decay(tmp_path: Path, static_model: Any, make_pairs: Any) -> None:
    method = ContrastiveMethod(static_model, objectives.get("info-nce", temperature="learned"))
    loader = Loader(TextBatches(static_model, make_pairs(8)), Batches(8, 4))
    options = arguments(tmp_path, learning_rate=1e-4, weight_decay=0.1)
    trainer = Trainer(method, options, loader, objective_learning_rate=1e-2)
    optimizer = trainer.create_optimizer()
    groups = {group["params"][0].dim(): group for group in optimizer.param_groups}
    assert (groups[0]["lr"], groups[0]["weight_decay"]) == (1e-2, 0.0)
    assert (groups[2]["lr"], groups[2]["weight_decay"]) == (1e-4, 0.1)
    assert optimizer.defaults["fused"]


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_the_rate_is_above_zero_in_every_step(kind: str) -> None:
    rates = [rate(done, 20, kind, 4) for done in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert min(rates) > 0
    falling = rates[4:]
    if kind == "constant":
        assert set(falling) == {1.0}
    else:
        assert all(later < earlier for earlier, later in itertools.pairwise(falling))
        assert rate(20, 20, kind, 4) == 0.0
        assert rate(12, 20, kind, 4) == pytest.approx(0.5)
    assert rate(0, 5, kind, 0) == 1.0


def test_checkpoints_by_the_clock(
    tmp_path: Path, static_model: Any, make_pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    plain = checkpoints.put_in_place

    def put_in_place(folder: Path, step: int, manifest: dict[str, Any]) -> Path:
        saved.append(step)
        return plain(folder, step, manifest)

    monkeypatch.setattr(checkpoints, "put_in_place", put_in_place)
    for seconds, expected in ((0.0, [1, 2, 3, 4, 5, 6]), (3600.0, [6])):
        saved.clear()
        monkeypatch.setattr(flow, "SECONDS_BETWEEN", seconds)
        monkeypatch.setattr(flow, "COST", 1e9)
        pace = Flow(Pace(10, None, None))
        loader = Loader(TextBatches(static_model, make_pairs(8)), Batches(8, 4))
        trainer = Trainer(Recording(), arguments(tmp_path), loader, callbacks=[pace])
        pace.trainer = trainer
        trainer.train()
        assert saved == expected


def test_a_terminal_shows_a_bar_and_other_places_lines(tmp_path: Path, static_model: Any, make_pairs: Any) -> None:
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        pace, bar = Flow(Pace(1, 3, 100), evaluator=Constant()), Progress(console, main="mrr", batch_size=4)
        loader = Loader(TextBatches(static_model, make_pairs(8)), Batches(8, 4))
        trainer = Trainer(Recording(), arguments(tmp_path), loader, callbacks=[pace, bar], evaluator=pace.evaluator)
        pace.trainer = trainer
        trainer.clock.start()
        trainer.train()
        bar.close()
        shown = out.getvalue()
        assert ("\x1b[" in shown) == terminal
        assert "step 3/6" in shown
        assert "mrr 0.2500" in shown
        assert "loss " in shown


class Constant:
    """Stands for an evaluation."""

    exhausted = False
    main = "mrr"

    def __call__(self, step: int) -> dict[str, float]:
        return {"mrr": 0.25}


def test_the_metrics_file_forgets_what_will_be_done_again(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    assert metrics.cut(5) == []
    for step in (1, 2, 3):
        metrics.append({"step": step, "loss": 0.5})
    with open(metrics.path, "a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in metrics.cut(2)] == [1, 2]
    assert metrics.path.read_text(encoding="utf-8").count("\n") == 2
