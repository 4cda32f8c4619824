"""How objectives of each kind are called on what a policy says of the responses of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.alignment.columns import CHOSEN, GRADE, MARGIN, REFERENCE, REJECTED, SCORE, SIDE, STATE, Columns
from nearfar.alignment.needs import Need, Option
from nearfar.contrast.relation import Explicit
from nearfar.objectives import Objective
from nearfar.objectives.base import RowObjective
from nearfar.objectives.likelihood import divergence_penalty
from nearfar.objectives.preference import exponential
from nearfar.objectives.preference_groups import best_share, candidate_scores, grades_of, group_contrast


class Reading(nn.Module):
    """Base: what an objective costs, given the values that the policy gives responses (or tokens).

    ``objective`` and the need's ``options`` are parts of it; ``states``: the width of the prompts' states, where there
    are any.
    """

    def __init__(
        self, objective: Objective, need: Need, options: Mapping[str, Option], *, states: int | None = None
    ) -> None:
        super().__init__()
        self.objective: Any = objective
        self.need = need
        self.options = dict(options)

    @property
    def separable(self) -> bool:
        """Whether the loss is a mean over parts, weighted by :meth:`weight`, so that chunks add up to it."""
        return not self.need.whole and self.objective.reduction == "mean"

    @property
    def per_token(self) -> bool:
        """Whether the objective compares log-probabilities of responses per token."""
        return "mean" in (getattr(self.objective, "tokens", None), self.options.get("tokens"))

    def weight(self, columns: Columns) -> Tensor:
        """How much these rows count in the mean over a batch (a scalar)."""
        return torch.tensor(float(len(columns)), device=columns.count.device)

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """The loss.

        ``values``: log-probabilities ``[N]`` of responses, or ``[T]`` of tokens where the need says so; ``state``: what
        the procedure keeps (KTO's reference point, BCO's shift).
        """
        raise NotImplementedError

    def sums(self, columns: Columns, values: Tensor) -> Tensor:
        """Log-probabilities ``[N]`` of responses."""
        return columns.token_sums(values) if self.need.tokens else values

    def option(self, name: str) -> Any:
        """The value of an option."""
        return self.options[name]


class OfPairs(Reading):
    """Preference objectives on the two responses of each row, the chosen first."""

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        given: dict[str, Tensor] = {"": values, "_length": columns.length}
        extras = self.objective.extras
        if "chosen_reward" in extras:
            given["_reward"] = columns.of_responses[SCORE]
        sides = {f"{side}{name}": value[at::2] for name, value in given.items() for at, side in _SIDES}
        if self.need.reference:
            reference = columns.of_responses[REFERENCE]
            sides.update({f"reference_{side}": reference[at::2] for at, side in _SIDES})
        if "margin" in extras and MARGIN in columns.of_rows:
            sides["margin"] = columns.of_rows[MARGIN]
        if "shift" in extras and "shift" in state:
            sides["shift"] = state["shift"]
        if "win_rate" in extras and self.option("win_rate") != "hard":
            score = columns.of_responses[SCORE]
            above = score[0::2] - score[1::2]
            sides["win_rate"] = score[0::2] if self.option("win_rate") == "scores" else torch.sigmoid(above)
        loss: Tensor = self.objective(**sides)
        return loss


_SIDES = ((0, "chosen"), (1, "rejected"))


class OfSides(Reading):
    """RPO: all good responses against all bad ones, whatever their prompts."""

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        side = columns.of_responses[SIDE]
        given: dict[str, Tensor] = {}
        for at, name in ((1, "chosen"), (-1, "rejected")):
            there = side == at
            given[name], given[f"{name}_length"] = values[there], columns.length[there]
            given[f"reference_{name}"] = columns.of_responses[REFERENCE][there]
            if STATE in columns.of_rows:
                given[f"{name}_prompt"] = columns.of_rows[STATE][columns.row[there]]
        loss: Tensor = self.objective(**given)
        return loss


class OfPoints(Reading):
    """Point objectives on each response: its label or its reward is the target.

    DRO-V has a value network of its own: an MLP of ``value_width`` on the states of the prompts, which the policy does
    not share (sharing hurts, in the paper). Its last layer begins at 0.
    """

    def __init__(
        self, objective: Objective, need: Need, options: Mapping[str, Option], *, states: int | None = None
    ) -> None:
        super().__init__(objective, need, options)
        self.value: nn.Module | None = None
        if "value" in self.objective.extras:
            assert states is not None
            width = int(options["value_width"])
            last = nn.Linear(width, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.value = nn.Sequential(nn.LayerNorm(states), nn.Linear(states, width), nn.GELU(), last)

    def weight(self, columns: Columns) -> Tensor:
        of_rows = self.objective.name == "copg-group"
        return torch.tensor(float(len(columns) if of_rows else len(columns.length)), device=columns.count.device)

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        extras, extra = self.objective.extras, dict[str, Tensor]()
        if "reference" in extras:
            extra["reference"] = columns.of_responses[REFERENCE]
        if "mismatched" in extras and "mismatched" in state:
            extra["mismatched"] = state["mismatched"]
        if "group" in extras and not self.need.whole:  # DRO-P's variance may be that of the whole batch
            extra["group"] = columns.row
        if self.value is not None:
            of_rows: Tensor = self.value(columns.of_rows[STATE])[:, 0]
            extra["value"] = of_rows[columns.row]
        target = columns.of_responses[SCORE if self.need.rewards else SIDE]
        loss: Tensor = self.objective(values, target if self.need.rewards else (target > 0).to(values.dtype), **extra)
        return loss


class OfRows(Reading):
    """Row objectives on the scores of each prompt's responses."""

    @property
    def separable(self) -> bool:
        objective = self.objective
        joined = objective.needs_positive_scores or objective.joins_rows or objective.needs_row_statistics
        joined = joined or (objective.temperature is not None and objective.temperature.varies)
        plain = type(objective).weights is RowObjective.weights or getattr(objective, "average", None) == "rows"
        return bool(super().separable and plain and not joined and objective.of_rows_alone)

    def weight(self, columns: Columns) -> Tensor:
        near, far = (
            self.relation(columns)
            .bind(*columns.present.shape, self_contrast=False, device=columns.count.device)
            .tile(slice(0, len(columns)))
        )
        count: Tensor = self.objective.active(near, far).sum()
        return count.to(torch.float32)

    def relation(self, columns: Columns) -> Explicit:
        """Who is near and who is far among the responses of each row."""
        responses, present = columns.of_responses, columns.present
        if CHOSEN in responses:
            rewards = columns.matrix(responses[SCORE])
            mean = rewards.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp_min(1)
            found = group_contrast(
                torch.where(present, rewards, mean),  # what is not there leaves the mean where it is
                columns.matrix(responses[CHOSEN]) > 0,
                columns.matrix(responses[REJECTED]) > 0,
                alpha=float(self.option("alpha")),
                gamma=float(self.option("gamma")),
                deviation=self.option("deviation"),
            )
            assert isinstance(found, Explicit)
            return found
        grade = columns.matrix(responses[GRADE])
        return Explicit(grade, present & (grade == 0))

    def scores(self, columns: Columns, values: Tensor) -> Tensor:
        """What each response scores ``[N]``."""
        if self.options.get("score") == "ratio":
            values = values - columns.of_responses[REFERENCE].to(values.dtype)
        if self.options.get("tokens") == "mean":
            values = values / columns.length.clamp_min(1)
        return float(self.options.get("beta", 1.0)) * values

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        relation = self.relation(columns)
        loss: Tensor = self.objective(scores=columns.matrix(self.scores(columns, values)), relation=relation)
        return loss


class RRHFReading(OfRows):
    """RRHF: averages are ranked, and the likelihood of the best whole response is added."""

    @property
    def per_token(self) -> bool:
        return True

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        scores = columns.matrix(values / columns.length.clamp_min(1))
        length = columns.matrix(columns.length.to(values.dtype))
        loss: Tensor = self.objective(scores=scores, relation=self.relation(columns), length=length)
        return loss


class CandidateReading(OfRows):
    """CRL: ``likelihood_weight (-mean log p of the best) + weight L_ranking``; mean over rows, without BRIO's label
    smoothing. The best candidate stands in for the reference text."""

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        relation = self.relation(columns)
        scores = columns.matrix(candidate_scores(values, columns.length, float(self.option("alpha"))))
        loss: Tensor = float(self.option("weight")) * self.objective(scores=scores, relation=relation)
        weight = float(self.option("likelihood_weight"))
        if weight and len(columns):
            near, far = relation.bind(*scores.shape, self_contrast=False, device=values.device).tile(
                slice(0, len(columns))
            )
            best = best_share(grades_of(scores, near, far))
            loss = loss - weight * (best * columns.matrix(values / columns.length.clamp_min(1))).sum(1).mean()
        return loss


class DiscriminativeReading(OfRows):
    """DisCO: right answers against wrong ones, and a penalty on the divergence from the reference, which sampled."""

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        length = columns.length.clamp_min(1)
        sums = columns.token_sums(values) if self.need.tokens else values
        scores = sums / length
        if self.option("score") == "likelihood-ratio":
            scores = columns.token_sums(exponential(values - columns.of_tokens[REFERENCE])) / length
        loss: Tensor = self.objective(scores=columns.matrix(scores), relation=self.relation(columns))
        # the plain estimate over all tokens, which needs their sums alone
        divergence = (columns.of_responses[REFERENCE] - sums).sum() / columns.length.sum().clamp_min(1)
        return loss + divergence_penalty(
            divergence, limit=float(self.option("limit")), weight=float(self.option("penalty"))
        )


class OfTokens(Reading):
    """Supervised objectives: on each token, or on whole demonstrations (``level="sequence"``)."""

    @property
    def separable(self) -> bool:
        plain = getattr(self.objective, "keep", "all") == "all" and not self.objective.epsilon
        return super().separable and plain

    def weight(self, columns: Columns) -> Tensor:
        count = columns.length.sum() if self.need.tokens else len(columns.length)
        return torch.tensor(float(count), device=columns.count.device)

    def forward(self, columns: Columns, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        if not self.need.reference:
            target = torch.ones_like(values)
        elif self.need.tokens:
            target = columns.of_tokens[REFERENCE]
        else:
            target = columns.of_responses[REFERENCE]
        loss: Tensor = self.objective(values, target)
        return loss


_READINGS: Mapping[str, type[Reading]] = {
    "pairs": OfPairs,
    "sides": OfSides,
    "points": OfPoints,
    "rows": OfRows,
    "tokens": OfTokens,
}
_OWN: Mapping[str, type[Reading]] = {
    "rrhf": RRHFReading,
    "crl-factuality": CandidateReading,
    "disco": DiscriminativeReading,
}


def reading_of(
    objective: Objective, need: Need, options: Mapping[str, Option], *, states: int | None = None
) -> Reading:
    """How ``objective`` is called; ``need`` as it is with these options."""
    made = _OWN.get(objective.name) or _READINGS[need.reading]
    return made(objective, need, options, states=states)
