"""DiscoPOP (Lu et al., 2024): a search over losses that is told how well each did."""

from __future__ import annotations

from collections.abc import Callable

from nearfar.alignment.discovery import tabular
from nearfar.alignment.discovery.limits import LimitedProcess, Limits, Outcome
from nearfar.alignment.discovery.loop import SEEDS, Archive, discover
from nearfar.alignment.discovery.proposals import Proposal
from nearfar.alignment.discovery.proposers import GrammarProposer
from nearfar.objectives import DiscoPOP
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

FRESH, SEARCHED = "reward on fresh data", "reward in the search"
KNOWN, METHOD, RANDOM, PUBLISHED = "best of four known losses", "search", "search that is told nothing", "DiscoPOP"
TASK = f"{tabular.__name__}:{tabular.fitness.__name__}"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """A search that learns from fitness beside one that does not, and what both found, on data that neither saw."""
    evaluations = at(scale, smoke=3, quick=50, full=200)
    splits = at(scale, smoke=1, quick=2, full=4)
    told = {"seed": seed, "count": splits, "steps": at(scale, smoke=5, quick=40, full=40)}
    limits = Limits(processor_seconds=20, memory_mib=1024, wall_seconds=300)

    with (
        LimitedProcess(TASK, told, limits=limits) as tried,
        LimitedProcess(TASK, {**told, "first": splits, "count": 2 * splits}, limits=limits) as judged,
    ):

        def measured(archive: Archive) -> dict[str, float]:
            chosen = archive.best().proposal or SEEDS[0]
            return {SEARCHED: _fitness(tried, chosen), FRESH: _fitness(judged, chosen)}

        def searched(learns: bool, evaluate: Callable[[Proposal], Outcome]) -> Archive:
            return discover(GrammarProposer(seed=seed, learns=learns), evaluate, evaluations=evaluations)

        if sabotage:
            return {METHOD: measured(searched(True, _Late(tried)))}
        archive = searched(True, tried)
        known = Archive(archive.entries[: len(SEEDS)])
        return {
            METHOD: measured(archive),
            RANDOM: measured(searched(False, tried)),
            KNOWN: {**measured(known), FRESH: max(_fitness(judged, each) for each in SEEDS)},
            PUBLISHED: {FRESH: _fitness(judged, Proposal("discopop", objective="discopop"))},
        }


class _Late:
    """Gives each proposal the outcome of the one before."""

    def __init__(self, evaluate: Callable[[Proposal], Outcome]) -> None:
        self.evaluate = evaluate
        self.last = evaluate(SEEDS[0])

    def __call__(self, proposal: Proposal) -> Outcome:
        last, self.last = self.last, self.evaluate(proposal)
        return last


def _fitness(evaluate: Callable[[Proposal], Outcome], proposal: Proposal) -> float:
    found = evaluate(proposal).fitness
    return float("nan") if found is None else found


RECIPE = Recipe(
    id="discopop",
    paper=Paper(
        "Discovering Preference Optimization Algorithms with and for Large Language Models",
        "Lu et al.",
        2024,
        "2406.08414",
    ),
    claim="A search that proposes preference losses, trains with them and is told how well each did finds losses that "
    "do better than the known ones it began with, on data that the search never saw.",
    parts={
        "relation": "pairs of answers, a fifth of the labels turned",
        "score": "log-probability under the policy less that under the reference",
        "objective": "what the search finds; it begins with dpo, hinge, ipo and kto-pair; the paper has discopop, "
        "dbaql, aql, aqfl, padll, cell and pfl",
        "procedure": "propose, check (shape, finite numbers, a gradient to all four inputs), train, score, tell, and "
        "propose again; proposals run in a process of their own within limits (nearfar.alignment.discovery)",
        "evaluation": "true expected reward on prompts of other splits",
    },
    defaults={"beta": 0.05, "tau": 0.05, "evaluations": 50},
    world="Prompts have 6 answers with 12 features from Student's t (3 degrees of freedom); the true reward is linear "
    "in them. A policy on features starts uniform; Adam at 0.15 takes 40 steps on 300 pairs of 100 prompts, beta 0.05. "
    "Its reward: expected, on 1,000 other prompts, divided by that of the best answers. Fitness is the mean over "
    "two such splits, fresh data are four others of the same world. The proposer is no language model: it draws blends "
    "of two losses (logistic, exponential, hinge, square, sigmoid) and changes those that did well; 50 proposals. "
    "The time of the processes that proposals run in is not among the recipe's CPU seconds.",
    statements=[
        Statement(
            FRESH, METHOD, KNOWN, because="the paper's claim; the best of the four is chosen on the fresh data itself"
        ),
        Statement(
            SEARCHED,
            METHOD,
            RANDOM,
            margin=-0.02,
            because="being told must not hurt; two searches that are told nothing differ by up to 0.02 on a seed",
        ),
    ],
    experiment=experiment,
    sabotage="each proposal is entered with the fitness of the one before",
    not_asserted="The paper's figures (MT-Bench 7.90 to 7.98 of the discovered losses, 7.89 of DPO) with a language "
    "model that proposes. That being told fitness finds more than random draws: in trials on six other seeds 50 "
    "proposals of either kind came within 0.003 of each other in the mean. The published DiscoPOP is measured beside "
    "them and claimed nothing of: after 40 steps from the uniform policy it lies below the known losses, since its "
    "slope at the start pulls the wrong way.",
    verified="all losses and the loop read in the official code; the catalogue's losses match its numbers",
    build=DiscoPOP,
)
