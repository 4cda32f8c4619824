"""Preference objectives against plain loops over scalars in float64; reductions and precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.objectives import KTO, PreferenceObjective, get
from support.preference_loops import FORMULAS, WITHOUT_REFERENCE, Loop, logistic, sigmoid
from support.preferences import Pairs, pairs


def _compare(make: Callable[..., PreferenceObjective], loop: Loop, batch: Pairs, references: dict[str, Tensor]) -> None:
    ratios = [
        [value[i] - (references[f"reference_{side}"][i] if references else 0) for i in range(len(value))]
        for side, value in (("chosen", batch.chosen), ("rejected", batch.rejected))
    ]
    expected = torch.stack(loop(*ratios, batch))
    weights = torch.arange(1, len(expected) + 1, dtype=torch.float64)
    for reduction, change in (
        ("none", lambda costs: costs),
        ("mean", lambda costs: costs.mean()),
        ("sum", lambda costs: costs.sum()),
    ):
        found = make(reduction=reduction)(*batch.policy, **references, **batch.lengths)
        torch.testing.assert_close(found, change(expected), rtol=1e-10, atol=1e-10)
        one, other = ((value * weights).sum() if reduction == "none" else value for value in (found, change(expected)))
        for a, b in zip(
            torch.autograd.grad(one, batch.policy),
            torch.autograd.grad(other, batch.policy, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
            assert b.norm() > 1e-9


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name: str) -> None:
    for seed, n in ((3, 7), (4, 2)):
        batch = pairs(seed, n)
        _compare(*FORMULAS[name], batch, batch.references)


@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
def test_formula_without_a_reference(name: str) -> None:
    batch = pairs(5, 6)
    _compare(*WITHOUT_REFERENCE[name], batch, {})
    with pytest.raises(TypeError, match="has no reference"):
        WITHOUT_REFERENCE[name][0]()(*batch.policy, **batch.references, **batch.lengths)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_derivatives(name: str) -> None:
    batch = pairs(6, 4)
    objective = FORMULAS[name][0]()
    torch.autograd.gradcheck(
        lambda *policy: objective(*policy, **batch.references, **batch.lengths), batch.policy, eps=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", [*FORMULAS, *WITHOUT_REFERENCE])
def test_half_precision_is_computed_in_float32(name: str) -> None:
    make = {**FORMULAS, **WITHOUT_REFERENCE}[name][0]
    batch = pairs(7, 5)
    references = batch.references if name in FORMULAS else {}
    half = [value.detach().bfloat16().requires_grad_() for value in batch.policy]
    half_references = {key: value.bfloat16() for key, value in references.items()}
    found = make()(*half, **half_references, **batch.lengths)
    assert found.dtype == torch.float32
    rounded = {key: value.double() for key, value in half_references.items()}
    expected = make()(*(value.detach().double() for value in half), **rounded, **batch.lengths)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    found.backward()
    assert all(value.grad is not None and bool(value.grad.isfinite().all()) for value in half)


def test_extras() -> None:
    batch = pairs(8, 5)
    w = batch.chosen - batch.reference_chosen
    r = batch.rejected - batch.reference_rejected
    shift, rate = torch.tensor(0.3, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    found = get("bco-pair")(*batch.policy, **batch.references, shift=shift)
    expected = (logistic(0.1 * w - 0.3) + logistic(-(0.1 * r - 0.3))).mean()
    torch.testing.assert_close(found, expected)
    found = get("sppo", beta=0.5)(*batch.policy, **batch.references, win_rate=rate)
    expected = ((w - (rate - 0.5) * 2) ** 2 + (r - (0.5 - rate) * 2) ** 2).mean()
    torch.testing.assert_close(found, expected)
    target = torch.randn(5, dtype=torch.float64)
    found = get("slic-hf", weight=0.4)(*batch.policy, target=target)
    expected = ((1 - batch.chosen + batch.rejected).clamp_min(0) - 0.4 * target).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        get("slic-hf", weight=0.0)(*batch.policy, target=target),
        (1 - batch.chosen + batch.rejected).clamp_min(0).mean(),
    )
    margin = torch.rand(5, dtype=torch.float64)
    found = get("reward-modeling", label_smoothing=0.2)(*batch.policy, margin=margin)
    z = batch.chosen - batch.rejected - margin
    torch.testing.assert_close(found, (0.8 * logistic(z) + 0.2 * logistic(-z)).mean())
    doubt = torch.tensor([0.0, 0.1, 0.4, 0.0, 0.25], dtype=torch.float64)
    found = get("reward-modeling", label_smoothing=0.2)(*batch.policy, margin=margin, smoothing=doubt)
    torch.testing.assert_close(found, ((1 - doubt) * logistic(z) + doubt * logistic(-z)).mean())


def test_detached_reference_points_of_kto_pair() -> None:
    batch = pairs(3, 7)
    references = {name: value - 5 for name, value in batch.references.items()}
    values = [get("kto-pair", detach=detach)(*batch.policy, **references) for detach in (False, True)]
    assert values[0] == values[1]
    through, stopped = (torch.autograd.grad(value, batch.policy)[1] for value in values)
    assert (through - stopped).norm() > 1e-4


@pytest.mark.parametrize("mismatched", ["many", "scalar", "negative", "zero"])
def test_kto(mismatched: str) -> None:
    generator = torch.Generator().manual_seed(9)
    score = torch.randn(9, generator=generator, dtype=torch.float64).mul(10).requires_grad_()
    other = torch.randn(9, generator=generator, dtype=torch.float64) * 3 + (4 if mismatched != "negative" else -4)
    desirable = torch.rand(9, generator=generator) < 0.5
    point = 0.0 if mismatched in ("negative", "zero") else float(other.mean())
    expected = torch.stack(
        [
            0.8 * (1 - sigmoid(0.2 * (s - point))) if d else 1.1 * (1 - sigmoid(0.2 * (point - s)))
            for s, d in zip(score, desirable, strict=True)
        ]
    )
    objective = KTO(
        0.2, desirable_weight=0.8, undesirable_weight=1.1, reduction="none",
        reference_point="zero" if mismatched == "zero" else "mismatched",
    )  # fmt: skip
    given = {"zero": {}, "scalar": {"mismatched": other.mean()}}.get(mismatched, {"mismatched": other})
    found = objective(score, desirable, **given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        objective(score - 3, desirable.long(), reference=torch.full_like(score, -3), **given), found
    )
    one, two = (torch.autograd.grad(value.sum(), score, retain_graph=True)[0] for value in (found, expected))
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
