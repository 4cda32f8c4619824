"""Matryoshka: any objective on prefixes of the embeddings, so that short ones are good too."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.contrast.engine import Memory, Report, evaluate_with_report
from nearfar.contrast.precision import at_least_float32
from nearfar.contrast.relation import Relation
from nearfar.contrast.score import normalize
from nearfar.errors import UsageError
from nearfar.objectives.base import Objective, RowObjective
from nearfar.objectives.proxies import ProxyObjective
from nearfar.objectives.registry import register
from nearfar.objectives.wrappers import objective_of


@register
class Matryoshka(RowObjective):
    """Matryoshka representations: any objective, summed over prefixes of the embeddings (Kusupati et al., 2022).

    ``L = sum_m w_m L_base(z[:, :m])``; embeddings of m numbers are then as good as those trained for m alone, and can
    be cut as needed. Prefixes are cut first and scored as the objective scores (cosines normalise each prefix anew).

    ``Matryoshka("info-nce")``, ``get("matryoshka(info-nce)", temperature=0.05)``, ``nearfar train --objective
    "matryoshka(info-nce)" --set dimensions=256,128,64``: what Matryoshka does not take itself goes to the objective. It
    is called as the objective is, and is of its kind; of objectives on ready-made scores, those of pairs
    (``of_embeddings``). Proxies and classifiers are cut with the embeddings. An objective that keeps tables
    (``sogclr``) keeps them for each prefix, and needs ``dimensions``.

    Arguments:
        objective: an objective or its name, default "info-nce".
        dimensions: the sizes m, each at most the dimension d of the embeddings: numbers, or a text "256,128,64";
            default d, d/2, d/4, d/8, d/16 (of 768: 768, 384, 192, 96, 48). Include d, or the whole is not trained.
        weights: the w_m, >= 0, as many as dimensions; default 1 each (the paper's).
        normalize: divide prefixes by their length before the objective sees them, as sentence-transformers does; only
            objectives that are not cosine-based notice. Default False.

    ``report`` is that of the first prefix. Raises ValueError for a prefix longer than the embeddings.
    """

    name = "matryoshka"
    formula = "sum_m w_m L(z[:, :m])"
    paper = "Kusupati 2022, Matryoshka Representation Learning, arXiv:2205.13147"

    def __init__(
        self,
        objective: str | Objective = "info-nce",
        dimensions: Sequence[int] | int | str | None = None,
        weights: Sequence[float] | float | str | None = None,
        *,
        normalize: bool = False,
    ) -> None:
        inner = objective_of(objective)
        if inner.kind not in ("row", "view") and not hasattr(inner, "of_embeddings"):
            raise UsageError(f"matryoshka: {inner.name} is called on scores, which have no prefixes")
        Objective.__init__(self, inner.reduction)
        object.__setattr__(self, "kind", inner.kind)
        # seen from outside as the objective's own, held by it
        for attribute in ("score", "temperature", "two_sided", "needs_negative"):
            object.__setattr__(self, attribute, getattr(inner, attribute, None))
        self.empty_batches = 0
        self.report: Report | None = None
        self.dimensions = None if dimensions is None else _dimensions(dimensions)
        self.weights_of_prefixes = None if weights is None else _weights(weights, self.dimensions)
        self.normalize = normalize
        self.prefixes = nn.ModuleList([inner])
        if _keeps_tables(inner):
            if self.dimensions is None:
                raise UsageError(
                    f"matryoshka: {inner.name} keeps state for each prefix", hint="give dimensions, e.g. 256,128,64"
                )
            temperature = self.temperature
            # a single temperature is one for all prefixes; those of items belong to the tables
            shared = {} if temperature is None or temperature.individual else {id(temperature): temperature}
            self.prefixes.extend(copy.deepcopy(inner, dict(shared)) for _ in self.dimensions[1:])

    @property
    def objective(self) -> Objective:
        """The wrapped objective (of the first prefix, where each has its own)."""
        first = self.prefixes[0]
        assert isinstance(first, Objective)
        return first

    @property
    def of_rows_alone(self) -> bool:
        return False

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.objective.needs

    def forward(self, *embeddings: Tensor | None, **arguments: Any) -> Tensor:
        """The loss; called as the wrapped objective is (its ``of_embeddings``, where it takes scores of pairs)."""
        own = type(self.objective).forward is RowObjective.forward
        if own and not set(arguments) - {"query", "key", "relation", "scores", "memory", "group"}:
            return super().forward(*embeddings, **arguments)

        embeddings = tuple(_in_float32(value) for value in embeddings)
        arguments = {k: _in_float32(v) if k in ("query", "key") else v for k, v in arguments.items()}

        def of_prefix(objective: Objective, size: int) -> Tensor:
            given = [self._cut(value, size) for value in embeddings]
            named = {k: self._cut(v, size) if k in ("query", "key") else v for k, v in arguments.items()}
            loss: Tensor = objective(*given, **named)
            return loss

        total = self._total(of_prefix, *embeddings, arguments.get("query"))
        self.report = getattr(self.objective, "report", None)
        return total

    def of_embeddings(self, *embeddings: Tensor) -> Tensor:
        """The loss of an objective on scores of pairs: two embeddings ``[n, d]`` and the targets, as it is called."""
        *given, target = (_in_float32(value) for value in embeddings)

        def of_prefix(objective: Any, size: int) -> Tensor:
            loss: Tensor = objective.of_embeddings(*(self._cut(value, size) for value in given), target)
            return loss

        return self._total(of_prefix, *given)

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
        """How the engine evaluates it: each prefix in turn."""
        if scores is not None:
            raise ValueError("matryoshka needs embeddings: scores have no prefixes")
        query, key = _in_float32(query), _in_float32(key)
        reports: list[Report] = []

        def of_prefix(objective: Any, size: int) -> Tensor:
            loss, report = evaluate_with_report(
                objective,
                self._cut(query, size),
                self._cut(key, size),
                relation=relation,
                memory=memory,
                tile_rows=tile_rows,
                group=group,
            )
            reports.append(report)
            return loss

        return self._total(of_prefix, query), reports[0]

    def _total(self, of_prefix: Callable[[Objective, int], Tensor], *embeddings: Tensor | None) -> Tensor:
        """The weighted sum over prefixes of what ``of_prefix(objective, size)`` gives."""
        dimension = next((value.shape[-1] for value in embeddings if value is not None and value.dim() > 1), None)
        if dimension is None:
            raise ValueError("matryoshka: give embeddings [n, d]")
        sizes = self.dimensions or tuple(dict.fromkeys(max(1, dimension // 2**halving) for halving in range(5)))
        if max(sizes) > dimension:
            raise ValueError(f"matryoshka: a prefix of {max(sizes)} is longer than embeddings of {dimension}")
        weights = self.weights_of_prefixes or (1.0,) * len(sizes)
        losses = []
        for index, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
            objective: Any = self.prefixes[index if len(self.prefixes) > 1 else 0]
            with _narrowed(objective, size):
                losses.append(weight * of_prefix(objective, size))
        return torch.stack(losses).sum(0)

    def _cut(self, value: Tensor | None, size: int) -> Tensor | None:
        if value is None or value.dim() < 2:
            return value
        return normalize(value[..., :size]) if self.normalize else value[..., :size]

    def extra_repr(self) -> str:
        return f"dimensions={self.dimensions}, weights={self.weights_of_prefixes}, normalize={self.normalize}"


def _in_float32(value: Any) -> Any:
    """Embeddings of half precision in float32, before they are cut: the gradients of prefixes are summed in it."""
    return at_least_float32(value) if isinstance(value, Tensor) and value.is_floating_point() else value


@contextmanager
def _narrowed(objective: Objective, size: int) -> Iterator[None]:
    """Meanwhile the objective's proxies, which are as long as embeddings, are cut as embeddings are."""
    whole = objective.proxies if isinstance(objective, ProxyObjective) else None
    if not isinstance(objective, ProxyObjective) or whole is None:
        yield
        return
    dimension = objective.dimension
    try:
        objective._parameters["proxies"] = whole[:, :size]  # type: ignore[assignment]
        objective.dimension = size
        yield
    finally:
        objective._parameters["proxies"] = whole
        objective.dimension = dimension


def _keeps_tables(objective: Objective) -> bool:
    """Whether it remembers something from batch to batch that differs by prefix."""
    own = [name for name, _ in objective.named_buffers() if not name.startswith("temperature.")]
    return bool(own) or bool(getattr(objective, "needs_row_statistics", False))


def _numbers(name: str, given: Sequence[float] | float | str) -> tuple[float, ...]:
    try:
        parts = given.split(",") if isinstance(given, str) else [given] if isinstance(given, (int, float)) else given
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise UsageError(f"matryoshka: {name} must be numbers, got {given!r}", hint="e.g. 256,128,64") from None


def _dimensions(given: Sequence[int] | int | str) -> tuple[int, ...]:
    numbers = _numbers("dimensions", given)
    if not numbers or any(number < 1 or not number.is_integer() for number in numbers):
        raise UsageError(f"matryoshka: dimensions must be whole numbers >= 1, got {given!r}", hint="e.g. 256,128,64")
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"matryoshka: a dimension was given twice: {given!r}")
    return tuple(int(number) for number in numbers)


def _weights(given: Sequence[float] | float | str, dimensions: tuple[int, ...] | None) -> tuple[float, ...]:
    numbers = _numbers("weights", given)
    if dimensions is None or len(numbers) != len(dimensions):
        raise UsageError(f"matryoshka: give as many weights as dimensions, got {given!r} for {dimensions}")
    if not all(0 <= number < math.inf for number in numbers):
        raise UsageError(f"matryoshka: weights must be finite and >= 0, got {given!r}")
    return numbers
