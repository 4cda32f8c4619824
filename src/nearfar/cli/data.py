"""``nearfar data check``: what was understood of a file, and what will spoil training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from nearfar.cli import console, options
from nearfar.cli.app import app

data_app = typer.Typer(help="Read and check data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


@data_app.command("check")
def check(
    path: Annotated[
        Path, typer.Argument(help="A file or folder: JSONL, CSV, TSV, Parquet, text, BEIR, saved data set.")
    ],
    evaluate: Annotated[Path | None, typer.Option("--evaluate", help="Evaluation data, to look for overlap.")] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Check lengths against this encoder's limit.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Expect false negatives at this size.")
    ] = None,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when there is a warning.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show what is understood of a file, and look for what spoils contrastive training.

    Examples:

    `nearfar data check pairs.jsonl --batch-size 1024`

    `nearfar data check train.csv --columns anchor=question,positive=answer --evaluate dev.csv`
    """
    from nearfar import data

    examples = read_any(path, columns=columns, max_bad_rows=max_bad_rows, more=True)
    if not isinstance(examples, data.Examples):
        if as_json:
            console.emit_json({"shape": "retrieval set", "description": examples.describe()})
        else:
            console.out.print(examples.describe(), markup=False)
        return
    evaluation: Any = None
    if evaluate is not None:
        evaluation = read_any(evaluate, columns=columns, max_bad_rows=max_bad_rows)
    lengths: dict[str, Any] = {}
    if encoder is not None:
        from nearfar import encoders

        model = encoders.load(options.model_folder(encoder))
        lengths = {"token_lengths": encoders.token_lengths(model), "token_limit": encoders.token_limit(model)}
    found = data.check(examples, batch_size=batch_size, evaluation=evaluation, **lengths)
    if as_json:
        console.emit_json({"description": examples.describe(), **found.to_dict()})
    else:
        console.out.print(examples.describe(), markup=False)
        show_check(found)
    found.raise_on_errors()
    if strict:
        found.raise_if_strict()


def read_any(path: Path, *, columns: str | None = None, max_bad_rows: int = 0, more: bool = False) -> Any:
    """A retrieval set where ``path`` is one, examples otherwise; ``more``: documents and captions too, which are texts
    without it."""
    from nearfar import data

    if data.is_retrieval(path):
        return data.read_retrieval(path, max_bad_rows=max_bad_rows)
    shapes = None if more else data.PLAIN_SHAPES
    return data.read(path, columns=columns, shapes=shapes, max_bad_rows=max_bad_rows)


def show_check(found: Any) -> None:
    """The findings as a table."""
    if not found.findings:
        console.out.print("data check: nothing found")
        return
    rows = [
        (Text(f.severity, style=_COLOURS[f.severity]), f.name, f.amount(), "\n".join([f.detail, *f.examples]))
        for f in found.findings
    ]
    console.out.print(console.table(["", "finding", "count", "what it means"], rows, title="data check", right=[2]))
