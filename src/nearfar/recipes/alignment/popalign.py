"""PopAlign (Wang et al., 2024): pairs without labels from six contrasts of how answers come about, mixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nearfar.alignment.builders import (
    DemonstrationContrast,
    ElicitiveContrast,
    ModelContrast,
    PrefixContrast,
    RefineContrast,
    by_score,
    popalign,
)
from nearfar.alignment.builders.contrasts import Strategy
from nearfar.alignment.builders.pairs import BuiltPairs
from nearfar.alignment.tables import TabularPolicy
from nearfar.data.synthetic.steered_answers import SteeredAnswers, SteeredWriter
from nearfar.objectives import DPO
from nearfar.recipes import answers
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

WORST, MEAN, RIGHT = "quality on the worst axis", "mean quality", "contrast accuracy"
BEFORE, ALL = "as it begins", "all six"
PROMPTS, BETA = 10, 0.1

CUES = {
    "(helpful, harmless)": (0.8, 0, 0),
    "(unhelpful, harmful)": (-0.8, 0, 0),
    "a right one": (0, 0.8, 0),
    "a wrong one": (0, -0.8, 0),
    "as well as you can": (1.0, 0, 1.0),
    "as badly as you can": (-1.0, 0, -1.0),
    "Improve your answer": (0, 0, 0.8),
}


def strategies(world: SteeredAnswers, generator: torch.Generator) -> list[Strategy]:
    """The six, each of which steers one or two of the three axes."""
    model = SteeredWriter(world, generator, CUES)
    large, small = (SteeredWriter(world, generator, CUES, skill) for skill in ((0, 1.0, 0.5), (0, -0.2, 0)))
    first, second = (SteeredWriter(world, generator, CUES, skill) for skill in ((0.4, 0.6, 0), (0, -0.2, 0)))
    return [
        PrefixContrast(model),
        DemonstrationContrast(model, [("example", "a right one")], [("example", "a wrong one")]),
        ElicitiveContrast(
            model,
            "{prompt} Think how to answer as well as you can, then write Answer:",
            "{prompt} Think how to answer as badly as you can, then write Answer:",
        ),
        ModelContrast(large, small, "parameters"),
        ModelContrast(first, second, "leaderboard"),
        RefineContrast(model),
    ]


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """DPO on pairs of all six strategies beside as many pairs of each alone."""
    world = SteeredAnswers(PROMPTS, seed=seed)
    each, steps = at(scale, smoke=(1, 3), quick=(20, 300), full=(100, 1000))
    reference = answers.start(world.habit)
    dpo, judge = DPO(BETA), by_score(lambda prompt, answer: float(world.quality[world.number(answer)].mean()))

    def measured(pairs: BuiltPairs) -> dict[str, float]:
        prompt, chosen, rejected = torch.tensor(
            [
                (world.prompts.index(str(pair.prompt)), world.number(pair.chosen), world.number(pair.rejected))
                for pair in pairs
            ]
        ).T
        data = answers.Pairs(prompt, chosen, rejected)
        policy = answers.start(world.habit)
        answers.train(
            lambda index: answers.cost(dpo, policy, data[index], reference),
            [policy],
            items=len(data),
            seed=seed,
            steps=steps,
            learning_rate=0.05,
        )
        shares = [found.value for found in pairs.accuracy(judge).values()]
        return {**quality(policy), RIGHT: sum(shares) / len(shares)}

    def quality(policy: TabularPolicy) -> dict[str, float]:
        axes = (policy.table().detach().exp() @ world.quality).mean(0)
        return {WORST: float(axes.min()), MEAN: float(axes.mean())}

    def built(chosen: Sequence[Strategy], times: int) -> BuiltPairs:
        return popalign(world.prompts * times, chosen)

    drawn = answers.stream(seed)
    six = strategies(world, drawn)
    if sabotage:
        only = six[2]
        return {ALL: measured(sum((built([only], each) for _ in six), BuiltPairs(())))}
    alone = {strategy.name: measured(built([strategy], 6 * each)) for strategy in six}
    return {BEFORE: quality(reference), ALL: measured(built(six, each)), **alone}


RECIPE = Recipe(
    id="popalign",
    paper=Paper(
        "PopAlign: Diversifying Contrasting Patterns for a More Comprehensive Alignment",
        "Wang et al.",
        2024,
        "2410.13785",
    ),
    claim="Pairs from six contrasts of how an answer comes about, mixed, align more comprehensively than as many pairs "
    "from any one of them.",
    parts={
        "relation": "pairs that nobody labelled: prefix, demonstration, elicitive, parameters, leaderboard, refine "
        "(nearfar.alignment.builders); identical ones dropped",
        "score": "implicit reward: beta times the log-probability beyond the reference's",
        "objective": "dpo",
        "evaluation": "expected quality on the worst of several axes; contrast accuracy of each strategy",
    },
    defaults={"beta": 0.01, "learning_rate": 5e-7, "epochs": 1},
    world="10 prompts with 64 answers, which have levels 0 to 3 on three axes (kind, right, clear). A writer's "
    "log-odds are a habit N(0, 1) for each prompt and answer plus, for each axis, a shift by what the prompt says "
    "times the level. The prefix steers kindness (0.8 either way), demonstrations rightness (0.8), elicitation "
    "kindness and clearness (1), refinement clearness (0.8, in the better answer alone); the models of the other two "
    "differ in rightness (1.2 and 0.8) and in one axis more (0.5, 0.4). The student begins with the habit alone. DPO "
    "with beta 0.1, Adam at 0.05, 300 steps of 64, on 1,200 pairs: 200 of each strategy, or all of one.",
    statements=[
        Statement(WORST, ALL, strategy, margin=0.1, because="half of the least that two other seeds had found")
        for strategy in ("prefix", "demonstration", "elicitive", "parameters", "leaderboard", "refine")
    ],
    experiment=experiment,
    sabotage="all six kinds are built by one strategy, the elicitive, which contrasts best",
    not_asserted="The paper's figures (Yi-6B-Chat: AlpacaEval 2 11.8 to 19.0, Arena-Hard 4.1 to 5.5) and its order of "
    "strategies by contrast accuracy (elicitive 91.5 % to refine 55.5 %): which strategy steers what is put into this "
    "world. The claim rests on that no strategy steers all axes; where one does, mixing has nothing to add. The mean "
    "over axes, on which the best strategy alone comes out alike (0.757 and 0.767 beside 0.765 in trials).",
    verified="strategies, settings and figures from notes of others, three of which agree; no code was released",
    build=DPO,
)
