"""Examples of kernels, neighbours, attraction and repulsion, class priors, gates and labels that are numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.contrast import Labels, Relation
from nearfar.contrast.precision import at_least_float32
from nearfar.objectives import CACR, CCLK, GML, Hydra, InfoNCE, KernelInfoNCE, SupCon, SupReMix
from support.examples import Example


class GatedByLabel(Hydra):
    """Called like the others: gate and partner class follow from embedding and label."""

    def forward(self, query: Tensor, key: Tensor | None = None, *, relation: Relation, **where: Any) -> Tensor:
        assert isinstance(relation, Labels)
        labels = relation.query_state["label"]
        partners = torch.where(labels >= 0, (labels + 1) % 3, labels)
        gate = torch.sigmoid(at_least_float32(query).flip(1))
        return super().forward(query, key, gate=gate, labels=labels, partners=partners, **where)


class OfNumbers(SupReMix):
    """Without chance: all mixtures, one share."""

    def __init__(self) -> None:
        super().__init__(3.0, mixtures=None, share=0.25, temperature="learned:0.4")


EXAMPLES = {
    "info-nce kernel": Example(lambda: InfoNCE(temperature=0.3), "conditions"),
    "supcon neighbours": Example(lambda: SupCon(temperature="learned:0.3"), "neighbours"),
    "info-nce neighbours": Example(lambda: InfoNCE(temperature=0.3, two_sided=True), "neighbours of keys"),
    "ccl-k": Example(lambda: CCLK(temperature="learned:0.4"), "conditions"),
    "ccl-k weak": Example(lambda: CCLK("weak", temperature=0.4), "conditions"),
    "ccl-k official": Example(lambda: CCLK("weak", official=True, regularization=0.1), "conditions"),
    "cacr": Example(lambda: CACR(), "views"),
    "cacr pairs": Example(lambda: CACR(0.7, 1.3, t_negative=2.0, tau_plus=0.1, two_sided=True)),
    "cacr distance": Example(lambda: CACR(score="negative-squared-euclidean"), "labels"),
    "cacr rbf": Example(lambda: CACR(repulsion="rbf"), "labels"),
    "cacr detached": Example(lambda: CACR(detach_weights=True), detached=True),
    "kernel-infonce": Example(lambda: KernelInfoNCE(temperature="learned:0.5"), "views"),
    "kernel-infonce laplacian": Example(lambda: KernelInfoNCE("laplacian", two_sided=True)),
    "kernel-infonce exponential": Example(lambda: KernelInfoNCE("exponential", eps=1e-6), "labels"),
    "kernel-infonce manhattan": Example(lambda: KernelInfoNCE("laplacian", distance_p=1.0), "labels"),
    "kernel-infonce simple sum": Example(lambda: KernelInfoNCE("simple-sum", gaussian_temperature=0.8), "graded"),
    "kernel-infonce two halves": Example(lambda: KernelInfoNCE("concatenation-sum"), "views"),
    "kernel-infonce two losses": Example(lambda: KernelInfoNCE("simple-sum", mixture="losses", weight=0.3), "labels"),
    "kernel-infonce losses of halves": Example(
        lambda: KernelInfoNCE("concatenation-sum", mixture="losses", two_sided=True)
    ),
    "kernel-infonce arc-cosine": Example(lambda: KernelInfoNCE("arc-cosine", order=2), "views"),
    "kernel-infonce spectral": Example(lambda: KernelInfoNCE("spectral"), "views"),
    "gml": Example(lambda: GML(prior=[5, 3, 1, 2]), "labels", detached=True),
    "gml fixed": Example(lambda: GML(temperature=0.3), "labels"),
    "hydra": Example(lambda: GatedByLabel(temperature="learned:0.3"), "labels"),
    "hydra with self": Example(lambda: GatedByLabel(include_self=True), "labels"),
    "supremix": Example(OfNumbers, "conditions", detached=True),
}
