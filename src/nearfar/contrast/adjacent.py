"""Neighbours in running text: items whose positions are close are near."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows
from nearfar.contrast.relation import Relation, Weights, integers


class Adjacent(Relation):
    """Items at most ``window`` positions apart in the same document are near, all others far (Quick-Thoughts, 2018).

    Query i and key i are the same sentence, read by one encoder each; that pair has no weight, neither near nor far.
    ``document [n]``: integers; sentences of different documents are far however close their positions.
    ``position [n]``: integers, by default the order of the rows, in which the parts of several processes follow one
    another: a batch must be running text, and shuffling its sentences makes the relation meaningless.
    """

    def __init__(self, window: int = 1, *, document: Tensor | None = None, position: Tensor | None = None) -> None:
        if window < 1:
            raise ValueError(f"Adjacent: the window must be at least 1, got {window}")
        state: dict[str, Tensor] = {}
        if document is not None:
            state["document"] = integers(document, "document")
        if position is not None:
            state["place"] = integers(position, "position")
        super().__init__(state, None)
        self.window = window
        self.counted = position is None

    def bind(self, n: int, m: int, *, self_contrast: bool, device: torch.device) -> Relation:
        if n != m:
            raise ValueError(f"Adjacent: queries and keys are the same sentences, got {n} queries and {m} keys")
        state = dict(self.query_state)
        state.setdefault("document", torch.zeros(n, dtype=torch.long, device=device))
        state.setdefault("place", torch.arange(n, device=device))
        for name, value in state.items():
            if value.numel() != n:
                raise ValueError(f"Adjacent: {value.numel()} {name} values for {n} sentences")
        return self._with_state(state, None, False)._bound(n, m, self_contrast, device)

    @property
    def among_themselves(self) -> bool:
        return True

    def across(self, queries: GatheredRows, keys: GatheredRows) -> Relation:
        local = self
        if self.counted:
            state = dict(self.query_state)
            state["place"] = state["place"] + queries.start
            local = self._with_state(state, state, self.self_contrast)
        return Relation.across(local, queries, keys)

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        apart = (query["place"][:, None] - key["place"][None, :]).abs()
        together = query["document"][:, None] == key["document"][None, :]
        positive = together & (apart > 0) & (apart <= self.window)
        return positive, ~positive & ~(together & (apart == 0))
