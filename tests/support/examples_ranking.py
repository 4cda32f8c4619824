"""Examples of ranking and distillation."""

from __future__ import annotations

from nearfar.objectives import (
    IRPO,
    KL,
    ApproxNDCG,
    GroCo,
    LambdaRank,
    ListMLE,
    ListNet,
    MannWhitney,
    Matryoshka,
    PairwiseHinge,
    PairwiseLogistic,
    PointMSE,
    PointSigmoid,
    SmoothAP,
    get,
)
from support.examples import Example

EXAMPLES = {
    "pairwise-logistic": Example(lambda: PairwiseLogistic(temperature="learned:0.3")),
    "pairwise-logistic pairs": Example(lambda: PairwiseLogistic(average="pairs", temperature=0.3, two_sided=True)),
    "pairwise-logistic ranknet": Example(lambda: get("ranknet", temperature="learned:0.3"), "graded"),
    "pairwise-hinge": Example(lambda: PairwiseHinge(0.7, temperature=0.3)),
    "pairwise-hinge graded": Example(lambda: get("lipo-pair-hinge", temperature="learned:0.3"), "graded"),
    "point-mse": Example(lambda: PointMSE(temperature="learned:0.3"), "graded"),
    "point-sigmoid": Example(lambda: PointSigmoid(average="items", temperature="learned:0.3")),
    "listnet": Example(lambda: ListNet(temperature="learned:0.3"), "graded"),
    "listnet normalized": Example(lambda: ListNet("normalized", temperature=0.3, two_sided=True), "graded"),
    "listmle": Example(lambda: ListMLE(temperature="learned:0.3"), "graded"),
    "listmle labels": Example(lambda: ListMLE(divide=True, temperature=0.3), "labels"),
    "lambda-rank": Example(lambda: LambdaRank(temperature="learned:0.3"), "graded"),
    "lambda-rank loss1": Example(lambda: LambdaRank("ndcg-loss1", k=3, cut="both", average="pairs"), "graded"),
    "lambda-rank pairs": Example(lambda: LambdaRank("ndcg-loss2++", k=3, average="pairs", temperature=0.3), "graded"),
    "lambda-rank dcg": Example(lambda: get("lipo-lambda", temperature=0.3), "labels"),
    "approx-ndcg": Example(lambda: ApproxNDCG(temperature="learned:0.3"), "graded"),
    "smooth-ap": Example(lambda: SmoothAP(temperature="learned:0.3")),
    "smooth-ap own": Example(lambda: SmoothAP(own=True, temperature="learned:0.3"), "labels"),
    "irpo": Example(lambda: IRPO(temperature="learned:0.3"), "graded"),
    "irpo discount": Example(lambda: IRPO("discount", temperature=0.3)),
    "mw-loss": Example(lambda: MannWhitney(temperature="learned:0.3")),
    "mw-loss graded": Example(lambda: MannWhitney(temperature=0.3, score="negative-euclidean"), "graded"),
    "mw-loss labels": Example(lambda: MannWhitney(temperature=0.3), "labels"),
    "groco": Example(lambda: GroCo(3, steepness=4.0), "views", detached=True),
    "groco pairs": Example(lambda: GroCo(4, keys_have_gradient=True), "pairs"),
    "kl": Example(lambda: KL(temperature="learned:0.7", scaled=False), "graded"),
    "kl both": Example(lambda: KL("both", temperature=0.7, two_sided=True), "graded"),
    "matryoshka": Example(lambda: Matryoshka(get("info-nce", temperature="learned:0.3"), (4, 3, 1), (1.0, 0.5, 2.0))),
    "matryoshka triplet": Example(lambda: get("matryoshka(triplet)", dimensions="4,2"), "labels"),
}
