"""What is looked at while a language model is aligned: do good responses become likelier, or only bad ones less?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nearfar.alignment.columns import CUT, LENGTH, REFERENCE, SIDE, Columns
from nearfar.training.method import Logs, Method

SHOWN: Mapping[str, str] = {
    "log_p_chosen": "log p chosen",
    "log_p_rejected": "rejected",
    "margin": "margin",
    "accuracy": "batch accuracy",
    "log_ratio": "log-ratio",
}
"""What the progress line shows of a batch."""

FALL = 1.0
"""By how many nats the mean log-probability of chosen responses has to fall before it is said."""

ROUNDING = 1e-6
"""Log-ratios below this share of the log-probability say nothing: sums of float32 differ so with the batch they are
computed in, and a policy that is still its reference would seem to prefer something."""

FAR = 50.0
"""A mean log-ratio beyond this many nats means that the policy has left its reference behind."""


def rewards(columns: Columns, sums: Tensor, *, per_token: bool = False) -> Tensor:
    """The implicit rewards ``[N]`` of responses with log-probabilities ``sums``, without beta: log-ratios, or
    log-probabilities where there is no reference; ``per_token``: over the length, as the objective has them. What is
    within rounding of 0 is 0."""
    reward = sums
    if REFERENCE in columns.of_responses:
        reward = sums - columns.of_responses[REFERENCE].to(sums.dtype)
        reward = torch.where(reward.abs() <= ROUNDING * sums.abs(), 0, reward)
    return reward / columns.length.clamp_min(1) if per_token else reward


def watched(columns: Columns, sums: Tensor, *, per_token: bool = False) -> Logs:
    """What a batch says of the policy, as scalars; ``sums [N]``: log-probabilities of the responses, without a graph.

    ``log_p_chosen``, ``log_p_rejected``: means over good and over bad responses (the best and the worst of a list);
    ``log_ratio_chosen``, ``log_ratio_rejected``: the same of log p - log p_ref.
    ``margin``: the mean implicit reward (:func:`rewards`) of the good less that of the bad, in nats. ``accuracy``: in
    how many rows with both the good has the larger one (a tie is half); left out where no row has both. ``log_ratio``:
    the mean of log p - log p_ref over all responses of the data (an estimate of a divergence from the reference only
    where the policy itself wrote them).
    ``length_chosen``, ``length_rejected``: mean tokens. ``cut``: the share of responses that lost their end.
    """
    side = columns.of_responses[SIDE]
    good, bad = side > 0, side < 0
    logs: Logs = {}
    reward = rewards(columns, sums, per_token=per_token)
    ratio = rewards(columns, sums) if REFERENCE in columns.of_responses else None
    if ratio is not None:
        logs["log_ratio"] = _mean(ratio)
    length = columns.of_responses[LENGTH].to(sums.dtype)
    for name, which in (("chosen", good), ("rejected", bad)):
        if bool(which.any()):
            logs[f"log_p_{name}"] = _mean(sums[which])
            if ratio is not None:
                logs[f"log_ratio_{name}"] = _mean(ratio[which])
            logs[f"length_{name}"] = _mean(length[which])
    if bool(good.any()) and bool(bad.any()):
        logs["margin"] = _mean(reward[good]) - _mean(reward[bad])
        right = correct(columns, reward)
        if len(right):
            logs["accuracy"] = right.mean()
    if CUT in columns.of_responses:
        logs["cut"] = _mean(columns.of_responses[CUT].to(sums.dtype))
    return logs


def correct(columns: Columns, reward: Tensor) -> Tensor:
    """Of each row with good and bad responses, whether the good ones' mean reward is the larger: 1, 0, or 1/2 for
    equal ones."""
    row, side = columns.row, columns.of_responses[SIDE]
    means = []
    there = torch.ones(len(columns), dtype=torch.bool, device=reward.device)
    for which in (side > 0, side < 0):
        count = reward.new_zeros(len(columns)).index_add(0, row[which], torch.ones_like(reward[which]))
        means.append(reward.new_zeros(len(columns)).index_add(0, row[which], reward[which]) / count.clamp_min(1))
        there &= count > 0
    above = (means[0] - means[1])[there]
    return 0.5 * (1 + above.sign())


def look(method: Method, loss: float, *, warmed_up: bool = True) -> dict[str, Any] | None:
    """A verdict on the last batch, where something is wrong (as :func:`nearfar.training.watch.look`).

    Only of log-ratios, which are 0 where a run begins, whatever a batch holds.
    """
    logs = getattr(method, "latest", None)
    if not logs:
        return None
    now = {name: float(value) for name, value in logs.items() if name != "log_p_chosen"}
    verdict = verdict_of({}, now) if warmed_up else None
    return {"verdict": verdict} if verdict is not None else {}


def verdict_of(before: Mapping[str, float], after: Mapping[str, float]) -> str | None:
    """What to say, in plain words, of values as :func:`watched` gives them before and after; None where all is well."""
    fell = -after.get("log_ratio_chosen", 0.0)
    if "log_p_chosen" in before and "log_p_chosen" in after:
        fell = before["log_p_chosen"] - after["log_p_chosen"]
    grew = after.get("margin", 0.0) - before.get("margin", 0.0)
    if fell > FALL and grew > 0:
        return (
            f"The chosen responses are becoming less likely (their mean log-probability fell by {fell:.1f} nats) while "
            "the margin grows: the rejected ones only fall faster. If the chosen are worth imitating, add their "
            "likelihood (dpo-nll, cpo), anchor them (apo-zero, nca-pair), or lower the learning rate."
        )
    if abs(after.get("log_ratio", 0.0)) > FAR:
        return (
            f"The policy has left its reference: its log-ratio is {after['log_ratio']:.0f} nats a response. Raise "
            "beta, lower the learning rate, or train fewer steps."
        )
    return None


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, values.numel())
