"""Content that views share and style that every view redraws, mixed so that no input dimension is either alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nearfar.data.synthetic.styled import StyledClasses
from nearfar.errors import UsageError


class ContentStyle(StyledClasses):
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
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(number, content_dimensions, generator=generator)
        super().__init__(
            means / means.norm(dim=1, keepdim=True),
            style_dimensions,
            spread=spread,
            view_noise=view_noise,
            style=style,
            generator=generator,
        )
        if counts is None:
            self.labels = self.draw_labels(items)
        else:
            self.labels = torch.repeat_interleave(torch.arange(number), counts)
        self.content = self.draw_content(self.labels)
