"""View objectives against plain loops over scalars in float64: value and gradients; and gradcheck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar.contrast import engine
from nearfar.errors import UsageError
from nearfar.objectives import (
    BYOL,
    CARE,
    DCCA,
    DCCAE,
    DINO,
    UNSEE,
    AlignUniform,
    BarlowTwins,
    CorInfoMax,
    CorrAE,
    DistAE,
    Equivariance,
    KoLeo,
    MiCSE,
    NegativeCosine,
    SepCLR,
    SimSiam,
    SplitAE,
    SwaV,
    VICReg,
    sinkhorn,
)
from support.loops import cosine, dot

EYE = torch.eye(8, dtype=torch.float64)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _unit(z: Tensor) -> list[Tensor]:
    return [row / dot(row, row).sqrt() for row in z]


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return dot(a - b, a - b)


def _mean(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values)


def _uniform(rows: list[Tensor], t: float) -> Tensor:
    return _mean([(-t * _apart(rows[i], rows[j])).exp() for i in range(len(rows)) for j in range(i)]).log()


def align_uniform(a: Tensor, b: Tensor) -> Tensor:
    x, y = _unit(a), _unit(b)
    near = _mean([_apart(p, q) ** 0.75 for p, q in zip(x, y, strict=True)])
    return 2 * near + 0.5 * (_uniform(x, 3.0) + _uniform(y, 3.0)) / 2


def koleo(a: Tensor, b: Tensor) -> Tensor:
    costs = []
    for z in (a, b):
        rows = _unit(z)
        for i, row in enumerate(rows):
            distances = [_apart(row, other).sqrt() for j, other in enumerate(rows) if j != i]
            costs.append(-(min(distances, key=lambda distance: distance.item()) + 1e-8).log())
    return _mean(costs)


def equivariance(a: Tensor, b: Tensor, chunks: int = 2) -> Tensor:
    size, total = len(a) // chunks, a.new_zeros(())
    for chunk in range(chunks):
        x, y = (_unit(z[chunk * size : (chunk + 1) * size]) for z in (a, b))
        for i in range(size):
            for j in range(size):
                if i != j:
                    total = total + 2 * (dot(x[i], x[j]) - dot(y[i], y[j])) ** 2 / size / chunks
    return total


def care(a: Tensor, b: Tensor) -> Tensor:
    rows = [*a, *b]
    costs = []
    for i in range(len(rows)):
        partner = (i + len(a)) % len(rows)
        everyone = sum((cosine(rows[i], rows[j]) / 0.5).exp() for j in range(len(rows)) if j != i)
        costs.append(everyone.log() - cosine(rows[i], rows[partner]) / 0.5)
    return _mean(costs) + 0.2 * equivariance(a, b, 1)


def simsiam(a: Tensor, b: Tensor) -> Tensor:
    return -_mean([cosine(p, t.detach()) + cosine(t, p.detach()) for p, t in zip(a, b, strict=True)]) / 2


def byol(a: Tensor, b: Tensor) -> Tensor:
    return 4 + 4 * simsiam(a, b)


def _covariance(z: Tensor, centre: Tensor, divisor: float) -> Tensor:
    total = z.new_zeros(z.shape[1], z.shape[1])
    for row in z:
        total = total + torch.outer(row - centre, row - centre)
    return total / divisor


def corinfomax(a: Tensor, b: Tensor) -> Tensor:
    n, d = a.shape
    total = 7 * sum(_apart(p, q) for p, q in zip(a, b, strict=True)) / (n * d)
    for z in (a, b):
        mean = 0.9 * sum(z) / n  # the mean before was 0
        running = 0.1 * 2.0 * EYE[:d, :d] + 0.9 * _covariance(z, mean, n)
        total = total - 3 / d * torch.linalg.det(running + 1e-3 * EYE[:d, :d]).log()
    return total


def dcca(a: Tensor, b: Tensor) -> Tensor:
    """By symmetric roots instead of Cholesky's."""
    n, d = a.shape
    roots, centred = [], [z - sum(z) / n for z in (a, b)]
    for z in centred:
        values, vectors = torch.linalg.eigh(z.T @ z / (n - 1) + 0.01 * EYE[:d, :d])
        roots.append(vectors @ torch.diag(values**-0.5) @ vectors.T)
    return -torch.linalg.svdvals(roots[0] @ (centred[0].T @ centred[1] / (n - 1)) @ roots[1])[:2].sum()


def dino(a: Tensor, b: Tensor) -> Tensor:
    total = a.new_zeros(())
    for t, s in ((a, b), (b, a)):
        for i in range(len(a)):
            wanted = (t[i].detach() / 0.04).exp() / (t[i].detach() / 0.04).exp().sum()
            found = (s[i] / 0.1).exp() / (s[i] / 0.1).exp().sum()
            total = total - sum(w * f.log() for w, f in zip(wanted, found, strict=True)) / len(a) / 2
    return total


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor, Tensor], Tensor]]] = {
    "align-uniform": (lambda: AlignUniform(2.0, 0.5, alpha=1.5, t=3.0), align_uniform),
    "koleo": (KoLeo, koleo),
    "equivariance": (lambda: Equivariance(2), equivariance),
    "care": (lambda: CARE(0.2), care),
    "negative-cosine": (NegativeCosine, lambda a, b: -_mean([cosine(p, q) for p, q in zip(a, b, strict=True)])),
    "simsiam": (SimSiam, simsiam),
    "byol": (BYOL, byol),
    "corinfomax": (lambda: CorInfoMax(7.0, 3.0, memory=0.1, initial=2.0, eps=1e-3), corinfomax),
    "dcca": (lambda: DCCA(2, ridge=0.01), dcca),
    "dino": (DINO, dino),
}


def _check(found: Tensor, expected: Tensor, *inputs: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    both = (torch.autograd.grad(value, inputs, allow_unused=True, retain_graph=True) for value in (found, expected))
    for one, other, value in zip(*both, inputs, strict=True):
        zero = torch.zeros_like(value)
        one, other = zero if one is None else one, zero if other is None else other
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_views_equal_their_formula(name: str, tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if tiled:
        monkeypatch.setattr(engine, "DENSE_LIMIT", 0)
    make, formula = CASES[name]
    a, b = _normal(0, 7, 3).requires_grad_(), _normal(1, 7, 3).requires_grad_()
    _check(make()(a, b), formula(a, b), a, b)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    objective = CASES[name][0]().eval()
    if name in ("simsiam", "byol", "dino"):  # whose targets stand still
        targets = (_normal(4, 6, 3), _normal(5, 6, 3))
        function: Callable[..., Tensor] = lambda a, b: objective(a, b, targets=targets)  # noqa: E731
    else:
        function = objective
    assert torch.autograd.gradcheck(function, (_normal(2, 6, 3).requires_grad_(), _normal(3, 6, 3).requires_grad_()))


# -- with more to call them with ---------------------------------------------------------------------------------------


def test_sepclr() -> None:
    inputs = [_normal(10 + i, 6, 2 + i // 2).requires_grad_() for i in range(4)]
    labels = [1, 0, 1, 1, 0, 1]
    (c1, c2), (s1, s2) = map(_unit, inputs[:2]), inputs[2:]
    seen = [[row if y else 0 * row.detach() for row, y in zip(s, labels, strict=True)] for s in (s1, s2)]
    tau, n = 0.3, len(labels)
    targets = [i for i in range(n) if labels[i]]
    background = [i for i in range(n) if not labels[i]]
    t = 1 / (2 * tau)
    common = t * _mean([_apart(c1[i], c2[i]) for i in range(n)]) + _uniform(c1, t) + _uniform(c2, t)
    salient = t * _mean([_apart(s1[i], s2[i]) for i in targets]) + _uniform(seen[0], t) + _uniform(seen[1], t)
    infoless = t / 2 * _mean([dot(s1[i], s1[i]) + dot(s2[i], s2[i]) for i in background])
    joint = _mean(
        [
            _mean([(-t * (_apart(s[i], s[j]) + _apart(c[i], c[j]))).exp() for j in range(n)]).log()
            for s, c in zip(seen, (c1, c2), strict=True)
            for i in range(n)
        ]
    )
    objective = SepCLR(tau, salient_weight=0.7, infoless_weight=1.3, joint_weight=2.0)
    expected = common + 0.7 * salient + 1.3 * infoless + 2.0 * joint
    _check(objective(*inputs, torch.tensor(labels)), expected, *inputs)


def _autoencoding(seed: int) -> tuple[list[Tensor], dict[str, Any]]:
    z = [_normal(seed + i, 9, 3).requires_grad_() for i in range(2)]
    inputs = (_normal(seed + 2, 9, 4), _normal(seed + 3, 9, 2, 5))
    restored = tuple((x + _normal(seed + 4, *x.shape)).requires_grad_() for x in inputs)
    return [*z, *restored], {"inputs": inputs, "reconstructions": restored}


def _restoring(inputs: tuple[Tensor, ...], reconstructions: tuple[Tensor, ...]) -> list[Tensor]:
    return [
        _mean([((x[i] - y[i]) ** 2).sum() for i in range(len(x))]) for x, y in zip(inputs, reconstructions, strict=True)
    ]


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - sum(x) / len(x), y - sum(y) / len(y)
    return dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()


@pytest.mark.parametrize("name", ["dccae", "corrae", "splitae", "distae 1", "distae 2"])
def test_autoencoders(name: str) -> None:
    leaves, more = _autoencoding(20)
    z1, z2 = leaves[:2]
    own, other = _restoring(**more)
    squared = [_apart(p, q) for p, q in zip(z1, z2, strict=True)]
    scaled = [_apart(p, q) / (dot(p, p) * dot(q, q)).sqrt() for p, q in zip(z1, z2, strict=True)]
    objective, expected = {
        "dccae": (DCCAE(0.3, top=2, ridge=0.01), dcca(z1, z2) + 0.3 * (own + other)),
        "corrae": (CorrAE(0.3), -sum(_correlation(z1[:, k], z2[:, k]) for k in range(3)) + 0.3 * (own + other)),
        "splitae": (SplitAE(0.3), own + 0.3 * other),
        "distae 1": (DistAE(1, weight=0.3), _mean(squared) + 0.3 * (own + other)),
        "distae 2": (DistAE(2, weight=0.3), _mean(scaled) + 0.3 * (own + other)),
    }[name]
    _check(objective(z1, z2, **more), expected, *leaves)


def test_splitae_needs_one_code() -> None:
    leaves, more = _autoencoding(30)
    torch.testing.assert_close(SplitAE()(leaves[0], **more), SplitAE()(*leaves[:2], **more))


def _plain_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """As published: K rows and B columns, the totals being 1/K and 1/B."""
    q = (scores.detach() / epsilon).exp().T
    q = q / q.sum()
    k, b = q.shape
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / k
        q = q / q.sum(0, keepdim=True) / b
    return (q * b).T


@pytest.mark.parametrize("queued", [False, True])
def test_swav(queued: bool) -> None:
    objective = SwaV(5, 3, temperature=0.2, epsilon=0.3, iterations=2).double()
    views = [_normal(40 + i, 6, 3).requires_grad_() for i in range(3)]
    queues = [_normal(50 + i, 4, 3) for i in range(2)] if queued else None
    prototypes = objective.prototypes / objective.prototypes.norm(dim=1, keepdim=True)
    scores = [(z / z.norm(dim=1, keepdim=True)) @ prototypes.T for z in views]
    costs = []
    for a in range(2):
        everything = scores[a]
        if queues is not None:
            extra = queues[a] / queues[a].norm(dim=1, keepdim=True) @ prototypes.T
            everything = torch.cat([everything, extra])
        codes = _plain_sinkhorn(everything, 0.3, 2)[:6]
        for b in range(3):
            if a != b:
                found = (scores[b] / 0.2).exp() / (scores[b] / 0.2).exp().sum(1, keepdim=True)
                costs.append(-(codes * found.log()).sum() / 6)
    _check(objective(*views, queues=queues), _mean(costs), *views, objective.prototypes)


def test_sinkhorn_uses_all_prototypes_alike() -> None:
    scores = _normal(60, 12, 4)
    codes = sinkhorn(scores, 0.5, 200)
    torch.testing.assert_close(codes.sum(1), torch.ones(12).double())
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 3.0).double())
    torch.testing.assert_close(sinkhorn(scores, 0.5, 3), _plain_sinkhorn(scores, 0.5, 3))
    assert sinkhorn(1e4 * scores.float(), 0.05).isfinite().all()


@pytest.mark.parametrize("form", ["vicreg", "barlow-twins", "corinfomax", "byol"])
def test_unsee_is_the_objective_both_ways_around(form: str) -> None:
    a, b, t1, t2 = (_normal(70 + i, 8, 3).requires_grad_() for i in range(4))
    predictor = nn.Linear(3, 3).double()
    inner = {
        "vicreg": VICReg(),
        "barlow-twins": BarlowTwins(0.0051),
        "corinfomax": CorInfoMax(2000.0, 0.2),
        "byol": lambda p, t: 2 - 2 * _mean([cosine(one, other) for one, other in zip(p, t, strict=True)]),
    }[form]
    expected = inner(predictor(a), t2.detach()) + inner(predictor(b), t1.detach())
    _check(UNSEE(form, predictor)(a, b, targets=(t1, t2)), expected, a, b, t1, t2, *predictor.parameters())


def test_dino_leaves_out_pairs_of_the_same_view_and_moves_its_centre_afterwards() -> None:
    objective = DINO(momentum=0.5)
    students, teachers = [_normal(80 + i, 4, 3) for i in range(3)], [_normal(90 + i, 4, 3) for i in range(2)]
    centre = torch.zeros(3).double()
    for _ in range(3):
        pairs = [
            -(torch.softmax((teachers[t] - centre) / 0.04, 1) * torch.log_softmax(students[s] / 0.1, 1)).sum(1).mean()
            for t in range(2)
            for s in range(3)
            if t != s
        ]
        assert len(pairs) == 4
        torch.testing.assert_close(objective(*students, targets=teachers), _mean(pairs))
        centre = 0.5 * centre + 0.5 * torch.cat(teachers).mean(0)
        torch.testing.assert_close(objective.centre, centre)


def test_corinfomax_remembers() -> None:
    objective, d = CorInfoMax(1.0, 1.0, memory=0.3, eps=1e-3), 2
    means, covariances = [torch.zeros(d).double()] * 2, [EYE[:d, :d]] * 2
    for step in range(3):
        views = [_normal(100 + 2 * step + v, 5, d) for v in range(2)]
        expected = (views[0] - views[1]).square().mean()
        for v, z in enumerate(views):
            means[v] = 0.3 * means[v] + 0.7 * z.mean(0)
            covariances[v] = 0.3 * covariances[v] + 0.7 * _covariance(z, means[v], 5)
            expected = expected - torch.logdet(covariances[v] + 1e-3 * EYE[:d, :d]) / d
        torch.testing.assert_close(objective(*views), expected)
    torch.testing.assert_close(objective.covariances, torch.stack(covariances))


def _attention(seed: int, n: int, layers: int, heads: int, length: int) -> list[Tensor]:
    return [torch.softmax(_normal(seed + v, n, layers, heads, length, length), -1) for v in range(2)]


def test_micse() -> None:
    """All entries are drawn, so that the loops need not know which."""
    z1, z2 = _normal(110, 3, 4).requires_grad_(), _normal(111, 3, 4).requires_grad_()
    one, other = _attention(112, 3, 4, 2, 3)
    one[0, 2, 0, 1, 1] = 0.0  # dropped in the first view: gone from both
    one.requires_grad_()
    contrast = _mean(
        [
            sum((cosine(z1[i], z2[j]) / 0.05).exp() for j in range(3)).log() - cosine(z1[i], z2[i]) / 0.05
            for i in range(3)
        ]
    )
    # the 11 of 12 vectors that have 18 entries above 0 count, with all of them
    kept_rows = [
        (i, head, parity)
        for i in range(3)
        for head in range(2)
        for parity in range(2)
        if (i, head, parity) != (0, 0, 0)
    ]
    information = []
    for i, head, parity in kept_rows:
        x, y = (torch.cat([maps[i, m, head].flatten() for m in range(parity, 4, 2)]).log() for maps in (one, other))
        information.append(-(1 - _correlation(x, y) ** 2).log() / 2)
    objective = MiCSE(0.7, contrast_weight=2.0, samples=18)
    expected = 2 * contrast - 0.7 * _mean(information)
    _check(objective(z1, z2, attention=(one, other)), expected, z1, z2, one)


def test_each_view_has_a_ridge_of_its_own() -> None:
    generator = torch.Generator().manual_seed(9)
    one, other = (torch.randn(20, d, generator=generator, dtype=torch.float64) for d in (3, 4))

    def whitening(view: Tensor, ridge: float) -> Tensor:
        centred = view - view.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / 19 + ridge * torch.eye(view.shape[1]).double())
        return vectors @ torch.diag(values**-0.5) @ vectors.T

    covariance = (one - one.mean(0)).T @ (other - other.mean(0)) / 19
    total = torch.linalg.svdvals(whitening(one, 0.5) @ covariance @ whitening(other, 0.01)).sum()
    torch.testing.assert_close(DCCA(ridge=(0.5, 0.01))(one, other), -total)
    torch.testing.assert_close(DCCA(ridge=(0.2, 0.2))(one, other), DCCA(ridge=0.2)(one, other))
    assert "ridge=(0.5, 0.01)" in repr(DCCA(ridge=(0.5, 0.01)))
    for ridge in (0.0, (0.1, -1.0), (0.1, 0.1, 0.1)):
        with pytest.raises(UsageError, match="or two"):
            DCCA(ridge=ridge)  # type: ignore[arg-type]
