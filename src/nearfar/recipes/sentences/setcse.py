"""SetCSE (Liu, 2024): sets of example sentences, told apart by tuning, and set operations that order a corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nearfar.data.synthetic import SlotGrammar
from nearfar.evaluation.set_queries import ACCURACY, INTERSECTION_F1, Tune, precision_at, set_discrimination
from nearfar.objectives import InfoNCE, SetCSE
from nearfar.recipes import slot_grammar
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.search.set_tuning import tune_adapter
from nearfar.search.sets import series_scores
from nearfar.training.methods.sets import SetContrast
from nearfar.training.text_training import TextTraining

UNTUNED, TUNED, SOFTMAX = "untuned", "tuned", "tuned by infonce"
PRECISION = "precision at 20"


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Four classes, two topics by two attitudes, found by 20 examples each, with and without tuning to them."""
    grammar = SlotGrammar(seed=seed)
    drawn = slot_grammar.stream(seed)
    embed = encoder(grammar, drawn, seed=seed, steps=at(scale, smoke=3, quick=100, full=300))
    label = torch.arange(at(scale, smoke=200, quick=1600, full=8000)) % 4
    topic, attitude = label // 2, label % 2
    concepts = grammar.draw(len(label), generator=drawn)
    for slot, side in enumerate((topic, attitude)):
        concepts[:, slot] = concepts[:, slot] % 3 + 3 * side
    items = embed(grammar.sentences(concepts, generator=drawn))
    draws, steps = at(scale, smoke=1, quick=5, full=20), at(scale, smoke=3, quick=100, full=100)

    def tuning(objective: SetCSE) -> Tune:
        def tune(sets: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
            # sabotaged: examples that do not belong to their sets
            return tune_adapter(exchanged(sets) if sabotage else sets, objective=objective, steps=steps, seed=seed)

        return tune

    def measured(tune: Tune | None) -> dict[str, float]:
        found = set_discrimination(items, label, draws=draws, tune=tune, seed=seed)
        # one topic with one attitude and not the other topic, asked by examples of each
        likes = [items[topic == 0][:20], items[attitude == 0][:20]]
        sets = [*likes, items[topic == 1][:20]]
        correct = (lambda x: x) if tune is None else torch.no_grad()(tune(sets))
        scores = series_scores(correct(items[80:]), [correct(each) for each in sets[:2]], [correct(sets[2])])
        precision = precision_at(scores, label[80:] == 0, 20)
        return {ACCURACY: found[ACCURACY], INTERSECTION_F1: found[INTERSECTION_F1], PRECISION: precision}

    arms: dict[str, Tune | None] = {
        TUNED: tuning(SetCSE()),
        SOFTMAX: tuning(SetCSE("infonce", reduction="mean")),
    }
    return {name: measured(tune) for name, tune in (arms if sabotage else {UNTUNED: None, **arms}).items()}


def encoder(grammar: SlotGrammar, drawn: torch.Generator, *, seed: int, steps: int) -> Callable[[Tensor], Tensor]:
    """A frozen encoder of sentences that has learned from pairs of paraphrases (supervised SimCSE)."""
    concepts = grammar.draw(slot_grammar.SENTENCES, generator=drawn)
    ids, paraphrases = (grammar.sentences(concepts, generator=drawn) for _ in range(2))
    made, head = slot_grammar.start(grammar, seed=seed), slot_grammar.pooler(grammar.dimension, seed=seed)
    objective = InfoNCE(temperature=slot_grammar.TEMPERATURE)

    def loss(index: Tensor) -> Tensor:
        query, key = head(made(torch.cat([ids[index], paraphrases[index]]))).chunk(2)
        cost: Tensor = objective(query, key)
        return cost

    slot_grammar.train(loss, [made, head], items=len(ids), seed=seed, steps=steps)
    return torch.no_grad()(made)


def exchanged(sets: Sequence[Tensor]) -> Sequence[Tensor]:
    """Sets of the same sizes, each of members of all."""
    members = torch.cat(list(sets))
    members = members[torch.randperm(len(members), generator=torch.Generator().manual_seed(0))]
    return list(torch.split(members, [len(each) for each in sets]))


CLEAR = "a clear margin, less than an eighth of the paper's relative gain in accuracy (39 %)"

RECIPE = Recipe(
    id="setcse",
    paper=Paper("SetCSE: Set Operations using Contrastive Learning of Sentence Embeddings", "Liu", 2024, "2404.17606"),
    claim="Tuned so that a few sets of example sentences are told apart, an encoder finds by them what else belongs to "
    "each set better than it does untuned.",
    parts={
        "relation": "members of different sets are far from each other",
        "encoder": "frozen, with a low-rank correction of its embeddings tuned to the query; or a tuned copy of it",
        "objective": "setcse: the logarithm of the summed similarities across sets; or each member against other sets",
        "procedure": "tuning at query time, all examples in each step, until the loss no longer falls",
        "evaluation": "20 examples of each class order the rest by mean cosine; as many as the class has are named",
    },
    defaults={"temperature": 0.05, "examples": 20, "draws": 5},
    world=slot_grammar.WORLD + " Two topics are three concepts each of the first slot, two attitudes three each of the "
    "second; the other slots say anything. 400 sentences of each of the four classes are embedded by a small "
    "transformer that learned 100 steps from pairs of paraphrases, and then frozen. An adapter of rank 16 is tuned to "
    "20 examples a class, in each of five draws.",
    statements=[
        Statement(ACCURACY, TUNED, UNTUNED, margin=0.05, because=CLEAR),
        Statement(ACCURACY, SOFTMAX, UNTUNED, margin=0.05, because=CLEAR),
    ],
    experiment=experiment,
    sabotage="the examples are exchanged between the sets before tuning",
    not_asserted="That a series of operations (one topic, one attitude, not the other topic) puts the right class "
    "first with a precision above 0.9: over seeds 0 to 4 it was 0.68 untuned, 0.76 tuned and 0.61 tuned by infonce, "
    "for sets of a topic and of an attitude share meanings and are pushed apart all the same. Before the "
    "world was settled, tuning was tried in two others with two or three seeds: with frozen vectors that have "
    "a large part in common, examples exchanged between the sets helped nearly as much, since pushing "
    "anything apart takes that part away; with topics and attitudes of six concepts over all slots, gains "
    "were 0.05 to 0.07. That classes are told apart on news, banking and finance texts is not measured.",
    verified="operations agree with the published reviews and a public summary; the inter-set loss is from memory and "
    "unconfirmed, which is why a softmax reading stands beside it; tuning rates are our own",
    weak=True,
    build=SetCSE,
    training=TextTraining(
        method=SetContrast,
        shapes={"labelled texts": "texts of one label are a set; members of different sets are pushed apart"},
        options={"variant": "push", "per_pair": False, "temperature": 0.05},
        settings={"learning_rate": 2e-5, "epochs": 1.0},
    ),
)
