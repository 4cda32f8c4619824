"""DisCO (Li et al., 2025): right answers above wrong ones, with the same weight for easy and hard questions."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.alignment.online import (
    Constrained,
    Cost,
    GroupCost,
    OnlineSettings,
    TableReward,
    cost_of,
    improve,
    right_and_wrong,
    roll_out,
)
from nearfar.alignment.online.diagnostics import pull_on_success
from nearfar.alignment.tables import TabularPolicy, entropy, expected
from nearfar.data.synthetic.graded_questions import GradedQuestions
from nearfar.objectives import DisCO
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

HARD, ALL, ENTROPY, SPREAD = "success on hard questions", "success", "entropy", "spread of the pull"
EXPLAINED = "share of the pull that sqrt(p (1 - p)) explains"
START, GRPO_ARM, BASIC, METHOD, FREE = "reference", "GRPO", "DisCO-b", "DisCO", "DisCO without the constraint"


class OverAllAnswers(DisCO):
    """DisCO whose sums over right and over wrong answers are both divided by the number of all answers."""

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        both = positive.any(1) & negative.any(1)
        sign = negative.to(scores.dtype) - positive.to(scores.dtype)
        return torch.where(both, (sign * scores).mean(1), 0)


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """GRPO and DisCO on questions of all difficulties, their steps alike on those answered rightly half the time."""
    world = GradedQuestions(seed=seed)
    questions = torch.arange(len(world.right))
    steps, large = at(scale, smoke=4, quick=80, full=160), at(scale, smoke=64, quick=2048, full=8192)
    hard = world.rate < world.rate.quantile(1 / 3)

    def measured(cost: Cost, learning_rate: float) -> dict[str, float]:
        policy = TabularPolicy(world.reference)
        settings = OnlineSettings(steps=steps, refresh=4, optimizer="sgd", learning_rate=learning_rate, seed=seed)
        improve(policy, questions, TableReward(world.right), cost, settings)
        return of(policy)

    def of(policy: TabularPolicy) -> dict[str, float]:
        success = expected(policy, world.right).detach()
        return {
            HARD: float(success[hard].mean()),
            ALL: float(success.mean()),
            ENTROPY: float(entropy(policy).detach().mean()),
        }

    def pull(cost: Cost) -> Tensor:
        """How hard the first step pulls on each question."""
        policy = TabularPolicy(world.reference)
        drawn = torch.Generator().manual_seed(seed)
        rollouts = roll_out(policy, questions, TableReward(world.right), large, tokens=True, generator=drawn)
        scores = policy.scores(rollouts.prompts, rollouts.responses, tokens=True)
        return pull_on_success(len(questions) * cost(scores, rollouts), policy.logits, world.right > 0)

    def spread(pulls: Tensor) -> float:
        return float(pulls.std() / pulls.mean())

    if sabotage:
        wrong = GroupCost(OverAllAnswers(), right_and_wrong, scored="mean")
        return {METHOD: {**measured(Constrained(wrong), 10.0), SPREAD: spread(pull(wrong))}}
    grpo, bare = pull(cost_of("grpo")), cost_of("disco", constrained=False)
    bias = (world.rate * (1 - world.rate)).sqrt()
    explained = float(torch.corrcoef(torch.stack([grpo, bias]))[0, 1].square())
    return {
        START: of(TabularPolicy(world.reference)),
        GRPO_ARM: {
            **measured(cost_of("grpo"), 20.0),
            SPREAD: spread(grpo),
            EXPLAINED: explained,
        },
        BASIC: {**measured(cost_of("disco-b"), 10.0), SPREAD: spread(pull(cost_of("disco-b", constrained=False)))},
        METHOD: {**measured(cost_of("disco"), 10.0), SPREAD: spread(pull(bare))},
        FREE: measured(bare, 10.0),
    }


RECIPE = Recipe(
    id="disco",
    paper=Paper(
        "DisCO: Reinforcing Large Reasoning Models with Discriminative Constrained Optimization",
        "Li et al.",
        2025,
        "2505.12366",
    ),
    claim="GRPO weighs a question by its difficulty; telling right from wrong answers with equal weight learns hard "
    "questions faster.",
    parts={
        "relation": "the right answers to a question near, its wrong ones far",
        "score": "log-probability per token",
        "objective": "disco: the mean of the right ones above a log-mean-exp of the wrong ones; disco-b: above their "
        "mean; grpo",
        "procedure": "8 answers a question, 4 steps on them, a squared hinge on the divergence from the sampler "
        "(nearfar.alignment.online.Constrained)",
        "evaluation": "rate of right answers, exact; how hard a step pulls up their log-odds",
    },
    defaults={"tau": 10.0, "limit": 1e-4, "weight": 1e3, "responses": 8},
    world="96 questions with 32 answers each, 4 of them right; the reference answers rightly at rates from 0.02 to "
    "0.98. The policy is a table of logits, from the reference's; 8 answers to every question, drawn anew every 4 "
    "steps; 80 steps of SGD at 10 for DisCO and at 20 for GRPO, whose pull on a question answered rightly half the "
    "time is half as strong: there all pull alike. Hard: the third of the questions with the lowest rates. The pull "
    "on a question, for its log-odds of a right answer, is of the first step with 2,048 answers.",
    statements=[
        Statement(HARD, METHOD, GRPO_ARM, margin=0.05, because="a third of the least of two trials, 0.12 to 0.17"),
        Statement(HARD, BASIC, GRPO_ARM, margin=0.05, because="as for DisCO"),
        Statement(HARD, METHOD, BASIC, margin=-0.02, because="in trials they did not differ by more than 0.003"),
        Statement(EXPLAINED, GRPO_ARM, 0.9, because="the paper's analysis"),
        Statement(SPREAD, METHOD, 0.05, direction="lower", because="the analysis: every question weighs 1"),
    ],
    experiment=experiment,
    sabotage="the sums over right and over wrong answers are both divided by the number of all answers to a question",
    not_asserted="The paper's figures (six mathematics benchmarks with models of 1.5B). That DisCO keeps entropy up: "
    "here entropy falls with success, faster for DisCO, with the constraint or without (0.77 against 0.74 and 0.75 "
    "against 0.76 in two trials). With Adam, which takes the weight of a question out again, GRPO came close and was "
    "ahead at times. That a log-mean-exp is better than a mean: a tau of 10 makes them nearly alike here. Telling "
    "right from wrong over the whole batch at once, the sabotage tried first, learns hard questions faster still in "
    "this world (0.90 against 0.84): questions without a right sample, which DisCO leaves out, then push wrong answers "
    "down too.",
    verified="read in official code, whose gradients the objective matches; benchmark figures from the abstract",
    build=DisCO,
)
