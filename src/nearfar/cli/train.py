"""``nearfar train``: an encoder from a file of pairs, labels, scores or texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError


@app.command("train")
def train(
    data: Annotated[list[Path] | None, typer.Argument(help="What to train on: one file or folder, or several.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")] = Path("runs/latest"),
    evaluate: Annotated[Path | None, typer.Option(help="What to evaluate on: a file, or a BEIR folder.")] = None,
    hold_out: Annotated[float | None, typer.Option(help="Share of the data to evaluate on instead, e.g. 0.1.")] = None,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings of the data check are errors.")] = False,
    encoder: Annotated[
        str, typer.Option("--encoder", "-e", help="static, minilm, a model folder, or a hub name.")
    ] = "static",
    dimension: Annotated[int, typer.Option(min=1, help="Of a new static encoder.")] = 256,
    vocabulary_size: Annotated[int, typer.Option(min=1, help="Of a new static encoder.")] = 30_000,
    initial: Annotated[str | None, typer.Option(help="Start a static encoder from: idf, random, or a model.")] = None,
    pooling: Annotated[
        str, typer.Option(help="Of a new static encoder: mean, or distinct (each token counts once).")
    ] = "mean",
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens read of a text.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="End the encoder with a layer of length 1.")] = False,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Train as a paper does: `nearfar recipes --training` lists them. Or a file."),
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="`nearfar objectives` lists them. Default: info-nce.")
    ] = None,
    temperature: Annotated[str | None, typer.Option(help="A number, or learned.")] = None,
    two_sided: Annotated[bool, typer.Option("--two-sided", help="Contrast in both directions.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any argument of the objective, or option of the recipe: --set margin=0.3. May be repeated."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows contrasted with each other.")] = None,
    chunk_size: Annotated[int | None, typer.Option(min=1, help="Texts in memory at once (cached gradients).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.")] = None,
    steps: options.Steps = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="Default: 0.02 static, 2e-5 transformer.")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Share of the steps over which the rate rises. Default: 0.1.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="linear (default), cosine or constant.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decoupled (AdamW). Default: 0.")] = None,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Allow equal texts in one batch.")] = False,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    seed: options.Seed = 0,
    evaluate_every: options.EvaluateEvery = None,
    early_stop: options.EarlyStop = None,
    checkpoint_every: options.CheckpointEvery = None,
    tensorboard: options.Tensorboard = False,
    general_check: Annotated[
        bool,
        typer.Option(
            "--general-check/--no-general-check",
            help="Measure a pretrained encoder on general English too, before and after.",
        ),
    ] = True,
    workers: options.Workers = 0,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Train an encoder and write a run folder: model, metrics, data check, report.

    What is near follows from the data: pairs (anchor, positive, negative_1, ...), labelled texts (text, label),
    scored pairs (sentence1, sentence2, score), or texts alone. `--recipe` trains as a paper does on data of the shapes
    that it takes; `nearfar recipes --training` lists them.

    Examples:

    `nearfar train pairs.jsonl --encoder static --output runs/mine --hold-out 0.1`

    `nearfar train pairs.jsonl --encoder minilm --objective infonce --temperature 0.05 --batch-size 1024
    --evaluate dev.jsonl --output runs/mine`

    `nearfar train corpus.txt --recipe simcse --encoder minilm --set temperature=0.05 --output runs/mine`

    `nearfar train --resume --output runs/mine`
    """
    from nearfar import training

    # these have defaults that a recipe's stand before, so only what was given is passed on
    recommended: dict[str, Any] = {
        "objective": objective,
        "warmup": warmup,
        "schedule": schedule,
        "weight_decay": weight_decay,
    }
    settings = training.TrainingSettings(
        data=[str(path) for path in data] if data else None,
        output=str(output),
        evaluate=None if evaluate is None else str(evaluate),
        hold_out=hold_out,
        columns=columns,
        max_bad_rows=max_bad_rows,
        strict=strict,
        encoder=options.model_folder(encoder),
        dimension=dimension,
        vocabulary_size=vocabulary_size,
        initial=initial,
        pooling=pooling,
        max_length=max_length,
        normalize=normalize,
        recipe=recipe,
        parameters=objective_arguments(temperature, two_sided, set_ or []),
        batch_size=batch_size,
        chunk_size=chunk_size,
        epochs=epochs,
        steps=steps,
        learning_rate=learning_rate,
        duplicates=duplicates,
        precision=precision,
        seed=seed,
        evaluate_every=evaluate_every,
        early_stop=early_stop,
        checkpoint_every=checkpoint_every,
        tensorboard=tensorboard,
        workers=workers,
        device=device,
        resume=resume,
        overwrite=overwrite,
        general_check=general_check,
        **{name: value for name, value in recommended.items() if value is not None},
    )
    run = training.train(settings, console=console.err, command=["nearfar", *sys.argv[1:]])
    if as_json:
        console.emit_json(
            {
                "run": str(run.folder),
                "steps": run.steps,
                "ended": run.ended,
                "main": run.main,
                "before": run.before,
                "after": run.after,
                "baselines": run.baselines,
                "general": run.general,
                "seconds": run.seconds,
            }
        )
    elif not run.interrupted:
        show_run(run)
    if run.interrupted:
        raise typer.Exit(1)


def objective_arguments(temperature: str | None, two_sided: bool, assignments: list[str]) -> dict[str, Any]:
    """The objective's arguments from the command line; numbers and truth values are read as such."""
    arguments: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name:
            raise UsageError(f"{assignment!r} is not an argument", where="--set", hint="write --set name=value")
        arguments[name.replace("-", "_")] = _value(value)
    if temperature is not None:
        arguments["temperature"] = _value(temperature)
    if two_sided:
        arguments["two_sided"] = True
    return arguments


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def show_run(run: Any) -> None:
    """What a run achieved, and what to type next."""
    rows = []
    for name, after in run.after.items():
        before = run.before.get(name)
        cells = [name + (" (main)" if name == run.main else "")]
        cells.append("" if before is None else f"{before['value']:.4f}")
        cells.append(f"{after['value']:.4f} [{after['low']:.4f}, {after['high']:.4f}]")
        cells += [f"{found[name]['value']:.4f}" if name in found else "" for found in run.baselines.values()]
        rows.append(cells)
    for name, after in run.general.get("after", {}).items():
        before = run.general["before"][name]
        interval = f"{after['value']:.4f} [{after['low']:.4f}, {after['high']:.4f}]"
        rows.append([f"general: {name}", f"{before['value']:.4f}", interval, *("" for _ in run.baselines)])
    if rows:
        console.out.print(
            console.table(["measure", "before", "after, 95 % interval", *run.baselines], rows, right=[1, 2, 3])
        )
    console.out.print(
        f"{run.folder}: {run.steps:,} steps in {run.seconds['training']:.1f} s ({run.ended})", markup=False
    )
    console.out.print(f"next: nearfar index {run.folder} documents.jsonl --output index", markup=False, style="dim")
