"""Reading and checking data: files of pairs, scored pairs, labelled texts or texts, and retrieval sets.

::

    from nearfar import data

    examples = data.read("pairs.jsonl")        # shape and columns recognised, or an error that says what to do
    print(examples.describe())
    report = data.check(examples, batch_size=1024, evaluation=data.read("dev.jsonl"))
    print(report.text())

``collect_code`` and ``split_by_module`` make pairs from the Python packages that are installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nearfar.data.checks import DataCheck, check
from nearfar.data.columns import PLAIN_SHAPES, Layout
from nearfar.data.documents import read_documents
from nearfar.data.examples import Examples
from nearfar.data.findings import Finding
from nearfar.data.fingerprints import normalise
from nearfar.data.log import BadRow
from nearfar.data.reading import read
from nearfar.data.retrieval import RetrievalSet, is_retrieval, read_retrieval

if TYPE_CHECKING:
    from nearfar.data.code import CodeItem, collect_code, split_by_module

__all__ = [
    "PLAIN_SHAPES",
    "BadRow",
    "CodeItem",
    "DataCheck",
    "Examples",
    "Finding",
    "Layout",
    "RetrievalSet",
    "check",
    "collect_code",
    "is_retrieval",
    "normalise",
    "read",
    "read_documents",
    "read_retrieval",
    "split_by_module",
]

_FROM_CODE = ("CodeItem", "collect_code", "split_by_module")


def __getattr__(name: str) -> Any:
    if name in _FROM_CODE:
        return getattr(importlib.import_module("nearfar.data.code"), name)
    raise AttributeError(f"module 'nearfar.data' has no attribute {name!r}")
