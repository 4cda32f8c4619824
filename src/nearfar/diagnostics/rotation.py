"""Does an augmentation act as one rotation of the embedding space, the same for all items?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.diagnostics.geometry import Embeddings, _unit
from nearfar.errors import DataError


@dataclass(frozen=True)
class RotationFit:
    """The rotation that comes nearest to an augmentation, and what it leaves unexplained.

    - ``rotation [d, d]``: the orthogonal R with the least ``error``;
    - ``error``: ``mean_i |z_i R - z'_i|^2``, in [0, 4]; 0 where the augmentation is a rotation;
    - ``gap``: ``mean_i |z_i - z'_i|^2``, the same without rotating; 0 where the embedding ignores the augmentation;
    - ``angle``: by which items move on the sphere on average, ``arccos(mean_i z_i . z'_i)``, in radians.
    """

    rotation: npt.NDArray[np.float64]
    error: float
    gap: float
    angle: float

    @property
    def ratio(self) -> float:
        """``error / gap``, in [0, 1]: the share of the movement that no common rotation explains.

        1 where nothing moves at all: an invariant embedding is not an equivariant one, though its error is 0.
        """
        return self.error / self.gap if self.gap > 0 else 1.0


def rotation_fit(before: Embeddings, after: Embeddings, *, proper: bool = False) -> RotationFit:
    """Wahba's problem (1965) as a diagnostic of equivariance (Gupta et al., 2023, arXiv:2306.13924).

    ``before [n, d]`` and ``after [n, d]`` are embeddings of the same items without and with *one* augmentation, the
    same for all; rows are L2-normalised. With ``U S Vᵀ`` the singular value decomposition of ``beforeᵀ after``,
    ``R = U Vᵀ``. With ``proper`` the determinant of R is 1 (the axis of the least singular value is turned over where
    it has to be); by default R may be a reflection as well.

    With fewer items than dimensions a rotation always fits: use many more. Raises :class:`~nearfar.errors.DataError`
    for no items or unequal shapes.
    """
    one, two = _unit(before), _unit(after)
    if one.shape != two.shape:
        raise DataError(f"embeddings before and after need equal shapes, not {one.shape} and {two.shape}")
    if not len(one):
        raise DataError("there are no items, so there is no rotation")
    left, _, right = np.linalg.svd(one.T @ two)
    if proper and np.linalg.det(left @ right) < 0:
        left[:, -1] *= -1
    rotation: npt.NDArray[Any] = left @ right
    cosine = float(np.einsum("nd,nd->n", one, two).mean())
    return RotationFit(rotation, _gap(one @ rotation, two), _gap(one, two), math.acos(min(1.0, max(-1.0, cosine))))


def _gap(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    return float(np.mean(np.sum((one - two) ** 2, axis=1)))
