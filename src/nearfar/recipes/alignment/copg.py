"""CoPG (Flet-Berliac et al., 2024): scalar rewards optimised from anybody's pairs, each one's baseline the other."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.alignment.tables import expected
from nearfar.data.synthetic.scored_answers import three_arms
from nearfar.objectives import DPO, DROV, IPO, CoPG
from nearfar.objectives.preference import PreferenceObjective
from nearfar.recipes import answers
from nearfar.recipes.answers import Pairs
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

REGRET = "regret"
START, METHOD, IPO_ARM, DPO_ARM = "reference", "CoPG", "IPO", "DPO"
NO_BASELINE, VALUE_BASELINE = "policy gradient without baseline", "policy gradient with its value for baseline"
BETA = 0.5


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """The paper's bandit: CoPG beside preferences on the same pairs and policy gradients on the same answers."""
    world = three_arms()
    steps = at(scale, smoke=3, quick=2000, full=6000)
    draws = world.draw(at(scale, smoke=100, quick=10_000, full=10_000), generator=answers.stream(seed))
    as_drawn = Pairs(draws.prompt, draws.answer[:, 0], draws.answer[:, 1])
    judged = answers.preferred(draws.prompt, draws.answer, draws.reward, generator=answers.held_out(seed))
    reference = answers.start(world.reference).frozen()

    def pairs(objective: PreferenceObjective, of: Pairs, **extra: Tensor) -> dict[str, float]:
        policy = answers.start(world.reference)

        def loss(index: Tensor) -> Tensor:
            rewards = {name: value[index] for name, value in extra.items()}
            return answers.cost(objective, policy, of[index], reference, **rewards)

        answers.train(loss, [policy], items=len(draws), seed=seed, steps=steps, batch_size=512)
        return {REGRET: answers.regret(policy, reference, world.reward, BETA)}

    def gradients(baseline: bool) -> dict[str, float]:
        policy, objective = answers.start(world.reference), DROV(tau=BETA)

        def loss(index: Tensor) -> Tensor:
            prompt, reward = draws.prompt[index].repeat(2), draws.reward[index].T.flatten()
            answer = draws.answer[index].T.flatten()
            ratio = policy.log_probability(prompt, answer) - reference.log_probability(prompt, answer)
            # with a number in place of V, DRO's cost is that of a policy gradient whose baseline the number is
            value = expected(policy, world.reward).detach()[prompt] if baseline else torch.zeros_like(reward)
            cost: Tensor = objective(ratio, reward, value=value)
            return cost

        answers.train(loss, [policy], items=len(draws), seed=seed, steps=steps, batch_size=512)
        return {REGRET: answers.regret(policy, reference, world.reward, BETA)}

    rewards = {"chosen_reward": draws.reward[:, 0], "rejected_reward": draws.reward[:, 1]}
    if sabotage:
        # R - beta d inside the loss, where R - beta/2 d belongs, is the loss of twice the beta
        return {METHOD: pairs(CoPG(beta=2 * BETA), as_drawn, **rewards)}
    return {
        START: {REGRET: answers.regret(reference, reference, world.reward, BETA)},
        METHOD: pairs(CoPG(beta=BETA), as_drawn, **rewards),
        IPO_ARM: pairs(IPO(beta=BETA), judged),
        DPO_ARM: pairs(DPO(beta=BETA), judged),
        NO_BASELINE: gradients(baseline=False),
        VALUE_BASELINE: gradients(baseline=True),
    }


RECIPE = Recipe(
    id="copg",
    paper=Paper(
        "Contrastive Policy Gradient: Aligning LLMs on Sequence-Level Scores in a Supervised-Friendly Fashion",
        "Flet-Berliac et al.",
        2024,
        "2406.19185",
    ),
    claim="From fixed pairs of scored answers that other policies drew, CoPG finds the best regularised policy; IPO "
    "and policy gradients with another baseline, or none, do not.",
    parts={
        "relation": "two independent answers to one prompt, each with a scalar reward, in any order",
        "score": "log-probability under the policy less that under the reference",
        "objective": "copg: half beta times the squared margin, less the difference of rewards times the margin",
        "procedure": "offline; the answers may come from any policies",
        "evaluation": "regret of the regularised return, exact",
    },
    defaults={"beta": 0.06},
    world="The paper's bandit: one prompt, three answers with rewards 2.5, 2 and 1, a uniform reference, beta 0.5; "
    "10,000 pairs, one answer from (0.1, 0.2, 0.7), the other from (0.05, 0.05, 0.9). The policy is a table, which "
    "Adam trains at 0.01 for 2,000 steps of 512 pairs. IPO and DPO see who a Bradley-Terry judge with these rewards "
    "prefers. The policy gradients are reward-weighted log-likelihoods of the single answers without importance "
    "weights, the baseline 0 or the policy's expected reward, as a perfect critic says it. Regret: what "
    "reward - beta KL lacks of its maximum.",
    statements=[
        Statement(REGRET, METHOD, 1e-6, direction="lower", because="the optimum is exact; a trial had 4e-16"),
        Statement(REGRET, METHOD, IPO_ARM, direction="lower", margin=0.05, because="a third of what a trial had, 0.15"),
        Statement(
            REGRET, METHOD, VALUE_BASELINE, direction="lower", margin=0.005, because="a third of what a trial had"
        ),
        Statement(
            REGRET,
            START,
            NO_BASELINE,
            direction="lower",
            because="without a baseline it gets worse than where it began",
        ),
    ],
    experiment=experiment,
    sabotage="R - beta d stands inside the loss where R - beta/2 d belongs, which doubles the regulariser",
    not_asserted="The paper's figures for summaries of TL;DR. DPO is measured and not compared: with labels by Bradley "
    "and Terry it is well specified here, and errs by the noise of its labels alone.",
    verified="the paper's text; the identities with IPO and with REINFORCE's leave-one-out form are tested",
    build=CoPG,
)
