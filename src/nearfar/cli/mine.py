"""``nearfar mine``: hard negatives for pairs."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError


@app.command("mine")
def mine(
    data: Annotated[Path, typer.Argument(help="Pairs (anchor, positive), or a BEIR folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: JSON lines.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Who finds near documents.")] = "minilm",
    query_embeddings: Annotated[Path | None, typer.Option(help="Instead of --model: a .npy file.")] = None,
    document_embeddings: Annotated[Path | None, typer.Option(help="Instead of --model: a .npy file.")] = None,
    teacher: Annotated[str | None, typer.Option(help="A better model, which judges the bounds.")] = None,
    negatives: Annotated[int, typer.Option(min=1, help="How many for each pair.")] = 5,
    ranks: Annotated[str, typer.Option(help="The window of ranks, first:last; 1 is the nearest.")] = "1:100",
    margin: Annotated[
        float | None, typer.Option(help="A negative scores at least this much below the positive.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(help="A negative scores at most this share of the positive, e.g. 0.95.")
    ] = None,
    highest: Annotated[float | None, typer.Option(help="The highest similarity of a negative.")] = None,
    lowest: Annotated[float | None, typer.Option(help="The lowest similarity of a negative.")] = None,
    sampling: Annotated[str, typer.Option(help="top, or random among those that meet the rules.")] = "top",
    when_short: Annotated[
        str, typer.Option(help="Too few meet the rules: random (fill up), or drop (leave the pair out).")
    ] = "random",
    columns: options.Columns = None,
    split: Annotated[str | None, typer.Option(help="Which judgements of a BEIR folder: train, dev, test.")] = None,
    max_bad_rows: options.MaxBadRows = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of random sampling.")] = 0,
    device: Annotated[str, typer.Option(help="Where scores are computed: cpu, cuda.")] = "cpu",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Find hard negatives for pairs: near documents that do not answer, by rank and by distance from the positive.

    Examples:

    `nearfar mine pairs.jsonl --model runs/mine --ratio 0.95 --output hard.jsonl`

    `nearfar mine pairs.jsonl --query-embeddings q.npy --document-embeddings d.npy --ranks 10:50 --output hard.jsonl`
    """
    from nearfar import data as reading
    from nearfar import encoders
    from nearfar.negatives import MiningRules, mine_pairs

    first, last = _window(ranks)
    rules = MiningRules(
        count=negatives,
        first_rank=first,
        last_rank=last,
        lowest_score=lowest,
        highest_score=highest,
        margin=margin,
        ratio=ratio,
        sampling=sampling,
        seed=seed,
    )
    if (query_embeddings is None) != (document_embeddings is None):
        raise UsageError("give both --query-embeddings and --document-embeddings, or neither")
    source: Any
    if reading.is_retrieval(data):
        source = reading.read_retrieval(data, split=split, max_bad_rows=max_bad_rows)
    else:
        source = reading.read(data, columns=columns, shapes=reading.PLAIN_SHAPES, max_bad_rows=max_bad_rows)
    miner: Any = (query_embeddings, document_embeddings)
    if query_embeddings is None:
        miner = encoders.load(options.model_folder(model))
    judge = None if teacher is None else encoders.load(options.model_folder(teacher))
    with console.progress("mining") as update:
        found = mine_pairs(
            source,
            output,
            miner=miner,
            rules=rules,
            teacher=judge,
            when_short=when_short,
            overwrite=overwrite,
            device=device,
            progress=lambda what, done, total: update(done, total),
        )
    if as_json:
        shown = {name: None if value != value else value for name, value in asdict(found).items()}
        console.emit_json({**shown, "path": str(found.path)})
        return
    console.out.print(
        f"{found.path}: {found.rows:,} pairs with {found.negatives} hard negatives each, out of "
        f"{found.documents:,} documents for {found.queries:,} queries",
        markup=False,
    )
    if not math.isnan(found.negative_score):
        console.out.print(
            f"mean similarity: positives {found.positive_score:.3f}, mined negatives {found.negative_score:.3f}",
            markup=False,
        )
    if found.short:
        console.warning(
            f"for {found.short:,} queries fewer than {found.negatives} documents meet the rules: "
            + (f"{found.left_out:,} pairs were left out" if when_short == "drop" else "random documents fill them up")
        )
    if found.negative_score > found.positive_score:
        console.warning(
            "mined negatives are nearer than the positives on average: many are probably unlabelled positives; "
            "use --ratio 0.95 or a later window of --ranks"
        )
    console.out.print(f"next: nearfar train {found.path} --output runs/hard", markup=False, style="dim", soft_wrap=True)


def _window(ranks: str) -> tuple[int, int]:
    first, colon, last = ranks.partition(":")
    if not colon or not first.isdigit() or not last.isdigit():
        raise UsageError(f"--ranks is {ranks!r}", hint="write first:last, e.g. --ranks 10:100")
    return int(first), int(last)
