"""AMPO's choice of the responses that are contrasted: the best one, and k of the rest that are most worth pushing down.

Each strategy takes the rewards ``[n]`` of one prompt's responses and gives the indices ``[k]`` of the negatives in
ascending order, never that of the best response; all of the rest where k is at least their number. Ties go to the
first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


def bottom_k(rewards: Tensor, k: int) -> Tensor:
    """The k responses of the smallest reward."""
    return _ascending(rewards, k)[0].sort().values


def coreset(rewards: Tensor, embeddings: Tensor, k: int) -> Tensor:
    """The worst response of each of k clusters of the responses' embeddings ``[n, d]`` (k-means).

    The best response is never taken; a cluster that holds nothing else, and missing clusters where fewer than k points
    differ, are made up for by the worst of what is left.
    """
    order, best = _ascending(rewards, k)
    if order.numel() < k or k >= rewards.numel() - 1:
        return order.sort().values
    cluster = _clusters(embeddings, k)
    everyone = torch.argsort(rewards, stable=True)
    taken: list[int] = []
    for which in range(k):
        members = [i for i in everyone.tolist() if int(cluster[i]) == which and i != best]
        taken += members[:1]
    rest = [i for i in everyone.tolist() if i not in taken and i != best]
    return torch.tensor(sorted(taken + rest[: k - len(taken)]), device=rewards.device)


def opt_select(rewards: Tensor, embeddings: Tensor, k: int) -> Tensor:
    """The k responses S that lie nearest to all, bad ones first: weighted k-medoids by local search.

    Lowers :func:`selection_cost` from the k smallest rewards by the best swap of one response until no swap helps; the
    result costs at most five times the optimum (Arya et al., 2004).
    """
    order, best = _ascending(rewards, k)
    if order.numel() < k or k >= rewards.numel() - 1:
        return order.sort().values
    distance, weight = _distances(embeddings), _emphasis(rewards)
    chosen = torch.zeros(rewards.numel(), dtype=torch.bool, device=rewards.device)
    chosen[order] = True
    cost = _cost(distance, weight, chosen)
    while True:
        inside, outside = chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]
        outside = outside[outside != best]
        found = cost
        for out in inside.tolist():
            chosen[out] = False
            nearest = distance[:, chosen].amin(1) if bool(chosen.any()) else torch.full_like(weight, torch.inf)
            # the cost with each candidate put in the place of the one taken out
            costs = (weight[:, None] * torch.minimum(nearest[:, None], distance[:, outside])).sum(0)
            chosen[out] = True
            least = costs.argmin()
            if costs[least] < found * (1 - 1e-12):
                found, swap = costs[least], (out, int(outside[least]))
        if not found < cost:
            return chosen.nonzero()[:, 0]
        chosen[swap[0]], chosen[swap[1]], cost = False, True, found


def selection_cost(rewards: Tensor, embeddings: Tensor, chosen: Tensor) -> Tensor:
    """``sum_i w_i min_{j in S} |e_i - e_j|``, ``w_i = exp(mean r - r_i)``, over all responses.

    Weights are divided by the largest, so that raw rewards do not overflow: costs of one prompt compare, no others.
    """
    mask = torch.zeros(rewards.numel(), dtype=torch.bool, device=rewards.device)
    mask[chosen] = True
    return _cost(_distances(embeddings), _emphasis(rewards), mask)


def _ascending(rewards: Tensor, k: int) -> tuple[Tensor, int]:
    """The k responses of the smallest reward, the worst first, and the best one, which is not among them."""
    if rewards.dim() != 1 or rewards.numel() == 0:
        raise ValueError(f"rewards must be those of one prompt, [n], got {tuple(rewards.shape)}")
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    best = int(rewards.argmax())
    order = torch.argsort(rewards, stable=True)
    return order[order != best][:k], best


def _emphasis(rewards: Tensor) -> Tensor:
    values = rewards.double()
    return (values.min() - values).exp()


def _distances(embeddings: Tensor) -> Tensor:
    if embeddings.dim() != 2:
        raise ValueError(f"embeddings must be [n, d], got {tuple(embeddings.shape)}")
    values = embeddings.double()
    return torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist")


def _cost(distance: Tensor, weight: Tensor, chosen: Tensor) -> Tensor:
    return (weight * distance[:, chosen].amin(1)).sum()


def _clusters(embeddings: Tensor, k: int, rounds: int = 100) -> Tensor:
    """Lloyd's k-means from farthest-first centres: the cluster ``[n]`` of each point; deterministic."""
    points = embeddings.double()
    centres = points[:1]
    while centres.shape[0] < k:
        nearest = torch.cdist(points, centres).amin(1)
        if not bool(nearest.max() > 0):
            break
        centres = torch.cat([centres, points[nearest.argmax()][None]])
    cluster = torch.cdist(points, centres).argmin(1)
    for _ in range(rounds):
        sums = torch.zeros_like(centres).index_add(0, cluster, points)
        count = torch.bincount(cluster, minlength=centres.shape[0])[:, None]
        centres = torch.where(count > 0, sums / count.clamp_min(1), centres)
        moved = torch.cdist(points, centres).argmin(1)
        if torch.equal(moved, cluster):
            break
        cluster = moved
    return cluster
