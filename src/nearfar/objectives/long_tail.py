"""Objectives for classes of very different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.engine import Memory, Report, evaluate_rows
from nearfar.contrast.priors import ClassPriors, shares
from nearfar.contrast.relation import Labels, Relation
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError
from nearfar.objectives.base import RowObjective, log_sum_exp
from nearfar.objectives.registry import register


@register
class GML(RowObjective):
    """Gaussian-mixture likelihood: contrast with classes, adjusted by how often they occur (Suh & Seo, 2023).

    With ``l_ic = log( mean_{j of class c} exp(s_ij/T) )``, the likelihood of class c, and its share ``prior_c`` of the
    training data, ``L_i = -log( prior_y exp(l_iy) / sum_c prior_c exp(l_ic) )``, mean over rows whose class has a key.
    Without the prior in the scores (that is, as they are) the classifier is a balanced one: the prior belongs to
    training alone. Called as ``GML(prior=counts)(query, key, relation=Labels(labels, key_labels))``, keys best of every
    class (a memory with places for each); a class without keys is left out. In [0, inf).

    A learned temperature has a gradient of its own: the features are trained with T held fixed, and T by a second term
    of equal value but for one thing, a query's own item is left out of its class mean; both terms add up (the official
    code's form). Give ids for it in the relation:
    ``ClassPriors(labels, key_labels, ids=ids, key_ids=key_ids)``.

    With one key a class, or on ready-made logits ``scores [n, C]`` with ``relation=Labels(labels, torch.arange(C))``,
    this is the logit-adjusted cross-entropy ``CE(logits/T + log prior, y)`` (Menon et al., 2021, arXiv:2007.07314; the
    alias "logit-adjusted" has temperature 1, the official code's cosine classifier 1/30). With the prior of the batch's
    keys it is SupCon's "in" form but for ``log |P|``.

    Arguments:
        prior: how often each class occurs, counts or shares ``[C]``, all > 0; None (default): as among the keys.
        strength: the power of the prior, >= 0 (tau of Menon et al.), default 1; 0 is the balanced form.
        temperature: default "learned" from 0.07 (the official code's).
        score, two_sided, reduction: as in :class:`~nearfar.objectives.InfoNCE`.

    Raises ValueError where the relation is not :class:`~nearfar.contrast.Labels`.
    """

    name = "gml"
    needs_labels = True
    aliases: ClassVar[dict[str, dict[str, Any]]] = {
        "logit-adjusted": {"temperature": 1.0},
        "logit-adjustment": {"temperature": 1.0},
        "balanced-softmax": {"temperature": 1.0},
    }
    formula = "-log( prior_y mean_{j of y} exp(s_ij/T) / sum_c prior_c mean_{j of c} exp(s_ij/T) )"
    paper = "Suh 2023, Long-Tailed Recognition by Mutual Information Maximization, arXiv:2305.01160"
    default_temperature = 0.07
    needs_negative = False

    def __init__(
        self,
        *,
        prior: Tensor | Sequence[float] | None = None,
        strength: float = 1.0,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        temperature = "learned" if temperature is None else temperature
        super().__init__(temperature=temperature, score=score, two_sided=two_sided, reduction=reduction)
        if not 0 <= strength < float("inf"):
            raise UsageError(f"gml: strength must be a finite number >= 0, got {strength}")
        self.prior: Tensor | None = None
        if prior is not None:
            self.prior = shares(prior) ** strength
        elif strength != 1:
            raise UsageError("gml: strength needs a prior")
        self.strength = strength

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        return log_sum_exp(scores, positive.to(scores.dtype) + negative) - log_sum_exp(scores, positive)

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
        """How the engine evaluates it: by class means, a learned temperature apart from the features."""
        if not isinstance(relation, Labels):
            raise ValueError(f"gml needs the classes of the items: relation=Labels(...), got {type(relation).__name__}")
        where: dict[str, Any] = {"memory": memory, "tile_rows": tile_rows, "group": group}
        assert self.temperature is not None
        features = self if not self.temperature.learned else self._with(_Held(self.temperature))
        loss, report = evaluate_rows(features, query, key, relation=self._given(relation), scores=scores, **where)
        if not self.temperature.learned:
            return loss, report
        fixed = [None if value is None else value.detach() for value in (query, key, scores)]
        own = self._given(relation)
        own.without_own = True
        of_temperature, _ = evaluate_rows(self, *fixed[:2], relation=own, scores=fixed[2], **where)
        return loss + of_temperature, report

    def _with(self, temperature: Temperature) -> GML:
        return GML(temperature=temperature, score=self.score, two_sided=self.two_sided, reduction=self.reduction)

    def _given(self, relation: Labels) -> ClassPriors:
        state, keys = relation.query_state, relation.key_state
        prior = getattr(relation, "prior", None)
        return ClassPriors(
            state["label"],
            None if keys is None else keys["label"],
            prior=self.prior if prior is None else prior,
            ids=state.get("item"),
            key_ids=None if keys is None else keys.get("item"),
        )


class _Held(Temperature):
    """Another temperature's value, without its gradient."""

    def __init__(self, other: Temperature) -> None:
        super().__init__(1.0)
        self.__dict__["other"] = other  # no module of this one: its parameter is not asked for a gradient

    @property
    def value(self) -> float:
        value: float = self.__dict__["other"].value
        return value

    def scale(self) -> Tensor | float:
        scale: Tensor | float = self.__dict__["other"].scale()
        return scale.detach() if isinstance(scale, Tensor) else scale
