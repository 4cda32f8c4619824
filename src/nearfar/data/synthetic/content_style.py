"""Content that views share and style that every view redraws, mixed so that no input dimension is either alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.errors import UsageError


def random_rotation(dimension: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix ``[dimension, dimension]`` (uniform up to the signs of its columns)."""
    orthogonal, triangular = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator))
    rotation: Tensor = orthogonal * triangular.diagonal().sign()
    return rotation


class ContentStyle:
    """Classes of items whose views share their content and redraw their style.

    ``content = mean[class] + spread N(0, I)`` with class means that are random unit vectors in ``content_dimensions``;
    a view is ``[content + view_noise N(0, I), style N(0, I)]`` times a fixed random rotation. What a method should
    find is the content; a style louder than the content hides it from the untrained encoder.

    Arguments:
        classes: how many, or the number of items of each class for a long tail.
        items: how many items are drawn, classes uniform (without meaning where ``classes`` counts the items).
        spread, view_noise, style: standard deviations.
        seed: of everything random here. Same seed: same means, rotation and items.

    ``content [items, content_dimensions]`` and ``labels [items]`` are the truth.
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
        seed: int = 0,
    ) -> None:
        counts = None if isinstance(classes, int) else torch.as_tensor(classes)
        number = classes if isinstance(classes, int) else len(classes)
        if number < 1 or (counts is None and items < 1) or (counts is not None and int(counts.min()) < 1):
            raise UsageError("at least one class and one item a class are needed")
        self.spread, self.view_noise, self.style = spread, view_noise, style
        self.style_dimensions = style_dimensions
        self.generator = torch.Generator().manual_seed(seed)
        means = torch.randn(number, content_dimensions, generator=self.generator)
        self.means = means / means.norm(dim=1, keepdim=True)
        self.rotation = random_rotation(content_dimensions + style_dimensions, self.generator)
        if counts is None:
            self.labels = torch.randint(number, (items,), generator=self.generator)
        else:
            self.labels = torch.repeat_interleave(torch.arange(number), counts)
        self.content = self.draw_content(self.labels)

    @property
    def dimension(self) -> int:
        """Size of a view."""
        return len(self.rotation)

    def draw_content(self, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Content ``[n, content_dimensions]`` of fresh items of the classes ``labels [n]``."""
        centre = self.means[labels]
        drawn = self.generator if generator is None else generator
        content: Tensor = centre + self.spread * torch.randn(centre.shape, generator=drawn)
        return content

    def view(self, content: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One view ``[n, dimension]`` of items by their content: fresh noise, fresh style."""
        drawn = self.generator if generator is None else generator
        noise = self.view_noise * torch.randn(content.shape, generator=drawn)
        style = self.style * torch.randn(len(content), self.style_dimensions, generator=drawn)
        mixed: Tensor = torch.cat([content + noise, style], 1) @ self.rotation
        return mixed

    def views(self, index: Tensor, count: int = 2, *, generator: torch.Generator | None = None) -> list[Tensor]:
        """``count`` independent views of the items ``index``."""
        return [self.view(self.content[index], generator=generator) for _ in range(count)]

    def fresh(self, items: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """One view ``[items, dimension]`` of new items, classes uniform, and their labels ``[items]``."""
        drawn = self.generator if generator is None else generator
        labels = torch.randint(len(self.means), (items,), generator=drawn)
        return self.view(self.draw_content(labels, generator=drawn), generator=drawn), labels
