"""Labels whose classes weigh as much as their share of the data, however many keys of each there are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.contrast.relation import Labels, Relation, Weights, integers


class ClassPriors(Labels):
    """As :class:`Labels`, but a key of class c weighs ``prior_c / (number of keys of class c)``, near and far.

    The weights of a class add up to its prior, so that sums over keys are sums over classes of class means. ``prior
    [C]``: how often each class occurs, as counts or shares, > 0 for every class there is; None: as often as among the
    keys. ``ids [n]``, ``key_ids [m]``: integers, which items the rows show; with ``without_own`` a query's own item is
    left out of its class. Unlabelled keys (labels below 0) weigh nothing. An item's pair with itself, which weighs 0 in
    self-contrast, does not count in its class either. Raises ValueError for a prior that is not positive or too short.
    """

    def __init__(
        self,
        labels: Tensor,
        key_labels: Tensor | None = None,
        *,
        prior: Tensor | Sequence[float] | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        without_own: bool = False,
    ) -> None:
        super().__init__(labels, key_labels)
        self.prior = None if prior is None else shares(prior)
        self.without_own = without_own
        if (ids is None) != (key_ids is None) and key_labels is not None:
            raise ValueError("ClassPriors: ids and key_ids are needed together")
        if ids is not None:
            self.query_state["item"] = integers(ids, "ids")
        if key_ids is not None and self.key_state is not None:
            self.key_state["item"] = integers(key_ids, "key_ids")
        for state in (self.query_state, self.key_state or {}):
            if "item" in state and state["item"].shape != state["label"].shape:
                raise ValueError(f"ClassPriors: {state['item'].numel()} ids for {state['label'].numel()} labels")
        labelled = torch.cat([self.query_state["label"], self._keys["label"]])
        if self.prior is not None and labelled.numel() and int(labelled.max()) >= len(self.prior):
            raise ValueError(f"ClassPriors: label {int(labelled.max())} with a prior of {len(self.prior)} classes")

    def transpose(self) -> Relation:
        return self._with_state(self._keys, self.query_state, self.self_contrast)

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        everyone, label = self._keys["label"], key["label"]
        counts = torch.bincount(everyone[everyone >= 0], minlength=1)
        known = label.clamp_min(0)
        prior = counts / counts.sum().clamp_min(1) if self.prior is None else self.prior.to(label.device)
        present = counts[known][None, :]
        own = torch.zeros(len(query["label"]), len(label), dtype=torch.bool, device=label.device)
        if self.without_own and "item" in query:
            own = (query["item"][:, None] == key["item"][None, :]) & (key["item"] >= 0)
            present = present - self._own_of_each_class(query["item"], counts.numel())[:, known]
        elif self.self_contrast:
            present = present - (query["label"][:, None] == label[None, :]).long()
        weight = (prior.double()[known] / present.clamp_min(1)).masked_fill(own | (label < 0), 0)
        positive, negative = super().weigh(query, key)
        return weight * positive, weight * negative

    def _own_of_each_class(self, items: Tensor, classes: int) -> Tensor:
        """How many keys of each class ``[t, C]`` show the query's own item."""
        label, item = self._keys["label"], self._keys["item"]
        rows, columns = ((items[:, None] == item[None, :]) & (item >= 0) & (label >= 0)).nonzero(as_tuple=True)
        found = torch.zeros(len(items), classes, dtype=torch.long, device=items.device)
        return found.index_put_((rows, label[columns]), torch.ones_like(rows), accumulate=True)


def shares(prior: Tensor | Sequence[float]) -> Tensor:
    """Class frequencies ``[C]`` (float64) that add up to 1."""
    values = torch.as_tensor(prior, dtype=torch.float64).detach().cpu()
    if values.dim() != 1 or not values.numel() or not bool(((values > 0) & torch.isfinite(values)).all()):
        raise ValueError("a class prior holds a finite number > 0 for each class, got " + str(list(values.shape)))
    return values / values.sum()
