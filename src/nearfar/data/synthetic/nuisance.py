"""Items that carry, beside their content, a continuous value that views share and that must not be learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.data.synthetic.content_style import ContentStyle
from nearfar.data.synthetic.rotation import random_rotation


class ContentNuisance(ContentStyle):
    """A :class:`ContentStyle` world whose items have a nuisance value, as fixed as their content but of no meaning.

    Its last column of ``content`` is ``u ~ N(0, 1)``, independent of class and content: a sensitive attribute, a
    patient's age, the exposure of a photograph. A view is
    ``[content + view_noise N(0, I), style N(0, I), u + nuisance_noise N(0, I)]`` times a fixed random rotation, with
    ``nuisance_dimensions`` noisy copies of u. As both views of an item show it, telling items apart learns it.

    Arguments: those of :class:`ContentStyle`, and ``nuisance_dimensions`` >= 1, ``nuisance_noise``.
    """

    def __init__(
        self,
        classes: int | Sequence[int] = 10,
        items: int = 2000,
        *,
        spread: float = 0.3,
        view_noise: float = 0.3,
        style: float = 1.5,
        content_dimensions: int = 8,
        style_dimensions: int = 8,
        nuisance_dimensions: int = 4,
        nuisance_noise: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.nuisance_dimensions, self.nuisance_noise = nuisance_dimensions, nuisance_noise
        super().__init__(
            classes,
            items,
            spread=spread,
            view_noise=view_noise,
            style=style,
            content_dimensions=content_dimensions,
            style_dimensions=style_dimensions,
            seed=seed,
        )
        self.rotation = random_rotation(content_dimensions + style_dimensions + nuisance_dimensions, self.generator)

    @property
    def nuisance(self) -> Tensor:
        """u ``[items]``."""
        return self.content[:, -1]

    def draw_content(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Content and u ``[n, content_dimensions + 1]`` of fresh items of the classes ``labels [n]``."""
        drawn = self.generator if generator is None else generator
        content = super().draw_content(labels, generator=drawn)
        return torch.cat([content, torch.randn(len(content), 1, generator=drawn)], 1)

    def parts(self, content: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """A view by content and u before it is rotated: content with fresh noise, fresh style, u with fresh noise."""
        drawn = self.generator if generator is None else generator
        styled = super().parts(content[:, :-1], generator=drawn)
        noise = self.nuisance_noise * torch.randn(len(content), self.nuisance_dimensions, generator=drawn)
        return torch.cat([styled, content[:, -1:] + noise], 1)
