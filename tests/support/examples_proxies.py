"""Examples of proxies and classifiers: items with labels, against learned vectors of four classes."""

from __future__ import annotations

from nearfar.objectives import (
    ArcFace,
    CatLIP,
    Center,
    CosFace,
    NormSoftmax,
    ProxyAnchor,
    ProxyNCA,
    SoftTriple,
    SphereFace,
)
from support.examples import Example

EXAMPLES = {
    "proxy-nca": Example(lambda: ProxyNCA(4, 4), "labels"),
    "proxy-nca own": Example(lambda: ProxyNCA(4, 4, include_own=True, scale=3.0), "labels"),
    "proxy-anchor": Example(lambda: ProxyAnchor(5, 4, alpha=6.0), "labels"),
    "soft-triple": Example(lambda: SoftTriple(4, 4, centers=3, scale=5.0), "labels"),
    "norm-softmax": Example(lambda: NormSoftmax(4, 4, temperature="learned:0.3"), "labels"),
    "arcface": Example(lambda: ArcFace(4, 4, scale=6.0), "labels"),
    "arcface easy": Example(lambda: ArcFace(4, 4, scale=6.0, easy_margin=True, sub_centers=2), "labels"),
    "cosface": Example(lambda: CosFace(6, 4, scale=6.0), "labels"),
    "sphereface": Example(lambda: SphereFace(4, 4, annealing=0.5), "labels"),
    "catlip": Example(lambda: CatLIP(4, 4, prior=0.2), "labels"),
    "center": Example(lambda: Center(4, 4, weight=0.5), "labels"),
}
