"""Examples of preference objectives on the responses of a prompt."""

from __future__ import annotations

from nearfar.objectives import AMPO, RRHF, BestOfN, CandidateRanking, DisCO, PairwiseLink
from support.examples import Example

EXAMPLES = {
    "pairwise-link discopop": Example(lambda: PairwiseLink("discopop", temperature="learned:0.3")),
    "pairwise-link ipo two-sided": Example(lambda: PairwiseLink("ipo", average="pairs", two_sided=True)),
    "rrhf": Example(RRHF, "graded"),
    "crl-factuality": Example(lambda: CandidateRanking(0.1, ties="skip"), "graded"),
    "best-of-n": Example(lambda: BestOfN(0.5, negative="mean"), "graded"),
    "ampo": Example(lambda: AMPO(temperature="learned:0.7"), "graded"),
    "disco": Example(lambda: DisCO(tau=2.0)),
    "disco basic": Example(lambda: DisCO(form="basic", questions="active")),
}
