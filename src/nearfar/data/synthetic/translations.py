"""Sources with candidate translations of several systems, some of which write in a manner that one metric likes."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError

_WORLDS = 11_000_027


class Translations:
    """``S`` sources, each with ``own`` candidates that a base model may write and ``other`` of better systems.

    A candidate has a ``quality [S, A]``, a ``style`` and an ``overlap`` with a reference translation. The base model's
    have quality ``N(0, 1)``, style ``N(0, 1/2)`` and overlap ``N(1, 1/2)``; other systems' are better by ``lead``, two
    points richer in style and two points lower in overlap: they paraphrase. Three metrics: ``liked`` is quality plus
    style (a neural metric with a taste), ``quality`` itself, and ``lexical``, overlap plus half the quality.
    ``features [S, A, 6]``: four that quality is half made of, style and overlap. ``base [S, A]``: logits of the base
    model, ``N(0, 1)``, less ``rare`` for what other systems write. All in float64.

    Arguments: ``world`` seeds what makes quality, which is the same for all sources of a world; ``seed`` the sources.
    Raises UsageError for fewer than 2 own and 1 other candidates.
    """

    def __init__(
        self,
        sources: int = 200,
        own: int = 10,
        other: int = 6,
        *,
        lead: float = 0.7,
        rare: float = 3.0,
        world: int = 0,
        seed: int = 0,
    ) -> None:
        if sources < 1 or own < 2 or other < 1:
            raise UsageError("translations need a source, 2 candidates of its own and another system's at least")
        drawn = torch.Generator().manual_seed(seed)
        count = own + other
        # far from the seeds of sources, which would otherwise begin with the same numbers
        direction = torch.randn(4, generator=torch.Generator().manual_seed(world + _WORLDS)).double()
        visible, hidden, style, overlap, base = (
            torch.randn(sources, count, width, generator=drawn).double() for width in (4, 1, 1, 1, 1)
        )
        self.external: Tensor = torch.arange(count) >= own
        others = self.external.double()
        made = visible @ direction / direction.norm()
        self.quality: Tensor = (made + hidden[..., 0]) / 2**0.5 + lead * others
        self.style: Tensor = style[..., 0] / 2 + 2 * others
        self.overlap: Tensor = overlap[..., 0] / 2 + 1 - 2 * others
        self.features = torch.cat([visible, self.style[..., None], self.overlap[..., None]], dim=2)
        self.base = base[..., 0] - rare * others

    @property
    def liked(self) -> Tensor:
        """The metric ``[S, A]`` that chooses: quality plus style."""
        return self.quality + self.style

    @property
    def lexical(self) -> Tensor:
        """The metric ``[S, A]`` that counts common words: overlap plus half the quality."""
        return self.overlap + self.quality / 2

    def candidates(self, source: Tensor, systems: int, count: int, *, generator: torch.Generator) -> Tensor:
        """``count`` different candidates ``[n, count]`` for sources ``[n]``: ``systems`` of them of other systems, the
        rest as the base model writes them."""
        rows = torch.softmax(self.base[source], 1)
        own = torch.multinomial(rows * ~self.external, count - systems, generator=generator)
        if not systems:
            return own
        foreign = self.external.double().expand_as(rows)
        return torch.cat([own, torch.multinomial(foreign, systems, generator=generator)], dim=1)
