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
    DROP,
    DROV,
    IPO,
    RPO,
    CoPG,
    DiscoPOP,
    GroupCoPG,
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
    for alpha, same in ((1e-7, "reverse-kl"), (1 - 1e-9, "forward-kl")):
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


# -- with rewards ---------------------------------------------------------------------------------------------------


def test_copg_is_a_regression_of_the_margin() -> None:
    batch = pairs(32, 6)
    reward = {"chosen_reward": torch.randn(6).double(), "rejected_reward": torch.randn(6).double()}
    beta = 0.3
    loss = CoPG(beta)(*batch.policy, **batch.references, **reward)
    w, r = batch.chosen - batch.reference_chosen, batch.rejected - batch.reference_rejected
    difference = reward["chosen_reward"] - reward["rejected_reward"]
    square = (difference - beta * (w - r)).square() / (2 * beta) - difference.square() / (2 * beta)
    _same(loss, square.mean(), batch.policy)
    own, other = (reward[f"{side}_reward"] - beta / 2 * d for side, d in (("chosen", w), ("rejected", r)))
    _same(loss, -((own - other) * w + (other - own) * r).mean(), batch.policy)
    swapped = {"chosen_reward": reward["rejected_reward"], "rejected_reward": reward["chosen_reward"]}
    _same(loss, CoPG(beta)(r, w, **swapped), batch.policy)


def test_copg_of_a_preference_is_ipo() -> None:
    batch = pairs(33, 6)
    quarter = torch.tensor(0.25, dtype=torch.float64)
    loss = CoPG(0.2)(*batch.policy, **batch.references, chosen_reward=quarter, rejected_reward=-quarter)
    one = torch.autograd.grad(loss, batch.policy)
    # IPO's (u - 1/(2 tau))^2 = (beta u - 1/2)^2 / beta^2 at tau = beta
    two = torch.autograd.grad(0.2 / 2 * IPO(0.2)(*batch.policy, **batch.references), batch.policy)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_copg_of_groups_is_all_their_pairs() -> None:
    generator = torch.Generator().manual_seed(3)
    ratio = torch.randn(9, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.randn(9, generator=generator, dtype=torch.float64)
    group = torch.tensor([5, 2, 5, 2, 2, 9, 5, 2, 7])
    costs = []
    for g in (2, 5, 7, 9):
        members = [i for i in range(9) if group[i] == g]
        total = sum(
            0.15 * (ratio[i] - ratio[j]) ** 2 - (reward[i] - reward[j]) * (ratio[i] - ratio[j])
            for i in members for j in members if i > j
        )  # fmt: skip
        costs.append(total / max(1, len(members) - 1) if len(members) > 1 else ratio[0] * 0)
    expected = torch.stack(costs)
    found = GroupCoPG(0.3, reduction="none")(ratio, reward, group=group)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    _same(GroupCoPG(0.3)(ratio, reward, group=group), expected.mean(), [ratio])
    pair = CoPG(0.3)(ratio[:1], ratio[1:2], chosen_reward=reward[:1], rejected_reward=reward[1:2])
    _same(GroupCoPG(0.3)(ratio[:2], reward[:2]), pair, [ratio])


def test_copg_of_own_samples_is_reinforce_with_the_others_for_a_baseline() -> None:
    generator = torch.Generator().manual_seed(4)
    ratio = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.randn(5, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(GroupCoPG(0.3)(ratio, reward), ratio)
    regularised = (reward - 0.3 * ratio).detach()
    baseline = (regularised.sum() - regularised) / 4
    torch.testing.assert_close(gradient, -(regularised - baseline), rtol=1e-12, atol=1e-12)


def test_dro_separates_what_is_joint() -> None:
    generator = torch.Generator().manual_seed(5)
    ratio, value = (torch.randn(7, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    reward = torch.randn(7, generator=generator, dtype=torch.float64)
    tau = 0.4
    joint = DROV(tau, form="joint")(ratio, reward, value=value)
    torch.testing.assert_close(joint, ((reward - value - tau * ratio) ** 2 / 2).mean())
    both = torch.autograd.grad(joint, [ratio, value])
    separate = torch.autograd.grad(DROV(tau)(ratio, reward, value=value), [ratio, value])
    torch.testing.assert_close(both[0], tau * separate[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(both[1], separate[1], rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="dro-v needs value"):
        DROV()(ratio, reward)


@pytest.mark.parametrize("objective", ["dro-v", "copg", "copg-group", "dno"])
def test_the_minimum_is_the_tilted_reference(objective: str) -> None:
    """``p_ref exp(R / beta)``, whatever the responses were drawn from: no gradient there."""
    generator = torch.Generator().manual_seed(6)
    reference = torch.log_softmax(torch.randn(5, generator=generator, dtype=torch.float64), 0)
    reward = torch.randn(5, generator=generator, dtype=torch.float64)
    beta = 0.7
    best = torch.log_softmax(reference + reward / beta, 0)
    ratio = (best - reference).requires_grad_()
    i, j = torch.triu_indices(5, 5, 1)
    if objective == "dro-v":
        value = beta * torch.logsumexp(reference + reward / beta, 0).expand(5)
        loss = get(objective, tau=beta)(ratio, reward, value=value)
    elif objective == "copg-group":
        loss = get(objective, beta=beta)(ratio, reward)
    else:
        loss = get(objective, beta=beta)(ratio[i], ratio[j], chosen_reward=reward[i], rejected_reward=reward[j])
    assert torch.autograd.grad(loss, ratio)[0].abs().max() < 1e-14


def test_dro_without_a_value() -> None:
    generator = torch.Generator().manual_seed(7)
    ratio = torch.randn(6, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.randn(6, generator=generator, dtype=torch.float64)
    predicted = reward - 0.5 * ratio
    _same(DROP(0.5)(ratio, reward), predicted.var(correction=0) / 2, [ratio])
    prompts = torch.tensor([4, 4, 1, 1, 8, 8])
    squares = (predicted[::2] - predicted[1::2]).square() / 4 / 2
    _same(DROP(0.5)(ratio, reward, group=prompts), squares.mean(), [ratio])
    offset = reward + prompts
    _same(DROP(0.5)(ratio, offset, group=prompts), squares.mean(), [ratio])
    assert abs(DROP(0.5)(ratio, offset) - DROP(0.5)(ratio, reward)) > 0.1
    assert DROP()(ratio[:1], reward[:1]).item() == 0


def test_dno_is_cross_entropy_with_soft_labels() -> None:
    batch = pairs(34, 6)
    rate = {"chosen_reward": torch.rand(6).double(), "rejected_reward": torch.rand(6).double()}
    loss = get("dno", beta=0.2)(*batch.policy, **batch.references, **rate)
    margin = 0.2 * (batch.chosen - batch.reference_chosen - batch.rejected + batch.reference_rejected)
    target = torch.sigmoid(rate["chosen_reward"] - rate["rejected_reward"])
    _same(loss, F.binary_cross_entropy_with_logits(margin, target), batch.policy)
    certain = {"chosen_reward": torch.tensor(800.0).double(), "rejected_reward": torch.tensor(0.0).double()}
    _same(
        get("dno")(*batch.policy, **batch.references, **certain), DPO()(*batch.policy, **batch.references), batch.policy
    )
    with pytest.raises(ValueError, match="needs chosen_reward and rejected_reward"):
        get("dno")(*batch.policy)


def test_mapl_adds_its_levels() -> None:
    batch, more, gaps = pairs(35, 6), pairs(36, 4), pairs(37, 3)
    dpo = DPO()
    expected = dpo(*batch.policy, **batch.references) + 0.5 * dpo(*more.policy) + 0.25 * dpo(*gaps.policy)
    mapl = get("mapl-dpo", prompt_weight=0.5, gap_weight=0.25)
    found = mapl(
        *batch.policy, **batch.references,
        prompt_chosen=more.chosen, prompt_rejected=more.rejected, gap_wide=gaps.chosen, gap_narrow=gaps.rejected,
    )  # fmt: skip
    _same(found, expected, [*batch.policy, *more.policy, *gaps.policy])
    _same(mapl(*batch.policy, **batch.references), dpo(*batch.policy, **batch.references), batch.policy)
    with pytest.raises(ValueError, match="mapl needs prompt_rejected"):
        mapl(*batch.policy, prompt_chosen=more.chosen)
    with pytest.raises(ValueError, match=r"must be \[k\] alike"):
        mapl(*batch.policy, gap_wide=more.chosen, gap_narrow=gaps.chosen)
    with pytest.raises(TypeError, match="takes no 'gap'"):
        mapl(*batch.policy, gap=more.chosen)


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
