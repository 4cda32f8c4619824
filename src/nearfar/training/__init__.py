"""Training: methods, cached gradients, the trainer and runs.

::

    from nearfar import training

    settings = training.TrainingSettings(data="pairs.jsonl", evaluate="dev.jsonl", output="runs/mine")
    run = training.train(settings)
    run.after[run.main], run.encoder

In a training loop of one's own, :func:`loss_of_chunks` gives any encoder a batch of any size, and
:class:`ContrastiveMethod` turns batches of texts into a loss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nearfar.training.cached import loss_of_chunks
from nearfar.training.chunking import Chunking
from nearfar.training.loading import Loader, TextBatches
from nearfar.training.method import ContrastiveMethod, Method
from nearfar.training.run import Run, train
from nearfar.training.settings import TrainingSettings

if TYPE_CHECKING:
    from nearfar.training.trainer import Trainer

__all__ = [
    "Chunking",
    "ContrastiveMethod",
    "Loader",
    "Method",
    "Run",
    "TextBatches",
    "Trainer",
    "TrainingSettings",
    "loss_of_chunks",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "Trainer":  # imports transformers, which takes seconds
        return importlib.import_module("nearfar.training.trainer").Trainer
    raise AttributeError(f"module 'nearfar.training' has no attribute {name!r}")
