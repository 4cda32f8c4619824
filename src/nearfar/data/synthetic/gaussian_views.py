"""A hidden number seen several times with noise: how much the views tell of each other is known exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.errors import UsageError


class GaussianViews:
    """``x_a = c + N(0, variance)``, ``a = 1..count``, of a hidden ``c ~ N(0, 1)`` for each item.

    The smallest world in which bounds of mutual information can be checked: the information of the views and the best
    possible critic are known in closed form, so that what an objective reports is not mixed with what was learned.

    Arguments:
        count: views of an item, at least 2.
        variance: of the noise, > 0. Each pair of views has the correlation ``1 / (1 + variance)``.

    Raises :class:`~nearfar.errors.UsageError` for fewer views or a variance that is not a finite number above 0.
    """

    def __init__(self, count: int = 2, *, variance: float = 0.5) -> None:
        if count < 2 or not 0 < variance < math.inf:
            raise UsageError(f"{count} views of variance {variance}; at least 2 and a finite number above 0 are needed")
        self.count, self.variance = count, variance

    @property
    def information(self) -> float:
        """``I(x_1; x_2, ..., x_count)`` in nats: of one view and all others.

        ``1/2 log( (1 + variance) / (variance + variance / (variance + count - 1)) )``
        """
        rest = self.variance / (self.variance + self.count - 1)  # what the others leave open of c
        return 0.5 * math.log((1 + self.variance) / (self.variance + rest))

    def draw(self, items: int, *, generator: torch.Generator) -> Tensor:
        """Views ``[count * items]`` (float64) of fresh items: the first of every item, then the second, and so on."""
        hidden = torch.randn(items, generator=generator, dtype=torch.float64)
        noise = torch.randn(self.count, items, generator=generator, dtype=torch.float64)
        return (hidden + math.sqrt(self.variance) * noise).flatten()

    def log_ratios(self, first: Tensor, second: Tensor) -> Tensor:
        """The best critic of two views ``[n]``, ``[m]``: ``log p(second | first) - log p(second)``, ``[n, m]``."""
        total = 1 + self.variance
        correlation = 1 / total
        rest = 1 - correlation**2
        x, y = first[:, None], second[None]
        exponent = correlation * (2 * x * y - correlation * (x**2 + y**2)) / (2 * total * rest)
        ratios: Tensor = exponent - 0.5 * math.log(rest)
        return ratios
