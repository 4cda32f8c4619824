"""Items with a number for a label, whose content lies along a curve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.data.synthetic.styled import StyledItems
from nearfar.errors import UsageError


class ContentCurve(StyledItems):
    """Items whose label is a number and whose content is a smooth curve at that number.

    The curve is ``cos(frequency_k y + phase_k)`` in each of ``content_dimensions`` dimensions (random Fourier features,
    Rahimi and Recht, 2007): near labels have near contents, far labels unrelated ones. Frequencies are
    ``N(0, 1) / smoothness``, phases uniform. Content adds ``spread N(0, I)``, a view adds noise and style as in
    :class:`~nearfar.data.synthetic.StyledItems`.

    Arguments:
        highest: labels are uniform in [0, ``highest``].
        items: how many are drawn.
        whole: whether labels are rounded to whole numbers, so that some items have equal ones.
        smoothness: the difference of labels over which the curve forgets where it was, > 0.
        spread, view_noise, style: standard deviations.
        seed: of everything random here.

    ``labels [items]`` (floating) and ``content`` are the truth.
    """

    def __init__(
        self,
        highest: float = 20.0,
        items: int = 2000,
        *,
        whole: bool = True,
        smoothness: float = 4.0,
        spread: float = 0.3,
        view_noise: float = 0.3,
        style: float = 1.5,
        content_dimensions: int = 8,
        style_dimensions: int = 8,
        seed: int = 0,
    ) -> None:
        if not (highest > 0 and smoothness > 0 and items >= 1):
            raise UsageError(f"highest is {highest}, smoothness {smoothness}, items {items}; all must be above 0")
        generator = torch.Generator().manual_seed(seed)
        self.highest, self.whole = highest, whole
        self.frequency = torch.randn(content_dimensions, generator=generator) / smoothness
        self.phase = 2 * math.pi * torch.rand(content_dimensions, generator=generator)
        super().__init__(
            content_dimensions,
            style_dimensions,
            spread=spread,
            view_noise=view_noise,
            style=style,
            generator=generator,
        )
        self.labels = self.draw_labels(items)
        self.content = self.draw_content(self.labels)

    def draw_labels(self, items: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Labels ``[items]`` of new items."""
        labels = self.highest * torch.rand(items, generator=self.generator if generator is None else generator)
        return labels.round() if self.whole else labels

    def centre(self, labels: Tensor) -> Tensor:
        """The curve ``[n, content_dimensions]`` at the labels ``[n]``."""
        return torch.cos(labels[:, None] * self.frequency + self.phase)
