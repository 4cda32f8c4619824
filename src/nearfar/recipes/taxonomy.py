"""The taxonomy of contrastive methods (Le-Khac et al., 2020), and what stands in each of its cells here.

Four slots: where positive pairs come from (A), how keys are made (B), what is between representation and score (C), and
the loss (D). A method takes one cell of each: 5 x 3 x 3 x 3 combinations, all of which can be built by name::

    from nearfar.data.synthetic import Sensors
    from nearfar.recipes import taxonomy

    for names in taxonomy.product():
        method = taxonomy.build(*names, Sensors(seed=0), encoder, features=32, dimension=8)
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from nearfar import objectives
from nearfar.data.synthetic import Sensors
from nearfar.errors import UsageError
from nearfar.objectives import Objective
from nearfar.training.compose import Composed, compose

Slot = Literal["pairs", "keys", "head", "loss"]

QUESTIONS: dict[Slot, str] = {
    "pairs": "Where do positive pairs come from?",
    "keys": "How are keys made?",
    "head": "What is between the representation and the score?",
    "loss": "What does a wrong order cost?",
}


@dataclass(frozen=True)
class Cell:
    """One class of one slot.

    Arguments:
        code: the paper's place, such as ``"A1"``.
        slot, name: which it is.
        rule: what makes a method one of it, in a sentence.
        component: the name under which :func:`build` takes it: of a source of pairs, of a regime, of a head, of an
            objective.
        parts: the library's parts that stand in it, as ``module:name``; objectives follow by their modules.
    """

    code: str
    slot: Slot
    name: str
    rule: str
    component: str
    parts: tuple[str, ...] = ()


CELLS: tuple[Cell, ...] = (
    Cell(
        "A1",
        "pairs",
        "multisensory",
        "One event by several sensors, modalities or viewpoints; the sensor is forgotten.",
        "multisensory",
        ("views.pairs:Multisensory", "contrast:Paired", "data.synthetic:Sensors"),
    ),
    Cell(
        "A2",
        "pairs",
        "transformation",
        "Two transformations of one sample; what they change is forgotten.",
        "transformation",
        ("views.pairs:Transformation", "views:simclr_views", "views:Compose", "contrast:Views"),
    ),
    Cell(
        "A3",
        "pairs",
        "context-instance",
        "A part of a sample and the whole of it; local detail is forgotten.",
        "context-instance",
        ("views.pairs:ContextInstance", "views.pairs:Block", "objectives:CPC"),
    ),
    Cell(
        "A4",
        "pairs",
        "sequential",
        "Neighbours in a sequence; what changes quickly is forgotten.",
        "sequential",
        ("views.pairs:Sequential", "contrast:Adjacent", "objectives:QuickThoughts"),
    ),
    Cell(
        "A5",
        "pairs",
        "clustering",
        "Items of one class or of one cluster that was found; variation within it is forgotten.",
        "clustering",
        (
            "views.pairs:Clustering",
            "contrast:Labels",
            "contrast:Kernel",
            "contrast:Neighbours",
            "negatives:LabelBatches",
        ),
    ),
    Cell(
        "B1",
        "keys",
        "end-to-end",
        "Queries and keys are both trained, by one encoder or one each.",
        "end-to-end",
        ("training.keys:EndToEnd", "training.method:ContrastiveMethod"),
    ),
    Cell(
        "B2",
        "keys",
        "online-offline",
        "Keys come from past weights or are past features; no gradient reaches them.",
        "online-offline",
        (
            "training.keys:OnlineOffline",
            "training.keys:Banked",
            "training.momentum:MomentumContrast",
            "encoders.momentum:MomentumCopy",
            "negatives:Queue",
            "negatives:MemoryBank",
            "negatives:CrossBatchMemory",
        ),
    ),
    Cell(
        "B3",
        "keys",
        "pre-trained",
        "The encoder was trained for something else before; keys may stay there.",
        "pre-trained",
        ("training.keys:PreTrained", "encoders:load"),
    ),
    Cell(
        "C1",
        "head",
        "projection",
        "A linear map or perceptron of each vector to fewer dimensions.",
        "projection",
        ("encoders.heads:Projection", "encoders.heads:Prediction", "encoders.perceptron:Perceptron"),
    ),
    Cell(
        "C2",
        "head",
        "contextualisation",
        "Several vectors become one: recurrence, attention, their mean.",
        "contextualisation",
        ("encoders.sequence:GRUEncoder", "encoders.context:Context"),
    ),
    Cell(
        "C3",
        "head",
        "quantisation",
        "Many vectors become few codes.",
        "quantisation",
        (
            "encoders.quantization:ProductQuantizer",
            "encoders.quantization:BalancedCodes",
            "encoders.heads:Prototypes",
            "objectives:SwaV",
            "objectives:MoPQ",
            "negatives:ClusterMemory",
        ),
    ),
    Cell(
        "D1",
        "loss",
        "margin",
        "Energies: near pairs are pulled, far pairs pushed until they are a margin apart.",
        "triplet",
    ),
    Cell(
        "D2",
        "loss",
        "nce",
        "Probabilities: which of the candidates is the near one, or is this one near?",
        "info-nce",
    ),
    Cell(
        "D3",
        "loss",
        "mutual-information",
        "Bounds and divergences between pairs that belong together and pairs that do not.",
        "jsd",
    ),
)
"""All cells, in the paper's order."""

_LOSS_MODULES: dict[str, tuple[str, ...]] = {
    "margin": ("attraction", "margin", "margin_pairs", "margin_structured", "margin_tuples", "quadruplet"),
    "nce": (
        "classifiers",
        "conditional",
        "debiased",
        "density",
        "gated",
        "kernels",
        "live_temperature",
        "long_tail",
        "momentum",
        "multilabel",
        "multiview_softmax",
        "pairwise_softmax",
        "proxies",
        "regression",
        "retrieval",
        "sentences",
        "sets",
        "softmax",
        "weighted",
    ),
    "mutual-information": ("divergences", "information"),
}
_LOSS_NAMES = {
    "center": "nce",
    "clusterns": "nce",
    "mcse": "nce",
    "pairwise-hinge": "margin",
    "pairwise-logistic": "nce",
    "mw-loss": "nce",
    "swav": "nce",
}
_BEYOND: dict[str, tuple[str, ...]] = {
    "compare statistics of whole views, or add a term to a contrast, where no pair is scored as far": (
        "agreement",
        "attention",
        "correlation",
        "geometry",
        "multiview",
        "sentence_terms",
    ),
    "rank lists by graded relevance or by a measure of rankings": (
        "group_order",
        "histograms",
        "ranking",
        "ranking_batch",
        "ranking_in_context",
        "ranking_lists",
        "ranking_metrics",
    ),
    "compare rewards and log-probabilities of responses instead of embeddings": (
        "likelihood",
        "preference_anchored",
        "preference_discovered",
        "preference_groups",
        "preference_links",
        "preference_policy",
        "preference_reference_free",
        "preference_relative",
        "preference_rewarded",
        "preference_weighted",
    ),
    "learn from a teacher's scores": ("distillation",),
    "wrap or combine others, and stand where those stand": ("combination", "matryoshka", "wrappers"),
}


def cells(slot: Slot | None = None) -> list[Cell]:
    """The cells of a slot, or all."""
    return [cell for cell in CELLS if slot in (None, cell.slot)]


def cell(slot: Slot, name: str) -> Cell:
    """The cell of that name or code. Raises :class:`~nearfar.errors.UsageError` for none, with those there are."""
    for found in cells(slot):
        if name.lower() in (found.name, found.code.lower()):
            return found
    known = ", ".join(f"{found.name} ({found.code})" for found in cells(slot))
    raise UsageError(f"the slot {slot!r} has no cell {name!r}", hint=f"choose one of {known}")


def place(objective: type[Objective]) -> str:
    """The loss group of an objective (``"margin"``, ``"nce"``, ``"mutual-information"``), or why it stands in none."""
    module = objective.__module__.rpartition(".")[2]
    if objective.name in _LOSS_NAMES:
        return _LOSS_NAMES[objective.name]
    for group, modules in (*_LOSS_MODULES.items(), *_BEYOND.items()):
        if module in modules:
            return group
    raise UsageError(f"nothing is known of the place of {objective.name}", hint="add its module to this table")


def members(cell: Cell) -> list[str]:
    """What stands in a cell: dotted names of parts, or names of objectives."""
    if cell.slot == "loss":
        return [found.name for found in objectives.catalogue() if place(found) == cell.name]
    return ["nearfar." + part.replace(":", ".") for part in cell.parts]


def resolve(part: str) -> Any:
    """The object that a part's ``module:name`` names."""
    module, _, name = part.partition(":")
    return getattr(importlib.import_module(f"nearfar.{module}"), name)


def product() -> Iterator[tuple[str, str, str, str]]:
    """The names of all combinations: of pairs, keys, head and loss."""
    names = [[found.name for found in cells(slot)] for slot in QUESTIONS]
    yield from itertools.product(*names)


def build(
    pairs: str,
    keys: str,
    head: str,
    loss: str,
    world: Sensors,
    encoder: nn.Module,
    *,
    features: int,
    dimension: int,
    width: int = 4,
    **options: Any,
) -> Composed:
    """A method on a world of sensors by the names (or codes) of its four cells.

    Arguments:
        pairs, keys, head, loss: see :data:`CELLS`.
        world: what is learned from.
        encoder: ``[..., world.dimension] -> [..., features]``; for ``"pre-trained"`` keys one that has been trained.
        features, dimension: sizes of the representation and of the metric embedding.
        width: of the windows that a contextualising head sees.
        options: further ones of :func:`nearfar.training.compose.compose`.
    """
    contextual = cell("head", head).name == "contextualisation"
    return compose(
        world.pairs(cell("pairs", pairs).component, width=width if contextual else 1),
        encoder,
        features=features,
        dimension=dimension,
        keys=cell("keys", keys).component,
        head=cell("head", head).component,
        objective=cell("loss", loss).component,
        **options,
    )


EXAMPLE = """\
import torch

from nearfar.data.synthetic import Sensors
from nearfar.encoders.perceptron import Perceptron
from nearfar.training.compose import compose
from nearfar.training.steps import random_batches, train_steps
from nearfar.views.pairs import Transformation, looks
from nearfar.views.tabular import FeatureNoise

# two sensors at one step, keys of a momentum encoder and a queue, prototype codes, a margin
world = Sensors(seed=0)
method = compose(
    world.pairs("multisensory"),
    Perceptron((24, 64, 32)),
    features=32,
    dimension=8,
    keys="online-offline",
    head="prototypes",
    objective="triplet",
)
batches = random_batches(len(world), 64, 20, torch.Generator().manual_seed(0))
train_steps(lambda index: method({"index": index})[0], [method], batches, after_step=method.after_step)
vectors = method.keys.encoder(world.measure(torch.arange(5)))

# on a table of your own: two noisy looks at each row
table = torch.randn(500, 24)
source = Transformation(looks(table, FeatureNoise()))
own = compose(source, Perceptron((24, 64, 32)), features=32, dimension=8, objective="dcl", temperature=0.1)
"""
"""How parts are combined by name, as the page shows it."""


def page() -> str:
    """The taxonomy as a page of the documentation, in Markdown."""
    lines = [
        "# Taxonomy\n",
        "Every contrastive method is a source of pairs, a regime of keys, a head and a loss (Le-Khac et al., 2020, "
        "arXiv:2010.05113). What of the library stands in which cell; every combination of cells can be built by name, "
        "`nearfar.recipes.taxonomy.build`, and is trained in the tests. The choice of pairs decides what a "
        "representation forgets: that is the claim of the recipe `crl-framework`.\n",
        f"```python\n{EXAMPLE}```\n",
    ]
    for slot, question in QUESTIONS.items():
        lines += [f"## {question}\n", "| | cell | rule | here |", "|---|---|---|---|"]
        for found in cells(slot):
            here = ", ".join(f"`{name}`" for name in members(found))
            lines.append(f"| {found.code} | {found.name} | {found.rule} | {here} |")
        lines.append("")
    lines += ["## Objectives outside the three groups\n", "| they | which |", "|---|---|"]
    for reason in _BEYOND:
        names = [found.name for found in objectives.catalogue() if place(found) == reason]
        lines.append(f"| {reason} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(lines) + "\n"
