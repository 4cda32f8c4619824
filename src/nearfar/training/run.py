"""One call that trains: reads and checks data, makes encoder and objective, evaluates, trains, evaluates again and
leaves a run folder from which all of it can be repeated, resumed and looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.errors import UsageError
from nearfar.locking import only_one
from nearfar.training import folder as run_folder
from nearfar.training import header, processes
from nearfar.training.by_recipe import RecipeRun, complete
from nearfar.training.evaluating import Measures
from nearfar.training.prepare import Prepared, prepare, read
from nearfar.training.running import Interruptible, begin, check_unchanged, metrics_of_complete, speaker
from nearfar.training.settings import TrainingSettings
from nearfar.training.shapes import KINDS

if TYPE_CHECKING:
    from rich.console import Console
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples, RetrievalSet


@dataclass
class Run(Interruptible):
    """What a training run made.

    ``folder``: its run folder; ``encoder``: as trained (the best weights where there was an evaluation); ``before`` and
    ``after``: measures, empty without evaluation data; ``main``: the name of the main one; ``general``: measures of the
    general check, "before" and "after", empty without it; ``steps`` done; ``seconds``: "training", "total", ...;
    ``ended``: "all steps", "early stop", or the name of the signal that interrupted it.
    """

    folder: Path
    encoder: SentenceTransformer
    steps: int
    ended: str
    before: Measures = field(default_factory=dict)
    after: Measures = field(default_factory=dict)
    main: str | None = None
    baselines: dict[str, Measures] = field(default_factory=dict)
    general: dict[str, Measures] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def train(
    settings: TrainingSettings,
    *,
    examples: Examples | None = None,
    evaluation: Examples | RetrievalSet | None = None,
    console: Console | None = None,
    command: Sequence[str] | None = None,
) -> Run:
    """Train by ``settings`` and write the run folder ``settings.output``.

    Args:
        examples, evaluation: data that is in memory; by default what the settings name is read.
        console: where header, progress and warnings are shown (a ``rich`` console); None: silent.
        command: written to config.json, so that it says how the run was started.

    The folder holds config.json, data-check.json, versions.json and checkpoints/ from the start, metrics.jsonl while it
    goes, and model/, metrics.json, diagnostics.json and report.html (with plotly) at the end. With ``settings.resume``
    an interrupted run goes on from its config.json and last complete checkpoint to the same weights that it would have
    had; of the settings only where and how it goes count then. A run that is complete is only loaded.

    SIGINT (Ctrl-C) and SIGTERM end training after the present step with a checkpoint and a result that says so. Over
    several processes (torchrun) all call this alike; the main one writes.

    Raises :class:`UsageError`, :class:`~nearfar.errors.DataError`, :class:`~nearfar.errors.ModelError` for input that
    cannot be used, :class:`~nearfar.errors.OutputError` before any work when the folder cannot be written, and
    :class:`~nearfar.errors.TrainingError` when loss or gradient are not finite (the weights before are in
    checkpoints/last-good) or a
    run that is resumed had other data.
    """
    began = time.perf_counter()
    if not settings.output:
        raise UsageError("there is no place to write the run to", where="--output", hint="name a folder")
    processes.start(settings.device)
    say = speaker(console)
    path = Path(settings.output)
    resolved: dict[str, Any] | None = None
    encoder: SentenceTransformer | None = None
    if settings.resume:
        config = run_folder.read_config(path)
        settings = run_folder.stored_settings(config, settings)
        finished = _finished(path)
        if finished is not None:
            say(f"the run in {path} is complete")
            return finished
        resolved = config["resolved"]
        encoder = _initial_encoder(path, settings)
    else:
        processes.on_main(lambda: run_folder.check_output(path, overwrite=settings.overwrite, weights=0))
    recipe = recipe_of(settings, resolved["options"] if resolved is not None else None)
    wanted = KINDS if recipe is None else recipe.training.shapes
    examples, evaluation = read(settings, examples, evaluation, wanted)
    for data in (examples, evaluation):
        if data is not None:
            say(data.describe())
    run = prepare(settings, examples, evaluation, encoder=encoder, resolved=resolved, recipe=recipe)
    if settings.resume:
        check_unchanged(config, run.data)
    else:
        processes.on_main(lambda: _create(path, run, command))
    if run.check.findings:
        say(run.check.text())
    for line in header.lines(run):
        say(line)
    if not processes.is_main():
        return _train_in(path, run, console, began)
    with only_one(path / run_folder.LOCK, "training in this folder"):
        return _train_in(path, run, console, began)


def _train_in(path: Path, run: Prepared, console: Console | None, began: float) -> Run:
    from nearfar.training.fit import fit
    from nearfar.training.results import before_training, finish

    before = before_training(path, run)
    fitted = fit(path, run, main=before.main, console=console)
    result = Run(
        folder=path,
        encoder=run.encoder,
        steps=fitted.steps,
        ended=fitted.ended,
        before=before.measures,
        main=fitted.main,
        baselines=before.baselines,
        seconds={"training": fitted.seconds},
    )
    if fitted.interrupted:
        speaker(console)(f"interrupted at step {fitted.steps:,} ({fitted.ended}); --resume goes on from there")
        return result
    after = finish(path, run, fitted, before, began, say=speaker(console))
    result.after, result.seconds = after.measures, after.seconds
    if after.general:
        result.general = {"before": before.general, "after": after.general}
    return result


def recipe_of(settings: TrainingSettings, options: dict[str, Any] | None = None) -> RecipeRun | None:
    """The recipe that ``settings`` name, None where they name none; ``options``: of a run that is resumed.

    Raises :class:`UsageError` for a recipe that there is not or that does not train, and for options it does not have.
    """
    if settings.recipe is None:
        return None
    from nearfar import recipes

    found = recipes.find(settings.recipe)
    if found.training is None:
        raise UsageError(
            f"{found.id} cannot be trained on a file: it says only how its objective is built",
            where=f"--recipe {settings.recipe}",
            hint=f"see nearfar recipes {found.id} for its objective, nearfar recipes --training for those that can",
        )
    return RecipeRun(
        id=found.id,
        paper=str(found.paper),
        training=found.training,
        options=complete(found.id, found.training, settings.parameters) if options is None else options,
        others=lambda: {each.id: each.training for each in recipes.recipes() if each.training is not None},
    )


def _create(path: Path, run: Prepared, command: Sequence[str] | None) -> None:
    begin(
        path,
        run.settings,
        resolved=run.resolved.to_dict(),
        data=run.data,
        check=run.check,
        weights=sum(value.numel() * value.element_size() for value in run.encoder.state_dict().values()),
        command=command,
        encoder=run.encoder,
    )


def _finished(path: Path) -> Run | None:
    """The run in ``path`` if it is complete."""
    from nearfar import encoders

    metrics = metrics_of_complete(path)
    if metrics is None:
        return None
    return Run(
        folder=path,
        encoder=encoders.load(path / run_folder.MODEL),
        steps=metrics["steps"],
        ended=metrics["ended"],
        before=metrics.get("before", {}),
        after=metrics.get("after", {}),
        main=metrics.get("main"),
        baselines=metrics.get("baselines", {}),
        general={name: metrics["general"][name] for name in ("before", "after")} if "general" in metrics else {},
        seconds=metrics.get("seconds", {}),
    )


def _initial_encoder(path: Path, settings: TrainingSettings) -> SentenceTransformer:
    from nearfar import encoders

    return encoders.load(path / run_folder.CHECKPOINTS / run_folder.INITIAL, device=settings.device)
