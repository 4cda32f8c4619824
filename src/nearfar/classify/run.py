"""One call that classifies from a few examples: draws, tunes, compares, explains, and leaves a model in a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.classify import results as summing
from nearfar.classify.draws import Bench, Draw
from nearfar.classify.model import TextClassifier
from nearfar.classify.settings import ClassifySettings
from nearfar.compare.store import Store
from nearfar.data.few_shot import draw_per_label, hold_out_per_label, without_texts_of
from nearfar.errors import DataError, MissingExtraError, OutputError, UsageError
from nearfar.files import atomic_folder, write_json
from nearfar.locking import only_one
from nearfar.report.classification import is_classification
from nearfar.report.format import plural
from nearfar.training.running import speaker

if TYPE_CHECKING:
    from rich.console import Console

    from nearfar.data import Examples

CONFIG, RESULTS, MODEL = "config.json", "results.json", "model"


@dataclass
class Classified:
    """What :func:`classify` made: its ``folder``, the ``classifier`` of the first draw, and the ``results`` as JSON."""

    folder: Path
    classifier: TextClassifier
    results: dict[str, Any]


def classify(
    settings: ClassifySettings,
    *,
    examples: Examples | None = None,
    test: Examples | None = None,
    console: Console | None = None,
    command: Sequence[str] | None = None,
) -> Classified:
    """Learn to classify texts from a few examples of each label, and say how well that goes.

    Several times (``draws``) a few examples of each label are drawn (``shots``); the encoder is tuned on their pairs by
    regression of the cosine (SetFit; Tunstall et al., 2022), logistic regression is fitted to their embeddings, and the
    texts that were kept aside are asked. The same is done with the baselines.

    Args:
        examples, test: labelled texts that are in memory; by default what the settings name is read.
        console: where progress is shown (a ``rich`` console); None: silent.
        command: written to config.json, so that it says how the run was started.

    The folder ``settings.output`` holds model/ (the first draw's: a sentence-transformers folder with the classifier),
    results.json, config.json, versions.json and report.html (with plotly). Killed, the same call goes on where it was.

    Raises :class:`UsageError`, :class:`DataError`, :class:`~nearfar.errors.ModelError` for input that cannot be used,
    :class:`OutputError` when the folder exists (without ``overwrite``) or cannot be written, and
    :class:`~nearfar.errors.TrainingError` when training diverges or is interrupted.
    """
    began = perf_counter()
    if not settings.output:
        raise UsageError("there is no place to write the run to", where="--output", hint="name a folder")
    path = Path(settings.output)
    _check_output(path, overwrite=settings.overwrite)
    say = speaker(console)
    pool, asked, notes = _parts(settings, examples, test)
    labels = pool.labels()[1]
    plan = {
        "settings": {name: value for name, value in settings.to_dict().items() if name not in _NOT_OF_THE_RUN},
        "pool": pool.sha256(),
        "asked": asked.sha256(),
    }
    store = Store(path, plan, overwrite=settings.overwrite)
    with only_one(store.lock, "classifying into this folder"):
        store.open()
        say(f"{len(pool):,} labelled texts to draw from, {len(labels):,} labels; {len(asked):,} texts are asked")
        for note in notes:
            say(f"note: {note}")
        done = _draws(settings, store, pool, asked, labels, say)
        classifier = TextClassifier.load(store.path / MODEL, device=settings.device)
        truth = asked.labels(labels)[0]
        found = summing.summary(truth, [each.predicted for each in done], labels, seed=settings.seed)
        found["explanations"] = store.value(
            "explanations", lambda: {"texts": summing.explained(classifier, asked, settings, say)}
        )["texts"]
        found.update(
            shots=settings.shots,
            draws=len(done),
            examples=len(done[0].rows),
            asked=len(asked),
            labels=labels,
            notes=notes,
            steps=done[0].steps,
            seconds={name: sum(each.seconds[name] for each in done) for name in done[0].seconds},
        )
        found["seconds"]["total"] = perf_counter() - began
        _write(path, found, settings, plan, store, command)
        store.remove()
    return Classified(path, TextClassifier.load(path, device=settings.device), found)


_NOT_OF_THE_RUN = ("data", "test", "output", "overwrite", "device", "columns", "max_bad_rows")


def _parts(
    settings: ClassifySettings, examples: Examples | None, test: Examples | None
) -> tuple[Examples, Examples, list[str]]:
    """The pool to draw from, the texts to be asked, and what a reader should know of them."""
    from nearfar import data

    def read(paths: str | list[str]) -> Examples:
        return data.read(paths, columns=settings.columns, shapes=data.PLAIN_SHAPES, max_bad_rows=settings.max_bad_rows)

    if examples is None:
        if settings.data is None:
            raise UsageError("there is no data to learn from", hint="name a file of labelled texts")
        examples = read(settings.data)
    _require_labels(examples, "the examples")
    if test is None and settings.test is not None:
        test = read(settings.test)
    notes: list[str] = []
    if test is None:
        pool, test = hold_out_per_label(examples, settings.hold_out, seed=settings.seed)
    else:
        _require_labels(test, "the texts to be asked")
        pool = without_texts_of(examples, test)
        if len(pool) < len(examples):
            notes.append(f"{plural(len(examples) - len(pool), 'example')} left out, whose texts are asked")
    codes, labels = pool.labels()
    if len(labels) < 2:
        raise DataError("there are examples of one label only, so there is nothing to tell apart")
    test.labels(labels)  # one that cannot be learnt is said before anything is trained
    if settings.shots is not None:
        few = [f"{labels[code]} ({count})" for code, count in enumerate(np.bincount(codes)) if count < settings.shots]
        if few:
            shown = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
            notes.append(f"{plural(len(few), 'label')} with fewer than {settings.shots} examples: {shown}")
    return pool, test, notes


def _require_labels(examples: Examples, what: str) -> None:
    if examples.shape != "labelled texts":
        raise DataError(
            f"{what} are {examples.shape}, and classification needs labelled texts",
            hint="give columns text and label, or say which they are: --columns text=...,label=...",
        )


def _draws(
    settings: ClassifySettings,
    store: Store,
    pool: Examples,
    asked: Examples,
    labels: list[str],
    say: Callable[[str], None],
) -> list[Draw]:
    codes = pool.labels()[0]
    bench: Bench | None = None
    truth = asked.labels(labels)[0]
    done: list[Draw] = []
    for number in range(settings.draws):

        def make(number: int = number) -> dict[str, Any]:
            nonlocal bench
            if bench is None:  # a run that is complete but for its page needs no encoder
                bench = Bench(settings, _encoder(settings, pool), asked, labels)
            rows = (
                np.arange(len(pool))
                if settings.shots is None
                else draw_per_label(codes, settings.shots, seed=settings.seed, draw=number)
            )
            keep = store.path / MODEL if number == 0 else None
            return bench.draw(pool.select(rows), rows, number, store.training / str(number), keep).to_dict()

        draw = Draw(**store.value(f"draw-{number}", make))
        done.append(draw)
        shares = [f"{name} {np.mean(np.array(each) == truth):.3f}" for name, each in draw.predicted.items()]
        say(f"draw {number + 1} of {settings.draws}: accuracy of {', '.join(shares)}")
    return done


def _encoder(settings: ClassifySettings, pool: Examples) -> Any:
    from nearfar import encoders

    options: dict[str, Any] = {"texts": list(pool.texts())} if settings.encoder == "static" else {}
    return encoders.load(
        settings.encoder, seed=settings.seed, max_length=settings.max_length, device=settings.device, **options
    )


def _check_output(path: Path, *, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise OutputError(
            "the output exists already", where=str(path), hint="choose another folder, or pass --overwrite"
        )
    if not is_classification(path) and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(
            "the output is not a folder of a classification, so it is not overwritten",
            where=str(path),
            hint="choose another folder, or remove it yourself",
        )


def _write(
    path: Path,
    found: dict[str, Any],
    settings: ClassifySettings,
    plan: Mapping[str, Any],
    store: Store,
    command: Sequence[str] | None,
) -> None:
    from nearfar.report import classification as pages
    from nearfar.training.folder import versions

    known = versions()
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()
    config = {
        "nearfar": known["nearfar"],
        "command": list(command) if command is not None else None,
        "classification": {name: value for name, value in settings.to_dict().items() if name != "overwrite"},
        "data": {"pool": plan["pool"], "asked": plan["asked"]},
        "plan": digest,
    }
    with atomic_folder(path, overwrite=True) as place:
        shutil.copytree(store.path / MODEL, place / MODEL)
        write_json(place / CONFIG, config)
        write_json(place / RESULTS, found)
        write_json(place / "versions.json", known)
        with suppress(MissingExtraError):  # the figures are in results.json all the same
            pages.write(place, title=path.name)
