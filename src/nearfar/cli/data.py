"""``nearfar data check``: what was understood of a file, and what will spoil training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError

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
    model: Annotated[
        str | None, typer.Option("--model", help="Of preferences: show and check the tokens of this language model.")
    ] = None,
    max_prompt: Annotated[
        int, typer.Option("--max-prompt", min=1, help="Of preferences: tokens that a prompt may have.")
    ] = 512,
    max_response: Annotated[
        int, typer.Option("--max-response", min=1, help="Of preferences: tokens that a response may have.")
    ] = 512,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when there is a warning.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show what is understood of a file, and look for what spoils contrastive training, or alignment on preferences.

    Examples:

    `nearfar data check pairs.jsonl --batch-size 1024`

    `nearfar data check train.csv --columns anchor=question,positive=answer --evaluate dev.csv`

    `nearfar data check prefs.jsonl --model smollm2 --max-response 256`
    """
    from nearfar import data
    from nearfar.data.preferences import is_preferences

    if is_preferences(path, columns=columns):
        unfit = {"--evaluate": evaluate, "--encoder": encoder, "--batch-size": batch_size}
        if given := [name for name, value in unfit.items() if value is not None]:
            raise UsageError(f"{', '.join(given)} is for examples to embed, and {path} holds preferences")
        check_preferences(
            path, columns=columns, max_bad_rows=max_bad_rows, model=model, limits=(max_prompt, max_response),
            strict=strict, as_json=as_json,
        )  # fmt: skip
        return
    if model is not None:
        raise UsageError(
            f"--model is for preferences, and {path} holds none that are known by their columns",
            hint="name the columns, as in --columns prompt=instruction,chosen=better,rejected=worse; "
            "for examples to embed: --encoder",
        )
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

        embedder = encoders.load(options.model_folder(encoder))
        lengths = {"token_lengths": encoders.token_lengths(embedder), "token_limit": encoders.token_limit(embedder)}
    found = data.check(examples, batch_size=batch_size, evaluation=evaluation, **lengths)
    if as_json:
        console.emit_json({"description": examples.describe(), **found.to_dict()})
    else:
        console.out.print(examples.describe(), markup=False)
        show_check(found)
    found.raise_on_errors()
    if strict:
        found.raise_if_strict()


def check_preferences(
    path: Path,
    *,
    columns: str | None,
    max_bad_rows: int,
    model: str | None,
    limits: tuple[int, int],
    strict: bool,
    as_json: bool,
) -> None:
    """``nearfar data check`` of preferences; ``limits``: of the tokens of a prompt and of a response."""
    from nearfar.data.preferences import Budget, check_preferences, read_preferences, tokenise

    preferences = read_preferences(path, columns=columns, max_bad_rows=max_bad_rows)
    tokenised = None
    if model is not None:
        from nearfar.encoders.language_tokenizer import language_tokenizer

        tokenizer = language_tokenizer(options.model_folder(model))
        tokenised = tokenise(preferences, tokenizer, budget=Budget(*limits))
    found = check_preferences(preferences, tokenised)
    if as_json:
        tokens = {} if tokenised is None else {"tokens": tokenised.counts, "example": tokenised.marked(0)}
        console.emit_json({"description": preferences.describe(), **tokens, **found.to_dict()})
    else:
        console.out.print(preferences.describe(), markup=False, highlight=False)
        if tokenised is not None:
            console.out.print(tokenised.describe(), markup=False, highlight=False)
            console.out.print("as the model reads it, [[ ]] around the tokens that count:", markup=False)
            console.out.print(shortened_lines(tokenised.marked(0)), markup=False, highlight=False)
        show_check(found)
    found.raise_on_errors()
    if strict:
        found.raise_if_strict()


def shortened_lines(text: str, most: int = 40) -> str:
    """The lines of ``text`` without signs that steer a terminal, those in the middle left out where they are many."""
    from nearfar.data.values import shorten

    lines = [shorten(line, 400) for line in text.split("\n")]
    if len(lines) > most:
        half = most // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half:,} lines ...", *lines[-half:]]
    return "\n".join(lines)


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
