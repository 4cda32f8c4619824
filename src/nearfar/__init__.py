"""nearfar: learn, search and diagnose by contrast. Near what is alike, far what is not.

The rooms are imported where they are first used, so that ``import nearfar`` costs little beyond torch::

    import nearfar as nf

    loss = nf.objectives.InfoNCE(temperature=0.05)(query, key)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = (
    "claims",
    "classify",
    "compare",
    "contrast",
    "data",
    "diagnostics",
    "encoders",
    "errors",
    "evaluation",
    "negatives",
    "objectives",
    "recipes",
    "report",
    "search",
    "training",
    "views",
)

if TYPE_CHECKING:
    from nearfar import claims as claims
    from nearfar import classify as classify
    from nearfar import compare as compare
    from nearfar import contrast as contrast
    from nearfar import data as data
    from nearfar import diagnostics as diagnostics
    from nearfar import encoders as encoders
    from nearfar import errors as errors
    from nearfar import evaluation as evaluation
    from nearfar import negatives as negatives
    from nearfar import objectives as objectives
    from nearfar import recipes as recipes
    from nearfar import report as report
    from nearfar import search as search
    from nearfar import training as training
    from nearfar import views as views

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"nearfar.{name}")
    raise AttributeError(f"module 'nearfar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
