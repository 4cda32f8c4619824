"""Proxies: each class has learned vectors of its own, and labelled items are contrasted with them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.contrast.distributed import own_share, total_over_processes
from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Labels, Relation, candidates
from nearfar.contrast.score import Score, normalize
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, weighted_mean
from nearfar.objectives.composed import Way
from nearfar.objectives.margin_structured import log_one_plus
from nearfar.objectives.registry import register


class ProxyObjective(RowObjective):
    """Base of objectives that hold learned vectors for each class: proxies, centres, the rows of a classifier.

    They are called on labelled items, ``objective(z, relation=Labels(y))`` or ``objective(z, labels=y)``, with labels
    in ``[0, classes)``; an item with a negative label has no class and no cost. ``proxies`` is
    ``[classes * per_class, dimension]``, those of a class side by side.

    ``classes`` and ``dimension`` may be left out where they are not known yet: :meth:`make_proxies` then has to be
    called before the first use, and before an optimiser is made. Ready-made ``scores [n, classes * per_class]`` of a
    head of one's own need no proxies.

    Over several processes every process holds all proxies and contributes an equal share of them to the engine, so that
    their gradients sum to those of one process.
    """

    needs_labels = True
    needs_negative = False

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        per_class: int = 1,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)
        if per_class < 1:
            raise UsageError(f"{self.name}: a class needs at least one proxy, got {per_class}")
        self.per_class = per_class
        self.classes: int | None = None
        self.dimension: int | None = None
        self.proxies: nn.Parameter | None
        self.register_parameter("proxies", None)
        if classes is not None and dimension is not None:
            self.make_proxies(classes, dimension)
        elif classes is not None or dimension is not None:
            raise UsageError(
                f"{self.name} needs both classes and dimension, got {classes} and {dimension}",
                hint="how many classes there are, and how long an embedding is",
            )

    def make_proxies(self, classes: int, dimension: int) -> None:
        """Make new proxies, drawn with torch's generator, for so many classes and embeddings of that dimension."""
        for label, value in (("classes", classes), ("dimension", dimension)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{self.name}: {label} must be a whole number >= 1, got {value!r}")
        self.classes, self.dimension = classes, dimension
        self.proxies = nn.Parameter(self.initial(classes * self.per_class, dimension))

    def initial(self, rows: int, dimension: int) -> Tensor:
        """The proxies at the start: random directions."""
        return normalize(torch.randn(rows, dimension))

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        labels: Tensor | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        """The loss of items ``query [n, dimension]``; ``labels [n]`` are the same as ``relation=Labels(labels)``."""
        if labels is not None:
            if relation is not None:
                raise ValueError(f"{self.name}: give labels or a relation, not both")
            relation = self.relate(labels)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)

    def relate(self, labels: Tensor) -> Relation:
        """The relation that ``labels`` stand for."""
        return Labels(labels)

    def against(self, relation: Relation | None, tags: Tensor, classes: int) -> Relation:
        """The relation of the items to keys of those classes. Raises ValueError for labels that are no class."""
        if not isinstance(relation, Labels) or relation.key_state is not None:
            raise ValueError(f"{self.name} takes labelled items: give labels=y or relation=Labels(y)")
        labels = relation.query_state["label"].to(tags.device)
        if labels.numel() and int(labels.max()) >= classes:
            raise ValueError(f"{self.name}: there are {classes} classes, got the label {int(labels.max())}")
        return Labels(labels, tags)

    def keys(self, like: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
        """The proxies that this process contributes, and the class of each."""
        if self.proxies is None or self.classes is None:
            raise UsageError(
                f"{self.name} has no proxies yet",
                hint=f"make it with the number of classes and the dimension of the embeddings: "
                f"{type(self).__name__}(classes=10, dimension={like.shape[1]})",
            )
        # whole classes are shared out, so that the proxies of a class stay side by side
        shared = own_share(self.proxies.view(self.classes, self.per_class, -1), group)
        classes = own_share(torch.arange(self.classes, device=like.device), group)
        return shared.flatten(0, 1).to(like.dtype), classes.repeat_interleave(self.per_class)

    def evaluation(
        self,
        query: Tensor | None,
        key: Tensor | None,
        *,
        relation: Relation | None,
        scores: Tensor | None,
        memory: Memory,
        tile_rows: int | None,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Report]:
        """The loss and what was done; the engine calls it."""
        if key is not None:
            raise ValueError(f"{self.name} contrasts items with its own proxies and takes no keys")
        if query is None:
            columns = 0 if scores is None else scores.shape[-1]
            tags = torch.arange(columns, device=None if scores is None else scores.device) // self.per_class
            relation = self.against(relation, tags, columns // self.per_class)
            return evaluate_rows(
                self, None, None, relation=relation, scores=scores, memory=memory, tile_rows=tile_rows, group=group
            )
        if query.dim() != 2 or not query.is_floating_point() or query.shape[1] != (self.dimension or query.shape[1]):
            expected = "dimension" if self.dimension is None else self.dimension
            raise ValueError(
                f"{self.name}: items must be [n, {expected}] floating point, got {tuple(query.shape)} of {query.dtype}"
            )
        query = at_least_float32(query)
        keys, tags = self.keys(query, group)
        assert self.classes is not None
        relation = self.against(relation, tags, self.classes)
        if relation.shape[0] != len(query):
            raise ValueError(f"{self.name}: there are {len(query)} items and labels of {relation.shape[0]}")
        return self.contrast(query, keys, relation, Way(memory, tile_rows, group))

    def contrast(self, query: Tensor, keys: Tensor, relation: Relation, way: Way) -> tuple[Tensor, Report]:
        """The loss of items ``[n, d]`` against the proxies of this process."""
        return way.evaluate(self, query, keys, relation)

    def by_class(self, scores: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``[t, classes, per_class]``, and the weight ``[t, classes]`` that the proxies of a class share."""
        apart = (scores.shape[0], -1, self.per_class)
        return scores.view(apart), weight.reshape(apart)[:, :, 0]


def cross_entropy(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """``-log softmax(logits)`` of the positive columns, ``[t]``."""
    return log_sum_exp(logits, candidates(positive, negative)) - weighted_mean(logits, positive)


@register
class ProxyNCA(ProxyObjective):
    """Proxy-NCA: neighbourhood components analysis against one learned proxy a class (Movshovitz-Attias et al., 2017).

    ``-log( exp(-scale D_iy^2) / sum_{c != y} exp(-scale D_ic^2) )``, D the Euclidean distance of normalised vectors.
    Without a lower bound, since the own proxy is not in the sum.

    Arguments:
        classes, dimension: see :class:`ProxyObjective`.
        scale: > 0, default 1 (the paper's; Proxy-NCA++ sharpens it to 9).
        include_own: whether the own proxy is in the sum, as in Proxy-NCA++ and pytorch-metric-learning; default False,
            the paper's form. The loss is then a softmax over classes, in [0, inf).
        reduction: as in :class:`InfoNCE`.

    Proxies usually learn with a rate of their own, some 100 times that of the encoder.
    """

    name = "proxy-nca"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"proxy-nca++": {"include_own": True, "scale": 9.0}}
    formula = "-log( exp(-scale D_iy^2) / sum_{c != y} exp(-scale D_ic^2) )"
    paper = "Movshovitz-Attias 2017, No Fuss Distance Metric Learning using Proxies, arXiv:1703.07464"
    needs_negative = True

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        scale: float = 1.0,
        include_own: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, reduction=reduction)
        if not 0 < scale < float("inf"):
            raise UsageError(f"proxy-nca: scale must be a finite number > 0, got {scale}")
        self.scale = scale
        self.include_own = include_own

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        logits = self.scale * (2 * scores - 2)
        if self.include_own:
            return cross_entropy(logits, positive, negative)
        return log_sum_exp(logits, negative) - weighted_mean(logits, positive)


@register
class ProxyAnchor(ProxyObjective):
    """Proxy-anchor: each proxy pulls the items of its class and pushes all others (Kim et al., 2020).

    ``1/|C+| sum_{c in C+} log(1 + sum_{y_i = c} exp(-alpha (s_ic - delta)))
    + 1/|C| sum_c log(1 + sum_{y_i != c} exp(alpha (s_ic + delta)))`` with s cosines, C all classes and C+ those that
    the batch shows. In (0, inf). The hardest items of a class weigh most.

    Arguments:
        classes, dimension: see :class:`ProxyObjective`.
        alpha: > 0, default 32; delta: the margin, >= 0, default 0.1 (both the paper's).
        reduction: as in :class:`InfoNCE`; its rows are the proxies.

    An item without a label is pushed by all proxies. Over several processes the sums run over the items of all.
    Proxies usually learn with a rate of their own, some 100 times that of the encoder (the paper's).
    """

    name = "proxy-anchor"
    formula = (
        "mean_{c in C+} log(1 + sum_{y=c} exp(-alpha (s - delta))) + mean_c log(1 + sum_{y!=c} exp(alpha (s + delta)))"
    )
    paper = "Kim 2020, Proxy Anchor Loss for Deep Metric Learning, arXiv:2003.13911"
    needs_positive_scores = True

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        alpha: float = 32.0,
        delta: float = 0.1,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, reduction=reduction)
        if not 0 < alpha < float("inf"):
            raise UsageError(f"proxy-anchor: alpha must be a finite number > 0, got {alpha}")
        if not 0 <= delta < float("inf"):
            raise UsageError(f"proxy-anchor: delta must be a finite number >= 0, got {delta}")
        self.alpha = alpha
        self.delta = delta

    def contrast(self, query: Tensor, keys: Tensor, relation: Relation, way: Way) -> tuple[Tensor, Report]:
        assert relation.key_state is not None
        turned = Labels(relation.key_state["label"], relation.query_state["label"])
        return way.evaluate(self, keys, query, turned)

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ((positive > 0) | (negative > 0)).any(1)

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        shown = (torch.bincount(rows, minlength=count) > 0).sum()
        return {"shown": count / shown.clamp_min(1).to(scores.dtype)}

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        pull = log_one_plus(-self.alpha * (scores - self.delta), positive)
        push = log_one_plus(self.alpha * (scores + self.delta), negative)
        return state["shown"] * pull + push


@register
class SoftTriple(ProxyObjective):
    """SoftTriple: a softmax over classes, each with several centres (Qian et al., 2019).

    ``-log softmax(scale (S_c - margin [c = y]))_y`` with ``S_c = sum_k q_k s_ck``, ``q = softmax_k(s_ck / gamma)``, s
    cosines; plus ``tau / (C K (K - 1)) sum_c sum_{k < l} sqrt(2 - 2 w_ck . w_cl)`` over the C classes' K centres, which
    draws those together that a class does not need.

    Arguments:
        classes, dimension: see :class:`ProxyObjective`.
        centers: K >= 1, default 10; scale: lambda > 0, default 20; gamma: > 0, default 0.1; margin: delta >= 0, default
            0.01; tau: >= 0, default 0.2 (all the paper's). pytorch-metric-learning's form has no regulariser: tau=0.
        reduction: as in :class:`InfoNCE`; "none" leaves the regulariser out.
    """

    name = "soft-triple"
    formula = "-log softmax(scale (S_c - margin [c = y]))_y, S_c = sum_k softmax_k(s_ck / gamma) s_ck"
    paper = "Qian 2019, SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, arXiv:1909.05235"

    def __init__(
        self,
        classes: int | None = None,
        dimension: int | None = None,
        *,
        centers: int = 10,
        scale: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        tau: float = 0.2,
        reduction: str = "mean",
    ) -> None:
        super().__init__(classes, dimension, per_class=centers, reduction=reduction)
        for label, value in (("scale", scale), ("gamma", gamma)):
            if not 0 < value < float("inf"):
                raise UsageError(f"soft-triple: {label} must be a finite number > 0, got {value}")
        for label, value in (("margin", margin), ("tau", tau)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"soft-triple: {label} must be a finite number >= 0, got {value}")
        self.scale = scale
        self.gamma = gamma
        self.margin = margin
        self.tau = tau

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        to_centers, positive = self.by_class(scores, positive)
        negative = self.by_class(scores, negative)[1]
        to_classes = (torch.softmax(to_centers / self.gamma, dim=2) * to_centers).sum(2)
        margin = self.margin * (positive > 0).to(scores.dtype)
        return cross_entropy(self.scale * (to_classes - margin), positive, negative)

    def contrast(self, query: Tensor, keys: Tensor, relation: Relation, way: Way) -> tuple[Tensor, Report]:
        loss, report = super().contrast(query, keys, relation, way)
        if self.tau and self.per_class > 1 and self.reduction != "none":
            assert self.classes is not None
            centers = normalize(keys.view(-1, self.per_class, keys.shape[1]))
            one, other = torch.triu_indices(self.per_class, self.per_class, 1, device=keys.device)
            apart = torch.linalg.vector_norm(centers[:, one] - centers[:, other], dim=2).sum()
            share = self.tau / (self.classes * self.per_class * (self.per_class - 1)) * apart
            loss = loss + summed(share, way.group)
        return loss, report


def summed(share: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum of ``share`` over the processes, with the gradient of this process's share."""
    return share if group is None else share + (total_over_processes(share, group) - share.detach())
