"""Preference Orchestrator (Liu et al., 2025): the prompt says which of several rewards matter."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.alignment.orchestrator import WeightAdapter, divergence_from_targets, target_weights, weighted_reward
from nearfar.alignment.rewards_in_context import RewardScale
from nearfar.data.synthetic.weighted_prompts import WeighedAnswers, WeightedPrompts
from nearfar.recipes import answers
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

UTILITY, DIVERGENCE = "true utility", "divergence from the targets"
METHOD, UNIFORM, FIXED = "weights from the prompt", "uniform weights", "best fixed weights"
CONSTANT, SHUFFLED, TRUE = "mean of the targets", "prompts shuffled", "true weights"
NAMES = ("first", "second", "third")


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """An adapter on prompts beside weights that are the same for all, on prompts that neither saw."""
    world = WeightedPrompts(seed=seed)
    drawn = answers.stream(seed)
    training = world.draw(at(scale, smoke=100, quick=3000, full=20_000), generator=drawn)
    held = world.draw(at(scale, smoke=100, quick=3000, full=20_000), generator=answers.held_out(seed))
    steps = at(scale, smoke=3, quick=500, full=2000)
    measure = _Measure(training, sabotage=sabotage)
    target = measure.targets(training)

    def adapted(features: Tensor) -> dict[str, float]:
        adapter = WeightAdapter(features.shape[1], len(NAMES))
        adapter.fit(features, target, steps=steps, seed=seed)
        with torch.no_grad():
            return measure(held, adapter(held.features).exp())

    if sabotage:
        return {METHOD: adapted(training.features)}
    order = torch.randperm(len(target), generator=drawn)
    return {
        METHOD: adapted(training.features),
        SHUFFLED: adapted(training.features[order]),
        CONSTANT: measure(held, target.mean(0).expand_as(held.weights)),
        UNIFORM: measure(held, torch.full_like(held.weights, 1 / len(NAMES))),
        FIXED: measure(held, measure.best_fixed(training).expand_as(held.weights)),
        TRUE: measure(held, held.weights),
    }


class _Measure:
    """What weights are worth: the true utility of the answer with the highest weighted reward, and the divergence."""

    def __init__(self, training: WeighedAnswers, *, sabotage: bool) -> None:
        self.scale = RewardScale.fit(training.rewards.flatten(0, 1), NAMES)
        self.raw = sabotage

    def targets(self, drawn: WeighedAnswers) -> Tensor:
        rewards = drawn.rewards[torch.arange(len(drawn.chosen)), drawn.chosen]
        return target_weights(rewards if self.raw else self.scale.standardised(rewards))

    def __call__(self, drawn: WeighedAnswers, weights: Tensor) -> dict[str, float]:
        target = self.targets(drawn)
        divergence = divergence_from_targets(weights.clamp_min(1e-12).log(), target)
        return {UTILITY: self.utility(drawn, weights), DIVERGENCE: float(divergence)}

    def utility(self, drawn: WeighedAnswers, weights: Tensor) -> float:
        rewards = drawn.rewards if self.raw else self.scale.standardised(drawn.rewards)
        taken = weighted_reward(weights, rewards).argmax(1, keepdim=True)
        return float(drawn.utility.gather(1, taken).mean())

    def best_fixed(self, drawn: WeighedAnswers) -> Tensor:
        """Of all weights that are the same for all prompts, by 0.1, those of the highest true utility."""
        grid = [(a / 10, b / 10, (10 - a - b) / 10) for a in range(11) for b in range(11 - a)]
        found = [torch.tensor(weights) for weights in grid]
        return max(found, key=lambda weights: self.utility(drawn, weights.expand_as(drawn.weights)))


RECIPE = Recipe(
    id="pro-orchestrator",
    paper=Paper(
        "Preference Orchestrator: Prompt-Aware Multi-Objective Alignment for Large Language Models",
        "Liu et al.",
        2025,
        "2511.10656",
    ),
    claim="Weights of several rewards that an adapter infers from the prompt serve prompts better than any weights "
    "that are the same for all.",
    parts={
        "relation": "preferred responses with several rewards, standardised over the training set",
        "head": "a linear map and a softmax on the prompt's embedding",
        "objective": "KL from the targets softmax(r / T) of preferred responses to the inferred weights",
        "procedure": "the adapter is fitted first; its weights then make one reward of several, or stand in the prompt "
        "(nearfar.alignment.orchestrator)",
        "evaluation": "true utility of the answer that the weighted reward ranks first",
    },
    defaults={"temperature": 0.1},
    world="3,000 prompts with 8 features z; the true weights of three rewards are softmax(2 U z); 8 answers whose "
    "rewards cost each other, observed in units of 1, 10 and 100 with offsets; the preferred one has the highest "
    "weighted sum. The adapter sees z and the preferred answer's rewards; AdamW at 0.01, 500 steps of 64. Measured on "
    "3,000 other prompts. The best fixed weights are chosen by true utility on the training prompts.",
    statements=[
        Statement(UTILITY, METHOD, UNIFORM, because="the paper's main comparison"),
        Statement(UTILITY, METHOD, FIXED, because="its theorem speaks of any fixed weight"),
        Statement(
            UTILITY, METHOD, TRUE, margin=-0.1, because="the gap to the true weights, of some 0.65, is nearly closed"
        ),
        Statement(DIVERGENCE, METHOD, CONSTANT, direction="lower", because="the weights depend on the prompt"),
        Statement(
            UTILITY,
            SHUFFLED,
            METHOD,
            direction="lower",
            margin=0.3,
            because="with the prompts of others the gain is gone; half of it is asked for",
        ),
    ],
    experiment=experiment,
    sabotage="rewards are not standardised, so that the one of the largest unit decides",
    not_asserted="The paper's figures (Reddit Summary, Helpful Assistant, UltraFeedback; AlpacaEval 2, MT-Bench, "
    "Arena-Hard), and its policies: answers are chosen here, not generated. The reviewers' remark that a reward in "
    "which the preferred answer scores low gets little weight even where it should matter does not show here, where "
    "preferred answers are good in what matters. The statements on the true weights and on shuffled prompts got their "
    "form after trials on seeds 100 to 104: without the first of them the sabotage had passed.",
    verified="targets, temperature, encoder and KL from quotations in open reviews; the direction of the KL is ours",
    weak=True,
)
