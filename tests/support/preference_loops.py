"""Preference objectives and the same by plain loops over scalars."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nearfar.objectives import PreferenceObjective, get
from support.preferences import Pairs

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
