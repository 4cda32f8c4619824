"""SetFit on few examples, and what its predictions hang on (Kilic, 2023): label pairs, then a linear classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nearfar.data.synthetic import SlotGrammar
from nearfar.diagnostics import explain
from nearfar.encoders.linear_classifier import LinearClassifier
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.evaluation.classification import macro_f1
from nearfar.negatives import LabelPairs
from nearfar.objectives import InfoNCE, get
from nearfar.recipes import slot_grammar
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at
from nearfar.training.methods import label_pairs
from nearfar.training.steps import seeded

CLASSES, SHOTS = 6, 8
MACRO_F1, SHARE = "macro-F1", "weight on cue words"
SETFIT, FINE_TUNED, UNTOUCHED = "SetFit", "fine-tuned", "untouched"
LABELS = tuple(f"class {number}" for number in range(CLASSES))

Probabilities = Callable[[Tensor], npt.NDArray[np.float64]]


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """Eight sentences of each of six classes: SetFit, fine-tuning with as many steps, and no tuning; the mean over
    draws of the sentences."""
    grammar = SlotGrammar(seed=seed)
    drawn = slot_grammar.stream(seed)
    pretrained = pretrain(grammar, drawn, seed=seed, steps=at(scale, smoke=3, quick=100, full=300))
    asked = torch.arange(at(scale, smoke=120, quick=2400, full=6000)) % CLASSES
    test = provisions(grammar, asked, drawn)
    steps = at(scale, smoke=3, quick=120, full=480)

    def measured(probabilities: Probabilities) -> dict[str, float]:
        found = macro_f1(MACRO_F1, asked.numpy(), probabilities(test).argmax(1), resamples=1).value
        explained = test[: at(scale, smoke=1, quick=6, full=30)]
        return {MACRO_F1: found, SHARE: weight_on_cues(probabilities, explained, grammar, samples=500, seed=seed)}

    def draw(number: int) -> dict[str, dict[str, float]]:
        labels = torch.arange(CLASSES * SHOTS) % CLASSES
        ids = provisions(grammar, labels, drawn)
        # sabotaged: labels of other, random sentences decide which pairs are near
        others = labels[torch.randperm(len(labels), generator=drawn)]
        batches = 1000 * seed + number
        tuned = setfit(pretrained(), ids, others if sabotage else labels, seed=batches, steps=steps)
        arms = {SETFIT: measured(classified(tuned, ids, labels))}
        if not sabotage:
            arms[FINE_TUNED] = measured(fine_tuned(pretrained(), ids, labels, seed=batches, steps=steps))
            arms[UNTOUCHED] = measured(classified(pretrained(), ids, labels))
        return arms

    draws = [draw(number) for number in range(at(scale, smoke=1, quick=3, full=10))]
    return {
        arm: {name: sum(each[arm][name] for each in draws) / len(draws) for name in measures}
        for arm, measures in draws[0].items()
    }


def pretrain(grammar: SlotGrammar, drawn: torch.Generator, *, seed: int, steps: int) -> Callable[[], TokenTransformer]:
    """Copies of an encoder of sentences that has learned from pairs of paraphrases (supervised SimCSE)."""
    concepts = grammar.draw(slot_grammar.SENTENCES, generator=drawn)
    ids, paraphrases = (grammar.sentences(concepts, generator=drawn) for _ in range(2))
    encoder, head = slot_grammar.start(grammar, seed=seed), slot_grammar.pooler(grammar.dimension, seed=seed)
    objective = InfoNCE(temperature=slot_grammar.TEMPERATURE)

    def loss(index: Tensor) -> Tensor:
        query, key = head(encoder(torch.cat([ids[index], paraphrases[index]]))).chunk(2)
        cost: Tensor = objective(query, key)
        return cost

    slot_grammar.train(loss, [encoder, head], items=len(ids), seed=seed, steps=steps)

    def copy() -> TokenTransformer:
        made = slot_grammar.start(grammar, seed=seed)
        made.load_state_dict(encoder.state_dict())
        return made

    return copy


def provisions(grammar: SlotGrammar, labels: Tensor, drawn: torch.Generator) -> Tensor:
    """Sentences whose first slot says one of the two concepts of their class; everything else may be anything."""
    concepts = grammar.draw(len(labels), generator=drawn)
    concepts[:, 0] = 2 * labels + concepts[:, 0] % 2
    return grammar.sentences(concepts, generator=drawn)


def setfit(encoder: TokenTransformer, ids: Tensor, labels: Tensor, *, seed: int, steps: int) -> TokenTransformer:
    """``encoder``, tuned on pairs of the labelled sentences, sixteen a step."""
    pairs = LabelPairs(labels.numpy(), seed=seed)
    first, second, near = (torch.from_numpy(each) for each in pairs.pairs())
    objective = get("cosine-similarity-loss")

    def loss(index: Tensor) -> Tensor:
        one, other = encoder(torch.cat([ids[first[index]], ids[second[index]]])).chunk(2)
        cost: Tensor = objective(one, other, grade=near[index])
        return cost

    slot_grammar.train(loss, [encoder], items=len(first), seed=seed, steps=steps, batch_size=16)
    return encoder


def fine_tuned(encoder: TokenTransformer, ids: Tensor, labels: Tensor, *, seed: int, steps: int) -> Probabilities:
    """A linear layer on ``encoder``, both trained by cross-entropy on as many sentences a step."""
    with seeded(seed):
        layer = nn.Linear(encoder.dimension, CLASSES)

    def loss(index: Tensor) -> Tensor:
        return nn.functional.cross_entropy(layer(encoder(ids[index])), labels[index])

    slot_grammar.train(loss, [encoder, layer], items=len(ids), seed=seed, steps=steps, batch_size=32)
    return torch.no_grad()(lambda texts: layer(encoder(texts)).softmax(1).double().numpy())


def classified(encoder: TokenTransformer, ids: Tensor, labels: Tensor) -> Probabilities:
    """Logistic regression of the labels on the embeddings of ``ids``, of length 1."""

    @torch.no_grad()
    def embed(texts: Tensor) -> npt.NDArray[np.float32]:
        return nn.functional.normalize(encoder(texts), dim=1).numpy()

    head = LinearClassifier.fit(embed(ids), labels.numpy(), LABELS)
    return lambda texts: head.probabilities(embed(texts))


def weight_on_cues(
    probabilities: Probabilities, ids: Tensor, grammar: SlotGrammar, *, samples: int, seed: int
) -> float:
    """The share of the word weights of predictions that lies on the words of the first slot, the mean over ``ids``."""

    def of_texts(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        rows = [[int(word[1:]) for word in text.split()] for text in texts]
        padded = [row + [grammar.special.padding] * (ids.shape[1] - len(row)) for row in rows]
        return probabilities(torch.tensor(padded))

    cues = [f"w{word}" for word in (grammar.slot == 0).nonzero()[:, 0].tolist()]
    shares = []
    for row in ids.tolist():
        text = " ".join(f"w{word}" for word in row if word != grammar.special.padding)
        shares.append(explain(of_texts, text, labels=LABELS, samples=samples, seed=seed).share_on(cues))
    return sum(shares) / len(shares)


RECIPE = Recipe(
    id="setfit",
    paper=Paper("Contrast Is All You Need", "Kilic et al.", 2023, "2307.02882"),
    claim="From a few examples of each class, an encoder tuned on pairs of them and a logistic regression classify "
    "better than plain fine-tuning does, and what they predict hangs more on the informative words.",
    parts={
        "relation": "texts of one label are near, others far; pairs drawn lazily, as many near as far",
        "score": "cosine",
        "objective": "claif, the squared error of the cosine against 1 or 0 (cosine-similarity-loss)",
        "procedure": "pairs first; then the encoder is frozen and logistic regression fitted to its embeddings",
        "evaluation": "macro-F1; LIME's word weights on known cue words",
    },
    defaults={"batch_size": 16, "epochs": 1, "learning_rate": 2e-5, "strategy": "oversampling"},
    world=slot_grammar.WORLD
    + " A class is two concepts of the first slot, six classes in all; the other slots and the "
    "function words are shared boilerplate. The encoder, a table of word vectors and one pre-norm transformer layer, "
    "learned 100 steps from pairs of paraphrases. Of each class eight sentences are given: 120 steps of 16 pairs, or "
    "of 32 sentences by cross-entropy in a linear layer and the encoder, AdamW at 0.001. 2,400 fresh sentences are "
    "asked, six of them explained (LIME, 500 samples, ten words); measures are means over three draws of the eight.",
    statements=[
        Statement(MACRO_F1, SETFIT, FINE_TUNED),
        Statement(MACRO_F1, SETFIT, UNTOUCHED),
        Statement(SHARE, SETFIT, FINE_TUNED),
    ],
    experiment=experiment,
    sabotage="labels of other, random sentences decide which pairs are near",
    not_asserted="That predictions hang more on the informative words than after fine-tuning stays open here: both "
    "tunings nearly double the weight on cue words, and which does more changes with the seed. With one draw of the "
    "eight sentences a seed and twelve explanations, macro-F1 was 0.041 higher than by fine-tuning (-0.026 to 0.109, "
    "seeds 0 to 4) and the weight on cue words 0.030 lower (-0.171 to 0.111); the mean of three draws was brought in "
    "after that. How few samples do, and by how much (legal provisions of LEDGAR), is not measured: the paper's "
    "figures were not seen.",
    verified="pair sampling, loss and LIME read in the packages setfit and lime; of the study its abstract and a "
    "public summary",
    training=label_pairs.TRAINING,
)
