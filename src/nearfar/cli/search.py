"""``nearfar index`` and ``nearfar search``: documents on disk, found by meaning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.cli.hits import show_hits
from nearfar.cli.search_sets import by_sets
from nearfar.errors import UsageError

if TYPE_CHECKING:
    from nearfar.search.set_queries import Tuning


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
    queries: Annotated[list[str] | None, typer.Argument(help="One question or several.")] = None,
    like: Annotated[list[Path] | None, typer.Option("--like", help="A file of example texts; may be repeated.")] = None,
    unlike: Annotated[
        list[Path] | None, typer.Option("--unlike", help="A file of texts of what is not wanted; may be repeated.")
    ] = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Tune a correction of the embeddings that tells the sets apart first.")
    ] = False,
    tune_encoder: Annotated[
        bool, typer.Option("--tune-encoder", help="Tune a copy of the encoder instead, and embed everything anew.")
    ] = False,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="Hits for each question.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line and hit.")] = False,
) -> None:
    """Find the documents nearest to a question, or most like some example texts and unlike others.

    Examples:

    `nearfar search demo-run "shuffle an array in place"`

    `nearfar search corpus-index "wing flutter" --top 3 --json`

    `nearfar search corpus-index --like praise.txt --like hotels.txt --unlike complaints.txt --tuned --top 20`
    """
    from nearfar import encoders, search

    _check_asked(queries or [], [*(like or []), *(unlike or [])], tuned=tuned, tune_encoder=tune_encoder)
    place = folder / "index" if (folder / "index" / "index.json").is_file() else folder
    if not (place / "index.json").is_file():
        raise UsageError(
            "there is no index here", where=str(folder), hint="make one: nearfar index MODEL DOCUMENTS --output INDEX"
        )
    if not queries:
        tuning: Tuning = "encoder" if tune_encoder else "adapter" if tuned else "none"
        by_sets(place, like or [], unlike or [], k=k, tuning=tuning, as_json=as_json)
        return
    index = search.Index.open(place)
    found = index.search(queries, k=k)
    calibration = encoders.calibration_of(index.model)
    for query, hits in zip(queries, found, strict=True):
        near = None if calibration is None else calibration.is_near([hit.score for hit in hits]).tolist()
        if as_json:
            for number, hit in enumerate(hits):
                more = {} if near is None else {"near": near[number]}
                console.emit_json_line({"query": query, **hit.to_dict(), **more})
            continue
        console.out.print(f"\n{query}", style="bold", markup=False)
        show_hits(hits)
        if calibration is not None and near is not None:
            console.out.print(f"{sum(near)} of {len(near)} are near: {calibration}", markup=False, style="dim")


def _check_asked(queries: list[str], sets: list[Path], *, tuned: bool, tune_encoder: bool) -> None:
    """Raise UsageError for a question together with sets, for neither, and for what is for sets alone."""
    if queries and sets:
        raise UsageError(
            "a question and sets of examples were both given",
            where="--like, --unlike",
            hint="ask for one of them; a question can stand as a line in a file of examples",
        )
    if not queries and not sets:
        raise UsageError("there is nothing to search for", hint="give a question, or examples: --like FILE")
    if tuned and tune_encoder:
        raise UsageError("two ways to tune were given", where="--tuned, --tune-encoder", hint="give one of them")
    if (tuned or tune_encoder) and not sets:
        raise UsageError(
            "only sets of examples can be tuned to",
            where="--tuned" if tuned else "--tune-encoder",
            hint="give some: --like FILE --unlike FILE",
        )
