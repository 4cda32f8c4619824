"""Which class each item of a batch is to meet, where positives need not be of its own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nearfar.errors import UsageError

Partners = Literal["arbitrary", "identical", "distinct"]


def partner_classes(
    labels: Tensor,
    how: Partners = "arbitrary",
    *,
    classes: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The partner class ``[n]`` of each item by its class ``labels [n]`` (Hydra; Wu et al., 2024).

    - ``"arbitrary"`` (default): the classes of the batch, shuffled, so that every partner class is there;
    - ``"identical"``: its own;
    - ``"distinct"``: any other of the classes 0 to ``classes - 1``, equally often; it may be absent from the batch.

    ``classes`` is needed for "distinct" alone. Raises :class:`~nearfar.errors.UsageError` for fewer than two classes or
    no such ``how``.
    """
    if how == "identical":
        return labels.clone()
    if how == "arbitrary":
        return labels[torch.randperm(len(labels), generator=generator).to(labels.device)]
    if how != "distinct":
        raise UsageError(f"how is {how!r}; it must be 'arbitrary', 'identical' or 'distinct'")
    if classes is None or classes < 2:
        raise UsageError("partners of another class need classes >= 2")
    shift = torch.randint(1, classes, labels.shape, generator=generator).to(labels)
    return (labels + shift) % classes
