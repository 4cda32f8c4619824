from __future__ import annotations

import pytest

from nearfar.errors import UsageError
from nearfar.training.timing import cpu_seconds


def test_steps_are_timed_in_turns() -> None:
    order: list[str] = []
    found = cpu_seconds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert set(found) == {"a", "b"}
    assert min(found.values()) >= 0
    with pytest.raises(UsageError, match="rounds"):
        cpu_seconds({}, rounds=0)
