"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Columns = Annotated[
    str | None,
    typer.Option(
        "--columns", help="Which column is what, where the names are not known ones: anchor=summary,positive=code"
    ),
]
MaxBadRows = Annotated[int, typer.Option("--max-bad-rows", min=0, help="How many unusable rows may be skipped.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Model = Annotated[str, typer.Argument(help="A run folder, a saved model's folder, minilm, or a hub name.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Texts embedded at once.")]

# of training
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps, instead of epochs.")]
EvaluateEvery = Annotated[int | None, typer.Option(min=1, help="Steps between evaluations.")]
EarlyStop = Annotated[int | None, typer.Option(min=1, help="Stop after so many evaluations without a better one.")]
CheckpointEvery = Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that make batches.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --output.")]
Rank = Annotated[int, typer.Option(min=1, help="Of the adapter.")]

CLAIMS_FOLDER = Path("claims-run")
"""Where ``nearfar reproduce`` keeps its records, and ``nearfar recipes`` looks for the last verdicts."""


def model_folder(name: str) -> str:
    """The model of a run folder (its ``model/``), or ``name`` itself."""
    inner = Path(name) / "model"
    return str(inner) if (Path(name) / "config.json").is_file() and inner.is_dir() else name
