"""Examples of the objectives of sentence and retrieval papers, as row contrasts."""

from __future__ import annotations

from nearfar.objectives import (
    CLHAIF,
    CLP,
    DCLR,
    GCL,
    MCSE,
    ClusterNS,
    CompCSE,
    DropInfoNCE,
    MoPQ,
    PromCSE,
    QuickThoughts,
    SetCSE,
    SGBert,
)
from support.examples import Example

EXAMPLES = {
    "sg-bert": Example(lambda: SGBert(temperature="learned:0.3")),
    "promcse": Example(lambda: PromCSE(0.5, 2.0, temperature="learned:0.3", two_sided=True)),
    "compcse": Example(lambda: CompCSE(width=3, temperature="learned:0.3")),
    "quick-thoughts": Example(lambda: QuickThoughts(self_score=0.5, temperature="learned:0.7")),
    "dclr": Example(lambda: DCLR(temperature="learned:0.3"), "views"),
    "dclr official-code": Example(lambda: DCLR("official-code", temperature="learned:0.3")),
    "gcl": Example(lambda: GCL(temperature="learned:0.3"), "graded"),
    "gcl by weight": Example(lambda: GCL("weights", temperature=0.3), "graded"),
    "clhaif": Example(lambda: CLHAIF(temperature="learned:0.3"), "graded"),
    "setcse": Example(lambda: SetCSE(temperature="learned:0.3"), "labels"),
    "setcse per pair": Example(lambda: SetCSE(per_pair=True, temperature=0.3, reduction="mean"), "labels"),
    "setcse infonce": Example(lambda: SetCSE("infonce", temperature="learned:0.3"), "labels"),
    "clp": Example(lambda: CLP(temperature=0.3)),
    "drop-infonce": Example(lambda: DropInfoNCE(temperature="learned:0.3")),
    "drop-infonce one": Example(lambda: DropInfoNCE("one", temperature=0.3), "labels"),
    "mopq": Example(lambda: MoPQ()),
    "clusterns": Example(lambda: ClusterNS(temperature=0.3)),
    "mcse": Example(lambda: MCSE(temperature=0.3)),
}
