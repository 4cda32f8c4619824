"""Examples of the bounds of mutual information and of ranking NCE."""

from __future__ import annotations

from nearfar.objectives import JSD, MINE, NWJ, SMILE, InfoNCEBound, InterpolatedBound, RankingNCE
from support.examples import Example

EXAMPLES = {
    "mine": Example(MINE),
    "mine dv two-sided": Example(lambda: MINE(1.0, two_sided=True)),
    "nwj": Example(lambda: NWJ(0.5)),
    "nwj tuba": Example(lambda: NWJ(0.3, learn_baseline=True), "labels"),
    "jsd": Example(lambda: JSD(two_sided=True)),
    "jsd nwj": Example(lambda: JSD("nwj"), "views", detached=True),
    "smile": Example(lambda: SMILE(1.0), detached=True),
    "interpolated-bound": Example(lambda: InterpolatedBound(0.3, 0.5, learn_baseline=True)),
    "interpolated-bound all": Example(lambda: InterpolatedBound(1.0), "labels"),
    "infonce-bound": Example(lambda: InfoNCEBound(temperature="learned:0.5")),
    "ranking-nce": Example(lambda: RankingNCE(two_sided=True)),
}
