"""The core: relations, scores, temperatures and the engine. Depends on torch alone."""

from __future__ import annotations

from nearfar.contrast.adjacent import Adjacent
from nearfar.contrast.engine import Report, evaluate, evaluate_with_report
from nearfar.contrast.graded import Graded
from nearfar.contrast.grouped import Grouped
from nearfar.contrast.kernel import Kernel
from nearfar.contrast.neighbours import Neighbours
from nearfar.contrast.paired import Paired, Views
from nearfar.contrast.priors import ClassPriors
from nearfar.contrast.relation import Explicit, Labels, Relation, SparseTile
from nearfar.contrast.score import (
    Angle,
    Cosine,
    Dot,
    NegativeEuclidean,
    NegativeNormalizedEuclidean,
    NegativeSNR,
    NegativeSquaredEuclidean,
    Score,
    normalize,
)
from nearfar.contrast.tagged import Tagged
from nearfar.contrast.taught import Taught
from nearfar.contrast.temperature import (
    AdaptiveTemperature,
    CosineTemperature,
    IndividualTemperature,
    ScheduledTemperature,
    Temperature,
)

__all__ = [
    "AdaptiveTemperature",
    "Adjacent",
    "Angle",
    "ClassPriors",
    "Cosine",
    "CosineTemperature",
    "Dot",
    "Explicit",
    "Graded",
    "Grouped",
    "IndividualTemperature",
    "Kernel",
    "Labels",
    "NegativeEuclidean",
    "NegativeNormalizedEuclidean",
    "NegativeSNR",
    "NegativeSquaredEuclidean",
    "Neighbours",
    "Paired",
    "Relation",
    "Report",
    "ScheduledTemperature",
    "Score",
    "SparseTile",
    "Tagged",
    "Taught",
    "Temperature",
    "Views",
    "evaluate",
    "evaluate_with_report",
    "normalize",
]
