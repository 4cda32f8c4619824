"""``nearfar align-online``: a language model from rewards of what it answers itself."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.cli.train import objective_arguments


@app.command("align-online")
def align_online(
    prompts: Annotated[
        list[Path] | None, typer.Argument(help="Prompts: a file with a column of texts or conversations, or several.")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option("--reward", "-r", help="file.py:function, your own code; or a reward model. Several add up."),
    ] = None,
    reward_weight: Annotated[
        list[float] | None, typer.Option("--reward-weight", help="One for each --reward. Default: 1 each.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")] = Path("runs/latest"),
    model: Annotated[
        str, typer.Option("--model", "-m", help="A folder of transformers or a run's, smollm2, or a .gguf file.")
    ] = "smollm2",
    objective: Annotated[
        str, typer.Option("--objective", help="grpo, disco, dpo, ampo, best-of-n, ...: `nearfar objectives`.")
    ] = "grpo",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any argument of the objective: --set beta=0.2.")
    ] = None,
    column: Annotated[str, typer.Option(help="The column that holds the prompts.")] = "prompt",
    max_bad_rows: options.MaxBadRows = 0,
    baseline_answers: Annotated[
        int, typer.Option(min=0, help="Subtract the mean reward of so many answers of the first policy.")
    ] = 0,
    pairs: Annotated[str, typer.Option(help="For objectives of pairs: all, or best-worst.")] = "all",
    margin: Annotated[float, typer.Option(help="By how much their rewards must differ.")] = 0.0,
    strategy: Annotated[str, typer.Option(help="Of ampo: bottom-k, coreset, opt-select, random or all.")] = "bottom-k",
    k: Annotated[int, typer.Option("-k", min=1, help="How many the best response is contrasted with (ampo).")] = 7,
    responses: Annotated[int, typer.Option(min=1, help="Sampled for a prompt.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimiser in all.")] = 100,
    refresh: Annotated[int, typer.Option(min=1, help="Steps until responses are sampled anew.")] = 1,
    prompts_a_round: Annotated[int, typer.Option(min=1, help="Prompts that are answered then.")] = 16,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Of them in a step. Default: all.")] = None,
    reference: Annotated[
        str, typer.Option(help="What log-ratios are against: start, or sampler (the policy that sampled).")
    ] = "start",
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="Default: 1e-6, ten times that with --lora.")
    ] = None,
    largest_gradient: Annotated[float, typer.Option(help="Where the gradient is clipped; 0: never.")] = 1.0,
    max_prompt: Annotated[int, typer.Option(min=0, help="Tokens of a prompt; 0: all.")] = 512,
    max_response: Annotated[int, typer.Option(min=1, help="Tokens of a response.")] = 128,
    temperature: Annotated[float, typer.Option(help="Of the samples.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that hold this share.")] = 1.0,
    lora: Annotated[bool, typer.Option("--lora", help="Train a LoRA adapter.")] = False,
    rank: options.Rank = 16,
    lora_alpha: Annotated[float | None, typer.Option(help="Of the adapter. Default: twice the rank.")] = None,
    lora_targets: Annotated[str | None, typer.Option(help="Layers that get one: q_proj,v_proj. Default: all.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Rounds between checkpoints.")] = 1,
    seed: options.Seed = 0,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Align a language model on what it answers itself: sample, reward, contrast, train; and again.

    A reward function is called as TRL's are, function(prompts=[...], completions=[...]), and returns a number a
    response. The file that holds it is run: name only code that you trust. The run folder keeps every round's samples
    with their rewards, which `nearfar align` can be trained on.

    Examples:

    `nearfar align-online prompts.jsonl --reward rewards.py:brief --model DIR --lora --output runs/grpo`

    `nearfar align-online prompts.jsonl --reward runs/reward/model --objective dpo --pairs best-worst --refresh 20`

    `nearfar align-online --resume --output runs/grpo`
    """
    from nearfar.alignment.online.run import OnlineRunSettings
    from nearfar.alignment.online.run import align_online as run_online

    settings = OnlineRunSettings(
        prompts=[str(path) for path in prompts] if prompts else None,
        output=str(output),
        column=column,
        max_bad_rows=max_bad_rows,
        model=model,
        lora=lora,
        rank=rank,
        lora_alpha=lora_alpha,
        lora_targets=lora_targets,
        reward=list(reward or []),
        reward_weights=list(reward_weight) if reward_weight else None,
        baseline_answers=baseline_answers,
        objective=objective,
        parameters=objective_arguments(None, False, set_ or []),
        pairs=pairs,
        margin=margin,
        strategy=strategy,
        k=k,
        responses=responses,
        steps=steps,
        refresh=refresh,
        prompts_a_round=prompts_a_round,
        batch_size=batch_size,
        reference=reference,
        learning_rate=learning_rate,
        largest_gradient=largest_gradient,
        max_prompt=max_prompt,
        max_response=max_response,
        temperature=temperature,
        top_p=top_p,
        checkpoint_every=checkpoint_every,
        seed=seed,
        overwrite=overwrite,
        resume=resume,
        device=device,
    )
    run = run_online(settings, console=console.err, command=["nearfar", *sys.argv[1:]])
    first, last = run.rounds[0], run.rounds[-1]
    if as_json:
        console.emit_json(
            {
                "run": str(run.folder),
                "model": str(run.model),
                "rounds": len(run.rounds),
                "ended": run.ended,
                "first": asdict(first),
                "last": asdict(last),
            }
        )
    elif not run.interrupted:
        rows = [
            [name, *("" if (value := getattr(each, name)) is None else f"{value:.4g}" for each in (first, last))]
            for name in ("reward", "best", "alike", "length", "divergence", "log_probability")
        ]
        console.out.print(console.table(["measure", "first round", "last round"], rows, right=[1, 2]))
        console.out.print(f"{run.model}: {len(run.rounds):,} rounds ({run.ended})", markup=False, soft_wrap=True)
    if run.interrupted:
        raise typer.Exit(1)
