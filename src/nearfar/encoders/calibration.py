"""From which similarity on two texts count as near: a threshold that is kept with the encoder it was found for."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar.encoders.safety import read_json
from nearfar.errors import ModelError
from nearfar.files import write_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FILE = "calibration.json"
_ATTRIBUTE = "nearfar_calibration"

Range = Mapping[str, float]
"""``{"value", "low", "high"}``."""


@dataclass(frozen=True)
class Calibration:
    """Two texts are near where the cosine similarity of their embeddings is at least ``threshold``.

    ``low``, ``high``: 95 % interval of the threshold; ``wanted`` (``"precision"`` or ``"false_positive_rate"``) and
    ``target``: what it was asked for; ``here``: precision, recall and false-positive rate on the pairs it was found on;
    ``expected``: the same on pairs it was not found on, with intervals; ``pairs`` and ``near``: how many there were,
    and how many of them are near; ``fingerprint``: of the encoder (:func:`nearfar.encoders.fingerprint`).
    """

    threshold: float
    low: float
    high: float
    wanted: str
    target: float
    pairs: int
    near: int
    here: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, Range] = field(default_factory=dict)
    fingerprint: str | None = None

    def is_near(self, similarities: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of these cosine similarities are those of near texts."""
        found: npt.NDArray[np.bool_] = np.asarray(similarities) >= self.threshold
        return found

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        expected = {name: dict(each) for name, each in self.expected.items()}
        return {**self.__dict__, "here": dict(self.here), "expected": expected}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str | None = None) -> Calibration:
        """What :meth:`to_dict` gave. Raises :class:`~nearfar.errors.ModelError` for anything else."""
        try:
            numbers = {name: float(values[name]) for name in ("threshold", "low", "high", "target")}
            made = cls(
                **numbers,
                wanted=str(values["wanted"]),
                pairs=int(values["pairs"]),
                near=int(values["near"]),
                here={str(name): float(value) for name, value in values["here"].items()},
                expected={
                    str(name): {key: float(each[key]) for key in ("value", "low", "high")}
                    for name, each in values["expected"].items()
                },
                fingerprint=None if values.get("fingerprint") is None else str(values["fingerprint"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{FILE} is not a calibration: {error!r}", where=where) from None
        if not all(math.isfinite(value) for value in numbers.values()):
            raise ModelError(f"{FILE} holds a number that is not finite", where=where)
        return made

    def __str__(self) -> str:
        name = self.wanted.replace("_", "-").replace("false-positive-rate", "false-positive rate")
        text = f"near from {self.threshold:.3f} [{self.low:.3f}, {self.high:.3f}] on, for a {name} of {self.target:g}"
        found = self.expected.get(self.wanted)
        if found is None:
            return text
        return f"{text}; expected of new pairs {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def calibration_of(model: SentenceTransformer) -> Calibration | None:
    """The calibration that was loaded with ``model`` or set, if there is one."""
    found = model.__dict__.get(_ATTRIBUTE)
    return found if isinstance(found, Calibration) else None


def set_calibration(model: SentenceTransformer, calibration: Calibration | None) -> None:
    """Keep ``calibration`` with ``model``; :func:`nearfar.encoders.save` writes it. None: forget the one there is."""
    model.__dict__[_ATTRIBUTE] = calibration


def write_calibration(model: SentenceTransformer, folder: str | os.PathLike[str]) -> None:
    """Write the calibration of ``model`` into its ``folder``, if it has one that was found for its present weights."""
    from nearfar.encoders.save import fingerprint

    known = calibration_of(model)
    if known is not None and known.fingerprint in (None, fingerprint(model)):
        write_json(Path(folder) / FILE, known.to_dict())


def read_calibration(model: SentenceTransformer, folder: Path) -> None:
    """Set the calibration that lies in the ``folder`` of ``model``, if there is one. One of other weights is left out,
    with a warning.

    Raises :class:`~nearfar.errors.ModelError` for a file that is none.
    """
    from nearfar.encoders.save import fingerprint

    path = folder / FILE
    if not path.is_file():
        return
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{FILE} holds no JSON object", where=str(path))
    known = Calibration.from_dict(values, where=str(path))
    if known.fingerprint not in (None, fingerprint(model)):
        warnings.warn(
            f"the calibration in {folder} is of other weights or settings and is left out; calibrate anew",
            UserWarning,
            stacklevel=3,
        )
        return
    set_calibration(model, known)
