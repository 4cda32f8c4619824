"""Sentence embeddings: objectives of several terms or of more than embeddings."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast import temperature as temperature_module
from nearfar.contrast.distributed import mean_over_processes, of_all, of_all_with_own_graph, sum_over_processes
from nearfar.contrast.engine import Memory, evaluate
from nearfar.contrast.paired import Paired, Views
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation, Weights, integers
from nearfar.contrast.score import Score, normalize
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, ViewObjective, check_rows, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import SoftmaxObjective


class _Softmax(SoftmaxObjective):
    """The plain contrast inside objectives of several terms."""

    name = "softmax"
    default_temperature = 0.05
    needs_negative = False


@register
class ClusterNS(SoftmaxObjective):
    """InfoNCE with centroids as hard negatives and a bound on false negatives (ClusterNS; Deng et al., 2023).

    ``InfoNCE(z1, [z2 | c]) + weight * BML``, c_i the second-nearest centroid of z1_i. Items of one cluster are taken
    for false negatives, which are kept at a bounded distance from the positive:
    ``BML = max(0, D + alpha) + max(0, -D - beta)`` with ``D_ij = s_ij - s_ii`` not divided by the temperature, so that
    ``-beta <= D <= -alpha`` costs nothing. They stay in InfoNCE's denominator.

    Called with ``query [n, d]``, ``key [n, d]`` of the same items, ``clusters [n]`` (integers; negative: none) and
    ``hard_negatives [h, d]``, which :class:`nearfar.negatives.ClusterMemory` gives; they carry no gradient, and before
    the memory has started neither is given: then it is InfoNCE. A ``relation`` of your own describes queries against
    keys and hard negatives together. Raises ValueError for shapes that do not fit.

    Arguments:
        weight: of BML, default 1e-3; alpha: default 0; beta: default 0.3 (BERT-base). 0 <= alpha <= beta.
        average: of BML. "cells" (default): the sum over false negatives divided by all n x n pairs; "official-code":
            the same, where pairs of different clusters cost the constant alpha; "pairs": mean over false negatives
            alone (an earlier form of the official code).
        temperature: default 0.05 (the paper's); ``score``, ``reduction`` ("mean", the only one) as in InfoNCE.
    """

    name = "clusterns"
    needs = ("clusters", "hard_negatives")
    formula = "InfoNCE + weight mean_ij ( max(0, D_ij + alpha) + max(0, -D_ij - beta) ), D_ij = s_ij - s_ii"
    paper = "Deng 2023, Clustering-Aware Negative Sampling for Unsupervised Sentence Representation, arXiv:2305.09892"
    default_temperature = 0.05
    needs_negative = False

    def __init__(
        self,
        weight: float = 1e-3,
        alpha: float = 0.0,
        beta: float = 0.3,
        *,
        average: str = "cells",
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
    ) -> None:
        super().__init__(temperature=temperature, score=score)
        if not 0 <= weight < float("inf") or not 0 <= alpha <= beta < float("inf"):
            raise UsageError(f"clusterns: needs weight >= 0 and 0 <= alpha <= beta, got {weight}, {alpha}, {beta}")
        if average not in ("cells", "official-code", "pairs"):
            raise UsageError(f"clusterns: average must be 'cells', 'official-code' or 'pairs', got {average!r}")
        self.weight = weight
        self.alpha = alpha
        self.beta = beta
        self.average = average

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        clusters: Tensor | None = None,
        hard_negatives: Tensor | None = None,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        if (query is None or key is None) and (clusters is not None or hard_negatives is not None):
            raise ValueError("clusterns: clusters and hard negatives go with queries and keys")
        if query is not None and key is not None:
            query, key = at_least_float32(query), at_least_float32(key)
        keys = key if key is None or hard_negatives is None else torch.cat([key, hard_negatives.detach().to(key.dtype)])
        contrast = super().forward(query, keys, relation=relation, scores=scores, memory=memory, group=group)
        if clusters is None or query is None or key is None or keys is None:
            return contrast
        check_rows(self.name, "clusters", integers(clusters, "clusters"), len(query))
        if len(key) != len(query):
            raise ValueError(f"clusterns: query {tuple(query.shape)} and key {tuple(key.shape)} must be the same items")
        margin = BidirectionalMargin(self.alpha, self.beta, self._pairs(len(key), key, group), score=self.score)
        relation = self._false_negatives(clusters, len(keys) - len(key), relation, group)
        return contrast + self.weight * evaluate(margin, query, keys, relation=relation, memory=memory, group=group)

    def _pairs(self, keys: int, like: Tensor, group: dist.ProcessGroup | None) -> tuple[str, float]:
        count = sum_over_processes(torch.tensor(float(keys), device=like.device), group)
        return self.average, float(count)

    def _false_negatives(
        self, clusters: Tensor, more: int, relation: Relation | None, group: dist.ProcessGroup | None
    ) -> Relation:
        of_queries = of_all(clusters, group)
        of_keys = of_all(torch.cat([clusters, clusters.new_full((more,), -1)]), group)

        def of_one_cluster(positive: Tensor, negative: Tensor, rows: Tensor, columns: Tensor) -> Weights:
            own = of_queries[rows][:, None]
            return positive, (negative > 0) & (own == of_keys[columns][None, :]) & (own >= 0)

        return (Paired() if relation is None else relation).reweight(of_one_cluster)


class BidirectionalMargin(RowObjective):
    """``max(0, D + alpha) + max(0, -D - beta)``, ``D = s_in - s_ip``, over the negatives of each row.

    ``average``: ("cells", m): the sum over m; ("official-code", m): with alpha for each of the m that is no negative;
    ("pairs", ...): mean over all negatives of the batch.
    """

    name = "bidirectional-margin"
    needs_negative = False

    def __init__(self, alpha: float, beta: float, average: tuple[str, float], *, score: str | Score) -> None:
        super().__init__(score=score)
        self.alpha = alpha
        self.beta = beta
        self.average, self.count = average

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        has = (positive > 0).any(1)
        return has & (negative > 0).any(1) if self.average == "pairs" else has

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        beyond = scores - weighted_mean(scores, positive)[:, None]
        costs = (beyond + self.alpha).relu() + (-beyond - self.beta).relu()
        if self.average == "pairs":
            return weighted_mean(costs, negative)
        weight = negative.to(scores.dtype)
        total = (costs * weight).sum(1) / self.count
        return total if self.average == "cells" else total + self.alpha * (1 - weight.sum(1) / self.count)

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return (
            negative.to(scores.dtype).sum(1) if self.average == "pairs" else super().weights(scores, positive, negative)
        )


@register
class MCSE(SoftmaxObjective):
    """Sentences by dropout and by images: InfoNCE in two spaces (MCSE; Zhang et al., 2022).

    ``NCE(z1, z2; T) + weight * ( NCE(g1, v; T') + NCE(g2, v; T') ) / 2``: z the projected views of a sentence, g the
    same views in the space of images (from the encoder's vector, not from z), v the images of the batch. From text to
    image only. Without images it is the first term, as on the batches that have none.

    Called with ``query [n, d]`` and ``key [n, d]`` (z1, z2), ``grounded_query``, ``grounded_key [b, e]`` (g1, g2) and
    ``image [b, e]``. Over processes all have images in a step or none has. Several captions of an image in a batch are
    false negatives unless ``image_relation`` says which belong together, e.g. ``Paired(image_ids)``.

    Arguments:
        weight: default 0.01 (the paper's, BERT on Wikipedia and Flickr; the official argument's default is 0.05).
        image_temperature: T', default 0.05; temperature: T, default 0.05; ``score``, ``reduction`` ("mean" or "sum")
            as in InfoNCE.
    """

    name = "mcse"
    needs = ("grounded_query", "grounded_key", "image")
    formula = "NCE(z1, z2) + weight (NCE(g1, v) + NCE(g2, v)) / 2"
    paper = "Zhang 2022, MCSE: Multimodal Contrastive Learning of Sentence Embeddings, arXiv:2204.10931"
    default_temperature = 0.05
    needs_negative = False

    def __init__(
        self,
        weight: float = 0.01,
        *,
        image_temperature: float | str | Temperature | None = None,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)
        if not 0 <= weight < float("inf"):
            raise UsageError(f"mcse: the weight must be a finite number >= 0, got {weight}")
        self.weight = weight
        self.grounding = _Softmax(
            temperature=temperature_module.get(image_temperature, 0.05), score=score, reduction=reduction
        )

    def forward(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        *,
        grounded_query: Tensor | None = None,
        grounded_key: Tensor | None = None,
        image: Tensor | None = None,
        image_relation: Relation | None = None,
        relation: Relation | None = None,
        scores: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        within = super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)
        if image is None:
            return within
        if grounded_query is None or grounded_key is None:
            raise ValueError("mcse: an image needs grounded_query and grounded_key")
        image = at_least_float32(image)
        across = [
            evaluate(self.grounding, at_least_float32(view), image, relation=image_relation, memory=memory, group=group)
            for view in (grounded_query, grounded_key)
        ]
        return within + self.weight * (across[0] + across[1]) / 2


class _ByDomain(_Softmax):
    """The sum over domains of the mean cost of a domain's rows, where a row's candidates are its domain but itself."""

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return 1 / ((positive > 0) | (negative > 0)).to(scores.dtype).sum(1).add(1)


@register
class CLIM(ViewObjective):
    """Contrast within domains, labels, and informative predictions, for domain adaptation (CLIM; Li et al., 2021).

    ``CE(logits, labels) + weight sum_domains NT-Xent(domain) + information_weight MI``. NT-Xent contrasts the 2n views
    of a domain's texts among themselves only, for negatives of the other domain would teach to tell domains apart.
    ``MI = H(Y|X) - H(Y)`` of the predictions for unlabelled texts, ``H(Y|X) = mean_n H(p_n)`` and
    ``H(Y) = H(mean_n p_n)``, the latter only while ``H(Y) < threshold``.

    Called with ``z1 [n, d]``, ``z2 [n, d]`` (a text and its augmentation), ``domain [n]`` (integers; none: one domain),
    ``logits [l, c]`` with ``labels [l]``, and ``unlabelled_logits [u, c]`` (unlabelled and augmented texts); terms
    without their input are left out (the paper's first epoch has no MI, each third step no CE).

    Arguments:
        threshold: default 0.53 (two classes; below log 2), in nats.
        in_domain: False contrasts all texts with all.
        weight, information_weight: default 1 (the paper's).
        temperature: default 0.05 (the paper's).
    """

    name = "clim"
    needs = ("domain", "logits", "labels", "unlabelled_logits")
    formula = "CE(logits, labels) + sum_domains NT-Xent + H(Y|X) - [H(Y) < threshold] H(Y)"
    paper = "Li 2021, Cross-Domain Sentiment Classification with Contrastive Learning and MI, arXiv:2010.16088"

    def __init__(
        self,
        threshold: float = 0.53,
        *,
        in_domain: bool = True,
        weight: float = 1.0,
        information_weight: float = 1.0,
        temperature: float | str | Temperature | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= weight < float("inf") or not 0 <= information_weight < float("inf") or not threshold >= 0:
            raise UsageError("clim: weights and threshold must be numbers >= 0")
        self.threshold = threshold
        self.in_domain = in_domain
        self.weight = weight
        self.information_weight = information_weight
        self.contrast = _ByDomain(temperature=temperature, reduction="sum")

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        *,
        domain: Tensor | None = None,
        logits: Tensor | None = None,
        labels: Tensor | None = None,
        unlabelled_logits: Tensor | None = None,
        memory: Memory = "auto",
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=1)
        relation = self._within_domains(domain, len(z1), group)
        loss = self.weight * evaluate(self.contrast, torch.cat([z1, z2]), relation=relation, memory=memory, group=group)
        if logits is not None:
            if labels is None:
                raise ValueError("clim: logits need labels")
            check_rows(self.name, "labels", labels, len(logits))
            costs = F.cross_entropy(at_least_float32(logits), labels, reduction="none")
            loss = loss + mean_over_processes(costs, group)
        if unlabelled_logits is not None:
            loss = loss + self.information_weight * self.information(unlabelled_logits, group=group)
        return loss

    def information(self, logits: Tensor, *, group: dist.ProcessGroup | None = None) -> Tensor:
        """``H(Y|X) - H(Y)`` of predictions ``[u, c]``, or ``H(Y|X)`` alone where H(Y) is not below the threshold."""
        check_rows(self.name, "logits", logits, logits.shape[0], 2)
        everyone = of_all_with_own_graph(torch.log_softmax(at_least_float32(logits), dim=1), group)
        if not len(everyone):
            return everyone.sum()
        marginal = _entropy(torch.logsumexp(everyone, dim=0) - math.log(len(everyone)))
        conditional = _entropy(everyone) / len(everyone)
        return conditional - marginal if bool(marginal < self.threshold) else conditional

    def _within_domains(self, domain: Tensor | None, count: int, group: dist.ProcessGroup | None) -> Relation:
        if domain is None or not self.in_domain:
            return Views(2)
        check_rows(self.name, "domain", integers(domain, "domain"), count)
        everyone = of_all(domain.repeat(2), group)
        return Views(2).ignore(lambda rows, columns: everyone[rows][:, None] != everyone[columns][None, :])


def _entropy(log_probabilities: Tensor) -> Tensor:
    """``-sum p log p``, summed over everything."""
    return -(log_probabilities.exp() * log_probabilities).sum()


@register
class CLAIF(ViewObjective):
    """Regression of the cosine on the scores of an AI judge (CLAIF; Cheng et al., 2023).

    ``mean_i (cos(z1_i, z2_i) - y_i)^2``; no temperature. In the paper's data the judge's score y in [0, 1] is smoothed
    to ``0.8 y + 0.1``, random pairs have y = 0. This is sentence-transformers' CosineSimilarityLoss.

    Called with ``z1 [n, d]``, ``z2 [n, d]`` and ``grade [n]``. Raises ValueError where grades are missing or do not
    fit.
    """

    name = "claif"
    needs = ("grade",)
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"cosine-similarity-loss": {}}
    formula = "mean_i (cos(z1_i, z2_i) - y_i)^2"
    paper = "Cheng 2023, Improving Contrastive Learning of Sentence Embeddings from AI Feedback, arXiv:2305.01918"

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, z1: Tensor, z2: Tensor, grade: Tensor | None = None, *, group: dist.ProcessGroup | None = None
    ) -> Tensor:
        z1, z2 = self.views(z1, z2, minimum=1)
        if grade is None:
            raise ValueError("claif: needs the grades [n] of the pairs")
        check_rows(self.name, "grades", grade, len(z1))
        cosine = (normalize(z1) * normalize(z2)).sum(1)
        return mean_over_processes((cosine - grade.to(cosine.dtype)).square(), group)
