"""How good is a model, with what certainty, and is it better than another?

::

    from nearfar import data, evaluation

    dev = data.read("dev.jsonl")
    found = evaluation.evaluate(model, dev)
    baseline = evaluation.bm25(dev, code=True)
    print(baseline.measures["mrr"])                # mrr 0.549 [0.529, 0.569] (n = 1,500)
    print(evaluation.paired_ratio(found.per_item["mrr"], baseline.per_item["mrr"]))
"""

from __future__ import annotations

from nearfar.evaluation.bm25 import bm25
from nearfar.evaluation.calibration import calibrate, calibrate_encoder
from nearfar.evaluation.classification import classification
from nearfar.evaluation.clustering import clustering
from nearfar.evaluation.evaluate import evaluate
from nearfar.evaluation.few_shot import few_shot
from nearfar.evaluation.general import general_similarity
from nearfar.evaluation.measures import Evaluation, Measure, mean_measure
from nearfar.evaluation.pair_classification import pair_classification
from nearfar.evaluation.retrieval import MEASURES, candidates, retrieval, retrieval_run
from nearfar.evaluation.similarity import similarity
from nearfar.evaluation.statistics import paired_difference, paired_ratio
from nearfar.evaluation.suites import Suite, run_suites

__all__ = [
    "MEASURES",
    "Evaluation",
    "Measure",
    "Suite",
    "bm25",
    "calibrate",
    "calibrate_encoder",
    "candidates",
    "classification",
    "clustering",
    "evaluate",
    "few_shot",
    "general_similarity",
    "mean_measure",
    "pair_classification",
    "paired_difference",
    "paired_ratio",
    "retrieval",
    "retrieval_run",
    "run_suites",
    "similarity",
]
