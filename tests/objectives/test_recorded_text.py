"""Numbers recorded from the official code of sentence and retrieval papers, on inputs that a seed makes again.

Each case names the code that gave its numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nearfar.contrast import Labels, Paired, evaluate
from nearfar.negatives.clusters import ClusterMemory
from nearfar.negatives.noise import harder
from nearfar.negatives.weighting import by_complement, own_negatives
from nearfar.objectives import (
    CLHAIF,
    CLIM,
    CLP,
    DCLR,
    GCL,
    MCSE,
    ClusterNS,
    CompCSE,
    DropInfoNCE,
    InfoNCE,
    MoPQ,
    PromCSE,
    QuickThoughts,
    SGBert,
    SupCon,
    Triplet,
)
from support.recorded import check, drawn

WAYS = ["dense", "tiled"]


def leaf(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64)).requires_grad_()


def norms_of(loss: Tensor, inputs: list[Tensor], norms: list[float]) -> None:
    for gradient, norm in zip(torch.autograd.grad(loss, inputs), norms, strict=True):
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-9)


def drawn_any(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = np.random.default_rng(seed)
    return [leaf(generator.standard_normal(shape)) for shape in shapes]


@pytest.mark.parametrize("memory", WAYS)
def test_sg_bert(memory: Any) -> None:
    """galsang/SG-BERT loss.py, NTXentLoss and NTXentLossOpt2, temperature 0.1."""
    c, h = drawn_any(0, (4, 8), (4, 3, 8))
    loss = SGBert(temperature=0.1)(c, h, memory=memory)
    check(loss, 5.237794845915683, [c, h], [1.1332668177877725, 1.2951547914718542])
    c, h = drawn(2, (5, 8), (5, 8))
    loss = SGBert("opt2-official-code", temperature=0.1)(c, h, memory=memory)
    check(loss, 3.8266017760374895, [c, h], [2.8121131855977004, 1.68387115458789])


@pytest.mark.parametrize("memory", WAYS)
def test_contrastive_learning_penalty(memory: Any) -> None:
    """CreaLabs/Enhanced-BGE-M3-with-CLP-and-MoE modeling.py, BGEM3Model.forward, dense path."""
    q, p, nq = drawn(0, (1, 16), (5, 16), (4, 16))
    loss = CLP(0.1, temperature=0.02)(q, p, negative_query=nq, memory=memory)
    check(loss, 0.12561175118208476, [q, p, nq], [0.016380910448822342, 0.019858073913136532, 0.012315927720070856])
    q, p = drawn(2, (4, 16), (12, 16))
    positive = torch.arange(12) % 3 == 0
    loss = CLP(0.0, temperature=0.05)(q, torch.cat([p[positive], p[~positive]]), memory=memory)
    check(loss, 5.772317538890012, [q, p], [3.113402279332533, 2.9599196216291156])


@pytest.mark.parametrize("memory", WAYS)
@pytest.mark.parametrize(
    ("seed", "temperature", "loss", "norms"),
    [
        (0, 0.1, 2.002627296620953, [0.8927845870792728, 0.7841312329948017]),
        (2, 0.4, 0.9973103665780687, [0.22838222499096342, 0.23357396829673513]),
    ],
)
def test_drop_info_nce(seed: int, temperature: float, loss: float, norms: list[float], memory: Any) -> None:
    """phuvinhnguyen/VietnameseTextSearch retriever/triloss.py, dropinfonceloss in the batch."""
    x, y = drawn(seed, (6, 8), (6, 8))
    check(DropInfoNCE(temperature=temperature)(x, y, memory=memory), loss, [x, y], norms)


@pytest.mark.parametrize("memory", WAYS)
def test_generalized_contrastive_learning(memory: Any) -> None:
    """The formula of the paper's figure in numpy, logit scale 20 (no official training code is published)."""
    generator = np.random.default_rng(2)
    left, right = leaf(generator.standard_normal((6, 8))), leaf(generator.standard_normal((6, 8)))
    weight = torch.from_numpy(generator.integers(1, 101, size=6) / 100)
    loss = GCL(temperature=1 / 20)(left, right, weight=weight, memory=memory)
    check(loss, 3.755767069080759, [left, right], [2.178072191136588, 2.3578183874165184])


@pytest.mark.parametrize("memory", WAYS)
@pytest.mark.parametrize(
    ("seed", "scale", "shape", "objective", "codes", "loss", "norms"),
    [
        (
            0, 0.5, ((8, 16), (8, 16), (4, 8, 4)),
            MoPQ("l2", dense_weight=1.0, distortion=["l2"], distortion_weight=0.1),
            [[4, 1, 7, 6], [1, 5, 2, 5], [6, 4, 1, 6]],
            4.905331311518854, [1.1857001348716099, 0.8347579506972975, 0.6027879005183793],
        ),
        (
            2, 1.0, ((5, 12), (5, 12), (3, 4, 4)),
            MoPQ("ip", dense_weight=1.0, distortion=["dot", "subdot"], distortion_weight=0.01),
            [[3, 0, 1], [2, 2, 2], [2, 0, 3]],
            10.593046576122825, [3.599366831689603, 2.3189847337181453, 1.547244930412611],
        ),
    ],
)  # fmt: skip
def test_mopq(
    seed: int, scale: float, shape: tuple[tuple[int, ...], ...], objective: MoPQ, codes: list[list[int]], loss: float,
    norms: list[float], memory: Any,
) -> None:  # fmt: skip
    """microsoft/MoPQ models/MoPQ.py, on given vectors, one device."""
    generator = np.random.default_rng(seed)
    q, k, codebook = (leaf(scale * generator.standard_normal(each)) for each in shape)
    check(objective(q, k, codebook=codebook, memory=memory), loss, [q, k, codebook], norms)
    assert objective.codes(k, codebook)[:3].tolist() == codes


@pytest.mark.parametrize(
    ("seed", "n", "more", "loss", "norms"),
    [
        (0, 6, 6, 0.002152691344395414, [0.008281927510526624, 0.010847963852287148]),
        (2, 4, 2, 0.12685986046776074, [0.44295442385131256, 0.4150508148426658]),
    ],
)
def test_dclr_as_its_code_has_it(seed: int, n: int, more: int, loss: float, norms: list[float]) -> None:
    """RUCAIBox/DCLR simcse/models.py, cl_vat_forward, on given vectors."""
    generator = np.random.default_rng(seed)

    def draw(rows: int = n) -> Any:
        return generator.standard_normal((rows, 8))

    a = draw()
    z1, z2 = leaf(a + 0.3 * draw()), leaf(a + 0.3 * draw())
    f = draw()
    if seed == 0:
        f[1] = f[0] + 0.05 * generator.standard_normal(8)
    f1, f2 = torch.from_numpy(f + 0.05 * draw()), torch.from_numpy(f + 0.05 * draw())
    noise = harder(torch.from_numpy(draw(more)), z1, z2, steps=4, step_size=1e-3, temperature=0.05)
    relation = Paired().reweight(by_complement(f1, f2, threshold=0.9, keys=n + more))
    objective = DCLR("official-code", temperature=0.05)
    check(objective(z1, torch.cat([z2, noise]), relation=relation), loss, [z1, z2], norms)


@pytest.mark.parametrize("memory", WAYS)
def test_clusterns(memory: Any) -> None:
    """djz233/ClusterNS simcse/models.py, the methods of kmeans_cluster in the order of cl_forward."""
    generator = np.random.default_rng(0)
    mu = 2 * generator.standard_normal((3, 6))
    first = mu[np.arange(8) % 3] + generator.standard_normal((8, 6))
    z1, z2 = leaf(first), leaf(first + 0.3 * generator.standard_normal((8, 6)))
    clusters = ClusterMemory(3, 6, rate=1e-3, average="sum").double()
    clusters.centroids.copy_(torch.from_numpy(mu + 0.1 * generator.standard_normal((3, 6))))
    clusters.has_started.fill_(True)
    clusters.update(z1)
    assert clusters.centroids.norm().item() == pytest.approx(7.7384357116741, rel=1e-9)
    hard = clusters.hard_negatives(z1)
    index = [clusters.centroids.eq(row).all(1).nonzero().item() for row in hard]
    assert index == [1, 0, 1, 2, 0, 1, 2, 0]
    which = clusters.assign(z1)
    assert int((which[:, None] == which).sum()) - 8 == 14
    objective, without = ClusterNS(1e-3, 0.0, 0.3), ClusterNS(0.0, 0.0, 0.3)
    loss = objective(z1, z2, clusters=which, hard_negatives=hard, memory=memory)
    check(loss, 0.5192188181525039, [z1, z2], [0.2046436696302499, 0.09602142702825457])
    bound = loss - without(z1, z2, clusters=which, hard_negatives=hard, memory=memory)
    assert bound.item() == pytest.approx(1e-3 * 0.0011455466757003723, rel=1e-6)


@pytest.mark.parametrize("memory", WAYS)
@pytest.mark.parametrize(
    ("seed", "n", "d", "loss", "norms"),
    [
        (0, 4, 8, 3.9271126294271874, [2.515826760143737, 1.638583182774806, 1.1255544789808942]),
        (1, 6, 16, 6.251780926272879, [2.152240458060353, 1.5723384532680613, 1.1697696096767192]),
    ],
)
def test_clhaif(seed: int, n: int, d: int, loss: float, norms: list[float], memory: Any) -> None:
    """xiami2019/CLAIF simcse/models.py, cl_forward, smooth_positive."""
    generator = np.random.default_rng(seed)
    z1, z2, z3 = (leaf(generator.standard_normal((n, d))) for _ in range(3))
    grade = torch.from_numpy(generator.uniform(0, 1, (n, 2))[:, 0].copy())
    check(CLHAIF()(z1, torch.cat([z2, z3]), grade=grade, memory=memory), loss, [z1, z2, z3], norms)


@pytest.mark.parametrize("memory", WAYS)
@pytest.mark.parametrize(
    ("seed", "n", "d", "weight", "loss", "norms"),
    [
        (0, 6, 16, 10.0, 0.08872060463227416, [0.4525184136117834, 0.33639673200725495, 0.00013802162949034353]),
        (2, 4, 8, 0.0, 1.705541127712887, [3.3997216154869445, 2.9249495663706226, 1.1795095458577654]),
    ],
)
def test_promcse(seed: int, n: int, d: int, weight: float, loss: float, norms: list[float], memory: Any) -> None:
    """YJiangcm/PromCSE promcse/models.py, cl_forward, margin 0.2."""
    a, b, c = (value.detach() for value in drawn(seed, (n, d), (n, d), (n, d)))
    z1, z2, z3 = a.requires_grad_(), (a + 0.5 * b).detach().requires_grad_(), c.requires_grad_()
    check(PromCSE(0.2, weight)(z1, torch.cat([z2, z3]), memory=memory), loss, [z1, z2, z3], norms)


@pytest.mark.parametrize("memory", WAYS)
@pytest.mark.parametrize(
    ("seed", "n", "d", "compose", "loss", "norms"),
    [
        (0, 5, 12, "avg", 9.39366285079887, [3.9555470788942304, 2.605010724702505, 2.605010724702505]),
        (2, 6, 16, "cat-first-last", 5.3540342067531554, [2.4596985096742285, 1.5834382023183273, 1.6040076615540306]),
    ],
)
def test_compcse(seed: int, n: int, d: int, compose: str, loss: float, norms: list[float], memory: Any) -> None:
    """perceptiveshawty/CompCSE compcse/models.py, cl_forward, identity head, no cut."""
    whole, left, right = drawn(seed, (n, d), (n, d), (n, d))
    parts = torch.stack([left, right], dim=1)
    check(CompCSE(compose)(whole, parts, memory=memory), loss, [whole, left, right], norms)


@pytest.mark.parametrize("memory", WAYS)
def test_mcse(memory: Any) -> None:
    """uds-lsv/MCSE src/model.py, MCSE.compute_loss, lambda 0.05."""
    generator = np.random.default_rng(0)
    pooled1, pooled2, proj1, proj2 = (leaf(generator.standard_normal((5, 8))) for _ in range(4))
    image = leaf(generator.standard_normal((5, 4)))
    head = nn.Linear(8, 4, bias=False).double()
    head.weight = nn.Parameter(torch.from_numpy(0.1 * generator.standard_normal((4, 8))))
    grounded = [torch.tanh(head(pooled)) for pooled in (pooled1, pooled2)]
    objective = MCSE(0.05)
    loss = objective(proj1, proj2, grounded_query=grounded[0], grounded_key=grounded[1], image=image, memory=memory)
    norms = [0.1347719369460053, 4.078446813442511, 0.15801561299204558]
    check(loss, 8.503665219425741, [pooled1, proj2, image], norms)
    assert objective(proj1, proj2, memory=memory).item() == pytest.approx(8.01867890927663, rel=1e-9)


@pytest.mark.parametrize("memory", WAYS)
@pytest.mark.parametrize(
    ("in_domain", "loss", "contrast", "norms"),
    [
        (
            True, 18.731577529696096, 17.574418349157384,
            [3.7474034525718136, 3.2221787843153074, 0.56007670225314, 0.06342240374524366],
        ),
        (
            False, 11.983544124750482, 10.826384944211773,
            [2.435186921961929, 1.4913592914225793, 0.56007670225314, 0.06342240374524366],
        ),
    ],
)  # fmt: skip
def test_clim(in_domain: bool, loss: float, contrast: float, norms: list[float], memory: Any) -> None:
    """CasparSwift/CLIM loss.py, domain_aware_contrastive_da_loss_with_MI_maximization and the one of joint domains."""
    generator = np.random.default_rng(0)
    source1, source2, target1, target2 = (leaf(generator.standard_normal((n, 8))) for n in (6, 6, 4, 4))
    logits = leaf(generator.standard_normal((3, 2)))
    unlabelled = leaf(generator.standard_normal((10, 2)) * 2 + [0, 3])
    labels = torch.from_numpy(generator.integers(0, 2, 3))
    objective = CLIM(0.53, in_domain=in_domain)
    views = torch.cat([source1, target1]), torch.cat([source2, target2])
    domain = torch.tensor([3] * 6 + [7] * 4)
    found = objective(*views, domain=domain, logits=logits, labels=labels, unlabelled_logits=unlabelled, memory=memory)
    check(found, loss, [source1, target2, logits, unlabelled], norms)
    assert objective(*views, domain=domain, memory=memory).item() == pytest.approx(contrast, rel=1e-9)
    assert objective.information(unlabelled).item() == pytest.approx(-0.0913551830701188, rel=1e-9)


@pytest.mark.parametrize("memory", WAYS)
@pytest.mark.parametrize(
    ("seed", "n", "d", "loss", "norms"),
    [
        (0, 6, 8, 3.682348465645577, [1.2595224275579249, 1.2224989760195812]),
        (2, 2, 4, 0.8021949510939121, [0.44392396344104307, 0.9155593599714059]),
    ],
)
def test_quick_thoughts(seed: int, n: int, d: int, loss: float, norms: list[float], memory: Any) -> None:
    """lajanugen/S2V src/s2v_model.py, build_loss, followed in numpy: context 1, the diagonal set to 0."""
    f, g = drawn(seed, (n, d), (n, d))
    check(QuickThoughts()(f, g, memory=memory), loss, [f, g], norms)


@pytest.mark.parametrize("memory", WAYS)
@pytest.mark.parametrize(
    ("seed", "labels", "loss", "norm"),
    [
        (0, [0, 0, 1, 1], 7.869153129074466, 2.9640418986744668),
        (2, [0, 1, 2, 3], 10.556739345418354, 5.1714661639362065),
    ],
)
def test_supcl_seq(seed: int, labels: list[int], loss: float, norm: float, memory: Any) -> None:
    """hooman650/SupCL-Seq src/SupCsTrainer.py, SupConLoss, temperature 0.05, base temperature 0.07."""
    (x,) = drawn_any(seed, (4, 2, 8))
    relation = Labels(torch.tensor(labels).repeat_interleave(2))
    objective = SupCon(temperature=0.05, base_temperature=0.07)
    check(evaluate(objective, x.flatten(0, 1), relation=relation, memory=memory), loss, [x], [norm])


@pytest.mark.parametrize("memory", WAYS)
def test_simcse(memory: Any) -> None:
    """princeton-nlp/SimCSE simcse/models.py, cl_forward: one direction, and with hard negatives of weight exp(0.7)."""
    z1, z2 = drawn(0, (4, 8), (4, 8))
    loss = InfoNCE(temperature=0.05)(z1, z2, memory=memory)
    check(loss, 6.519276896982005, [z1, z2], [5.40520961587593, 3.3599269829516953])
    z1, z2, z3 = drawn(2, (5, 8), (5, 8), (5, 8))
    relation = Paired().reweight(own_negatives(5, 10, logit=0.7))
    loss = InfoNCE(temperature=0.1)(z1, torch.cat([z2, z3]), relation=relation, memory=memory)
    check(loss, 5.579259607860715, [z1, z2, z3], [2.5081918371878538, 1.7157164958613875, 0.6354295880707881])


@pytest.mark.parametrize("memory", WAYS)
def test_codiemb_for_retrieval(memory: Any) -> None:
    """TencentCloudADP/youtu-embedding training/CoDiEmb/train/loss.py, ContrastiveLoss of retrieval, mode all.

    The mean over the positives' places, each with all negatives: one contrast a place.
    """
    q, p = drawn(2, (4, 16), (20, 16))
    passages = p.unflatten(0, (4, 5))
    negatives = passages[:, 2:].flatten(0, 1)
    objective = InfoNCE(temperature=0.02)
    losses = [objective(q, torch.cat([passages[:, place], negatives]), memory=memory) for place in (0, 1)]
    check((losses[0] + losses[1]) / 2, 16.052627693112434, [q, p], [6.509187364377488, 5.758094300904693])


@pytest.mark.parametrize("memory", WAYS)
def test_scincl(memory: Any) -> None:
    """malteos/scincl gdt/models, TripletMarginLoss of margin 1 on given triples; torch adds 1e-6 to the difference."""
    a, p, n = drawn(0, (6, 8), (6, 8), (6, 8))
    relation = Paired().reweight(own_negatives(6, 12, others=0, in_batch=0))
    loss = Triplet(margin=1.0)(a + 1e-6, torch.cat([p, n]), relation=relation, memory=memory)
    check(loss, 1.6010522712984132, [a, p, n], [0.4046468004810692, 0.3726779962499649, 0.3726779962499649])


def test_normalising_first_changes_nothing_where_the_cosine_is_meant() -> None:
    """The records leave the rows as drawn: the same loss on normalised rows says that the cosine is inside."""
    q, p = drawn(0, (4, 8), (8, 8))
    objectives = [PromCSE(), CLP(), DropInfoNCE(), SGBert(), DCLR(), CompCSE()]
    for objective in objectives:
        assert objective(normalize(q), normalize(p)).item() == pytest.approx(objective(q, p).item(), rel=1e-12)
    assert MoPQ()(normalize(q), normalize(p)).item() != pytest.approx(MoPQ()(q, p).item(), rel=1e-3)
