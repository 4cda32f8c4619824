"""Examples of the softmax family's further members."""

from __future__ import annotations

from nearfar.contrast.directions import DIRECTIONS
from nearfar.objectives import (
    CPC,
    DHEL,
    FMICL,
    MVDHEL,
    NCA,
    NNCLR,
    Debiased,
    HardNegative,
    InfoNCE,
    MoCo,
    MoCoDualHard,
    MVInfoNCE,
    NPairs,
    PolyView,
    SigLIP,
    SpectralContrastive,
    SupCon,
)
from support.examples import Example

EXAMPLES = {
    "info-nce smoothed": Example(lambda: InfoNCE(temperature="learned:0.3", label_smoothing=0.2)),
    "info-nce own": Example(lambda: InfoNCE(temperature="learned:0.3", own_denominator=True, average="pairs")),
    "info-nce soft": Example(lambda: InfoNCE(temperature=0.3), "graded"),
    "info-nce directions": Example(lambda: InfoNCE(temperature="learned:0.3", directions=DIRECTIONS)),
    "supcon official": Example(
        lambda: SupCon(temperature="learned:0.3", base_temperature=0.1, without_positive="zero"), "labels"
    ),
    "debiased": Example(lambda: Debiased(0.2, temperature="learned:0.4")),
    "hcl": Example(lambda: HardNegative(0.5, 0.2, temperature="learned:0.4"), "views"),
    "hcl detached": Example(lambda: HardNegative(0.5, detach_weight=True), "labels", detached=True),
    "dhel": Example(lambda: DHEL(temperature="learned:0.4"), "labels"),
    "mv-infonce": Example(lambda: MVInfoNCE(temperature="learned:0.4"), "views"),
    "mv-dhel": Example(lambda: MVDHEL(temperature="learned:0.4"), "labels"),
    "poly-view": Example(lambda: PolyView(temperature="learned:0.4"), "labels"),
    "poly-view arithmetic": Example(lambda: PolyView("arithmetic", temperature="learned:0.4"), "labels"),
    "poly-view sufficient": Example(lambda: PolyView("sufficient", temperature="learned:0.4"), "labels"),
    "n-pairs": Example(lambda: NPairs(0.01)),
    "nca": Example(lambda: NCA(temperature="learned:2"), "labels"),
    "nca probability": Example(lambda: NCA("probability"), "labels"),
    "siglip": Example(lambda: SigLIP(temperature="learned:0.4", bias=-1.0)),
    "cpc": Example(lambda: CPC(temperature="learned:2")),
    "moco": Example(lambda: MoCo(temperature="learned:0.4")),
    "moco-dual-hard": Example(lambda: MoCoDualHard("query", hardest=3, skip=1, temperature="learned:0.4")),
    "nnclr": Example(lambda: NNCLR(temperature="learned:0.4")),
    "spectral-contrastive": Example(lambda: SpectralContrastive(mu=2.0)),
    "f-micl": Example(lambda: FMICL(alpha=2.0)),
    "f-micl vincze-le-cam": Example(lambda: FMICL("vincze-le-cam", sigma=0.8, mu=1.5), "labels"),
}
