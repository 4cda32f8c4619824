"""``nearfar encode``: embed a file of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app


@app.command("encode")
def encode(
    model: options.Model,
    source: Annotated[Path, typer.Argument(help="A file of texts: JSONL, CSV, TSV, Parquet, text, gzipped or not.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to: OUTPUT.npy and OUTPUT.json.")],
    column: Annotated[str | None, typer.Option("--column", help="The column with the texts.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, float16 or int8.")] = "float32",
    normalize: Annotated[bool, typer.Option(help="Scale embeddings to length 1.")] = True,
    batch_size: options.BatchSize = None,
    window: Annotated[int, typer.Option(min=1, help="Rows between two savings.")] = 50_000,
    resume: Annotated[bool, typer.Option(help="Go on with unfinished work of the same call.")] = True,
    max_bad_rows: options.MaxBadRows = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Embed every row of a file into a NumPy array on disk, in constant memory. Killed, the same call goes on.

    Example: `nearfar encode runs/mine texts.jsonl --output vectors --dtype float16`
    """
    from nearfar import encoders

    encoder = encoders.load(options.model_folder(model))
    with console.progress("encoding") as update:
        written = encoders.encode_file(
            encoder,
            source,
            output,
            column=column,
            batch_size=batch_size,
            window=window,
            dtype=dtype,
            normalize=normalize,
            resume=resume,
            overwrite=overwrite,
            max_bad_rows=max_bad_rows,
            progress=update,
        )
    if as_json:
        console.emit_json(
            {
                "path": str(written.path),
                "sidecar": str(written.sidecar),
                "rows": written.rows,
                "dimension": written.dimension,
                "dtype": written.dtype,
                "skipped_rows": written.skipped_rows,
            }
        )
        return
    console.out.print(
        f"{written.path}: {written.rows:,} x {written.dimension} {written.dtype}", markup=False, soft_wrap=True
    )
    if written.skipped_rows:
        console.warning(f"{written.skipped_rows:,} bad rows were skipped")
