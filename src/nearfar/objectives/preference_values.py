"""Values that preference training is fed with: shaped rewards, how strong a preference is, how far rewards spread."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast.score import normalize
from nearfar.errors import UsageError
from nearfar.objectives.preference import group_index, one_of


def contrastive_reward(rewards: Tensor, baseline: Tensor, aggregate: str | float = "mean") -> Tensor:
    """The reward of a response less that of stored baseline answers to its prompt (Shen et al., 2024,
    arXiv:2403.07708).

    ``rewards [n]``, ``baseline [n, k]``: the same reward model's values of k answers drawn once from the first policy.
    ``aggregate``: "mean" (default; k = 5 in the paper), "max", or a quantile in [0, 1]. The offset carries no gradient.
    Both must be on one scale: whiten neither, or both alike. With a binary reward that flips at rates e1, e0 the
    expected difference is ``1 - e1 - e0`` times the true one: the offset of the errors cancels. It does not change a
    single prompt's optimum, only variance and credit across prompts.
    """
    if baseline.dim() != 2 or rewards.shape != baseline.shape[:1] or baseline.shape[1] == 0:
        raise ValueError(f"rewards must be [n] and baseline [n, k], got {list(rewards.shape)}, {list(baseline.shape)}")
    stored = baseline.detach()
    if aggregate == "mean":
        return rewards - stored.mean(1)
    if aggregate == "max":
        return rewards - stored.amax(1)
    if isinstance(aggregate, str) or not 0 <= aggregate <= 1:
        raise UsageError(f"aggregate must be 'mean', 'max' or a quantile in [0, 1], got {aggregate!r}")
    return rewards - torch.quantile(stored, aggregate, dim=1)


def grace_reward(
    query: Tensor,
    positive: Tensor,
    negative: Tensor | None = None,
    *,
    group: Tensor,
    tau: float = 0.1,
    consistency: float = 0.2,
    cross_group: float = 0.2,
    cross_from: str = "query",
    truncated: Tensor | None = None,
) -> Tensor:
    """GRACE's reward ``[n]`` of rollouts: how well a rationale embeds its text (Sun et al., 2025, arXiv:2510.04506).

    ``[ s(q, p_i) - s(q, n) + consistency mean_{j != i in g} s(p_i, p_j) - cross_group mean_{g' != g} max_{j in g'}
    s(q, p_j) ] / tau``, s the cosine. ``query``, ``positive``, ``negative`` ``[n, d]``: embeddings of query, rollout
    and hard negative; ``group [n]``: integers, equal for the rollouts of one text. Without a negative (unsupervised)
    its term is left out and the last is ``mean_{g' != g} s(p_i, q_g')``. Terms over no others are 0. ``truncated [n]``
    (bool): the reward of rollouts cut at the maximum length is -1 instead, on the scaled axis.

    Where the rollouts of a group share q and n, as in the released code, the negative's and the cross-group terms are
    constant within the group and cancel in a group-mean advantage. ``cross_from="positive"`` takes ``max_j s(p_i,
    p_j)`` instead, which does not. Without a gradient; memory linear in n.
    """
    if cross_from not in ("query", "positive"):
        raise UsageError(f"grace_reward: cross_from must be 'query' or 'positive', got {cross_from!r}")
    given = [query, positive] if negative is None else [query, positive, negative]
    if any(value.shape != query.shape or value.dim() != 2 for value in given) or group.shape != query.shape[:1]:
        raise ValueError(f"grace_reward: embeddings must be [n, d] alike and group [n], got {[v.shape for v in given]}")
    q, p = normalize(query.detach()), normalize(positive.detach())
    index = group_index(group)
    reward = (q * p).sum(1)
    if negative is not None:
        reward = reward - (q * normalize(negative.detach())).sum(1)
    size = torch.bincount(index)[index]
    together = torch.zeros(int(index.max()) + 1, p.shape[1], dtype=p.dtype, device=p.device).index_add(0, index, p)
    alike = ((p * together[index]).sum(1) - p.square().sum(1)) / (size - 1).clamp_min(1)
    reward = reward + consistency * torch.where(size > 1, alike, 0)
    asked = q if negative is not None and cross_from == "query" else p
    others = p if negative is not None else q
    reward = reward - cross_group * _across_groups(asked, others, index, farthest=negative is not None)
    reward = reward / tau
    return reward if truncated is None else torch.where(truncated, -1.0, reward)


def _across_groups(asked: Tensor, others: Tensor, index: Tensor, *, farthest: bool) -> Tensor:
    """Of each row the mean over the other groups of the largest (or mean) score against their members; 0 for none."""
    groups = int(index.max()) + 1
    if groups == 1:
        return torch.zeros_like(asked[:, 0])
    found = []
    step = max(1, 2**22 // others.shape[0])
    for start in range(0, asked.shape[0], step):
        scores = asked[start : start + step] @ others.T
        into = index.expand_as(scores)
        best = scores.new_zeros(scores.shape[0], groups)
        best = best.scatter_reduce(1, into, scores, "amax" if farthest else "mean", include_self=False)
        own = best.gather(1, index[start : start + step, None])[:, 0]
        found.append((best.sum(1) - own) / (groups - 1))
    return torch.cat(found)


def preference_strength(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (population) deviation ``[n]`` over an ensemble of reward models of how much each prefers the chosen.

    ``chosen``, ``rejected`` ``[m, n]``: rewards by m models (Wang et al., 2024, arXiv:2401.06080; m = 10). Prefer
    models that did not see the pair: memorised labels look strong. Below 0 the label is probably wrong.
    """
    if chosen.dim() != 2 or chosen.shape != rejected.shape or chosen.shape[0] == 0:
        raise ValueError(f"chosen and rejected must be [m, n], got {list(chosen.shape)}, {list(rejected.shape)}")
    difference = chosen - rejected
    return difference.mean(0), difference.std(0, correction=0)


def flip_weak(chosen: Tensor, rejected: Tensor, strength: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs with the label turned where an ensemble's strength is below 0, and their margins ``|strength|`` then."""
    if not chosen.shape == rejected.shape == strength.shape:
        shapes = [list(value.shape) for value in (chosen, rejected, strength)]
        raise ValueError(f"chosen, rejected and strength must be [n] alike, got {shapes}")
    wrong = strength < 0
    return torch.where(wrong, rejected, chosen), torch.where(wrong, chosen, rejected), strength.abs()


def reward_spread(rewards: Tensor) -> Tensor:
    """MetaRM's objective, to be raised: how far apart a reward model puts the responses of a prompt (Wang et al.,
    2024).

    ``2/k^2 sum_{i<j} sigmoid(|r_i - r_j|)`` of rewards ``[n, k]``, mean over prompts. In [(k-1)/(2k), (k-1)/k); 0 for
    one response. Equal rewards pull nowhere.
    """
    if rewards.dim() != 2:
        raise ValueError(f"rewards must be [n, k], got {list(rewards.shape)}")
    k = rewards.shape[1]
    apart = torch.sigmoid((rewards[:, :, None] - rewards[:, None, :]).abs())
    pairs = torch.ones(k, k, dtype=torch.bool, device=rewards.device).triu(1)
    return (2 / k**2 * (apart * pairs).sum((1, 2))).mean()


def target_rewards(preference: Tensor, low: Tensor, high: Tensor, form: str = "l2") -> Tensor:
    """The rewards ``[k]`` to ask a reward-conditioned policy for, given a preference over them (Yang et al., 2024).

    Rewards-in-Context (arXiv:2402.10207): ``w / |w|_2 (high - low) + low`` (``form="l2"``), "linear" ``w (high - low) +
    low``, or "linf": the preferred reward at its highest, the others at ``min(k w, 1)`` of their range. ``preference``
    ``[k]``: w >= 0 summing to 1; ``low``, ``high`` ``[k]``: the range of each reward, best from quantiles of data. With
    all weight on one reward "l2" asks for the *lowest* of the others. The paper rounds to 0.1.
    """
    one_of("target_rewards", "form", form, ("l2", "linear", "linf"))
    if preference.dim() != 1 or not preference.shape == low.shape == high.shape:
        raise ValueError(
            f"preference, low and high must be [k] alike, got {preference.shape}, {low.shape}, {high.shape}"
        )
    if not bool((preference >= 0).all()) or abs(float(preference.sum()) - 1) > 1e-4:
        raise ValueError(f"the preference must be >= 0 and sum to 1, got {preference.tolist()}")
    if form == "l2":
        share: Tensor = preference / torch.linalg.vector_norm(preference)
    elif form == "linear":
        share = preference
    else:
        share = (preference.numel() * preference).clamp(max=1)
        share = share.scatter(0, preference.argmax()[None], 1.0)
    return share * (high - low) + low
