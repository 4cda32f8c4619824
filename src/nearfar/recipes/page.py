"""A recipe as a page to be read: the same sections in the terminal and in the documentation."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nearfar.recipes.recipe import Recipe
from nearfar.training.by_recipe import NEEDS

FILES = {
    "texts": "corpus.txt",
    "pairs": "pairs.jsonl",
    "labelled texts": "labelled.csv",
    "scored pairs": "scored.csv",
    "documents": "documents.jsonl",
    "captions": "captions.jsonl",
    "domains": "domains.jsonl",
}
"""Data of a shape, in examples of commands."""


@dataclass(frozen=True)
class Part:
    """One section: its heading, and a paragraph, a list of terms with what they are, a list, or lines of code."""

    title: str
    kind: Literal["text", "terms", "list", "code"]
    content: Sequence[tuple[str, str]]
    """``(term, text)`` each; the term is empty where the kind has none."""


def parts(recipe: Recipe) -> list[Part]:
    """Everything that a recipe says, section by section; empty ones are left out."""
    found = [
        _text("Claim", recipe.claim),
        Part("Parts", "terms", list(recipe.parts.items())),
        Part("Defaults", "terms", [(name, str(value)) for name, value in recipe.defaults.items()]),
        _text("World of the experiment", recipe.world),
        Part(
            "Statements: all must hold",
            "list",
            [
                ("", str(said) + (f" ({'margin: ' if said.margin else ''}{said.because})" if said.because else ""))
                for said in recipe.statements
            ],
        ),
        _text("Sabotage that must not pass", recipe.sabotage),
        _text("Not asserted", recipe.not_asserted),
        _text("Checked against", recipe.verified),
        _text("Weak", "the formula is an interpretation, or the paper's figures were not seen" if recipe.weak else ""),
        Part("Training on your own texts", "terms", training(recipe)),
        Part("Use", "code", [("", line) for line in use(recipe)]),
    ]
    return [part for part in found if any(text.strip() for _, text in part.content)]


def training(recipe: Recipe) -> list[tuple[str, str]]:
    """What it does with data of each shape, what it needs, its options, and the settings that the paper sets."""
    how = recipe.training
    if how is None:
        return []
    found = list(how.shapes.items())
    if how.needs:
        found.append(("the encoder needs", ", ".join(NEEDS[need] for need in how.needs)))
    for name, values in (("options (--set)", how.options), ("settings", how.settings)):
        if values:
            found.append((name, ", ".join(f"{each}={value}" for each, value in values.items())))
    return found


def use(recipe: Recipe) -> list[str]:
    """Lines that train by it, that build the paper's objective, and that run its experiment."""
    name = recipe.id if recipe.wing != "own" else f"{recipe.id}.py"
    lines = [f"nearfar reproduce {name}"]
    if recipe.training is not None:
        file = FILES.get(next(iter(recipe.training.shapes)), "data.jsonl")
        lines.insert(0, f"nearfar train {file} --recipe {name} --encoder minilm --output runs/{recipe.id}")
    if recipe.build is None:
        return lines
    lines += [
        "",
        "# in Python, on your own data",
        "from nearfar import recipes",
        f'objective = recipes.find("{name}").build({_arguments(recipe)})',
    ]
    registered = getattr(recipe.build, "name", None)
    if isinstance(registered, str):
        lines += ["", "# how the objective is called, and all its options", f"nearfar objectives {registered}"]
    return lines


def _arguments(recipe: Recipe) -> str:
    """What ``build`` needs, and those of the paper's defaults that it takes."""
    assert recipe.build is not None
    try:
        known = inspect.signature(recipe.build).parameters.values()
    except ValueError:
        return ""
    said = []
    for parameter in known:
        if parameter.name in recipe.defaults:
            said.append(f"{parameter.name}={recipe.defaults[parameter.name]!r}")
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            said.append(f"{parameter.name}=...")
    return ", ".join(said)


def _text(title: str, text: str) -> Part:
    return Part(title, "text", [("", text)])


def markdown(recipe: Recipe) -> list[str]:
    """The page as lines of Markdown, under a heading of the second level."""
    paper = recipe.paper
    where = f", [arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
    lines = [f"\n## {recipe.id}\n", f"*{paper.title}*. {paper.authors}, {paper.year}{where}.\n"]
    for part in parts(recipe):
        if part.kind == "text":
            lines.append(f"**{part.title}.** {part.content[0][1]}\n")
        elif part.kind == "code":
            lines += [f"**{part.title}.**\n", "```", *(text for _, text in part.content), "```\n"]
        else:
            lines.append(f"**{part.title}.**\n")
            lines += [f"- {f'{term}: ' if term else ''}{text}" for term, text in part.content]
            lines.append("")
    return lines
