"""The same losses by peers, on the same embeddings: time, peak memory, and the values, which must agree."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure import machine, measure
from nearfar.contrast import Labels
from nearfar.objectives import InfoNCE, SupCon


class Ready(nn.Sequential):
    """An encoder whose embeddings are ready: what sentence-transformers' losses are given here."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["sentence_embedding"] + 0.0}


def run(n: int = 4_096, d: int = 384, repeat: int = 3) -> None:
    """Print a table: one row a loss and library."""
    from pytorch_metric_learning.losses import SupConLoss
    from sentence_transformers import losses

    print(f"n = {n:,}, d = {d}, float32, forward + backward; {machine()}")
    torch.manual_seed(0)
    query, key = torch.randn(n, d, requires_grad=True), torch.randn(n, d, requires_grad=True)
    labels = torch.arange(n) % (n // 4)
    infonce, supcon = InfoNCE(temperature=0.05), SupCon(temperature=0.1)
    ranking = losses.MultipleNegativesRankingLoss(Ready(), scale=20.0)
    cached = losses.CachedMultipleNegativesRankingLoss(Ready(), scale=20.0, mini_batch_size=256)
    peer_supcon = SupConLoss(temperature=0.1)
    features = [{"sentence_embedding": query}, {"sentence_embedding": key}]
    calls: dict[str, Callable[[], Tensor]] = {
        "InfoNCE: nearfar": lambda: infonce(query, key, memory="tiled"),
        "InfoNCE: nearfar, dense": lambda: infonce(query, key, memory="dense"),
        "InfoNCE: sentence-transformers MultipleNegativesRankingLoss": lambda: ranking(features, None),
        "InfoNCE: sentence-transformers CachedMultipleNegativesRankingLoss": lambda: cached(features, None),
        "SupCon: nearfar": lambda: supcon(query, relation=Labels(labels), memory="tiled"),
        "SupCon: pytorch-metric-learning SupConLoss": lambda: peer_supcon(query, labels),
    }
    print(f"{'':70s}{'seconds':>9s}{'peak MiB':>10s}{'loss':>14s}{'x nearfar':>11s}")
    reference: dict[str, tuple[float, float]] = {}
    for name, call in calls.items():
        values: list[float] = []

        def forward_backward(call: Callable[[], Tensor] = call, values: list[float] = values) -> None:
            query.grad = key.grad = None
            loss = call()
            loss.backward()
            values.append(loss.item())

        cost = measure(forward_backward, repeat=repeat)
        seconds, value = reference.setdefault(name.split(":")[0], (cost.seconds, values[-1]))
        agrees = abs(values[-1] - value) <= 1e-4 * abs(value)
        print(
            f"{name:70s}{cost.seconds:9.2f}{cost.peak / 2**20:10.0f}{values[-1]:14.6f}{cost.seconds / seconds:11.2f}"
            + ("" if agrees else "   DIFFERS")
        )
