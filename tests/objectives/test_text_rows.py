"""Row objectives of sentence and retrieval papers against plain loops, and what they turn into at their limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar.contrast import Adjacent, Graded, Labels, Paired, Views, evaluate
from nearfar.errors import UsageError
from nearfar.negatives.weighting import own_negatives
from nearfar.objectives import (
    CLHAIF,
    DCLR,
    GCL,
    CompCSE,
    DropInfoNCE,
    InfoNCE,
    PromCSE,
    QuickThoughts,
    RowObjective,
    SGBert,
    relevance_weight,
)
from support.loops import Case, Formula, Rows, Scalars, compare, cosine, near_columns, softmax_case
from support.scenarios import SCENARIOS, Matrix, embeddings

SOME = ["pairs", "hard negatives", "several positives", "excluded", "one row", "own views", "own labels", "weights",
        "own weights", "graded", "reweighted", "duplicates", "nobody near"]  # fmt: skip


def by_row(cost: Callable[[list[Tensor], list[float], list[float], Tensor], Tensor | None]) -> Formula:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        costs = [
            cost([each * scale for each in s], near, far, scale)
            for s, near, far in zip(scores, positive, negative, strict=True)
        ]
        return [None if each is None else (each, 1.0) for each in costs]

    return formula


def candidates(s: list[Tensor], near: list[float], far: list[float]) -> Tensor:
    return sum((1.0 if near[j] else far[j]) * s[j].exp() for j in range(len(s)))


def average(values: dict[int, Tensor], near: list[float]) -> Tensor:
    return sum(near[p] * value for p, value in values.items()) / sum(near)


def sg_opt(s: list[Tensor], near: list[float], far: list[float], scale: Tensor) -> Tensor | None:
    if not near_columns(near) or not near_columns(far):
        return None
    others = sum(far[n] * s[n].exp() for n in near_columns(far))
    return average({p: -(s[p].exp() / (s[p].exp() + others)).log() for p in near_columns(near)}, near)


def energy_hinge(s: list[Tensor], near: list[float], far: list[float], scale: Tensor) -> Tensor | None:
    if not near_columns(near):
        return None
    contrast = average({p: -(s[p].exp() / candidates(s, near, far)).log() for p in near_columns(near)}, near)
    if not near_columns(far):
        return contrast
    nearest = max((s[n] / scale for n in near_columns(far)), key=lambda value: value.item())
    hinge = average({p: (0.5 - s[p] / scale + nearest).clamp_min(0) for p in near_columns(near)}, near)
    return contrast + 3.0 * hinge


def quick_thoughts(self_score: float | None) -> Any:
    def cost(s: list[Tensor], near: list[float], far: list[float], scale: Tensor) -> Tensor | None:
        if not near_columns(near):
            return None
        everyone = candidates(s, near, far) + (0 if self_score is None else (self_score * scale).exp())
        return average({p: -(s[p].exp() / everyone).log() for p in near_columns(near)}, near)

    return cost


def focal(s: list[Tensor], near: list[float], far: list[float], scale: Tensor) -> Tensor | None:
    if not near_columns(near):
        return None
    everyone = candidates(s, near, far)
    shares = {p: s[p].exp() / everyone for p in near_columns(near)}
    return average({p: -(1 - share) * share.log() for p, share in shares.items()}, near)


def weighted(s: list[Tensor], near: list[float], far: list[float], scale: Tensor) -> Tensor | None:
    if not near_columns(near):
        return None
    return sum(-near[p] * (s[p].exp() / candidates(s, near, far)).log() for p in near_columns(near))


def by_weights(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
    rows: Rows = []
    for s, near, far in zip(scores, positive, negative, strict=True):
        cost = weighted([each * scale for each in s], near, far, scale)
        rows.append(None if cost is None else (cost / sum(near), sum(near)))
    return rows


def clhaif(s: list[Tensor], near: list[float], far: list[float], scale: Tensor) -> Tensor | None:
    if not any(near) and not any(far):
        return None
    cost = weighted(s, near, far, scale)
    return s[0] * 0 if cost is None else cost


def dclr_code(s: list[Tensor], near: list[float], far: list[float], scale: Tensor) -> Tensor | None:
    if not near_columns(near):
        return None
    weights = [1.0 if near[j] else far[j] for j in range(len(s))]
    powers = [(weight * each).exp() for weight, each in zip(weights, s, strict=True)]
    shares = [power / sum(powers) for power in powers]
    cells = [-share.log() if near[j] else -(1 - share).log() for j, share in enumerate(shares)]
    return sum(cells) / len(s)


CASES = {
    "sg-opt": softmax_case(SGBert, by_row(sg_opt)),
    "promcse": softmax_case(PromCSE, by_row(energy_hinge), margin=0.5, weight=3.0),
    "quick-thoughts": softmax_case(QuickThoughts, by_row(quick_thoughts(0.3)), self_score=0.3, score="cosine"),
    "quick-thoughts masked": softmax_case(QuickThoughts, by_row(quick_thoughts(None)), self_score=None, score="cosine"),
    "drop-infonce": softmax_case(DropInfoNCE, by_row(focal), directions="one"),
    "gcl": softmax_case(GCL, by_row(weighted)),
    "gcl by weight": softmax_case(GCL, by_weights, average="weights"),
    "clhaif": softmax_case(CLHAIF, by_row(clhaif)),
    "dclr": softmax_case(DCLR, by_row(quick_thoughts(None))),
    "dclr official": softmax_case(DCLR, by_row(dclr_code), variant="official-code"),
}
ONE_SIDED = {"drop-infonce", "sg-opt", "clhaif"}


def _case(name: str) -> Case:
    case = CASES[name]

    def make(**more: Any) -> RowObjective:
        if name in ONE_SIDED:
            more.pop("two_sided", None)
        else:
            more.setdefault("two_sided", False)
        return case.make(**more)

    return Case(make, case.formula, temperature=case.temperature)


@pytest.mark.parametrize("scenario", SOME)
@pytest.mark.parametrize("name", CASES)
def test_loops(name: str, scenario: str) -> None:
    compare(_case(name), SCENARIOS[scenario]())


@pytest.mark.parametrize("scenario", ["pairs", "several positives", "weights"])
@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("name", CASES)
def test_loops_of_other_reductions(name: str, reduction: str, scenario: str) -> None:
    compare(_case(name), SCENARIOS[scenario](), reduction=reduction)


def _same(one: Tensor, other: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (one, other))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def _leaves(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [embeddings(seed + place, *shape).requires_grad_() for place, shape in enumerate(shapes)]


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_one_positive_and_no_extras_is_info_nce(memory: Any) -> None:
    q, k = _leaves(0, (5, 4), (9, 4))
    expected = InfoNCE(temperature=0.2)(q, k)
    for objective in (
        PromCSE(weight=0, temperature=0.2),
        SGBert(temperature=0.2),
        QuickThoughts(self_score=None, temperature=0.2, score="cosine"),
        CompCSE(temperature=0.2),
        DCLR(temperature=0.2),
        CLHAIF(temperature=0.2),
    ):
        _same(objective(q, k, relation=Paired(), memory=memory), expected, [q, k])
    _same(GCL(temperature=0.2)(q, k[:5]), InfoNCE(temperature=0.2, two_sided=True)(q, k[:5]), [q, k])


def test_sg_opt_of_layers_by_loops() -> None:
    c, h = _leaves(1, (3, 4), (3, 2, 4))
    total = []
    for i in range(3):
        others = sum((cosine(c[i], h[m, n]) / 0.3).exp() for m in range(3) if m != i for n in range(2))
        for k in range(2):
            own = (cosine(c[i], h[i, k]) / 0.3).exp()
            total.append(-(own / (own + others)).log())
    _same(SGBert(temperature=0.3)(c, h), sum(total) / 6, [c, h])


def test_sg_variants_by_loops() -> None:
    c, h = _leaves(2, (4, 3), (4, 3))
    phi = [[(cosine(a, b) / 0.3).exp() for b in h] for a in c]
    own = [[(cosine(a, b) / 0.3).exp() for b in c] for a in c]
    opt1 = [-(phi[i][i] / (sum(phi[i]) + sum(own[i][j] for j in range(4) if j != i))).log() for i in range(4)]
    _same(SGBert("opt1", temperature=0.3)(c, h), sum(opt1) / 4, [c, h])
    opt2 = [-(phi[i][i] / sum(phi[i])).log() for i in range(4)]
    _same(SGBert("opt2", temperature=0.3)(c, h), sum(opt2) / 4, [c, h])
    dropped = [-(phi[i][i] / (sum(phi[i]) - phi[i][1 if i == 0 else 0])).log() for i in range(4)]
    _same(SGBert("opt2-official-code", temperature=0.3)(c, h), sum(dropped) / 4, [c, h])
    anchors = InfoNCE(temperature=0.3)(torch.cat([c, h]), relation=Views(2))
    _same(SGBert("sg", temperature=0.3)(c, h), anchors, [c, h])


def test_compositions() -> None:
    whole, parts = _leaves(3, (5, 6), (5, 2, 6))
    left, right = parts[:, 0], parts[:, 1]
    plain = InfoNCE(temperature=0.05)
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(6, 6), nn.Tanh()).double()
    composed = {
        "avg": (left + right) / 2,
        "max": torch.where(left > right, left, right),
        "cat-first-last": torch.stack([left[:, 0], left[:, 1], left[:, 2], right[:, 3], right[:, 4], right[:, 5]], 1),
    }
    for name, positive in composed.items():
        _same(CompCSE(name)(whole, parts), plain(whole, positive), [whole, parts])
        headed = CompCSE(name, width=4, head=head)(whole, parts)
        _same(headed, plain(head(whole)[:, :4], head(positive)[:, :4]), [whole, parts])
    after = plain(head(whole), (head(left) + head(right)) / 2)
    assert CompCSE(head=head)(whole, parts).item() != pytest.approx(after.item(), rel=1e-3)
    assert CompCSE()(whole, torch.stack([whole, whole], 1)).item() == pytest.approx(plain(whole, whole).item())
    with pytest.raises(ValueError, match="width of 7"):
        CompCSE(width=7)(whole, parts)


def test_a_text_knows_its_neighbours() -> None:
    f, g = _leaves(4, (6, 3), (6, 3))
    document = [0, 0, 0, 1, 1, 2]
    total = []
    for i in range(6):
        near = [j for j in range(6) if 0 < abs(i - j) <= 2 and document[i] == document[j]]
        if near:
            everyone = 1 + sum((f[i] @ g[j]).exp() for j in range(6) if j != i)
            total.append(sum(-((f[i] @ g[p]).exp() / everyone).log() for p in near) / len(near))
    relation = Adjacent(2, document=torch.tensor(document))
    for memory in ("dense", "tiled"):
        _same(QuickThoughts()(f, g, relation=relation, memory=memory), sum(total) / len(total), [f, g])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = Adjacent(2, document=torch.tensor(document)[order], position=order)
    moved = QuickThoughts()(f[order], g[order], relation=shuffled)
    _same(moved, sum(total) / len(total), [f, g])
    # the diagonal has no gradient: a sentence's score with itself may be anything
    tied = QuickThoughts(score="cosine")(f, relation=Adjacent(2, document=torch.tensor(document)))
    assert torch.isfinite(tied)
    with pytest.raises(ValueError, match="the same sentences"):
        QuickThoughts()(f, g[:4])


def test_the_focal_factor_spares_what_is_learnt() -> None:
    """d cost / d log p = -(1 - p) + p log p, so a good row weighs less than it does in InfoNCE."""
    for p in (0.05, 0.5, 0.9, 1 - 1e-9):
        scores = torch.tensor([[math.log(p), math.log1p(-p)]], dtype=torch.float64, requires_grad=True)
        loss = DropInfoNCE("one", temperature=1.0)(scores=scores)
        assert loss.item() == pytest.approx(-(1 - p) * math.log(p), rel=1e-6)
        (slope,) = torch.autograd.grad(loss, scores)
        assert slope[0, 0].item() == pytest.approx((1 - p) * (-(1 - p) + p * math.log(p)), rel=1e-6)


def test_drop_info_nce_in_four_directions_by_loops() -> None:
    x, y = _leaves(5, (3, 4), (4, 4))

    def unit(rows: Tensor, columns: Tensor) -> Tensor:
        costs = []
        for i in range(min(len(rows), len(columns))):
            powers = [(cosine(rows[i], column) / 0.4).exp() for column in columns]
            costs.append(-(1 - powers[i] / sum(powers)) * (powers[i] / sum(powers)).log())
        return sum(costs) / len(costs)

    _same(DropInfoNCE()(x, y), (unit(x, y) + unit(y, x) + unit(x, x) + unit(y, y)) / 4, [x, y])
    _same(DropInfoNCE("two")(x, y), (unit(x, y) + unit(y, x)) / 2, [x, y])
    single = DropInfoNCE()(x[:1], y[:1])
    assert single.item() == 0
    # a repeated id is left out among its own, not a negative
    twice = DropInfoNCE()(x, y[:3], relation=Paired(torch.tensor([0, 0, 1])))
    by_position = DropInfoNCE()(x, y[:3])
    assert twice.item() < by_position.item()


def test_weights_of_pairs() -> None:
    q, k = _leaves(6, (4, 3), (6, 3))
    weight = torch.tensor([0.5, 1.0, 0.25, 2.0], dtype=torch.float64)
    objective = GCL(temperature=0.3)
    by_graded = objective(q, k, relation=Graded(torch.diag(weight) @ torch.eye(4, 6).double()))
    _same(objective(q, k, weight=weight), by_graded, [q, k])
    _same(objective(q, k, weight=3 * weight), 3 * by_graded, [q, k])
    divided = GCL("weights", temperature=0.3)
    _same(divided(q, k, weight=3 * weight), by_graded * 4 / weight.sum(), [q, k])
    costs = GCL(temperature=0.3, two_sided=False, reduction="none")(q, k, weight=weight)
    plain = InfoNCE(temperature=0.3, reduction="none")(q, k)
    torch.testing.assert_close(costs, weight * plain)
    scores = torch.eye(4, 6, dtype=torch.float64)
    row = GCL(temperature=0.5, two_sided=False, reduction="none")(scores=scores, weight=weight)
    torch.testing.assert_close(row, weight * (math.log(math.exp(2) + 5) - 2))
    for wrong, message in ((weight[:3], "must have 4 rows"), (-weight, ">= 0"), (weight.long(), "floating point")):
        with pytest.raises(ValueError, match=message):
            objective(q, k, weight=wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_a_pair_of_weight_0_costs_nothing_and_counts_in_the_mean(memory: str, dtype: torch.dtype) -> None:
    q, k = _leaves(6, (4, 3), (6, 3))
    weight = torch.tensor([0.5, 0.0, 0.25, 2.0], dtype=dtype)
    scores = torch.nn.functional.normalize(q) @ torch.nn.functional.normalize(k).T / 0.3
    forth = torch.nn.functional.cross_entropy(scores, torch.arange(4), reduction="none")
    back = torch.nn.functional.cross_entropy(scores.T[:4], torch.arange(4), reduction="none")
    loss = GCL(temperature=0.3)(q, k, weight=weight, memory=memory)
    _same(loss, (weight * (forth + back) / 2).mean(), [q, k])
    divided = GCL("weights", temperature=0.3)(q, k, weight=weight, memory=memory)
    _same(divided, (weight * (forth + back) / 2).sum() / weight.sum(), [q, k])


def test_functions_of_relevance() -> None:
    values = torch.tensor([100.0, 1.0, 3.0])
    assert relevance_weight(values).tolist() == pytest.approx([1, 0.01, 0.03])
    assert relevance_weight(values, "inverse").tolist() == pytest.approx([0.01, 1, 1 / 3])
    assert relevance_weight(values, "inverse-log").tolist() == pytest.approx([1 / math.log2(101), 1, 0.5])
    assert relevance_weight(torch.tensor([3, 4]), "constant").tolist() == [1, 1]
    assert relevance_weight(torch.tensor([50, 100])).tolist() == [0.5, 1]
    with pytest.raises(UsageError, match="form must be"):
        relevance_weight(values, "cubic")


@pytest.mark.parametrize("form", ["smooth-positive", "smooth-all"])
def test_grades_of_a_judge_by_loops(form: str) -> None:
    z1, z2, z3 = _leaves(7, (4, 3), (4, 3), (4, 3))
    grade = torch.tensor([1.0, 0.3, 0.0, 0.8], dtype=torch.float64)
    keys = torch.cat([z2, z3])
    costs = []
    for i in range(4):
        powers = [(cosine(z1[i], key) / 0.05).exp() for key in keys]
        rest = 0.0 if form == "smooth-positive" else (1 - grade[i]) / 7
        targets = [grade[i] if j == i else rest for j in range(8)]
        costs.append(-sum(t * (power / sum(powers)).log() for t, power in zip(targets, powers, strict=True)))
    for memory in ("dense", "tiled"):
        _same(CLHAIF(form)(z1, keys, grade=grade, memory=memory), sum(costs) / 4, [z1, z2, z3])
    ones = torch.ones(4, dtype=torch.float64)
    _same(CLHAIF(form)(z1, keys, grade=ones), InfoNCE(temperature=0.05)(z1, keys), [z1, z2, z3])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        CLHAIF(form)(z1, keys, grade=2 * ones)


def test_a_judge_leaves_the_weights_of_hard_negatives() -> None:
    z1, z2, z3 = _leaves(7, (4, 3), (4, 3), (4, 3))
    grade, keys = torch.tensor([1.0, 0.3, 0.0, 0.8], dtype=torch.float64), torch.cat([z2, z3])
    harder = Paired().reweight(own_negatives(4, 8, logit=0.7))
    plain = InfoNCE(temperature=0.05, reduction="none")(z1, keys, relation=harder)
    _same(CLHAIF()(z1, keys, grade=grade, relation=harder), (grade * plain).mean(), [z1, z2, z3])


def test_a_flagged_pair_of_dclr_gets_no_gradient() -> None:
    z1, z2 = _leaves(8, (4, 3), (4, 3))
    flagged = torch.zeros(4, 4, dtype=torch.bool)
    flagged[0, 2] = True
    relation = Paired().reweight(lambda near, far, rows, columns: (near, far & ~flagged[rows][:, columns]))
    first = DCLR(reduction="none")(z1, z2, relation=relation)[0]
    gradient = torch.autograd.grad(first, z2, retain_graph=True)[0]
    assert gradient[2].abs().max() == 0
    assert gradient[[0, 1, 3]].abs().min() > 0
    code = DCLR("official-code", reduction="none")(z1, z2, relation=relation)[0]
    assert torch.autograd.grad(code, z2)[0][2].abs().max() == 0  # its logit is 0 times the cosine
    assert code.item() != pytest.approx(first.item(), rel=1e-2)


@pytest.mark.filterwarnings("ignore:sg-bert")
@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize(
    "objective",
    [PromCSE(), SGBert(), QuickThoughts(), DropInfoNCE(), DCLR("official-code"), GCL(), CLHAIF("smooth-all")],
    ids=lambda objective: objective.name,
)
def test_extreme_scores_stay_finite(objective: RowObjective, memory: Any) -> None:
    """Duplicates, zero vectors, opposite vectors, one row."""
    q = torch.tensor([[1.0, 0], [1, 0], [0, 0], [-1, 0]], requires_grad=True)
    k = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]], requires_grad=True)
    for rows in (4, 1):
        loss = objective(q[:rows], k[:rows], memory=memory, relation=Paired(torch.arange(rows)))
        for gradient in torch.autograd.grad(loss + 0 * (q.sum() + k.sum()), [q, k]):
            assert torch.isfinite(gradient).all()
        assert torch.isfinite(loss)


def test_energy_hinge_without_negatives() -> None:
    q, k = _leaves(9, (1, 3), (1, 3))
    objective = PromCSE(margin=5.0, temperature="learned").double()
    loss = objective(q, k)
    assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(q.grad).all()
    assert objective.temperature.log_scale.grad.item() == 0
    # the margin is a distance of scores, whatever the temperature
    cold = PromCSE(0.2, 1.0, temperature=0.01)(scores=torch.tensor([[0.5, 0.45]]))
    assert cold.item() - InfoNCE(temperature=0.01)(scores=torch.tensor([[0.5, 0.45]])).item() == pytest.approx(0.15)


def test_gradients_to_the_second_order() -> None:
    q, k = _leaves(10, (3, 3), (5, 3))
    for objective in (SGBert(temperature=0.5), DropInfoNCE("one"), DCLR("official-code", temperature=0.5)):
        assert torch.autograd.gradgradcheck(
            lambda a, b, objective=objective: evaluate(objective, a, b, memory="dense"), [q, k], fast_mode=True
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGBert("opt4"), "variant must be one of"),
        (lambda: PromCSE(-0.1), "finite numbers >= 0"),
        (lambda: PromCSE(weight=math.inf), "finite numbers >= 0"),
        (lambda: CompCSE("sum"), "compose must be"),
        (lambda: CompCSE(width=0), "at least 1"),
        (lambda: QuickThoughts(0), "at least 1"),
        (lambda: DCLR("both"), "variant must be"),
        (lambda: GCL("sum"), "average must be"),
        (lambda: CLHAIF("hard"), "form must be"),
        (lambda: DropInfoNCE("three"), "directions must be"),
    ],
)
def test_arguments_that_cannot_be(make: Callable[[], RowObjective], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_input_that_does_not_fit() -> None:
    c, h = embeddings(11, 4, 3), embeddings(12, 4, 2, 3)
    with pytest.raises(ValueError, match="one layer a sentence"):
        SGBert("sg")(c, h)
    with pytest.raises(ValueError, match="and a relation"):
        SGBert()(c, h, relation=Labels(torch.arange(4), torch.arange(8)))
    with pytest.raises(ValueError, match=r"pairs query \[n, d\]"):
        SGBert()(c[:3], h)
    with pytest.raises(ValueError, match="ready-made scores have one or two"):
        DropInfoNCE()(scores=torch.eye(3))
    with pytest.raises(ValueError, match="the window"):
        Adjacent(0)
    with pytest.raises(ValueError, match="document values"):
        QuickThoughts()(c, c, relation=Adjacent(document=torch.arange(3)))
    with pytest.raises(ValueError, match="give embeddings"):
        GCL()(weight=torch.ones(3))
