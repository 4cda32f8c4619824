"""Views: stochastic transformations that keep what matters of an item and change the rest.

A view is a callable ``view(items, generator=None) -> items`` on a batch; everything random comes from the generator::

    from nearfar import views

    view = views.simclr_views(32)
    first, second = views.views_of(view, images, generator=torch.Generator().manual_seed(0))
"""

from __future__ import annotations

from nearfar.views.base import Compose, View, views_of
from nearfar.views.embedding import EmbeddingDropout, FeatureCutoff, SphereNoise, TokenCutoff
from nearfar.views.image import (
    ColourJitter,
    Erase,
    GaussianBlur,
    Greyscale,
    HorizontalFlip,
    Noise,
    RandomResizedCrop,
    Rotate,
    Solarise,
    simclr_views,
)
from nearfar.views.sequence import (
    CropIds,
    Jitter,
    MaskIds,
    PermuteSegments,
    ReorderIds,
    Rescale,
    Reverse,
    TimeMask,
    TimeWarp,
    WindowSlice,
)
from nearfar.views.tabular import ColumnMix, Corrupt, FeatureDropout, FeatureNoise, Interpolate

__all__ = [
    "ColourJitter",
    "ColumnMix",
    "Compose",
    "Corrupt",
    "CropIds",
    "EmbeddingDropout",
    "Erase",
    "FeatureCutoff",
    "FeatureDropout",
    "FeatureNoise",
    "GaussianBlur",
    "Greyscale",
    "HorizontalFlip",
    "Interpolate",
    "Jitter",
    "MaskIds",
    "Noise",
    "PermuteSegments",
    "RandomResizedCrop",
    "ReorderIds",
    "Rescale",
    "Reverse",
    "Rotate",
    "Solarise",
    "SphereNoise",
    "TimeMask",
    "TimeWarp",
    "TokenCutoff",
    "View",
    "WindowSlice",
    "simclr_views",
    "views_of",
]
