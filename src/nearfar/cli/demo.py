"""``nearfar demo``: train a code search engine on the packages installed here, and use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app


@app.command("demo")
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")] = Path("demo-run"),
    seed: Annotated[int, typer.Option(min=0, help="Chooses the held-out modules and everything random.")] = 0,
    limit: Annotated[int | None, typer.Option(min=100, help="Collect at most so many functions.")] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Train a search engine for the Python functions installed here, beat BM25 on modules it has never seen, use it.

    Offline, in minutes on two cores. Example: `nearfar demo --output demo-run`
    """
    from nearfar import demo as story

    found = story.run(output, seed=seed, limit=limit, overwrite=overwrite, console=console.err, say=console.note)
    if as_json:
        console.emit_json(
            {
                "run": str(output),
                "functions": found.items,
                "mrr": found.mrr,
                "ratio_to_bm25": found.ratio,
                "seconds": found.seconds,
            }
        )
        return
    show(found)


def show(found: object) -> None:
    """The demo's result: the figures, the answers, and what to type next."""
    from nearfar.cli.hits import one_line
    from nearfar.demo import Demo

    assert isinstance(found, Demo)
    names = {
        "untrained": "the same encoder, untrained",
        "bm25": "BM25 (words of identifiers split)",
        "trained": "trained here",
    }
    rows = [(names[name], f"{found.mrr[name]:.3f}") for name in names]
    console.out.print()
    console.out.print(console.table(["finding a function by its docstring", "MRR"], rows, right=[1]))
    ratio = found.ratio
    console.out.print(
        f"trained / BM25 = {ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}], on modules never seen"
    )
    for question, hits in found.hits.items():
        console.out.print(f"\n{question}", style="bold", markup=False)
        answers = [(f"{hit.score:.2f}", hit.fields["where"], one_line(hit.fields["summary"], 70)) for hit in hits]
        console.out.print(console.table(["score", "function", "what it says"], answers, right=[0]))
    console.out.print(
        f"\nreport: {found.folder / 'report.html'}   ({found.seconds['training']:.0f} s of training, "
        f"{found.seconds['total']:.0f} s in all)",
        markup=False,
        soft_wrap=True,
    )
    console.out.print(f'next: nearfar search {found.folder} "shuffle an array in place"', markup=False, soft_wrap=True)
