"""Examples of the softmax family's founders."""

from __future__ import annotations

from nearfar.objectives import DCL, DCLW, InfoNCE, SupCon
from support.examples import Example

EXAMPLES = {
    "info-nce": Example(lambda: InfoNCE(temperature="learned:0.3")),
    "info-nce two-sided": Example(lambda: InfoNCE(temperature="learned:0.3", two_sided=True)),
    "info-nce views": Example(lambda: InfoNCE(temperature=0.3), "views"),
    "supcon": Example(lambda: SupCon(temperature=0.3), "labels"),
    "supcon in": Example(lambda: SupCon("in", temperature=0.3), "labels"),
    "dcl": Example(lambda: DCL(temperature="learned:0.3")),
    "dclw": Example(lambda: DCLW(temperature="learned:0.3")),
}
