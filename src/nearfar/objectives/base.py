"""What all objectives have in common: three kinds, one calling convention each, and a registry of names."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.contrast import score as scores_module
from nearfar.contrast import temperature as temperature_module
from nearfar.contrast.distributed import total_over_processes
from nearfar.contrast.engine import Memory, Report, evaluate_with_report
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import Score
from nearfar.contrast.temperature import Temperature
from nearfar.errors import UsageError

Reduction = Literal["mean", "sum", "none"]


class Objective(nn.Module):
    """Base of all objectives: what the catalogue says of them."""

    kind: ClassVar[str]
    """ "row", "view", "point", "preference" or "combination"."""
    name: ClassVar[str] = ""
    """The catalogue's name, e.g. "info-nce"."""
    aliases: ClassVar[dict[str, dict[str, Any]]] = {}
    """Other names users know, each with the arguments it stands for."""
    formula: ClassVar[str] = ""
    """The cost in one line."""
    paper: ClassVar[str] = ""
    """First author, year, title, arXiv number where there is one."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What a call needs beyond the embeddings, scores and targets of its kind: the names of those arguments."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise UsageError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        """The options that are not at their defaults."""
        said = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, parameter.default)
            if isinstance(value, bool | int | float | str | list | tuple) and value != parameter.default:
                said.append(f"{name}={value!r}")
        return ", ".join(said)


class RowObjective(Objective):
    """Costs of rows of scores, some of whose columns are near and some far.

    A subclass writes the formula in :meth:`rows`. Calling it evaluates the formula on embeddings or ready-made scores
    through the engine, exactly and in memory linear in the batch.

    Rows without a positive (or without a negative, where ``needs_negative``) have no cost and do not count in the mean.
    A batch without any such row costs 0, with a zero gradient and a warning; ``empty_batches`` counts them.
    """

    kind = "row"
    default_score: ClassVar[str] = "cosine"
    default_temperature: ClassVar[float | None] = None
    needs_negative: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    """Whether only classes of items say who is near: ``relation=Labels(y)``."""
    needs_positive_scores: bool = False
    needs_row_statistics: bool = False
    joins_rows: bool = False
    costs_a_row: int = 1
    """How many numbers :meth:`rows` gives a row: ``[t]``, or ``[t, k]`` for :meth:`join` to combine."""
    softmax_form: str | None = None

    def __init__(
        self,
        *,
        temperature: float | str | Temperature | None = None,
        score: str | Score | None = None,
        two_sided: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.score = scores_module.get(self.default_score if score is None else score)
        self.temperature: Temperature | None = None
        if self.default_temperature is not None:
            self.temperature = temperature_module.get(temperature, self.default_temperature)
        elif temperature is not None:
            raise UsageError(f"{self.name or type(self).__name__} has no temperature")
        self.two_sided = two_sided
        self.empty_batches = 0
        self.report: Report | None = None

    @property
    def of_rows_alone(self) -> bool:
        """Whether the loss is that of :meth:`rows` on the given items and nothing more, so that it can be wrapped."""
        return not hasattr(self, "evaluation")

    def rows(self, scores: Tensor, positive: Tensor, negative: Tensor, **state: Tensor) -> Tensor:
        """The cost ``[t]`` of each row of ``scores [t, m]`` (divided by the temperature already), given the weights
        ``positive [t, m]`` and ``negative [t, m]``, bool or float >= 0, of its near and far columns. Every row has what
        the formula needs. ``state`` is what :meth:`prepare` gave for these rows."""
        raise NotImplementedError

    def active(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Which rows ``[t]`` have what the formula needs."""
        has = (positive > 0).any(1)
        return has & (negative > 0).any(1) if self.needs_negative else has

    def weights(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The weight ``[t]`` of each row in the mean, without a gradient; 1 by default."""
        return torch.ones_like(scores[:, 0])

    def arrays(self, positives: int) -> float:
        """How many arrays of the size of a tile's scores :meth:`rows` and its gradient hold at once, roughly, when a
        row has ``positives`` positives. The engine sizes its tiles by it."""
        return 8.0

    def prepare(self, scores: Tensor, rows: Tensor, count: int) -> dict[str, Tensor]:
        """The pre-pass over the positive pairs of the whole batch, for an objective with ``needs_positive_scores``.

        ``scores [p]`` of all positive pairs (not divided by the temperature), with gradient; ``rows [p]`` says whose
        they are; ``count`` is the number of rows. Returns values a row (``[count]``) or for all (0-dimensional).
        """
        return {}

    def statistic(self, scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """What :meth:`remember` wants to know of each row: ``[t]`` or ``[t, k]``, from scores divided by the
        temperature, without a gradient; for an objective with ``needs_row_statistics``."""
        raise NotImplementedError

    def remember(self, statistics: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Update what is kept of items from batch to batch and return what :meth:`rows` needs of it.

        ``statistics [a, ...]`` and the ids ``[a]`` (int64) of the active rows of all processes, so that every process
        keeps the same tables. Called once an evaluation. Tables change only in training mode (``self.training``).
        Returns values a row (``[a, ...]``) or for all (0-dimensional), without a gradient.
        """
        raise NotImplementedError

    def join(self, costs: Tensor, ids: Tensor | None) -> Tensor:
        """Combine rows, for an objective with ``joins_rows``: ``[a]`` (or ``[a, costs_a_row]``) costs of the active
        rows of all processes to ``[g]`` costs of groups, which the reduction then applies to.

        ``ids [a]`` (int64) are the relation's names of the rows (under ``Labels`` the labels), None where it has none.
        It has no parameters of its own: every process computes it alike.
        """
        raise NotImplementedError

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
        """The loss; see :func:`nearfar.contrast.evaluate`. ``report`` then says what was active and how it ran."""
        loss, self.report = evaluate_with_report(
            self, query, key, relation=relation, scores=scores, memory=memory, group=group
        )
        if not bool(total_over_processes(self.report.active_anchors, group)):
            self.empty_batches += 1
            warnings.warn(
                f"{self.name or type(self).__name__}: no anchor of this batch has "
                f"{'a positive and a negative' if self.needs_negative else 'a positive'}; its loss is 0 and it teaches "
                f"nothing ({self.empty_batches} such batches so far)",
                UserWarning,
                stacklevel=2,
            )
        return loss


class ViewObjective(Objective):
    """Costs on batch statistics of views of the same items: ``objective(z1 [n, d], z2 [n, d]) -> scalar``."""

    kind = "view"

    def __init__(self) -> None:
        super().__init__("mean")

    def views(self, *views: Tensor, minimum: int = 2) -> list[Tensor]:
        """Check that all views are ``[n, d]`` alike with n >= ``minimum``; half precision becomes float32."""
        shapes = [tuple(view.shape) for view in views]
        if len(set(shapes)) != 1 or len(shapes[0]) != 2:
            raise ValueError(f"{self.name}: views must be [n, d] alike, got {shapes}")
        if not all(view.is_floating_point() for view in views):
            raise ValueError(f"{self.name}: views must be floating point, got {[view.dtype for view in views]}")
        if shapes[0][0] < minimum:
            raise ValueError(f"{self.name}: batch statistics need at least {minimum} rows, got {shapes[0]}")
        return [at_least_float32(view) for view in views]


class PointObjective(Objective):
    """Costs of single scores: ``objective(score [n], target [n], ...) -> [n]``; a scalar with another ``reduction``."""

    kind = "point"
    takes: ClassVar[str] = "similarities"
    """What its scores are: "similarities", or "log-probabilities" or "log-densities", which embeddings do not give."""
    extras: ClassVar[tuple[str, ...]] = ()
    """Names of what may be given beside score and target: ``[n]`` tensors, or scalars for all points."""

    def __init__(self, *, reduction: str = "none") -> None:
        super().__init__(reduction)

    def points(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        """The cost ``[n]`` of each score given its target."""
        raise NotImplementedError

    def forward(self, score: Tensor, target: Tensor, **extra: Tensor) -> Tensor:
        """The costs ``[n]``, or their mean or sum. Raises ValueError for shapes that differ, TypeError for extras that
        the objective does not take."""
        if score.dim() != 1 or score.shape != target.shape or not score.is_floating_point():
            raise ValueError(
                f"{self.name}: score and target must be [n] alike, got {tuple(score.shape)} of {score.dtype} and "
                f"{tuple(target.shape)}"
            )
        for name, value in extra.items():
            if name not in self.extras:
                raise TypeError(f"{self.name} takes no {name!r} beside score and target, but {list(self.extras)}")
            if value.dim() and value.shape != score.shape:
                raise ValueError(f"{self.name}: {name} must be {list(score.shape)}, got {list(value.shape)}")
        costs = self.points(at_least_float32(score), target, **extra)
        if self.reduction == "none":
            return costs
        if self.reduction == "sum":
            return costs.sum()
        return costs.mean() if costs.numel() else score.sum()


def masked(scores: Tensor, weight: Tensor) -> Tensor:
    """Scores with ``log(weight)`` added, so that ``exp`` of them is weighted: -inf where the weight is 0."""
    if weight.dtype == torch.bool:
        return scores.masked_fill(~weight, -torch.inf)
    weight = weight.to(scores.dtype)
    if weight.requires_grad:  # the gradient of log at 0 is infinite, and its share 0: together not a number
        there = weight > 0
        return (scores + torch.where(there, weight, 1).log()).masked_fill(~there, -torch.inf)
    return scores + weight.log()


def log_sum_exp(scores: Tensor, weight: Tensor) -> Tensor:
    """``log sum_j weight_ij exp(s_ij)``, ``[t]``; every row needs a weight > 0."""
    return torch.logsumexp(masked(scores, weight), dim=1)


def grouped_log_sum_exp(values: Tensor, ids: Tensor) -> Tensor:
    """``log sum_{a of id g} exp(values_a)`` for each different id, in ascending order: ``[a] -> [g]``."""
    names, place = torch.unique(ids, return_inverse=True)
    peak = values.detach().new_full(names.shape, -torch.inf).scatter_reduce(0, place, values.detach(), "amax")
    total = values.new_zeros(names.shape).index_add(0, place, (values - peak[place]).exp())
    return peak + total.log()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """``sum_j weight_ij values_ij / sum_j weight_ij``, ``[t]``; values of weight 0 may be infinite."""
    weight = weight.to(values.dtype)
    return (weight * values.masked_fill(weight == 0, 0)).sum(1) / weight.sum(1)


def compact(scores: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The columns with a weight, moved to the left: ``(scores [t, k], weight [t, k])``, k the most that a row has.

    Keeps the size of pairs and triplets of columns at what there is instead of what there could be.
    """
    count = int((weight > 0).sum(1).max())
    if 2 * count > weight.shape[1]:
        return scores, weight.to(scores.dtype)
    chosen = (weight > 0).to(torch.uint8).topk(count, dim=1).indices
    return scores.gather(1, chosen), weight.gather(1, chosen).to(scores.dtype)


def check_rows(name: str, what: str, value: Tensor, count: int, dimensions: int = 1) -> None:
    """Raise ValueError where ``value`` does not have ``count`` rows and ``dimensions`` dimensions."""
    if value.dim() != dimensions or value.shape[0] != count:
        raise ValueError(f"{name}: {what} must have {count} rows in {dimensions} dimensions, got {tuple(value.shape)}")
