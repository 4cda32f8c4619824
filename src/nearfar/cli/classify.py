"""``nearfar classify``: texts to labels from a few examples of each; predictions of a file, and why they are so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nearfar.cli import console, options
from nearfar.cli.app import app
from nearfar.errors import UsageError


class _TrainByDefault(TyperGroup):
    """``nearfar classify FILE ...`` is ``nearfar classify train FILE ...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["train", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


classify_app = typer.Typer(
    help="Classify texts from a few examples of each label. `nearfar classify FILE` is `nearfar classify train FILE`.",
    no_args_is_help=True,
    cls=_TrainByDefault,
    rich_markup_mode="markdown",
)
app.add_typer(classify_app, name="classify")

Run = Annotated[Path, typer.Argument(help="A folder that `nearfar classify` wrote.")]


@classify_app.command("train")
def train(
    data: Annotated[list[Path], typer.Argument(help="Labelled texts: one file or folder, or several.")],
    shots: Annotated[int, typer.Option(min=0, help="Examples of each label in a draw; 0: all there are.")] = 8,
    draws: Annotated[int, typer.Option(min=1, help="How often the examples are drawn anew.")] = 5,
    encoder: Annotated[
        str, typer.Option("--encoder", "-e", help="minilm, static, a model folder, or a hub name.")
    ] = "minilm",
    test: Annotated[Path | None, typer.Option(help="Labelled texts to be asked.")] = None,
    hold_out: Annotated[float, typer.Option(help="Otherwise the share of each label that is asked.")] = 0.5,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")] = Path("runs/classifier"),
    pairs: Annotated[int, typer.Option(min=2, help="Pairs a draw is tuned on.")] = 2_000,
    strategy: Annotated[str, typer.Option(help="oversampling, undersampling or unique.")] = "oversampling",
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Pairs of each kind for a text, instead of a strategy.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pairs.")] = 1,
    batch_size: Annotated[int, typer.Option(min=2, help="Texts a step, two a pair.")] = 32,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="Default: 2e-5 transformer, 0.02 static.")
    ] = None,
    penalty: Annotated[float, typer.Option(help="Inverse L2 penalty of the logistic regressions.")] = 10.0,
    baselines: Annotated[
        str, typer.Option(help="What to compare with: all, none, or some of untuned, linear-head, tf-idf.")
    ] = "all",
    explain: Annotated[int, typer.Option(min=0, help="Asked texts whose prediction is explained.")] = 6,
    samples: Annotated[int, typer.Option(min=2, help="Texts with words left out, for an explanation.")] = 500,
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens read of a text.")] = None,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    seed: options.Seed = 0,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Tune an encoder on pairs of a few examples of each label (SetFit), fit a linear classifier, and compare.

    The examples are drawn several times; accuracy and macro-F1 come with 95 % intervals over draws and asked texts,
    beside a plain fine-tuned head, the untuned encoder and TF-IDF. Killed, the same command goes on.

    Examples:

    `nearfar classify train.csv --shots 8`

    `nearfar classify train.csv --shots 16 --encoder minilm --test test.csv --output runs/intents`
    """
    from nearfar.classify import BASELINES, ClassifySettings, classify

    settings = ClassifySettings(
        data=[str(path) for path in data],
        output=str(output),
        test=None if test is None else str(test),
        hold_out=hold_out,
        shots=shots or None,
        draws=draws,
        encoder=options.model_folder(encoder),
        max_length=max_length,
        columns=columns,
        max_bad_rows=max_bad_rows,
        pairs=pairs,
        strategy=strategy,
        iterations=iterations,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        penalty=penalty,
        baselines=_baselines(baselines, list(BASELINES)),
        explanations=explain,
        samples=samples,
        seed=seed,
        device=device,
        overwrite=overwrite,
    )
    done = classify(settings, console=console.err, command=["nearfar", *sys.argv[1:]])
    if as_json:
        console.emit_json({"run": str(done.folder), **done.results})
    else:
        show(done)


def _baselines(text: str, known: list[str]) -> list[str]:
    if text.strip() in ("all", "none"):
        return known if text.strip() == "all" else []
    return [name.strip().replace("linear-head", "linear head") for name in text.split(",")]


def show(done: Any) -> None:
    """The table of methods, and where the rest is."""
    gains = {each["second"]: each for each in done.results["gains"]}
    rows = []
    for name, measures in done.results["measures"].items():
        accuracy, macro_f1 = measures["accuracy"], measures["macro_f1"]
        cells = [name, f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"]
        cells.append(f"{macro_f1['value']:.3f}")
        gain = gains.get(name)
        if gain is None:
            rows.append([*cells, "", ""])
            continue
        value, low, high = (100 * gain[key] for key in ("value", "low", "high"))
        word = "better" if value > 0 else "worse"
        rows.append([*cells, f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", word if gain["found"] else "not told apart"])
    titles = ["method", "accuracy, 95 %", "macro-F1", "setfit's gain, points", "setfit is"]
    console.out.print(console.table(titles, rows, right=[2]))
    for each in done.results["explanations"][:2]:
        words = ", ".join(f"{word} {weight:+.2f}" for word, weight in each["words"][:5])
        console.out.print(f"\n“{each['text']}”", markup=False)
        console.out.print(f"  {each['label']} {each['probability']:.2f}: {words}", markup=False, style="dim")
    console.out.print(f"\n{done.folder / 'report.html'}", markup=False, style="dim", soft_wrap=True)
    console.out.print(f"next: nearfar classify predict {done.folder} texts.csv", markup=False, style="dim")


@classify_app.command("predict")
def predict(
    run: Run,
    path: Annotated[Path, typer.Argument(help="Texts, with labels or without.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv, .tsv or .jsonl file; default: the terminal.")
    ] = None,
    columns: options.Columns = None,
    max_bad_rows: options.MaxBadRows = 0,
    batch_size: options.BatchSize = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Predict the label of every text of a file, in its order, with its probability.

    Where the file has labels, accuracy and macro-F1 are shown with their intervals.

    Example: `nearfar classify predict runs/intents texts.csv --output predictions.csv`
    """
    from nearfar.classify import TextClassifier
    from nearfar.classify.predictions import predict_examples, write
    from nearfar.cli.data import read_any

    examples = read_any(path, columns=columns, max_bad_rows=max_bad_rows)
    found = predict_examples(TextClassifier.load(run), examples, batch_size=batch_size)
    if output is not None:
        write(output, found, overwrite=overwrite)
    judged = found.judged()
    if as_json:
        console.emit_json(
            {
                "rows": len(found.texts),
                "output": None if output is None else str(output),
                "measures": {name: each.to_dict() for name, each in judged.items()},
                **({"predictions": found.rows()} if output is None else {}),
            }
        )
        return
    if output is None:
        rows = [(each["label"], f"{each['probability']:.3f}", each["text"]) for each in found.rows()]
        console.out.print(console.table(["label", "", "text"], rows, right=[1]))
    for each in judged.values():
        console.out.print(str(each), markup=False)
    if output is not None:
        console.out.print(f"{output}: {len(found.texts):,} predictions", markup=False, soft_wrap=True)


@classify_app.command("explain")
def explain(
    run: Run,
    texts: Annotated[list[str], typer.Argument(help="One text or several.")],
    label: Annotated[str | None, typer.Option(help="What to explain; default: what is predicted.")] = None,
    features: Annotated[int, typer.Option(min=1, help="Words that are shown.")] = 10,
    samples: Annotated[int, typer.Option(min=2, help="Texts with words left out.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the words left out.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Say which words speak for the predicted label of a text, and which against it (LIME).

    Example: `nearfar classify explain runs/intents "my card has not arrived yet"`
    """
    from nearfar.classify import TextClassifier
    from nearfar.diagnostics import explain as explain_text

    model = TextClassifier.load(run)
    if label is not None and label not in model.labels:
        raise UsageError(f"there is no label {label!r}", where="--label", hint=", ".join(model.labels[:20]))
    found = [
        explain_text(
            model.probabilities,
            text,
            labels=model.labels,
            label=label,
            features=features,
            samples=samples,
            seed=seed,
        )
        for text in texts
    ]
    if as_json:
        console.emit_json([each.to_dict() for each in found])
        return
    for each in found:
        console.out.print(f"\n“{each.text}”", style="bold", markup=False)
        console.out.print(f"{each.label}, {each.probability:.2f} (fidelity {each.fidelity:.2f})", markup=False)
        largest = max((abs(weight) for _, weight in each.words), default=0.0) or 1.0
        rows = [(word, f"{weight:+.3f}", "█" * round(20 * abs(weight) / largest)) for word, weight in each.words]
        console.out.print(console.table(["word", "weight", ""], rows, right=[1]))
