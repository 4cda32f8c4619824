"""How well a policy's implicit rewards agree with preferences that it was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nearfar.alignment.columns import LENGTH, REFERENCE, SCORE, SIDE, Columns
from nearfar.alignment.inputs import Table
from nearfar.alignment.method import AlignmentMethod
from nearfar.alignment.watch import rewards
from nearfar.encoders.encode import evaluating
from nearfar.evaluation.measures import Evaluation, mean_measure

if TYPE_CHECKING:
    import numpy.typing as npt

BATCH_TOKENS = 8192

MAIN = {"pairs": "accuracy", "unpaired": "auc", "demonstrations": "log_p_token"}
"""The main measure by kind of data; of lists, "accuracy" as well."""


def judge(method: AlignmentMethod, made: Table, kind: str, *, seed: int = 0, unchanged: bool = False) -> Evaluation:
    """Evaluate ``method`` on the preferences of ``made``, whose ``kind`` decides what is measured.

    ``unchanged``: its policy is the reference still, so that what the reference says is taken for what it says.

    - ``accuracy`` (pairs and lists; main): of each row's pairs of responses with different scores, the share in which
      the better has the larger implicit reward (:func:`nearfar.alignment.watch.rewards`); equal rewards, as all are
      before the first step, are half right. ``log_p_accuracy``: the same of log-probabilities.
    - ``auc`` (unpaired; main): the share of bad responses below a good one; mean over the good.
    - ``log_p_token`` (demonstrations; main): log-probability a token, mean over responses; nats.
    - ``margin``, ``log_p_chosen``, ``log_p_rejected``, ``log_ratio``: as in :func:`nearfar.alignment.watch.watched`.

    Intervals are over rows (over good responses for ``auc``). Raises :class:`~nearfar.errors.DataError` for data
    without a single pair to order.
    """
    columns = made.columns()
    sums = columns.of_responses[REFERENCE] if unchanged else _scored(method, made)
    reward = rewards(columns, sums, per_token=method.reading.per_token)
    side, length = columns.of_responses[SIDE], columns.of_responses[LENGTH]
    values: dict[str, Tensor] = {}
    if kind == "demonstrations":
        values["log_p_token"] = sums / length
    elif kind == "unpaired":
        values["auc"] = _above(reward[side > 0], reward[side < 0])
    else:
        for name, each in (("accuracy", reward), ("log_p_accuracy", sums)):
            values[name] = _in_order(columns, each)
        values["margin"] = _between(columns, reward)
    values["log_p_chosen"] = sums[side > 0]
    if bool((side < 0).any()):
        values["log_p_rejected"] = sums[side < 0]
    if REFERENCE in columns.of_responses:
        values["log_ratio"] = rewards(columns, sums)
    items = {name: _numbers(value) for name, value in values.items()}
    return Evaluation(
        {name: mean_measure(name, value, seed=seed) for name, value in items.items()},
        main=MAIN.get(kind, "accuracy"),
        kind="preferences",
        per_item=items,
        details={"rows": len(made), "responses": made.responses, "kind": kind},
    )


def _scored(method: AlignmentMethod, made: Table) -> Tensor:
    """Log-probabilities ``[N]`` of all responses, on the CPU, in the rows' order."""
    parts: dict[int, Tensor] = {}
    with evaluating(method), torch.no_grad():
        for rows in made.batches(BATCH_TOKENS):
            found = method.score([made.tokens[row] for row in rows]).float().cpu()
            counts = made.of_rows["count"][rows].tolist()
            parts.update(zip(rows, torch.split(found, counts), strict=True))
    return torch.cat([parts[row] for row in range(len(made))])


def _in_order(columns: Columns, values: Tensor) -> Tensor:
    """Of each row with responses of different scores, the share of such pairs whose values are in the same order."""
    score = columns.matrix(columns.of_responses[SCORE])
    value, present = columns.matrix(values), columns.present
    counted = (score[:, :, None] > score[:, None, :]) & present[:, :, None] & present[:, None, :]
    right = 0.5 * (1 + (value[:, :, None] - value[:, None, :]).sign()) * counted
    count = counted.sum((1, 2))
    return (right.sum((1, 2)) / count.clamp_min(1))[count > 0]


def _between(columns: Columns, values: Tensor) -> Tensor:
    """Of each row the mean value of its good responses less that of its bad ones; rows with both alone."""
    side = columns.matrix(columns.of_responses[SIDE].float())
    value = columns.matrix(values)
    good, bad = side > 0, side < 0
    there = good.any(1) & bad.any(1)
    means = [(value * which).sum(1) / which.sum(1).clamp_min(1) for which in (good, bad)]
    return (means[0] - means[1])[there]


def _above(good: Tensor, bad: Tensor) -> Tensor:
    ordered = bad.sort().values
    below, up_to = (torch.searchsorted(ordered, good, right=right) for right in (False, True))
    return (below + up_to) / (2 * max(1, len(bad)))


def _numbers(values: Tensor) -> npt.NDArray[np.float64]:
    found: Any = values.double().numpy()
    return np.asarray(found, np.float64)
