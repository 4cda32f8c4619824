"""How well a reward model orders held-out pairs, and whether its margins mean what they say."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nearfar.alignment.reward.model import rewards_in_batches
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.evaluation.measures import Evaluation
from nearfar.evaluation.preference import pairs_in_order, preference_measures, reliability


def judge_rewards(model: nn.Module, rows: Sequence[TokenisedRow], *, seed: int = 0) -> Evaluation:
    """Evaluate a reward model on pairs, the chosen response first in each row.

    ``accuracy`` (main), ``margin``, ``log_loss`` and ``calibration_error`` with intervals over the pairs
    (:func:`nearfar.evaluation.preference.preference_measures`); ``details["reliability"]``: the pairs by how sure the
    model is (:func:`~nearfar.evaluation.preference.reliability`).
    """
    found, _ = rewards_in_batches(model, rows)
    chosen, rejected = found.double().reshape(-1, 2).numpy().T
    return Evaluation(
        preference_measures(chosen, rejected, seed=seed),
        main="accuracy",
        kind="preferences",
        per_item={"accuracy": pairs_in_order(chosen, rejected), "margin": chosen - rejected},
        details={"rows": len(rows), "reliability": reliability(chosen, rejected).to_dict()},
    )
