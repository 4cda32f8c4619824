"""Sentence embeddings: contrasts of one softmax a row, in the forms of the papers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.contrast.adjacent import Adjacent
from nearfar.contrast.distributed import positions
from nearfar.contrast.engine import Memory
from nearfar.contrast.paired import Paired, Views
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp, masked, weighted_mean
from nearfar.objectives.registry import register
from nearfar.objectives.softmax import SoftmaxObjective


@register
class SGBert(RowObjective):
    """SG-OPT: a sentence's vector against the pooled layers of a frozen copy of its encoder (Kim et al., 2021).

    ``L_ik = -log( phi(c_i, h_ik) / (phi(c_i, h_ik) + sum_{m != i} sum_n phi(c_i, h_mn)) )``, ``phi = exp(cosine / T)``,
    mean over sentences i and layers k. A layer of the same sentence is no negative of another one, nor does it stand in
    its denominator: with several positives a row, each is contrasted with the negatives alone (so this is also the
    NT-Xent of pytorch-metric-learning, whatever the relation). In [0, inf).

    Called with ``query [n, d]`` (the trained copy's first-token vectors) and ``key [n, layers, d]``; ``key [n, d]`` is
    one layer, and with a ``relation`` of your own any row contrast will do. Detach the frozen copy's vectors before the
    shared projection head, which learns from both sides.

    Arguments:
        variant: "sg-opt" (default, all layers); of one layer a sentence, drawn at random: "opt2" (the same formula),
            "opt1" (other c are negatives too), "sg" (NT-Xent on c and h, 2n anchors). "opt2-official-code" leaves the
            first of the other sentences out of each row's negatives, as the official slice does. The official class for
            "sg" has labels of half its rows and fails; ordinary NT-Xent is what the paper writes.
        temperature: default 0.01 (the paper's); ``score``, ``reduction`` as in InfoNCE.

    The paper adds ``0.1 |theta - theta_frozen|^2`` over the encoder's parameters, the head left out; that is a term of
    training. Raises ValueError for several layers
    where one is meant, and for a relation of your own where the variant makes its own.
    """

    name = "sg-bert"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "sg-opt": {"variant": "sg-opt"},
        "sg-opt1": {"variant": "opt1"},
        "sg-opt2": {"variant": "opt2"},
    }
    formula = "mean_k log(1 + sum_n exp((s_in - s_ik)/T)), n the layers of other sentences"
    paper = "Kim 2021, Self-Guided Contrastive Learning for BERT Sentence Representations, arXiv:2106.07345"
    default_temperature = 0.01

    def __init__(
        self,
        variant: str = "sg-opt",
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, reduction=reduction)
        variants = ("sg-opt", "opt2", "opt2-official-code", "opt1", "sg")
        if variant not in variants:
            raise UsageError(f"sg-bert: variant must be one of {', '.join(variants)}, got {variant!r}")
        self.variant = variant

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        others = log_sum_exp(scores, negative)[:, None]
        return weighted_mean(torch.logaddexp(others, scores) - scores, positive)

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
        if (
            query is not None
            and key is not None
            and (key.dim() == 3 or self.variant in ("opt1", "sg", "opt2-official-code"))
        ):
            query, key, relation = self._layers(query, key, relation, group)
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)

    def _layers(
        self, query: Tensor, key: Tensor, relation: Relation | None, group: dist.ProcessGroup | None
    ) -> tuple[Tensor, Tensor | None, Relation]:
        layers = key if key.dim() == 3 else key[:, None]
        if relation is not None or layers.dim() != 3 or query.dim() != 2 or layers.shape[0] != query.shape[0]:
            raise ValueError(
                f"sg-bert: {self.variant!r} pairs query [n, d] with key [n, layers, d] by itself, got "
                f"{tuple(query.shape)}, {tuple(key.shape)}{' and a relation' if relation is not None else ''}"
            )
        if self.variant in ("sg", "opt2-official-code") and layers.shape[1] != 1:
            raise ValueError(f"sg-bert: {self.variant!r} takes one layer a sentence, got {tuple(key.shape)}")
        if self.variant == "sg":
            return torch.cat([query, layers[:, 0]]), None, Views(2)
        if self.variant == "opt2-official-code":
            return query, layers[:, 0], Paired().ignore(_is_first_other)
        ids = positions(query.shape[0], query.device, group)
        key_ids = ids.repeat_interleave(layers.shape[1])
        flat = layers.flatten(0, 1)
        if self.variant != "opt1":
            return query, flat, Paired(ids, key_ids)
        nobody = torch.full_like(key_ids, -1)
        others = Paired(
            ids,
            torch.cat([key_ids, torch.full_like(ids, -1)]),
            query_exclude=ids,
            key_exclude=torch.cat([nobody, ids]),
        )
        return query, torch.cat([flat, query]), others


def _is_first_other(rows: Tensor, columns: Tensor) -> Tensor:
    return columns[None, :] == (rows == 0).long()[:, None]


@register
class PromCSE(SoftmaxObjective):
    """InfoNCE with an energy-based hinge on the nearest negative (PromCSE; Jiang et al., 2022).

    ``L_i = InfoNCE_i + weight * max(0, margin - s_ip + max_n s_in)`` with scores not divided by the temperature in the
    hinge; n runs over all negatives of the row: the other queries' positives and all hard negatives. With several
    positives a row the hinge is averaged over them. In [0, inf). A row without negatives has no hinge.

    Arguments:
        margin: default 0.2; weight: of the hinge, default 10 (the paper's supervised runs). Both >= 0; weight 0 is
            InfoNCE, the paper's unsupervised loss. The official code has a hinge only where hard negatives are given.
        temperature: default 0.05 (the paper's); ``score``, ``two_sided``, ``reduction`` as in InfoNCE.
    """

    name = "promcse"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {"energy-hinge": {}}
    formula = "InfoNCE + weight max(0, margin - s_ip + max_n s_in)"
    paper = "Jiang 2022, Improved Universal Sentence Embeddings with Prompt-based Contrast, arXiv:2203.06875"
    default_temperature = 0.05
    needs_negative = False

    def __init__(
        self,
        margin: float = 0.2,
        weight: float = 10.0,
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not 0 <= margin < float("inf") or not 0 <= weight < float("inf"):
            raise UsageError(f"promcse: margin and weight must be finite numbers >= 0, got {margin} and {weight}")
        self.margin = margin
        self.weight = weight

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        assert self.temperature is not None
        scale = self.temperature.scale()
        has = (negative > 0).any(1, keepdim=True)
        nearest = torch.where(has, masked(scores, negative > 0).amax(1, keepdim=True), 0)
        hinge = has * (self.margin - (scores - nearest) / scale).relu()
        return super().rows(scores, positive, negative) + self.weight * weighted_mean(hinge, positive)


@register
class CompCSE(SoftmaxObjective):
    """InfoNCE of a sentence against the composition of its parts (Chanchani & Huang, 2023).

    ``c_i = head(compose(a_i, b_i))``, ``u_i = head(r_i)``; both are cut to their first ``width`` coordinates;
    ``L_i = -log( exp(cos(u_i, c_i)/T) / sum_j exp(cos(u_i, c_j)/T) )``. Composition comes before the head.

    Called with ``query [n, d]`` (whole sentences) and ``key [n, parts, d]`` (their parts in order, each encoded alone;
    a one-word sentence gives itself for each part), or ``key [m, d]`` where they are composed already.

    Arguments:
        compose: "avg" (default; BERT), "max" (element-wise; the official code concatenates ``torch.max``'s values and
            indices there, which fails), "cat-first-last" (the first half of the first part's coordinates, the second
            half of the last part's; RoBERTa).
        width: how many coordinates are contrasted, default all; the official README trains on 256 of 768. A device of
            training: the exported embedding keeps all.
        head: a module applied to sentences and compositions alike (a dense layer and tanh in the paper), default none.
        temperature: default 0.05 (the paper's); ``score``, ``two_sided``, ``reduction`` as in InfoNCE.

    Raises ValueError for a width beyond the dimension.
    """

    name = "compcse"
    formula = "-log( exp(cos(r_i, c_i)/T) / sum_j exp(cos(r_i, c_j)/T) ), c_i = compose(parts of i)"
    paper = "Chanchani 2023, Composition-contrastive Learning for Sentence Embeddings, arXiv:2307.07380"
    default_temperature = 0.05
    needs_negative = False

    def __init__(
        self,
        compose: str = "avg",
        *,
        width: int | None = None,
        head: nn.Module | None = None,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if compose not in ("avg", "max", "cat-first-last"):
            raise UsageError(f"compcse: compose must be 'avg', 'max' or 'cat-first-last', got {compose!r}")
        if width is not None and width < 1:
            raise UsageError(f"compcse: the width must be at least 1, got {width}")
        self.compose = compose
        self.width = width
        self.head = nn.Identity() if head is None else head

    def composed(self, parts: Tensor) -> Tensor:
        """The compositions ``[n, d]`` of ``parts [n, parts, d]``."""
        if self.compose == "avg":
            return parts.mean(1)
        if self.compose == "max":
            return parts.amax(1)
        half = parts.shape[2] // 2
        return torch.cat([parts[:, 0, :half], parts[:, -1, half:]], dim=1)

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
        if key is not None:
            key = self._cut(self.head(self.composed(key) if key.dim() == 3 else key))
        if query is not None:
            query = self._cut(self.head(query))
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)

    def _cut(self, items: Tensor) -> Tensor:
        if self.width is not None and self.width > items.shape[-1]:
            raise ValueError(f"compcse: cannot cut {tuple(items.shape)} to a width of {self.width}")
        return items[..., : self.width]


@register
class QuickThoughts(SoftmaxObjective):
    """Pick a sentence's neighbours out of a batch of running text (Quick-Thoughts; Logeswaran & Lee, 2018).

    ``L_i = -1/|P(i)| sum_{p in P(i)} log( exp(f_i . g_p) / (exp(self_score) + sum_{j != i} exp(f_i . g_j)) )`` with
    P(i) the sentences at most ``window`` places away. Called with ``query [n, d]`` and ``key [n, d]``: the n sentences
    of the batch, in the order of the text, through one encoder each. Tying the encoders makes a sentence its own best
    match. Raises ValueError where n differs.

    Arguments:
        window: >= 1, default 1.
        self_score: what stands in place of a sentence's score with itself, default 0 (the official code sets the
            diagonal to 0, so that exp(0) = 1 stays in each denominator); None leaves it out of the denominator.
        temperature: default 1; score: default "dot", neither normalised nor scaled (the paper's); ``two_sided``,
            ``reduction`` as in InfoNCE.

    The relation is ``Adjacent(window)`` unless one is given; ``Adjacent(window, document=...)`` keeps neighbours within
    their document, which the official code does not.
    """

    name = "quick-thoughts"
    formula = "-mean_p log( exp(f_i . g_p) / (1 + sum_{j != i} exp(f_i . g_j)) ), p adjacent to i"
    paper = "Logeswaran 2018, An efficient framework for learning sentence representations, arXiv:1803.02893"
    default_score = "dot"
    default_temperature = 1.0
    needs_negative = False

    def __init__(
        self,
        window: int = 1,
        *,
        self_score: float | None = 0.0,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if window < 1:
            raise UsageError(f"quick-thoughts: the window must be at least 1, got {window}")
        self.window = window
        self.self_score = self_score

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        everyone = log_sum_exp(scores, self.denominator(positive, negative))
        if self.self_score is not None:
            assert self.temperature is not None
            own = torch.as_tensor(self.self_score * self.temperature.scale(), dtype=scores.dtype, device=scores.device)
            everyone = torch.logaddexp(everyone, own)
        return everyone - weighted_mean(scores, positive)

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
        relation = Adjacent(self.window) if relation is None else relation
        return super().forward(query, key, relation=relation, scores=scores, memory=memory, group=group)


@register
class DCLR(SoftmaxObjective):
    """Debiased sentence contrast: weighted negatives and noise negatives (DCLR; Zhou et al., 2022).

    ``L_i = -log( exp(s_ii/T) / sum_j alpha_ij exp(s_ij/T) )``: alpha_ij = 0 for a negative that a fixed complementary
    model finds too similar, 1 for the others and for the negatives made of noise. Weights and noise come from outside::

        noise = harder(gaussian(z1), z1, z2)  # nearfar.negatives.noise
        near = Paired().reweight(by_complement(f1, f2, threshold=0.9, keys=len(z2) + len(noise)))  # .weighting
        loss = DCLR()(z1, torch.cat([z2, noise]), relation=near)

    Arguments:
        variant: "paper" (default), InfoNCE on the reweighted relation; "official-code" multiplies the *logits* by
            alpha, so that a flagged pair (or any pair without a weight) still contributes exp(0), and takes the mean
            over all cells of the binary cross-entropy of the row's softmax.
        temperature: default 0.05 (the paper's); ``score``, ``two_sided``, ``reduction`` as in InfoNCE.

    The paper's thresholds and noise rows a sentence: BERT-base 0.9 and 1, RoBERTa-base 0.85 and 2.5, BERT-large 0.9 and
    3, RoBERTa-large 0.85 and 5.
    """

    name = "dclr"
    formula = "-log( exp(s_ii/T) / sum_j alpha_ij exp(s_ij/T) )"
    paper = "Zhou 2022, Debiased Contrastive Learning of Unsupervised Sentence Representations, arXiv:2205.00656"
    default_temperature = 0.05
    needs_negative = False
    softmax_form: str | None = "all"

    def __init__(
        self,
        variant: str = "paper",
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if variant not in ("paper", "official-code"):
            raise UsageError(f"dclr: variant must be 'paper' or 'official-code', got {variant!r}")
        self.variant = variant
        if variant == "official-code":
            self.softmax_form = None

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.variant == "paper":
            return super().rows(scores, positive, negative)
        near = positive > 0
        log_probability = torch.log_softmax(scores * self.denominator(positive, negative), dim=1)
        rest = (-torch.expm1(log_probability)).clamp_min(torch.finfo(scores.dtype).tiny)
        return -torch.where(near, log_probability, rest.log()).mean(1)
