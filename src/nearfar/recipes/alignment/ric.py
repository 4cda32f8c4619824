"""Rewards-in-Context (Yang et al., 2024): responses get the rewards that their prompt asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nearfar.alignment.language import LanguagePolicy
from nearfar.alignment.rewards_in_context import RewardsInContext, rewards_of
from nearfar.alignment.scores import response_scores
from nearfar.data.preferences import PreferenceSet, tokenise
from nearfar.data.synthetic.letter_counts import LetterCounts
from nearfar.encoders.language_model import symbol_tokenizer, tiny_language_model
from nearfar.evaluation.fronts import hypervolume
from nearfar.objectives import ProbabilitySFT
from nearfar.recipes import answers
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

FOLLOWED, VOLUME = "least correlation of asked and obtained", "hypervolume"
PLAIN, METHOD, ONLINE = "supervised fine-tuning", "rewards in context", "after one online round"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Fine-tuning with the rewards in the prompt, a round on what it then generates, and fine-tuning without them."""
    world = LetterCounts()
    drawn = answers.stream(seed)
    data = world.draw(at(scale, smoke=50, quick=2000, full=10_000), generator=drawn)
    held = world.draw(at(scale, smoke=30, quick=500, full=2000), generator=answers.held_out(seed))
    steps = at(scale, smoke=2, quick=300, full=1000)
    context = RewardsInContext.fit(data)
    learner = _Learner(world, context, seed)

    def measured(policy: LanguagePolicy) -> dict[str, float]:
        return {FOLLOWED: learner.followed(policy, held), VOLUME: learner.volume(policy, told=True)}

    told = context.demonstrations(_exchanged(data, drawn) if sabotage else data)
    policy = learner.start()
    learner.teach(policy, told, steps=steps, learning_rate=3e-3)
    offline = measured(policy)
    prompts = world.prompts(at(scale, smoke=20, quick=1000, full=5000), generator=drawn)
    made = context.generated(policy, prompts, world.rewards, generator=drawn)
    merged = context.merged(made, data, most=len(prompts), generator=drawn)
    again = context.demonstrations(_exchanged(merged, drawn) if sabotage else merged)
    learner.teach(policy, again, steps=steps // 3, learning_rate=5e-4)
    found = {METHOD: offline, ONLINE: measured(policy)}
    if sabotage:
        return found
    plain = learner.start()
    learner.teach(plain, data.demonstrations(reward=data.reward_names[0]), steps=steps, learning_rate=3e-3)
    return {**found, PLAIN: {VOLUME: learner.volume(plain, told=False)}}


class _Learner:
    """One seed's models and measurements."""

    def __init__(self, world: LetterCounts, context: RewardsInContext, seed: int) -> None:
        self.world, self.context, self.seed = world, context, seed
        self.tokenizer: Any = symbol_tokenizer(world.symbols())
        self.objective = ProbabilitySFT(alpha=0.0)

    def start(self) -> LanguagePolicy:
        model = tiny_language_model(vocabulary=len(self.tokenizer), seed=self.seed)
        return LanguagePolicy(model, self.tokenizer, max_new_tokens=self.world.length + 2, batch_size=1200)

    def teach(self, policy: LanguagePolicy, data: PreferenceSet, *, steps: int, learning_rate: float) -> None:
        rows = list(tokenise(data, self.tokenizer))

        def loss(index: Tensor) -> Tensor:
            scores = response_scores(policy.model, [rows[place] for place in index.tolist()], tokens=True)
            assert scores.tokens is not None
            cost: Tensor = self.objective(scores.tokens, torch.ones_like(scores.tokens))
            return cost

        answers.train(
            loss,
            [policy],
            items=len(rows),
            seed=self.seed,
            steps=steps,
            batch_size=32,
            learning_rate=learning_rate,
            optimizer="adamw",
        )

    def followed(self, policy: LanguagePolicy, held: PreferenceSet) -> float:
        """The correlation of the rewards asked for, those of held-out responses, and obtained; the lower of both."""
        wanted = self.context.scale.standardised(rewards_of(held))
        told = [self.context.prompt(row.prompt, each) for row, each in zip(held, wanted, strict=True)]
        got = self._obtained(policy, told)
        pairs = torch.stack([wanted, got]).permute(2, 0, 1)
        return min(float(torch.corrcoef(pair)[0, 1]) for pair in pairs)

    def volume(self, policy: LanguagePolicy, *, told: bool) -> float:
        """Of the mean rewards for eleven preferences; without being told one there is one point."""
        prompts = self.world.prompts(100, generator=answers.held_out(self.seed))
        asked: list[Any] = prompts
        if told:
            shares = [step / 10 for step in range(11)]
            asked = [self.context.asked(prompt, (share, 1 - share)) for share in shares for prompt in prompts]
        points = self._obtained(policy, asked).reshape(-1, len(prompts), len(self.context.scale.names)).mean(1)
        return hypervolume(points.numpy(), self.context.scale.low)

    def _obtained(self, policy: LanguagePolicy, prompts: Any) -> Tensor:
        responses = policy.sample(prompts, 1, generator=answers.held_out(self.seed))
        return self.context.scale.standardised(self.world.rewards(prompts, responses)[:, 0].double())


def _exchanged(data: PreferenceSet, generator: torch.Generator) -> PreferenceSet:
    """The rows with the rewards of others."""
    rows = list(data)
    order = torch.randperm(len(rows), generator=generator).tolist()
    mixed = [replace(row, rewards=rows[place].rewards) for row, place in zip(rows, order, strict=True)]
    return PreferenceSet.from_rows(data.kind, mixed, reward_names=data.reward_names)


RECIPE = Recipe(
    id="ric",
    paper=Paper(
        "Rewards-in-Context: Multi-objective Alignment of Foundation Models with Dynamic Preference Adjustment",
        "Yang et al.",
        2024,
        "2402.10207",
    ),
    claim="A policy fine-tuned with the rewards of responses in their prompts gives, when asked, responses with the "
    "rewards that a preference implies: one model traces a front beyond plain fine-tuning, and a round on its own "
    "filtered responses moves it further.",
    parts={
        "views": "the prompt with the standardised rewards of the response, rounded to 0.1",
        "relation": "single responses, good and bad, each with several rewards",
        "encoder": "a causal language model",
        "objective": "probability-sft with alpha 0: the likelihood of the response's tokens",
        "procedure": "offline fine-tuning, then a round: generate for good rewards, keep what is good in any, relabel "
        "with the rewards obtained, fine-tune (nearfar.alignment.rewards_in_context)",
        "evaluation": "asked against obtained rewards; hypervolume of the front of eleven preferences",
    },
    defaults={"quantile": 0.7, "form": "l2", "rounds": 1},
    world="Responses are 12 letters, each drawn by frequencies of its sequence's own; the rewards are how many A they "
    "hold, and how many B less half the A. A Llama of 2 layers and 32 dimensions, started at random, sees 2,000 "
    "responses (AdamW at 0.003, 300 steps of 32); the round has 1,000 generated responses, up to 1,000 originals and "
    "100 steps at 0.0005. Correlation: of the rewards asked for, those of 500 held-out responses, and obtained; the "
    "lower of the two. Hypervolume: of the mean rewards over 100 samples each for eleven preferences (l2), above the "
    "0.01 quantiles of the data.",
    statements=[
        Statement(FOLLOWED, METHOD, 0.8, because="what a policy that reads its prompt reaches in range"),
        Statement(VOLUME, METHOD, PLAIN, because="the paper's front against supervised fine-tuning"),
        Statement(VOLUME, ONLINE, METHOD, because="the paper's online stage"),
    ],
    experiment=experiment,
    sabotage="the prompts tell the rewards of other responses",
    not_asserted="The paper's figures (assistant and summary tasks, Llama-2 7B) and its comparison with MORLHF and "
    "rewarded soups at a tenth of the GPU hours. The rewards that are asked for lie between quantiles of the data, not "
    "between the extremes of normal draws, as in the official code.",
    verified="read in the official code; the preference map matches its numbers",
)
