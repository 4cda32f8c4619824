"""Which objective is best on these data, or that none is: :func:`compare`."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.compare import costs
from nearfar.compare.entries import Entry, parse_entries
from nearfar.compare.judging import Judge
from nearfar.compare.progress import Progress
from nearfar.compare.runs import Bench, Done, settings_digest
from nearfar.compare.search import Search
from nearfar.compare.settings import CompareSettings, paths
from nearfar.compare.splitting import Parts, split
from nearfar.compare.store import Store
from nearfar.compare.verdict import Verdict
from nearfar.errors import MissingExtraError, OutputError, UsageError
from nearfar.evaluation.comparison import Difference
from nearfar.files import atomic_folder, write_json
from nearfar.locking import only_one
from nearfar.training.running import speaker

if TYPE_CHECKING:
    import os

    from rich.console import Console

    from nearfar.data import Examples, RetrievalSet

CONFIG, RESULTS, ITEMS = "config.json", "results.json", "items.npz"


@dataclass
class Comparison:
    """What a comparison found.

    Attributes:
        folder: where it lies.
        names, seeds: of the entries and runs; ``values [entries, seeds, items]``: the measure of every item.
        differences: to the reference, in the order of the entries; ``pairs``: of every two entries.
        verdict: in words.
        results: all of it, as in results.json.
    """

    folder: Path
    names: list[str]
    seeds: list[int]
    measure: str
    values: npt.NDArray[np.float64]
    differences: list[Difference]
    pairs: list[Difference]
    verdict: Verdict
    results: dict[str, Any] = field(repr=False)


def compare(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Examples,
    objectives: str | Sequence[str | Entry],
    *,
    recipes: str | Sequence[str | Entry] = (),
    output: str | os.PathLike[str],
    dev: str | os.PathLike[str] | Examples | RetrievalSet | None = None,
    test: str | os.PathLike[str] | Examples | RetrievalSet | None = None,
    seeds: int = 5,
    budget: str | int | None = None,
    reference: str | None = None,
    measure: str | None = None,
    search: bool = True,
    evaluations: int | None = None,
    split_seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
    command: Sequence[str] | None = None,
    **training: Any,
) -> Comparison:
    """Compare objectives fairly on one's own data, and write the folder ``output``.

    Every entry gets the same three parts of the data, by seed the same initialisation and the same batches, the same
    budget and a search by the same rule, which sees the validation part alone. The final runs are asked the test part
    once each, and the verdict follows from :mod:`nearfar.evaluation.comparison`.

    Args:
        data: what to train on: a path or several (:func:`nearfar.data.read`), or examples.
        objectives, recipes: the entries, see :mod:`nearfar.compare.entries`.
        dev, test: paths or data instead of parts cut from ``data``.
        console: where progress is shown (a ``rich`` console); None: silent. command: kept in config.json.
        training: settings of :class:`nearfar.training.TrainingSettings`: ``encoder``, ``batch_size``, ...

    Everything else: :class:`~nearfar.compare.settings.CompareSettings`.

    The folder holds config.json, results.json, items.npz (``values``, ``entries``, ``seeds``), data-check.json,
    versions.json and report.html (with plotly); it appears when everything is done. What is finished meanwhile lies
    beside it, hidden, so that the same call goes on after an interrupt or a kill.

    Raises :class:`~nearfar.errors.UsageError`, :class:`~nearfar.errors.DataError` and
    :class:`~nearfar.errors.OutputError` before anything is trained; :class:`~nearfar.errors.TrainingError` when a final
    run diverges, all runs of a search do, or a signal asks for an end.
    """
    from nearfar.compare.results import assemble
    from nearfar.data import Examples, RetrievalSet

    began = time.perf_counter()
    given = {"training": data, "dev": dev, "test": test}
    ready = {name: value for name, value in given.items() if isinstance(value, (Examples, RetrievalSet))}
    settings = CompareSettings(
        data=None if "training" in ready else paths(data),  # type: ignore[arg-type]
        output=str(output),
        dev=None if "dev" in ready else dev,  # type: ignore[arg-type]
        test=None if "test" in ready else test,  # type: ignore[arg-type]
        split_seed=split_seed,
        seeds=seeds,
        budget=budget,
        reference=reference,
        measure=measure,
        search=search,
        evaluations=evaluations,
        training=training,
        overwrite=overwrite,
    )
    entries = parse_entries(objectives, recipes)
    chosen = reference if reference is not None else entries[0].name
    if chosen not in [entry.name for entry in entries]:
        names = ", ".join(entry.name for entry in entries)
        raise UsageError(
            f"there is no entry {chosen!r} to compare with", where="--reference", hint=f"choose from {names}"
        )
    folder = Path(settings.output)
    _check_output(folder, overwrite)
    say = speaker(console)
    parts = _parts(settings, ready, say)
    judge = Judge.of(measure, parts.training, parts.validation, parts.test, split_seed)
    bench = Bench(settings, entries, parts, judge)
    if bench.prepared.check.findings:
        say(bench.prepared.check.text())
    store = Store(folder, _plan(settings, entries, parts, judge, bench), overwrite=overwrite)
    with only_one(store.lock, "comparing into this folder"):
        store.open()
        if store.found:
            say(f"{store.found} finished runs are there already and are not made again")
        untrained, plans, notes, searched, final = _run_all(bench, store, console)
        comparison = assemble(
            folder=folder,
            bench=bench,
            reference=chosen,
            untrained=untrained,
            plans=plans,
            notes=notes,
            searched=searched,
            final=final,
            seconds=time.perf_counter() - began,
        )
        _write(comparison, settings, bench, parts, command, say)
        store.remove()
    return comparison


def _parts(settings: CompareSettings, ready: Mapping[str, Any], say: Callable[[str], None]) -> Parts:
    from nearfar.training.prepare import read

    def evaluated(name: str, path: str | None, examples: Any) -> Any:
        return ready[name] if name in ready else read(settings.base(evaluate=path), examples, None)[1] if path else None

    examples = ready.get("training")
    if examples is None:
        examples, _ = read(settings.base(data=settings.data), None, None)
    say(examples.describe())
    parts = split(
        examples,
        validation=evaluated("dev", settings.dev, examples),
        test=evaluated("test", settings.test, examples),
        seed=settings.split_seed,
    )
    for note in parts.notes:
        say(f"note: {note}")
    sizes = parts.sizes()
    say(
        f"{sizes['training']:,} rows to train on, {sizes['validation']:,} to choose by, "
        f"{sizes['test']:,} to be asked at the end"
    )
    return parts


def _plan(
    settings: CompareSettings, entries: Sequence[Entry], parts: Parts, judge: Judge, bench: Bench
) -> dict[str, Any]:
    """Everything that decides a result."""
    from nearfar.training.folder import versions

    found = versions()
    return {
        "versions": {name: found.get(name) for name in ("nearfar", "torch", "transformers", "numpy")},
        "entries": [entry.to_dict() for entry in entries],
        "recipe files": {entry.target: digest for entry in entries if (digest := entry.digest()) is not None},
        "budget": settings.budget,
        "search": settings.search,
        "seeds": settings.seeds,
        "measure": judge.measure,
        "evaluations": bench.evaluations,
        "training": settings_digest(settings.base()),
        "data": parts.to_dict(),
        "memory": None if judge.memory is None else judge.memory.sha256(),
    }


def _run_all(
    bench: Bench, store: Store, console: Console | None
) -> tuple[dict[str, Any], list[costs.Plan], list[str], list[Done], list[Done]]:
    def look() -> dict[str, Any]:
        on_validation, on_test = bench.untrained()
        return {
            "validation": on_validation.measures[bench.judge.measure].value,
            "test": {name: measure.value for name, measure in on_test.measures.items()},
        }

    untrained = store.value("untrained", look)
    searches = [Search.of(entry, bench) for entry in bench.entries]
    plans, notes = _planned(bench, store, searches, speaker(console))
    steps = {plan.name: plan.steps for plan in plans}
    total = sum(plan.runs for plan in plans)
    best: dict[str, dict[str, float]] = {}
    searched: list[Done] = []
    final: list[Done] = []
    with Progress(console, total, bench.judge.measure) as progress, _settled_objects():
        for search in searches:
            best[search.entry.name] = search.run(bench, store, steps[search.entry.name], progress)
            searched += search.done
        for seed in range(bench.settings.seeds):
            for entry in bench.entries:
                key = {"phase": "final", "entry": entry.name, "seed": seed, "options": best[entry.name]}
                done, was_there = store.run(
                    key,
                    lambda folder, e=entry, s=seed: bench.final(e, best[e.name], s, steps[e.name], folder),  # type: ignore[misc]
                )
                progress.ran(done, f"seed {seed}", was_there)
                final.append(done)
    return untrained, plans, notes, searched, final


def _planned(
    bench: Bench, store: Store, searches: Sequence[Search], say: Callable[[str], None]
) -> tuple[list[costs.Plan], list[str]]:
    """What each entry is going to do and how long that takes, said and checked; and what is to be noted of it."""
    took = store.value("costs", bench.costs)
    steps = store.value("steps", lambda: bench.steps(store.training / "timing", took))
    plans = [
        costs.Plan(name, search.runs + bench.settings.seeds, int(steps[name]), took[name])
        for search in searches
        for name in [search.entry.name]
    ]
    for sentence in costs.told(plans):
        say(sentence)
    try:
        notes = costs.check(plans, batch_size=bench.prepared.resolved.batch_size, timed=bench.in_seconds)
    except UsageError:
        if not store.found:
            store.remove()  # the call that mends it is one with other settings
        raise
    for note in notes:
        say(f"note: {note}")
    return plans, notes


@contextmanager
def _settled_objects() -> Iterator[None]:
    """Everything that is there already is left alone by the garbage collector: after each run the trainer calls it, and
    it would look at all of that again, which takes longer than a short run."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def is_comparison(path: Path) -> bool:
    """Whether ``path`` is a folder that :func:`compare` wrote."""
    return (path / RESULTS).is_file() and (path / CONFIG).is_file() and (path / ITEMS).is_file()


def _check_output(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise OutputError(
            "the output exists already", where=str(path), hint="choose another folder, or pass --overwrite"
        )
    if not is_comparison(path) and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(
            "the output is not a folder of a comparison, so it is not overwritten",
            where=str(path),
            hint="choose another folder, or remove it yourself",
        )


def _write(
    comparison: Comparison,
    settings: CompareSettings,
    bench: Bench,
    parts: Parts,
    command: Sequence[str] | None,
    say: Callable[[str], None],
) -> None:
    from nearfar.report import comparison as pages
    from nearfar.training.folder import versions

    found = versions()
    config = {
        "nearfar": found["nearfar"],
        "command": list(command) if command is not None else None,
        "comparison": {name: value for name, value in settings.to_dict().items() if name != "overwrite"},
        "entries": [entry.to_dict() for entry in bench.entries],
        "training": bench.prepared.settings.to_dict(),
        "resolved": bench.prepared.resolved.to_dict(),
        "data": parts.to_dict(),
    }
    with atomic_folder(comparison.folder, overwrite=True) as place:
        write_json(place / CONFIG, config)
        write_json(place / RESULTS, comparison.results)
        write_json(place / "data-check.json", bench.prepared.check.to_dict())
        write_json(place / "versions.json", found)
        np.savez_compressed(
            place / ITEMS,
            values=comparison.values.astype(np.float32),
            entries=np.asarray(comparison.names),
            seeds=np.asarray(comparison.seeds),
        )
        try:
            pages.write(place)
        except MissingExtraError as error:
            say(f"no report: {error.message}; {error.hint}")
