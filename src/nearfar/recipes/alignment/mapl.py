"""MAPL (Sun et al., 2025): prompts compared, and preference gaps compared, teach a reward model instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nearfar.alignment.reward.instructions import InstructionKind, Length, Opening, Word
from nearfar.alignment.reward.levels import Instructions, gap_pairs, met, prompt_pairs
from nearfar.data.synthetic.symbol_responses import SymbolResponses
from nearfar.encoders.perceptron import Perceptron
from nearfar.evaluation.preference import pairs_in_order
from nearfar.objectives import MAPL
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.steps import random_batches, seeded, train_steps

COMPLIANCE, QUALITY, GAPS = "accuracy on compliance", "accuracy on quality", "accuracy on gaps"
PLAIN, INTRA, INTER = "pairs alone", "and prompts compared", "and gaps compared"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """A reward model on pairs alone, with prompts compared, and with gaps compared as well."""
    world = SymbolResponses(seed=seed)
    kinds: list[InstructionKind] = [
        Length(most=world.longest + 2),
        Word(world.symbols, letters=1, closed=True),
        Word(world.symbols, wanted=False, letters=1, closed=True),
        Opening(world.symbols),
    ]
    steps = at(scale, smoke=3, quick=1500, full=4000)
    with seeded(seed) as drawn:
        pairs = world.pairs(at(scale, smoke=50, quick=1000, full=2000), generator=drawn)
        held_out = world.pairs(at(scale, smoke=50, quick=2000, full=10_000), generator=drawn)
        alike = world.alike(at(scale, smoke=50, quick=2000, full=10_000), generator=drawn)
    compared = prompt_pairs(pairs, kinds, each=2, seed=seed)
    if sabotage:  # the instructions that are not followed against none at all
        compared = [replace(each, better=()) for each in compared]
    gaps = gap_pairs(pairs, kinds, each=2, seed=seed)
    better, worse, of_compared = (
        asked(world, [each.better for each in compared]),
        asked(world, [each.worse for each in compared]),
        world.response_features([pairs[each.row][each.side] for each in compared]),
    )
    wide, narrow = asked(world, [each.wide for each in gaps]), asked(world, [each.narrow for each in gaps])
    first, second = (world.response_features([pair[side] for pair in pairs]) for side in (0, 1))
    of_gap = torch.tensor([each.row for each in gaps])

    def train(*, prompts: float, between: float) -> Perceptron:
        objective = MAPL(prompt_weight=prompts, gap_weight=between)
        with seeded(seed) as generator:
            model = Perceptron((world.prompt_width + world.response_width, 64, 1))
            order = torch.Generator().manual_seed(seed)

            def loss(rows: Tensor) -> Tensor:
                some = torch.randint(len(compared), rows.shape, generator=order)
                few = torch.randint(len(gaps), rows.shape, generator=order)
                one, other = first[of_gap[few]], second[of_gap[few]]
                none = torch.zeros(2 * len(rows), world.prompt_width)
                given = reward(
                    model,
                    torch.cat([none, better[some], worse[some], wide[few], wide[few], narrow[few], narrow[few]]),
                    torch.cat(
                        [first[rows], second[rows], of_compared[some], of_compared[some], one, other, one, other]
                    ),
                ).chunk(8)
                cost: Tensor = objective(
                    given[0],
                    given[1],
                    prompt_chosen=given[2],
                    prompt_rejected=given[3],
                    gap_wide=given[4] - given[5],
                    gap_narrow=given[6] - given[7],
                )
                return cost

            train_steps(loss, [model], random_batches(len(pairs), 64, steps, generator))
        return model

    def measured(model: Perceptron) -> dict[str, float]:
        return {
            COMPLIANCE: compliance(model, world, kinds, alike, seed=seed),
            QUALITY: quality(model, world, held_out),
            GAPS: gaps_in_order(model, world, kinds, held_out, seed=seed),
        }

    arms = {INTRA: measured(train(prompts=1.0, between=0.0)), INTER: measured(train(prompts=1.0, between=1.0))}
    return arms if sabotage else {PLAIN: measured(train(prompts=0.0, between=0.0)), **arms}


def reward(model: Perceptron, prompt: Tensor, response: Tensor) -> Tensor:
    """The model's rewards ``[n]`` of prompts and responses, both as features."""
    given: Tensor = model(torch.cat([prompt, response], 1))
    return given.squeeze(1)


def asked(world: SymbolResponses, prompts: Sequence[Instructions]) -> Tensor:
    """The features of prompts ``[n, p]``."""
    return world.prompt_features([[(each.kind, each.value) for each in prompt] for prompt in prompts])


@torch.no_grad()
def compliance(
    model: Perceptron,
    world: SymbolResponses,
    kinds: Sequence[InstructionKind],
    alike: Sequence[tuple[str, str]],
    *,
    seed: int,
) -> float:
    """Of two responses of like quality, how often the one that meets all of 2 to 4 instructions has the higher reward,
    where the other does not."""
    compared = [
        each
        for each in prompt_pairs(alike, kinds, sizes=(2, 4), seed=seed + 1)
        if met(each.better, alike[each.row][each.side]) == len(each.better)
        and met(each.better, alike[each.row][1 - each.side]) < len(each.better)
    ]
    prompt = asked(world, [each.better for each in compared])
    follows = world.response_features([alike[each.row][each.side] for each in compared])
    other = world.response_features([alike[each.row][1 - each.side] for each in compared])
    return float(pairs_in_order(reward(model, prompt, follows), reward(model, prompt, other)).mean())


@torch.no_grad()
def quality(model: Perceptron, world: SymbolResponses, pairs: Sequence[tuple[str, str]]) -> float:
    """How often the better of two responses to a prompt without instructions has the higher reward."""
    none = torch.zeros(len(pairs), world.prompt_width)
    one, other = (world.response_features([pair[side] for pair in pairs]) for side in (0, 1))
    return float(pairs_in_order(reward(model, none, one), reward(model, none, other)).mean())


@torch.no_grad()
def gaps_in_order(
    model: Perceptron,
    world: SymbolResponses,
    kinds: Sequence[InstructionKind],
    pairs: Sequence[tuple[str, str]],
    *,
    seed: int,
) -> float:
    """How often the preference gap is wider under the prompt whose instructions speak more for the chosen response."""
    made = gap_pairs(pairs, kinds, seed=seed + 1)
    one, other = (world.response_features([pairs[each.row][side] for each in made]) for side in (0, 1))
    found = [
        reward(model, prompt, one) - reward(model, prompt, other)
        for prompt in (asked(world, [each.wide for each in made]), asked(world, [each.narrow for each in made]))
    ]
    return float(pairs_in_order(*found).mean())


RECIPE = Recipe(
    id="mapl",
    paper=Paper("Multi-Level Aware Preference Learning", "Sun et al.", 2025, "2505.12845"),
    claim="Comparing prompts for one response, and preference gaps of one pair under two prompts, teaches a reward "
    "model to follow several instructions without new labels and without losing what the pairs say of quality.",
    parts={
        "relation": "prompt_pairs: a response under instructions that it meets more and less; gap_pairs: two responses "
        "under instructions that speak more and less for the chosen one",
        "views": "instructions that a program checks: length, words wanted and not wanted, the first word",
        "encoder": "a reward model; here a perceptron on the features of prompt and response",
        "objective": "mapl: pairwise logistic costs of responses, of prompts, and of gaps, summed",
        "evaluation": "accuracy on responses of like quality of which one follows 2 to 4 instructions, on quality, on "
        "gaps",
    },
    defaults={"learning_rate": 1e-5, "batch_size": 64, "epochs": 5},
    world="Responses are 3 to 8 of 10 symbols, their quality the mean of hidden values. 1,000 pairs in the order of "
    "quality, under prompts without instructions; 2,000 prompts compared and 2,000 gaps made from them, with 1 to 4 "
    "instructions of different kinds. The reward model sees which instructions there are, which symbols the response "
    "holds, the first, and its length: a perceptron with 64 hidden units, 1,500 steps of 64 of each, Adam at 0.002. "
    "Asked about new responses: 2,000 pairs next to each other in quality for compliance, where one meets all "
    "instructions and the other does not, and 2,000 pairs for quality and for gaps.",
    statements=[
        Statement(COMPLIANCE, INTRA, PLAIN, margin=0.25, because="half of what trials on other seeds had found"),
        Statement(QUALITY, INTRA, PLAIN, margin=-0.02, because="quality is not to be lost"),
        Statement(QUALITY, INTER, PLAIN, margin=-0.02, because="quality is not to be lost"),
        Statement(GAPS, INTER, INTRA, because="what gaps are compared for"),
    ],
    experiment=experiment,
    sabotage="the prompt with instructions that are not followed is compared with the prompt without any",
    not_asserted="The paper's figures, which were not seen, and compliance above 0.85 with prompts alone: trials on "
    "seeds 100 to 104 gave 0.83 to 0.87. With gaps the model also learns from 2,000 comparisons more. The form of the "
    "costs of gaps is reconstructed from the paper's description.",
    verified="prompts compared: notes of others on the paper; gaps: inferred from the abstract",
    weak=True,
    build=MAPL,
)
