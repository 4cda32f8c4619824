"""What worlds of content and style have in common: a view keeps the content, redraws the style and mixes the two."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.synthetic.rotation import random_rotation


class StyledItems:
    """Items that are seen only in views: ``[content + view_noise N(0, I), style N(0, I)]`` times a random rotation.

    The content of an item is ``centre(label) + spread N(0, I)``. A world derives from it, says what labels there are
    (:meth:`draw_labels`) and where their centres lie (:meth:`centre`), draws its items and sets
    ``content [items, content_dimensions]``.

    Arguments:
        content_dimensions, style_dimensions: sizes of the two parts; no input dimension is either alone.
        spread: standard deviation of content around its centre.
        view_noise, style: standard deviations of what every view redraws.
        generator: of everything random in the world, at least of the rotation, which is drawn here.
    """

    content: Tensor

    def __init__(
        self,
        content_dimensions: int,
        style_dimensions: int,
        *,
        spread: float,
        view_noise: float,
        style: float,
        generator: torch.Generator,
    ) -> None:
        self.spread, self.view_noise, self.style = spread, view_noise, style
        self.style_dimensions = style_dimensions
        self.generator = generator
        self.rotation = random_rotation(content_dimensions + style_dimensions, generator)

    @property
    def dimension(self) -> int:
        """Size of a view."""
        return len(self.rotation)

    def draw_labels(self, items: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Labels ``[items]`` of new items."""
        raise NotImplementedError

    def centre(self, labels: Tensor) -> Tensor:
        """Where the content of items with the labels ``[n]`` lies on average, ``[n, content_dimensions]``."""
        raise NotImplementedError

    def draw_content(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Content ``[n, content_dimensions]`` of fresh items with the labels ``[n]``."""
        centre = self.centre(labels)
        drawn = self.generator if generator is None else generator
        return centre + self.spread * torch.randn(centre.shape, generator=drawn)

    def parts(self, content: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """A view before it is rotated: content with fresh noise, then fresh style, ``[n, dimension]``."""
        drawn = self.generator if generator is None else generator
        noise = self.view_noise * torch.randn(content.shape, generator=drawn)
        style = self.style * torch.randn(len(content), self.style_dimensions, generator=drawn)
        return torch.cat([content + noise, style], 1)

    def view(self, content: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One view ``[n, dimension]`` of items by their content: fresh noise, fresh style."""
        return self.parts(content, generator=generator) @ self.rotation

    def views(self, index: Tensor, count: int = 2, *, generator: torch.Generator | None = None) -> list[Tensor]:
        """``count`` independent views of the items ``index``."""
        return [self.view(self.content[index], generator=generator) for _ in range(count)]

    def fresh(self, items: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """One view ``[items, dimension]`` of new items and their labels ``[items]``."""
        drawn = self.generator if generator is None else generator
        labels = self.draw_labels(items, generator=drawn)
        return self.view(self.draw_content(labels, generator=drawn), generator=drawn), labels


class StyledClasses(StyledItems):
    """Styled items whose label is a class, drawn uniformly, and whose centre is the mean of the class.

    Arguments: ``means [classes, content_dimensions]``, which are kept; the others as of :class:`StyledItems`.
    """

    def __init__(
        self,
        means: Tensor,
        style_dimensions: int,
        *,
        spread: float,
        view_noise: float,
        style: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(
            means.shape[1], style_dimensions, spread=spread, view_noise=view_noise, style=style, generator=generator
        )
        self.means = means

    def draw_labels(self, items: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Classes ``[items]`` of new items, all equally likely."""
        return torch.randint(len(self.means), (items,), generator=self.generator if generator is None else generator)

    def centre(self, labels: Tensor) -> Tensor:
        return self.means[labels]
