"""What the command line prints, and where: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


def failure(message: str, *, where: str | None = None, hint: str | None = None) -> None:
    """One readable block on standard error."""
    block = Text.assemble(("error: ", "bold red"), message)
    if where:
        block.append(f"\n  where: {where}", style="dim")
    if hint:
        block.append(f"\n  mend:  {hint}", style="green")
    err.print(block, soft_wrap=not err.is_terminal)


def warning(message: str) -> None:
    """A warning on standard error."""
    err.print(Text.assemble(("warning: ", "bold yellow"), message))


def note(message: str) -> None:
    """A line of information on standard error."""
    err.print(escape(message))


def emit_json(value: Any) -> None:
    """``value`` as JSON on standard output: strict, so that any reader takes it."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def emit_json_line(value: Any) -> None:
    """``value`` as one line of JSON on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    title: str | None = None,
    right: Sequence[int] = (),
    headed: bool = True,
) -> Table:
    """A plain table; the columns numbered in ``right`` are aligned to the right. Not ``headed``: without the names."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        show_header=headed,
    )
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row])
    return made


@contextmanager
def progress(description: str) -> Iterator[Any]:
    """A progress bar on standard error; yields ``update(done, total)``. Silent where standard error is no terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(description, total=None)

        def update(done: int, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total)

        yield update


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and notices off the terminal; errors still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def show_warnings() -> None:
    """Show the warnings that are meant for the user as such; libraries' own stay silent."""

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning) and "nearfar" in filename:
            warning(str(message))

    warnings.showwarning = show
