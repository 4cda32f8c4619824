"""Before and after: evaluations, baselines, and what the run folder holds of them."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.errors import MissingExtraError
from nearfar.files import write_json
from nearfar.training import checkpoints, processes
from nearfar.training import folder as run_folder
from nearfar.training.evaluating import BEST, Measures
from nearfar.training.prepare import Prepared

if TYPE_CHECKING:
    from nearfar.training.fit import Fitted


@dataclass
class Before:
    """What was known before training: measures of the encoder as it began, and of baselines."""

    main: str | None = None
    measures: Measures = field(default_factory=dict)
    baselines: dict[str, Measures] = field(default_factory=dict)
    seconds: float = 0.0


def before_training(path: Path, run: Prepared) -> Before:
    """Evaluate the encoder and the baselines (or read what was found when the run was started), into metrics.json."""
    if run.evaluation is None:
        return Before()
    return Before(**processes.on_main(lambda: _before(path, run)))


def _before(path: Path, run: Prepared) -> dict[str, Any]:
    from nearfar import evaluation

    known = json.loads((path / run_folder.METRICS).read_text(encoding="utf-8"))
    if "before" in known:
        return {
            "main": known["main"],
            "measures": known["before"],
            "baselines": known.get("baselines", {}),
            "seconds": known.get("seconds", {}).get("before", 0.0),
        }
    assert run.evaluation is not None
    began = time.perf_counter()
    found = evaluation.evaluate(run.encoder, run.evaluation, seed=run.settings.seed)
    baselines: dict[str, Measures] = {}
    if found.kind == "retrieval" and "bm25" in run.settings.baselines:
        try:
            baselines["bm25"] = evaluation.bm25(run.evaluation, seed=run.settings.seed).to_dict()
        except MissingExtraError as error:
            warnings.warn(f"no BM25 baseline: {error}", UserWarning, stacklevel=2)
    before = {
        "main": found.main,
        "measures": found.to_dict(),
        "baselines": baselines,
        "seconds": time.perf_counter() - began,
    }
    partial = {"main": found.main, "before": before["measures"], "baselines": baselines}
    write_json(path / run_folder.METRICS, {**partial, "seconds": {"before": before["seconds"]}})
    return before


def finish(
    path: Path, run: Prepared, fitted: Fitted, before: Before, began: float, *, say: Callable[[str], None]
) -> tuple[Measures, dict[str, float]]:
    """Write model, metrics, diagnostics and report, and tidy up: ``(measures after, seconds)``."""
    found: tuple[Measures, dict[str, float]] = processes.on_main(lambda: _finish(path, run, fitted, before, began, say))
    return found


def _finish(
    path: Path, run: Prepared, fitted: Fitted, before: Before, began: float, say: Callable[[str], None]
) -> tuple[Measures, dict[str, float]]:
    from nearfar import encoders, evaluation

    encoders.save(run.encoder, path / run_folder.MODEL, overwrite=True)
    evaluating = time.perf_counter()
    after: Measures = {}
    if fitted.best is not None:
        after = fitted.best["measures"]
    elif run.evaluation is not None:
        after = evaluation.evaluate(run.encoder, run.evaluation, seed=run.settings.seed).to_dict()
    seconds = {"before": before.seconds, "training": fitted.seconds, "after": time.perf_counter() - evaluating}
    looking = time.perf_counter()
    _diagnose(path, run)
    seconds["diagnostics"] = time.perf_counter() - looking
    seconds["total"] = time.perf_counter() - began
    metrics: dict[str, Any] = {
        "before": before.measures,
        "after": after,
        "main": before.main,
        "baselines": before.baselines,
        "seconds": seconds,
        "steps": fitted.steps,
        "ended": fitted.ended,
    }
    if fitted.best is not None:
        metrics["best_step"] = fitted.best["step"]
    write_json(path / run_folder.METRICS, metrics)
    _report(path, say)
    _tidy(path)
    return after, seconds


def _diagnose(path: Path, run: Prepared) -> None:
    from nearfar import diagnostics, encoders

    initial = encoders.load(path / run_folder.CHECKPOINTS / run_folder.INITIAL, device=run.settings.device)
    shown = run.evaluation if run.evaluation is not None else run.examples
    try:
        found = diagnostics.collect(run.encoder, shown, initial, seed=run.settings.seed)
    except MissingExtraError as error:
        warnings.warn(f"no diagnostics: {error}", UserWarning, stacklevel=2)
        return
    write_json(path / "diagnostics.json", found)


def _report(path: Path, say: Callable[[str], None]) -> None:
    from nearfar import report

    try:
        say(f"report: {report.write(path)}")
    except MissingExtraError as error:
        say(f"no report: {error.message}; {error.hint}")


def _tidy(path: Path) -> None:
    """Of a complete run only the last checkpoint stays."""
    place = path / run_folder.CHECKPOINTS
    for name in (BEST, run_folder.INITIAL, run_folder.LAST_GOOD):
        shutil.rmtree(place / name, ignore_errors=True)
    checkpoints.thin_out(place, keep=1)
    (path / "failure.json").unlink(missing_ok=True)
