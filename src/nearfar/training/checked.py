"""Settings of a run: read from names and values, checked, and compared with those of a run that is resumed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nearfar.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Mine = TypeVar("Mine", bound="Checked")

NOT_OF_THE_RUN = ("output", "overwrite", "resume", "workers", "tensorboard", "device", "shard")
"""Settings that say where and how a run goes, not what it computes."""


class Checked:
    """Base of dataclasses of settings, whose fields all have defaults."""

    def to_dict(self) -> dict[str, Any]:
        """All settings, ready for JSON."""
        return asdict(cast("DataclassInstance", self))

    @classmethod
    def from_dict(cls: type[Mine], values: Mapping[str, Any]) -> Mine:
        """Settings from names and values, each of which counts as set. Raises UsageError for a name that is no
        setting."""
        known = [each.name for each in fields(cast("type[DataclassInstance]", cls))]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UsageError(f"there is no setting {name!r}", hint=f"did you mean {near[0]!r}?" if near else None)
        return cls(**dict(values))

    def changed(self: Mine, other: Mine) -> list[str]:
        """Names of settings of the run that were set here (differ from their defaults) and differ in ``other``."""
        mine, theirs, plain = self.to_dict(), other.to_dict(), type(self)().to_dict()
        return [
            name
            for name, value in mine.items()
            if name not in NOT_OF_THE_RUN and value != plain[name] and value != theirs[name]
        ]

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise wrong(name, value, f"give a whole number, {least} or more")

    def _positive(self, name: str) -> None:
        if getattr(self, name) is not None:
            self._number(name, math.nextafter(0.0, 1.0), math.inf)

    def _number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None:
            return
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not low <= value <= high:
            bounds = f"from {low:g} to {high:g}" if high < math.inf else ("above 0" if low > 0 else "0 or more")
            raise wrong(name, value, f"give a number {bounds}")

    def _one_of(self, name: str, choices: Sequence[str]) -> None:
        if getattr(self, name) not in choices:
            raise wrong(name, getattr(self, name), f"choose one of {', '.join(choices)}")


def wrong(name: str, value: Any, hint: str) -> UsageError:
    """The error of a setting ``name`` that cannot have this ``value``; ``hint`` says what it can have."""
    return UsageError(f"{name.replace('_', ' ')} cannot be {value!r}", where=f"--{name.replace('_', '-')}", hint=hint)
