"""Examples of objectives made of another."""

from __future__ import annotations

from nearfar.objectives import DCL, InfoNCE, SupCon
from nearfar.objectives.wrappers import HardnessWeighted, Symmetric
from support.examples import Example

EXAMPLES = {
    "symmetric": Example(lambda: Symmetric(DCL(temperature="learned:0.3"))),
    "hardness-weighted": Example(
        lambda: HardnessWeighted(InfoNCE(temperature="learned:0.3"), strength=2.0), detached=True
    ),
    "hardness-weighted labels": Example(lambda: HardnessWeighted(SupCon(temperature=0.3), detached=False), "labels"),
}
