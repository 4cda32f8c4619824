"""Dropout at a rate of one's own for some passes: views of a text that differ in how much of it is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from nearfar.errors import ModelError, UsageError

_NUMBERS = ("dropout", "attention_dropout")
"""Attributes in which modules without a dropout layer keep their rate: of attention (torch's, T5's, ModernBERT's), of
:class:`~nearfar.encoders.token_transformer.TokenTransformer`."""


@contextmanager
def dropout_rate(module: nn.Module, rate: float) -> Iterator[None]:
    """Inside the block every dropout of ``module`` has ``rate``; afterwards each has its own again.

    All places count: embeddings, attention probabilities, what attention and feed-forward halves give. Every rate is
    set, whatever it was (SupCL-Seq's official code leaves those alone that have the wanted rate before the first
    change, and restores 0.1 whatever it was). Whether dropout acts at all is the mode's affair: ``module.train()``.

    Arguments:
        rate: in [0, 1).

    Raises :class:`~nearfar.errors.UsageError` for another rate, :class:`~nearfar.errors.ModelError` for a module that
    has no dropout.
    """
    if not 0 <= rate < 1:
        raise UsageError(f"a dropout rate lies in [0, 1), got {rate}")
    found = _places(module)
    if not found:
        raise ModelError("the model has no dropout whose rate could be set")
    before = [getattr(part, name) for part, name in found]
    try:
        for part, name in found:
            setattr(part, name, float(rate))
        yield
    finally:
        for (part, name), value in zip(found, before, strict=True):
            setattr(part, name, value)


def without_dropout(module: nn.Module) -> None:
    """Set the rate of every dropout of ``module`` to 0, for good."""
    for part, name in _places(module):
        setattr(part, name, 0.0)


def dropout_rates(module: nn.Module) -> list[float]:
    """The rates of all dropouts of ``module``, in the order of its modules; empty where there is none."""
    return [float(getattr(part, name)) for part, name in _places(module)]


def _places(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where rates are kept: modules and the attribute of each."""
    found: list[tuple[nn.Module, str]] = []
    for part in module.modules():
        if isinstance(part, _DropoutNd):
            found.append((part, "p"))
        found += [(part, name) for name in _NUMBERS if isinstance(part.__dict__.get(name), float)]
    return found
