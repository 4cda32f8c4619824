"""A multilayer perceptron: the smallest encoder, and the head of most others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from nearfar.errors import UsageError


class Perceptron(nn.Module):
    """``Linear, [BatchNorm,] ReLU`` for each hidden width, then ``Linear``: ``[..., widths[0]] -> [..., widths[-1]]``.

    Arguments:
        widths: sizes from input to output, two at least: ``(16, 64, 64, 16)`` has two hidden layers.
        batch_norm: normalise hidden layers over the batch (input ``[n, d]`` only).
        flatten: take inputs of any shape and flatten all but the batch.

    Raises :class:`~nearfar.errors.UsageError` for fewer than two widths or one below 1.
    """

    def __init__(self, widths: Sequence[int], *, batch_norm: bool = False, flatten: bool = False) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise UsageError(f"widths are {list(widths)}; an input and an output size are needed, each at least 1")
        layers: list[nn.Module] = [nn.Flatten()] if flatten else []
        for below, above in pairwise(widths[:-1]):
            layers.append(nn.Linear(below, above))
            if batch_norm:
                layers.append(nn.BatchNorm1d(above))
            layers.append(nn.ReLU())
        layers.append(nn.Linear(widths[-2], widths[-1]))
        self.layers = nn.Sequential(*layers)
        self.widths = tuple(widths)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y
