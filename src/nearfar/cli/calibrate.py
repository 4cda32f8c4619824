"""``nearfar calibrate``: from which similarity on two texts are near, kept with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import DataError, UsageError


@app.command("calibrate")
def calibrate(
    model: options.Model,
    path: Annotated[Path, typer.Argument(help="Pairs with a score of 1 or 0, or pairs with negatives.")],
    precision: Annotated[float | None, typer.Option(help="Share of pairs taken as near that must be near.")] = None,
    false_positive_rate: Annotated[
        float | None, typer.Option(help="Share of far pairs that may be taken as near.")
    ] = None,
    at_least: Annotated[float | None, typer.Option(help="Pairs with this score or more are near.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save a copy of the model with it, instead of in its folder.")
    ] = None,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    batch_size: options.BatchSize = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Find the similarity threshold for a wanted precision or false-positive rate on labelled pairs, and keep it.

    The threshold and what new pairs will show come with 95 % intervals. It is written into the model's folder
    (calibration.json), read with the model, and shown by `nearfar evaluate` and `nearfar search`.

    Examples:

    `nearfar calibrate runs/mine pairs.jsonl --precision 0.95`

    `nearfar calibrate minilm stsb-dev.tsv --columns score=score_0_5 --at-least 4 --false-positive-rate 0.01
    --output minilm-calibrated`
    """
    from nearfar import data, encoders, evaluation
    from nearfar.cli.data import read_any
    from nearfar.encoders.calibration import FILE, write_calibration

    folder = Path(options.model_folder(model))
    if output is None and not folder.is_dir():
        raise UsageError(
            f"{model} is no folder that a calibration could be kept in",
            where="--output",
            hint=f"save a copy: nearfar calibrate {model} {path} --output FOLDER",
        )
    examples = read_any(path, columns=columns, max_bad_rows=max_bad_rows)
    if not isinstance(examples, data.Examples):
        raise DataError("a retrieval set holds no labelled pairs", where=str(path))
    encoder = encoders.load(str(folder) if folder.is_dir() else model)
    found = evaluation.calibrate_encoder(
        encoder,
        examples,
        precision=precision,
        false_positive_rate=false_positive_rate,
        at_least=at_least,
        batch_size=batch_size,
        seed=seed,
    )
    place = folder if output is None else output
    if output is None:
        write_calibration(encoder, folder)
    else:
        encoders.save(encoder, output, overwrite=overwrite)
    if as_json:
        console.emit_json({"model": str(place), **found.to_dict()})
        return
    console.out.print(f"near from a cosine of {found.threshold:.4f} on", markup=False)
    console.out.print(f"95 % interval of the threshold: [{found.low:.4f}, {found.high:.4f}]", markup=False)
    rows = []
    for name, here in found.here.items():
        each = found.expected[name]
        wanted = f"{found.target:g}" if name == found.wanted else ""
        new = f"{each['value']:.4f} [{each['low']:.4f}, {each['high']:.4f}]"
        rows.append((name.replace("_", " "), wanted, f"{here:.4f}", new))
    columns_shown = ["", "wanted", f"on these {found.pairs:,} pairs", "on new pairs, 95 %"]
    console.out.print(console.table(columns_shown, rows, right=[1, 2]))
    console.out.print(f"\n{place / FILE}", markup=False, style="dim", soft_wrap=True)
