"""Starting a classifier from the rows of another: what was learned of a class goes to where the class is met again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nearfar.errors import UsageError
from nearfar.objectives.proxies import ProxyObjective


@torch.no_grad()
def transfer_rows(new: nn.Module, old: nn.Module, rows: Sequence[int | None]) -> int:
    """Copy row ``rows[c]`` of the classifier ``old`` to class c of ``new``, in place; returns how many were copied.

    Classes whose row is None keep what they have (CatLIP's transfer, Mehta et al., 2024: classes of the new task that
    the pretraining vocabulary holds start from its classifier). ``rows`` comes from
    :meth:`nearfar.data.nouns.NounVocabulary.rows`. A classifier is an ``nn.Linear`` or an objective with one proxy a
    class, such as :class:`~nearfar.objectives.CatLIP`; biases go along where both have them.

    Raises :class:`~nearfar.errors.UsageError` for classifiers or rows that do not fit.
    """
    (to, to_bias), (source, source_bias) = _classifier(new), _classifier(old)
    if to.shape[1] != source.shape[1]:
        raise UsageError(f"the classifiers are of {to.shape[1]} and of {source.shape[1]} dimensions")
    if len(rows) != len(to):
        raise UsageError(f"there are {len(to)} classes and {len(rows)} rows for them")
    copied = [(place, row) for place, row in enumerate(rows) if row is not None]
    for place, row in copied:
        if not 0 <= row < len(source):
            raise UsageError(f"row {row} of class {place} is none of the {len(source)} rows")
        to[place] = source[row].to(to)
        if to_bias is not None and source_bias is not None:
            to_bias[place] = source_bias[row].to(to_bias)
    return len(copied)


def _classifier(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    if isinstance(module, nn.Linear):
        return module.weight, module.bias
    if isinstance(module, ProxyObjective) and module.proxies is not None and module.per_class == 1:
        bias = getattr(module, "bias", None)
        return module.proxies, bias if isinstance(bias, Tensor) else None
    raise UsageError(
        f"{type(module).__name__} has no classifier of one row a class",
        hint="give an nn.Linear, or an objective made with its number of classes and dimension",
    )
