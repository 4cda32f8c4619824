"""One call that aligns a language model on preferences: reads and checks them, computes the reference, trains,
evaluates, and leaves a run folder from which all of it can be repeated, resumed and looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.alignment import beside, header, sharding
from nearfar.alignment.prepare import Prepared, prepare, read
from nearfar.alignment.results import AlignmentRun, before_training, finish, finished
from nearfar.alignment.settings import AlignmentSettings
from nearfar.errors import UsageError
from nearfar.locking import only_one
from nearfar.training import folder as run_folder
from nearfar.training import processes
from nearfar.training.running import begin, check_unchanged, speaker

if TYPE_CHECKING:
    from rich.console import Console

    from nearfar.data.preferences import PreferenceSet
    from nearfar.objectives import Objective


def align(
    settings: AlignmentSettings,
    *,
    preferences: PreferenceSet | None = None,
    evaluation: PreferenceSet | None = None,
    objective: Objective | None = None,
    console: Console | None = None,
    command: Sequence[str] | None = None,
) -> AlignmentRun:
    """Align a language model by ``settings`` and write the run folder ``settings.output``.

    Args:
        preferences, evaluation: data that is in memory; by default what the settings name is read.
        objective: one that was made, such as a discovered loss, in the place of the settings' name.
        console: where header, progress and warnings are shown (a ``rich`` console); None: silent.
        command: written to config.json, so that it says how the run was started.

    Every row is read, checked and tokenised, and the reference computed, before the first step. The folder holds
    config.json, data-check.json, versions.json, reference/ and checkpoints/ from the start, metrics.jsonl while it
    goes, and model/, metrics.json and report.html (with plotly) at the end. With ``settings.resume`` an interrupted run
    goes on from its last complete checkpoint to the same weights that it would have had; the model that it began with
    has to be where it was. A run that is complete is only reported.

    SIGINT and SIGTERM end training after the present step with a checkpoint. Over several processes (torchrun) all call
    this alike; the main one writes. With ``settings.shard``, or where accelerate's launcher was told to
    (``--use_fsdp``), they share out weights, gradients and the optimiser's state among them
    (:mod:`nearfar.alignment.sharding`); a run may be resumed with another number of processes.

    Raises :class:`UsageError`, :class:`~nearfar.errors.DataError`, :class:`~nearfar.errors.ModelError` for input that
    cannot be used, :class:`~nearfar.errors.OutputError` before any work when the folder cannot be written, and
    :class:`~nearfar.errors.TrainingError` when loss or gradient are not finite, policy and reference disagree before
    the first step, or what a run began with has changed.
    """
    began = time.perf_counter()
    if not settings.output:
        raise UsageError("there is no place to write the run to", where="--output", hint="name a folder")
    with sharding.told_by_launcher() as told:
        settings = replace(settings, shard=settings.shard or told)
        return _align(settings, preferences, evaluation, objective, console, command, began)


def _align(
    settings: AlignmentSettings,
    preferences: PreferenceSet | None,
    evaluation: PreferenceSet | None,
    objective: Objective | None,
    console: Console | None,
    command: Sequence[str] | None,
    began: float,
) -> AlignmentRun:
    processes.start(settings.device)
    say = speaker(console)
    path = Path(settings.output)
    resolved: dict[str, Any] | None = None
    if settings.resume:
        config = run_folder.read_config(path)
        settings = run_folder.stored_settings(config, settings)
        done = finished(path)
        if done is not None:
            say(f"the run in {path} is complete")
            return done
        resolved = config["resolved"]
    else:
        if settings.shard and processes.world_size() == 1:
            raise UsageError(
                "weights are shared out among processes, and there is one",
                where="--shard",
                hint="start with torchrun --nproc-per-node N -m nearfar align ...",
            )
        processes.on_main(lambda: run_folder.check_output(path, overwrite=settings.overwrite, weights=0))
    preferences, evaluation = read(settings, preferences, evaluation)
    for given in (preferences, evaluation):
        if given is not None:
            say(given.describe())
    run = prepare(settings, preferences, evaluation, objective=objective, resolved=resolved)
    if settings.resume:
        check_unchanged(config, run.fingerprints)
    else:
        processes.on_main(lambda: _create(path, run, command))
    if run.check.findings:
        say(run.check.text())
    for line in header.lines(run):
        say(line)
    if not processes.is_main():
        return _align_in(path, run, console, began)
    with only_one(path / run_folder.LOCK, "training in this folder"):
        return _align_in(path, run, console, began)


def _align_in(path: Path, run: Prepared, console: Console | None, began: float) -> AlignmentRun:
    from nearfar.alignment.fit import fit, method_of

    say = speaker(console)
    states = beside.fill(run, path, say)
    method = method_of(run, states)
    before = before_training(path, run, method)
    fitted = fit(path, run, method, main=before.main, console=console)
    result = AlignmentRun(
        folder=path,
        steps=fitted.steps,
        ended=fitted.ended,
        policy=None if run.sharded else run.policy,
        tokenizer=run.tokenizer,
        before=before.measures,
        main=before.main,
        seconds={"training": fitted.seconds},
    )
    if fitted.interrupted:
        say(f"interrupted at step {fitted.steps:,} ({fitted.ended}); --resume goes on from there")
        return result
    result.policy, after = finish(path, run, method, fitted, before, began, say=say)
    result.after, result.seconds, result.warning = after.measures, after.seconds, after.warning
    return result


def _create(path: Path, run: Prepared, command: Sequence[str] | None) -> None:
    begin(
        path,
        run.settings,
        resolved=run.resolved.to_dict(),
        data=run.fingerprints,
        check=run.check,
        weights=sum(each.numel() * each.element_size() for each in run.policy.parameters() if each.requires_grad),
        command=command,
        kind="alignment",
        objective=run.objective.name,
        tokens=run.table.tokens.counts,
    )
