"""The catalogue of objectives: row, view and point objectives under one calling convention each."""

from __future__ import annotations

from nearfar.objectives.base import Objective, PointObjective, RowObjective, ViewObjective
from nearfar.objectives.density import BinaryNCE
from nearfar.objectives.margin import Triplet
from nearfar.objectives.multiview import Alignment, BarlowTwins, Uniformity, VICReg
from nearfar.objectives.preference import MarginObjective, PreferenceObjective
from nearfar.objectives.preference_anchored import AOT, KTO, SPPO, APODown, APOZero, BCOPair, KTOPair, NCAPair
from nearfar.objectives.preference_discovered import AQFL, AQL, CELL, DBAQL, PADLL, PFL, DiscoPOP
from nearfar.objectives.preference_links import DPO, EXO, IPO, Hinge, PairwiseLink
from nearfar.objectives.preference_reference_free import CPO, ORPO, SimPO, SLiCHF
from nearfar.objectives.ranking import PairwiseLogistic
from nearfar.objectives.registry import catalogue, find, get, register
from nearfar.objectives.softmax import DCL, DCLW, InfoNCE, SoftmaxObjective, SupCon

__all__ = [
    "AOT",
    "AQFL",
    "AQL",
    "CELL",
    "CPO",
    "DBAQL",
    "DCL",
    "DCLW",
    "DPO",
    "EXO",
    "IPO",
    "KTO",
    "ORPO",
    "PADLL",
    "PFL",
    "SPPO",
    "APODown",
    "APOZero",
    "Alignment",
    "BCOPair",
    "BarlowTwins",
    "BinaryNCE",
    "DiscoPOP",
    "Hinge",
    "InfoNCE",
    "KTOPair",
    "MarginObjective",
    "NCAPair",
    "Objective",
    "PairwiseLink",
    "PairwiseLogistic",
    "PointObjective",
    "PreferenceObjective",
    "RowObjective",
    "SLiCHF",
    "SimPO",
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
