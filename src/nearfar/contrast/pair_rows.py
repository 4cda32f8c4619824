"""Near pairs as rows: what objectives are evaluated on whose cost is that of a pair against all others."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.relation import Relation, Rows, Weights


class PairRows(Relation):
    """Each row is a near pair ``(rows[i], columns[i])`` of ``inner``: near to it is the pair's own key alone, far what
    is far from the pair's query.

    ``inner`` is bound, and over several processes already between the queries of this process and the keys of all.
    """

    def __init__(self, inner: Relation, rows: Tensor, columns: Tensor) -> None:
        super().__init__({}, {})
        self.inner = inner
        self.rows = rows
        self.columns = columns

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.numel(), self.inner.shape[1]

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        return self

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        return self

    def tile(self, rows: Rows, columns: Rows | None = None) -> Weights:
        positive, negative = self.inner.tile(self.rows[rows])
        own = self.columns[rows][:, None]
        positive = torch.zeros_like(positive).scatter(1, own, positive.gather(1, own))
        return (positive, negative) if columns is None else (positive[:, columns], negative[:, columns])

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        return torch.arange(self.rows.numel(), device=self.rows.device), self.columns
