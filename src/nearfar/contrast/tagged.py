"""Items that carry tags, against the tags: multi-label classification as a relation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.contrast.relation import Relation, Weights, integers, matches


class Tagged(Relation):
    """Items are near the tags they carry and far from all others; an item may carry any number of tags.

    ``carried``: for each item the numbers of its tags, as a list of lists or ``[n]`` integers (one tag each, none where
    below 0), or as a multi-hot ``[n, c]`` tensor, bool or weights in [0, 1]: a tag of weight w is near with w and far
    with 1 - w. ``tags [m]``: which tag each key is.

    Holds what is carried, not an n x m matrix. Over several processes each holds its own items. Weights outside [0, 1]
    and tags below 0 raise ValueError.
    """

    def __init__(self, carried: Sequence[Sequence[int]] | Tensor, tags: Tensor | None = None) -> None:
        rows, numbers, weights, count = _listed(carried)
        key = None if tags is None else {"tag": integers(tags, "tags")}
        super().__init__({"item": torch.arange(count)}, key)
        self.carried = (rows, numbers, weights)

    @property
    def largest(self) -> int:
        """The largest number of a tag that is carried; -1 without any."""
        numbers = self.carried[1]
        return int(numbers.max()) if numbers.numel() else -1

    def against(self, tags: Tensor) -> Tagged:
        """The same items against these tags."""
        return self._with_state(self.query_state, {"tag": integers(tags, "tags")}, False)

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if self_contrast or self.key_state is None:
            raise ValueError("Tagged: relates items to tags; give the tags as keys")
        bound = self._bound(n, m, False, device)
        rows, numbers, weights = self.carried
        bound.carried = (rows.to(device), numbers.to(device), weights.to(device))
        return bound

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        rows, numbers, weights = self.carried
        item, entry = matches(query["item"], rows, torch.arange(rows.numel(), device=rows.device))
        ordered, order = key["tag"].sort(stable=True)
        which, column = matches(numbers[entry], ordered, order)
        positive = weights.new_zeros(query["item"].numel(), key["tag"].numel())
        positive[item[which], column] = weights[entry[which]]
        return positive, ~positive if positive.dtype == torch.bool else 1 - positive


def _listed(carried: Sequence[Sequence[int]] | Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """What is carried, as ``(rows, tags, weights)`` ordered by row, and the number of items."""
    if isinstance(carried, Tensor) and carried.dim() == 2:
        if carried.is_floating_point() and not bool(((carried >= 0) & (carried <= 1)).all()):
            raise ValueError("Tagged: weights must lie in [0, 1]")
        carried = carried if carried.is_floating_point() else carried != 0
        rows, numbers = carried.nonzero(as_tuple=True)
        return rows, numbers, carried[rows, numbers], carried.shape[0]
    if isinstance(carried, Tensor):
        numbers = integers(carried, "carried")
        rows = torch.arange(numbers.numel(), device=numbers.device)[numbers >= 0]
        return rows, numbers[rows], torch.ones_like(rows, dtype=torch.bool), numbers.numel()
    distinct = [sorted(set(tags)) for tags in carried]
    if any(tags and tags[0] < 0 for tags in distinct):
        raise ValueError("Tagged: tags are numbered from 0 on")
    rows = torch.repeat_interleave(torch.tensor([len(tags) for tags in distinct], dtype=torch.long))
    numbers = torch.tensor([tag for tags in distinct for tag in tags], dtype=torch.long)
    return rows, numbers, torch.ones_like(rows, dtype=torch.bool), len(distinct)
