"""``nearfar reward``: train a reward model, score responses with one, and find preferences that are probably wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError

reward_app = typer.Typer(
    help="Reward models: train one on preferences, score responses, find labels that are probably wrong.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(reward_app, name="reward")

Preferences = Annotated[list[Path], typer.Argument(help="Pairs or lists of responses: one file or folder, or several.")]
Pieces = Annotated[int, typer.Option(min=0, help="Tokens kept; 0: all.")]


@reward_app.command("train")
def train(
    data: Preferences,
    model: Annotated[
        str, typer.Option("--model", "-m", help="smollm2, a folder of transformers, a .gguf file, or a hub name.")
    ] = "smollm2",
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")] = Path("runs/reward"),
    evaluate: Annotated[Path | None, typer.Option(help="Pairs to evaluate on.")] = None,
    hold_out: Annotated[float, typer.Option(help="Otherwise the share to hold out, by prompt.")] = 0.1,
    reward: Annotated[str | None, typer.Option(help="Of several rewards in lists, the one to go by.")] = None,
    pairs_of: Annotated[str, typer.Option(help="Pairs that lists become: all or best-worst.")] = "all",
    frozen: Annotated[bool, typer.Option("--frozen", help="Train the head alone.")] = False,
    lora: Annotated[bool, typer.Option("--lora", help="Train the head and an adapter, which is merged.")] = False,
    rank: options.Rank = 16,
    margin: Annotated[bool, typer.Option("--margin", help="Ask for the margins of the data's column.")] = False,
    margin_scale: Annotated[float, typer.Option(help="Times this.")] = 1.0,
    flip: Annotated[str, typer.Option(help="Turn labels whose margin is: none, negative, lowest (a fifth).")] = "none",
    smoothing: Annotated[float, typer.Option(help="Share of doubt about some labels, see --smoothed.")] = 0.0,
    smoothed: Annotated[str, typer.Option(help="Which: negative (margins), strong, all.")] = "negative",
    label_smoothing: Annotated[float, typer.Option(help="Share of doubt about all labels.")] = 0.0,
    contrast: Annotated[
        str, typer.Option(help="Contrast responses in two views: none, simcse, simcse-diff, swav, swav-diff.")
    ] = "none",
    contrast_weight: Annotated[float, typer.Option(help="Weight of the contrast.")] = 0.1,
    meta: Annotated[Path | None, typer.Option(help="Lists of a policy's responses, to be told apart (MetaRM).")] = None,
    meta_form: Annotated[str, typer.Option(help="step (the paper's) or term (added to what is learned).")] = "step",
    meta_rate: Annotated[float | None, typer.Option(help="Of the step, or weight of the term.")] = None,
    mapl: Annotated[bool, typer.Option("--mapl", help="Compare prompts and gaps by checkable instructions.")] = False,
    max_prompt: Pieces = 512,
    max_response: Pieces = 512,
    chat_template: Annotated[Path | None, typer.Option(help="A file with a chat template.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs a step.")] = 32,
    chunk_size: Annotated[int | None, typer.Option(min=1, help="Rows in memory at once; default: all.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data; default 1.")] = None,
    steps: options.Steps = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="Default: 1e-5; adapter 1e-4; head 1e-3.")
    ] = None,
    early_stop: options.EarlyStop = None,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    seed: options.Seed = 0,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    as_json: options.Json = False,
) -> None:
    """Train a reward model on pairs of responses; it is judged by accuracy and calibration on held-out pairs.

    The model is a sequence classifier of transformers with one label, whose head reads the last token's state.

    Examples:

    `nearfar reward train prefs.jsonl --model smollm2 --lora --output runs/reward`

    `nearfar reward strength prefs.jsonl --output strong.jsonl`, then

    `nearfar reward train strong.jsonl --margin --smoothing 0.1`
    """
    from nearfar.alignment.reward.run import train_reward
    from nearfar.alignment.reward.settings import RewardSettings

    settings = RewardSettings(
        data=[str(path) for path in data],
        output=str(output),
        columns=columns,
        max_bad_rows=max_bad_rows,
        evaluate=None if evaluate is None else str(evaluate),
        hold_out=hold_out,
        reward=reward,
        pairs_of=pairs_of,
        max_prompt=max_prompt,
        max_response=max_response,
        chat_template=None if chat_template is None else str(chat_template),
        model=options.model_folder(model),
        frozen=frozen,
        lora=lora,
        rank=rank,
        margin=margin,
        margin_scale=margin_scale,
        flip=flip,
        smoothing=smoothing,
        smoothed=smoothed,
        label_smoothing=label_smoothing,
        contrast=contrast,
        contrast_weight=contrast_weight,
        meta=None if meta is None else str(meta),
        meta_form=meta_form,
        meta_rate=meta_rate,
        mapl=mapl,
        batch_size=batch_size,
        chunk_size=chunk_size,
        epochs=epochs,
        steps=steps,
        learning_rate=learning_rate,
        early_stop=early_stop,
        seed=seed,
        device=device,
        overwrite=overwrite,
        resume=resume,
    )
    done = train_reward(settings, console=console.err, command=["nearfar", *sys.argv[1:]])
    if as_json:
        console.emit_json(
            {
                "run": str(done.folder),
                "steps": done.steps,
                "ended": done.ended,
                "before": done.before,
                "after": done.after,
                "reliability": done.reliability,
            }
        )
    else:
        _show(done)
    if done.interrupted:
        raise typer.Exit(1)


def _show(done: Any) -> None:
    rows = [
        (name, *(_interval(of[name]) if name in of else "" for of in (done.before, done.after)))
        for name in done.after or done.before
    ]
    if rows:
        console.out.print(console.table(["held-out pairs", "before", "after"], rows, right=[1, 2]))
    bins = done.reliability
    if bins:
        sure = [
            (f"{low:.2f} to {high:.2f}", f"{count:,}", f"{confidence:.3f}", f"{right:.3f}")
            for low, high, count, confidence, right in zip(
                *(bins[name] for name in ("low", "high", "count", "confidence", "right")), strict=True
            )
        ]
        console.out.print(console.table(["sure by", "pairs", "sure", "right"], sure, right=[1, 2, 3]))
    console.out.print(f"\n{done.folder / 'model'}", markup=False, style="dim", soft_wrap=True)
    console.out.print(
        f"next: nearfar reward score responses.jsonl --model {done.folder} --output scored.jsonl",
        markup=False,
        style="dim",
        soft_wrap=True,
    )


def _interval(measure: dict[str, float]) -> str:
    return f"{measure['value']:.3f} [{measure['low']:.3f}, {measure['high']:.3f}]"


@reward_app.command("score")
def score(
    data: Preferences,
    model: Annotated[str, typer.Option("--model", "-m", help="A reward model: a run folder or one of transformers.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl file.")],
    max_prompt: Pieces = 512,
    max_response: Pieces = 512,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Give every response its reward: scores and margin of pairs, scores of lists, the score of a single response.

    The file that is written can be trained on (`nearfar align`, `nearfar reward train --margin`). Of pairs, accuracy
    and calibration are shown.

    Example: `nearfar reward score prefs.jsonl --model runs/reward --output scored.jsonl`
    """
    from nearfar.alignment.reward.model import is_reward_model, reward_model, rewards_in_batches
    from nearfar.alignment.reward.prepare import tokenised
    from nearfar.alignment.reward.scoring import check_place, scored
    from nearfar.alignment.reward.settings import RewardSettings
    from nearfar.data.preferences import read_preferences, write_preferences
    from nearfar.encoders.language_model import model_folder
    from nearfar.evaluation.preference import preference_measures

    check_place(output, overwrite=overwrite)
    folder = model_folder(model)
    if not is_reward_model(folder):
        raise UsageError("this is no reward model", where=f"--model {model}", hint="train one: nearfar reward train")
    made, tokenizer = reward_model(folder, device=device)
    found = read_preferences([str(path) for path in data], columns=columns, max_bad_rows=max_bad_rows)
    tokens = tokenised(found, tokenizer, RewardSettings(max_prompt=max_prompt, max_response=max_response))
    given, _ = rewards_in_batches(made, tokens)
    written, beside = scored(found, tokens, given)
    write_preferences(written, output, beside=beside)
    measures = {}
    if found.kind == "pairs":
        chosen, rejected = given.double().reshape(-1, 2).numpy().T
        measures = preference_measures(chosen, rejected)
    counts = tokens.counts
    if as_json:
        console.emit_json(
            {
                "output": str(output),
                "rows": len(written),
                "kind": found.kind,
                "dropped": counts["rows dropped"],
                "cut": counts["responses cut"],
                "measures": {name: each.to_dict() for name, each in measures.items()},
            }
        )
        return
    for each in measures.values():
        console.out.print(str(each), markup=False)
    lost = f"; {counts['rows dropped']:,} dropped" if counts["rows dropped"] else ""
    lost += f"; {counts['responses cut']:,} responses cut" if counts["responses cut"] else ""
    console.out.print(f"{output}: {len(written):,} rows{lost}", markup=False, soft_wrap=True)


@reward_app.command("strength")
def strength(
    data: Preferences,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl file.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="A language model for heads, or several reward models that vote themselves."
        ),
    ] = None,
    votes: Annotated[int, typer.Option(min=1, help="Votes of heads on each pair.")] = 10,
    folds: Annotated[int, typer.Option(min=1, help="Parts of the data; heads judge what they did not see.")] = 2,
    width: Annotated[int, typer.Option(min=0, help="Hidden layer of a head; 0: none.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps that a head learns.")] = 200,
    max_prompt: Pieces = 512,
    max_response: Pieces = 512,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the heads.")] = 0,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Find preferences that are probably wrong: the mean vote of an ensemble on how much the chosen is better.

    With one language model, many small heads on its states vote, each pair judged by heads that did not learn from it;
    with reward models, they vote themselves. The strength becomes the margin of the pairs that are written.

    Example: `nearfar reward strength prefs.jsonl --model smollm2 --output strong.jsonl`
    """
    from nearfar.alignment.reward.ensemble import votes_of_heads, votes_of_models
    from nearfar.alignment.reward.model import is_reward_model, reward_model, rewards_in_batches
    from nearfar.alignment.reward.prepare import as_pairs, tokenised
    from nearfar.alignment.reward.scoring import check_place, states_of_pairs, summary, with_strength
    from nearfar.alignment.reward.settings import RewardSettings
    from nearfar.data.preferences import read_preferences, write_preferences
    from nearfar.encoders.language_model import model_folder

    folders = [model_folder(name) for name in model or ["smollm2"]]
    ready = [is_reward_model(folder) for folder in folders]
    if len(folders) > 1 and not all(ready):
        raise UsageError("of several models all have to be reward models", where="--model", hint="or name one model")
    check_place(output, overwrite=overwrite)
    found = as_pairs(read_preferences([str(path) for path in data], columns=columns, max_bad_rows=max_bad_rows))
    settings = RewardSettings(max_prompt=max_prompt, max_response=max_response)
    given = []
    for folder in folders:
        made, tokenizer = reward_model(folder, device=device)
        tokens = tokenised(found, tokenizer, settings)
        rewards, states = rewards_in_batches(made, tokens)
        given.append((tokens, rewards, states))
    tokens = given[0][0]
    if any(each[0].index.tolist() != tokens.index.tolist() for each in given):
        raise UsageError("the models' tokenizers drop different rows", where="--model", hint="remove empty responses")
    if all(ready):
        said = votes_of_models([each[1] for each in given])
    else:
        said = votes_of_heads(
            states_of_pairs(given[0][2]), votes=votes, folds=folds, width=width, steps=steps, seed=seed
        )
    written, beside = with_strength(found, tokens, said)
    write_preferences(written, output, beside=beside)
    negative = float((said.strength < 0).float().mean())
    groups = summary(said)
    if as_json:
        console.emit_json({"output": str(output), "rows": len(written), "negative": negative, "groups": groups})
        return
    rows = [
        (each["group"], f"{each['pairs']:,}", *(f"{each[name]:+.3f}" for name in ("mean", "low", "high")))
        for each in groups
    ]
    console.out.print(console.table(["group", "pairs", "mean strength", "least", "largest"], rows, right=[1, 2, 3, 4]))
    console.out.print(f"{100 * negative:.1f} % of the pairs have a strength below 0", markup=False)
    console.out.print(f"{output}: {len(written):,} rows, the strength as margin", markup=False, soft_wrap=True)
