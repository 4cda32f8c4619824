"""``nearfar index`` and ``nearfar search``: documents on disk, found by meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError


@app.command("index")
def index(
    model: options.Model,
    documents: Annotated[Path, typer.Argument(help="Documents: a text each, and any other fields.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The index's folder.")],
    text: Annotated[str | None, typer.Option("--text", help="The column that is searched in.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="exact, hnsw or ivfpq.")] = "exact",
    batch_size: options.BatchSize = None,
    max_bad_rows: options.MaxBadRows = 0,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Build a search index of documents. Killed, the same call goes on where it was.

    Examples:

    `nearfar index runs/mine corpus.jsonl --output corpus-index`

    `nearfar index minilm articles.csv --text body --kind hnsw --output articles`
    """
    from nearfar import data, encoders, search
    from nearfar.data.log import ReadLog

    encoder = encoders.load(options.model_folder(model))
    log = ReadLog(max_bad_rows)
    with console.progress("embedding") as update:
        built = search.Index.build(
            output,
            encoder,
            data.read_documents(documents, text=text, log=log),
            kind=kind,
            batch_size=batch_size,
            overwrite=overwrite,
            progress=lambda what, done, total: update(done, total),
        )
    if log.bad_rows:
        console.warning(f"{len(log.bad_rows):,} bad rows were skipped, first: {log.bad_rows[0]}")
    if as_json:
        console.emit_json({"index": str(output), "documents": len(built), "kind": kind, "dimension": built.dimension})
    else:
        console.out.print(f"{output}: {len(built):,} documents, {kind}", markup=False, soft_wrap=True)
        console.out.print(f'next: nearfar search {output} "your question"', markup=False, style="dim")


@app.command("search")
def find(
    folder: Annotated[Path, typer.Argument(help="An index, or a run folder that holds one.")],
    queries: Annotated[list[str], typer.Argument(help="One question or several.")],
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="Hits for each question.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and hit.")] = False,
) -> None:
    """Find the documents nearest to a question.

    Examples:

    `nearfar search demo-run "shuffle an array in place"`

    `nearfar search corpus-index "wing flutter" --top 3 --json`
    """
    from nearfar import search

    place = folder / "index" if (folder / "index" / "index.json").is_file() else folder
    if not (place / "index.json").is_file():
        raise UsageError(
            "there is no index here", where=str(folder), hint="make one: nearfar index MODEL DOCUMENTS --output INDEX"
        )
    found = search.Index.open(place).search(queries, k=k)
    for query, hits in zip(queries, found, strict=True):
        if as_json:
            for hit in hits:
                console.emit_json_line({"query": query, **hit.to_dict()})
            continue
        console.out.print(f"\n{query}", style="bold", markup=False)
        show_hits(hits)


def show_hits(hits: list[Any], width: int = 88) -> None:
    """The hits as a readable table."""
    rows = []
    for hit in hits:
        place = hit.fields.get("where") or hit.fields.get("title") or hit.id
        rows.append((hit.rank, f"{hit.score:.3f}", str(place), one_line(hit.text, width)))
    console.out.print(console.table(["", "score", "document", "text"], rows, right=[0, 1]))


def one_line(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
