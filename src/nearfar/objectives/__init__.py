"""The catalogue of objectives: row, view and point objectives under one calling convention each."""

from __future__ import annotations

from nearfar.objectives.agreement import BYOL, DINO, UNSEE, NegativeCosine, SimSiam, SwaV, sinkhorn
from nearfar.objectives.attention import MiCSE
from nearfar.objectives.attraction import CACR
from nearfar.objectives.base import Objective, PointObjective, RowObjective, ViewObjective
from nearfar.objectives.center import Center
from nearfar.objectives.classifiers import ArcFace, CosFace, NormSoftmax, SphereFace
from nearfar.objectives.combination import MGDA, Combination, Combined, LinearScalarization, min_norm_weights
from nearfar.objectives.conditional import CCLK
from nearfar.objectives.correlation import DCCA, DCCAE, CorInfoMax, CorrAE, DistAE, SplitAE
from nearfar.objectives.debiased import Debiased, HardNegative
from nearfar.objectives.density import MECO, BinaryNCE, RankingNCE
from nearfar.objectives.distillation import KL, MarginMSE
from nearfar.objectives.divergences import FMICL, SpectralContrastive
from nearfar.objectives.gated import Hydra
from nearfar.objectives.geometry import CARE, Equivariance, KoLeo, SepCLR
from nearfar.objectives.group_order import GroCo
from nearfar.objectives.histograms import FastAP, Histogram
from nearfar.objectives.information import JSD, MINE, NWJ, SMILE, InfoNCEBound, InterpolatedBound
from nearfar.objectives.kernels import KernelInfoNCE
from nearfar.objectives.likelihood import ImplicitRewardSFT, ProbabilitySFT
from nearfar.objectives.live_temperature import MACL, ISogCLR, SogCLR
from nearfar.objectives.long_tail import GML
from nearfar.objectives.margin import Triplet
from nearfar.objectives.margin_pairs import SNR, Contrastive, IntraPairVariance, Margin
from nearfar.objectives.margin_structured import Circle, MultiSimilarity, RankedList, TupletMargin
from nearfar.objectives.margin_tuples import Angular, LiftedStructure
from nearfar.objectives.matryoshka import Matryoshka
from nearfar.objectives.momentum import NNCLR, MoCo, MoCoDualHard
from nearfar.objectives.multilabel import CatLIP
from nearfar.objectives.multiview import Alignment, AlignUniform, BarlowTwins, Uniformity, VICReg
from nearfar.objectives.multiview_softmax import DHEL, MVDHEL, MVInfoNCE, PolyView
from nearfar.objectives.pairwise_softmax import CPC, NCA, NPairs, SigLIP
from nearfar.objectives.preference import MarginObjective, PreferenceObjective
from nearfar.objectives.preference_anchored import AOT, KTO, SPPO, APODown, APOZero, BCOPair, KTOPair, NCAPair
from nearfar.objectives.preference_discovered import AQFL, AQL, CELL, DBAQL, PADLL, PFL, DiscoPOP
from nearfar.objectives.preference_groups import AMPO, RRHF, CandidateRanking, DisCO
from nearfar.objectives.preference_links import DPO, EXO, IPO, Hinge, PairwiseLink
from nearfar.objectives.preference_policy import GRPO
from nearfar.objectives.preference_reference_free import CPO, ORPO, SimPO, SLiCHF
from nearfar.objectives.preference_relative import RPO
from nearfar.objectives.preference_rewarded import DNO, DROP, DROV, MAPL, CoPG, GroupCoPG, RewardModeling
from nearfar.objectives.preference_weighted import BestOfN, RewardWeighted
from nearfar.objectives.proxies import ProxyAnchor, ProxyNCA, ProxyObjective, SoftTriple
from nearfar.objectives.quadruplet import Quadruplet
from nearfar.objectives.ranking import PairwiseHinge, PairwiseLogistic, PairwiseObjective
from nearfar.objectives.ranking_batch import AnglE, CoSENT, MannWhitney
from nearfar.objectives.ranking_in_context import IRPO
from nearfar.objectives.ranking_lists import ListMLE, ListNet, PointMSE, PointSigmoid
from nearfar.objectives.ranking_metrics import ApproxNDCG, LambdaRank, SmoothAP
from nearfar.objectives.registry import catalogue, find, get, register
from nearfar.objectives.regression import SupReMix
from nearfar.objectives.retrieval import CLP, DropInfoNCE, MoPQ
from nearfar.objectives.sentence_terms import CLAIF, CLIM, MCSE, ClusterNS
from nearfar.objectives.sentences import DCLR, CompCSE, PromCSE, QuickThoughts, SGBert
from nearfar.objectives.sets import SetCSE
from nearfar.objectives.softmax import DCL, DCLW, InfoNCE, SoftmaxObjective, SupCon
from nearfar.objectives.weighted import CLHAIF, GCL, relevance_weight
from nearfar.objectives.wrappers import HardnessWeighted, MultiView, Symmetric

__all__ = [
    "AMPO",
    "AOT",
    "AQFL",
    "AQL",
    "BYOL",
    "CACR",
    "CARE",
    "CCLK",
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
    "DINO",
    "DNO",
    "DPO",
    "DROP",
    "DROV",
    "EXO",
    "FMICL",
    "GCL",
    "GML",
    "GRPO",
    "IPO",
    "IRPO",
    "JSD",
    "KL",
    "KTO",
    "MACL",
    "MAPL",
    "MCSE",
    "MECO",
    "MGDA",
    "MINE",
    "MVDHEL",
    "NCA",
    "NNCLR",
    "NWJ",
    "ORPO",
    "PADLL",
    "PFL",
    "RPO",
    "RRHF",
    "SMILE",
    "SNR",
    "SPPO",
    "UNSEE",
    "APODown",
    "APOZero",
    "AlignUniform",
    "Alignment",
    "AnglE",
    "Angular",
    "ApproxNDCG",
    "ArcFace",
    "BCOPair",
    "BarlowTwins",
    "BestOfN",
    "BinaryNCE",
    "CandidateRanking",
    "CatLIP",
    "Center",
    "Circle",
    "ClusterNS",
    "CoPG",
    "CoSENT",
    "Combination",
    "Combined",
    "CompCSE",
    "Contrastive",
    "CorInfoMax",
    "CorrAE",
    "CosFace",
    "Debiased",
    "DisCO",
    "DiscoPOP",
    "DistAE",
    "DropInfoNCE",
    "Equivariance",
    "FastAP",
    "GroCo",
    "GroupCoPG",
    "HardNegative",
    "HardnessWeighted",
    "Hinge",
    "Histogram",
    "Hydra",
    "ISogCLR",
    "ImplicitRewardSFT",
    "InfoNCE",
    "InfoNCEBound",
    "InterpolatedBound",
    "IntraPairVariance",
    "KTOPair",
    "KernelInfoNCE",
    "KoLeo",
    "LambdaRank",
    "LiftedStructure",
    "LinearScalarization",
    "ListMLE",
    "ListNet",
    "MVInfoNCE",
    "MannWhitney",
    "Margin",
    "MarginMSE",
    "MarginObjective",
    "Matryoshka",
    "MiCSE",
    "MoCo",
    "MoCoDualHard",
    "MoPQ",
    "MultiSimilarity",
    "MultiView",
    "NCAPair",
    "NPairs",
    "NegativeCosine",
    "NormSoftmax",
    "Objective",
    "PairwiseHinge",
    "PairwiseLink",
    "PairwiseLogistic",
    "PairwiseObjective",
    "PointMSE",
    "PointObjective",
    "PointSigmoid",
    "PolyView",
    "PreferenceObjective",
    "ProbabilitySFT",
    "PromCSE",
    "ProxyAnchor",
    "ProxyNCA",
    "ProxyObjective",
    "Quadruplet",
    "QuickThoughts",
    "RankedList",
    "RankingNCE",
    "RewardModeling",
    "RewardWeighted",
    "RowObjective",
    "SGBert",
    "SLiCHF",
    "SepCLR",
    "SetCSE",
    "SigLIP",
    "SimPO",
    "SimSiam",
    "SmoothAP",
    "SoftTriple",
    "SoftmaxObjective",
    "SogCLR",
    "SpectralContrastive",
    "SphereFace",
    "SplitAE",
    "SupCon",
    "SupReMix",
    "SwaV",
    "Symmetric",
    "Triplet",
    "TupletMargin",
    "Uniformity",
    "VICReg",
    "ViewObjective",
    "catalogue",
    "find",
    "get",
    "min_norm_weights",
    "register",
    "relevance_weight",
    "sinkhorn",
]
