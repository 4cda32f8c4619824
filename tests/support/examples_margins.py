"""Examples of margins on pairs, on whole rows and on tuples."""

from __future__ import annotations

from nearfar.objectives import (
    SNR,
    Angular,
    Circle,
    Contrastive,
    IntraPairVariance,
    LiftedStructure,
    Margin,
    MultiSimilarity,
    RankedList,
    Triplet,
    TupletMargin,
)
from support.examples import Example

EXAMPLES = {
    "contrastive": Example(lambda: Contrastive(margin=2.5)),
    "contrastive active": Example(lambda: Contrastive("linear", margin=2.5, average="active"), "labels"),
    "contrastive sides": Example(lambda: Contrastive(margin=2.5, average="sides", two_sided=True)),
    "contrastive chopra": Example(lambda: Contrastive("chopra", largest=5.0), "views"),
    "snr": Example(lambda: SNR(margin=3.0)),
    "margin": Example(lambda: Margin(learned=True, nu=0.1)),
    "margin triplets": Example(lambda: Margin("triplets"), "labels"),
    "intra-pair-variance": Example(IntraPairVariance),
    "intra-pair-variance two-sided": Example(lambda: IntraPairVariance(0.2, 0.1, two_sided=True)),
    "intra-pair-variance labels": Example(IntraPairVariance, "labels"),
    "multi-similarity": Example(lambda: MultiSimilarity(beta=5.0)),
    "multi-similarity unmined": Example(lambda: MultiSimilarity(base=0.5, epsilon=None), "labels"),
    "circle": Example(lambda: Circle(gamma=8.0), "labels", detached=True),
    "ranked-list": Example(lambda: RankedList(detach_weights=False, temperature_near=1.0)),
    "ranked-list detached": Example(lambda: RankedList(smoothing=1e-3), "labels", detached=True),
    "tuplet-margin": Example(lambda: TupletMargin(scale=6.0)),
    "lifted-structure": Example(LiftedStructure, "labels"),
    "lifted-structure two-sided": Example(lambda: LiftedStructure(two_sided=True)),
    "lifted-structure generalized": Example(lambda: LiftedStructure("generalized"), "views"),
    "angular": Example(lambda: Angular(0.5), "labels"),
    "angular unnormalised": Example(lambda: Angular(0.5, normalize_far=False, two_sided=True)),
    "triplet": Example(lambda: Triplet(margin=1.0)),
    "triplet hard": Example(lambda: Triplet("hard", margin=1.0), "labels"),
    "triplet semi-hard": Example(lambda: Triplet("semi-hard", margin=1.0, average="active", two_sided=True)),
}
