"""LiPO (Liu et al., 2024): alignment is learning to rank; which of seven ranking losses ranks responses best?"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.alignment.tables import FeaturePolicy
from nearfar.contrast.relation import Explicit
from nearfar.data.synthetic.judged_lists import JudgedLists
from nearfar.objectives import LambdaRank, get
from nearfar.objectives.base import RowObjective
from nearfar.objectives.graded_columns import Listed, OrderedPairs, descending_ranks
from nearfar.recipes import answers
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

TOP, NDCG = "reward of the top answer", "NDCG"
REFERENCE, LAMBDA = "reference", "lipo-lambda"
LOSSES = (
    "lipo-point-mse",
    "lipo-point-sigmoid",
    "lipo-pair-hinge",
    "lipo-pair-logistic",
    "lipo-list-mle",
    "lipo-softmax",
    LAMBDA,
)
BETAS = (0.3, 1.0, 3.0)
"""Every loss is measured at the one whose top answers are best on lists set aside."""
WORLDS = 3
"""That a seed has; it measures their mean."""


class RanksOfLabels(LambdaRank):
    """The sabotage: lambda weights of the order that the labels make, which never changes."""

    def _change(self, lists: Listed, pairs: OrderedPairs, ranks: Tensor) -> Tensor | float:
        return super()._change(lists, pairs, descending_ranks(lists.grade, lists.inside))


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Seven losses on the same lists and labels, each at its best beta; the mean of some worlds."""
    every = [_world(WORLDS * seed + number, scale, sabotage) for number in range(WORLDS)]
    return {
        arm: {name: sum(found[arm][name] for found in every) / WORLDS for name in measures}
        for arm, measures in every[0].items()
    }


def _world(number: int, scale: Scale, sabotage: bool) -> dict[str, dict[str, float]]:
    lists, more = at(scale, smoke=(20, 20), quick=(100, 1000), full=(1000, 5000))
    steps = at(scale, smoke=3, quick=150, full=600)
    world = JudgedLists(lists, world=number, seed=3 * number)
    aside, fresh = (JudgedLists(more, world=number, seed=3 * number + part) for part in (1, 2))

    def measured(policy: FeaturePolicy) -> tuple[float, dict[str, float]]:
        with torch.no_grad():
            there, here = (policy.on(of.features, of.reference).table() for of in (aside, fresh))
        best = {TOP: top(here, fresh.reward), NDCG: answers.ranking(here, fresh.grade, "ndcg")}
        return top(there, aside.reward), best

    def trained(name: str) -> dict[str, float]:
        def run(beta: float) -> tuple[float, dict[str, float]]:
            objective = loss_named(name, beta, sabotage)
            policy = FeaturePolicy(world.features, world.reference)
            start = policy.table().detach()

            def loss(index: Tensor) -> Tensor:
                label = world.label[index]
                cost: Tensor = objective(scores=(policy.table() - start)[index], relation=Explicit(label, label == 0))
                return cost

            answers.train(loss, [policy], items=lists, seed=number, steps=steps, batch_size=32, learning_rate=0.05)
            return measured(policy)

        return answers.tuned(run, BETAS)

    if sabotage:
        return {LAMBDA: trained(LAMBDA)}
    begun = measured(FeaturePolicy(world.features, world.reference))[1]
    return {REFERENCE: begun, **{name: trained(name) for name in LOSSES}}


def loss_named(name: str, beta: float, sabotage: bool = False) -> RowObjective:
    """The loss on log-ratios, of which it takes ``beta`` times."""
    if sabotage:
        return RanksOfLabels("dcg", average="pairs", times_length=True, temperature=1 / beta)
    made = get(name, temperature=1 / beta)
    assert isinstance(made, RowObjective)
    return made


def top(table: Tensor, reward: Tensor) -> float:
    """The mean reward of the likeliest answers."""
    return float(reward.gather(1, table.argmax(1, keepdim=True)).mean())


def lipo_lambda(temperature: float = 20.0) -> LambdaRank:
    """The paper's loss on log-ratios; ``temperature`` is 1 / beta, the paper's 0.05."""
    made = get(LAMBDA, temperature=temperature)
    assert isinstance(made, LambdaRank)
    return made


RECIPE = Recipe(
    id="lipo",
    paper=Paper("LiPO: Listwise Preference Optimization through Learning-to-Rank", "Liu et al.", 2024, "2402.01878"),
    claim="With implicit rewards for scores, alignment is learning to rank, and the loss of LambdaRank, whose weights "
    "follow the present order, gives better answers than pairwise and pointwise losses on the same lists.",
    parts={
        "relation": "eight responses to a prompt, each with its share of comparisons won for a label",
        "score": "beta times the log-probability under the policy less that under the reference",
        "objective": "lipo-lambda, beside the six other losses of the paper",
        "procedure": "offline",
        "evaluation": "the true reward of the likeliest answer and NDCG by the judge without noise, on unseen prompts",
    },
    defaults={"temperature": 20.0},
    world="100 prompts with 8 answers of 10 features. The reward is u + v tanh(2 u), u and v two directions of the "
    "features: v is good among good answers and bad among bad ones, which no linear policy can follow, so that it "
    "matters where in a list a loss wants to be right. A judge compared all pairs of a prompt once, by Bradley and "
    "Terry; a label is the share won. The policy is linear in the features on top of a reference of N(0, 1/2) logits: "
    "Adam at 0.05, 150 steps of 32 lists. Each loss has the best of the betas 0.3, 1 and 3, by the reward of its top "
    "answers on 1,000 prompts set aside; measured on 1,000 others. A seed is the mean of three worlds.",
    statements=[
        Statement(
            TOP,
            LAMBDA,
            "lipo-pair-logistic",
            margin=0.15,
            because="weights that never change had 0.13 in a trial with three worlds, lambda 0.23",
        ),
        Statement(NDCG, LAMBDA, "lipo-pair-logistic", because="the paper's main comparison"),
        Statement(TOP, LAMBDA, "lipo-list-mle", because="the paper's third best"),
        Statement(TOP, "lipo-pair-logistic", "lipo-point-mse", margin=0.3, because="a third of what a trial had, 0.84"),
    ],
    experiment=experiment,
    sabotage="ranks in the weights are those of the labels instead of those of the present scores",
    not_asserted="The paper's win rates (TL;DR, HH; T5-large) and that lambda alone gains from longer lists. The "
    "reward bends because with a linear one there is no conflict that ranks could decide; where v tells as much "
    "everywhere, lambda need not win.",
    verified="the paper's text and rax, whose losses these are",
    build=lipo_lambda,
)
