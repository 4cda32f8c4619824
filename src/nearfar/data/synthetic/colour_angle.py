"""Items with a class and a colour, and an augmentation that turns the colour by the same angle for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.synthetic.rotation import random_rotation
from nearfar.errors import UsageError
from nearfar.views.shared import shared_by_part


class ColourAngle:
    """What a view shows of an item is its content, the angle of its colour on a circle, and noise, all mixed.

    ``content = mean[class] + spread N(0, I)`` with class means that are random unit vectors; a view is
    ``[content + view_noise N(0, I), cos(colour), sin(colour), noise N(0, I)]`` times a fixed random rotation. Turning
    the colour (a shift of hue) is a rotation of the input, so that an encoder can answer it by a rotation of the
    embedding; but it need not.

    Arguments:
        classes, items: how many of either; classes and colours are uniform.
        spread, view_noise, noise: standard deviations.
        content_dimensions, noise_dimensions: a view has as many dimensions as both together and two for the colour.
        seed: of everything random here. Same seed: same means, rotation and items.

    ``content [items, content_dimensions]``, ``colour [items]`` in [0, 2 pi) and ``labels [items]`` are the truth.
    """

    def __init__(
        self,
        classes: int = 8,
        items: int = 2000,
        *,
        spread: float = 0.15,
        view_noise: float = 0.05,
        noise: float = 0.1,
        content_dimensions: int = 4,
        noise_dimensions: int = 6,
        seed: int = 0,
    ) -> None:
        if classes < 1 or items < 1 or content_dimensions < 1 or noise_dimensions < 0:
            raise UsageError("at least one class, one item and one dimension of content are needed")
        self.spread, self.view_noise, self.noise = spread, view_noise, noise
        self.noise_dimensions = noise_dimensions
        self.generator = torch.Generator().manual_seed(seed)
        means = torch.randn(classes, content_dimensions, generator=self.generator)
        self.means = means / means.norm(dim=1, keepdim=True)
        self.rotation = random_rotation(content_dimensions + 2 + noise_dimensions, self.generator)
        self.content, self.colour, self.labels = self.fresh(items)

    @property
    def dimension(self) -> int:
        """Size of a view."""
        return len(self.rotation)

    def fresh(self, items: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Content ``[items, content_dimensions]``, colour ``[items]`` and label ``[items]`` of new items."""
        drawn = self.generator if generator is None else generator
        labels = torch.randint(len(self.means), (items,), generator=drawn)
        centre = self.means[labels]
        content = centre + self.spread * torch.randn(centre.shape, generator=drawn)
        return content, 2 * torch.pi * torch.rand(items, generator=drawn), labels

    def view(self, content: Tensor, colour: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One view ``[n, dimension]`` of items by content and colour, fresh noise; to turn it, add to ``colour``."""
        drawn = self.generator if generator is None else generator
        seen = content + self.view_noise * torch.randn(content.shape, generator=drawn)
        noise = self.noise * torch.randn(len(content), self.noise_dimensions, generator=drawn)
        return torch.cat([seen, on_circle(colour), noise], 1) @ self.rotation

    def turned(
        self,
        index: Tensor,
        count: int = 2,
        *,
        strongest: float,
        parts: int | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """``count`` views of the items ``index``, each with the colour turned by angles from (-strongest, strongest).

        An angle for every item, or with ``parts`` one for each part of the batch, see
        :func:`nearfar.views.shared.shared_by_part`.
        """
        drawn = self.generator if generator is None else generator
        views = []
        for _ in range(count):
            angles = (2 * torch.rand(len(index) if parts is None else parts, generator=drawn) - 1) * strongest
            colour = self.colour[index] + shared_by_part(angles, len(index))
            views.append(self.view(self.content[index], colour, generator=drawn))
        return views


def on_circle(angle: Tensor) -> Tensor:
    """``(cos, sin)`` ``[n, 2]`` of angles ``[n]``: what a regression can find of something that is periodic."""
    return torch.stack([angle.cos(), angle.sin()], 1)
