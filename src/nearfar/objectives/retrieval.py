"""Retrieval: contrasts of queries with documents, in the forms of the papers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import mean_over_processes, sum_over_processes
from nearfar.contrast.engine import Memory, evaluate
from nearfar.contrast.paired import Paired
from nearfar.contrast.precision import at_least_float32, without_autocast
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score, normalize
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import log_sum_exp, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import SoftmaxObjective


@register
class CLP(SoftmaxObjective):
    """InfoNCE that keeps hard negatives near the queries they do answer (contrastive learning penalty; Yu, 2024).

    ``(1 - weight) InfoNCE(query, key) + weight mean_j (1 - cos(nq_j, p_j))`` over the hard negatives p_j and the
    embeddings nq_j of queries that they are right for. No temperature in the penalty; gradients reach all four kinds of
    vectors. In [0, inf).

    Called with ``query [n, d]``, ``key [m, d]`` whose last h rows are hard negatives, and ``negative_query [h, d]`` in
    their order; without ``negative_query`` it is InfoNCE with weight 1. Raises ValueError for shapes that do not fit.

    Arguments: ``weight`` in [0, 1], the paper's lambda, default 0.1; ``temperature`` default 0.02 (the paper's);
    ``score``, ``reduction`` ("mean" or "sum" of the contrast alone) as in InfoNCE.

    The published formula has the penalty inside the minus sign and sums similarities; the code, which gave the numbers,
    is what stands here. Its indexing of negatives is right for one query a batch only.
    """

    name = "clp"
    needs = ("negative_query",)
    formula = "(1 - weight) InfoNCE + weight mean_j (1 - cos(nq_j, p_j))"
    paper = (
        "Yu 2024, Efficient fine-tuning methodology of text embedding models for information retrieval, "
        "arXiv:2412.17364"
    )
    default_temperature = 0.02
    needs_negative = False

    def __init__(
        self,
        weight: float = 0.1,
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)
        if not 0 <= weight <= 1:
            raise UsageError(f"clp: the weight must lie in [0, 1], got {weight}")
        self.weight = weight

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        negative_query: Tensor | None = None,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        if query is not None and key is not None:
            query, key = at_least_float32(query), at_least_float32(key)
        contrast = super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)
        if negative_query is None:
            return contrast
        if key is None or negative_query.shape[1:] != key.shape[1:] or len(negative_query) > len(key):
            raise ValueError(
                f"clp: negative_query {tuple(negative_query.shape)} does not go with the last keys of "
                f"{None if key is None else tuple(key.shape)}"
            )
        negative = key[len(key) - len(negative_query) :]
        own = (normalize(at_least_float32(negative_query)) * normalize(negative)).sum(1)
        return (1 - self.weight) * contrast + self.weight * mean_over_processes(1 - own, group)


@register
class DropInfoNCE(SoftmaxObjective):
    """InfoNCE scaled by how wrong it still is, a focal factor (DROP-InfoNCE; Nguyen et al., 2025).

    ``u(x, y)_i = -(1 - p_i) log p_i``, ``p_i = exp(s_ii/T) / sum_j exp(s_ij/T)``, the gradient going through the factor
    too. By default the mean of ``u(x, y)``, ``u(y, x)``, ``u(x, x)`` and ``u(y, y)``; in the last two the vector itself
    is the positive, so that queries, and documents, spread. In [0, inf); a row without another candidate costs 0.

    Arguments:
        directions: "four" (default), "two" (x to y and back) or "one". The paper's form with one hard negative and no
            negatives of the batch is "one" on a relation that leaves the others out:
            ``Paired().reweight(own_negatives(n, 2 * n, others=0, in_batch=0))`` of ``nearfar.negatives.weighting``.
        temperature: default 0.4 (the official function's; the paper's runs prefer lower ones); ``score``,
            ``reduction`` ("mean" or "sum" unless "one") as in InfoNCE.

    With several positives a row, ``u`` is averaged over them. In ``u(x, x)`` items of the same id (``Paired`` with ids)
    are left out, not negatives. Items contrasted among themselves (no ``key``) have one direction only. Raises
    ValueError for ready-made scores under "four".
    """

    name = "drop-infonce"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"focal-infonce": {"directions": "one"}}
    formula = "-(1 - p_i) log p_i, p_i = exp(s_ii/T) / sum_j exp(s_ij/T)"
    paper = "Nguyen 2025, Advancing Vietnamese Information Retrieval with Learning Objective, arXiv:2503.07470"
    default_temperature = 0.4
    needs_negative = False

    def __init__(
        self,
        directions: str = "four",
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=directions != "one", reduction=reduction)
        if directions not in ("one", "two", "four"):
            raise UsageError(f"drop-infonce: directions must be 'one', 'two' or 'four', got {directions!r}")
        self.directions = directions

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        everyone = log_sum_exp(scores, self.denominator(positive, negative))[:, None]
        log_p = (scores - everyone).clamp_max(0)  # only columns without a weight could be above
        return weighted_mean(torch.expm1(log_p) * log_p, positive)

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        if query is not None and key is not None:  # before they are used more than once: gradients add up in float32
            query, key = at_least_float32(query), at_least_float32(key)
        across = super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)
        if self.directions != "four" or (key is None and scores is None):
            return across
        if query is None or key is None:
            raise ValueError("drop-infonce: four directions need embeddings; ready-made scores have one or two")
        one_sided = copy.copy(self)  # a vector's contrast with its own side has no other side
        one_sided.two_sided = False
        within = [
            evaluate(one_sided, items, items, relation=itself, memory=memory, group=group)
            for items, itself in zip((query, key), _themselves(relation), strict=True)
        ]
        return (2 * across + within[0] + within[1]) / 4


def _themselves(relation: Relation | None) -> list[Relation]:
    """Queries, and keys, each near itself alone; others of the same id are ignored."""
    if not isinstance(relation, Paired):
        return [Paired(), Paired()]
    of_queries = relation.query_state.get("id")
    of_keys = of_queries if relation.key_state is None else relation.key_state.get("id")
    return [Paired(query_exclude=ids, key_exclude=ids) for ids in (of_queries, of_keys)]


@register
class MoPQ(SoftmaxObjective):
    """Multinoulli contrastive loss: queries against quantised keys (matching-oriented PQ; Xiao et al., 2021).

    ``L_i = -log( exp(q_i . zhat_i) / sum_j exp(q_i . zhat_j) )``. A key is cut into P parts; each part's ``pi =
    softmax_k(a_k)`` over K codewords, ``a_k = -|z - C_k|^2``; its code is argmax pi, taken straight through: the value
    is the codeword, the gradient goes through pi to key and codebook. Keys are quantised, queries never.

    Called with ``query [n, d]``, ``key [m, d]`` and ``codebook [P, K, d / P]``, a parameter of yours: begin with
    k-means centroids of the warm encoder's keys, for a codeword far from all data stays dead. Over processes keys are
    gathered, so the gradient is that of the global batch (the paper's differentiable cross-device sampling).

    Arguments:
        select: "l2" (default), "ip" (``z . C_k``) or "cosine": the assignment a. The official code has learned ones as
            well.
        dense_weight: of the same loss on unquantised keys, default 0; the official code trains with 1.
        distortion: quantisation terms added with ``distortion_weight``: "l2", ``mean_i |z_i - zhat_i|^2``; "dot",
            ``mean_ij (q_i . z_j - q_i . zhat_j)^2``; "subdot", the same a part. Default none.
        distortion_weight: default 1e-8 (the official code's).
        temperature: default 1; score: default "dot" (the paper has neither normalisation nor temperature);
            ``reduction``: "mean" or "sum" of the contrasts alone.

    Without ``codebook`` the contrast is with the keys as they are. Raises ValueError for a codebook that does not fit.
    """

    name = "mopq"
    needs = ("codebook",)
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"multinoulli-contrastive": {}}
    formula = "-log( exp(q_i . zhat_i) / sum_j exp(q_i . zhat_j) ), zhat quantised straight through"
    paper = "Xiao 2021, Matching-oriented Product Quantization For Ad-hoc Retrieval, arXiv:2104.07858"
    default_score = "dot"
    default_temperature = 1.0
    needs_negative = False

    def __init__(
        self,
        select: str = "l2",
        *,
        dense_weight: float = 0.0,
        distortion: Sequence[str] = (),
        distortion_weight: float = 1e-8,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)
        if select not in ("l2", "ip", "cosine"):
            raise UsageError(f"mopq: select must be 'l2', 'ip' or 'cosine', got {select!r}")
        if isinstance(distortion, str) or not set(distortion) <= {"l2", "dot", "subdot"}:
            raise UsageError(f"mopq: distortion must be some of 'l2', 'dot', 'subdot', got {distortion!r}")
        if not 0 <= dense_weight < float("inf") or not 0 <= distortion_weight < float("inf"):
            raise UsageError("mopq: weights must be finite numbers >= 0")
        self.select = select
        self.dense_weight = dense_weight
        self.distortion = tuple(distortion)
        self.distortion_weight = distortion_weight

    def codes(self, key: Tensor, codebook: Tensor) -> Tensor:
        """The codes ``[m, P]`` (int64) of keys: which codeword stands for each part."""
        return self._assignment(*_parts(key, codebook)).argmax(2)

    def quantized(self, key: Tensor, codebook: Tensor) -> Tensor:
        """The keys ``[m, d]`` made of codewords, with the straight-through gradient."""
        parts, codewords = _parts(key, codebook)
        assignment = self._assignment(parts, codewords)
        soft = torch.softmax(assignment, dim=2)
        hard = torch.zeros_like(soft).scatter_(2, assignment.argmax(2, keepdim=True), 1.0)
        with without_autocast(key.device):
            chosen = torch.einsum("mpk,pkd->mpd", hard - soft.detach() + soft, codewords)
        return chosen.flatten(1)

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        codebook: Tensor | None = None,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        if codebook is None or query is None or key is None:
            return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)
        query, key = at_least_float32(query), at_least_float32(key)
        quantized = self.quantized(key, codebook)
        loss = super().forward(query, quantized, relation=relation, scores=scores, memory=memory, group=group)
        if self.dense_weight:
            dense = evaluate(self, query, key, relation=relation, memory=memory, group=group)
            loss = loss + self.dense_weight * dense
        for form in self.distortion:
            loss = loss + self.distortion_weight * _distortion(form, query, key - quantized, len(codebook), group)
        return loss

    def _assignment(self, parts: Tensor, codewords: Tensor) -> Tensor:
        """The assignment logits ``[m, P, K]``."""
        with without_autocast(parts.device):
            if self.select == "cosine":
                return torch.einsum("mpd,pkd->mpk", normalize(parts), normalize(codewords))
            product = torch.einsum("mpd,pkd->mpk", parts, codewords)
        if self.select == "ip":
            return product
        return 2 * product - parts.square().sum(2, keepdim=True) - codewords.square().sum(2)


def _parts(key: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    if codebook.dim() != 3 or key.dim() != 2 or codebook.shape[0] * codebook.shape[2] != key.shape[1]:
        raise ValueError(f"mopq: a codebook [P, K, d / P] {tuple(codebook.shape)} does not fit keys {tuple(key.shape)}")
    key = at_least_float32(key)
    return key.reshape(-1, codebook.shape[0], codebook.shape[2]), codebook.to(key.dtype)


def _distortion(form: str, query: Tensor, difference: Tensor, parts: int, group: dist.ProcessGroup | None) -> Tensor:
    """What quantisation changes. A mean over all pairs of queries and keys comes from d x d second moments."""
    if form == "l2":
        return mean_over_processes(difference.square().sum(1), group)
    cut = parts if form == "subdot" else 1
    of_queries, of_keys = (_moments(items, cut, group) for items in (query, difference))
    return (of_queries * of_keys).sum() / cut


def _moments(items: Tensor, parts: int, group: dist.ProcessGroup | None) -> Tensor:
    """``mean_i x_ip x_ip^T`` of each part, ``[parts, d / parts, d / parts]``, over all processes."""
    cut = items.reshape(-1, parts, items.shape[1] // parts)
    count = sum_over_processes(items.new_tensor(float(len(items))), group)
    with without_autocast(items.device):
        return sum_over_processes(torch.einsum("npd,npe->pde", cut, cut) / count, group)
