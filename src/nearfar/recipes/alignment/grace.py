"""GRACE (Sun et al., 2025): similarity is the reward of what a model writes about a text before it embeds it."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.alignment.online.costs import PolicyGradient
from nearfar.alignment.online.loop import OnlineSettings, improve
from nearfar.alignment.tables import LinearPolicy
from nearfar.contrast.score import normalize
from nearfar.data.synthetic.bridged_topics import BridgedTopics
from nearfar.objectives import GRPO
from nearfar.objectives.preference_values import grace_reward
from nearfar.recipes import answers
from nearfar.recipes.recipe import Arms, Paper, Recipe, Scale, Statement, at

ACCURACY, MARGIN = "accuracy@1 of a query's document", "cosine to its document beyond others"
BEFORE, METHOD, TURNED = "as it begins", "GRACE", "reward turned"
TOPICS, PAIRS, DIMENSION, KNOWN, NAMED, COOL = 16, 512, 32, 3.0, 4, 0.5


def experiment(seed: int, scale: Scale, *, sabotage: bool = False) -> Arms:
    """A policy that names topics is rewarded by how near its documents come to their queries, or how far."""
    world = BridgedTopics(TOPICS)
    drawn, held_out = answers.stream(seed), answers.held_out(seed)
    vectors = torch.randn(len(world.symbols), DIMENSION, generator=drawn)
    topic = torch.randint(TOPICS, (PAIRS,), generator=drawn)
    other = torch.randint(PAIRS, (PAIRS,), generator=drawn)
    seen = _texts(world, topic, topic, drawn)
    asked = torch.arange(TOPICS).repeat(8)
    unseen = _texts(world, torch.arange(TOPICS), asked, held_out)
    settings = OnlineSettings(
        responses=8,
        steps=at(scale, smoke=4, quick=400, full=1000),
        refresh=4,
        prompts_a_round=64,
        batch_size=16,
        learning_rate=0.1,
        seed=seed,
    )

    def embedded(bags: Tensor, name: Tensor) -> Tensor:
        return normalize(bags @ vectors + NAMED * vectors[name])

    def measured(policy: LinearPolicy) -> dict[str, float]:
        generator = answers.held_out(seed)
        name = policy.on(*unseen).sample(torch.arange(len(unseen[0])), 1, generator=generator)[:, 0]
        document, query = embedded(unseen[0], name).tensor_split([TOPICS])
        cosine = query @ document.T
        own = cosine.gather(1, asked[:, None])
        rest = (cosine.sum(1, keepdim=True) - own) / (TOPICS - 1)
        return {ACCURACY: float((cosine.argmax(1) == asked).float().mean()), MARGIN: float((own - rest).mean())}

    def trained(sign: float, *, mixed: bool = False) -> dict[str, float]:
        policy, generator = LinearPolicy(*seen), answers.stream(seed)

        def one(rows: Tensor, count: int) -> Tensor:
            """A text of each row with one rationale, which its group shares."""
            cooler = LinearPolicy(seen[0], policy.table() / COOL)
            name = cooler.sample(rows, 1, generator=generator)[:, 0]
            return embedded(seen[0][rows], name).repeat_interleave(count, 0)

        def reward(documents: Tensor, names: Tensor) -> Tensor:
            n, count = names.shape
            # sabotaged: queries of other groups
            partner = documents[torch.randperm(n, generator=generator)] if mixed else documents
            found = grace_reward(
                one(PAIRS + partner, count),
                embedded(seen[0][documents].repeat_interleave(count, 0), names.flatten()),
                one(other[documents], count),
                group=torch.arange(n).repeat_interleave(count),
            )
            return sign * found.reshape(n, count)

        improve(policy, torch.arange(PAIRS), reward, PolicyGradient(GRPO(advantage="centered")), settings)
        return measured(policy)

    if sabotage:
        return {METHOD: trained(1.0, mixed=True)}
    return {BEFORE: measured(LinearPolicy(*seen)), METHOD: trained(1.0), TURNED: trained(-1.0)}


def _texts(
    world: BridgedTopics, documents: Tensor, queries: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Documents, then queries of these topics, as words, and what the policy thinks of their topics by itself."""
    texts = world.texts(documents, "d", generator=generator) + world.texts(queries, "q", generator=generator)
    known = torch.nn.functional.one_hot(torch.cat([documents, queries]), TOPICS)
    return world.bags(texts), KNOWN * known + torch.randn(known.shape, generator=generator)


RECIPE = Recipe(
    id="grace",
    paper=Paper(
        "GRACE: Generative Representation Learning via Contrastive Policy Optimization",
        "Sun et al.",
        2025,
        "2510.04506",
    ),
    claim="Similarity as the reward of a group-relative policy gradient teaches a model to write, about a text, what "
    "makes its embedding find the texts it belongs with.",
    parts={
        "relation": "a query, its document and another document",
        "encoder": "a rationale is written, then text and rationale are pooled (nearfar.alignment.grace)",
        "score": "cosine",
        "objective": "grpo with centred advantages; the reward is contrast over tau, consistency and other groups",
        "procedure": "eight rationales of each document, drawn anew every four steps",
        "evaluation": "retrieval of held-out documents by held-out queries",
    },
    defaults={"tau": 0.1, "consistency": 0.2, "cross_group": 0.2, "responses": 8, "learning_rate": 1e-6, "epochs": 2},
    world="16 topics with four words each in queries and four others in documents; a text has three words of its topic "
    "and one of another's. A rationale is the name of a topic. The policy is linear in the words of a text; its logits "
    "begin with 3 for the right name and N(0, 1) noise for each text and name. An embedding is the sum of random word "
    "vectors (32 dimensions, fixed) of the text and four times the name's. 512 pairs, each with any document as "
    "negative; rewards and their weights as in the paper, rationales of query and negative at temperature 0.5; Adam at "
    "0.1, 400 steps of 16 groups of 8. 128 held-out queries look for one document of each topic.",
    statements=[
        Statement(ACCURACY, METHOD, BEFORE, margin=0.15, because="half of the mean of two other seeds"),
        Statement(MARGIN, METHOD, BEFORE, margin=0.1, because="half of the mean of two other seeds"),
        Statement(
            MARGIN, TURNED, BEFORE, direction="lower", margin=0.08, because="half of the mean of two other seeds"
        ),
    ],
    experiment=experiment,
    sabotage="the queries of a batch are out of order, so that a document is rewarded by another's query",
    not_asserted="The paper's figures (MTEB, mean of four models: +11.5 % supervised, +6.9 % without labels) and that "
    "general abilities stay. A language model in place of the linear policy: nearfar.alignment.grace trains one with "
    "the same loop, and tests check its rewards and pooling; in a trial of 60 steps on two seeds the accuracy of a "
    "model of two layers moved by chance alone. That hard negatives teach anything: as released they cancel in the "
    "advantage, which a test shows. With other groups counted from the document, which does not cancel, it came out "
    "alike on two seeds.",
    verified="reward, pooling, rollouts and advantage read in the official code; the claim is the abstract's",
    build=GRPO,
)
