"""Row objectives against plain loops over scalars in float64: value and every gradient, dense and tiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.contrast import Temperature, evaluate
from nearfar.objectives import RowObjective
from support.scenarios import Matrix, Scenario

Scalars = list[list[Tensor]]


def dot(q: Tensor, k: Tensor) -> Tensor:
    total = q[0] * k[0]
    for a, b in zip(q[1:], k[1:], strict=True):
        total = total + a * b
    return total


def cosine(q: Tensor, k: Tensor) -> Tensor:
    product, squares = dot(q, k), dot(q, q) * dot(k, k)
    return product * 0 if squares == 0 else product / squares.sqrt()


def _negative_squared(q: Tensor, k: Tensor) -> Tensor:
    return -dot(q - k, q - k)


def _negative_euclidean(q: Tensor, k: Tensor) -> Tensor:
    squared = dot(q - k, q - k)
    return squared * 0 if squared == 0 else -squared.sqrt()


def _unit(x: Tensor) -> Tensor:
    squares = dot(x, x)
    return x * 0 if squares == 0 else x / squares.sqrt()


def _negative_normalized(q: Tensor, k: Tensor) -> Tensor:
    return _negative_euclidean(_unit(q), _unit(k))


def _negative_snr(q: Tensor, k: Tensor) -> Tensor:
    def variance(x: Tensor) -> Tensor:
        mean = sum(x) / len(x)
        return sum((value - mean) ** 2 for value in x) / len(x)

    noise, signal = variance(_unit(q) - _unit(k)), variance(_unit(q))
    return -noise / signal if signal > 0 else noise * 0


LOOP_SCORES = {
    "cosine": cosine,
    "dot": dot,
    "negative-euclidean": _negative_euclidean,
    "negative-normalized-euclidean": _negative_normalized,
    "negative-squared-euclidean": _negative_squared,
    "negative-snr": _negative_snr,
}

Rows = list[tuple[Tensor, float] | None]
"""Of each row its cost and its weight in the mean, or None where the formula does not apply."""

Formula = Callable[[Scalars, Matrix, Matrix, Tensor], Rows]
"""From the scores (not divided by T), the weights of near and far pairs, and 1/T."""


def near_columns(positive: list[float]) -> list[int]:
    return [j for j, weight in enumerate(positive) if weight > 0]


def reduced(rows: Rows, reduction: str) -> Tensor:
    if reduction == "none":
        return torch.stack([torch.zeros((), dtype=torch.float64) if row is None else row[0] for row in rows])
    total = sum(row[0] * row[1] for row in rows if row is not None)
    weight = sum(row[1] for row in rows if row is not None)
    if not isinstance(total, Tensor):
        return torch.zeros((), dtype=torch.float64)
    return total / weight if reduction == "mean" and weight else total


@dataclass
class Case:
    make: Callable[..., RowObjective]
    formula: Formula
    score: str = "cosine"
    temperature: float | None = None


def softmax_case(cls: type[RowObjective], formula: Formula, **arguments: object) -> Case:
    def make(**more: object) -> RowObjective:
        return cls(temperature=Temperature(0.3, learned=True), **arguments, **more)

    return Case(make, formula, temperature=0.3)


@dataclass
class Outcome:
    loss: Tensor
    query: Tensor
    key: Tensor
    log_scale: Tensor


def gradients(loss: Tensor, query: Tensor, key: Tensor | None, log_scale: Tensor | None) -> Outcome:
    # rows weigh differently, so that mistaking one row's gradient for another's shows under reduction="none"
    scalar = (loss * torch.arange(1, loss.numel() + 1, dtype=loss.dtype)).sum() if loss.dim() else loss
    wanted = [value for value in (query, key, log_scale) if value is not None]
    found = iter(torch.autograd.grad(scalar, wanted, allow_unused=True) if scalar.requires_grad else [None] * 3)
    gradients = []
    for value in (query, key, log_scale):
        gradient = None if value is None else next(found)
        gradients.append(torch.zeros_like(query if value is None else value) if gradient is None else gradient)
    return Outcome(loss.detach(), *gradients)


def by_loops(case: Case, scenario: Scenario, *, two_sided: bool, reduction: str) -> Outcome:
    query = scenario.query.clone().requires_grad_()
    key = None if scenario.key is None else scenario.key.clone().requires_grad_()
    keys = query if key is None else key
    log_scale = None
    scale = torch.ones((), dtype=torch.float64)
    if case.temperature is not None:
        log_scale = (-torch.tensor(case.temperature).log()).double().requires_grad_()
        scale = log_scale.exp()
    compare = LOOP_SCORES[case.score]
    scores = [[compare(q, k) for k in keys] for q in query]
    loss = reduced(case.formula(scores, scenario.positive, scenario.negative, scale), reduction)
    if two_sided:
        turned = case.formula(
            *(
                [list(row) for row in zip(*matrix, strict=True)]
                for matrix in (scores, scenario.positive, scenario.negative)
            ),
            scale,
        )
        loss = (loss + reduced(turned, reduction)) / 2
    return gradients(loss, query, key, log_scale)


def by_nearfar(
    case: Case,
    scenario: Scenario,
    *,
    two_sided: bool,
    reduction: str,
    memory: str,
    tile_rows: int | None = None,
    closed_form: bool = True,
) -> Outcome:
    objective = case.make(two_sided=two_sided, reduction=reduction).double()
    if case.temperature is not None:
        with torch.no_grad():
            objective.temperature.log_scale.copy_((-torch.tensor(case.temperature).log()).double())
    if not closed_form:
        objective.softmax_form = None
    query = scenario.query.clone().requires_grad_()
    key = None if scenario.key is None else scenario.key.clone().requires_grad_()
    loss = evaluate(objective, query, key, relation=scenario.relation, memory=memory, tile_rows=tile_rows)
    return gradients(loss, query, key, None if case.temperature is None else objective.temperature.log_scale)


def assert_same(found: Outcome, expected: Outcome, scenario: Scenario, tolerance: float = 1e-10) -> None:
    for name in ("loss", "query", "key", "log_scale"):
        one, other = getattr(found, name), getattr(expected, name)
        if name == "key" and scenario.equal_keys:
            one, other = one.clone(), other.clone()
            for group in scenario.equal_keys:
                one[group], other[group] = one[group].sum(0), other[group].sum(0)
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


WAYS = [
    {"memory": "dense"},
    {"memory": "tiled", "tile_rows": 1},
    {"memory": "tiled", "tile_rows": 3},
    {"memory": "tiled"},
    {"memory": "tiled", "tile_rows": 3, "closed_form": False},
]


def compare(case: Case, scenario: Scenario, *, two_sided: bool = False, reduction: str = "mean") -> None:
    expected = by_loops(case, scenario, two_sided=two_sided, reduction=reduction)
    has_closed_form = case.make().softmax_form is not None
    for way in WAYS:
        if way.get("closed_form", True) is False and not has_closed_form:
            continue
        found = by_nearfar(case, scenario, two_sided=two_sided, reduction=reduction, **way)
        assert_same(found, expected, scenario)
