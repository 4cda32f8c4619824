"""A study of preference fine-tuning (Tajwar et al., 2024): samples of one's own, and pushing the bad ones down."""

from __future__ import annotations

import functools
from typing import Any

import torch

from nearfar.alignment.online import OnlineSettings, TableReward, all_pairs, cost_of, improve
from nearfar.alignment.tables import TabularPolicy, expected
from nearfar.data.synthetic.peaked_bandit import PeakedBandit
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

REWARD, GAIN = "expected reward", "gain of own samples"
PEAKS = {"far": 70.0, "near": 20.0}
COSTS: dict[str, dict[str, Any]] = {"best-of-n": {}, "IPO": {"beta": 1 / 20}, "DPO": {"beta": 0.1}}
STATES, RESPONSES, REFRESH = 32, 10, 5


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Best-of-n, IPO and DPO on samples of the reference alone and on fresh ones, with the peak far or near."""
    steps = at(scale, smoke=10, quick=200, full=1000)
    states = torch.zeros(STATES, dtype=torch.long)
    found: dict[str, dict[str, float]] = {}
    for place, peak in PEAKS.items():
        world = PeakedBandit(peak)

        def value(name: str, refresh: int, world: PeakedBandit = world) -> float:
            policy = TabularPolicy(world.reference)
            pairs = functools.partial(all_pairs, margin=0.02)
            improve(
                policy,
                states,
                TableReward(world.reward),
                cost_of(name, pairs=pairs, **COSTS[name]),
                OnlineSettings(responses=RESPONSES, steps=steps, refresh=refresh, learning_rate=0.05, seed=seed),
                # the sampler that nobody tells of the new weights
                sampler=policy.frozen() if sabotage else None,
            )
            return float(expected(policy, world.reward).detach().mean())

        if not sabotage:
            start = TabularPolicy(world.reference)
            found[f"reference, {place}"] = {REWARD: float(expected(start, world.reward).detach().mean())}
        for name in COSTS:
            # without a refresh both are the same run
            offline, own = value(name, steps), value(name, REFRESH)
            if not sabotage:
                found[f"{name}, offline, {place}"] = {REWARD: offline}
            found[f"{name}, on-policy, {place}"] = {REWARD: own, GAIN: own - offline}
    return found


RECIPE = Recipe(
    id="suboptimal-onpolicy",
    paper=Paper(
        "Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data",
        "Tajwar et al.",
        2024,
        "2404.14367",
    ),
    claim="Where the best answers are unlikely under the reference, samples of the policy's own and a negative "
    "gradient both help, and help each other; where they are likely, methods hardly differ.",
    parts={
        "relation": "the best of n samples (best-of-n), or all pairs of them whose rewards differ by 0.02 (IPO, DPO)",
        "score": "log-probability; less that of the first policy for pairs",
        "objective": "best-of-n, ipo, dpo",
        "procedure": "10 samples a state, drawn anew every 5 steps or never (nearfar.alignment.online.improve)",
        "evaluation": "expected reward, exact",
    },
    defaults={"responses": 10, "refresh": 5},
    world="The paper's bandit: 100 answers in a row, reward exp(-((a - peak)/10)^2) with the peak at 70 (far) or at 20 "
    "(near), a reference normal around 20 with deviation 15. The policy is one table of logits, which starts at the "
    "reference; 32 states draw 10 answers each; Adam at 0.05, 200 steps. IPO wants a margin of 10, DPO has beta 0.1.",
    statements=[
        *(
            Statement(
                REWARD,
                f"{name}, on-policy, far",
                f"{name}, offline, far",
                margin=0.3,
                because="less than half of what trials on other seeds had, 0.5 to 0.9",
            )
            for name in COSTS
        ),
        Statement(REWARD, "IPO, on-policy, far", "best-of-n, on-policy, far", because="the negative gradient's part"),
        *(
            Statement(
                GAIN,
                f"{name}, on-policy, near",
                0.25,
                direction="lower",
                because="where the peak is near there is little to gain; trials had 0.02 to 0.07",
            )
            for name in COSTS
        ),
    ],
    experiment=experiment,
    sabotage="the sampler is never given the new weights: fresh samples, but of the reference",
    not_asserted="The paper's figures on language models. How long samples may be reused, and the unbounded negative "
    "gradient of best-of-n against the worst, which drives probabilities to 0 (trials: 0.47 with own samples and 0.004 "
    "without, where best-of-n alone had 0.68 and 0.05). The card's states share one table: with a table for each "
    "state, 10 samples a round do not find the far peak (best-of-n 0.10, IPO 0.05).",
    verified="algorithms and bandit read in official code; the paper's continuous bandits and language models were not "
    "run",
)
