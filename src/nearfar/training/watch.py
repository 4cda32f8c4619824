"""A look at the embedding space while it is trained: has it collapsed, does the loss move at all?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nearfar.training.method import ContrastiveMethod, Method

SAMPLE = 256
"""Embeddings looked at, of the last batch."""

AT_TRIVIAL = 0.02
"""A loss within this share of its trivial value counts as being there."""


def look(method: Method, loss: float, *, warmed_up: bool = True) -> dict[str, Any] | None:
    """What the last batch says of the space: ``{"random_similarity", "effective_rank"}`` of at most :data:`SAMPLE` of
    its first texts' embeddings, ``"trivial_loss"`` where there is one, and ``"verdict"``, in plain words, when
    something is wrong. None when there is nothing to look at.

    ``warmed_up``: whether the run is far enough for what is wrong to be its own doing; before, no verdict is given (a
    pretrained transformer may well begin as a narrow cone).
    """
    embeddings = method.embeddings if isinstance(method, ContrastiveMethod) else None
    if not isinstance(method, ContrastiveMethod) or embeddings is None:
        return None
    sample = _sample(embeddings, method)
    if len(sample) < 2 or not bool(torch.isfinite(sample).all()):
        return None
    from nearfar.diagnostics.geometry import collapse_verdict, effective_rank, random_similarity

    similarity, rank = random_similarity(sample), effective_rank(sample)
    found: dict[str, Any] = {"random_similarity": similarity, "effective_rank": rank}
    verdict = None
    if warmed_up:
        shape = (sample.shape[0], sample.shape[1])
        verdict = collapse_verdict(random_similarity=similarity, effective_rank=rank, shape=shape)
    trivial = trivial_loss(method)
    if trivial is not None:
        found["trivial_loss"] = trivial
        if verdict is None and warmed_up and trivial > 0 and abs(loss - trivial) <= AT_TRIVIAL * trivial:
            verdict = (
                f"The loss {loss:.3f} is what it is when all candidates score alike ({trivial:.3f}): nothing is being "
                "learnt. Raise the learning rate, or check that anchors and positives belong together."
            )
    if verdict is not None:
        found["verdict"] = verdict
    return found


def trivial_loss(method: ContrastiveMethod) -> float | None:
    """The loss of the softmax family when all scores are equal, the logarithm of the candidates an anchor has (for the
    decoupled form, of its negatives); None for other objectives."""
    report, form = getattr(method.objective, "report", None), getattr(method.objective, "softmax_form", None)
    if report is None or form is None:
        return None
    anchors = float(report.active_anchors)
    candidates = float(report.negative_pairs) + (float(report.positive_pairs) if form == "all" else 0.0)
    return math.log(candidates / anchors) if anchors and candidates > anchors else None


def _sample(embeddings: Tensor, method: ContrastiveMethod) -> Tensor:
    count = len(embeddings)
    if method.shape != "labelled texts":
        count //= 2  # one column, of different texts
    return embeddings[: min(count, SAMPLE)].float().cpu()
