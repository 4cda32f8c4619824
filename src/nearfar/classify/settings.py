"""Everything that can be set about few-shot classification, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nearfar.encoders.linear_classifier import PENALTY
from nearfar.errors import UsageError
from nearfar.negatives.label_pairs import STRATEGIES

SETFIT, UNTUNED, LINEAR_HEAD, TF_IDF = "setfit", "untuned", "linear head", "tf-idf"
BASELINES: Mapping[str, str] = {
    UNTUNED: "logistic regression on the encoder as it was loaded",
    LINEAR_HEAD: "plain fine-tuning: a linear layer on the encoder, cross-entropy, all weights, as many steps",
    TF_IDF: "logistic regression on TF-IDF of words",
}
"""What the tuned classifier is compared with."""

PAIRS = 2_000
"""Pairs a draw is tuned on, by default."""


@dataclass
class ClassifySettings:
    """What ``nearfar classify`` offers.

    Data:
        data: labelled texts, read by :func:`nearfar.data.read`; ``columns`` and ``max_bad_rows`` as there.
        test: labelled texts to be asked. hold_out: otherwise the share of each label that is (default 0.5).
        shots: examples of each label that a draw has (all where there are fewer). None: all, and one draw.
        draws: how often they are drawn anew; intervals are over draws and asked texts.
    Tuning:
        encoder: "minilm", "static", a folder or a hub name. max_length: tokens read of a text.
        pairs: pairs a draw is tuned on at most, half of them of equal labels; strategy, itself: how they are drawn;
            iterations: so many pairs of each kind for a text instead, without a bound
            (:class:`~nearfar.negatives.LabelPairs`). epochs: passes over these pairs.
        batch_size: texts a step, two a pair (32, of the SetFit package). learning_rate: of the encoder (2e-5, of the
            package; 0.02 for a static encoder).
        penalty: inverse L2 penalty of every logistic regression.
        head_learning_rate: of the linear layer that is compared with.
    Result:
        output: the run folder. overwrite: replace one that is there.
        baselines: of :data:`BASELINES`. explanations: texts whose prediction is explained; samples: of each.
        seed: of everything random. device: "cpu", or None for a GPU if there is one.

    Raises :class:`UsageError`, naming setting and value, for what cannot be used.
    """

    data: str | list[str] | None = None
    output: str = ""
    test: str | None = None
    hold_out: float = 0.5
    shots: int | None = 8
    draws: int = 5
    encoder: str = "minilm"
    max_length: int | None = None
    columns: str | None = None
    max_bad_rows: int = 0
    pairs: int = PAIRS
    strategy: str = "oversampling"
    iterations: int | None = None
    itself: bool = True
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float | None = None
    head_learning_rate: float = 1e-2
    penalty: float = PENALTY
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    explanations: int = 6
    samples: int = 500
    seed: int = 0
    device: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("test", "output", "encoder"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, os.fspath(value))
        for name, least in (
            *(("shots", 1), ("draws", 1), ("pairs", 2), ("iterations", 1), ("epochs", 1), ("batch_size", 2)),
            *(("max_length", 1), ("max_bad_rows", 0), ("explanations", 0), ("samples", 2), ("seed", 0)),
        ):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise _wrong(name, value, f"give a whole number, {least} or more")
        for name in ("learning_rate", "head_learning_rate", "penalty"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise _wrong(name, value, "give a number above 0")
        if not 0 < self.hold_out < 1:
            raise _wrong("hold_out", self.hold_out, "give a share between 0 and 1, both excluded")
        if self.strategy not in STRATEGIES:
            raise _wrong("strategy", self.strategy, f"choose one of {', '.join(STRATEGIES)}")
        for name in self.baselines:
            if name not in BASELINES:
                raise _wrong("baselines", name, f"choose from {', '.join(BASELINES)}")
        if self.shots is None:
            self.draws = 1

    def to_dict(self) -> dict[str, Any]:
        """All settings, ready for JSON."""
        return asdict(self)


def _wrong(name: str, value: Any, hint: str) -> UsageError:
    option = name.replace("_", "-")
    return UsageError(f"{name.replace('_', ' ')} cannot be {value!r}", where=f"--{option}", hint=hint)
