"""Where negatives come from: the batches that are contrasted among themselves."""

from __future__ import annotations

from nearfar.negatives.batches import Batches, batch_sizes
from nearfar.negatives.duplicates import NoDuplicateBatches
from nearfar.negatives.labels import LabelBatches

__all__ = ["Batches", "LabelBatches", "NoDuplicateBatches", "batch_sizes"]
