"""What the papers prove of preference objectives; they are the catalogue's other objectives on other scores."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast import Explicit, evaluate
from nearfar.objectives import (
    DPO,
    IPO,
    RPO,
    DiscoPOP,
    InfoNCE,
    PairwiseLink,
    PairwiseLogistic,
    PreferenceObjective,
    catalogue,
    get,
)
from support.preferences import pairs

PAIR = torch.tensor([[1.0, 0.0]])


def _same(one: Tensor, other: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    gradients = (torch.autograd.grad(value, inputs, retain_graph=True) for value in (one, other))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)
        assert a.norm() > 1e-9


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_dpo_is_pairwise_logistic_and_info_nce_on_implicit_rewards(beta: float) -> None:
    batch = pairs(20, 9)
    loss = DPO(beta)(*batch.policy, **batch.references)
    rewards = torch.stack([batch.chosen - batch.reference_chosen, batch.rejected - batch.reference_rejected], 1)
    relation = Explicit(PAIR.expand(9, 2))
    for row in (
        PairwiseLogistic(temperature=1 / beta),
        InfoNCE(temperature=1 / beta),
        PairwiseLink(DPO(beta)),
        PairwiseLink("dpo", temperature=0.1 / beta),
    ):
        _same(loss, row(scores=rewards, relation=relation), batch.policy)


@pytest.mark.parametrize(
    "name", ["ipo", "hinge", "exo", "discopop", "cell", "padll", "simpo", "dpo jensen", "robust-dpo", "reward-modeling"]
)
def test_a_link_is_the_same_on_a_row_of_scores(name: str) -> None:
    link = get(name) if name != "dpo jensen" else DPO(divergence="jensen-shannon")
    link.tokens = "sum"
    batch = pairs(21, 6)
    rewards = torch.stack([batch.chosen, batch.rejected], 1) / 10
    row = PairwiseLink(link)(scores=rewards, relation=Explicit(PAIR.expand(6, 2)))
    _same(link(batch.chosen / 10, batch.rejected / 10), row, batch.policy)


def test_several_responses_of_a_prompt_are_all_their_pairs() -> None:
    """And embeddings are ranked by the same link, dense or tiled."""
    scores = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    row = PairwiseLink("discopop")(scores=scores, relation=Explicit(torch.tensor([[1, 0, 0, 1, 0]])))
    near, far = scores[0, [0, 3]], scores[0, [1, 2, 4]]
    _same(row, DiscoPOP()(near.repeat_interleave(3), far.repeat(2)), [scores])

    query = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    key = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    cosines = F.normalize(query) @ F.normalize(key).T
    off = ~torch.eye(6, dtype=torch.bool)
    expected = IPO(0.5)(cosines.diagonal()[:, None].expand(6, 6)[off], cosines[off])
    for memory in ("dense", "tiled"):
        found = evaluate(PairwiseLink(IPO(0.5)), query, key, memory=memory, tile_rows=4)
        _same(found, expected, [query, key])


AT_REFERENCE = {
    "dpo": math.log(2), "cdpo": math.log(2), "robust-dpo": math.log(2), "hinge": 1.0, "ipo": 25.0, "apo-zero": 1.0,
    "apo-down": 1.0, "discopop": (math.log(2) + 1) / 2, "cell": (math.log(2) + 1) / 2, "padll": 0.9 * math.log(2),
    "dbaql": (math.log(2) + 1) / 2, "kto-pair": 0.5, "nca-pair": 2 * math.log(2), "bco-pair": 2 * math.log(2),
    "sppo": 50.0, "aot": math.log(2), "dpo-norm": math.log(2), "ipo-norm": 25.0,
}  # fmt: skip


@pytest.mark.parametrize("name", AT_REFERENCE)
def test_where_policy_and_reference_agree(name: str) -> None:
    batch = pairs(22, 7, at_reference=True)
    assert get(name)(*batch.policy, **batch.references, **batch.lengths).item() == pytest.approx(
        AT_REFERENCE[name], rel=1e-12
    )


WITH_REFERENCE = [
    cls.name for cls in catalogue() if issubclass(cls, PreferenceObjective) and not cls.reference_free and not cls.needs
]


@pytest.mark.parametrize("name", [*WITH_REFERENCE, "dpo-norm"])
def test_only_the_ratio_to_the_reference_matters(name: str) -> None:
    """A constant on both log-probabilities of a response cancels; `pfl` and `aot` look at the policy alone."""
    batch = pairs(23, 6)
    objective = get(name)
    loss = objective(*batch.policy, **batch.references, **batch.lengths)
    shift = torch.linspace(-9, 9, 6, dtype=torch.float64)
    moved = {**batch.references, "reference_chosen": batch.reference_chosen + shift}
    found = objective(batch.chosen + shift, batch.rejected, **moved, **batch.lengths)
    if name in ("pfl", "aot"):
        assert abs(found - loss) > 1e-4
    else:
        torch.testing.assert_close(found, loss, rtol=1e-10, atol=1e-12)


def test_equal_responses_teach_nothing_to_dpo() -> None:
    value = torch.tensor([-3.0, -40.0], dtype=torch.float64, requires_grad=True)
    loss = DPO()(value, value)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-12)
    assert torch.autograd.grad(loss, value)[0].norm() == 0


def test_label_smoothing_of_a_half_would_be_flat_and_the_robust_form_is_unbiased() -> None:
    """With labels flipped at the rate e, the robust cost is in expectation the clean one."""
    batch = pairs(24, 5)
    for e in (0.1, 0.3):
        robust = DPO(label_smoothing=e, robust=True)
        kept = robust(*batch.policy)
        flipped = robust(*batch.policy[::-1])
        _same((1 - e) * kept + e * flipped, DPO()(*batch.policy), batch.policy)
        smoothed = DPO(label_smoothing=e)(*batch.policy)
        _same(smoothed, (1 - e) * DPO()(*batch.policy) + e * DPO()(*batch.policy[::-1]), batch.policy)


def test_divergences_meet_in_their_limits() -> None:
    batch = pairs(25, 5)
    for alpha, same in ((1e-7, "reverse-kl"), (0, "reverse-kl"), (1 - 1e-9, "forward-kl"), (1, "forward-kl")):
        one = DPO(divergence="alpha", alpha=alpha)(*batch.policy, **batch.references)
        other = DPO(divergence=same)(*batch.policy, **batch.references)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    assert get("simpo", alpha=1e-9)(*batch.policy, **batch.lengths).item() == pytest.approx(
        get("simpo")(*batch.policy, **batch.lengths).item(), rel=1e-6
    )


def test_apo_gradients_have_the_promised_signs() -> None:
    batch = pairs(26, 200)
    zero = torch.autograd.grad(get("apo-zero")(*batch.policy, **batch.references), batch.policy)
    assert (zero[0] < 0).all()
    assert (zero[1] > 0).all()
    down = torch.autograd.grad(get("apo-down")(*batch.policy, **batch.references), batch.policy)
    ratio = (batch.chosen - batch.reference_chosen).detach()
    margin = ratio - (batch.rejected - batch.reference_rejected).detach()
    assert (down[1] > 0).all()
    assert torch.equal(down[0] > 0, margin.abs() > ratio.abs())
    assert 20 < int((down[0] > 0).sum()) < 180
    still = pairs(27, 4, at_reference=True)
    (gradient,) = torch.autograd.grad(get("apo-down")(*still.policy, **still.references), still.policy[:1])
    assert gradient.abs().max() < 1e-15


def test_apo_zero_of_pairs_is_unpaired_kto_at_zero() -> None:
    batch = pairs(28, 5)
    ratios = torch.cat([batch.chosen - batch.reference_chosen, batch.rejected - batch.reference_rejected])
    desirable = torch.arange(10) < 5
    paired = get("apo-zero")(*batch.policy, **batch.references)
    _same(paired, 2 * get("apo-zero-unpaired")(ratios, desirable), batch.policy)


def test_the_shape_of_discopop() -> None:
    """A local minimum, a maximum, the wrong slope at 0; exp(-z) far above, -z far below."""
    link = DiscoPOP(beta=1.0).link
    z = torch.tensor([-0.118570, 0.072006, 0.0], dtype=torch.float64, requires_grad=True)
    value = link(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    assert value[:2].tolist() == pytest.approx([0.785924, 0.878290], abs=1e-6)
    assert slope.tolist() == pytest.approx([0.0, 0.0, 0.784264], abs=1e-4)
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    turns = (link(grid).diff().sign().diff() != 0).nonzero()[:, 0] + 1
    assert grid[turns].tolist() == pytest.approx([-0.118570, 0.072006], abs=1e-3)
    far = torch.tensor([30.0, -700.0, -1e5], dtype=torch.float64)
    assert link(far).tolist() == pytest.approx([math.exp(-30), 700.0, 1e5], rel=1e-9)


def test_exo_has_a_finite_optimum() -> None:
    exo = get("exo", beta=1.0, label_smoothing=0.1)
    best = torch.tensor([math.log(9.0)], dtype=torch.float64, requires_grad=True)
    loss = exo(best, torch.zeros_like(best))
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert torch.autograd.grad(loss, best)[0].item() == pytest.approx(0, abs=1e-15)


def test_odds_of_probabilities_near_one_and_near_zero() -> None:
    from nearfar.objectives.preference_reference_free import log_odds

    probability = torch.tensor([1e-300, 1e-9, 0.3, 0.5, 0.7, 0.999], dtype=torch.float64)
    exact = [math.log(p) - math.log1p(-p) for p in probability.tolist()]
    assert log_odds(probability.log()).tolist() == pytest.approx(exact, rel=1e-12, abs=1e-15)
    tiny = torch.tensor([-1e-3, -1e-5, -2e-7], dtype=torch.float32, requires_grad=True)
    assert log_odds(tiny).tolist() == pytest.approx([-math.log(math.expm1(1e-3)), 11.512920, 15.424948], rel=1e-6)
    certain = torch.tensor([0.0, -1e-8, -200.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(log_odds(certain).sum(), certain)
    assert gradient.isfinite().all()


def test_odds_of_sums_are_probabilities() -> None:
    """ORPO degenerates to a difference of log-probabilities where 1 - exp(a) is 1."""
    batch = pairs(29, 6)
    orpo = get("orpo", weight=1.0, likelihood_weight=0.0, tokens="sum")
    _same(orpo(*batch.policy), DPO(beta=1.0)(*batch.policy), batch.policy)


def test_cpo_is_dpo_with_a_flat_reference_and_a_likelihood() -> None:
    batch = pairs(30, 6)
    _same(get("cpo", alpha=0.0)(*batch.policy), DPO()(*batch.policy), batch.policy)
    _same(get("cpo")(*batch.policy), DPO()(*batch.policy) - batch.chosen.mean(), batch.policy)
    pooled = get("cpo", likelihood="pooled")(*batch.policy, **batch.lengths)
    _same(pooled, DPO()(*batch.policy) - batch.chosen.sum() / batch.chosen_length.sum(), batch.policy)
    simpo = get("simpo", beta=0.1, gamma=0.0, tokens="sum")
    _same(simpo(*batch.policy), DPO()(*batch.policy), batch.policy)


def test_reward_modeling_is_pairwise_logistic_with_a_margin_that_has_a_gradient() -> None:
    batch = pairs(31, 6)
    rewards = torch.stack(batch.policy, 1)
    row = PairwiseLogistic()(scores=rewards, relation=Explicit(PAIR.expand(6, 2)))
    _same(get("reward-modeling")(*batch.policy), row, batch.policy)
    margin = torch.full((6,), 0.5, dtype=torch.float64)
    plain, wide = (
        torch.autograd.grad(get("reward-modeling")(*batch.policy, **more), batch.policy)[0]
        for more in ({}, {"margin": margin})
    )
    assert (wide < plain).all()


def test_relative_preferences_of_one_pair_are_dpo() -> None:
    batch = pairs(38, 1)
    dpo = DPO()(*batch.policy, **batch.references)
    prompt = torch.randn(1, 4)
    for name, more in (("rpo", {"chosen_prompt": prompt}), ("rpo-uniform", {}), ("rpo-diagonal", {})):
        _same(get(name)(*batch.policy, **batch.references, **more), dpo, batch.policy)


def test_relative_weights_that_say_nothing_are_uniform_over_the_batch() -> None:
    batch = pairs(39, 5)
    prompts = torch.randn(5, 4, generator=torch.Generator().manual_seed(8)).double()
    flat = RPO(tau=1e9)(*batch.policy, chosen_prompt=prompts)
    torch.testing.assert_close(flat, RPO(beta=0.1 / 5, weighting="uniform")(*batch.policy), rtol=1e-8, atol=0)
    alike = RPO()(*batch.policy, chosen_prompt=prompts[:1].expand(5, 4))
    torch.testing.assert_close(alike, flat, rtol=1e-8, atol=0)
    diagonal = RPO(weighting="diagonal", diagonal_weight=1.0)(*batch.policy)
    torch.testing.assert_close(diagonal, DPO()(*batch.policy))
