"""Classes that are codes of attributes, so that how alike two classes are is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.data.synthetic.rotation import random_rotation
from nearfar.data.synthetic.styled import StyledClasses
from nearfar.errors import UsageError


class AttributeCodes(StyledClasses):
    """Every combination of attribute values is a class: three binary attributes make eight.

    Each attribute has ``attribute_dimensions`` dimensions of its own, in which its values are as far apart as they can
    be (unit vectors, corners of a randomly turned regular simplex; two values are opposite). An item's content is the
    values of its class beside each other plus ``spread N(0, I)``; a view adds noise and style as in
    :class:`~nearfar.data.synthetic.StyledItems`. Two classes have in common what their codes have in common.

    Arguments:
        values: how many values each attribute has; default three attributes of two.
        items: how many items are drawn, classes uniform.
        attribute_dimensions: dimensions of an attribute, at least one less than its values.
        spread, view_noise, style: standard deviations. With the default ``view_noise = 0`` an item's noise is its own
            and only the style differs between its views.
        seed: of everything random here.

    ``codes [classes, attributes]`` are the values of each class, ``labels [items]`` the classes.
    """

    def __init__(
        self,
        values: Sequence[int] = (2, 2, 2),
        items: int = 2000,
        *,
        spread: float = 0.35,
        view_noise: float = 0.0,
        style: float = 1.0,
        attribute_dimensions: int = 4,
        style_dimensions: int = 12,
        seed: int = 0,
    ) -> None:
        if not values or min(values) < 2 or items < 1:
            raise UsageError(
                f"values are {list(values)}, items {items}; attributes need 2 values, and 1 item is needed"
            )
        if attribute_dimensions < max(values) - 1:
            raise UsageError(
                f"{max(values)} values cannot be equally far apart in {attribute_dimensions} dimensions",
                hint=f"attribute_dimensions={max(values) - 1} or more",
            )
        generator = torch.Generator().manual_seed(seed)
        self.codes = torch.cartesian_prod(*(torch.arange(count) for count in values)).reshape(-1, len(values))
        poles = [_simplex(count, attribute_dimensions, generator) for count in values]
        means = torch.cat([found[code] for found, code in zip(poles, self.codes.T, strict=True)], dim=1)
        super().__init__(
            means, style_dimensions, spread=spread, view_noise=view_noise, style=style, generator=generator
        )
        self.labels = self.draw_labels(items)
        self.content = self.draw_content(self.labels)

    @property
    def shared(self) -> Tensor:
        """How many attributes each two classes have in common, ``[classes, classes]``."""
        return (self.codes[:, None] == self.codes[None]).sum(2)


def _simplex(corners: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """``corners`` unit vectors ``[corners, dimensions]`` of equal distance, around 0, randomly turned."""
    centred = torch.eye(corners) - 1 / corners
    # the corners span one dimension less than they are
    axes = torch.linalg.svd(centred).Vh[: corners - 1]
    flat = centred @ axes.T
    unit = flat / flat.norm(dim=1, keepdim=True)
    turned: Tensor = unit @ random_rotation(dimensions, generator)[: corners - 1]
    return turned
