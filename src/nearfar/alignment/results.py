"""Before and after an alignment run: evaluations, what became of chosen and rejected, what the run folder holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from nearfar.alignment.exporting import export, trained_policy
from nearfar.alignment.method import AlignmentMethod
from nearfar.alignment.prepare import Prepared
from nearfar.alignment.watch import verdict_of
from nearfar.files import write_json
from nearfar.training import folder as run_folder
from nearfar.training import processes
from nearfar.training.evaluating import Measures
from nearfar.training.running import Interruptible, metrics_of_complete, tidy, write_report

if TYPE_CHECKING:
    from nearfar.alignment.fit import Fitted

_BATCHES = 3
"""From how many logged batches on their spread is known well enough."""


@dataclass
class AlignmentRun(Interruptible):
    """What an alignment run made.

    ``folder``: its run folder; ``policy``, ``tokenizer``: the model as trained (peft's wrapper with an adapter), None
    for a run that was complete already, and where weights are shared out for one that was interrupted and on all
    processes but the main one; ``steps`` done; ``ended``: "all steps", "early stop", or the name of the signal that
    interrupted it; ``before`` and ``after``: measures, empty without evaluation data, ``main`` the name of the main
    one; ``seconds``: "training", "total", ...; ``warning``: what is said of the chosen responses where they fell.
    """

    folder: Path
    steps: int
    ended: str
    policy: Any = None
    tokenizer: Any = None
    before: Measures = field(default_factory=dict)
    after: Measures = field(default_factory=dict)
    main: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warning: str | None = None

    @property
    def model(self) -> Path:
        """The folder of the trained model: of transformers, or the adapter's with LoRA."""
        return self.folder / run_folder.MODEL


@dataclass
class Before:
    """What was known before training; ``seconds`` that it took."""

    main: str | None = None
    measures: Measures = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class After:
    """What was found after training: measures, seconds by what they were spent on, and what is said of the chosen."""

    measures: Measures
    seconds: dict[str, float]
    warning: str | None = None


def before_training(path: Path, run: Prepared, method: AlignmentMethod) -> Before:
    """Evaluate the policy as it begins (or read what was found when the run was started), into metrics.json."""
    if run.evaluation_table is None:
        return Before()
    known = processes.on_main(lambda: json.loads((path / run_folder.METRICS).read_text(encoding="utf-8")))
    if "before" in known:
        return Before(known["main"], known["before"], known.get("seconds", {}).get("before", 0.0))
    began = time.perf_counter()
    main, measures = _judged(run, method, before=True)
    before = Before(main, measures, time.perf_counter() - began)
    held = {"main": main, "before": measures, "seconds": {"before": before.seconds}}
    processes.on_main(lambda: write_json(path / run_folder.METRICS, held))
    return before


def _judged(run: Prepared, method: AlignmentMethod, *, before: bool = False) -> tuple[str, Measures]:
    """The name of the main measure, and all measures, of the evaluation data."""
    from nearfar.alignment.fit import judge_of

    def judge() -> tuple[str, Measures]:
        found = judge_of(run, before=before)(method, run.evaluation_table)
        return found.main, found.to_dict()

    called = processes.together if run.sharded else processes.on_main
    judged: tuple[str, Measures] = called(judge)
    return judged


def finish(
    path: Path,
    run: Prepared,
    method: AlignmentMethod,
    fitted: Fitted,
    before: Before,
    began: float,
    *,
    say: Callable[[str], None],
) -> tuple[Any, After]:
    """Write model, metrics and report, and tidy up. Gives the trained policy (None on processes that do not have it)
    and what was found."""
    policy = trained_policy(run, method)
    processes.on_main(lambda: export(policy, run, path))
    evaluating = time.perf_counter()
    after: Measures = {}
    if fitted.best is not None:
        after = fitted.best["measures"]
    elif run.evaluation_table is not None:
        _, after = _judged(run, method)
    seconds = {
        "before": before.seconds,
        "training": fitted.seconds,
        "after": time.perf_counter() - evaluating,
        "total": time.perf_counter() - began,
    }
    found = processes.on_main(lambda: _write(path, fitted, before, after, seconds, say))
    return policy, After(after, seconds, found)


def _write(
    path: Path,
    fitted: Fitted,
    before: Before,
    after: Measures,
    seconds: dict[str, float],
    say: Callable[[str], None],
) -> str | None:
    """Metrics and report; what is said of the chosen."""
    warning = verdict_of_run(path, before.measures, after)
    if warning is not None:
        say(f"warning: {warning}")
    metrics: dict[str, Any] = {
        "before": before.measures,
        "after": after,
        "main": before.main,
        "seconds": seconds,
        "steps": fitted.steps,
        "ended": fitted.ended,
        "warning": warning,
    }
    if fitted.best is not None:
        metrics["best_step"] = fitted.best["step"]
    write_json(path / run_folder.METRICS, metrics)
    write_report(path, say)
    tidy(path)
    return warning


def verdict_of_run(path: Path, before: Measures, after: Measures) -> str | None:
    """What is said of chosen and rejected: by the evaluation data, or else by the batches of the run."""
    if before and after:
        return verdict_of(_values(before), _values(after))
    lines = [json.loads(line) for line in (path / run_folder.LINES).read_text(encoding="utf-8").splitlines()]
    logged = [line for line in lines if "margin" in line]
    if len(logged) < 2:
        return None
    some = max(1, len(logged) // 10)
    first, last = logged[:some], logged[-some:]
    if all("log_ratio_chosen" in line for line in logged):  # of the same responses, whichever a batch holds
        seen = ("log_ratio_chosen", "margin", "log_ratio")
    elif _differ([line["log_p_chosen"] for line in first], [line["log_p_chosen"] for line in last]):
        seen = ("log_p_chosen", "margin", "log_ratio")
    else:
        return None
    return verdict_of(_mean(first, seen), _mean(last, seen))


def _differ(first: Sequence[float], last: Sequence[float]) -> bool:
    """Whether the means of batches, which hold different responses, are more than two standard errors apart."""
    if min(len(first), len(last)) < _BATCHES:
        return False
    error: float = (variance(first) / len(first) + variance(last) / len(last)) ** 0.5
    return abs(fmean(first) - fmean(last)) > 2 * error


def _values(measures: Measures) -> dict[str, float]:
    return {name: float(measure["value"]) for name, measure in measures.items()}


def _mean(lines: list[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    return {name: fmean(float(line[name]) for line in lines) for name in names if all(name in line for line in lines)}


def finished(path: Path) -> AlignmentRun | None:
    """The run in ``path`` if it is complete."""
    metrics = metrics_of_complete(path)
    if metrics is None:
        return None
    return AlignmentRun(
        folder=path,
        steps=metrics["steps"],
        ended=metrics["ended"],
        before=metrics.get("before", {}),
        after=metrics.get("after", {}),
        main=metrics.get("main"),
        seconds=metrics.get("seconds", {}),
        warning=metrics.get("warning"),
    )
