"""Examples of temperatures that change from batch to batch or from item to item, and of objectives that need them."""

from __future__ import annotations

import torch

from nearfar.contrast import AdaptiveTemperature, CosineTemperature, IndividualTemperature
from nearfar.objectives import DCL, DCLW, MACL, InfoNCE, ISogCLR, SogCLR
from support.examples import Example


def _after_some_steps() -> CosineTemperature:
    temperature = CosineTemperature(0.1, 0.6, 12)
    temperature.set_step(7)
    return temperature


def _by_item() -> IndividualTemperature:
    temperature = IndividualTemperature(0.3)

    temperature.temperatures.write(torch.arange(8), torch.linspace(0.1, 0.9, 8))
    return temperature


EXAMPLES = {
    "info-nce cosine": Example(lambda: InfoNCE(temperature=_after_some_steps(), two_sided=True)),
    "info-nce adaptive": Example(
        lambda: InfoNCE(temperature=AdaptiveTemperature(0.2, 2.0, 0.4), two_sided=True), detached=True
    ),
    "info-nce individual": Example(lambda: InfoNCE(temperature=_by_item(), two_sided=True)),
    "dcl individual": Example(lambda: DCL(temperature=_by_item()), "views"),
    "dclw adaptive": Example(lambda: DCLW(temperature="adaptive:0.2:2:0.4"), "labels", detached=True),
    "macl": Example(lambda: MACL(), "views", detached=True),
    "macl pairs": Example(lambda: MACL(temperature=0.2, alpha=1.5, reference=0.3, two_sided=True), detached=True),
    "macl unweighted": Example(lambda: MACL(temperature=0.3, reweight=False), "labels", detached=True),
    "sogclr": Example(lambda: SogCLR(temperature=0.3), "views", detached=True),
    "sogclr pairs": Example(lambda: SogCLR(temperature=0.3, two_sided=True), detached=True),
    "isogclr": Example(lambda: ISogCLR(), "views", detached=True),
    "isogclr unimodal": Example(lambda: ISogCLR("unimodal", temperature=_by_item()), detached=True),
    "isogclr bimodal": Example(lambda: ISogCLR("bimodal", two_sided=True, temperature=0.3), detached=True),
}
