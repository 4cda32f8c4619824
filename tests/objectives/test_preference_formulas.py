"""Preference objectives against plain loops over scalars in float64; reductions, precision, errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives import KTO, PreferenceObjective, get
from support.preferences import Pairs, pairs

Loop = Callable[[list[Tensor], list[Tensor], Pairs], list[Tensor]]
"""From the log-ratios of chosen and rejected responses to the costs of the pairs."""


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + (-z).exp())


def logistic(z: Tensor) -> Tensor:
    return (1 + (-z).exp()).log()


def hinge(z: Tensor, target: float = 1.0) -> Tensor:
    return target - z if z < target else z * 0


def of_margin(cost: Callable[[Tensor], Tensor], beta: float = 1.0) -> Loop:
    return lambda w, r, batch: [cost(beta * (a - b)) for a, b in zip(w, r, strict=True)]


def of_batch(cost: Callable[[list[Tensor]], list[Tensor]], beta: float = 0.05) -> Loop:
    return lambda w, r, batch: cost([beta * (a - b) for a, b in zip(w, r, strict=True)])


def of_both(cost: Callable[[Tensor, Tensor], Tensor]) -> Loop:
    return lambda w, r, batch: [cost(a, b) for a, b in zip(w, r, strict=True)]


def average(values: list[Tensor]) -> Tensor:
    return sum(values[1:], values[0]) / len(values)


def variance(values: list[Tensor]) -> Tensor:
    return sum((value - average(values)) ** 2 for value in values) / (len(values) - 1)


def dbaql(z: list[Tensor]) -> list[Tensor]:
    c = sigmoid(variance([value / 0.05 for value in z]))
    return [c * logistic(value / 0.9) + (1 - c) * (-0.9 * value).exp() for value in z]


def aql(z: list[Tensor]) -> list[Tensor]:
    q = 0.5 + 0.01 * (sigmoid(average([value / 0.05 for value in z])) - 0.5)
    w = [sigmoid(-(value / 0.05 - q)) for value in z]
    return [a * logistic(value) + (1 - a) * hinge(value) for a, value in zip(w, z, strict=True)]


def aqfl(z: list[Tensor]) -> list[Tensor]:
    scaled = [value / 0.05 for value in z]
    a = variance(scaled).sqrt() * average([sigmoid(-value) for value in scaled])
    a = a + 0.05 * (sigmoid(average(scaled)) - a)
    b = [sigmoid(0.1 * (value - a).abs()) for value in scaled]
    return [s * logistic(value) + (1 - s) * hinge(value) for s, value in zip(b, z, strict=True)]


def pfl(w: list[Tensor], r: list[Tensor], batch: Pairs) -> list[Tensor]:
    costs = []
    for i, (a, b) in enumerate(zip(w, r, strict=True)):
        z = 0.05 * (a - b)
        costs.append(logistic(z) / 2 if batch.chosen[i] > batch.rejected[i] else 2 * hinge(z))
    return costs


def kto_pair(w: list[Tensor], r: list[Tensor], batch: Pairs) -> list[Tensor]:
    of_w, of_l = (value if value > 0 else value * 0 for value in (average(w), average(r)))
    return [(1 - sigmoid(0.1 * (a - of_l)) + 1 - sigmoid(0.1 * (of_w - b))) / 2 for a, b in zip(w, r, strict=True)]


def aot(w: list[Tensor], r: list[Tensor], batch: Pairs) -> list[Tensor]:
    upper = sorted((batch.chosen[i] - batch.rejected[i] for i in range(len(w))), key=Tensor.item)
    lower = sorted((batch.reference_chosen[i] - batch.reference_rejected[i] for i in range(len(w))), key=Tensor.item)
    return [logistic(0.1 * (a - b)) for a, b in zip(upper, lower, strict=True)]


def exo(z: Tensor, e: float = 0.2) -> Tensor:
    q = sigmoid(z)
    return q * (q / (1 - e)).log() + (1 - q) * ((1 - q) / e).log()


def likelihood(weight: float, form: str) -> Loop:
    """The chosen's negative log-likelihood under the policy."""

    def costs(w: list[Tensor], r: list[Tensor], batch: Pairs) -> list[Tensor]:
        total = float(batch.chosen_length.sum())
        scale = {
            "sum": [1.0] * len(w),
            "mean": [1 / float(length) for length in batch.chosen_length],
            "pooled": [len(w) / total] * len(w),
        }[form]
        return [-weight * batch.chosen[i] * scale[i] for i in range(len(w))]

    return costs


def plus(one: Loop, other: Loop) -> Loop:
    return lambda w, r, batch: [a + b for a, b in zip(one(w, r, batch), other(w, r, batch), strict=True)]


def averaged(loop: Callable[[Tensor, Tensor], Tensor]) -> Loop:
    """A loop over log-probabilities divided by their lengths."""

    def costs(w: list[Tensor], r: list[Tensor], batch: Pairs) -> list[Tensor]:
        return [
            loop(a / float(m), b / float(n))
            for a, b, m, n in zip(w, r, batch.chosen_length, batch.rejected_length, strict=True)
        ]

    return costs


def log_odds(a: Tensor) -> Tensor:
    return (a.exp() / (1 - a.exp())).log()


FORMULAS: dict[str, tuple[Callable[..., PreferenceObjective], Loop]] = {
    "dpo": (lambda **m: get("dpo", **m), of_margin(logistic, 0.1)),
    "cdpo": (lambda **m: get("cdpo", **m), of_margin(lambda z: 0.9 * logistic(z) + 0.1 * logistic(-z), 0.1)),
    "robust-dpo": (
        lambda **m: get("robust-dpo", label_smoothing=0.2, **m),
        of_margin(lambda z: (0.8 * logistic(z) - 0.2 * logistic(-z)) / 0.6, 0.1),
    ),
    "dpo forward": (
        lambda **m: get("dpo", divergence="forward-kl", **m),
        of_both(lambda a, b: logistic(0.1 * ((1 - (-a).exp()) - (1 - (-b).exp())))),
    ),
    "dpo jensen": (
        lambda **m: get("dpo", divergence="jensen-shannon", **m),
        of_both(
            lambda a, b: logistic(0.1 * ((2 * a.exp() / (1 + a.exp())).log() - (2 * b.exp() / (1 + b.exp())).log()))
        ),
    ),
    "dpo alpha": (
        lambda **m: get("dpo", divergence="alpha", alpha=0.3, **m),
        of_both(lambda a, b: logistic(0.1 * ((1 - a.exp() ** -0.3) / 0.3 - (1 - b.exp() ** -0.3) / 0.3))),
    ),
    "dpo-norm": (lambda **m: get("dpo-norm", **m), averaged(lambda a, b: logistic(2 * (a - b)))),
    "dpo-nll": (
        lambda **m: get("dpo-nll", likelihood_weight=0.3, **m),
        plus(of_margin(logistic, 0.1), likelihood(0.3, "mean")),
    ),
    "ipo": (lambda **m: get("ipo", **m), of_margin(lambda u: (u - 5) ** 2)),
    "ipo-norm": (lambda **m: get("ipo-norm", **m), averaged(lambda a, b: (a - b - 5) ** 2)),
    "hinge": (lambda **m: get("hinge", margin=0.7, **m), of_margin(lambda z: hinge(z, 0.7), 0.1)),
    "exo": (lambda **m: get("exo", label_smoothing=0.2, **m), of_margin(exo, 0.1)),
    "discopop": (
        lambda **m: get("discopop", **m),
        of_margin(lambda z: (1 - sigmoid(z / 0.05)) * logistic(z) + sigmoid(z / 0.05) * (-z).exp(), 0.05),
    ),
    "dbaql": (lambda **m: get("dbaql", **m), of_batch(dbaql)),
    "aql": (lambda **m: get("aql", **m), of_batch(aql)),
    "aqfl": (lambda **m: get("aqfl", **m), of_batch(aqfl)),
    "padll": (
        lambda **m: get("padll", **m),
        of_margin(lambda z: 0.9 * (1 - 0.5 * float(z < 0)) * logistic(z), 0.05),
    ),
    "cell": (lambda **m: get("cell", **m), of_margin(lambda z: 0.5 * (-z).exp() + 0.5 * logistic(z), 0.05)),
    "pfl": (lambda **m: get("pfl", **m), pfl),
    "apo-zero": (
        lambda **m: get("apo-zero", **m),
        of_both(lambda a, b: 1 - sigmoid(0.1 * a) + sigmoid(0.1 * b)),
    ),
    "apo-down": (
        lambda **m: get("apo-down", **m),
        of_both(lambda a, b: sigmoid(0.1 * a) + 1 - sigmoid(0.1 * (a - b))),
    ),
    "kto-pair": (lambda **m: get("kto-pair", **m), kto_pair),
    "nca-pair": (
        lambda **m: get("nca-pair", **m),
        of_both(lambda a, b: logistic(0.1 * a) + 0.5 * logistic(-0.1 * a) + 0.5 * logistic(-0.1 * b)),
    ),
    "bco-pair": (
        lambda **m: get("bco-pair", **m),
        of_both(lambda a, b: logistic(0.1 * a) + logistic(-0.1 * b)),
    ),
    "sppo": (lambda **m: get("sppo", **m), of_both(lambda a, b: (a - 5) ** 2 + (b + 5) ** 2)),
    "aot": (lambda **m: get("aot", **m), aot),
    "aot-unpaired": (
        lambda **m: get("aot-unpaired", **m),
        lambda w, r, batch: [
            logistic(0.1 * (a - b)) for a, b in zip(sorted(w, key=Tensor.item), sorted(r, key=Tensor.item), strict=True)
        ],
    ),
}

WITHOUT_REFERENCE: dict[str, tuple[Callable[..., PreferenceObjective], Loop]] = {
    "simpo": (lambda **m: get("simpo", **m), averaged(lambda a, b: logistic(2 * (a - b) - 0.5))),
    "alphapo": (
        lambda **m: get("alphapo", **m),
        averaged(lambda a, b: logistic(2 * ((1 - a.exp() ** -0.25) / 0.25 - (1 - b.exp() ** -0.25) / 0.25) - 0.5)),
    ),
    "cpo-simpo": (
        lambda **m: get("cpo-simpo", **m),
        plus(averaged(lambda a, b: logistic(2 * (a - b) - 0.5)), likelihood(1.0, "pooled")),
    ),
    "cpo": (lambda **m: get("cpo", **m), plus(of_margin(logistic, 0.1), likelihood(1.0, "sum"))),
    "cpo hinge": (
        lambda **m: get("cpo", alpha=0.2, form="hinge", likelihood="pooled", **m),
        plus(of_margin(hinge, 0.1), likelihood(0.2, "pooled")),
    ),
    "cpo ipo": (
        lambda **m: get("cpo", alpha=0.0, form="ipo", tokens="mean", **m),
        averaged(lambda a, b: (a - b - 5) ** 2),
    ),
    "cpo smoothed": (
        lambda **m: get("cpo", alpha=0.0, label_smoothing=0.3, **m),
        of_margin(lambda z: 0.7 * logistic(z) + 0.3 * logistic(-z), 0.1),
    ),
    "orpo": (
        lambda **m: get("orpo", **m),
        plus(averaged(lambda a, b: 0.1 * logistic(log_odds(a) - log_odds(b))), likelihood(1.0, "mean")),
    ),
    "slic-hf": (
        lambda **m: get("slic-hf", **m),
        plus(of_margin(hinge), likelihood(0.1, "sum")),
    ),
}


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


EXTREMES = [-1e6, -800.0, -90.0, -1e-9, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*FORMULAS, *WITHOUT_REFERENCE])
def test_never_not_a_number(name: str, dtype: torch.dtype) -> None:
    """Any finite log-probabilities, equal ones, certain ones, a single pair, no pair."""
    make = {**FORMULAS, **WITHOUT_REFERENCE}[name][0]
    grid = torch.tensor(EXTREMES, dtype=dtype)
    one, other = (value.reshape(-1) for value in torch.meshgrid(grid, grid, indexing="ij"))
    for chosen, rejected in ((one, other), (grid, grid), (grid[:1], grid[1:2]), (grid[:0], grid[:0])):
        policy = [value.clone().requires_grad_() for value in (chosen, rejected)]
        references = {} if name in WITHOUT_REFERENCE else {
            "reference_chosen": torch.full_like(chosen, -30), "reference_rejected": torch.full_like(chosen, -20),
        }  # fmt: skip
        lengths = {"chosen_length": torch.ones_like(chosen), "rejected_length": torch.zeros_like(chosen)}
        loss = make()(*policy, **references, **lengths)
        assert not loss.isnan()
        loss.backward()
        assert all(value.grad is not None and not bool(value.grad.isnan().any()) for value in policy)


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


def test_errors() -> None:
    batch = pairs(0, 4)
    chosen, rejected = batch.policy
    dpo = get("dpo")
    with pytest.raises(ValueError, match=r"chosen is \[4\] and rejected \[3\]"):
        dpo(chosen, rejected[:3])
    with pytest.raises(ValueError, match=r"chosen is \[4\] and reference_rejected \[3\]"):
        dpo(chosen, rejected, reference_chosen=chosen, reference_rejected=rejected[:3])
    with pytest.raises(ValueError, match=r"must be \[n\] floating point"):
        dpo(chosen[:, None], rejected[:, None])
    with pytest.raises(ValueError, match=r"must be \[n\] floating point"):
        dpo(torch.arange(4), torch.arange(4))
    with pytest.raises(ValueError, match="of both responses or of neither"):
        dpo(chosen, rejected, reference_chosen=chosen)
    with pytest.raises(TypeError, match="takes no 'margin'"):
        dpo(chosen, rejected, margin=chosen)
    with pytest.raises(ValueError, match="needs chosen_length and rejected_length"):
        get("simpo")(chosen, rejected)
    with pytest.raises(ValueError, match=r"needs chosen_length \[n\]"):
        get("dpo-nll")(chosen, rejected)
    with pytest.raises(ValueError, match="log-ratios of mismatched"):
        KTO()(chosen, torch.ones(4))
    with pytest.raises(ValueError, match="1 for desirable and 0"):
        get("kto-zero")(chosen, torch.full((4,), -1))
    for name, arguments in (
        ("dpo", {"beta": 0.0}), ("dpo", {"label_smoothing": 0.5}), ("dpo", {"divergence": "kl"}),
        ("dpo", {"alpha": 1.0}),
        ("dpo", {"tokens": "average"}), ("dpo", {"beta": math.nan}), ("dpo", {"likelihood": "all"}),
        ("ipo", {"beta": -1.0}), ("hinge", {"margin": 0.0}), ("exo", {"label_smoothing": 0.0}),
        ("discopop", {"tau": math.inf}), ("kto", {"desirable_weight": -1.0}), ("kto", {"reference_point": "batch"}),
        ("cpo", {"form": "exp"}), ("orpo", {"weight": math.nan}), ("slic-hf", {"delta": 0.0}),
        ("simpo", {"gamma": -0.1}), ("pairwise-link", {"link": "aql"}), ("pairwise-link", {"link": "apo-zero"}),
        ("pairwise-link", {"link": "info-nce"}), ("pairwise-link", {"average": "all"}),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=name):
            get(name, **arguments)


REWARDED = ["copg", "dno", "reward-modeling", "moss-reward", "mapl-dpo"]
POINTS = ["dro-v", "dro-p", "copg-group", "kto-zero", "rwr"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*REWARDED, *POINTS])
def test_never_not_a_number_with_rewards(name: str, dtype: torch.dtype) -> None:
    grid = torch.tensor(EXTREMES, dtype=dtype)
    for count in (5, 1, 0):
        one, other = grid[:count].clone().requires_grad_(), grid.flip(0)[:count].clone().requires_grad_()
        if name in REWARDED:
            rewards = {"copg": ("chosen_reward", "rejected_reward"), "dno": ("chosen_reward", "rejected_reward")}
            loss = get(name)(one, other, **dict.fromkeys(rewards.get(name, ()), torch.ones_like(one)))
        else:
            target = torch.zeros_like(one) if name == "kto-zero" else 100 * torch.ones_like(one)
            more = {"value": other} if name == "dro-v" else {}
            loss = get(name, reduction="mean")(one, target, **more)
        assert not loss.isnan()
        (gradient,) = torch.autograd.grad(loss, one)
        assert not gradient.isnan().any()
