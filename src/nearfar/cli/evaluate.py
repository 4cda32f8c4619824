"""``nearfar evaluate``: a model's measures on data of any shape, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app


@app.command("evaluate")
def evaluate(
    model: options.Model,
    path: Annotated[Path, typer.Argument(help="Pairs, scored pairs, labelled texts, or a BEIR folder.")],
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
    """
    from nearfar import encoders, evaluation
    from nearfar.cli.data import read_any

    data = read_any(path, columns=columns, max_bad_rows=max_bad_rows)
    learnt = None if train is None else read_any(train, columns=columns, max_bad_rows=max_bad_rows)
    if not as_json:
        console.note(data.describe())
    found: dict[str, Any] = {}
    for name in [model, *(baseline or [])]:
        if name.lower() == "bm25":
            found["bm25"] = evaluation.bm25(data, seed=seed)
        else:
            encoder = encoders.load(options.model_folder(name))
            found[name] = evaluation.evaluate(encoder, data, batch_size=batch_size, train=learnt, seed=seed)
    if as_json:
        console.emit_json({name: {"main": result.main, "measures": result.to_dict()} for name, result in found.items()})
        return
    rows = [
        (measure.name, name, f"{measure.value:.4f}", f"[{measure.low:.4f}, {measure.high:.4f}]", f"{measure.n:,}")
        for key in found[model].measures
        for name, result in found.items()
        if (measure := result.measures.get(key)) is not None
    ]
    console.out.print(console.table(["measure", "model", "value", "95 % interval", "of"], rows, right=[2, 4]))
