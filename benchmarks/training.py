"""Training throughput beside sentence-transformers' own trainer: same model, data, batch size, steps and loss."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import machine
from nearfar import encoders, training
from nearfar.data import Examples, collect_code
from nearfar.errors import MissingExtraError

CASES: dict[str, dict[str, Any]] = {
    "static (30,000 x 256), 4 epochs": {
        "encoder": "static",
        "batch_size": 1024,
        "batches": 15,
        "steps": 60,
        "learning_rate": 1e-2,
    },
    "the same, 1 epoch": {
        "encoder": "static",
        "batch_size": 1024,
        "batches": 15,
        "steps": 15,
        "learning_rate": 1e-2,
    },
    "MiniLM, 64 tokens": {
        "encoder": "minilm",
        "batch_size": 32,
        "batches": 6,
        "steps": 6,
        "learning_rate": 2e-5,
        "max_length": 64,
    },
}


def run(repeat: int = 2) -> None:
    """Print rows per second of both trainers, in turn, tokenising included, and their ratio."""
    print(f"training throughput, one-sided InfoNCE, temperature 0.05, AdamW; {machine()}")
    items = collect_code(["torch", "transformers", "sklearn"])
    for name, case in CASES.items():
        rows = items[: case["batch_size"] * case["batches"]]
        examples = Examples.from_columns(
            {"anchor": [item.summary for item in rows], "positive": [item.code for item in rows]}
        )
        try:
            with tempfile.TemporaryDirectory() as folder:
                start = Path(folder) / "start"
                encoders.save(
                    encoders.load(case["encoder"], texts=list(examples.texts()), max_length=case.get("max_length")),
                    start,
                )
                pairs = [(ours(start, examples, case), theirs(start, examples, case)) for _ in range(repeat)]
        except MissingExtraError as error:
            print(f"{name}: {error.message}")
            continue
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        print(
            f"{name}, batch {case['batch_size']:,}, {case['steps']} steps: nearfar {ours:,.0f} rows/s, "
            f"sentence-transformers {theirs:,.0f} rows/s, ratio {ratio:.2f}"
        )


def ours(start: Path, examples: Examples, case: dict[str, Any]) -> float:
    """Rows per second of nearfar's trainer: from the tokenised data set's making to the last step; by
    ``case["recipe"]`` where there is one."""
    from nearfar.training.fit import fit
    from nearfar.training.folder import create
    from nearfar.training.prepare import prepare
    from nearfar.training.run import recipe_of

    with tempfile.TemporaryDirectory() as folder:
        settings = training.TrainingSettings(
            output=folder, encoder=str(start), batch_size=case["batch_size"], steps=case["steps"],
            learning_rate=case["learning_rate"], parameters={"temperature": 0.05}, duplicates=True, drop_last=True,
            checkpoint_every=10**9, warmup=0.0, max_gradient_norm=0.0, recipe=case.get("recipe"),
        )  # fmt: skip
        path = Path(folder) / "run"
        made = prepare(settings, examples, None, recipe=recipe_of(settings))
        create(path, {}, made.encoder)
        tokenising = time.perf_counter()
        training.TextBatches(made.encoder, examples)
        tokenising = time.perf_counter() - tokenising
        fitted = fit(path, made, main=None, console=None)
        return case["batch_size"] * fitted.steps / (fitted.seconds + tokenising)


def theirs(start: Path, examples: Examples, case: dict[str, Any]) -> float:
    """Rows per second of sentence-transformers' trainer with MultipleNegativesRankingLoss."""
    import datasets
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(start), device="cpu")
    data = datasets.Dataset.from_dict({name: examples.column(name) for name in ("anchor", "positive")})
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, max_steps=case["steps"], per_device_train_batch_size=case["batch_size"],
            learning_rate=case["learning_rate"], use_cpu=True, report_to="none", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, max_grad_norm=0.0, dataloader_drop_last=True,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(model, scale=20.0)
        )
        torch.manual_seed(0)
        begin = time.perf_counter()
        trainer.train()
        return case["batch_size"] * case["steps"] / (time.perf_counter() - begin)
