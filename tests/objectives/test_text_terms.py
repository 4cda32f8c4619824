"""Objectives of several terms, from sentence and retrieval papers, against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.contrast import Paired
from nearfar.errors import UsageError
from nearfar.objectives import CLAIF, CLIM, CLP, MCSE, ClusterNS, InfoNCE, MoPQ, Objective
from support.loops import cosine, dot
from support.scenarios import embeddings

MEMORY = ["dense", "tiled"]


def _leaves(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [embeddings(seed + place, *shape).requires_grad_() for place, shape in enumerate(shapes)]


def _same(one: Tensor, other: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True) for loss in (one, other))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def nce(
    queries: Tensor, keys: Tensor, temperature: float, score: Callable[[Tensor, Tensor], Tensor] = cosine
) -> Tensor:
    costs = []
    for i, query in enumerate(queries):
        powers = [(score(query, key) / temperature).exp() for key in keys]
        costs.append(-(powers[i] / sum(powers)).log())
    return sum(costs) / len(costs)


@pytest.mark.parametrize("memory", MEMORY)
def test_contrastive_learning_penalty(memory: Any) -> None:
    q, k, nq = _leaves(0, (3, 4), (9, 4), (6, 4))
    penalty = sum(1 - cosine(nq[j], k[3 + j]) for j in range(6)) / 6
    expected = 0.7 * nce(q, k, 0.1) + 0.3 * penalty
    _same(CLP(0.3, temperature=0.1)(q, k, negative_query=nq, memory=memory), expected, [q, k, nq])
    _same(CLP(0.3, temperature=0.1)(q, k, memory=memory), nce(q, k, 0.1), [q, k])
    _same(CLP(1.0)(q, k, negative_query=k[3:].detach() * 2, memory=memory), 0 * q.sum() + 0 * k.sum(), [q])
    none = CLP(0.3, temperature=0.1)(q, k[:3], negative_query=nq[:0])
    _same(none, 0.7 * nce(q, k[:3], 0.1), [q])
    with pytest.raises(ValueError, match="last keys"):
        CLP()(q, k, negative_query=nq[:, :2])


def quantized(z: Tensor, codebook: Tensor, select: str) -> tuple[Tensor, list[int]]:
    """The value is that of the codeword; the gradient is that of the expectation under the softmax."""
    width, found, codes = codebook.shape[2], [], []
    for p, words in enumerate(codebook):
        part = z[p * width : (p + 1) * width]
        logits = [
            -dot(part - word, part - word) if select == "l2" else (dot if select == "ip" else cosine)(part, word)
            for word in words
        ]
        shares = torch.softmax(torch.stack(logits), 0)
        best = max(range(len(words)), key=lambda k: logits[k].item())
        one = torch.zeros_like(shares)
        one[best] = 1
        found.append(((one - shares).detach() + shares) @ words)
        codes.append(best)
    return torch.cat(found), codes


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("select", ["l2", "ip", "cosine"])
def test_multinoulli_contrast(select: str, memory: Any) -> None:
    q, k, codebook = _leaves(3, (3, 4), (5, 4), (2, 3, 2))
    both = [quantized(key, codebook, select) for key in k]
    made = torch.stack([vector for vector, _ in both])
    objective = MoPQ(select)
    assert objective.codes(k, codebook).tolist() == [codes for _, codes in both]
    _same(objective(q, k, codebook=codebook, memory=memory), nce(q, made, 1.0, dot), [q, k, codebook])
    with_terms = MoPQ(
        select, dense_weight=0.5, distortion=["l2", "dot", "subdot"], distortion_weight=0.2, temperature=2.0
    )
    change = k - made
    distortion = sum(dot(each, each) for each in change) / 5
    distortion = distortion + sum(dot(a, b) ** 2 for a in q for b in change) / 15
    for part in (slice(0, 2), slice(2, 4)):
        distortion = distortion + sum(dot(a[part], b[part]) ** 2 for a in q for b in change) / 30
    expected = nce(q, made, 2.0, dot) + 0.5 * nce(q, k, 2.0, dot) + 0.2 * distortion
    _same(with_terms(q, k, codebook=codebook, memory=memory), expected, [q, k, codebook])


def test_codewords_that_are_the_keys_change_nothing() -> None:
    q, k = _leaves(4, (4, 3), (4, 3))
    codebook = (100 * k.detach())[None]
    far_apart = MoPQ()(q, 100 * k, codebook=codebook)
    assert far_apart.item() == pytest.approx(InfoNCE(temperature=1.0, score="dot")(q, 100 * k).item(), rel=1e-12)
    assert MoPQ()(q, k, codebook=codebook).item() != pytest.approx(far_apart.item(), rel=1e-3)
    with pytest.raises(ValueError, match="does not fit"):
        MoPQ()(q, k, codebook=torch.ones(2, 3, 2))


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("average", ["cells", "official-code", "pairs"])
def test_false_negatives_at_a_bounded_distance(average: str, memory: Any) -> None:
    z1, z2, hard = _leaves(5, (5, 3), (5, 3), (5, 3))
    clusters = [0, 1, 0, -1, 0]
    alpha, beta = 0.1, 0.4
    cells, pairs = [], []
    for i in range(5):
        for j in range(5):
            if i != j and clusters[i] == clusters[j] >= 0:
                beyond = cosine(z1[i], z2[j]) - cosine(z1[i], z2[i])
                pairs.append((beyond + alpha).clamp_min(0) + (-beyond - beta).clamp_min(0))
                cells.append(pairs[-1])
            elif average == "official-code":
                cells.append(torch.tensor(alpha, dtype=torch.float64))
    assert len(pairs) == 6
    bound = sum(pairs) / 6 if average == "pairs" else sum(cells) / 25
    expected = nce(z1, torch.cat([z2, hard.detach()]), 0.05) + 2.0 * bound
    objective = ClusterNS(2.0, alpha, beta, average=average)
    loss = objective(z1, z2, clusters=torch.tensor(clusters), hard_negatives=hard, memory=memory)
    _same(loss, expected, [z1, z2])
    assert torch.autograd.grad(loss, hard, allow_unused=True)[0] is None


def test_clusters_that_say_nothing() -> None:
    z1, z2 = _leaves(6, (4, 3), (4, 3))
    plain = InfoNCE(temperature=0.05)(z1, z2)
    objective = ClusterNS(1.0, 0.0, 0.3)
    _same(objective(z1, z2), plain, [z1, z2])
    for apart in (torch.arange(4), torch.full((4,), -1)):
        _same(objective(z1, z2, clusters=apart), plain, [z1, z2])
        _same(ClusterNS(1.0, average="pairs")(z1, z2, clusters=apart), plain, [z1, z2])
    shifted = ClusterNS(1.0, 0.25, 0.3, average="official-code")(z1, z2, clusters=torch.arange(4))
    assert shifted.item() == pytest.approx(plain.item() + 0.25, rel=1e-12)
    # within the bounds a false negative costs nothing
    close = torch.tensor([[1.0, 0], [0.8, 0.6]], requires_grad=True)
    loss = ClusterNS(1.0, 0.1, 0.3)(close, close.detach(), clusters=torch.zeros(2, dtype=torch.long))
    assert loss.item() == pytest.approx(InfoNCE(temperature=0.05)(close, close.detach()).item())
    with pytest.raises(ValueError, match="must have 4 rows"):
        objective(z1, z2, clusters=torch.arange(3))
    with pytest.raises(ValueError, match="integers"):
        objective(z1, z2, clusters=torch.ones(4))
    with pytest.raises(ValueError, match="go with queries and keys"):
        objective(scores=torch.eye(4), clusters=torch.arange(4))


@pytest.mark.parametrize("memory", MEMORY)
def test_sentences_and_images(memory: Any) -> None:
    z1, z2, g1, g2, image = _leaves(7, (4, 3), (4, 3), (3, 2), (3, 2), (3, 2))
    objective = MCSE(0.5, temperature=0.1, image_temperature=0.3)
    given = {"grounded_query": g1, "grounded_key": g2, "image": image, "memory": memory}
    expected = nce(z1, z2, 0.1) + 0.5 * (nce(g1, image, 0.3) + nce(g2, image, 0.3)) / 2
    _same(objective(z1, z2, **given), expected, [z1, z2, g1, g2, image])
    _same(objective(z1, z2, memory=memory), nce(z1, z2, 0.1), [z1, z2])
    of_one_image = objective(z1, z2, image_relation=Paired(torch.tensor([0, 0, 1])), **given)
    assert of_one_image.item() != pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(ValueError, match="needs grounded_query"):
        objective(z1, z2, image=image)


def nt_xent(views: list[Tensor], temperature: float) -> Tensor:
    """Of 2n views, view i and view i + n showing one item."""
    costs = []
    for i in range(len(views)):
        powers = {j: (cosine(views[i], views[j]) / temperature).exp() for j in range(len(views)) if j != i}
        costs.append(-(powers[(i + len(views) // 2) % len(views)] / sum(powers.values())).log())
    return sum(costs) / len(costs)


@pytest.mark.parametrize("memory", MEMORY)
def test_domains_are_contrasted_apart(memory: Any) -> None:
    z1, z2, logits, unlabelled = _leaves(12, (5, 3), (5, 3), (2, 3), (4, 3))
    domain, labels = torch.tensor([4, 9, 4, 4, 9]), torch.tensor([2, 0])
    members = [[i for i in range(5) if domain[i] == d] for d in (4, 9)]
    contrast = sum(nt_xent([*z1[own], *z2[own]], 0.2) for own in members)
    shares = [[(row[c].exp() / sum(row.exp())) for c in range(3)] for row in unlabelled]
    conditional = -sum(p * p.log() for row in shares for p in row) / 4
    means = [sum(row[c] for row in shares) / 4 for c in range(3)]
    marginal = -sum(p * p.log() for p in means)
    classification = -sum((logits[i, labels[i]].exp() / sum(logits[i].exp())).log() for i in range(2)) / 2
    given = {"domain": domain, "logits": logits, "labels": labels, "unlabelled_logits": unlabelled, "memory": memory}
    for threshold, information in ((2.0, conditional - marginal), (0.1, conditional)):
        objective = CLIM(threshold, weight=0.5, information_weight=2.0, temperature=0.2)
        expected = classification + 0.5 * contrast + 2.0 * information
        _same(objective(z1, z2, **given), expected, [z1, z2, logits, unlabelled])
    together = CLIM(temperature=0.2, in_domain=False)(z1, z2, domain=domain, memory=memory)
    _same(together, nt_xent([*z1, *z2], 0.2), [z1, z2])
    _same(CLIM(temperature=0.2)(z1, z2, memory=memory), together, [z1, z2])


def test_predictions_that_are_certain() -> None:
    logits = torch.tensor([[1000.0, 0, 0], [0, 1000, 0]], requires_grad=True)
    information = CLIM(2.0).information(logits)
    assert information.item() == pytest.approx(-math.log(2), rel=1e-6)
    (gradient,) = torch.autograd.grad(information, logits)
    assert torch.isfinite(gradient).all()
    z = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(ValueError, match="need labels"):
        CLIM()(z, z, logits=logits)
    single = CLIM()(z, z, domain=torch.tensor([0, 1]))
    assert single.item() == 0


def test_regression_on_a_judge() -> None:
    u, v = _leaves(8, (4, 3), (4, 3))
    grade = torch.tensor([0.0, 0.3, 1.0, 0.5], dtype=torch.float64)
    expected = sum((cosine(u[i], v[i]) - grade[i]) ** 2 for i in range(4)) / 4
    _same(CLAIF()(u, v, grade), expected, [u, v])
    zero = torch.zeros(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(CLAIF()(zero, zero.detach(), grade[:2]), zero)
    assert gradient.abs().max() == 0
    for wrong in (None, grade[:3]):
        with pytest.raises(ValueError, match="grades"):
            CLAIF()(u, v, wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CLP(1.5), r"\[0, 1\]"),
        (lambda: MoPQ("mlp"), "select must be"),
        (lambda: MoPQ(distortion="l2"), "distortion must be some of"),
        (lambda: MoPQ(dense_weight=-1.0), ">= 0"),
        (lambda: ClusterNS(alpha=0.5, beta=0.3), "alpha <= beta"),
        (lambda: ClusterNS(average="rows"), "average must be"),
        (lambda: MCSE(math.nan), ">= 0"),
        (lambda: CLIM(-1.0), ">= 0"),
    ],
)
def test_arguments_that_cannot_be(make: Callable[[], Objective], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    z1, z2, more = (embeddings(20 + seed, 4, 4).to(dtype).requires_grad_() for seed in range(3))
    codebook = embeddings(23, 2, 3, 2).to(dtype)

    def losses(z1: Tensor, z2: Tensor, more: Tensor, codebook: Tensor) -> list[Tensor]:
        keys = torch.cat([z2, more])
        images = {"grounded_query": z1, "grounded_key": z2, "image": more}
        return [
            CLP()(z1, keys, negative_query=more),
            MoPQ(dense_weight=1.0, distortion=["l2", "dot"], distortion_weight=1.0)(z1, keys, codebook=codebook),
            ClusterNS(1.0)(z1, z2, clusters=torch.zeros(4, dtype=torch.long), hard_negatives=more),
            MCSE(1.0)(z1, z2, **images),
            CLIM()(z1, z2, unlabelled_logits=more),
            CLAIF()(z1, z2, torch.rand(4, generator=torch.Generator().manual_seed(0)).to(dtype)),
        ]

    found = losses(z1, z2, more, codebook)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exact = losses(z1.float(), z2.float(), more.float(), codebook.float())
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    for gradient in torch.autograd.grad(sum(found), [z1, z2, more]):
        assert gradient.dtype == dtype
        assert torch.isfinite(gradient).all()
