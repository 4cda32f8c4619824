"""Tasks of the Massive Text Embedding Benchmark, by the package mteb (Muennighoff et al., 2023; the extra ``mteb``).

::

    from nearfar import encoders
    from nearfar.evaluation.mteb import evaluate_mteb

    model = encoders.load("runs/mine")
    for found in evaluate_mteb(model, ["STSBenchmark", "SciFact"]):     # fetches the tasks' data
        print(found)                                                    # STSBenchmark (STS) 0.8203

A folder that nearfar saved is a sentence-transformers model, so mteb takes it without this module, too:
``mteb.evaluate(SentenceTransformer("runs/mine/model"), mteb.get_tasks(["STSBenchmark"]))``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nearfar.errors import DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class TaskScore:
    """One task: its ``name``, ``kind`` ("STS", "Retrieval", ...), the ``score`` mteb compares models by (the mean of
    its main score over splits and subsets), and all ``scores`` by split as mteb gives them."""

    name: str
    kind: str
    score: float
    scores: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}) {self.score:.4f}"


def evaluate_mteb(
    model: SentenceTransformer,
    tasks: Sequence[Any],
    *,
    batch_size: int = 64,
    cache: str | os.PathLike[str] | None = None,
) -> list[TaskScore]:
    """Run ``tasks`` of mteb on ``model``: names, whose data mteb fetches from the hub, or task objects of one's own.

    ``cache``: a folder in which mteb keeps results, so that tasks that are done are not run again; None: none.

    Raises :class:`~nearfar.errors.MissingExtraError` without mteb, :class:`UsageError` for no tasks or names that are
    none, and :class:`DataError` where a task's data cannot be had.
    """
    try:
        import mteb
    except ImportError as error:
        raise MissingExtraError("mteb", "mteb") from error
    wanted = list(tasks)
    if not wanted:
        raise UsageError("there is no task to run", hint='name some of mteb, e.g. "STSBenchmark"')
    every = [_task(mteb, each) for each in wanted]
    options: dict[str, Any] = {"cache": None if cache is None else mteb.ResultCache(cache_path=os.fspath(cache))}
    try:
        found = mteb.evaluate(
            model, every, encode_kwargs={"batch_size": batch_size}, show_progress_bar=False, **options
        )
    except (OSError, ValueError) as error:  # what fetching raises: no connection, no such data set
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        names = ", ".join(task.metadata.name for task in every)
        raise DataError(f"mteb cannot run {names}: {reason}", hint="is the hub within reach?") from error
    kinds = {task.metadata.name: str(task.metadata.type) for task in every}
    return [
        TaskScore(each.task_name, kinds.get(each.task_name, ""), float(each.get_score()), dict(each.scores))
        for each in found.task_results
    ]


def _task(mteb: Any, task: Any) -> Any:
    if not isinstance(task, str):
        return task
    try:
        return mteb.get_task(task)
    except (KeyError, ValueError) as error:
        raise UsageError(f"mteb has no task {task!r}", hint="mteb.get_tasks() lists them") from error
