"""Identities and limits of objectives of temperatures, conditions, kernels, priors and mixtures; difficult input."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from nearfar.contrast import Explicit, Kernel, Labels, Paired, Views, evaluate
from nearfar.contrast.priors import ClassPriors
from nearfar.errors import UsageError
from nearfar.objectives import (
    CACR,
    CCLK,
    DCL,
    GML,
    MACL,
    Alignment,
    Hydra,
    InfoNCE,
    KernelInfoNCE,
    SogCLR,
    SupCon,
    SupReMix,
    get,
)
from support import examples_conditions, examples_temperature
from support.batches import BATCHES
from support.outcomes import gradient_of


def _items(seed: int, n: int, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _same(one: Tensor, other: Tensor, *inputs: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    for a, b in zip(*(torch.autograd.grad(value, inputs) for value in (one, other)), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# -- macl --------------------------------------------------------------------------------------------------------------


def test_macl_has_the_gradient_of_dcl_at_its_temperature() -> None:
    query, key = _items(0, 6).requires_grad_(), _items(1, 9).requires_grad_()
    objective = MACL(temperature=0.2, alpha=1.0, reference=0.3)
    found = torch.autograd.grad(objective(query, key), (query, key))
    expected = torch.autograd.grad(DCL(temperature=objective.temperature.value)(query, key), (query, key))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    plain = MACL(temperature=0.2, alpha=0.0, reweight=False)
    _same(plain(query, key), InfoNCE(temperature=0.2)(query, key), query, key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_macl_tends_to_one_where_all_is_learned(dtype: torch.dtype) -> None:
    """The official quotient is 0 / 0 there; in float32 from a probability of 1 - 1e-8 on."""
    items = torch.eye(4, dtype=dtype).requires_grad_()
    for temperature in (0.3, 0.05, 0.005):
        loss = MACL(temperature=temperature, alpha=0.0)(items, items)
        behind = math.log(3) - 1 / temperature
        expected = math.log1p(math.exp(behind)) * (1 + math.exp(-behind)) if behind > -30 else 1.0
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, items)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0.05 / temperature  # easy rows do not fade


# -- attraction and repulsion ------------------------------------------------------------------------------------------


def test_cacr_without_temperatures_is_alignment_minus_mean_distance() -> None:
    """And farther positives and nearer negatives can only weigh more."""
    views, relation = _items(2, 8).requires_grad_(), Views(2)
    plain = CACR(t_positive=0.0, t_negative=0.0)
    unit = normalize(views)
    distances = (unit[:, None] - unit[None, :]).square().sum(2)
    ids = torch.arange(8) % 4
    other = ids[:, None] != ids[None, :]
    expected = Alignment()(views[:4], views[4:]) - distances[other].mean()
    _same(plain(views, relation=relation), expected, views)
    weighted = [CACR(t_positive=tp, t_negative=tn)(views, relation=relation) for tp, tn in ((0, 0), (0, 1), (0, 9))]
    assert weighted[0] < weighted[1] < weighted[2]
    hardest = distances.masked_fill(~other, torch.inf).min(1).values
    limit = Alignment()(views[:4], views[4:]) - hardest.mean()
    assert CACR(t_negative=1e4)(views, relation=relation).item() == pytest.approx(limit.item(), rel=1e-3)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    far, near = (CACR(t_positive=t, beta=0.0)(views, relation=Labels(labels)) for t in (2.0, 0.0))
    assert far > near


def test_cacr_of_two_views_contrasts_the_first_with_the_second() -> None:
    one, other = _items(3, 5).requires_grad_(), _items(4, 5).requires_grad_()
    found = CACR().of_views(one, other)
    _same(found, CACR()(one, other), one, other)
    with pytest.raises(ValueError, match=r"\(5, 4\), \(4, 4\)"):
        CACR().of_views(one, other[:4])
    with pytest.raises(ValueError, match="two or more views"):
        CACR().of_views(one)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_cacr_with_a_logarithm_of_all_rows(memory: Any) -> None:
    query, key = _items(5, 5).requires_grad_(), _items(6, 7).requires_grad_()
    found = CACR(beta=1.5, repulsion="rbf", t_negative=0.8)(query, key, memory=memory)
    cost = 2 - 2 * normalize(query) @ normalize(key).T
    far = ~torch.eye(5, 7, dtype=torch.bool)
    share = torch.softmax((-0.8 * cost).masked_fill(~far, -torch.inf), 1)
    expected = cost.diagonal().mean() + 1.5 * (share * (-2 * cost).exp()).sum(1).mean().log()
    _same(found, expected, query, key)


def test_cacr_of_queries_is_a_weighted_info_nce() -> None:
    """JegZheng/CACR-SSL, imagenet_pretraining/moco/builder.py, cacr_rbfloss."""
    queries, key = [_items(seed, 5).requires_grad_() for seed in (7, 8, 9)], _items(10, 5)
    found = CACR(repulsion="rbf").of_queries(queries, key, temperature=0.3)
    unit, keys = [normalize(query) for query in queries], normalize(key)
    weight = torch.softmax(torch.stack([(q - keys).square().sum(1) for q in unit]).detach() / 0.3, dim=0)
    costs = [cross_entropy(q @ keys.T / 0.3, torch.arange(5), reduction="none") for q in unit]
    expected = 2 * 0.3 * sum((w * cost).mean() for w, cost in zip(weight, costs, strict=True))
    _same(found, expected, *queries)
    with pytest.raises(ValueError, match="alike"):
        CACR().of_queries(queries, key[:4])


# -- conditions --------------------------------------------------------------------------------------------------------


def test_ccl_k_of_conditions_that_all_differ() -> None:
    """The weights tend to the identity: nothing is left to contrast with but the pair itself."""
    query, key = _items(11, 6), _items(12, 6)
    loss = CCLK(regularization=1e-9)(query, key, relation=Kernel(torch.arange(6), "delta"))
    assert loss.item() == pytest.approx(math.log(6), rel=1e-6)


def test_ccl_k_of_one_condition_is_info_nce_with_the_pair_counted_twice() -> None:
    query, key = _items(13, 6).requires_grad_(), _items(14, 6).requires_grad_()
    loss = CCLK(regularization=1e-9, temperature=0.5)(query, key, relation=Kernel(torch.zeros(6), "delta"))
    e = (normalize(query) @ normalize(key).T / 0.5).exp()
    expected = -(e.diagonal() / (e.diagonal() + 5 * e.mean(1))).log().mean()
    _same(loss, expected, query, key, tolerance=1e-7)


def test_ccl_k_needs_conditions() -> None:
    for relation in (None, Paired()):
        with pytest.raises(ValueError, match="needs the conditions"):
            CCLK()(_items(0, 3), _items(1, 3), relation=relation)
    with pytest.raises(UsageError, match="'fair', 'hard' or 'weak'"):
        CCLK("strong")
    with pytest.raises(UsageError, match="regularization"):
        CCLK(regularization=0.0)


# -- kernels -----------------------------------------------------------------------------------------------------------


def test_gaussian_kernel_is_nt_xent_at_half_the_temperature() -> None:
    views = _items(15, 10).requires_grad_()
    found = KernelInfoNCE(temperature=0.6)(views, relation=Views(2))
    _same(found, InfoNCE(temperature=0.3)(views, relation=Views(2)), views)


def test_a_similarity_graph_as_targets_is_spectral_clustering() -> None:
    """Cross-entropy of the paper's two random fields = tr(Z' L Z) / (2 tau) + sum_i log sum_l k(z_i - z_l)."""
    z, tau = _items(16, 7, 3), 0.4
    graph = torch.rand(7, 7, generator=torch.Generator().manual_seed(17), dtype=torch.float64).fill_diagonal_(0)
    share = graph / graph.sum(1, keepdim=True)
    both = share + share.T
    laplacian = torch.diag(both.sum(1)) - both
    logs = -torch.cdist(z, z).square() / (2 * tau)
    log_sums = logs.masked_fill(torch.eye(7, dtype=torch.bool), -torch.inf).logsumexp(1)
    expected = torch.trace(z.T @ laplacian @ z) / (2 * tau) + log_sums.sum()
    objective = KernelInfoNCE(temperature=2 * tau, normalize=False, reduction="sum")
    found = objective(z, relation=Explicit(graph, torch.ones_like(graph)))
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)


def test_a_mixture_of_losses_is_no_mixture_of_kernels() -> None:
    views = _items(18, 8).requires_grad_()
    relation = Views(2)
    of_losses = KernelInfoNCE("simple-sum", mixture="losses", weight=0.3, temperature=0.4)
    parts = [KernelInfoNCE(kernel, temperature=0.4)(views, relation=relation) for kernel in ("laplacian", "gaussian")]
    _same(of_losses(views, relation=relation), 0.3 * parts[0] + 0.7 * parts[1], views)
    of_kernels = KernelInfoNCE("simple-sum", temperature=0.4)(views, relation=relation)
    assert abs(of_kernels.item() - of_losses(views, relation=relation).item()) > 1e-3
    halves = normalize(views).chunk(2, dim=1)
    concatenated = KernelInfoNCE("concatenation-sum", gaussian_temperature=0.3, temperature=0.4)
    logs = torch.logaddexp(-torch.cdist(halves[0], halves[0]).square() / 0.3, -torch.cdist(halves[1], halves[1]) / 0.4)
    logs = logs.masked_fill(torch.eye(8, dtype=torch.bool), -torch.inf)
    assert concatenated(views, relation=relation).item() == pytest.approx(
        cross_entropy(logs, (torch.arange(8) + 4) % 8).item(), rel=1e-9
    )
    swapped = KernelInfoNCE("concatenation-sum", mixture="losses", weight=1.0, temperature=0.4)
    first = KernelInfoNCE("laplacian", temperature=0.4, normalize=False)(halves[0], relation=relation)
    torch.testing.assert_close(swapped(views, relation=relation), first)
    with pytest.raises(ValueError, match="even number of coordinates"):
        concatenated(views[:, :3], relation=relation)
    with pytest.raises(ValueError, match="needs embeddings"):
        of_losses(scores=_items(0, 3, 3))


@pytest.mark.parametrize("kernel", ["laplacian", "exponential", "arc-cosine", "simple-sum"])
def test_equal_items_have_a_finite_gradient(kernel: str) -> None:
    """A power below 2 of the distance has no gradient at 0."""
    items = torch.cat([_items(19, 3), _items(19, 3), torch.zeros(2, 4)]).requires_grad_()
    for memory in ("dense", "tiled"):
        loss = KernelInfoNCE(kernel)(items, relation=Paired(torch.tensor([0, 1, 2, 0, 1, 2, 3, 3])), memory=memory)
        (gradient,) = torch.autograd.grad(loss, items)
        assert torch.isfinite(gradient).all()


# -- priors ------------------------------------------------------------------------------------------------------------


def test_gml_with_the_keys_own_frequencies_is_supcon_in() -> None:
    query, key = _items(20, 5).requires_grad_(), _items(21, 8).requires_grad_()
    relation = Labels(torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 0, 1, 2, 2, 1, 0, 1]))
    found = GML(temperature=0.3)(query, key, relation=relation)
    count = torch.tensor([3.0, 3.0, 2.0, 3.0, 3.0], dtype=torch.float64)
    _same(found, SupCon("in", temperature=0.3)(query, key, relation=relation) - count.log().mean(), query, key)


def test_gml_is_a_mean_over_keys_not_a_sum() -> None:
    """Every key of one class there twice changes nothing."""
    query, key = _items(22, 4), _items(23, 6)
    labels, key_labels = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    objective = GML(prior=[5, 2, 1], temperature=0.2)
    once = objective(query, key, relation=Labels(labels, key_labels))
    again = torch.cat([key, key[key_labels == 1]])
    twice = objective(query, again, relation=Labels(labels, torch.cat([key_labels, torch.tensor([1, 1])])))
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_logit_adjusted_cross_entropy(strength: float) -> None:
    logits, labels = _items(24, 6, 3).requires_grad_(), torch.tensor([0, 1, 2, 1, 0, 0])
    counts = torch.tensor([70.0, 25.0, 5.0], dtype=torch.float64)
    objective = get("logit-adjusted", prior=counts, strength=strength)
    found = objective(scores=logits, relation=Labels(labels, torch.arange(3)))
    _same(found, cross_entropy(logits + strength * (counts / 100).log(), labels), logits)


def test_a_learned_temperature_does_not_move_the_features() -> None:
    """The features' gradient is that at the temperature held fixed."""
    query, key = _items(25, 5).requires_grad_(), _items(26, 7).requires_grad_()
    relation = Labels(torch.arange(5) % 3, torch.arange(7) % 3)
    learned, fixed = GML(temperature="learned:0.3").double(), GML(temperature=0.3)
    loss = learned(query, key, relation=relation)
    wanted = torch.autograd.grad(fixed(query, key, relation=relation), (query, key))
    found = torch.autograd.grad(loss, (query, key), retain_graph=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert loss.item() == pytest.approx(2 * fixed(query, key, relation=relation).item(), rel=1e-6)
    (of_temperature,) = torch.autograd.grad(loss, learned.temperature.log_scale)
    step = 1e-4
    up, down = (GML(temperature=0.3 * math.exp(-s))(query, key, relation=relation).item() for s in (step, -step))
    assert of_temperature.item() == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_priors_that_do_not_fit() -> None:
    labels = torch.tensor([0, 1, 2])
    for prior in ([], [1.0, 0.0, 2.0], [1.0, math.inf, 1.0], torch.ones(2, 2)):
        with pytest.raises(ValueError, match="a class prior"):
            GML(prior=prior)
    with pytest.raises(ValueError, match="label 2 with a prior of 2 classes"):
        GML(prior=[1, 2], temperature=0.1)(_items(0, 3), relation=Labels(labels))
    with pytest.raises(ValueError, match="needed together"):
        ClassPriors(labels, labels, ids=labels)
    with pytest.raises(ValueError, match="2 ids for 3 labels"):
        ClassPriors(labels, ids=torch.arange(2))
    with pytest.raises(ValueError, match="needs the classes"):
        GML()(_items(0, 3), _items(1, 3))
    with pytest.raises(UsageError, match="strength"):
        GML(strength=2.0)
    with pytest.raises(UsageError, match="strength"):
        GML(prior=[1, 2], strength=-1.0)


# -- gates -------------------------------------------------------------------------------------------------------------


def test_an_open_gate_is_the_whole_space() -> None:
    """One positive each and nothing of the own class: InfoNCE between the classes."""
    z = _items(27, 6).requires_grad_()
    labels, partners = torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([1, 2, 3, 4, 5, 0])
    found = Hydra(temperature=0.3)(z, gate=torch.ones(6, 4), labels=labels, partners=partners)
    relation = Paired(partners, labels).ignore(lambda rows, columns: rows[:, None] == columns[None, :])
    _same(found, evaluate(InfoNCE(temperature=0.3), z, z, relation=relation), z)
    closed = Hydra(temperature=0.3)(z, gate=torch.zeros(6, 4), labels=labels, partners=partners)
    assert closed.item() == pytest.approx(math.log(5))
    assert torch.autograd.grad(closed, z)[0].abs().max() == 0


def test_hydra_with_keys_and_without_negatives() -> None:
    z, gate, labels = _items(28, 4), torch.rand(4, 4, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    partners = 1 - labels
    assert Hydra()(z, gate=gate, labels=labels, partners=partners).item() == 0  # two classes, no third
    keys, key_labels = _items(29, 5), torch.tensor([1, 2, 0, 1, 2])
    loss = Hydra(temperature=0.2)(z, keys, gate=gate, labels=labels, partners=partners, key_labels=key_labels)
    costs = []
    for i in range(4):
        s = [torch.cosine_similarity(z[i] * gate[i], key * gate[i], dim=0) / 0.2 for key in keys]
        far = torch.logsumexp(torch.stack([s[1], s[4]]), 0)
        costs += [torch.logaddexp(s[j], far) - s[j] for j in range(5) if key_labels[j] == partners[i]]
    torch.testing.assert_close(loss, sum(costs) / len(costs))


def test_gates_that_do_not_fit() -> None:
    z, labels = _items(0, 3), torch.arange(3)
    for gate, says in ((torch.ones(3, 2), r"\(3, 4\) and \(3, 2\)"), (-torch.ones(3, 4), "below 0")):
        with pytest.raises(ValueError, match=says):
            Hydra()(z, gate=gate, labels=labels, partners=labels)
    with pytest.raises(ValueError, match="needed together"):
        Hydra()(z, z, gate=torch.ones(3, 4), labels=labels, partners=labels)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_supremix_without_mixtures_is_supcon_with_weights() -> None:
    items, y = _items(30, 8).requires_grad_(), torch.tensor([1.0, 2.5, 4.0, 1.0]).repeat(2)
    found = SupReMix(mix_positive=False, mix_negative=False, temperature=0.4)(items, relation=Kernel(y))
    apart = (y[:, None] - y[None, :]).abs().double()
    relation = Explicit((apart == 0).double(), (apart + 1) * (apart != 0))
    _same(found, SupCon(temperature=0.4)(items, relation=relation), items)


def test_a_limited_number_of_mixtures() -> None:
    """Drawn ones lie within the window, on both sides of the anchor's label, which they have."""
    y = torch.randint(0, 20, (40,), generator=torch.Generator().manual_seed(3)).double()
    difference = y[None, :] - y[:, None]
    torch.manual_seed(0)
    objective = SupReMix(5.0, mixtures=6)
    mix = objective.positives(difference)
    assert mix.first.shape == (40, 6)
    low, high = difference.gather(1, mix.first), difference.gather(1, mix.second)
    assert mix.filled.any(1).sum() > 30
    assert ((low < 0) & (low > -5) & (high > 0) & (high < 5))[mix.filled].all()
    mixed = mix.share * low + (1 - mix.share) * high
    assert mixed[mix.filled].abs().max() < 1e-12
    some = ((difference < 0) & (difference > -5)).any(1) & ((difference > 0) & (difference < 5)).any(1)
    assert torch.equal(mix.filled.any(1), some)
    far = objective.negatives(difference, 0)
    assert far.second.shape == (40, 6)
    assert (difference.gather(1, far.second) != 0)[far.filled].all()
    assert all(len(set(row)) == 6 for row in far.second.tolist())
    assert 0.1 < far.share.mean() < 0.3  # Beta(2, 8) has mean 0.2
    items = _items(31, 40).requires_grad_()
    losses = []
    for mixtures in (2, 16, None):
        torch.manual_seed(0)
        losses.append(SupReMix(mixtures=mixtures)(items, relation=Kernel(y)).item())
    assert losses[0] < losses[1] < losses[2]


def test_mixtures_carry_no_gradient() -> None:
    """To the mixed items: only the anchor is moved by them."""
    items, y = _items(32, 3).requires_grad_(), torch.tensor([1.0, 2.0, 3.0])
    objective = SupReMix(5.0, share=0.5, reduction="none")
    costs = objective(items, relation=Kernel(y))
    assert (costs != 0).tolist() == [False, True, False]  # only the middle one has a positive, a mixture
    (with_mixtures,) = torch.autograd.grad(costs[1], items)
    assert with_mixtures.abs().sum(1).min() > 1e-6
    plain = SupReMix(mix_negative=False, mix_positive=False, reduction="none")
    assert plain(items, relation=Kernel(torch.tensor([1.0, 2.0, 2.0])))[1] != 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": 0.0}, {"mixtures": 0}, {"share": 1.5}, {"share": (0.0, 1.0)}, {"distance": "l3"},
        {"score": "negative-euclidean"},
    ],
)  # fmt: skip
def test_supremix_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SupReMix(**arguments)
    with pytest.raises(ValueError, match="no keys or scores"):
        SupReMix()(_items(0, 3), _items(1, 3), relation=Kernel(torch.arange(3)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MACL(alpha=-1.0), "alpha"),
        (lambda: MACL(eps=-1.0), "eps"),
        (lambda: CACR(-1.0), "alpha"),
        (lambda: CACR(tau_plus=1.0), "tau_plus"),
        (lambda: CACR(repulsion="cosine"), "repulsion"),
        (lambda: CACR(repulsion="rbf", tau_plus=0.1), "euclidean repulsion"),
        (lambda: KernelInfoNCE("cubic"), "no kernel 'cubic'"),
        (lambda: KernelInfoNCE("laplacian", gamma=1.0), "takes no gamma"),
        (lambda: KernelInfoNCE("exponential", gamma=0.0), "gamma"),
        (lambda: KernelInfoNCE(distance_p=0.5), "distance_p"),
        (lambda: KernelInfoNCE("arc-cosine", order=4), "order"),
        (lambda: KernelInfoNCE("simple-sum", mixture="both"), "mixture"),
        (lambda: KernelInfoNCE("simple-sum", weight=1.5), "weight"),
        (lambda: KernelInfoNCE("simple-sum", temperature="learned"), "must be a number"),
        (lambda: KernelInfoNCE(eps=-1.0), "eps"),
        (lambda: SogCLR(0.0), "gamma"),
    ],
)
def test_arguments_that_make_no_sense(make: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


# -- difficult input ---------------------------------------------------------------------------------------------------

EXAMPLES = {**examples_temperature.EXAMPLES, **examples_conditions.EXAMPLES}
DIFFICULT = {
    "zero": lambda items: 0 * items,
    "equal": lambda items: 0 * items + 1,
    "tiny": lambda items: 1e-20 * items,
    "huge": lambda items: 1e15 * items,
    "some equal": lambda items: items[torch.arange(len(items)) // 3],
    "one line": lambda items: items[:, :1] * torch.tensor([1.0, -2.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("case", DIFFICULT)
@pytest.mark.parametrize("name", EXAMPLES)
def test_never_nan_for_finite_input(name: str, case: str) -> None:
    part = BATCHES[EXAMPLES[name].data]().whole()
    if name == "cacr distance" and case == "huge":
        pytest.skip("squares of unnormalised items of this size do not fit into float32")
    for memory in ("dense", "tiled"):
        torch.manual_seed(0)
        objective = EXAMPLES[name].make()
        query, key = (None if side is None else DIFFICULT[case](side.float()) for side in (part.query, part.key))
        leaves = [side.requires_grad_() for side in (query, key) if side is not None]
        for _ in range(2):  # what was remembered of the first call matters in the second
            loss = objective(query, key, relation=part.relation, memory=memory)
        loss.backward()
        for value in (loss, *map(gradient_of, [*leaves, *objective.parameters()])):
            assert torch.isfinite(value).all()
        for value in objective.state_dict().values():
            assert torch.isfinite(value).all()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_batch_that_teaches_nothing(name: str) -> None:
    """One row among itself, or with a key that is far."""
    objective = EXAMPLES[name].make()
    batch = BATCHES[EXAMPLES[name].data]()
    part = batch.take([0], [] if batch.key is None else [3])
    query = part.query.float().requires_grad_()
    key = None if part.key is None else part.key.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = objective(query, key, relation=part.relation)
    loss.backward()
    assert loss.item() == 0
    assert gradient_of(query).abs().max() == 0
    assert objective.report.active_anchors == 0
