"""Grouped responses: those of one prompt, ranked or scored."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.relation import Explicit, Relation, Weights, integers

GAINS = ("rank", "reward", "above-worst", "best")


class Grouped(Relation):
    """The responses of a prompt (the documents of a query, the views of a product ...), near as far as they are good.

    ``prompts [n]``: an integer for each query; ``groups [m]``: for each key the prompt that it answers; a key of a
    negative group answers none. ``rewards [m]``, higher is better, or ``ranks [m]``, 1 is the best; numbers. A response
    has a grade >= 0 among those of its group, which is its positive weight; those of grade 0 are far. ``gain``:

    - "rank" (default): how many responses of the group are worse, equal ones alike; what only the order is known of;
    - "above-worst": the reward less the group's lowest;
    - "reward": the reward itself, which must be >= 0: graded labels, probabilities;
    - "best": 1 for the best of the group (several, when equal), 0 for all others.

    In a group whose responses are all equal nobody is near (except under "reward"). Responses of other groups are
    ignored (``others="ignored"``), or far (``"far"``, in-batch negatives).

    With embeddings it is a relation of prompts and responses as any other. With ready-made scores of responses given as
    a vector ``[m]``, pass ``scores=values.expand(n, -1)``; for a matrix ``[n, k]``, a row a prompt, use :meth:`lists`.
    Over several processes the responses of a prompt may lie on any of them: grades are those of the global batch.

    Raises ValueError for shapes that do not fit, rewards that are not finite, and negative ones under "reward".
    """

    def __init__(
        self,
        prompts: Tensor,
        groups: Tensor,
        *,
        rewards: Tensor | None = None,
        ranks: Tensor | None = None,
        gain: Literal["rank", "reward", "above-worst", "best"] = "rank",
        others: Literal["ignored", "far"] = "ignored",
    ) -> None:
        if others not in ("ignored", "far"):
            raise ValueError(f"Grouped: others must be 'ignored' or 'far', got {others!r}")
        groups = integers(groups, "groups")
        rewards = _rewards(rewards, ranks, gain)
        if rewards.shape != groups.shape:
            raise ValueError(f"Grouped: {rewards.numel()} rewards or ranks for {groups.numel()} responses")
        super().__init__({"id": integers(prompts, "prompts")}, {"id": groups, "reward": rewards})
        self.gain = gain
        self.others = others

    @classmethod
    def lists(
        cls,
        rewards: Tensor | None = None,
        *,
        ranks: Tensor | None = None,
        mask: Tensor | None = None,
        gain: Literal["rank", "reward", "above-worst", "best"] = "rank",
    ) -> Relation:
        """The relation of a matrix of scores ``[n, k]`` whose row i holds the k responses of prompt i.

        ``rewards`` or ``ranks [n, k]``; ``mask [n, k]``, bool, says which responses there are (default: all), so that
        lists of different lengths can be padded.
        """
        given = rewards if rewards is not None else ranks
        if given is None or given.dim() != 2:
            raise ValueError(
                f"Grouped.lists: rewards or ranks must be [n, k], got {None if given is None else [*given.shape]}"
            )
        mask = torch.ones_like(given, dtype=torch.bool) if mask is None else mask
        if mask.shape != given.shape or mask.dtype != torch.bool:
            raise ValueError(f"Grouped.lists: the mask must be {[*given.shape]} bool, got {[*mask.shape]} {mask.dtype}")
        kept = given.masked_fill(~mask, 0)
        values = _rewards(kept if rewards is not None else None, kept if rewards is None else None, gain)
        prompt = torch.arange(given.shape[0], device=given.device)[:, None].expand_as(given)
        grade = torch.zeros_like(values)
        grade[mask] = _grades(prompt[mask], values[mask], gain)
        return Explicit(grade, mask & (grade == 0))

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if self_contrast:
            raise ValueError("Grouped: relates prompts to responses; give the responses as keys")
        return self._bound(n, m, False, device)._graded()

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        moved = super().across(queries, keys)
        assert isinstance(moved, Grouped)
        return moved._graded()

    def _graded(self) -> Grouped:
        key = dict(self._keys)
        key["grade"] = _grades(key["id"], key["reward"], self.gain)
        return self._with_state(self.query_state, key, False)

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        own = (query["id"][:, None] == key["id"][None, :]) & (query["id"] >= 0)[:, None]
        positive = own * key["grade"]
        if self.others == "far":
            return positive, positive == 0
        return positive, own & (positive == 0)


def _rewards(rewards: Tensor | None, ranks: Tensor | None, gain: str) -> Tensor:
    """Rewards of any kind as floating-point numbers, higher better."""
    if gain not in GAINS:
        raise ValueError(f"Grouped: gain must be one of {', '.join(GAINS)}, got {gain!r}")
    if (rewards is None) == (ranks is None):
        raise ValueError("Grouped: give rewards or ranks, one of them")
    if gain == "reward" and rewards is None:
        raise ValueError("Grouped: ranks have no size to be the gain; use gain='rank' or 'best', or give rewards")
    given = rewards if rewards is not None else ranks
    assert given is not None
    given = given.detach()
    given = given if given.is_floating_point() else given.to(torch.get_default_dtype())
    if not bool(torch.isfinite(given).all()):
        raise ValueError("Grouped: rewards and ranks must be finite")
    if gain == "reward" and bool((given < 0).any()):
        raise ValueError("Grouped: under gain='reward' rewards must be >= 0; use 'rank' or 'above-worst'")
    return given if rewards is not None else -given


def _grades(groups: Tensor, rewards: Tensor, gain: str) -> Tensor:
    """The grade >= 0 of each response ``[m]`` among those of its group."""
    if gain == "reward" or not rewards.numel():
        return rewards
    names, group = torch.unique(groups, return_inverse=True)
    if gain in ("above-worst", "best"):
        reduce = "amin" if gain == "above-worst" else "amax"
        bound = rewards.new_zeros(names.numel()).scatter_reduce(0, group, rewards, reduce, include_self=False)[group]
        lowest = rewards.new_zeros(names.numel()).scatter_reduce(0, group, rewards, "amin", include_self=False)[group]
        return rewards - bound if gain == "above-worst" else ((rewards == bound) & (rewards > lowest)).to(rewards.dtype)
    order = torch.argsort(rewards, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    place = torch.arange(rewards.numel(), device=rewards.device)
    ordered, reward = group[order], rewards[order]
    new_group = torch.ones_like(ordered, dtype=torch.bool)
    new_group[1:] = ordered[1:] != ordered[:-1]
    new_value = new_group.clone()
    new_value[1:] |= reward[1:] != reward[:-1]
    start_of_group = torch.where(new_group, place, 0).cummax(0).values
    start_of_value = torch.where(new_value, place, 0).cummax(0).values
    grade = torch.empty_like(rewards)
    grade[order] = (start_of_value - start_of_group).to(rewards.dtype)
    return grade
