"""What an embedding space looks like, and where it goes wrong.

::

    from nearfar import diagnostics

    diagnostics.uniformity(embeddings)                 # -3.71; the floor of 256 dimensions is -3.97
    diagnostics.geometry_of(embeddings, anchors, positives)
    found = diagnostics.collect(model, dev, before_model=untrained)    # all that a report draws
"""

from __future__ import annotations

from nearfar.diagnostics.explanations import Explanation, explain
from nearfar.diagnostics.geometry import (
    alignment,
    collapse_verdict,
    effective_rank,
    geometry_of,
    isotropy,
    random_similarity,
    uniformity,
    uniformity_floor,
)
from nearfar.diagnostics.rotation import RotationFit, rotation_fit
from nearfar.diagnostics.run import collect

__all__ = [
    "Explanation",
    "RotationFit",
    "alignment",
    "collapse_verdict",
    "collect",
    "effective_rank",
    "explain",
    "geometry_of",
    "isotropy",
    "random_similarity",
    "rotation_fit",
    "uniformity",
    "uniformity_floor",
]
