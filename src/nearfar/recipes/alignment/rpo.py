"""RPO (Yin et al., 2024): chosen answers against rejected ones of other prompts too, most against alike ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nearfar.alignment.tables import FeaturePolicy, expected
from nearfar.data.synthetic.topic_answers import TopicAnswers
from nearfar.objectives import DPO, RPO
from nearfar.recipes import answers
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

ACCURACY, REWARD = "accuracy", "reward"
DPO_ARM, METHOD, UNIFORM = "DPO", "RPO", "RPO, uniform weights"
DIAGONAL, UNPAIRED = "RPO, diagonal weights", "RPO, unpaired"
BETAS = (0.1, 0.5, 2.0)
"""Every arm is measured at the one whose accuracy is best on prompts set aside."""
TAU = 0.25


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """DPO and RPO with its weightings on the same pairs, one a prompt; and RPO on half of the answers, unpaired."""
    prompts, more = at(scale, smoke=(20, 20), quick=(100, 1000), full=(400, 5000))
    steps = at(scale, smoke=3, quick=300, full=1000)
    world, aside, fresh = (
        TopicAnswers(count, opposed=True, world=seed, seed=3 * seed + part)
        for part, count in enumerate((prompts, more, more))
    )
    drawn = answers.stream(seed)
    both = torch.rand(world.quality.shape, generator=drawn).argsort(1)[:, :2]
    pairs = answers.preferred(torch.arange(prompts), both, world.quality.gather(1, both), generator=drawn)
    # of other prompts, as where a column of embeddings has been sorted otherwise than the pairs
    embedding = world.embedding.roll(1, 0) if sabotage else world.embedding
    reference = FeaturePolicy(world.features).frozen()

    def measured(policy: FeaturePolicy) -> tuple[float, dict[str, float]]:
        with torch.no_grad():
            there, here = (policy.on(of.features) for of in (aside, fresh))
            found = {
                ACCURACY: agreement(here.table(), fresh.quality),
                REWARD: float(expected(here, fresh.quality).mean()),
            }
            return agreement(there.table(), aside.quality), found

    def trained(loss_of: Callable[[FeaturePolicy, float], Callable[[Tensor], Tensor]]) -> dict[str, float]:
        def run(beta: float) -> tuple[float, dict[str, float]]:
            policy = FeaturePolicy(world.features)
            loss = loss_of(policy, beta)
            answers.train(loss, [policy], items=prompts, seed=seed, steps=steps, batch_size=32, learning_rate=0.02)
            return measured(policy)

        return answers.tuned(run, BETAS)

    def dpo(policy: FeaturePolicy, beta: float) -> Callable[[Tensor], Tensor]:
        return lambda index: answers.cost(DPO(beta=beta), policy, pairs[index], reference)

    def rpo(weighting: str) -> Callable[[FeaturePolicy, float], Callable[[Tensor], Tensor]]:
        def loss_of(policy: FeaturePolicy, beta: float) -> Callable[[Tensor], Tensor]:
            objective = RPO(beta=beta, weighting=weighting, tau=TAU)

            def loss(index: Tensor) -> Tensor:
                extra = {"chosen_prompt": embedding[index]} if weighting == "embedding" else {}
                return answers.cost(objective, policy, pairs[index], reference, **extra)

            return loss

        return loss_of

    def unpaired(policy: FeaturePolicy, beta: float) -> Callable[[Tensor], Tensor]:
        objective = RPO(beta=beta, tau=TAU)

        def loss(index: Tensor) -> Tensor:
            first = index < prompts // 2  # of these prompts the chosen answer is known, of the others the rejected
            ratios = [
                policy.log_probability(rows, answer[rows]) - reference.log_probability(rows, answer[rows])
                for rows, answer in ((index[first], pairs.chosen), (index[~first], pairs.rejected))
            ]
            cost: Tensor = objective(
                *ratios, chosen_prompt=embedding[index[first]], rejected_prompt=embedding[index[~first]]
            )
            return cost

        return loss

    changed = {METHOD: trained(rpo("embedding")), UNPAIRED: trained(unpaired)}
    if sabotage:
        return changed
    return {
        DPO_ARM: trained(dpo),
        UNIFORM: trained(rpo("uniform")),
        DIAGONAL: trained(rpo("diagonal")),
        **changed,
    }


def agreement(table: Tensor, quality: Tensor) -> float:
    """The share of pairs of answers ``[P, A]`` to one prompt that are in the order of their quality."""
    ahead, better = (values[:, :, None] > values[:, None, :] for values in (table, quality))
    pairs = torch.ones_like(ahead[0]).triu(1)
    return float((ahead == better)[:, pairs].double().mean())


RECIPE = Recipe(
    id="rpo",
    paper=Paper(
        "Relative Preference Optimization: Enhancing LLM Alignment through Contrasting Responses across Identical and "
        "Diverse Prompts",
        "Yin et al.",
        2024,
        "2402.10958",
    ),
    claim="Contrasting chosen answers with rejected ones of other prompts too, weighted by how alike the prompts are, "
    "learns more from the same pairs than DPO, and learns from answers that are not paired at all.",
    parts={
        "relation": "every chosen answer of a batch with every rejected one, weighted by the prompts' embeddings",
        "encoder": "a frozen sentence encoder for prompts",
        "score": "log-probability under the policy less that under the reference",
        "objective": "rpo, beside dpo",
        "procedure": "offline",
        "evaluation": "whether answers to unseen prompts are in the order of their quality",
    },
    defaults={"beta": 0.1, "tau": 0.5},
    world="100 prompts on eight topics whose tastes are opposed two by two; an embedding is the topic's plus noise; "
    "each prompt has eight answers of six traits, whose quality is 1.5 times how they suit the topic's taste plus "
    "0.75 times a trait that all like. One pair a prompt, by a Bradley-Terry judge. The policy is linear in the "
    "traits and their products with the embedding, the reference uniform: Adam at 0.02, 300 steps of 32. Tau is 0.25. "
    "Unpaired: of half of the prompts the chosen answer is known, of the others the rejected. Every arm has the best "
    "of the betas 0.1, 0.5 and 2, by accuracy on 1,000 prompts set aside; measured on 1,000 others.",
    statements=[
        Statement(ACCURACY, METHOD, DPO_ARM, because="the paper's main comparison"),
        Statement(ACCURACY, METHOD, UNIFORM, because="where tastes are opposed, alike prompts must count for more"),
        Statement(
            ACCURACY, UNPAIRED, 0.5, margin=0.05, because="half of what the weakest of three seeds of a trial had"
        ),
    ],
    experiment=experiment,
    sabotage="the prompts' embeddings are those of other prompts",
    not_asserted="The paper's win rates. That RPO beats DPO did not show in trials here with 60 to 200 prompts, with "
    "tastes opposed or not, labels nearly certain or nearly random, tau 0.5, 0.25 and 0.1, nor that its weights "
    "matter: each was ahead in some seeds and behind in others. There is a reason: the weights of a chosen answer sum "
    "to 1, so that where policy and reference agree the gradient of all contrasts is, up to its scale, that of DPO's "
    "pairs, whatever the weights over evenly spread prompts; only what comes later differs, and a policy that is "
    "linear in features of the prompt has little that comes later. The claim was left as the paper has it; over seeds "
    "0 to 4 RPO differs from DPO by -0.009, between -0.027 and 0.008.",
    verified="read in the official code, all variants and defaults",
    build=RPO,
)
