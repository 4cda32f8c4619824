"""Identities and limits of the softmax family, and what it does with rows and batches that have little to teach."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import Explicit, Labels, Paired, Relation, Views, evaluate
from nearfar.contrast.directions import DIRECTIONS
from nearfar.errors import UsageError
from nearfar.objectives import (
    CPC,
    DCL,
    DHEL,
    FMICL,
    MVDHEL,
    NCA,
    Debiased,
    HardNegative,
    InfoNCE,
    MoCoDualHard,
    MVInfoNCE,
    NPairs,
    PolyView,
    RowObjective,
    SigLIP,
    SpectralContrastive,
    SupCon,
    get,
)
from nearfar.objectives.pairwise_softmax import one_pair_a_label
from support.scenarios import embeddings

MEMORY = ["dense", "tiled"]
few = settings(max_examples=20, deadline=None, derandomize=True, database=None)
views = st.tuples(st.integers(2, 5), st.integers(2, 4), st.integers(0, 10**6), st.sampled_from(MEMORY))
"""How many items, how many views of each, a seed, and how it is evaluated."""


def _same(one: Tensor, other: Tensor, z: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    gradients = (torch.autograd.grad(value, z, retain_graph=True)[0] for value in (one, other))
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


@few
@given(case=views)
def test_what_is_nt_xent_on_two_views(case: tuple[int, int, int, str]) -> None:
    items, _, seed, memory = case
    z = embeddings(seed, 2 * items, 3).requires_grad_()
    expected = evaluate(get("nt-xent"), z, relation=Views(2), memory=memory)
    for objective in (
        Debiased(0.0), HardNegative(0.0, 0.0), PolyView(temperature=0.5), PolyView("arithmetic", temperature=0.5),
        PolyView("sufficient", temperature=0.5), get("nt-xent-labels", temperature=0.5), SupCon(temperature=0.5),
        SupCon("in", temperature=0.5), InfoNCE(temperature=0.5, own_denominator=True),
    ):  # fmt: skip
        _same(evaluate(objective, z, relation=Views(2), memory=memory), expected, z)


@few
@given(case=views)
def test_multi_view_forms(case: tuple[int, int, int, str]) -> None:
    items, count, seed, memory = case
    z = embeddings(seed, count * items, 3).requires_grad_()

    def value(objective: RowObjective, relation: Relation | None = None) -> Tensor:
        return evaluate(objective, z, relation=Views(count) if relation is None else relation, memory=memory)

    assert value(PolyView("arithmetic")) <= value(PolyView()) + 1e-12
    # DHEL is decoupled, within the views
    within = Views(count, negatives="same-view")
    _same(value(DHEL("one", temperature=0.4)), value(DCL(temperature=0.4), within), z)
    if count == 2:
        _same(value(MVDHEL(temperature=0.3)), value(DHEL()), z)
    # a log of sums is never below the mean of logs
    assert value(MVInfoNCE(temperature=0.4)) >= 0


def test_what_two_views_multi_view_infonce_is_not() -> None:
    z = embeddings(1, 8, 3)
    apart = evaluate(MVInfoNCE(), z, relation=Views(2)) - evaluate(InfoNCE(temperature=0.5), z, relation=Views(2))
    assert abs(float(apart)) > 1e-3


@few
@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.9))
def test_label_smoothing_and_soft_targets_are_those_of_cross_entropy(seed: int, share: float) -> None:
    scores = embeddings(seed, 4, 6).requires_grad_()
    target = torch.randint(6, (4,), generator=torch.Generator().manual_seed(seed))
    expected = torch.nn.functional.cross_entropy(scores, target, label_smoothing=share)
    near = torch.nn.functional.one_hot(target, 6).bool()
    _same(InfoNCE(temperature=1.0, label_smoothing=share)(scores=scores, relation=Explicit(near)), expected, scores)
    soft = embeddings(seed + 1, 4, 6).softmax(1)
    _same(
        InfoNCE(temperature=1.0)(scores=scores, relation=Explicit(soft)),
        torch.nn.functional.cross_entropy(scores, soft), scores,
    )  # fmt: skip


def test_the_estimate_of_true_negatives_is_not_biased() -> None:
    """Three known classes: with the classes' share the debiased mean is that of true negatives, not that of all."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(3, 8, generator=generator), dim=1)

    def draw(labels: Tensor) -> Tensor:
        noise = 0.5 * torch.randn(len(labels), 8, generator=generator)
        return normalize(centres[labels] + noise, dim=1)

    trials, n = 400, 200
    means = {"debiased": 0.0, "biased": 0.0, "true": 0.0}
    for _ in range(trials):
        labels = torch.randint(3, (n,), generator=generator)
        own = torch.randint(3, (1,), generator=generator)
        anchor, positive, others = draw(own), draw(own), draw(labels)
        scores = torch.cat([anchor @ positive.T, anchor @ others.T], dim=1).double()
        exponentials = (2 * scores[0, 1:]).exp()
        means["true"] += exponentials[labels != own].mean().item() / trials
        relation = Explicit(torch.arange(n + 1)[None] == 0)
        for name, share in (("debiased", 1 / 3), ("biased", 0.0)):
            cost = Debiased(share)(scores=scores, relation=relation)
            mass = (cost.exp() - 1) * (2 * scores[0, 0]).exp() / n  # g, back from the cost
            means[name] += mass.item() / trials
    assert abs(means["debiased"] - means["true"]) < 0.25 * abs(means["biased"] - means["true"])
    assert means["biased"] > means["true"] + 0.2


def test_hard_negatives_weigh_more() -> None:
    z = embeddings(2, 12, 3)
    costs = [float(evaluate(HardNegative(beta, 0.0), z, relation=Views(2))) for beta in (0.0, 0.5, 1.0, 2.0)]
    assert costs == sorted(costs)
    assert costs[-1] > costs[0] + 0.1
    detached = HardNegative(1.0, detach_weight=True)
    leaf = z.clone().requires_grad_()
    one, other = (
        torch.autograd.grad(evaluate(o, leaf, relation=Views(2)), leaf)[0] for o in (detached, HardNegative(1.0))
    )
    torch.testing.assert_close(
        evaluate(detached, z, relation=Views(2)), evaluate(HardNegative(1.0), z, relation=Views(2))
    )
    assert (one - other).norm() > 1e-2 * other.norm()


def test_spectral_is_the_chi_square_divergence_of_dot_products() -> None:
    """With f = (t - 1)^2, f'(t) = 2 (t - 1) and f*(f'(t)) = t^2 - 1: the same cost up to 1."""
    a, b = embeddings(3, 5, 3).requires_grad_(), embeddings(4, 5, 3)
    # a kernel whose logarithm is the score + 1 makes G the exponential, so take scores that are logs of dot products
    scores = (a @ b.T).abs() + 0.1
    pearson = FMICL("pearson")(scores=scores.log() + 1, relation=Paired())
    _same(SpectralContrastive()(scores=scores), pearson - 1, a)


def test_kl_pulls_as_infonce() -> None:
    a, b = embeddings(3, 5, 3), embeddings(4, 5, 3)
    scores = (normalize(a) @ normalize(b).T).requires_grad_()
    pull = torch.autograd.grad(FMICL(sigma=math.sqrt(0.2), alpha=0.0)(scores=scores), scores)[0]
    torch.testing.assert_close(pull, -torch.eye(5, dtype=torch.float64) / 0.2 / 5)


def test_nca_and_the_inner_form_of_supcon() -> None:
    z, labels = embeddings(5, 9, 3), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    nca = evaluate(NCA(temperature=0.4, score="cosine"), z, relation=Labels(labels))
    inner = evaluate(SupCon("in", temperature=0.4), z, relation=Labels(labels))
    torch.testing.assert_close(nca, inner - math.log(2))


def test_one_pair_a_label() -> None:
    anchors, positives = one_pair_a_label(torch.tensor([4, 1, 4, 4, 7, 1, 2, 1]))
    assert anchors.tolist() == [1, 0]
    assert positives.tolist() == [5, 2]
    assert one_pair_a_label(torch.tensor([3]))[0].numel() == 0


def test_the_length_penalty() -> None:
    a, b = embeddings(6, 3, 4).requires_grad_(), embeddings(7, 3, 4)
    expected = NPairs()(a, b) + 0.5 * 0.02 * (a.square().sum(1).mean() + b.square().sum(1).mean())
    _same(NPairs(0.02)(a, b), expected, a)


def test_information_bounds_on_a_gaussian_world() -> None:
    """The optimal critic of x_a = c + noise: bounds stay below the truth, arithmetic above geometric."""
    variance, count, items = 0.5, 4, 60
    truth = 0.5 * math.log((1 + variance) / (variance + variance / (variance + count - 1)))
    generator = torch.Generator().manual_seed(0)
    bounds: dict[str, list[float]] = {"geometric": [], "arithmetic": []}
    for _ in range(30):
        c = torch.randn(items, 1, generator=generator, dtype=torch.float64)
        x = (c + math.sqrt(variance) * torch.randn(items, count, generator=generator, dtype=torch.float64)).T.reshape(
            -1
        )
        total, rho = 1 + variance, 1 / (1 + variance)
        log_pair = -(rho**2 * (x[:, None] ** 2 + x[None] ** 2) - 2 * rho * x[:, None] * x[None]) / (
            2 * total * (1 - rho**2)
        )
        scores = log_pair - 0.5 * math.log(1 - rho**2)
        for method, found in bounds.items():
            loss = PolyView(method, temperature=1.0)(scores=scores, relation=Views(count))
            found.append(math.log(1 + count * (items - 1)) - loss.item())
    mean = {name: sum(found) / 30 for name, found in bounds.items()}
    assert 0.1 < mean["geometric"] < mean["arithmetic"]
    error = torch.tensor(bounds["arithmetic"]).std().item() / math.sqrt(30)
    assert mean["arithmetic"] < truth + 3 * error


# -- little to teach ---------------------------------------------------------------------------------------------------

OBJECTIVES: dict[str, Callable[..., RowObjective]] = {
    "smoothed": lambda **more: InfoNCE(label_smoothing=0.1, **more),
    "own": lambda **more: InfoNCE(own_denominator=True, average="pairs", **more),
    "directions": lambda **more: InfoNCE(directions=DIRECTIONS, **more),
    "supcontrast": lambda **more: get("supcontrast", **more),
    "debiased": Debiased,
    "debiased clamped": lambda **more: Debiased(0.9, temperature=0.01, **more),
    "hcl": HardNegative,
    "dhel": DHEL,
    "mv-infonce": MVInfoNCE,
    "mv-dhel": MVDHEL,
    "geometric": PolyView,
    "arithmetic": lambda **more: PolyView("arithmetic", **more),
    "sufficient": lambda **more: PolyView("sufficient", **more),
    "nca": NCA,
    "siglip": SigLIP,
    "hardest": lambda **more: MoCoDualHard("query", hardest=1, skip=1, **more),
    "spectral": lambda **more: SpectralContrastive(mu=1.0, **more),
    "f-micl": FMICL,
    "f-micl js": lambda **more: FMICL("js", **more),
    "f-micl hellinger": lambda **more: FMICL("squared-hellinger", **more),
    "f-micl vlc": lambda **more: FMICL("vincze-le-cam", **more),
    "f-micl tsallis": lambda **more: FMICL("tsallis", **more),
}


def _difficult() -> dict[str, tuple[Tensor, Relation]]:
    items = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    pairs = torch.tensor([0, 1, 2, 0, 1, 2])
    return {
        "all zero": (torch.zeros(6, 3), Views(2)),
        "all equal": (torch.ones(6, 3), Views(2)),
        "opposite": (torch.cat([items[:3], -items[:3]]), Views(2)),
        "coinciding": (torch.cat([items[:3], items[:3]]), Views(2)),
        "tiny": (1e-20 * items, Views(2)),
        "one item": (items[:2], Views(2)),
        "one class": (items, Labels(torch.zeros(6, dtype=torch.long))),
        "nobody near": (items, Labels(torch.arange(6))),
        "some lonely": (items, Labels(torch.tensor([0, 0, 1, 2, -1, 3]))),
        "pairs": (items, Paired(pairs)),
    }


@pytest.mark.parametrize("case", _difficult())
@pytest.mark.parametrize("name", OBJECTIVES)
def test_never_nan_for_finite_input(name: str, case: str) -> None:
    for reduction, memory in (("mean", "dense"), ("sum", "tiled"), ("none", "tiled"), ("none", "dense")):
        objective = OBJECTIVES[name](reduction=reduction)
        items, relation = _difficult()[case]
        items = items.clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*no anchor")
            loss = objective(items, relation=relation, memory=memory)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert items.grad is not None
        assert torch.isfinite(items.grad).all()
        if case == "nobody near" and name not in ("siglip", "supcontrast"):
            assert loss.sum() == 0
            assert not items.grad.any()


@pytest.mark.parametrize("memory", MEMORY)
def test_a_lonely_anchor_of_the_official_supcon_costs_nothing(memory: str) -> None:
    items = torch.ones(1, 3, requires_grad=True)
    with pytest.warns(UserWarning, match="no anchor"):
        loss = get("supcontrast")(items, relation=Labels(torch.tensor([0])), memory=memory)
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: InfoNCE(label_smoothing=1.0), r"\[0, 1\)"),
        (lambda: InfoNCE(average="items"), "'rows' or 'pairs'"),
        (lambda: InfoNCE(own_denominator=True, label_smoothing=0.1), "own_denominator"),
        (lambda: SupCon(base_temperature=0.0), "base_temperature"),
        (lambda: SupCon(without_positive="nan"), "'dropped' or 'zero'"),
        (lambda: Debiased(1.0), "tau_plus"),
        (lambda: HardNegative(-1.0), "beta"),
        (lambda: DHEL("all"), "'both' or 'one'"),
        (lambda: PolyView("harmonic"), "'geometric', 'arithmetic' or 'sufficient'"),
        (lambda: PolyView("sufficient", score="dot"), "the score is the cosine"),
        (lambda: MoCoDualHard("both"), "'symmetric', 'dual' or 'query'"),
        (lambda: MoCoDualHard(hardest=0), "hardest"),
        (lambda: MoCoDualHard(share=1.5), "share"),
        (lambda: NPairs(-1.0), "length_penalty"),
        (lambda: NCA("square"), "'log' or 'probability'"),
        (lambda: SigLIP(bias=float("nan")), "bias"),
        (lambda: CPC(0), "steps"),
        (lambda: CPC(3, 4), "together"),
        (lambda: CPC(candidates="others"), "'all', 'sequences' or 'moments'"),
        (lambda: SpectralContrastive(0.0), "mu"),
        (lambda: SpectralContrastive(1.0, score="cosine"), "no other score"),
        (lambda: FMICL("chi"), "no divergence 'chi'"),
        (lambda: FMICL(sigma=0.0), "sigma"),
        (lambda: FMICL("tsallis", order=1.0), "order"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(make: Callable[[], RowObjective], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()
