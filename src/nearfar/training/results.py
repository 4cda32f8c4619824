"""Before and after: evaluations, baselines, and what the run folder holds of them."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nearfar.encoders import classifier_files
from nearfar.encoders.classifier_files import write_classifier
from nearfar.errors import MissingExtraError
from nearfar.files import write_json
from nearfar.training import folder as run_folder
from nearfar.training import processes
from nearfar.training.evaluating import Measures
from nearfar.training.prepare import Prepared
from nearfar.training.running import tidy, write_report

if TYPE_CHECKING:
    from nearfar.data import Examples, RetrievalSet
    from nearfar.training.fit import Fitted


@dataclass
class Before:
    """What was known before training: measures of the encoder as it began, and of baselines; ``general``: those of the
    general check."""

    main: str | None = None
    measures: Measures = field(default_factory=dict)
    baselines: dict[str, Measures] = field(default_factory=dict)
    general: Measures = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class After:
    """What was found after training, as :class:`Before`; ``seconds`` by what they were spent on."""

    measures: Measures
    general: Measures
    seconds: dict[str, float]


def before_training(path: Path, run: Prepared) -> Before:
    """Evaluate the encoder and the baselines (or read what was found when the run was started), into metrics.json."""
    if run.evaluation is None and not checks_generally(run):
        return Before()
    return Before(**processes.on_main(lambda: _before(path, run)))


def checks_generally(run: Prepared) -> bool:
    """Whether general ability is measured: of an encoder that has some, one that was trained before."""
    return run.settings.general_check and run.settings.encoder != "static"


def _before(path: Path, run: Prepared) -> dict[str, Any]:
    known = json.loads((path / run_folder.METRICS).read_text(encoding="utf-8"))
    if "before" in known:
        return {
            "main": known["main"],
            "measures": known["before"],
            "baselines": known.get("baselines", {}),
            "general": known.get("general", {}).get("before", {}),
            "seconds": known.get("seconds", {}).get("before", 0.0),
        }
    began = time.perf_counter()
    before: dict[str, Any] = {"main": None, "measures": {}, "baselines": {}, "general": {}}
    if run.evaluation is not None:
        before.update(_evaluate(run, run.evaluation))
    if checks_generally(run):
        before["general"] = _general(run)
    before["seconds"] = time.perf_counter() - began
    partial = {"main": before["main"], "before": before["measures"], "baselines": before["baselines"]}
    more = {"general": {"before": before["general"]}, "seconds": {"before": before["seconds"]}}
    write_json(path / run_folder.METRICS, {**partial, **more})
    return before


def _evaluate(run: Prepared, data: Examples | RetrievalSet) -> dict[str, Any]:
    from nearfar import evaluation

    found = evaluation.evaluate(run.encoder, data, seed=run.settings.seed)
    baselines: dict[str, Measures] = {}
    if found.kind == "retrieval" and "bm25" in run.settings.baselines:
        try:
            baselines["bm25"] = evaluation.bm25(data, seed=run.settings.seed).to_dict()
        except MissingExtraError as error:
            warnings.warn(f"no BM25 baseline: {error}", UserWarning, stacklevel=2)
    return {"main": found.main, "measures": found.to_dict(), "baselines": baselines}


def _general(run: Prepared) -> Measures:
    from nearfar.evaluation.general import general_similarity

    return general_similarity(run.encoder, seed=run.settings.seed).to_dict()


def general_loss(before: Measures, after: Measures) -> str | None:
    """What to say where training has cost general ability: Spearman's correlation of the general check fell by more
    than :data:`~nearfar.evaluation.general.WORRYING_DROP`; None where it has not, or was not measured."""
    from nearfar.evaluation.general import WORRYING_DROP

    if not before or not after:
        return None
    was, now = before["spearman"]["value"], after["spearman"]["value"]
    if was - now <= WORRYING_DROP:
        return None
    return (
        "training has cost general ability: on pairs of everyday English, Spearman's correlation fell from "
        f"{was:.3f} to {now:.3f}. If the encoder is to be used beyond these data, lower the learning rate, train fewer "
        "steps, or mix in pairs of other kinds."
    )


def finish(
    path: Path, run: Prepared, fitted: Fitted, before: Before, began: float, *, say: Callable[[str], None]
) -> After:
    """Write model, metrics, diagnostics and report, and tidy up."""
    return After(**processes.on_main(lambda: _finish(path, run, fitted, before, began, say)))


def _finish(
    path: Path, run: Prepared, fitted: Fitted, before: Before, began: float, say: Callable[[str], None]
) -> dict[str, Any]:
    from nearfar import encoders, evaluation

    encoders.save(run.encoder, path / run_folder.MODEL, overwrite=True)
    if fitted.classifier is not None:
        write_classifier(fitted.classifier, path / run_folder.MODEL / classifier_files.FOLDER, normalize=False)
    evaluating = time.perf_counter()
    after: Measures = {}
    if fitted.best is not None:
        after = fitted.best["measures"]
    elif run.evaluation is not None:
        after = evaluation.evaluate(run.encoder, run.evaluation, seed=run.settings.seed).to_dict()
    if fitted.main not in after:
        after = {**after, **_classified(run, fitted)}
    general = _general(run) if checks_generally(run) else {}
    lost = general_loss(before.general, general)
    if lost is not None:
        say(f"warning: {lost}")
    seconds = {"before": before.seconds, "training": fitted.seconds, "after": time.perf_counter() - evaluating}
    looking = time.perf_counter()
    _diagnose(path, run)
    seconds["diagnostics"] = time.perf_counter() - looking
    seconds["total"] = time.perf_counter() - began
    metrics: dict[str, Any] = {
        "before": before.measures,
        "after": after,
        "main": fitted.main,
        "baselines": before.baselines,
        "seconds": seconds,
        "steps": fitted.steps,
        "ended": fitted.ended,
    }
    if general:
        metrics["general"] = {"before": before.general, "after": general, "warning": lost}
    if fitted.best is not None:
        metrics["best_step"] = fitted.best["step"]
    write_json(path / run_folder.METRICS, metrics)
    write_report(path, say)
    tidy(path)
    return {"measures": after, "general": general, "seconds": seconds}


def _classified(run: Prepared, fitted: Fitted) -> Measures:
    """What the classifier that was learned with the encoder makes of labelled evaluation data."""
    from nearfar.evaluation.classified import classifier_measures

    shape = getattr(run.evaluation, "shape", None)
    if fitted.classifier is None or shape != "labelled texts":
        return {}
    found = classifier_measures(
        run.encoder, fitted.classifier, cast("Examples", run.evaluation), normalize=False, seed=run.settings.seed
    )
    return {name: measure.to_dict() for name, measure in found.items()}


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
