"""One training run after the other on one bench: the same encoder, tokens and batches for every entry.

What :func:`nearfar.training.train` does for one run is done here once for all of them: the data are checked, the
encoder is made and the texts are tokenised. Then every run puts the encoder back to where it began and calls the same
training (:func:`nearfar.training.fit.fit`).
"""

from __future__ import annotations

import json
import math
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nearfar.compare import costs
from nearfar.compare.entries import Entry
from nearfar.compare.judging import Judge
from nearfar.compare.settings import LEAST_STEPS, SEARCH_SEED, Budget, CompareSettings
from nearfar.compare.splitting import Parts
from nearfar.errors import ModelError, TrainingError, UsageError
from nearfar.evaluation import Evaluation
from nearfar.negatives import Batches
from nearfar.objectives import Objective, ProxyObjective
from nearfar.training import TrainingSettings
from nearfar.training import prepare as preparing
from nearfar.training.checked import NOT_OF_THE_RUN
from nearfar.training.seeding import seed_everything
from nearfar.training.shapes import check_fit

_TIMED_STEPS = (4, 16)
_TIMED_ROUNDS = 2
_TIMED_LONGEST = 60.0
_LOGS = 10
_UNUSABLE = (TrainingError, UsageError, ModelError)
"""What a run of settings that diverge may raise; ModelError: for embeddings that are not finite."""


@dataclass
class Done:
    """What a run left: of every run its place and settings, of a final run the figures on the test part as well.

    ``phase``: "search" or "final"; ``validation``: the best value of the measure; ``curve``: ``[step, value]`` of each
    evaluation; ``measures``: all means on the test part; ``items``: each item's value there; ``error``: why a run of
    the search could not be used; ``warnings``: what it said about itself, each once.
    """

    entry: str
    phase: str
    seed: int
    options: dict[str, float]
    steps: int
    seconds: float = 0.0
    validation: float | None = None
    best_step: int | None = None
    curve: list[list[float]] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    items: npt.NDArray[np.float64] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the items."""
        return {name: value for name, value in asdict(self).items() if name != "items"}


class Bench:
    """Everything that the runs of a comparison share.

    Raises what preparing a run raises, for every entry, before any of them is run: :class:`UsageError` for an
    objective that does not fit the data, :class:`~nearfar.errors.DataError`, :class:`~nearfar.errors.ModelError`.
    """

    def __init__(self, settings: CompareSettings, entries: tuple[Entry, ...], parts: Parts, judge: Judge) -> None:
        from nearfar.encoders.sentence_modules import dimension_of, is_static

        self.settings, self.entries, self.parts, self.judge = settings, entries, parts, judge
        hard = len(parts.training.negatives)
        for entry in entries:
            check_fit(entry.make(), parts.training.shape, hard_negatives=hard)
        stand_in = "cosent" if parts.training.shape == "scored pairs" else "info-nce"
        self.prepared = preparing.prepare(settings.base(objective=stand_in), parts.training, None)
        self.encoder = self.prepared.encoder
        for entry in entries:
            check_fit(entry.make(), parts.training.shape, hard_negatives=hard, encoder=self.encoder)
        self.static = is_static(self.encoder)
        self.dimension = dimension_of(self.encoder)
        self.new = self.prepared.settings.encoder == "static"
        self.evaluations = settings.evaluations or (4 if self.static else 1)
        self._initial: tuple[int, dict[str, torch.Tensor]] = (0, _copied(self.encoder.state_dict()))
        self._batches: dict[int, Batches] = {0: self.prepared.batches}

    @property
    def rate(self) -> float:
        """The encoder's default learning rate."""
        return self.prepared.resolved.learning_rate

    def begin(self, seed: int) -> None:
        """Put the encoder to where the runs of ``seed`` begin: a new one's vectors are drawn by it, a pretrained one is
        as it was loaded."""
        if self.new and self._initial[0] != seed:
            settings = replace(self.prepared.settings, seed=seed)
            self._initial = (seed, _copied(preparing.make_encoder(settings, self.parts.training).state_dict()))
        self.encoder.load_state_dict(self._initial[1])
        self.encoder.eval()

    def untrained(self) -> tuple[Evaluation, Evaluation]:
        """The encoder as seed 0 finds it, on validation and test part."""
        self.begin(0)
        return self.judge(self.encoder, self.parts.validation), self.judge(self.encoder, self.parts.test)

    def costs(self) -> dict[str, float | None]:
        """Estimated seconds of a step of each entry on a whole batch; None where none could be made
        (:mod:`nearfar.compare.costs`). The lower one of two rounds in which all take turns: what disturbs a few steps
        of one entry, where the growth is carried on, would otherwise be taken for a cost many times as high."""
        from nearfar.training.fit import method_of

        shared: list[costs.Cost | None] = []
        own: dict[str, list[costs.Cost | None]] = {name: [] for name in self._names()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # runs will say it
            for turn in range(_TIMED_ROUNDS):
                for entry in self.entries:
                    run = self._prepared(entry, SEARCH_SEED, {}, 1, judged=False)
                    rows = run.batches.plan(0)[0]
                    method = method_of(run).to(self.encoder.device).train()
                    if len(shared) == turn:
                        shared.append(costs.of_encoder(run, method, rows))
                    own[entry.name].append(costs.of_objective(run, method, rows, self.dimension))
        self.encoder.eval()
        encoder = costs.lowest(shared)
        objectives = {name: costs.lowest(found) for name, found in own.items()}
        return {
            name: None if seconds is None or encoder is None else encoder + seconds
            for name, seconds in objectives.items()
        }

    def steps(self, folder: Path, estimated: Mapping[str, float | None]) -> dict[str, int]:
        """The steps of each entry's runs by the budget; seconds are turned into steps by what a step of each takes
        (``estimated``: :meth:`costs`)."""
        if self.settings.budget is None:
            return dict.fromkeys(self._names(), self.prepared.resolved.steps)
        budget = Budget.parse(self.settings.budget)
        if budget.unit == "steps":
            return dict.fromkeys(self._names(), int(budget.amount))
        if budget.unit == "epochs":
            steps = max(1, math.ceil(budget.amount * self.prepared.resolved.batches_per_epoch))
            return dict.fromkeys(self._names(), steps)
        shutil.rmtree(folder, ignore_errors=True)  # what a killed call left would be taken up again instead of timed
        took = self._seconds(folder, estimated, max(_TIMED_LONGEST, budget.amount))
        return {name: max(LEAST_STEPS, int(budget.amount / seconds)) for name, seconds in took.items()}

    @property
    def in_seconds(self) -> bool:
        """Whether the budget is one of time."""
        return self.settings.budget is not None and Budget.parse(self.settings.budget).unit == "seconds"

    def _names(self) -> list[str]:
        return [entry.name for entry in self.entries]

    def _seconds(self, folder: Path, estimated: Mapping[str, float | None], longest: float) -> dict[str, float]:
        """Seconds of a step of each entry, by the difference of a longer and a shorter run, the quicker ones of two
        rounds in which all take turns; at least half of what was estimated, as noise may leave no difference.

        Of an entry whose timed steps would take more than ``longest`` seconds, and of one that diverges meanwhile, the
        estimate (inf where there is none); the search will say of the latter what became of it.
        """
        few, many = _TIMED_STEPS
        known = {name: estimated.get(name) for name in self._names()}
        quickest: dict[str, tuple[float, float]] = {
            name: (math.inf, math.inf)
            for name, seconds in known.items()
            if _TIMED_ROUNDS * (few + many) * (seconds or 0.0) <= longest
        }
        for _ in range(_TIMED_ROUNDS):
            for entry in self.entries:
                if entry.name in quickest:
                    took = self._timed(entry, folder)
                    if took is None:
                        del quickest[entry.name]
                    else:
                        short, long = quickest[entry.name]
                        quickest[entry.name] = min(short, took[0]), min(long, took[1])
        found = {name: math.inf if seconds is None else seconds for name, seconds in known.items()}
        for name, (short, long) in quickest.items():
            found[name] = max((long - short) / (many - few), 0.5 * (known[name] or 0.0), 1e-5)
        return found

    def _timed(self, entry: Entry, folder: Path) -> tuple[float, float] | None:
        """Seconds of a shorter and of a longer run; None where one of them diverges."""
        took: list[float] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for steps in _TIMED_STEPS:
                    took.append(self._fit(entry, SEARCH_SEED, {}, steps, folder, judged=False)[0].seconds)
            except _UNUSABLE as error:
                if isinstance(error, ComparisonInterruptedError):
                    raise
                shutil.rmtree(folder, ignore_errors=True)
                return None
        return took[0], took[1]

    def search(self, entry: Entry, options: Mapping[str, float], steps: int, folder: Path) -> Done:
        """A run with these options on the search seed, judged on the validation part. A run that diverges says so."""
        done = Done(entry.name, "search", SEARCH_SEED, dict(options), steps)
        try:
            return self._run(done, entry, folder)
        except _UNUSABLE as error:
            if isinstance(error, ComparisonInterruptedError):
                raise
            done.error = error.message
            shutil.rmtree(folder, ignore_errors=True)
            return done

    def final(self, entry: Entry, options: Mapping[str, float], seed: int, steps: int, folder: Path) -> Done:
        """A run whose weights, the best on the validation part, are asked the test part: once.

        Raises :class:`TrainingError` when it diverges.
        """
        done = self._run(Done(entry.name, "final", seed, dict(options), steps), entry, folder)
        found = self.judge(self.encoder, self.parts.test)
        done.measures = {name: measure.value for name, measure in found.measures.items()}
        done.items = np.asarray(found.per_item[self.judge.measure], np.float64)
        return done

    def _run(self, done: Done, entry: Entry, folder: Path) -> Done:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted, lines = self._fit(
                entry, done.seed, done.options, done.steps, folder, judged=True, keep=done.phase == "final"
            )
        done.warnings = _told(caught)
        done.seconds = fitted.seconds
        measure = self.judge.measure
        for line in lines:
            if "evaluation" in line:
                done.curve.append([line["step"], line["evaluation"][measure]["value"]])
        if fitted.best is not None:
            done.best_step = int(fitted.best["step"])
            done.validation = float(fitted.best["measures"][measure]["value"])
        return done

    def _fit(
        self,
        entry: Entry,
        seed: int,
        options: Mapping[str, float],
        steps: int,
        folder: Path,
        *,
        judged: bool,
        keep: bool = False,
    ) -> tuple[Any, list[dict[str, Any]]]:
        from nearfar.training import folder as run_folder
        from nearfar.training.fit import fit

        folder.mkdir(parents=True, exist_ok=True)
        run = self._prepared(entry, seed, options, steps, judged)
        try:
            fitted = fit(folder, run, main=self.judge.measure if judged else None, console=None, keep=keep)
        except TrainingError as error:
            told = ", ".join(f"{name} {value:g}" for name, value in options.items())
            raise TrainingError(
                error.message, where=f"{entry.name}, seed {seed}" + (f", {told}" if told else "")
            ) from error
        if fitted.interrupted:
            raise ComparisonInterruptedError(fitted.ended)
        text = (folder / run_folder.LINES).read_text(encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        self.encoder.eval()
        return fitted, [json.loads(line) for line in text.splitlines()]

    def _prepared(
        self, entry: Entry, seed: int, options: Mapping[str, float], steps: int, judged: bool
    ) -> preparing.Prepared:
        temperature = {"temperature": options["temperature"]} if "temperature" in options else {}
        rate = options.get("learning_rate", entry.learning_rate or self.rate)
        settings = replace(self.prepared.settings, seed=seed, steps=steps, epochs=None, learning_rate=rate)
        resolved = replace(
            self.prepared.resolved,
            steps=steps,
            learning_rate=rate,
            objective_learning_rate=settings.objective_learning_rate or max(rate, 1e-3),
            warmup_steps=round(settings.warmup * steps),
            evaluate_every=math.ceil(steps / self.evaluations),
            log_every=max(1, steps // _LOGS),
        )
        return replace(
            self.prepared,
            settings=settings,
            objective=self._objective(entry, seed, temperature),
            batches=self._batches_of(settings),
            resolved=resolved,
            evaluation=self.parts.validation if judged else None,
            judge=self.judge,
        )

    def _objective(self, entry: Entry, seed: int, temperature: dict[str, float]) -> Objective:
        self.begin(seed)
        seed_everything(seed)
        objective = entry.make(**temperature, **entry.makes_vectors_of(self.dimension))
        if isinstance(objective, ProxyObjective):
            preparing.make_proxies(objective, self.parts.training, self.dimension, seed)
        return objective

    def _batches_of(self, settings: TrainingSettings) -> Batches:
        """The batches of a seed: they follow from data and seed, whatever the objective."""
        if settings.seed not in self._batches:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # preparing has said already what there is to say
                self._batches = {
                    settings.seed: preparing.make_batches(
                        settings, self.parts.training, self.prepared.objective, self.prepared.resolved.batch_size
                    )
                }
        batches = self._batches[settings.seed]
        batches.set_epoch(0)
        return batches


class ComparisonInterruptedError(TrainingError):
    """A signal asked for an end."""

    def __init__(self, ended: str) -> None:
        super().__init__(f"the comparison was interrupted ({ended})", hint="the same command goes on from there")


def options_text(options: Mapping[str, float]) -> str:
    """``temperature 0.05, learning rate 0.01``."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in options.items()) or "defaults"


def _told(caught: list[warnings.WarningMessage]) -> list[str]:
    """The warnings that are nearfar's own, without the step they name, each kind once."""
    found: dict[str, str] = {}
    for each in caught:
        if issubclass(each.category, UserWarning) and "nearfar" in each.filename:
            text = re.sub(r"^step [\d,]+: ", "", str(each.message))
            found.setdefault(" ".join(text.split()[:4]), text)
    return list(found.values())


def _copied(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def settings_digest(settings: TrainingSettings) -> dict[str, Any]:
    """What of the training settings decides a run's weights."""
    return {name: value for name, value in settings.to_dict().items() if name not in NOT_OF_THE_RUN}
