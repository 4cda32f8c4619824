"""Two sets of items: what both show, and what only one of them shows on top."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.data.synthetic.rotation import random_rotation
from nearfar.errors import UsageError


class BackgroundTarget:
    """A background and a target set that share a common factor; the targets have a salient one besides.

    ``x = A c + target * B s + noise N(0, I)``: ``c`` is the unit vector of a common class, in all items, ``s`` that of
    a salient class, in the targets only, each plus ``spread N(0, I)``; the columns of A and B are random and all
    orthogonal, so that any two classes of a factor are as far apart as any others. So do images of patients and healthy
    people differ by age and sex in both groups, and by the lesion in one.

    Arguments:
        common, salient: how many classes of each factor; they are drawn uniformly and independently.
        items: how many items, each a target with probability 1/2.
        spread, noise: standard deviations. With the default ``spread = 0`` items of the same classes differ by the
            noise alone, which every view redraws.
        dimensions: size of an item, at least the number of all classes.
        seed: of everything random here.

    ``target [items]`` (bool), ``common [items]`` and ``salient [items]`` (classes; -1 in the background) and ``signal
    [items, dimensions]``, the items without noise, are the truth; ``common_axes`` and ``salient_axes`` ``[classes,
    dimensions]`` are A and B, a row a class.
    """

    def __init__(
        self,
        common: int = 4,
        salient: int = 3,
        items: int = 2000,
        *,
        spread: float = 0.0,
        noise: float = 0.1,
        dimensions: int = 16,
        seed: int = 0,
    ) -> None:
        if min(common, salient, items) < 1:
            raise UsageError("at least one common class, one salient class and one item are needed")
        if dimensions < common + salient:
            raise UsageError(f"{dimensions} dimensions cannot hold {common} + {salient} classes at right angles")
        self.spread, self.noise = spread, noise
        self.generator = torch.Generator().manual_seed(seed)
        rotation = random_rotation(dimensions, self.generator)
        self.common_axes, self.salient_axes = rotation[:common], rotation[common : common + salient]
        self.signal, self.target, self.common, self.salient = self.draw(items)

    def draw(self, items: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """New items without noise ``[items, dimensions]``, whether they are targets, common and salient classes."""
        drawn = self.generator if generator is None else generator
        target = torch.rand(items, generator=drawn) < 0.5
        common = torch.randint(len(self.common_axes), (items,), generator=drawn)
        salient = torch.randint(len(self.salient_axes), (items,), generator=drawn)
        shared = self._around(self.common_axes, common, drawn)
        own = self._around(self.salient_axes, salient, drawn)
        return shared + target[:, None] * own, target, common, torch.where(target, salient, -1)

    def view(self, signal: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One view ``[n, dimensions]`` of items by their signal: fresh noise."""
        drawn = self.generator if generator is None else generator
        seen: Tensor = signal + self.noise * torch.randn(signal.shape, generator=drawn)
        return seen

    def views(self, index: Tensor, count: int = 2, *, generator: torch.Generator | None = None) -> list[Tensor]:
        """``count`` independent views of the items ``index``."""
        return [self.view(self.signal[index], generator=generator) for _ in range(count)]

    def _around(self, axes: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
        drawn: Tensor = axes[classes]
        if self.spread:
            drawn = drawn + self.spread * torch.randn(len(classes), len(axes), generator=generator) @ axes
        return drawn
