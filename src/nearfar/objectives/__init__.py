"""The catalogue of objectives: row, view and point objectives under one calling convention each."""

from __future__ import annotations

from nearfar.objectives.base import Objective, PointObjective, RowObjective, ViewObjective
from nearfar.objectives.density import BinaryNCE
from nearfar.objectives.histograms import FastAP, Histogram
from nearfar.objectives.margin import Triplet
from nearfar.objectives.margin_pairs import SNR, Contrastive, IntraPairVariance, Margin
from nearfar.objectives.margin_structured import Circle, MultiSimilarity, RankedList, TupletMargin
from nearfar.objectives.margin_tuples import Angular, LiftedStructure
from nearfar.objectives.multiview import Alignment, BarlowTwins, Uniformity, VICReg
from nearfar.objectives.preference import MarginObjective, PreferenceObjective
from nearfar.objectives.preference_anchored import AOT, KTO, SPPO, APODown, APOZero, BCOPair, KTOPair, NCAPair
from nearfar.objectives.preference_discovered import AQFL, AQL, CELL, DBAQL, PADLL, PFL, DiscoPOP
from nearfar.objectives.preference_links import DPO, EXO, IPO, Hinge, PairwiseLink
from nearfar.objectives.preference_reference_free import CPO, ORPO, SimPO, SLiCHF
from nearfar.objectives.quadruplet import Quadruplet
from nearfar.objectives.ranking import PairwiseLogistic
from nearfar.objectives.registry import catalogue, find, get, register
from nearfar.objectives.retrieval import CLP, DropInfoNCE, MoPQ
from nearfar.objectives.sentence_terms import CLAIF, CLIM, MCSE, ClusterNS
from nearfar.objectives.sentences import DCLR, CompCSE, PromCSE, QuickThoughts, SGBert
from nearfar.objectives.softmax import DCL, DCLW, InfoNCE, SoftmaxObjective, SupCon
from nearfar.objectives.weighted import CLHAIF, GCL, relevance_weight

__all__ = [
    "AOT",
    "AQFL",
    "AQL",
    "CELL",
    "CLAIF",
    "CLHAIF",
    "CLIM",
    "CLP",
    "CPO",
    "DBAQL",
    "DCL",
    "DCLR",
    "DCLW",
    "DPO",
    "EXO",
    "GCL",
    "IPO",
    "KTO",
    "MCSE",
    "ORPO",
    "PADLL",
    "PFL",
    "SNR",
    "SPPO",
    "APODown",
    "APOZero",
    "Alignment",
    "Angular",
    "BCOPair",
    "BarlowTwins",
    "BinaryNCE",
    "Circle",
    "ClusterNS",
    "CompCSE",
    "Contrastive",
    "DiscoPOP",
    "DropInfoNCE",
    "FastAP",
    "Hinge",
    "Histogram",
    "InfoNCE",
    "IntraPairVariance",
    "KTOPair",
    "LiftedStructure",
    "Margin",
    "MarginObjective",
    "MoPQ",
    "MultiSimilarity",
    "NCAPair",
    "Objective",
    "PairwiseLink",
    "PairwiseLogistic",
    "PointObjective",
    "PreferenceObjective",
    "PromCSE",
    "Quadruplet",
    "QuickThoughts",
    "RankedList",
    "RowObjective",
    "SGBert",
    "SLiCHF",
    "SimPO",
    "SoftmaxObjective",
    "SupCon",
    "Triplet",
    "TupletMargin",
    "Uniformity",
    "VICReg",
    "ViewObjective",
    "catalogue",
    "find",
    "get",
    "register",
    "relevance_weight",
]
