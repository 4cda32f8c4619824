"""Objectives of conditions, kernels, priors, gates and mixtures against plain loops over scalars in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar.contrast import ClassPriors, Kernel, Labels, evaluate
from nearfar.objectives import CACR, CCLK, GML, MACL, Hydra, KernelInfoNCE, SupReMix
from support.loops import WAYS, Case, Formula, Rows, Scalars, compare, cosine, dot, near_columns, softmax_case
from support.scenarios import SCENARIOS, Matrix, Scenario, embeddings


def _both(near: list[float], far: list[float]) -> bool:
    return bool(near_columns(near)) and bool(near_columns(far))


def _mean(values: list[Tensor], weights: list[float]) -> Tensor:
    return sum(w * v for v, w in zip(values, weights, strict=True) if w) / sum(weights)


def macl(alpha: float, reference: float, start: float, *, reweight: bool = True, eps: float = 0.0) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        pairs = [s[j] for s, near in zip(scores, positive, strict=True) for j in near_columns(near)]
        if pairs and start:
            alignment = (sum(pairs) / len(pairs)).detach()
            scale = 1 / (start * (1 + alpha * (alignment - reference)))
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not _both(near, far):
                rows.append(None)
                continue
            own = (_mean(s, near) * scale).exp()
            p = own / (own + sum(far[j] * (s[j] * scale).exp() for j in near_columns(far)))
            v = (1 / (1 - p + eps)).detach() if reweight else 1.0
            rows.append((-v * p.log(), 1.0))
        return rows

    return formula


def cacr(alpha: float, beta: float, t_positive: float, t_negative: float, tau: float, *, detach: bool) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not _both(near, far):
                rows.append(None)
                continue
            cost = [2 - 2 * value for value in s]
            parts = []
            for weights, t in ((near, t_positive), (far, -t_negative)):
                mass = {j: weights[j] * (t * cost[j]).exp() for j in near_columns(weights)}
                share = {j: value / sum(mass.values()) for j, value in mass.items()}
                parts.append(sum((p.detach() if detach else p) * cost[j] for j, p in share.items()))
            repulsion = (-beta * parts[1] - tau * _mean(cost, near)) / (1 - tau)
            rows.append((alpha * parts[0] + repulsion, 1.0))
        return rows

    return formula


def kernel_infonce(log_kernel, *, eps: float = 0.0) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not near_columns(near):
                rows.append(None)
                continue
            there = [j for j in range(len(s)) if near[j] or far[j]]
            logs = {j: log_kernel(2 - 2 * s[j], scale) for j in there}
            total = sum((1.0 if near[j] else far[j]) * value.exp() for j, value in logs.items()) + eps
            rows.append((total.log() - sum(near[j] * logs[j] for j in near_columns(near)) / sum(near), 1.0))
        return rows

    return formula


def _power(gamma: float):
    return lambda squared, scale: -(squared ** (gamma / 2)) * scale


def _sum_of_kernels(squared: Tensor, scale: Tensor) -> Tensor:
    return ((-squared / 0.7).exp() + (-(squared ** (0.8 / 2)) / 0.4).exp()).log()


def _arc_cosine(squared: Tensor, scale: Tensor) -> Tensor:
    theta = (0.6 * (1 - squared / 2) + 0.4).arccos()
    return (3 * theta.sin() * theta.cos() + (math.pi - theta) * (1 + 2 * theta.cos() ** 2)).log()


def spectral(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        if not _both(near, far):
            rows.append(None)
            continue
        squares = sum((1.0 if near[j] else far[j]) * s[j] ** 2 for j in range(len(s)))
        rows.append((4 * squares / sum(far) - 2 * _mean(s, near), 1.0))
    return rows


CASES: dict[str, Case] = {
    "macl": Case(lambda **more: MACL(temperature=0.3, alpha=0.8, reference=0.1, **more), macl(0.8, 0.1, 0.3)),
    "macl eps": Case(lambda **more: MACL(temperature=0.3, eps=0.05, **more), macl(0.5, 0.0, 0.3, eps=0.05)),
    "macl unweighted": softmax_case(MACL, macl(0.0, 0.0, 0.0, reweight=False), reweight=False),
    "cacr": Case(
        lambda **more: CACR(0.7, 1.2, t_positive=0.6, t_negative=1.7, **more),
        cacr(0.7, 1.2, 0.6, 1.7, 0.0, detach=False),
    ),
    "cacr debiased detached": Case(
        lambda **more: CACR(tau_plus=0.2, detach_weights=True, **more), cacr(1, 1, 1, 0.9, 0.2, detach=True)
    ),
    "gaussian": softmax_case(KernelInfoNCE, kernel_infonce(_power(2), eps=1e-3), eps=1e-3),
    "laplacian": softmax_case(KernelInfoNCE, kernel_infonce(_power(1)), kernel="laplacian"),
    "exponential": softmax_case(KernelInfoNCE, kernel_infonce(_power(0.7)), kernel="exponential", gamma=0.7),
    "simple sum": Case(
        lambda **more: KernelInfoNCE("simple-sum", gamma=0.8, temperature=0.4, gaussian_temperature=0.7, **more),
        kernel_infonce(_sum_of_kernels),
    ),
    "arc-cosine": Case(
        lambda **more: KernelInfoNCE("arc-cosine", order=3, temperature=0.6, **more), kernel_infonce(_arc_cosine)
    ),
    "spectral": Case(lambda **more: KernelInfoNCE("spectral", **more), spectral),
}
KERNELS = ("gaussian", "laplacian", "exponential", "simple sum", "arc-cosine")


@pytest.mark.parametrize(
    ("case", "scenario"),
    [
        (case, scenario)
        for case in CASES
        for scenario in SCENARIOS
        # a zero vector is no unit row, so that its distances do not follow from cosines
        if scenario != "duplicates" or case not in KERNELS
    ],
)
def test_row_objectives_equal_their_formula(case: str, scenario: str) -> None:
    compare(CASES[case], SCENARIOS[scenario]())


@pytest.mark.parametrize("case", CASES)
def test_two_sides_and_other_reductions(case: str) -> None:
    for scenario in ("several positives", "weights"):
        compare(CASES[case], SCENARIOS[scenario](), two_sided=True)
        for reduction in ("sum", "none"):
            compare(CASES[case], SCENARIOS[scenario](), reduction=reduction)


# -- conditions --------------------------------------------------------------------------------------------------------


def _operator(condition: list[float], regularization: float, *, official: bool) -> np.ndarray:
    n = len(condition)
    kernel = np.array([[math.exp(-((a - b) ** 2) / 0.5) for b in condition] for a in condition])
    weights = np.linalg.inv(kernel + regularization * np.eye(n)) @ kernel
    if official:
        np.fill_diagonal(weights, 0)
        weights[weights < 1e-6] = 0
    return np.maximum(weights, 0)


def ccl_k(form: str) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not _both(near, far):
                rows.append(None)
                continue
            n_far = sum(far[j] * (s[j] * scale).exp() for j in near_columns(far))
            if form == "weak":
                own = sum(near[j] * (s[j] * scale).exp() for j in near_columns(near))
            else:
                own = (_mean(s, near) * scale).exp()
            rows.append((-(own / (own + n_far)).log(), 1.0))
        return rows

    return formula


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("form", ["fair", "weak"])
@pytest.mark.parametrize("views", [False, True])
def test_ccl_k_equals_its_formula(form: str, official: bool, views: bool) -> None:
    """Of pairs, and of two views in an order of their own."""
    condition = [0.1, 0.9, 0.2, -0.4, 1.1]
    weights = _operator(condition, 0.1, official=official)
    order = [2, 0, 4, 2, 1, 3, 0, 1, 4, 3] if views else [0, 1, 2, 3, 4]
    columns, n = len(order), len(condition)
    positive, negative = ([[0.0] * columns for _ in order] for _ in range(2))
    for i, one in enumerate(order):
        for j, other in enumerate(order):
            if views and i == j:
                continue
            estimate = float(weights[other, one])
            if form == "weak":
                positive[i][j], negative[i][j] = estimate, float(one != other or official)
            else:
                positive[i][j], negative[i][j] = float(one == other), (n - 1) * estimate
    values = torch.tensor(condition, dtype=torch.float64)[order]
    relation = Kernel(values, "rbf", bandwidth=0.5, ids=torch.tensor(order) if views else None)
    query, key = embeddings(60, columns, 3), None if views else embeddings(61, columns, 3)
    scenario = Scenario(query, key, relation, positive, negative)
    case = softmax_case(CCLK, ccl_k(form), form=form, official=official, regularization=0.1)
    compare(case, scenario)
    if not views:
        compare(case, scenario, two_sided=True)


# -- priors ------------------------------------------------------------------------------------------------------------


def _gml(scores: Scalars, labels: list[int], key_labels: list[int], prior: list[float], left_out: Matrix) -> Tensor:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for s, label, out in zip(scores, labels, left_out, strict=True):
        likelihood = {}
        for c in range(len(prior)):
            own = [s[j].exp() for j in range(len(s)) if key_labels[j] == c and not out[j]]
            if own:
                likelihood[c] = prior[c] * sum(own) / len(own)
        if label in likelihood:
            total = total - (likelihood[label] / sum(likelihood.values())).log()
            count += 1
    return total / count


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_gml_equals_its_formula(way: dict, own: bool, strength: float) -> None:
    labels, ids = [0, 1, 2, 0, 3, -1, 1], [3, 4, 5, 6, 7, 8, 9]
    key_labels = labels if own else [1, 0, 0, 2, 1, -1, 0, 1, 1]
    key_ids = ids if own else [4, 3, 1, 5, 9, 11, 12, 13, 4]
    counts = [10.0, 4.0, 2.0, 1.0]
    prior = [(c / sum(counts)) ** strength for c in counts]
    query = embeddings(62, 7, 3).requires_grad_()
    key = None if own else embeddings(63, 9, 3).requires_grad_()
    inputs = [query] if key is None else [query, key]
    objective = GML(prior=counts, strength=strength).double()
    relation = ClassPriors(
        torch.tensor(labels), None if own else torch.tensor(key_labels), ids=torch.tensor(ids),
        key_ids=None if own else torch.tensor(key_ids),
    )  # fmt: skip
    where = {name: value for name, value in way.items() if name != "closed_form"}
    loss = evaluate(objective, query, key, relation=relation, **where)
    log_scale = objective.temperature.log_scale
    keys = query if key is None else key
    cosines = [[cosine(q, k) for k in keys] for q in query]
    alone = [[float(own and i == j) for j in range(len(key_labels))] for i in range(7)]
    without = [[float(ids[i] == key_ids[j]) for j in range(len(key_ids))] for i in range(7)]
    features = [[value * log_scale.detach().exp() for value in row] for row in cosines]
    expected = _gml(features, labels, key_labels, prior, alone)
    fixed = [[value.detach() * log_scale.exp() for value in row] for row in cosines]
    expected = expected + _gml(fixed, labels, key_labels, prior, without)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(*(torch.autograd.grad(v, [*inputs, log_scale]) for v in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


# -- gates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_hydra_equals_its_formula(include_self: bool, memory: str) -> None:
    labels, partners = [0, 1, 2, 0, 1, 3, -1], [1, 0, 0, 0, 1, 2, -1]
    z, gate = embeddings(64, 7, 4).requires_grad_(), torch.sigmoid(embeddings(65, 7, 4)).requires_grad_()
    objective = Hydra(include_self=include_self, temperature=0.3)
    loss = objective(
        z, gate=gate, labels=torch.tensor(labels), partners=torch.tensor(partners), memory=memory
    )  # fmt: skip
    costs = []
    for i in range(7):
        logits = [cosine(z[i] * gate[i], z[j] * gate[i]) / 0.3 for j in range(7)]
        near = [j for j in range(7) if labels[j] == partners[i] >= 0 and (include_self or i != j)]
        far = [j for j in range(7) if labels[j] not in (labels[i], partners[i]) and i != j]
        far += [j for j in range(7) if labels[j] < 0 and j not in far and (include_self or i != j)]
        for j in near:
            costs.append((logits[j].exp() + sum(logits[k].exp() for k in far)).log() - logits[j])
    expected = sum(costs) / len(costs)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(*(torch.autograd.grad(v, (z, gate)) for v in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize(("distance", "mix_positive", "mix_negative"), [("l1", True, True), ("l2", True, False)])
def test_supremix_equals_its_formula(memory: str, distance: str, mix_positive: bool, mix_negative: bool) -> None:
    """One item has a label of its own, and no mixed positive: it has no cost."""
    y, window, a = [3.0, 1.0, 4.5, 3.0, 1.0, 9.0, 4.5], 2.5, 0.3
    items = embeddings(66, 7, 4).requires_grad_()
    objective = SupReMix(
        window, mixtures=None, mix_positive=mix_positive, mix_negative=mix_negative, share=a, distance=distance,
        temperature="learned:0.4",
    ).double()  # fmt: skip
    scale = objective.temperature.log_scale
    loss = objective(items, relation=Kernel(torch.tensor(y)), memory=memory)

    def weight(difference: float) -> float:
        return abs(difference) + 1 if distance == "l1" else difference**2 + 1

    unit = [item / dot(item, item).sqrt() for item in items]
    still = [item.detach() for item in unit]
    costs = []
    for i in range(7):
        total, near = torch.zeros((), dtype=torch.float64), []
        for j in range(7):
            if j == i:
                continue
            logit = dot(unit[i], unit[j]) * scale.exp()
            total = total + weight(y[i] - y[j]) * logit.exp()
            if y[i] == y[j]:
                near.append(logit)
            elif mix_negative:
                mixed = dot(unit[i], a * still[i] + (1 - a) * still[j]) * scale.exp()
                total = total + weight(y[i] - (a * y[i] + (1 - a) * y[j])) * mixed.exp()
            for k in range(7):
                if mix_positive and y[i] - window < y[j] < y[i] < y[k] < y[i] + window:
                    share = (y[k] - y[i]) / (y[k] - y[j])
                    assert share * y[j] + (1 - share) * y[k] == pytest.approx(y[i])
                    near.append(dot(unit[i], share * still[j] + (1 - share) * still[k]) * scale.exp())
                    total = total + near[-1].exp()
        if near:
            costs.append(total.log() - sum(near) / len(near))
    assert len(costs) == 6
    expected = sum(costs) / len(costs)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(*(torch.autograd.grad(v, (items, scale)) for v in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_labels_alone_are_no_numbers() -> None:
    for relation in (Labels(torch.arange(4)), Kernel(embeddings(0, 4, 2))):
        with pytest.raises(ValueError, match="numbers"):
            SupReMix()(embeddings(1, 4, 3), relation=relation)


@pytest.mark.parametrize("form", ["weak", "fair"])
def test_an_item_without_neighbours_counts_in_the_official_form_of_ccl_k(form: str) -> None:
    """CCLK-release ConditionalSampling.py: positives without a weight are clamped at 1e-7."""
    items = [embeddings(seed, 4, 3).requires_grad_() for seed in (1, 2)]
    x, y = (torch.nn.functional.normalize(value) for value in items)
    condition = torch.tensor([0.0, 0.5, 40.0, 90.0], dtype=torch.float64)
    kernel = (-(condition[:, None] - condition[None, :]).square()).exp()
    weights = torch.linalg.solve(kernel + 0.5 * torch.eye(4).double(), kernel).fill_diagonal_(0)
    weights = torch.where(weights < 1e-6, 0, weights)
    assert (weights.sum(0) > 0).tolist() == [True, True, False, False]
    expected = 0
    for one, other in ((x, y), (y, x)):
        across = (one @ other.T / 0.5).exp()
        within = (one @ one.T / 0.5).exp() * (1 - torch.eye(4))
        near = ((across + within) @ weights).diagonal()
        if form == "weak":
            near = near.clamp_min(1e-7)
            expected = expected + (1 + (across + within).sum(1) / near).log().mean() / 2
        else:
            expected = expected + (1 + 3 * near / across.diagonal()).log().mean() / 2
    objective = CCLK(form, regularization=0.5, official=True, temperature=0.5)
    relation = Kernel(torch.cat([condition, condition]), "rbf", ids=torch.arange(4).repeat(2))
    for memory in ("dense", "tiled"):
        loss = objective(torch.cat(items), relation=relation, memory=memory)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        found, wanted = (torch.autograd.grad(value, items, retain_graph=True) for value in (loss, expected))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
