"""Where negatives come from: batches, earlier batches, files of embeddings, and those that are made."""

from __future__ import annotations

from nearfar.negatives.bank import MemoryBank
from nearfar.negatives.batches import Batches, OrderedBatches, batch_sizes
from nearfar.negatives.class_queue import ClassQueue
from nearfar.negatives.clusters import ClusterMemory
from nearfar.negatives.duplicates import NoDuplicateBatches
from nearfar.negatives.guide import mask_by_guide
from nearfar.negatives.label_pairs import LabelPairBatches, LabelPairs
from nearfar.negatives.labels import LabelBatches
from nearfar.negatives.mined_pairs import MinedPairs, mine_pairs
from nearfar.negatives.mining import Mined, MiningRules, mine
from nearfar.negatives.mixup import HarderNegatives, Mixed, mix_hard_negatives, mix_items
from nearfar.negatives.noise import gaussian, harder
from nearfar.negatives.partners import partner_classes
from nearfar.negatives.queue import CrossBatchMemory, Queue
from nearfar.negatives.samplers import ClassSampler, PerClassBatches, class_shares, class_slots, draw_per_class
from nearfar.negatives.weighting import by_cluster, by_complement, own_negatives

__all__ = [
    "Batches",
    "ClassQueue",
    "ClassSampler",
    "ClusterMemory",
    "CrossBatchMemory",
    "HarderNegatives",
    "LabelBatches",
    "LabelPairBatches",
    "LabelPairs",
    "MemoryBank",
    "Mined",
    "MinedPairs",
    "MiningRules",
    "Mixed",
    "NoDuplicateBatches",
    "OrderedBatches",
    "PerClassBatches",
    "Queue",
    "batch_sizes",
    "by_cluster",
    "by_complement",
    "class_shares",
    "class_slots",
    "draw_per_class",
    "gaussian",
    "harder",
    "mask_by_guide",
    "mine",
    "mine_pairs",
    "mix_hard_negatives",
    "mix_items",
    "own_negatives",
    "partner_classes",
]
