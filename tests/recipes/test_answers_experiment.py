"""What recipes on tables of answers share: pairs, costs, training and measures, against sums over all answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.alignment.tables import TabularPolicy
from nearfar.contrast.relation import Explicit
from nearfar.data.synthetic.judged_lists import JudgedLists
from nearfar.data.synthetic.revisions import Revisions
from nearfar.data.synthetic.scored_answers import three_arms
from nearfar.data.synthetic.translations import Translations
from nearfar.objectives import CPO, DPO, CoPG, LambdaRank, SimPO
from nearfar.recipes import answers
from nearfar.recipes.alignment import apo, copg, cpo, irpo, lipo, rpo
from nearfar.recipes.answers import Pairs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_judge_prefers_by_bradley_and_terry() -> None:
    count = 20_000
    prompt, both = torch.arange(count), torch.tensor([[4, 7]]).expand(count, 2)
    reward = torch.tensor([[0.5, -0.5]], dtype=torch.float64).expand(count, 2)
    pairs = answers.preferred(prompt, both, reward, generator=generator())
    assert torch.equal(pairs.chosen + pairs.rejected, torch.full((count,), 11))
    share = float((pairs.chosen == 4).double().mean())
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=0.01)
    some = pairs[torch.tensor([5, 2])]
    assert len(some) == 2
    assert some.prompt.tolist() == [5, 2]
    assert some.chosen.tolist() == [int(pairs.chosen[5]), int(pairs.chosen[2])]


def test_costs_are_those_of_the_objective_on_log_probabilities() -> None:
    policy, reference = (TabularPolicy(torch.randn(3, 4, generator=generator(seed)).double()) for seed in (1, 2))
    pairs = Pairs(torch.tensor([0, 2]), torch.tensor([1, 3]), torch.tensor([2, 0]))
    by_hand = 0.0
    for prompt, chosen, rejected in ((0, 1, 2), (2, 3, 0)):
        logits, frozen = policy.logits[prompt].detach(), reference.logits[prompt].detach()
        margin = logits[chosen] - logits[rejected] - frozen[chosen] + frozen[rejected]
        by_hand += float(torch.nn.functional.softplus(-0.3 * margin)) / 2
    found = answers.cost(DPO(beta=0.3), policy, pairs, reference)
    assert float(found.detach()) == pytest.approx(by_hand, abs=1e-12)
    found.backward()
    assert reference.logits.grad is None
    assert policy.logits.grad is not None
    table = policy.table().detach()
    likelihood = -(table[0, 1] + table[2, 3]) / 2
    alone = answers.cost(CPO(beta=0.3, alpha=1.0), policy, pairs) - answers.cost(
        CPO(beta=0.3, alpha=0.0), policy, pairs
    )
    assert float(alone.detach()) == pytest.approx(float(likelihood), abs=1e-12)
    with pytest.raises(TypeError, match="no reference"):
        answers.cost(CPO(), policy, pairs, reference)
    with pytest.raises(ValueError, match="averages over tokens"):
        answers.cost(SimPO(), policy, pairs)


def test_regret_is_what_the_optimum_has_more() -> None:
    world = three_arms()
    reference = answers.start(world.reference)
    reward = world.reward[0]
    best = torch.softmax(reward / 0.5, 0)

    def value(of: Tensor) -> float:
        return float((of * reward).sum() - 0.5 * (of * (of * 3).log()).sum())

    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert answers.regret(reference, reference, world.reward, 0.5) == pytest.approx(
        value(best) - value(even), abs=1e-12
    )
    assert answers.regret(reference, reference, world.reward, 0.5) == pytest.approx(0.292, abs=1e-3), "the card's trial"
    optimum = TabularPolicy(best.log()[None])
    assert answers.regret(optimum, reference, world.reward, 0.5) == pytest.approx(0.0, abs=1e-12)


def test_moved_is_the_mean_change_of_log_probabilities() -> None:
    reference = answers.start(torch.zeros(2, 2))
    policy = TabularPolicy(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    rose = answers.moved(policy, reference, torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert rose == pytest.approx((1 - math.log(1 + math.e) + math.log(2)) / 2, abs=1e-6)


def test_batches_and_what_torch_draws_depend_on_the_seed_alone() -> None:
    def seen(seed: int) -> list[list[float]]:
        batches: list[list[float]] = []
        policy = answers.start(torch.zeros(1, 2))

        def loss(index: Tensor) -> Tensor:
            batches.append([*index.tolist(), float(torch.rand(1))])
            return policy.table().sum()

        answers.train(loss, [policy], items=40, seed=seed, steps=3, batch_size=5)
        return batches

    torch.manual_seed(1)
    first = seen(0)
    torch.manual_seed(2)
    assert seen(0) == first
    assert seen(1) != first
    starts = [answers.stream(0), answers.held_out(0), answers.stream(1)]
    assert len({float(torch.rand(1, generator=each)) for each in starts}) == 3


def test_tuned_measures_elsewhere_than_it_chooses() -> None:
    asked: list[float] = []

    def run(setting: float) -> tuple[float, dict[str, float]]:
        asked.append(setting)
        return -((setting - 2) ** 2), {"measure": -setting}

    assert answers.tuned(run, (1.0, 2.0, 3.0)) == {"measure": -2.0}
    assert asked == [1.0, 2.0, 3.0]


def test_ranking_is_ndcg_by_hand_and_leaves_lists_without_grades_out() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    grade = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    first = (3 / math.log2(3) + 1 / math.log2(4)) / (3 + 1 / math.log2(3))
    assert answers.ranking(scores, grade, "ndcg") == pytest.approx((first + 1) / 2, abs=1e-6)
    assert answers.ranking(scores, grade, "ndcg@1") == pytest.approx(0.5)


def test_revisions_and_attempts_are_as_apo_wants_them() -> None:
    world = Revisions(seed=3)
    writer = answers.start(world.writer(1.0))
    revised = apo.revisions(world, writer, 400, generator())
    assert 300 < len(revised) < 400, "those that need no revision are left out"
    assert torch.equal(revised.chosen, world.revised(revised.rejected))
    attempts = apo.attempts(world, writer, 400, generator())
    quality = world.quality[attempts.prompt]
    chosen, rejected = (quality.gather(1, each[:, None])[:, 0] for each in (attempts.chosen, attempts.rejected))
    assert (chosen >= rejected).all()
    for each in (attempts.chosen, attempts.rejected):
        assert (each != world.best[attempts.prompt]).all()


def test_the_metric_chooses_the_best_and_rejects_the_worst() -> None:
    world = Translations(50, seed=3)
    pairs = cpo.chosen_by_metric(world, 2, generator())
    liked = world.liked
    chosen, rejected = (liked.gather(1, each[:, None])[:, 0] for each in (pairs.chosen, pairs.rejected))
    assert (chosen > rejected).all()
    assert float(world.external[pairs.chosen].double().mean()) > 0.8, "other systems' are liked"
    mono = cpo.chosen_by_metric(world, 0, generator())
    assert not world.external[torch.cat([mono.chosen, mono.rejected])].any()


def test_lists_become_relations_and_pairs() -> None:
    feedback = torch.tensor([[2.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    positive, negative = irpo.graded(feedback).bind(2, 4, self_contrast=False, device=feedback.device).tile(slice(0, 2))
    assert torch.equal(positive, feedback)
    assert torch.equal(negative > 0, feedback == 0)
    for seed in range(5):
        pairs = irpo.one_of_each(feedback, generator(seed))
        assert (feedback.gather(1, pairs.chosen[:, None]) > 0).all()
        assert (feedback.gather(1, pairs.rejected[:, None]) == 0).all()


def test_agreement_is_the_share_of_pairs_in_order() -> None:
    quality = torch.tensor([[1.0, 2.0, 3.0]])
    assert rpo.agreement(quality, quality) == 1.0
    assert rpo.agreement(-quality, quality) == 0.0
    assert rpo.agreement(torch.tensor([[2.0, 1.0, 3.0]]), quality) == pytest.approx(2 / 3)


def test_the_sabotage_of_lipo_is_weights_of_the_labels_order() -> None:
    world = JudgedLists(6, seed=1)
    relation = Explicit(world.label, world.label == 0)
    honest, spoilt = lipo.loss_named(lipo.LAMBDA, 0.5), lipo.loss_named(lipo.LAMBDA, 0.5, sabotage=True)
    assert isinstance(spoilt, LambdaRank)
    # scores in the order of the labels, ties by column as the labels break them, are ranked as the labels are
    places = world.label.sort(dim=1, descending=True, stable=True).indices.argsort(1)
    in_order = -places.double()
    assert float(honest(scores=in_order, relation=relation)) == pytest.approx(
        float(spoilt(scores=in_order, relation=relation)), rel=1e-12
    )
    assert float(honest(scores=-in_order, relation=relation)) != pytest.approx(
        float(spoilt(scores=-in_order, relation=relation)), rel=1e-3
    )
    assert lipo.lipo_lambda().temperature is not None
    assert lipo.top(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 7.0]])) == 7.0


def test_labels_that_hardly_differ_move_lambda_little_and_the_pairwise_loss_as_ever() -> None:
    wide = torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64)
    narrow = torch.tensor([[0.51, 0.50, 0.49]], dtype=torch.float64)

    def pull(name: str, label: Tensor) -> float:
        scores = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(
            lipo.loss_named(name, 1.0)(scores=scores, relation=Explicit(label, label == 0)), scores
        )
        return float(gradient.abs().sum())

    assert pull(lipo.LAMBDA, narrow) < 0.05 * pull(lipo.LAMBDA, wide)
    assert pull("lipo-pair-logistic", narrow) == pytest.approx(pull("lipo-pair-logistic", wide), rel=1e-12)


def test_a_regulariser_doubled_is_the_sabotage_of_copg() -> None:
    """``R - beta d`` in place of ``R - beta/2 d`` inside the loss is CoPG at twice the beta."""
    generator_ = generator(4)
    d_w, d_l, r_w, r_l = (torch.randn(5, generator=generator_).double() for _ in range(4))
    inside = (r_w - copg.BETA * d_w) - (r_l - copg.BETA * d_l)
    wrong = -(inside * d_w - inside * d_l)
    found = CoPG(beta=2 * copg.BETA, reduction="none")(d_w, d_l, chosen_reward=r_w, rejected_reward=r_l)
    torch.testing.assert_close(found, wrong)
