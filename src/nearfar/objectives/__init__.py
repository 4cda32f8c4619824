"""The catalogue of objectives: row, view and point objectives under one calling convention each."""

from __future__ import annotations

from nearfar.objectives.base import Objective, PointObjective, RowObjective, ViewObjective
from nearfar.objectives.density import BinaryNCE
from nearfar.objectives.margin import Triplet
from nearfar.objectives.multiview import Alignment, BarlowTwins, Uniformity, VICReg
from nearfar.objectives.ranking import PairwiseLogistic
from nearfar.objectives.registry import catalogue, find, get, register
from nearfar.objectives.softmax import DCL, DCLW, InfoNCE, SoftmaxObjective, SupCon

__all__ = [
    "DCL",
    "DCLW",
    "Alignment",
    "BarlowTwins",
    "BinaryNCE",
    "InfoNCE",
    "Objective",
    "PairwiseLogistic",
    "PointObjective",
    "RowObjective",
    "SoftmaxObjective",
    "SupCon",
    "Triplet",
    "Uniformity",
    "VICReg",
    "ViewObjective",
    "catalogue",
    "find",
    "get",
    "register",
]
