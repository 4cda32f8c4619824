"""Views of rows of a table ``[n, d]``: values of other rows, noise, gaps, mixtures.

Categories are safe in views that move whole values (:class:`Corrupt`, :class:`ColumnMix`); one-hot columns stay one-hot
where they are named as one of ``groups``. Views that compute with values take ``columns``, those with numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nearfar.contrast.precision import at_least_float32
from nearfar.errors import DataError, UsageError
from nearfar.views.base import View, checked_range, normal, uniform


class TableView(View):
    """Base of views of rows ``[n, d]``."""

    def check(self, items: Tensor) -> None:
        if items.dim() != 2:
            raise DataError(f"{type(self).__name__}: rows of a table are [n, d], got {tuple(items.shape)}")


class NumbersView(TableView):
    """Base of views that compute with the values of rows ``[n, d]``, floating numbers: whole ones would be cut off."""

    def check(self, items: Tensor) -> None:
        super().check(items)
        if not items.is_floating_point():
            raise DataError(
                f"{type(self).__name__}: values that are computed with must be floating numbers, got {items.dtype}",
                hint="give rows.float(), and with columns= those that hold numbers",
            )


class Corrupt(TableView):
    """Some features of each row replaced by those of random other rows (SCARF, Bahri et al., 2022; VIME).

    Each replaced value is drawn by itself from all values of its column, the empirical marginal: a value that exists,
    so that categories stay categories.

    Arguments:
        reference: rows ``[m, d]`` whose values are drawn, the training data; default the batch itself.
        rate: share of the features, default 0.6 (SCARF).
        exact: each row has ``floor(rate d)`` of them replaced (SCARF, default), else each feature with probability
            ``rate`` (VIME, Yoon et al., 2020: 0.3).
        groups: lists of columns that are replaced together from the same row, such as the columns of one one-hot
            category. ``rate`` counts a group as one feature.
        p: default 1.

    Raises :class:`~nearfar.errors.UsageError` for a rate outside [0, 1] or a column in two groups, and
    :class:`~nearfar.errors.DataError` where items and reference do not fit.
    """

    def __init__(
        self,
        reference: Tensor | None = None,
        *,
        rate: float = 0.6,
        exact: bool = True,
        groups: Sequence[Sequence[int]] = (),
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        if reference is not None and (reference.dim() != 2 or not len(reference)):
            raise DataError(f"Corrupt: reference rows are [m, d], got {tuple(reference.shape)}")
        self.rate = checked_range("Corrupt: rate", rate, 0, 1)[0]
        self.exact = exact
        self.groups = tuple(tuple(group) for group in groups)
        named = [column for group in self.groups for column in group]
        if len(set(named)) != len(named) or any(column < 0 for column in named):
            raise UsageError(f"Corrupt: groups must be disjoint columns from 0 on, got {list(groups)}")
        self._reference = reference

    def __call__(self, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.with_mask(items, generator)[0]

    def with_mask(self, items: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The changed rows, and which values were drawn anew ``[n, d]`` (bool): what VIME has a head tell."""
        self.check(items)
        n, d = items.shape
        reference = items if self._reference is None else self._reference.to(items)
        if reference.shape[1] != d:
            raise DataError(f"Corrupt: rows have {d} features, the reference {reference.shape[1]}")
        group = _groups(d, self.groups)
        features = int(group.max()) + 1 if d else 0
        chosen = _some(n, features, self.rate, self.exact, generator)
        chosen &= (uniform(n, 1, generator=generator) < self.p).to(chosen.device)
        source = (uniform(n, features, generator=generator) * max(1, len(reference))).long()
        mask = chosen[:, group.to(chosen.device)].to(items.device)
        source = source.clamp_max(max(0, len(reference) - 1))[:, group.to(source.device)]
        drawn = reference.gather(0, source.to(items.device))
        return torch.where(mask, drawn, items), mask


class FeatureNoise(NumbersView):
    """Gaussian noise added to numbers: ``x + deviation * scale * N(0, 1)``.

    Arguments:
        deviation: a number or a range drawn for each row, default 0.1.
        reference: rows ``[m, d]`` whose deviation a column is the scale; default none, scale 1 (standardised columns).
        columns: those with numbers; default all.
        p: default 1.
    """

    def __init__(
        self,
        deviation: float | tuple[float, float] = 0.1,
        *,
        reference: Tensor | None = None,
        columns: Sequence[int] | None = None,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.deviation = checked_range("FeatureNoise: deviation", deviation, 0, 1e9)
        self.columns = columns
        self._scale = None if reference is None else at_least_float32(reference).std(0, correction=0)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        low, high = self.deviation
        size = uniform(len(items), 1, low=low, high=high, like=items, generator=generator)
        noise = size * normal(*items.shape, like=items, generator=generator)
        if self._scale is not None:
            noise = noise * self._scale.to(noise)
        changed = (at_least_float32(items) + noise).to(items.dtype)
        return torch.where(_columns(items, self.columns), changed, items)


class FeatureDropout(TableView):
    """Some features of each row hidden behind one value, as if they were missing.

    Arguments:
        rate: each feature's probability, default 0.2. value: what stands there, default 0 (the mean of standardised
            columns). reference: rows ``[m, d]`` whose column means stand there instead. columns: those that may go,
            default all. p: default 1.
    """

    def __init__(
        self,
        rate: float = 0.2,
        *,
        value: float = 0.0,
        reference: Tensor | None = None,
        columns: Sequence[int] | None = None,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.rate = checked_range("FeatureDropout: rate", rate, 0, 1)[0]
        self.value = value
        self.columns = columns
        self._mean = None if reference is None else at_least_float32(reference).mean(0)

    def change(self, items: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn = _some(items.shape[0], items.shape[1], self.rate, False, generator).to(items.device)
        gone = drawn & _columns(items, self.columns)
        filling = items.new_full((items.shape[1],), self.value) if self._mean is None else self._mean.to(items)
        return torch.where(gone, filling, items)


class ColumnMix(TableView):
    """Some features of each row taken from one other row of the batch (CutMix of a table; SAINT, 2021).

    Unlike :class:`Corrupt` the foreign values belong together.

    Arguments: ``rate``: each feature's probability to be foreign, default 0.3 (SAINT); ``groups``: as of
    :class:`Corrupt`; ``p``: default 1.
    """

    def __init__(self, rate: float = 0.3, *, groups: Sequence[Sequence[int]] = (), p: float = 1.0) -> None:
        super().__init__(p)
        self.rate = checked_range("ColumnMix: rate", rate, 0, 1)[0]
        self.groups = tuple(tuple(group) for group in groups)

    def __call__(self, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.check(items)
        n, d = items.shape
        group = _groups(d, self.groups)
        foreign = _some(n, int(group.max()) + 1 if d else 0, self.rate, False, generator)
        foreign &= (uniform(n, 1, generator=generator) < self.p).to(foreign.device)
        foreign = foreign[:, group.to(foreign.device)].to(items.device)
        return torch.where(foreign, items[_partners(n, generator).to(items.device)], items)


class Interpolate(NumbersView):
    """Each row moved towards another of the batch, ``x + w (x_other - x)``: mixup of the inputs alone.

    Arguments:
        share: w, a number or a range within [0, 1] drawn for each row, default (0, 0.3).
        by: ``"row"`` (default), one w for all columns, or ``"column"``, one for each.
        columns: those with numbers; default all. p: default 1.

    Where the targets are mixed as well use :func:`nearfar.negatives.mix_items`.
    """

    def __init__(
        self,
        share: float | tuple[float, float] = (0.0, 0.3),
        *,
        by: Literal["row", "column"] = "row",
        columns: Sequence[int] | None = None,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.share = checked_range("Interpolate: share", share, 0, 1)
        if by not in ("row", "column"):
            raise UsageError(f"Interpolate: by must be 'row' or 'column', got {by!r}")
        self.by = by
        self.columns = columns

    def __call__(self, items: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.check(items)
        n, d = items.shape
        low, high = self.share
        weight = uniform(n, d if self.by == "column" else 1, low=low, high=high, generator=generator)
        weight = torch.where(uniform(n, 1, generator=generator) < self.p, weight, 0).to(items.device)
        values = at_least_float32(items)
        other = values[_partners(n, generator).to(items.device)]
        changed = torch.lerp(values, other, weight.to(values).expand_as(values)).to(items.dtype)
        return torch.where(_columns(items, self.columns) & (weight > 0), changed, items)


def _some(n: int, features: int, rate: float, exact: bool, generator: torch.Generator | None) -> Tensor:
    """Which features of each row: ``floor(rate * features)`` of them, or each with probability ``rate``."""
    drawn = uniform(n, features, generator=generator)
    if not exact:
        return drawn < rate
    # 1e-9: 0.6 of 5 features are 3, whatever 0.6 is in binary
    return drawn.argsort(1).argsort(1) < int(rate * features + 1e-9)


def _partners(n: int, generator: torch.Generator | None) -> Tensor:
    """For each row another one, uniformly; itself where it is the only one."""
    if n < 2:
        return torch.arange(n)
    step = 1 + (uniform(n, generator=generator) * (n - 1)).long().clamp_max(n - 2)
    return (torch.arange(n, device=step.device) + step) % n


def _groups(features: int, groups: Sequence[Sequence[int]]) -> Tensor:
    """The number of each column's group ``[d]``; columns that are in none have one of their own."""
    number = torch.full((features,), -1, dtype=torch.long)
    for place, group in enumerate(groups):
        if any(not 0 <= column < features for column in group):
            raise DataError(f"a group names columns {list(group)}, the rows have {features}")
        number[list(group)] = place
    alone = number < 0
    number[alone] = len(groups) + torch.arange(int(alone.sum()))
    return number


def _columns(items: Tensor, columns: Sequence[int] | None) -> Tensor:
    """Which columns may change, ``[d]`` (bool)."""
    if columns is None:
        return torch.ones(items.shape[1], dtype=torch.bool, device=items.device)
    if any(not 0 <= column < items.shape[1] for column in columns):
        raise DataError(f"columns are {list(columns)}, the rows have {items.shape[1]}")
    may = torch.zeros(items.shape[1], dtype=torch.bool, device=items.device)
    may[list(columns)] = True
    return may
