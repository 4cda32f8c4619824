"""Recipes on real text: MiniLM trained for some steps by every sentence recipe that can, on what functions say.

The text is that of the packages that are installed, so anybody can run it: `make bench BENCH=real_text`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from nearfar import encoders, evaluation, recipes, training
from nearfar.data import CodeItem, Examples, collect_code, split_by_module
from nearfar.errors import MissingExtraError, ModelError, UsageError

PACKAGES = ["torch", "transformers", "sklearn"]
FUNCTIONS, HELD_OUT, STEPS, BATCH, LENGTH, SEED = 6_000, 400, 30, 32, 64, 0
OPTIONS: dict[str, dict[str, Any]] = {
    "clear": {"new_head": True},
    "clusterns": {"clusters": 16},
    "denosent": {"new_head": True},
    "text-views": {"view2": "deletion:0.1"},
}
"""What a recipe does not decide by itself."""

FOUND = Path(__file__).parent / "real_text.json"
PAGE = Path(__file__).parent.parent / "docs" / "real-text.md"


def run() -> None:
    """Train and measure each recipe, keep what is found in real_text.json, write the page and print it."""
    known = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    items = collect_code(PACKAGES, limit=FUNCTIONS, seed=SEED)
    learned, held = split_by_module(items, HELD_OUT, SEED)
    try:
        asked = Examples.from_columns(
            {"anchor": [item.summary for item in held], "positive": [item.code for item in held]}
        )
        before = evaluation.evaluate(encoders.load("minilm", max_length=LENGTH), asked, seed=SEED)
    except MissingExtraError as error:
        print(error.message)
        return
    found: dict[str, Any] = {
        "machine": machine(),
        "functions": len(items),
        "held_out": len(held),
        "before": before.measures["mrr"].to_dict(),
        "recipes": {},
    }
    for recipe in recipes.recipes("sentences"):
        if recipe.training is None:
            continue
        shape = next((shape for shape in SHAPES if shape in recipe.training.shapes), None)
        if shape is None:
            found["recipes"][recipe.id] = {"left out": f"takes {' or '.join(recipe.training.shapes)}"}
        elif "mrr" in known.get("recipes", {}).get(recipe.id, {}) and known.get("before") == found["before"]:
            found["recipes"][recipe.id] = known["recipes"][recipe.id]
        else:
            found["recipes"][recipe.id] = {"shape": shape, **_trained(recipe.id, SHAPES[shape](learned), asked, before)}
        FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(recipe.id, found["recipes"][recipe.id], flush=True)
    PAGE.write_text(page(found), encoding="utf-8")
    print(page(found))


def _trained(name: str, examples: Examples, asked: Examples, before: evaluation.Evaluation) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        settings = training.TrainingSettings(
            recipe=name,
            parameters=OPTIONS.get(name, {}),
            encoder="minilm",
            max_length=LENGTH,
            steps=STEPS,
            batch_size=BATCH,
            seed=SEED,
            output=str(Path(folder) / "run"),
        )
        try:
            result = training.train(settings, examples=examples)
        except (ModelError, UsageError) as error:
            return {"left out": error.message}
        after = evaluation.evaluate(result.encoder, asked, seed=SEED)
    change = evaluation.paired_difference(after.per_item["mrr"], before.per_item["mrr"], name="mrr", seed=SEED)
    return {
        "mrr": after.measures["mrr"].to_dict(),
        "change": change.to_dict(),
        "general": {when: found["spearman"]["value"] for when, found in result.general.items()},
        "seconds": result.seconds["training"],
    }


def _texts(items: list[CodeItem]) -> Examples:
    return Examples.from_columns({"text": list(dict.fromkeys(item.summary for item in items))})


def _pairs(items: list[CodeItem]) -> Examples:
    return Examples.from_columns({"anchor": [i.summary for i in items], "positive": [i.code for i in items]})


def _labelled(items: list[CodeItem]) -> Examples:
    return Examples.from_columns({"text": [i.summary for i in items], "label": [i.module for i in items]})


def _documents(items: list[CodeItem]) -> Examples:
    ordered = sorted(items, key=lambda item: (item.module, item.line))
    return Examples.from_columns({"text": [i.summary for i in ordered], "document": [i.module for i in ordered]})


SHAPES: dict[str, Callable[[list[CodeItem]], Examples]] = {
    "texts": _texts,
    "pairs": _pairs,
    "documents": _documents,
    "labelled texts": _labelled,
}
"""What the functions are to a recipe; the first shape that it takes."""


def page(found: dict[str, Any]) -> str:
    """The page of the documentation."""
    at, lines = found["before"], []
    for name, each in found["recipes"].items():
        if "left out" in each:
            lines.append(f"| {name} | | | not run: {each['left out']} | |")
            continue
        change, general = each["change"], each["general"]
        lines.append(
            f"| {name} | {each['shape']} | {each['mrr']['value']:.3f} | {change['value']:+.3f} "
            f"[{change['low']:+.3f}, {change['high']:+.3f}] | {general['before']:.3f} -> {general['after']:.3f} |"
        )
    return (
        "<!-- Written by `make bench BENCH=real_text`. -->\n\n# Recipes on real text\n\n"
        "The [scoreboard](scoreboard.md) tests claims where the truth is known. Here every sentence recipe that can "
        f"trains MiniLM on real text for {STEPS} steps of {BATCH}, at its own rate and with its own options: on what "
        f"{found['functions'] - found['held_out']:,} functions of {', '.join(PACKAGES)} say (first lines of "
        "docstrings; as texts, as pairs with the code, as documents by module, or with the module as label; the first "
        f"of these that the recipe takes). Then what {found['held_out']} functions of other modules say has to find "
        "their code among all of them. MiniLM has seen a billion pairs, so a few steps without any relation are not "
        "expected to better it; the question is what they cost. One seed; intervals are over questions, "
        "paired with MiniLM as it was. General: Spearman's correlation on the built-in pairs of everyday English. "
        f"{found['machine']}.\n\n"
        f"MiniLM as it was: MRR {at['value']:.3f} [{at['low']:.3f}, {at['high']:.3f}].\n\n"
        "| recipe | trained on | MRR | change, 95 % | general |\n|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )
