"""``nearfar align``: a language model from preferences."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.cli.train import objective_arguments

if TYPE_CHECKING:
    from nearfar.alignment.results import AlignmentRun


@app.command("align")
def align(
    data: Annotated[
        list[Path] | None, typer.Argument(help="Preferences: one file or folder, or several. See docs.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")] = Path("runs/latest"),
    model: Annotated[
        str, typer.Option("--model", "-m", help="A folder of transformers or a run's, smollm2, or a .gguf file.")
    ] = "smollm2",
    objective: Annotated[str, typer.Option("--objective", help="`nearfar objectives` lists them.")] = "dpo",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any argument of the objective or option of how it is fed: --set beta=0.2."),
    ] = None,
    evaluate: Annotated[Path | None, typer.Option(help="Preferences to evaluate on.")] = None,
    hold_out: Annotated[float | None, typer.Option(help="Share of the prompts to evaluate on, e.g. 0.1.")] = None,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    reward: Annotated[str | None, typer.Option(help="Which reward to go by, where lists have several.")] = None,
    pairs_of: Annotated[str, typer.Option(help="Pairs that lists become: all, or best-worst.")] = "all",
    max_prompt: Annotated[int, typer.Option(min=0, help="Tokens of a prompt; 0: all.")] = 512,
    max_response: Annotated[int, typer.Option(min=0, help="Tokens of each response; 0: all.")] = 512,
    side: Annotated[str, typer.Option(help="Where long prompts are cut: left or right.")] = "left",
    chat_template: Annotated[Path | None, typer.Option(help="A Jinja file in place of the tokenizer's.")] = None,
    reference: Annotated[str | None, typer.Option(help="Another model as the reference. Default: the model.")] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train a LoRA adapter.")] = False,
    rank: options.Rank = 16,
    lora_alpha: Annotated[float | None, typer.Option(help="Of the adapter. Default: twice the rank.")] = None,
    lora_dropout: Annotated[float, typer.Option(help="Of the adapter.")] = 0.0,
    lora_targets: Annotated[str | None, typer.Option(help="Layers that get one: q_proj,v_proj. Default: all.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Write the whole model too, adapter added.")] = False,
    dropout: Annotated[bool, typer.Option("--dropout", help="Leave the model's dropout on.")] = False,
    prompts: Annotated[
        str, typer.Option(help="What says how alike prompts are (rpo, ampo): model, minilm, or an encoder.")
    ] = "model",
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts a step.")] = 8,
    chunk_size: Annotated[int | None, typer.Option(min=1, help="Prompts in memory at once. Default: chosen.")] = None,
    layout: Annotated[str, typer.Option(help="Prompts with several responses: shared, repeated, or auto.")] = "auto",
    epochs: Annotated[float | None, typer.Option(help="Passes over the data. Default: 1.")] = None,
    steps: options.Steps = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", "--lr", help="Default: 1e-6 (supervised 2e-5), ten times that with --lora."),
    ] = None,
    warmup: Annotated[float, typer.Option(help="Share of the steps over which the rate rises.")] = 0.1,
    schedule: Annotated[str, typer.Option(help="linear, cosine or constant.")] = "linear",
    weight_decay: Annotated[float, typer.Option(help="Decoupled (AdamW).")] = 0.0,
    max_gradient_norm: Annotated[float, typer.Option(help="Where the gradient is clipped; 0: never.")] = 1.0,
    shard: Annotated[
        bool, typer.Option("--shard", help="Share out the weights among the processes of torchrun (FSDP).")
    ] = False,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations: slower, less memory.")
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    seed: options.Seed = 0,
    evaluate_every: options.EvaluateEvery = None,
    early_stop: options.EarlyStop = None,
    keep_best: Annotated[bool, typer.Option("--keep-best", help="Export the weights of the best evaluation.")] = False,
    checkpoint_every: options.CheckpointEvery = None,
    tensorboard: options.Tensorboard = False,
    workers: options.Workers = 0,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Align a language model on preferences and write a run folder: model, metrics, data check, report.

    Data: pairs (prompt, chosen, rejected), good and bad responses (prompt, completion, label), lists (prompt,
    responses, scores) or demonstrations (prompt, completion), as TRL has them; `nearfar data check` shows what is
    understood. What an objective cannot be trained on is made into what it can, or refused.

    Examples:

    `nearfar align prefs.jsonl --model smollm2 --lora --hold-out 0.1 --output runs/dpo`

    `nearfar align lists.jsonl --model DIR --objective lipo-lambda --set beta=0.05 --output runs/lipo`

    `nearfar align --resume --output runs/dpo`
    """
    from nearfar.alignment.run import align as run_alignment
    from nearfar.alignment.settings import AlignmentSettings
    from nearfar.training import processes

    settings = AlignmentSettings(
        data=[str(path) for path in data] if data else None,
        output=str(output),
        columns=columns,
        evaluate=None if evaluate is None else str(evaluate),
        hold_out=hold_out,
        reward=reward,
        pairs_of=pairs_of,
        max_prompt=max_prompt,
        max_response=max_response,
        side=side,
        chat_template=None if chat_template is None else str(chat_template),
        model=model,
        reference=reference,
        lora=lora,
        rank=rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_targets=lora_targets,
        merge=merge,
        dropout=dropout,
        objective=objective,
        parameters=objective_arguments(None, False, set_ or []),
        prompts=prompts,
        batch_size=batch_size,
        chunk_size=chunk_size,
        layout=layout,
        epochs=epochs,
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        schedule=schedule,
        weight_decay=weight_decay,
        max_gradient_norm=max_gradient_norm,
        shard=shard,
        checkpointing=checkpointing,
        precision=precision,
        seed=seed,
        evaluate_every=evaluate_every,
        early_stop=early_stop,
        keep_best=keep_best,
        checkpoint_every=checkpoint_every,
        tensorboard=tensorboard,
        max_bad_rows=max_bad_rows,
        overwrite=overwrite,
        resume=resume,
        workers=workers,
        device=device,
    )
    run = run_alignment(settings, console=console.err, command=["nearfar", *sys.argv[1:]])
    if not processes.is_main():
        raise typer.Exit(int(run.interrupted))
    if as_json:
        console.emit_json(
            {
                "run": str(run.folder),
                "model": str(run.model),
                "steps": run.steps,
                "ended": run.ended,
                "main": run.main,
                "before": run.before,
                "after": run.after,
                "warning": run.warning,
                "seconds": run.seconds,
            }
        )
    elif not run.interrupted:
        show_run(run)
    if run.interrupted:
        raise typer.Exit(1)


def show_run(run: AlignmentRun) -> None:
    """What a run achieved, and where the model is."""
    rows = []
    for name, after in run.after.items():
        before = run.before.get(name)
        cells = [name + (" (main)" if name == run.main else "")]
        cells.append("" if before is None else f"{before['value']:.4f}")
        cells.append(f"{after['value']:.4f} [{after['low']:.4f}, {after['high']:.4f}]")
        rows.append(cells)
    if rows:
        console.out.print(console.table(["measure", "before", "after, 95 % interval"], rows, right=[1, 2]))
    if run.warning is not None:
        console.out.print(f"warning: {run.warning}", style="yellow", markup=False)
    console.out.print(
        f"{run.model}: {run.steps:,} steps in {run.seconds['training']:.1f} s ({run.ended})", markup=False
    )
