"""What is known of ranking and distillation: limits, special cases and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from nearfar.contrast import Explicit, Grouped, Labels, Paired, Relation, Taught
from nearfar.objectives import (
    IRPO,
    KL,
    AnglE,
    ApproxNDCG,
    CoSENT,
    GroCo,
    InfoNCE,
    LambdaRank,
    ListMLE,
    ListNet,
    MannWhitney,
    MarginMSE,
    PairwiseHinge,
    PairwiseLogistic,
    RowObjective,
    SmoothAP,
    get,
)
from nearfar.objectives.group_order import soft_sort


def items(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_gradient(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs, retain_graph=True)]


def assert_equal(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def one_near(columns: int) -> Relation:
    """Rows whose first column is near and all others far."""
    near = torch.zeros(4, columns)
    near[:, 0] = 1
    return Explicit(near)


# -- pairs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ranknet", "bradley-terry", "lipo-pair-logistic", "listmle", "info-nce"])
def test_of_one_chosen_and_one_rejected_many_are_the_logistic_loss(name: str) -> None:
    rewards = items(0, 4, 2).requires_grad_()
    expected = F.softplus(rewards[:, 1] - rewards[:, 0]).mean()
    found = get(name, temperature=1.0)(scores=rewards, relation=one_near(2))
    assert_equal(with_gradient(found, rewards), with_gradient(expected, rewards))
    # irpo takes the mean over both items, of which the rejected one gains nothing
    torch.testing.assert_close(2 * IRPO()(scores=rewards, relation=one_near(2)), expected)


def test_lambda_rank_of_one_pair_is_a_weighted_logistic_loss() -> None:
    """Of two columns the exchange costs all gain times the difference of both discounts, whatever their order."""
    rewards = items(1, 4, 2).requires_grad_()
    expected = (1 - 1 / math.log2(3)) * F.softplus(rewards[:, 1] - rewards[:, 0]).mean()
    found = LambdaRank()(scores=rewards, relation=one_near(2))
    assert_equal(with_gradient(found, rewards), with_gradient(expected, rewards))


def test_lambda_rank_without_weights_is_ranknet() -> None:
    scores, grades = (
        items(2, 5, 7).requires_grad_(),
        torch.randint(0, 4, (5, 7), generator=torch.Generator().manual_seed(0)),
    )
    relation = Explicit(grades)
    found = LambdaRank("none", average="pairs")(scores=scores, relation=relation)
    assert_equal(with_gradient(found, scores), with_gradient(get("ranknet")(scores=scores, relation=relation), scores))


def test_lambda_rank_weighs_by_the_present_order() -> None:
    """Labels close to one another shrink its gradient, not that of the logistic loss; the ranks are the scores'."""
    scores = items(3, 4, 3).requires_grad_()
    wide = Explicit(torch.tensor([[1.0, 0.5, 0.1]]).expand(4, -1))
    narrow = Explicit(torch.tensor([[0.51, 0.50, 0.49]]).expand(4, -1))

    def size(objective: RowObjective, relation: Relation) -> float:
        return float(torch.autograd.grad(objective(scores=scores, relation=relation), scores)[0].norm())

    assert size(get("lipo-lambda"), narrow) < 0.1 * size(get("lipo-lambda"), wide)
    assert size(get("ranknet"), narrow) == pytest.approx(size(get("ranknet"), wide), rel=1e-12)
    # the worst exchange of a list is that of its first rank
    apart = Explicit(torch.tensor([[1.0, 0, 0]]))
    given = [torch.tensor([row], requires_grad=True) for row in ([0.0, 5.0, 4.0], [0.0, 4.0, 5.0])]
    gradients = [torch.autograd.grad(LambdaRank()(scores=s, relation=apart), s)[0] for s in given]
    assert gradients[0][0, 1] > gradients[0][0, 2]
    assert gradients[1][0, 1] < gradients[1][0, 2]


def test_graded_pairs_of_two_grades_are_near_against_far() -> None:
    query, key = items(4, 5, 3), items(5, 8, 3)
    relation = Paired(torch.tensor([0, 1, 2, 2, 9]), torch.tensor([0, 1, 1, 2, 2, -1, 5, 0]))
    for cls in (PairwiseLogistic, PairwiseHinge):
        for average in ("rows", "pairs"):
            one, other = (
                cls(pairs=pairs, average=average)(query, key, relation=relation) for pairs in ("near-far", "graded")
            )
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


# -- Mann-Whitney ------------------------------------------------------------------------------------------------------


def test_mann_whitney_is_the_logistic_loss_of_all_scores_in_one_row() -> None:
    query, key = items(6, 6, 4).requires_grad_(), items(7, 9, 4).requires_grad_()
    relation = Paired(torch.arange(6), torch.tensor([0, 1, 2, 3, 4, 4, -1, -1, 0]))
    positive, negative = relation.bind(6, 9, self_contrast=False, device=query.device).tile(slice(0, 6))
    scores = F.normalize(query) @ F.normalize(key).T
    flat = Explicit(positive.reshape(1, -1), negative.reshape(1, -1))
    expected = PairwiseLogistic(temperature=0.1)(scores=scores.reshape(1, -1), relation=flat)
    for memory in ("dense", "tiled"):
        found = MannWhitney(temperature=0.1)(query, key, relation=relation, memory=memory)
        assert_equal(with_gradient(found, query, key), with_gradient(expected, query, key))
    found = MannWhitney(temperature=0.1)(scores=scores, relation=relation)
    assert_equal(with_gradient(found, query, key), with_gradient(expected, query, key))


def test_mann_whitney_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = items(8, 6, 4).requires_grad_(), items(9, 6, 4).requires_grad_()
    expected = with_gradient(MannWhitney()(query, key), query, key)
    monkeypatch.setattr("nearfar.objectives.ranking_batch.CHUNK", 50)
    assert_equal(with_gradient(MannWhitney()(query, key), query, key), expected)
    assert torch.autograd.gradgradcheck(lambda q, k: MannWhitney(temperature=1.0)(q, k, memory="dense"), (query, key))


def test_mann_whitney_bounds_the_area_over_the_curve() -> None:
    for seed in range(50):
        scores = items(seed, 5, 6)
        near = torch.eye(5, 6).bool()
        bound = MannWhitney(temperature=0.3)(scores=scores) / math.log(2)
        assert 1 - roc_auc_score(near.flatten().numpy(), scores.flatten().numpy()) <= bound


def test_mann_whitney_notices_a_shift_of_a_query_and_info_nce_does_not() -> None:
    scores, shift = items(10, 5, 5), items(11, 5, 1)
    for objective, notices in (
        (InfoNCE(temperature=1.0), False),
        (PairwiseLogistic(), False),
        (MannWhitney(temperature=1.0), True),
    ):
        change = abs(float(objective(scores=scores + shift) - objective(scores=scores)))
        assert (change > 0.05) == notices
        assert notices or change < 1e-12


def test_mann_whitney_without_pairs_costs_nothing() -> None:
    scores = items(12, 1, 1).requires_grad_()
    query = items(13, 2, 3).requires_grad_()
    nobody = Paired(torch.tensor([0, 1]), torch.tensor([5, 6]))
    for loss, leaf in (
        (lambda: MannWhitney()(scores=scores), scores),
        (lambda: MannWhitney()(query, items(14, 2, 3), relation=nobody), query),
        (lambda: MannWhitney()(scores=items(15, 2, 2) + 0 * query[:, :2], relation=nobody), query),
    ):
        with pytest.warns(UserWarning, match="no anchor"):
            found = loss()
        assert found.item() == 0
        assert (torch.autograd.grad(found, leaf)[0] == 0).all()


# -- lists -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [ListMLE(), ListNet("normalized"), ListNet("raw"), KL(scaled=False)])
def test_with_one_near_column_lists_are_info_nce(objective: RowObjective) -> None:
    scores = items(20, 4, 6).requires_grad_()
    found = objective(scores=scores, relation=one_near(6))
    expected = InfoNCE(temperature=1.0)(scores=scores, relation=one_near(6))
    assert_equal(with_gradient(found, scores), with_gradient(expected, scores))


def test_listmle_is_the_likelihood_of_drawing_the_order() -> None:
    """The probabilities of all orders sum to 1."""
    scores = items(21, 1, 4)
    total = 0.0
    for order in torch.cartesian_prod(*[torch.arange(4)] * 4):
        if len(set(order.tolist())) == 4:
            total += math.exp(-ListMLE()(scores=scores, relation=Grouped.lists(ranks=order[None])).item())
    assert total == pytest.approx(1, rel=1e-12)


def test_listmle_together_does_not_depend_on_the_order_of_columns() -> None:
    scores, grades = items(22, 3, 6), torch.tensor([[2, 1, 1, 0, 0, 2], [0, 0, 0, 1, 1, 1], [3, 3, 3, 3, 3, 1]])
    order = torch.tensor([5, 3, 1, 0, 4, 2])
    for ties, depends in (("together", False), ("columns", True)):
        one = ListMLE(ties)(scores=scores, relation=Explicit(grades))
        other = ListMLE(ties)(scores=scores[:, order], relation=Explicit(grades[:, order]))
        assert (abs(float(one - other)) > 1e-3) == depends


def test_listnet_is_least_where_scores_are_the_grades() -> None:
    grades = torch.tensor([[0.0, 1.0, 2.5, 0.5]]).double()
    relation = Explicit(grades)
    entropy = torch.distributions.Categorical(logits=grades).entropy()
    scores = (grades + 3.0).requires_grad_()
    found, gradient = with_gradient(ListNet()(scores=scores, relation=relation), scores)
    torch.testing.assert_close(found, entropy[0], rtol=1e-12, atol=1e-12)
    assert gradient.abs().max() < 1e-12


def test_smooth_metrics_become_the_metrics() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores, near = generator.standard_normal(12), generator.random(12) < 0.4
        near[:2] = True, False
        row, relation = torch.from_numpy(scores)[None], Explicit(torch.from_numpy(near)[None])
        found = SmoothAP(temperature=1e-5)(scores=row, relation=relation)
        assert 1 - found.item() == pytest.approx(average_precision_score(near, scores), abs=1e-9)
        grades = generator.integers(0, 4, 12)
        grades[:2] = 0, 3
        gains = 2.0**grades - 1
        discounts = 1 / np.log2(2 + np.arange(12))
        ndcg = gains[np.argsort(-scores)] @ discounts / (np.sort(gains)[::-1] @ discounts)
        found = ApproxNDCG(temperature=1e-5)(scores=row, relation=Explicit(torch.from_numpy(grades)[None]))
        assert 1 - found.item() == pytest.approx(ndcg, abs=1e-9)


def test_approx_ndcg_falls_as_the_order_improves() -> None:
    grades = Explicit(torch.tensor([[3, 2, 1, 0]]))
    best, swapped, worst = (
        ApproxNDCG()(scores=torch.tensor([order]), relation=grades).item()
        for order in ([4.0, 3, 2, 1], [3.0, 4, 2, 1], [1.0, 2, 3, 4])
    )
    assert 0 <= best < 1e-3 < swapped < worst < 1


def test_irpo_of_two_lists() -> None:
    """All-zero relevance teaches nothing and leaves the mean; the sum over lists is the sum of each."""
    scores = items(23, 2, 5).requires_grad_()
    relation = Explicit(torch.tensor([[2, 0, 1, 0, 0], [0, 0, 0, 0, 0]]))
    one = IRPO()(scores=scores[:1], relation=Explicit(torch.tensor([[2, 0, 1, 0, 0]])))
    assert_equal(with_gradient(IRPO()(scores=scores, relation=relation), scores), with_gradient(one, scores))
    assert_equal(
        with_gradient(IRPO(reduction="sum")(scores=scores, relation=relation), scores), with_gradient(one, scores)
    )


def test_the_two_ways_to_train_a_reranker_on_yes_and_no() -> None:
    """Dai et al., 2025: both pull along a direction, with weights: of the softmax over documents, or of each alone."""
    yes, no = items(24, 3, 5).requires_grad_(), items(25, 3, 5).requires_grad_()
    relation = Explicit(F.one_hot(torch.zeros(3, dtype=torch.long), 5))
    relevant = F.one_hot(torch.zeros(3, dtype=torch.long), 5).bool()
    contrastive = InfoNCE(temperature=1.0, reduction="sum")(scores=yes, relation=relation)
    weight = torch.softmax(yes, 1)
    torch.testing.assert_close(
        torch.autograd.grad(contrastive, yes)[0], torch.where(relevant, weight - 1, weight), rtol=1e-10, atol=1e-12
    )
    tuned = get("point-sigmoid", average="items", reduction="sum")(scores=yes - no, relation=relation)
    p_yes = yes.exp() / (yes.exp() + no.exp())
    expected = torch.where(relevant, -(1 - p_yes), p_yes)
    for found, sign in zip(torch.autograd.grad(tuned, (yes, no)), (1, -1), strict=True):
        torch.testing.assert_close(found, sign * expected, rtol=1e-10, atol=1e-12)


# -- soft sorting ------------------------------------------------------------------------------------------------------


def test_a_soft_sort_shares_everything_out() -> None:
    values = items(30, 4, 7)
    shares = torch.stack([soft_sort(values, 2.0).ranked(torch.eye(7).double()[c].expand(4, -1)) for c in range(7)], 2)
    torch.testing.assert_close(shares.sum(1), torch.ones(4, 7).double())
    torch.testing.assert_close(shares.sum(2), torch.ones(4, 7).double())
    assert shares.min() >= 0
    hard = soft_sort(values, 1e12)
    ranks = hard.ranked(torch.arange(7).double().expand(4, -1))
    torch.testing.assert_close(ranks, values.argsort(1).argsort(1).double(), rtol=0, atol=1e-6)


def test_steep_groco_counts_misplaced_items() -> None:
    near, far = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[1, 1, 0, 0]])
    objective = GroCo(2, steepness=1e9)
    ordered = objective(scores=torch.tensor([[0.1, 0.2, 0.3, 0.4]]).double(), relation=Explicit(near, far))
    assert ordered.item() < 1e-6
    wrong = objective(scores=torch.tensor([[0.1, 0.3, 0.2, 0.4]]).double(), relation=Explicit(near, far))
    assert wrong.item() > 5  # two of four items end in the other group


def test_groco_raises_the_weakest_positive_and_lowers_the_strongest_negative() -> None:
    scores = torch.tensor([[0.1, 0.35, 0.3, 0.5]], dtype=torch.float64, requires_grad=True)
    GroCo(2, steepness=10.0)(scores=scores, relation=Explicit(torch.tensor([[0, 0, 1, 1]]))).backward()
    assert scores.grad[0, 1] > 0 > scores.grad[0, 2]
    assert scores.grad[0].abs().argmax() in (1, 2)


def test_groco_takes_the_hardest_negatives_alone_and_moves_anchors_alone() -> None:
    query, key = items(31, 5, 3).requires_grad_(), items(32, 8, 3).requires_grad_()
    loss = GroCo(2)(query, key)
    assert torch.autograd.grad(loss, key, retain_graph=True, allow_unused=True)[0] is None
    both = GroCo(2, keys_have_gradient=True)(query, key)
    torch.testing.assert_close(both, loss)
    torch.testing.assert_close(*(torch.autograd.grad(value, query, retain_graph=True)[0] for value in (loss, both)))
    assert torch.autograd.grad(both, key)[0].norm() > 1e-3
    scores = items(33, 1, 6).requires_grad_()
    relation = Explicit(torch.tensor([[1, 0, 0, 0, 0, 0]]))
    gradient = torch.autograd.grad(GroCo(2)(scores=scores, relation=relation), scores)[0][0]
    assert set(gradient.nonzero().flatten().tolist()) == {0, *(1 + scores[0, 1:].topk(2).indices).tolist()}


# -- pairs of texts ----------------------------------------------------------------------------------------------------


def test_cosent_is_its_sum_over_couples_with_ties() -> None:
    for seed, targets in enumerate(([0.2, 0.9, 0.2, 0.5, 0.9, 0.1], [1, 1, 0, 0, 1, 0], [3, 1, 4, 1, 5, 9])):
        score, target = items(seed, 6).requires_grad_(), torch.tensor(targets)
        expected = sum(((score[q] - score[p]) / 0.3).exp() for p in range(6) for q in range(6) if target[p] > target[q])
        found = CoSENT(temperature=0.3)(score, target)
        assert_equal(with_gradient(found, score), with_gradient((1 + expected).log(), score))
        assert torch.autograd.gradcheck(lambda s, y=target: CoSENT(temperature=0.3)(s, y), score)


def test_cosent_knows_order_alone() -> None:
    score, target = items(40, 7), items(41, 7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    found = CoSENT()(score, target)
    for other in (CoSENT()(score + 2.0, target), CoSENT()(score, target.exp()), CoSENT()(score[order], target[order])):
        torch.testing.assert_close(other, found, rtol=1e-12, atol=1e-12)
    assert CoSENT()(torch.tensor([0.9, 0.1]), torch.tensor([True, False])).item() < 1e-6
    assert CoSENT()(torch.tensor([0.1, 0.9]), torch.tensor([True, False])).item() == pytest.approx(16.0, abs=1e-5)


def test_angle_is_a_quotient_of_complex_numbers() -> None:
    one, other = F.normalize(items(42, 5, 6)), F.normalize(items(43, 5, 6))
    x, y = torch.complex(one[:, :3], one[:, 3:]), torch.complex(other[:, :3], other[:, 3:])
    quotient = (x * y.conj()).sum(1)  # of normalised vectors, summed over coordinates: x / y times |y|^2
    expected = (quotient.real + quotient.imag).abs()
    score = AnglE().score
    embedded = score.embed(items(42, 5, 6)), score.embed(items(43, 5, 6))
    torch.testing.assert_close(score.paired(*embedded), expected)
    torch.testing.assert_close(score(*embedded).diagonal(), expected)
    target = items(44, 5)
    assert AnglE().of_embeddings(one, other, target) == AnglE()(expected, target)
    assert abs(float(AnglE().of_embeddings(other, one, target) - AnglE().of_embeddings(one, other, target))) > 0.01


# -- distillation ------------------------------------------------------------------------------------------------------


def test_kl_is_zero_where_the_student_is_the_teacher() -> None:
    teacher = items(50, 4, 5)
    for direction in ("forward", "reverse", "both"):
        scores = (teacher / 2 + items(51, 4, 1)).requires_grad_()
        found, gradient = with_gradient(
            KL(direction, temperature=3.0)(scores=scores, relation=Taught(teacher, temperature=6.0)), scores
        )
        assert found.abs() < 1e-12
        assert gradient.abs().max() < 1e-12
        assert KL(direction)(scores=items(52, 4, 5), relation=Taught(teacher)).item() > 0.1


def test_forward_kl_is_info_nce_with_soft_targets_less_their_entropy() -> None:
    teacher, query, key = items(53, 4, 5), items(54, 4, 3).requires_grad_(), items(55, 5, 3).requires_grad_()
    relation = Taught(teacher)
    entropy = torch.distributions.Categorical(logits=teacher).entropy().mean()
    found = KL(scaled=False, temperature=0.5)(query, key, relation=relation)
    expected = InfoNCE(temperature=0.5, score="dot")(query, key, relation=relation) - entropy
    assert_equal(with_gradient(found, query, key), with_gradient(expected, query, key))


def test_kl_of_a_teacher_that_embeds() -> None:
    """As by the matrix of its scores, tile by tile; among themselves without the items' own columns."""
    teacher_query, teacher_key = items(56, 6, 2), items(57, 7, 2)
    query, key = items(58, 6, 4).requires_grad_(), items(59, 7, 4).requires_grad_()
    matrix = Taught(teacher_query @ teacher_key.T, temperature=0.7)
    for two_sided in (False, True):
        expected = KL(two_sided=two_sided)(query, key, relation=matrix)
        relation = Taught.of_embeddings(teacher_query, teacher_key, temperature=0.7)
        for memory in ("dense", "tiled"):
            found = KL(two_sided=two_sided)(query, key, relation=relation, memory=memory)
            assert_equal(with_gradient(found, query, key), with_gradient(expected, query, key))
    own = Taught(teacher_query @ teacher_query.T, mask=~torch.eye(6).bool())
    expected = KL("reverse")(query, query, relation=own)
    found = KL("reverse")(query, relation=Taught.of_embeddings(teacher_query))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_margin_mse_knows_margins_alone() -> None:
    scores, teacher = items(60, 5, 4), items(61, 5, 4)
    assert MarginMSE()(teacher + items(62, 5, 1), teacher).max() < 1e-20
    torch.testing.assert_close(MarginMSE()(scores, teacher), MarginMSE()(scores + 3, teacher - items(63, 5, 1)))
    margins = (scores[:, :1] - scores[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
    torch.testing.assert_close(MarginMSE()(scores, teacher), margins.square().mean(1))
    torch.testing.assert_close(MarginMSE(reduction="sum")(scores, teacher), margins.square().mean(1).sum())
    assert MarginMSE(reduction="mean")(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0


def test_labels_as_grades() -> None:
    """Smooth-AP among items of labels, against average precision item by item."""
    x, labels = items(64, 9, 3), torch.tensor([0, 0, 1, 2, 1, 0, 2, 2, 3])
    found = SmoothAP(temperature=1e-5, reduction="none")(x, relation=Labels(labels))
    for i in range(8):
        others = [j for j in range(9) if j != i]
        cosine = F.cosine_similarity(x[i][None], x[others]).numpy()
        expected = average_precision_score((labels[others] == labels[i]).numpy(), cosine)
        assert 1 - found[i].item() == pytest.approx(expected, abs=1e-9)
    assert found[8] == 0
