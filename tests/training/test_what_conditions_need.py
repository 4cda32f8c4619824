"""Objectives that need more than the data gives say so before training."""

from __future__ import annotations

import pytest

from nearfar import objectives
from nearfar.errors import UsageError
from nearfar.training.shapes import check_fit


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ccl-k", "needs relation=Kernel"),
        ("supremix", "needs relation=Kernel"),
        ("hydra", "needs gate and labels and partners"),
    ],
)
@pytest.mark.parametrize("shape", ["pairs", "labelled texts"])
def test_refused_with_what_is_missing(name: str, says: str, shape: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_fit(objectives.get(name), shape)


def test_classes_are_for_labelled_texts() -> None:
    check_fit(objectives.get("gml"), "labelled texts")
    with pytest.raises(UsageError, match="about classes"):
        check_fit(objectives.get("gml"), "pairs")


@pytest.mark.parametrize("name", ["cacr", "macl", "sogclr", "isogclr", "kernel-infonce"])
def test_pairs_are_enough(name: str) -> None:
    check_fit(objectives.get(name), "pairs")
