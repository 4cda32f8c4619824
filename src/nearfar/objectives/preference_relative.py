"""Relative preferences: every chosen response of a batch against every rejected one, also across prompts."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nearfar.contrast.engine import Memory, evaluate
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation, Weights
from nearfar.contrast.score import normalize
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective
from nearfar.objectives.preference import PreferenceObjective, Preferences, not_negative, one_of, positive
from nearfar.objectives.registry import register

WEIGHTS = ("embedding", "uniform", "diagonal")


@register
class RPO(PreferenceObjective):
    """Relative preference optimisation: contrasts across prompts, weighted by how alike they are (Yin et al., 2024).

    ``L = 1/(M N) sum_ij log(1 + exp(-beta w_ij (d_w,i - d_l,j)))`` over all M chosen and N rejected responses of the
    batch. ``weighting``:
        "embedding" (default): ``w_ij = softmax_j( (cos(e_i, e_j) - 1) / tau )`` over the rejected, e the frozen
            embeddings of the prompts; the weight stands *inside* the logistic and carries no gradient.
        "uniform": ``w_ij = 1`` (official code without embeddings; the paper's equal weights are beta/N).
        "diagonal": weights outside: ``mean_i [ a l_ii + (1-a)/(B-1) sum_{j != i} l_ij ]``, l the logistic cost of i
            against j; needs pairs.
    In [0, inf); log 2 where policy and reference agree. With one pair it is ``dpo``, whatever the weighting.

    Called with ``chosen [M]`` and ``rejected [N]`` (log-probabilities, or rewards), ``reference_chosen [M]`` and
    ``reference_rejected [N]``, and lengths, as :class:`PreferenceObjective`. ``M != N`` is allowed (unpaired feedback);
    with embeddings ``chosen_prompt [M, e]`` and ``rejected_prompt [N, e]`` (default: the chosen's, for pairs). No
    chosen or no rejected response costs 0. ``group``: a process group, over which the batch is the global one;
    "diagonal" then needs as many pairs on every process as it has chosen responses. The M x N contrasts go through the
    engine: memory is linear in M + N.

    Arguments:
        beta: > 0, default 0.1. Weights of about 1/N inside the logistic shrink it by N: the gradient's scale depends on
            the batch; at tau -> inf "embedding" is "uniform" at beta/N.
        weighting: see above.
        tau: > 0, default 0.5 (0.25 for Llama-2 in the paper).
        diagonal_weight: a in [0, 1], default 0.8.
        memory: "auto" (default), "dense" or "tiled", as for row objectives.
        tokens: "sum" (default) or "mean".
        reduction: "mean" (default), "sum" (over all contrasts; over chosen for "diagonal"), or "none": ``[M]``, the
            mean of each chosen response's contrasts.

    Not to be confused with DPO plus a likelihood, which is also called RPO (``dpo-nll``).
    """

    name = "rpo"
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "rpo-embedding": {},
        "rpo-unpaired": {},
        "rpo-paired": {},
        "rpo-uniform": {"weighting": "uniform"},
        "rpo-diagonal": {"weighting": "diagonal"},
    }
    formula = "1/(M N) sum_ij log(1 + exp(-beta w_ij (d_w,i - d_l,j))), w_ij = softmax_j((cos(e_i, e_j) - 1) / tau)"
    paper = "Yin 2024, Relative Preference Optimization, arXiv:2402.10958"
    needs = ("chosen_prompt", "rejected_prompt")

    def __init__(
        self,
        beta: float = 0.1,
        *,
        weighting: str = "embedding",
        tau: float = 0.5,
        diagonal_weight: float = 0.8,
        memory: Memory = "auto",
        tokens: str = "sum",
        reduction: str = "mean",
    ) -> None:
        super().__init__(tokens=tokens, reduction=reduction)
        self.beta = positive("rpo", "beta", beta)
        self.weighting = one_of("rpo", "weighting", weighting, WEIGHTS)
        self.tau = positive("rpo", "tau", tau)
        self.diagonal_weight = not_negative("rpo", "diagonal_weight", diagonal_weight)
        if diagonal_weight > 1:
            raise UsageError(f"rpo: diagonal_weight must lie in [0, 1], got {diagonal_weight}")
        self.memory: Memory = memory

    def forward(  # type: ignore[override]
        self,
        chosen: Tensor,
        rejected: Tensor,
        *,
        reference_chosen: Tensor | None = None,
        reference_rejected: Tensor | None = None,
        chosen_length: Tensor | None = None,
        rejected_length: Tensor | None = None,
        chosen_prompt: Tensor | None = None,
        rejected_prompt: Tensor | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> Tensor:
        """The reduced cost of all contrasts; see the class."""
        if (reference_chosen is None) != (reference_rejected is None):
            raise ValueError("rpo: give the reference of both responses or of neither")
        sides = (
            {"chosen": chosen, "reference_chosen": reference_chosen, "chosen_length": chosen_length},
            {"rejected": rejected, "reference_rejected": reference_rejected, "rejected_length": rejected_length},
        )
        values: dict[str, Tensor] = {}
        for side in sides:
            name, given = next(iter(side.items()))
            if given is None or given.dim() != 1 or not given.is_floating_point():
                raise ValueError(
                    f"rpo: {name} must be [n] floating point, got {None if given is None else given.shape}"
                )
            for other, value in side.items():
                if value is not None and value.shape != given.shape:
                    raise ValueError(f"rpo: {name} is {list(given.shape)} and {other} {list(value.shape)}")
            values.update({key: at_least_float32(value) for key, value in side.items() if value is not None})
        pairs = self._preferences(values)
        if group is None and not (pairs.chosen.numel() and pairs.rejected.numel()):
            return pairs.chosen * 0 if self.reduction == "none" else pairs.chosen.sum() * 0 + pairs.rejected.sum() * 0
        relation = self._relation(pairs, chosen_prompt, rejected_prompt)
        contrasts = _Contrasts(self.beta, inside=self.weighting != "diagonal", reduction=self.reduction)
        # the dot product of (d_w, 1) and (1, -d_l) is their difference
        query = torch.stack([pairs.chosen, torch.ones_like(pairs.chosen)], 1)
        key = torch.stack([torch.ones_like(pairs.rejected), -pairs.rejected], 1)
        return evaluate(contrasts, query, key, relation=relation, memory=self.memory, group=group)

    def _relation(self, pairs: Preferences, chosen_prompt: Tensor | None, rejected_prompt: Tensor | None) -> Relation:
        count = (pairs.chosen.numel(), pairs.rejected.numel())
        if self.weighting == "diagonal":
            if count[0] != count[1]:
                raise ValueError(f"rpo: diagonal weights need pairs, got {count[0]} chosen and {count[1]} rejected")
            return _Diagonal(count[0], self.diagonal_weight, pairs.chosen)
        if self.weighting == "uniform":
            return _Uniform(*count, pairs.chosen)
        if chosen_prompt is None:
            raise ValueError("rpo: give the prompts' embeddings, chosen_prompt [M, e], or weighting='uniform'")
        rejected_prompt = chosen_prompt if rejected_prompt is None else rejected_prompt
        for name, prompts, n in (("chosen", chosen_prompt, count[0]), ("rejected", rejected_prompt, count[1])):
            if prompts.dim() != 2 or prompts.shape[0] != n or prompts.shape[1] != chosen_prompt.shape[1]:
                raise ValueError(f"rpo: {name}_prompt must be [{n}, e] alike, got {list(prompts.shape)}")
        return _AlikePrompts(chosen_prompt, rejected_prompt, self.tau, pairs.chosen)


class _Contrasts(RowObjective):
    """Logistic costs of scores that are differences: weighted inside the logistic, or outside."""

    name = "rpo"
    default_score = "dot"

    def __init__(self, beta: float, *, inside: bool, reduction: str) -> None:
        super().__init__(reduction=reduction)
        self.beta = beta
        self.inside = inside

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        return torch.ones_like(negative[:, 0], dtype=torch.bool)

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        if self.inside:
            costs = F.softplus(-self.beta * negative * scores)
            return costs.sum(1) if self.reduction == "sum" else costs.mean(1)
        return (negative * F.softplus(-self.beta * scores)).sum(1)


class _AlikePrompts(Relation):
    """All far, with the weights of RPO: a softmax over the keys of how alike two prompts are."""

    def __init__(self, chosen: Tensor, rejected: Tensor, tau: float, like: Tensor) -> None:
        query, key = (normalize(at_least_float32(prompts.detach())).to(like.dtype) for prompts in (chosen, rejected))
        super().__init__({"prompt": query}, {"prompt": key})
        self.tau = tau

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        weight = torch.softmax((query["prompt"] @ key["prompt"].T - 1) / self.tau, dim=1)
        return torch.zeros_like(weight, dtype=torch.bool), weight


class _Uniform(Relation):
    """All far with weight 1."""

    def __init__(self, n: int, m: int, like: Tensor) -> None:
        super().__init__({"one": like.new_ones(n)}, {"one": like.new_ones(m)})

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        weight = query["one"][:, None] * key["one"][None, :]
        return torch.zeros_like(weight, dtype=torch.bool), weight


class _Diagonal(_Uniform):
    """All far, with a weight for the own pair and the rest shared by the others of the (global) batch."""

    def __init__(self, n: int, weight: float, like: Tensor) -> None:
        super().__init__(n, n, like)
        self.query_state["item"] = torch.arange(n, device=like.device)
        self.key_state = {"one": like.new_ones(n), "item": torch.arange(n, device=like.device)}
        self.weight = weight

    def across(self, queries: Any, keys: Any) -> Relation:
        moved = super().across(queries, keys)
        moved.query_state["item"] = moved.query_state["item"] + queries.start
        assert moved.key_state is not None
        moved.key_state["item"] = torch.arange(sum(keys.counts), device=moved.key_state["item"].device)
        return moved

    def weigh(self, query: dict[str, Tensor], key: dict[str, Tensor]) -> Weights:
        own = query["item"][:, None] == key["item"][None, :]
        others = key["item"].numel() - 1
        share = (1 - self.weight) / others if others else 0.0
        weight = torch.full_like(own, share, dtype=query["one"].dtype)
        weight = weight.masked_fill(own, self.weight if others else 1.0)
        return torch.zeros_like(own), weight
