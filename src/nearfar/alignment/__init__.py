"""Language models and preferences: policies, their scores of responses, and training that raises some over others.

::

    from nearfar import alignment

    settings = alignment.AlignmentSettings(data="prefs.jsonl", model="smollm2", lora=True, output="runs/dpo")
    run = alignment.align(settings)
    run.after[run.main], run.model
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar.alignment.results import AlignmentRun
    from nearfar.alignment.run import align
    from nearfar.alignment.settings import AlignmentSettings

__all__ = ["AlignmentRun", "AlignmentSettings", "align"]

_PLACES = {
    "AlignmentRun": "nearfar.alignment.results",
    "AlignmentSettings": "nearfar.alignment.settings",
    "align": "nearfar.alignment.run",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:  # what runs need takes a second to import, and tables and losses do not need it
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'nearfar.alignment' has no attribute {name!r}")
