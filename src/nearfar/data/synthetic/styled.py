"""What worlds of content and style have in common: a view keeps the content, redraws the style and mixes the two."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.synthetic.content_style import random_rotation


class StyledItems:
    """Items that are seen only in views: ``[content + view_noise N(0, I), style N(0, I)]`` times a random rotation.

    A world derives from it, draws its items and sets ``content [items, content_dimensions]``.

    Arguments:
        content_dimensions, style_dimensions: sizes of the two parts; no input dimension is either alone.
        view_noise, style: standard deviations of what every view redraws.
        generator: of everything random in the world, at least of the rotation, which is drawn here.
    """

    content: Tensor

    def __init__(
        self,
        content_dimensions: int,
        style_dimensions: int,
        *,
        view_noise: float,
        style: float,
        generator: torch.Generator,
    ) -> None:
        self.view_noise, self.style = view_noise, style
        self.style_dimensions = style_dimensions
        self.generator = generator
        self.rotation = random_rotation(content_dimensions + style_dimensions, generator)

    @property
    def dimension(self) -> int:
        """Size of a view."""
        return len(self.rotation)

    def view(self, content: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One view ``[n, dimension]`` of items by their content: fresh noise, fresh style."""
        drawn = self.generator if generator is None else generator
        noise = self.view_noise * torch.randn(content.shape, generator=drawn)
        style = self.style * torch.randn(len(content), self.style_dimensions, generator=drawn)
        return torch.cat([content + noise, style], 1) @ self.rotation

    def views(self, index: Tensor, count: int = 2, *, generator: torch.Generator | None = None) -> list[Tensor]:
        """``count`` independent views of the items ``index``."""
        return [self.view(self.content[index], generator=generator) for _ in range(count)]
