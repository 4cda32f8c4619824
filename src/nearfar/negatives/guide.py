"""False negatives found by a guide: a second model says which candidates are too near to be taken for negatives."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import normalize
from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation
from nearfar.errors import UsageError


def mask_by_guide(
    relation: Relation,
    query: Tensor,
    key: Tensor | None = None,
    *,
    nearest_positive: Tensor | None = None,
    margin: float = 0.0,
    relative: bool = False,
    group: dist.ProcessGroup | None = None,
) -> Relation:
    """``relation`` without the negatives that a guide model finds nearer to the query than its positive.

    A pair (i, j) is ignored when ``g_ij > t_i`` and j is no positive of i, with g the cosine of the guide's embeddings
    and ``t_i = g_ip - margin`` or, ``relative``, ``t_i = g_ip - margin |g_ip|`` (GISTEmbed, Solatorio, 2024,
    arXiv:2402.16829, where the margin is 0; margins as in NV-Retriever, Moreira et al., 2024, arXiv:2407.15831).
    Works with any row objective, in memory linear in the batch: the guide's scores are made tile by tile.

    Arguments:
        relation: of the batch; query i's positive is key i unless ``nearest_positive`` says otherwise.
        query: the guide's embeddings ``[n, d]`` of the queries; they need not have the student's dimension.
        key: of the keys ``[m, d]``; None in self-contrast.
        nearest_positive: ``g_ip`` ``[n]`` where key i is not query i's positive (self-contrast, several positives).
        margin: >= 0, default 0.
        group: over several processes, the group of the batch: rows and columns are those of the global batch.

    Raises ValueError for embeddings that do not fit, UsageError for a negative margin.
    """
    if margin < 0:
        raise UsageError(f"mask_by_guide: the margin must be >= 0, got {margin}")
    with torch.no_grad():
        guide_query = normalize(at_least_float32(query.detach()))
        guide_key = guide_query if key is None else normalize(at_least_float32(key.detach()))
        if guide_query.dim() != 2 or guide_query.shape[1:] != guide_key.shape[1:]:
            raise ValueError(
                f"the guide's embeddings are {tuple(query.shape)} and {tuple(guide_key.shape)}: their dimensions differ"
            )
        if nearest_positive is None:
            if key is None or guide_key.shape[0] < guide_query.shape[0]:
                raise ValueError("mask_by_guide: without a key for each query give nearest_positive")
            nearest_positive = (guide_query * guide_key[: guide_query.shape[0]]).sum(1)
        nearest = at_least_float32(nearest_positive.detach())
        threshold = nearest - margin * (nearest.abs() if relative else 1)
        if group is not None:
            rows = GatheredRows(guide_query.shape[0], group, query.device)
            keys = rows if key is None else GatheredRows(guide_key.shape[0], group, query.device)
            guide_query, threshold, guide_key = rows.gather(guide_query), rows.gather(threshold), keys.gather(guide_key)

    def too_near(positive: Tensor, negative: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        false = guide_query[rows] @ guide_key[columns].T > threshold[rows, None]
        return positive, negative.masked_fill(false, 0)

    return relation.reweight(too_near)
