"""One call that trains a reward model and leaves a run folder, which can be resumed, looked at and scored with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.alignment.adapters import write_trained
from nearfar.alignment.reward.contrast import RewardContrast
from nearfar.alignment.reward.judging import judge_rewards
from nearfar.alignment.reward.method import RewardBatches, RewardMethod
from nearfar.alignment.reward.model import write_reward_model
from nearfar.alignment.reward.prepare import Prepared, prepare, read
from nearfar.alignment.reward.settings import RewardSettings
from nearfar.data.preferences.rows import plain
from nearfar.errors import UsageError
from nearfar.files import write_json
from nearfar.locking import only_one
from nearfar.objectives import MAPL, RewardModeling
from nearfar.training import folder as run_folder
from nearfar.training import processes
from nearfar.training.evaluating import Measures
from nearfar.training.running import Interruptible, begin, check_unchanged, metrics_of_complete, speaker, tidy

if TYPE_CHECKING:
    from rich.console import Console

    from nearfar.data.preferences import PreferenceSet
    from nearfar.evaluation.measures import Evaluation
    from nearfar.training.loop import Course, Outcome, Start

Say = Callable[[str], None]

MAIN = "accuracy"


@dataclass
class RewardRun(Interruptible):
    """What the training of a reward model made.

    ``folder``: its run folder, whose ``model/`` is a sequence classifier of transformers; ``model``, ``tokenizer``: as
    trained, None for a run that was complete already; ``steps`` done; ``ended``: why; ``before``, ``after``: measures
    of the held-out pairs, empty without any; ``reliability``: those pairs by how sure the model is; ``seconds``.
    """

    folder: Path
    steps: int
    ended: str
    model: Any = None
    tokenizer: Any = None
    before: Measures = field(default_factory=dict)
    after: Measures = field(default_factory=dict)
    reliability: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def train_reward(
    settings: RewardSettings,
    *,
    preferences: PreferenceSet | None = None,
    evaluation: PreferenceSet | None = None,
    console: Console | None = None,
    command: Sequence[str] | None = None,
) -> RewardRun:
    """Train a reward model by ``settings`` and write the run folder ``settings.output``.

    Args:
        preferences, evaluation: data that is in memory; by default what the settings name is read.
        console: where header, progress and warnings are shown (a ``rich`` console); None: silent.
        command: written to config.json, so that it says how the run was started.

    The folder holds config.json, data-check.json, versions.json and checkpoints/ from the start, metrics.jsonl while it
    goes, and model/ and metrics.json at the end. With ``settings.resume`` an interrupted run goes on from its last
    complete checkpoint to the weights that it would have had. Over several processes (torchrun) all call this alike.

    Raises :class:`UsageError`, :class:`~nearfar.errors.DataError`, :class:`~nearfar.errors.ModelError` for input that
    cannot be used, :class:`~nearfar.errors.OutputError` before any work when the folder cannot be written, and
    :class:`~nearfar.errors.TrainingError` when loss or gradient are not finite or what a run began with has changed.
    """
    began = time.perf_counter()
    if not settings.output:
        raise UsageError("there is no place to write the run to", where="--output", hint="name a folder")
    processes.start(settings.device)
    say = speaker(console)
    path = Path(settings.output)
    resolved: dict[str, Any] | None = None
    if settings.resume:
        config = run_folder.read_config(path)
        settings = run_folder.stored_settings(config, settings)
        done = _finished(path)
        if done is not None:
            say(f"the run in {path} is complete")
            return done
        resolved = config["resolved"]
    else:
        processes.on_main(lambda: run_folder.check_output(path, overwrite=settings.overwrite, weights=0))
    preferences, evaluation = read(settings, preferences, evaluation)
    say(preferences.describe())
    run = prepare(settings, preferences, evaluation, resolved=resolved)
    if settings.resume:
        check_unchanged(config, run.fingerprints)
    else:
        processes.on_main(lambda: _create(path, run, command))
    if run.check.findings:
        say(run.check.text())
    for line in header(run):
        say(line)
    if not processes.is_main():
        return _train_in(path, run, console, began)
    with only_one(path / run_folder.LOCK, "training in this folder"):
        return _train_in(path, run, console, began)


def header(run: Prepared) -> list[str]:
    """What is trained on what, a line each."""
    settings, flipped = run.settings, int(run.treated.flipped.sum())
    trained = sum(parameter.numel() for parameter in run.model.parameters() if parameter.requires_grad)
    lines = [
        run.tokens.describe(),
        f"model: {run.resolved['model']}; {trained:,} parameters trained{_which(settings)}",
    ]
    if settings.by_strength or settings.label_smoothing:
        doubted = int((run.treated.smoothing > 0).sum())
        margins = f"margins {run.treated.margin.min():.2f} to {run.treated.margin.max():.2f}"
        lines.append(f"labels: {flipped:,} turned, {doubted:,} doubted, {margins if settings.margin else 'no margins'}")
    if settings.mapl:
        compared, gaps = (sum(map(len, each.values())) for each in (run.extra.compared, run.extra.gaps))
        lines.append(f"instructions: {compared:,} prompts and {gaps:,} gaps compared")
    if settings.meta:
        lines.append(f"unlabelled: {len(run.extra.meta):,} prompts of {len(run.extra.meta[0].responses)} responses")
    held_out = 0 if run.evaluation_tokens is None else len(run.evaluation_tokens)
    lines.append(
        f"steps: {run.resolved['steps']:,} of {run.batches.batch_size:,} pairs, learning rate "
        f"{run.resolved['learning_rate']:.2g}; {held_out:,} pairs to evaluate on"
    )
    return lines


def _which(settings: RewardSettings) -> str:
    return ", the head alone" if settings.frozen else f", an adapter of rank {settings.rank}" if settings.lora else ""


def method_of(run: Prepared) -> RewardMethod:
    """What ``run`` trains."""
    settings = run.settings
    objective = (
        MAPL(prompt_weight=settings.prompt_weight, gap_weight=settings.gap_weight)
        if settings.mapl
        else RewardModeling(reduction="none")
    )
    contrast = None
    if settings.contrast != "none":
        with torch.random.fork_rng():  # prototypes begin alike in a run that is resumed
            torch.manual_seed(settings.seed)
            contrast = RewardContrast(
                settings.contrast,
                temperature=settings.contrast_temperature,
                dimension=run.model.config.get_text_config().hidden_size,
            )
    return RewardMethod(
        run.model,
        objective,
        contrast=contrast,
        contrast_weight=settings.contrast_weight,
        dropout=settings.contrast_dropout,
        meta_form=settings.meta_form,
        meta_rate=run.resolved["meta_rate"],
        adapter=settings.frozen or settings.lora,
    ).to(run.device)


def _train_in(path: Path, run: Prepared, console: Console | None, began: float) -> RewardRun:
    from nearfar.training.loop import Start

    say = speaker(console)
    method = method_of(run)
    before = processes.on_main(lambda: _before(path, run))
    course = _course(path, run)
    start = Start(course)
    went, best = _go(course, start, run, method, console)
    result = RewardRun(
        path, went.steps, went.ended, run.model, run.tokenizer, before, seconds={"training": went.seconds}
    )
    if went.interrupted:
        say(f"interrupted at step {went.steps:,} ({went.ended}); --resume goes on from there")
        return result

    def finish() -> dict[str, Any]:
        if run.settings.lora:
            adapted: Any = run.model
            run.model = adapted.merge_and_unload()
        write_reward_model(run.model, run.tokenizer, path / run_folder.MODEL, overwrite=True)
        judged = _judge(run)
        found: dict[str, Any] = {
            "before": before,
            "after": {} if judged is None else judged.to_dict(),
            "main": None if judged is None else MAIN,
            "reliability": {} if judged is None else judged.details["reliability"],
            "seconds": {"training": went.seconds, "total": time.perf_counter() - began},
            "steps": went.steps,
            "ended": went.ended,
            **({"best_step": best["step"]} if best is not None else {}),
        }
        write_json(path / run_folder.METRICS, found)
        tidy(path)
        return found

    found = processes.on_main(finish)
    result.model = run.model
    result.after, result.reliability, result.seconds = found["after"], found["reliability"], found["seconds"]
    return result


def _go(
    course: Course, start: Start, run: Prepared, method: RewardMethod, console: Console | None
) -> tuple[Outcome, dict[str, Any] | None]:
    """Train; and the best evaluation, where its weights were wanted and are those that the model has."""
    from nearfar.training.evaluating import Evaluator
    from nearfar.training.guard import Guard, write_last_good
    from nearfar.training.loading import Loader
    from nearfar.training.loop import go

    settings, evaluator = run.settings, None
    wants_best = settings.keep_best or settings.early_stop is not None
    if run.evaluation_tokens is not None:
        evaluator = Evaluator(
            method,
            run.evaluation_tokens,
            method=method,
            folder=course.checkpoints,
            main=MAIN,
            patience=settings.early_stop,
            record=lambda step, measures: start.metrics.append({"step": step, "evaluation": measures}),
            judge=lambda trained, rows: judge_rewards(trained.scorer.model, rows, seed=settings.seed),
            seed=settings.seed,
            keep=wants_best,
        )
        evaluator.resume(start.history(MAIN))
    batches = RewardBatches(run.tokens, run.treated, run.extra, chunk_size=settings.chunk_size, seed=settings.seed)

    def write(good: Path) -> None:
        write_trained(run.model, run.tokenizer, good, adapter=settings.lora)

    guard = Guard(
        max_norm=settings.max_gradient_norm or None,
        on_failure=lambda step, report: write_last_good(course.folder, report, write),
        describe=lambda row: plain(run.data[int(run.tokens.index[row])].prompt),
    )
    loader: Any = batches
    went = go(
        course,
        start,
        method,
        Loader(loader, run.batches, workers=settings.workers),
        guard=guard,
        evaluator=evaluator,
        look=lambda trained, loss, warmed_up=True: None,
        console=console,
    )
    best = evaluator.load_best() if evaluator is not None and wants_best and not went.interrupted else None
    return went, best


def _course(path: Path, run: Prepared) -> Course:
    from nearfar.training.loop import Course

    settings, resolved = run.settings, run.resolved
    return Course(
        folder=path,
        run=run.run,
        steps=resolved["steps"],
        batch_size=run.batches.batch_size,
        learning_rate=resolved["learning_rate"],
        warmup_steps=resolved["warmup_steps"],
        schedule=settings.schedule,
        weight_decay=settings.weight_decay,
        precision=settings.precision,
        seed=settings.seed,
        log_every=resolved["log_every"],
        evaluate_every=resolved["evaluate_every"],
        checkpoint_every=settings.checkpoint_every,
        device=run.device,
        unused_parameters=False,
        tensorboard=settings.tensorboard,
    )


def _judge(run: Prepared) -> Evaluation | None:
    if run.evaluation_tokens is None:
        return None
    return judge_rewards(run.model, run.evaluation_tokens, seed=run.settings.seed)


def _before(path: Path, run: Prepared) -> Measures:
    known = json.loads((path / run_folder.METRICS).read_text(encoding="utf-8"))
    if "before" in known:
        found: Measures = known["before"]
        return found
    judged = _judge(run)
    found = {} if judged is None else judged.to_dict()
    write_json(path / run_folder.METRICS, {"before": found})
    return found


def _create(path: Path, run: Prepared, command: Sequence[str] | None) -> None:
    begin(
        path,
        run.settings,
        resolved=run.resolved,
        data=run.fingerprints,
        check=run.check,
        weights=sum(each.numel() * each.element_size() for each in run.model.parameters() if each.requires_grad),
        command=command,
        kind="reward model",
        tokens=run.tokens.counts,
    )


def _finished(path: Path) -> RewardRun | None:
    known = metrics_of_complete(path)
    if known is None:
        return None
    return RewardRun(
        folder=path,
        steps=known["steps"],
        ended=known["ended"],
        before=known["before"],
        after=known["after"],
        reliability=known["reliability"],
        seconds=known["seconds"],
    )
