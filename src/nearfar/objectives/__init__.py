"""The catalogue of objectives: row, view and point objectives under one calling convention each."""

from __future__ import annotations

from nearfar.objectives.base import Objective, PointObjective, RowObjective, ViewObjective
from nearfar.objectives.correlation import DCCA, DCCAE, CorInfoMax, CorrAE, DistAE, SplitAE
from nearfar.objectives.debiased import Debiased, HardNegative
from nearfar.objectives.density import BinaryNCE
from nearfar.objectives.divergences import FMICL, SpectralContrastive
from nearfar.objectives.geometry import CARE, Equivariance, KoLeo, SepCLR
from nearfar.objectives.histograms import FastAP, Histogram
from nearfar.objectives.live_temperature import MACL, ISogCLR, SogCLR
from nearfar.objectives.margin import Triplet
from nearfar.objectives.margin_pairs import SNR, Contrastive, IntraPairVariance, Margin
from nearfar.objectives.margin_structured import Circle, MultiSimilarity, RankedList, TupletMargin
from nearfar.objectives.margin_tuples import Angular, LiftedStructure
from nearfar.objectives.momentum import NNCLR, MoCo, MoCoDualHard
from nearfar.objectives.multiview import Alignment, AlignUniform, BarlowTwins, Uniformity, VICReg
from nearfar.objectives.multiview_softmax import DHEL, MVDHEL, MVInfoNCE, PolyView
from nearfar.objectives.pairwise_softmax import CPC, NCA, NPairs, SigLIP
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
    "CARE",
    "CELL",
    "CLAIF",
    "CLHAIF",
    "CLIM",
    "CLP",
    "CPC",
    "CPO",
    "DBAQL",
    "DCCA",
    "DCCAE",
    "DCL",
    "DCLR",
    "DCLW",
    "DHEL",
    "DPO",
    "EXO",
    "FMICL",
    "GCL",
    "IPO",
    "KTO",
    "MACL",
    "MCSE",
    "MVDHEL",
    "NCA",
    "NNCLR",
    "ORPO",
    "PADLL",
    "PFL",
    "SNR",
    "SPPO",
    "APODown",
    "APOZero",
    "AlignUniform",
    "Alignment",
    "Angular",
    "BCOPair",
    "BarlowTwins",
    "BinaryNCE",
    "Circle",
    "ClusterNS",
    "CompCSE",
    "Contrastive",
    "CorInfoMax",
    "CorrAE",
    "Debiased",
    "DiscoPOP",
    "DistAE",
    "DropInfoNCE",
    "Equivariance",
    "FastAP",
    "HardNegative",
    "Hinge",
    "Histogram",
    "ISogCLR",
    "InfoNCE",
    "IntraPairVariance",
    "KTOPair",
    "KoLeo",
    "LiftedStructure",
    "MVInfoNCE",
    "Margin",
    "MarginObjective",
    "MoCo",
    "MoCoDualHard",
    "MoPQ",
    "MultiSimilarity",
    "NCAPair",
    "NPairs",
    "Objective",
    "PairwiseLink",
    "PairwiseLogistic",
    "PointObjective",
    "PolyView",
    "PreferenceObjective",
    "PromCSE",
    "Quadruplet",
    "QuickThoughts",
    "RankedList",
    "RowObjective",
    "SGBert",
    "SLiCHF",
    "SepCLR",
    "SigLIP",
    "SimPO",
    "SoftmaxObjective",
    "SogCLR",
    "SpectralContrastive",
    "SplitAE",
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
