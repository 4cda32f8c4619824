"""``nearfar evaluate``: a model's measures on data of any shape, or on several suites, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError


@app.command("evaluate")
def evaluate(
    model: options.Model,
    path: Annotated[Path | None, typer.Argument(help="Pairs, scored pairs, labelled texts, or a BEIR folder.")] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="KIND=FILE, may be repeated: similarity, pairs, retrieval, classification, clustering, few-shot; "
            "or general, without a file.",
        ),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Examples of each label in few-shot suites.")] = 8,
    train: Annotated[Path | None, typer.Option("--train", help="Labelled texts to learn the classifiers from.")] = None,
    baseline: Annotated[
        list[str] | None, typer.Option("--baseline", help="bm25, or another model; may be repeated.")
    ] = None,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    batch_size: options.BatchSize = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals and folds.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Evaluate a model: similarity, retrieval or classification, by the shape of the data, with 95 % intervals.

    Examples:

    `nearfar evaluate runs/mine dev.jsonl --baseline bm25`

    `nearfar evaluate minilm stsb-dev.tsv --columns score=score_0_5 --json`

    `nearfar evaluate runs/mine --suite similarity=stsb.tsv --suite few-shot=intents.csv --suite general
    --baseline minilm`
    """
    from nearfar import encoders, evaluation
    from nearfar.cli.data import read_any

    if suite:
        if path is not None or train is not None:
            raise UsageError("data were given beside suites", hint="give each as --suite KIND=FILE")
        evaluate_suites(model, suite, baseline or [], shots, columns, max_bad_rows, batch_size, seed, as_json)
        return
    if path is None:
        raise UsageError("there is nothing to evaluate on", hint="name a file, or suites: --suite similarity=FILE")
    data = read_any(path, columns=columns, max_bad_rows=max_bad_rows)
    learnt = None if train is None else read_any(train, columns=columns, max_bad_rows=max_bad_rows)
    if not as_json:
        console.note(data.describe())
    found: dict[str, Any] = {}
    calibrations: dict[str, Any] = {}
    for name in [model, *(baseline or [])]:
        if name.lower() == "bm25":
            found["bm25"] = evaluation.bm25(data, seed=seed)
        else:
            encoder = encoders.load(options.model_folder(name))
            calibrations[name] = encoders.calibration_of(encoder)
            found[name] = evaluation.evaluate(encoder, data, batch_size=batch_size, train=learnt, seed=seed)
            found[name].measures.update(_classified(name, encoder, data, batch_size, seed))
    if as_json:
        console.emit_json(
            {
                name: {"main": result.main, "measures": result.to_dict(), **_calibration(calibrations.get(name))}
                for name, result in found.items()
            }
        )
        return
    rows = [
        (measure.name, name, f"{measure.value:.4f}", f"[{measure.low:.4f}, {measure.high:.4f}]", f"{measure.n:,}")
        for key in found[model].measures
        for name, result in found.items()
        if (measure := result.measures.get(key)) is not None
    ]
    console.out.print(console.table(["measure", "model", "value", "95 % interval", "of"], rows, right=[2, 4]))
    _show_calibrations(calibrations)


def _classified(name: str, encoder: Any, data: Any, batch_size: int | None, seed: int) -> dict[str, Any]:
    """The measures of the classifier that was saved with the model, where there is one and texts have labels."""
    from nearfar.encoders.classifier_files import FOLDER, read_classifier
    from nearfar.evaluation.classified import classifier_measures

    place = Path(options.model_folder(name)) / FOLDER
    if not place.is_dir() or getattr(data, "shape", "") not in ("labelled texts", "domains"):
        return {}
    head, _, normalize = read_classifier(place)
    return classifier_measures(encoder, head, data, normalize=normalize, batch_size=batch_size, seed=seed)


def evaluate_suites(
    model: str,
    suites: list[str],
    baselines: list[str],
    shots: int,
    columns: str | None,
    max_bad_rows: int,
    batch_size: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Every suite of every model in one table."""
    from nearfar import encoders
    from nearfar.evaluation.suites import read_suites, run_suites

    if any(name.lower() == "bm25" for name in baselines):
        raise UsageError("bm25 ranks and does nothing else, so it runs no suites", where="--baseline bm25")
    read = read_suites(suites, columns=columns, max_bad_rows=max_bad_rows)
    found: dict[str, Any] = {}
    calibrations: dict[str, Any] = {}
    for name in dict.fromkeys([model, *baselines]):
        encoder = encoders.load(options.model_folder(name))
        calibrations[name] = encoders.calibration_of(encoder)
        found[name] = run_suites(encoder, read, shots=shots, batch_size=batch_size, seed=seed)
    if as_json:
        console.emit_json(
            {
                name: {
                    "suites": [
                        {
                            "suite": each.kind,
                            "data": each.name,
                            "main": each.evaluation.main,
                            "measures": each.evaluation.to_dict(),
                        }
                        for each in results
                    ],
                    **_calibration(calibrations[name]),
                }
                for name, results in found.items()
            }
        )
        return
    rows = []
    for number, first in enumerate(found[model]):
        for key in first.shown:
            measures = [results[number].evaluation.measures[key] for results in found.values()]
            cells = [f"{each.value:.4f} [{each.low:.4f}, {each.high:.4f}]" for each in measures]
            rows.append((first.kind, first.name, key, *cells, f"{measures[0].n:,}"))
    titles = ["suite", "data", "measure", *(f"{name}, 95 %" for name in found), "of"]
    console.out.print(console.table(titles, rows, right=[len(titles) - 1]))
    _show_calibrations(calibrations)


def _calibration(found: Any) -> dict[str, Any]:
    return {} if found is None else {"calibration": found.to_dict()}


def _show_calibrations(calibrations: dict[str, Any]) -> None:
    for name, found in calibrations.items():
        if found is not None:
            console.out.print(f"{name}: {found}", markup=False, style="dim", soft_wrap=True)
