"""``nearfar compare``: which objective is best on these data, or that none is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app


@app.command("compare")
def compare(
    data: Annotated[list[Path], typer.Argument(help="What to train on: one file or folder, or several.")],
    objectives: Annotated[
        str, typer.Option("--objectives", help="At least two, e.g. infonce,dcl,mine=infonce(temperature=0.1).")
    ] = "",
    recipes: Annotated[str, typer.Option("--recipes", help="Recipes whose objectives are compared as well.")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the comparison.")] = Path("comparison"),
    seeds: Annotated[int, typer.Option(help="Final runs of each, with the seeds 0, 1, ...")] = 5,
    budget: Annotated[
        str | None,
        typer.Option(help="Of each training run: steps (400), epochs (3epochs), seconds (120s) or minutes (2min)."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="What the others are compared with. Default: the first.")
    ] = None,
    dev: Annotated[Path | None, typer.Option(help="What to choose by, instead of a part of the data.")] = None,
    test: Annotated[Path | None, typer.Option(help="What to ask at the end, instead of a part of the data.")] = None,
    measure: Annotated[
        str | None, typer.Option(help="knn_accuracy, probe_accuracy, mrr, ndcg@10, recall@10, ... by the data.")
    ] = None,
    search: Annotated[
        bool, typer.Option("--search/--no-search", help="Search temperature and learning rate of each.")
    ] = True,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    encoder: Annotated[
        str, typer.Option("--encoder", "-e", help="static, minilm, a model folder, or a hub name.")
    ] = "static",
    dimension: Annotated[int, typer.Option(min=1, help="Of a new static encoder.")] = 256,
    vocabulary_size: Annotated[int, typer.Option(min=1, help="Of a new static encoder.")] = 30_000,
    pooling: Annotated[str, typer.Option(help="Of a new static encoder: mean, or distinct.")] = "mean",
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens read of a text.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows contrasted with each other.")] = None,
    evaluations: Annotated[int | None, typer.Option(help="On the validation part, during each run.")] = None,
    split_seed: Annotated[int, typer.Option(help="Chooses the rows of the parts.")] = 0,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Compare objectives on your own data: same parts, initialisation, batches and budget; a verdict with its reasons.

    Temperature and learning rate of each are chosen by a small search on a validation part. The test part is asked once
    by each final model. Differences to the reference come with 95 % intervals over seeds and items, and are found only
    where they survive Holm's correction. Killed, the same command goes on.

    Examples:

    `nearfar compare pairs.jsonl --objectives infonce,dcl,mnrl --output cmp`

    `nearfar compare intents.tsv --objectives "supcon,warm=supcon(temperature=0.3),cosface" --recipes debiased
    --budget 200 --seeds 5 --output cmp`
    """
    from nearfar.compare import compare as run

    found = run(
        [str(path) for path in data],
        objectives,
        recipes=recipes,
        output=output,
        seeds=seeds,
        budget=budget,
        reference=reference,
        dev=dev,
        test=test,
        measure=measure,
        search=search,
        evaluations=evaluations,
        split_seed=split_seed,
        overwrite=overwrite,
        console=console.err,
        command=["nearfar", *sys.argv[1:]],
        columns=columns,
        max_bad_rows=max_bad_rows,
        encoder=options.model_folder(encoder),
        dimension=dimension,
        vocabulary_size=vocabulary_size,
        pooling=pooling,
        max_length=max_length,
        batch_size=batch_size,
        device=device,
    )
    if as_json:
        console.emit_json({"comparison": str(found.folder), **found.results})
    else:
        show(found)


def show(found: Any) -> None:
    """The table, the verdict, and where the rest is."""
    from nearfar.report.format import measure_name

    by_name = {each.first: each for each in found.differences}
    rows = []
    for entry in found.results["entries"]:
        each = by_name.get(entry["name"])
        row = [entry["name"], f"{entry['mean']:.4f}"]
        if each is None:
            row += ["reference", "", ""]
        else:
            sign = "+" if each.value > 0 else ""
            interval = f"[{100 * each.low:+.2f}, {100 * each.high:+.2f}]"
            said = ("better" if each.value > 0 else "worse") if each.found else "not told apart"
            row += [f"{sign}{100 * each.value:.2f} {interval}", f"{each.corrected:.2g}", said]
        rows.append(row)
    name = measure_name(found.measure)
    titles = ["entry", name, "points from the reference, 95 %", "p (Holm)", ""]
    console.out.print(console.table(titles, rows, right=[3]))
    console.out.print()
    console.out.print(str(found.verdict), markup=False)
    console.out.print(f"\n{found.folder / 'report.html'}", markup=False, style="dim", soft_wrap=True)
