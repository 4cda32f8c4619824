"""A memory of clusters: centroids that follow the embeddings, for hard and for false negatives."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.contrast import normalize
from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.precision import at_least_float32, without_autocast
from nearfar.errors import UsageError


class ClusterMemory(nn.Module):
    """K centroids by online k-means on cosines, with momentum (ClusterNS; Deng et al., 2023).

    One step with the two views of a batch::

        memory.update(z1, z2)
        if memory.started:
            loss = ClusterNS()(z1, z2, clusters=memory.assign(z1), hard_negatives=memory.hard_negatives(z1))

    The memory starts at the first batch whose mean cosine ``mean_ij cos(z1_i, z2_j)`` is at most ``start_at``, where
    embeddings no longer all point the same way: the first centroid is a row drawn at random, each next one the row of
    z1 whose second view is farthest from the last, rows taken before left out. Later batches move the centroid of each
    cluster with members: ``C_k <- (1 - rate) C_k + rate * mean`` (or sum) of its members. Only directions count.

    State (centroids, whether started) is part of ``state_dict``. Nothing here carries a gradient.

    Arguments:
        clusters: K >= 2, default 128 (BERT-base); dimension: of the embeddings.
        rate: eta, in [0, 1], default 1e-3.
        start_at: default 0.4 (BERT-base; 0.5 for large).
        average: "mean" (default) or "sum", the official code's, under which norms drift to the size of the clusters and
            the rate of turning grows with it.
        seed: of the first centroid.

    Raises ValueError for embeddings of another dimension and, at the start, for fewer rows than clusters.
    """

    centroids: Tensor
    has_started: Tensor

    def __init__(
        self,
        clusters: int = 128,
        dimension: int = 768,
        *,
        rate: float = 1e-3,
        start_at: float = 0.4,
        average: str = "mean",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if clusters < 2 or dimension < 1:
            raise UsageError(f"a cluster memory needs at least 2 clusters, got {clusters} of dimension {dimension}")
        if not 0 <= rate <= 1:
            raise UsageError(f"the rate of a cluster memory must lie in [0, 1], got {rate}")
        if average not in ("mean", "sum"):
            raise UsageError(f"average must be 'mean' or 'sum', got {average!r}")
        self.rate = rate
        self.start_at = start_at
        self.average = average
        self.seed = seed
        self.register_buffer("centroids", torch.zeros(clusters, dimension))
        self.register_buffer("has_started", torch.zeros((), dtype=torch.bool))

    @property
    def started(self) -> bool:
        return bool(self.has_started)

    @torch.no_grad()
    def update(self, query: Tensor, key: Tensor | None = None, *, group: dist.ProcessGroup | None = None) -> None:
        """Start, or move the centroids, by the embeddings ``query [n, d]`` of a batch and, for the start, their second
        views ``key [n, d]`` (default: the same). Over processes all see all rows and keep the same centroids."""
        items = self._of_all(query, group)
        if self.started:
            self._move(items)
            return
        views = items if key is None else self._of_all(key, group)
        if views.shape != items.shape:
            raise ValueError(f"views of a batch must be alike, got {tuple(items.shape)} and {tuple(views.shape)}")
        # the mean over all pairs of cosines is the cosine of the means
        if float(normalize(items).mean(0) @ normalize(views).mean(0)) <= self.start_at:
            self.start(items, views)

    @torch.no_grad()
    def start(self, query: Tensor, key: Tensor | None = None, *, first: int | None = None) -> None:
        """Choose the centroids among the rows of ``query [n, d]``; ``first``: the row of the first one."""
        items = self._checked(query)
        views = normalize(items if key is None else self._checked(key))
        if len(items) < len(self.centroids):
            raise ValueError(f"{len(self.centroids)} clusters cannot start from {len(items)} rows")
        if first is None:
            first = int(torch.randint(len(items), (), generator=torch.Generator().manual_seed(self.seed)))
        unit = normalize(items)
        chosen = [first]
        taken = torch.zeros(len(items), dtype=torch.bool, device=items.device)
        while len(chosen) < len(self.centroids):
            taken[chosen[-1]] = True
            cosines = (views @ unit[chosen[-1]]).masked_fill(taken, torch.inf)
            chosen.append(int(cosines.argmin()))
        self.centroids.copy_(items[chosen])
        self.has_started.fill_(True)

    @torch.no_grad()
    def fit(self, embeddings: Tensor, *, iterations: int = 10) -> None:
        """Start from all ``embeddings [n, d]`` at once: spherical k-means, for rounds of clustering. A centroid without
        members keeps its place."""
        items = normalize(self._checked(embeddings))
        self.start(items)
        for _ in range(iterations):
            before = self.centroids.clone()
            self._move(items, rate=1.0)
            if torch.equal(before, self.centroids):
                return

    @torch.no_grad()
    def assign(self, embeddings: Tensor) -> Tensor:
        """The cluster ``[n]`` (int64) of each embedding, that of its nearest centroid; -1 before the start."""
        items = self._checked(embeddings)
        if not self.started:
            return torch.full((len(items),), -1, dtype=torch.long, device=items.device)
        return torch.cat([self._cosines(rows).argmax(1) for rows in torch.split(items, 4096)])

    @torch.no_grad()
    def hard_negatives(self, embeddings: Tensor) -> Tensor:
        """The second-nearest centroid ``[n, d]`` of each embedding. Raises ValueError before the start."""
        if not self.started:
            raise ValueError("the cluster memory has not started: it has no centroids to give")
        items = self._checked(embeddings)
        second = torch.cat([self._cosines(rows).topk(2, dim=1).indices[:, 1] for rows in torch.split(items, 4096)])
        return self.centroids[second].to(embeddings.dtype)

    def _move(self, items: Tensor, rate: float | None = None) -> None:
        rate = self.rate if rate is None else rate
        items = items.to(self.centroids.dtype)
        cluster = self.assign(items)
        count = torch.bincount(cluster, minlength=len(self.centroids)).to(items.dtype)[:, None]
        members = torch.zeros_like(self.centroids).index_add_(0, cluster, items)
        if self.average == "mean":
            members /= count.clamp_min(1)
        self.centroids.copy_(torch.where(count > 0, (1 - rate) * self.centroids + rate * members, self.centroids))

    def _cosines(self, items: Tensor) -> Tensor:
        with without_autocast(items.device):
            return normalize(items.to(self.centroids.dtype)) @ normalize(self.centroids).T

    def _checked(self, embeddings: Tensor) -> Tensor:
        if embeddings.dim() != 2 or embeddings.shape[1] != self.centroids.shape[1]:
            raise ValueError(
                f"embeddings must be [n, {self.centroids.shape[1]}] like the centroids, got {tuple(embeddings.shape)}"
            )
        return at_least_float32(embeddings.detach()).to(self.centroids.device)

    def _of_all(self, embeddings: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        items = self._checked(embeddings)
        return items if group is None else GatheredRows(len(items), group, items.device).gather(items)

    def extra_repr(self) -> str:
        clusters, dimension = self.centroids.shape
        state = "started" if self.started else "not started"
        return f"{clusters} clusters of dimension {dimension}, rate={self.rate:g}, {state}"
