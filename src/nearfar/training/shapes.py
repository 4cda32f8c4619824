"""Which objectives can be trained on which data, and what to say when one cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.encoders.abilities import has_dropout
from nearfar.errors import UsageError
from nearfar.objectives import Objective, PointObjective, RowObjective, find
from nearfar.objectives.agreement import Predicting

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

KINDS = {
    "pairs": ("row", "view"),
    "labelled texts": ("row",),
    "texts": ("row", "view"),
    "scored pairs": ("point",),
}
"""The kinds of objectives that each shape of data can be trained with."""

_ADVICE = {
    ("row", "scored pairs"): "a row objective says which candidates are near and which far, not how near a single pair "
    "is; to use one, keep the pairs that are near and name their columns anchor and positive",
    ("view", "scored pairs"): "a view objective draws the two texts of every pair together, whatever their score",
    ("view", "labelled texts"): "a view objective needs two views of each item, which labels do not give",
    ("point", "pairs"): "a point objective needs a score for each pair: columns sentence1, sentence2, score",
    ("point", "labelled texts"): "a point objective needs scored pairs: columns sentence1, sentence2, score",
    ("point", "texts"): "a point objective needs scored pairs: columns sentence1, sentence2, score",
}

_PREFERENCES = "a preference objective compares log-probabilities of responses, not embeddings"
_USUAL = ("info-nce", "supcon", "dcl", "triplet", "barlow-twins", "vicreg", "cosent", "binary-nce")


def check_fit(
    objective: Objective, shape: str, *, hard_negatives: int = 0, encoder: SentenceTransformer | None = None
) -> None:
    """Raise :class:`UsageError` when ``objective`` cannot be trained on data of ``shape``, naming what fits."""
    name = objective.name or type(objective).__name__
    if shape not in KINDS:
        raise UsageError(f"there is no shape of data {shape!r}", hint=f"choose one of {', '.join(KINDS)}")
    if objective.kind not in KINDS[shape]:
        why = _ADVICE.get((objective.kind, shape), _PREFERENCES)
        raise UsageError(
            f"{name} is a {objective.kind} objective and cannot be trained on {shape}: {why}", hint=_fitting(shape)
        )
    if isinstance(objective, PointObjective) and objective.takes != "similarities":
        raise UsageError(
            f"{name} takes {objective.takes}, which the similarity of two texts is not", hint=_fitting(shape)
        )
    if isinstance(objective, Predicting) and objective.predictor is None:
        raise UsageError(
            f"{name} collapses without a predictor and a copy of the encoder as its target, which `nearfar train` does "
            "not make",
            hint=f"call it in a training loop of your own (nearfar objectives {name}), or {_fitting(shape)}",
        )
    if objective.needs:
        raise UsageError(
            f"{name} needs {' and '.join(objective.needs)} beside the embeddings, which {shape} do not give",
            hint=f"call it in a training loop of your own (nearfar objectives {name}), or {_fitting(shape)}",
        )
    if isinstance(objective, RowObjective) and objective.needs_labels and shape != "labelled texts":
        raise UsageError(
            f"{name} is about classes of items and cannot be trained on {shape}, which have none",
            hint="give labelled texts: columns text, label",
        )
    if objective.kind == "view" and hard_negatives:
        raise UsageError(
            f"{name} contrasts two views and has no place for hard negatives",
            hint="leave the negatives out: --columns anchor=...,positive=...",
        )
    if objective.kind != "point" and getattr(objective, "reduction", "mean") == "none":
        raise UsageError(f"{name} with reduction='none' gives no single loss to train on")
    if shape == "texts" and encoder is not None and not has_dropout(encoder):
        raise UsageError(
            "texts alone are trained on by embedding each twice with different dropout, and this encoder has none",
            hint="use a transformer encoder, or give pairs (anchor, positive)",
        )


def _fitting(shape: str) -> str:
    """Advice: some objectives that fit, and how to see all."""
    usual = [name for name in _USUAL if find(name)[0].kind in KINDS[shape]]
    kinds = " or ".join(f"--kind {kind}" for kind in KINDS[shape])
    return f"objectives that fit {shape}: {', '.join(usual)}; nearfar objectives {kinds} lists all"
