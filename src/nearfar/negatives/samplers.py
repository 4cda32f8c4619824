"""Which labelled items are drawn, and how often: samplers for classes of very different sizes.

::

    loader = DataLoader(data, batch_size=128, sampler=ClassSampler(labels, "balanced", seed=0), drop_last=True)
    loader = DataLoader(data, batch_sampler=PerClassBatches(labels, classes=8, items=4, seed=0))
    keys = draw_per_class(labels, class_slots(counts, 280, base=8), generator=generator)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nearfar.errors import DataError, UsageError

Scheme = Literal["natural", "square-root", "balanced", "effective"]
Numbers = Tensor | npt.NDArray[Any] | Sequence[int] | Sequence[float]


def class_shares(counts: Numbers, scheme: Scheme | float = "balanced", *, beta: float = 0.9999) -> Tensor:
    """How often each class is drawn, ``[C]`` in float64, of classes with so many items (``counts [C]``); sums to 1.

    ``scheme``:

    - a number q: in proportion to ``n_c ** q``. ``"natural"`` is 1 (every item equally often), ``"square-root"`` 0.5
      (Mahajan et al., 2018), ``"balanced"`` 0 (every class equally often).
    - ``"effective"``: in proportion to ``n_c / E_c`` with the effective number ``E_c = (1 - beta^n_c) / (1 - beta)`` of
      Cui et al. (2019): each item of a class has the weight 1 / E_c. ``beta`` in [0, 1), default 0.9999; 0 is natural,
      near 1 balanced.

    A class without items is never drawn. Raises :class:`~nearfar.errors.UsageError` for no such scheme, counts below 0
    or none above it.
    """
    n = _counts(counts)
    if isinstance(scheme, str) and scheme not in ("natural", "square-root", "balanced", "effective"):
        raise UsageError(
            f"there is no scheme {scheme!r}", hint="choose natural, square-root, balanced, effective, or a power"
        )
    if scheme == "effective":
        if not 0 <= beta < 1:
            raise UsageError(f"beta must lie in [0, 1), got {beta}")
        weights = n * (1 - beta) / (1 - beta ** n.clamp_min(1))
    else:
        power = {"natural": 1.0, "square-root": 0.5, "balanced": 0.0}.get(str(scheme))
        power = float(scheme) if power is None else power
        if not np.isfinite(power):
            raise UsageError(f"the power must be finite, got {scheme}")
        weights = torch.where(n > 0, n.clamp_min(1) ** power, 0)
    return weights / weights.sum()


def class_slots(prior: Numbers, total: int, *, base: int = 3) -> Tensor:
    """``total`` places divided among classes: ``base`` for each, the rest in proportion to ``prior [C]``.

    What GML's queue does (Suh & Seo, 2023: 16,384 places, base 3), so that no class is without a key. Fractions are
    rounded by the largest remainder, ties to the earlier class: the result ``[C]`` (int64) adds up to ``total``.
    ``prior``: counts or shares, >= 0. Raises :class:`~nearfar.errors.UsageError` where ``total`` does not reach.
    """
    weights = _counts(prior)
    rest = total - base * len(weights)
    if base < 0 or rest < 0:
        raise UsageError(f"{total:,} places are too few for {len(weights):,} classes with at least {base} each")
    exact = rest * weights / weights.sum()
    slots = exact.floor()
    missing = rest - int(slots.sum())
    slots[torch.argsort(slots - exact, stable=True)[:missing]] += 1
    return slots.long() + base


def draw_per_class(labels: Tensor, slots: Numbers | int, *, generator: torch.Generator | None = None) -> Tensor:
    """Indices of random items, ``slots[c]`` of each class c, in the order of the classes.

    ``labels [n]`` in 0 .. C-1; ``slots [C]``, or one number for all. Within a class the items are shuffled and taken in
    turn, again from the first where there are fewer than asked for: no item comes twice before all others came once.
    Raises :class:`~nearfar.errors.DataError` for a class that is to be drawn from and has no item, and labels below 0.
    """
    known = _labels(labels)
    count = int(known.max()) + 1
    wanted = torch.full((count,), slots) if isinstance(slots, int) else _counts(slots).long()
    device = "cpu" if generator is None else generator.device
    shuffled = torch.randperm(len(known), generator=generator, device=device).cpu()
    chosen = []
    for label, number in enumerate(wanted.tolist()):
        if number:
            members = shuffled[known[shuffled] == label]
            if not len(members):
                raise DataError(f"class {label} has no item to draw")
            chosen.append(members[torch.arange(number) % len(members)])
    return (torch.cat(chosen) if chosen else shuffled[:0]).to(labels.device)


class ClassSampler:
    """Draws items with replacement so that classes come as often as a scheme says; a sampler for torch's DataLoader.

    Arguments:
        labels: ``[n]`` integers >= 0.
        scheme, beta: as of :func:`class_shares`; default ``"balanced"``.
        draws: an epoch's length, default n.
        seed: of everything; the draws depend on it and the epoch (:meth:`set_epoch`) alone.

    Draws are independent, so that a class may be missing in a batch: :class:`PerClassBatches` and
    :class:`~nearfar.negatives.LabelBatches` promise more. Raises :class:`~nearfar.errors.DataError` for labels below 0.
    """

    def __init__(
        self,
        labels: Numbers,
        scheme: Scheme | float = "balanced",
        *,
        beta: float = 0.9999,
        draws: int | None = None,
        seed: int = 0,
    ) -> None:
        known = _labels(labels)
        classes, inverse, counts = torch.unique(known, return_inverse=True, return_counts=True)
        self.draws = len(known) if draws is None else draws
        if self.draws < 1:
            raise UsageError(f"draws is {draws}; at least 1 is needed")
        self.classes, self.seed, self.epoch = classes, seed, 0
        self.shares = class_shares(counts, scheme, beta=beta)
        self.weights = (self.shares / counts)[inverse]

    def set_epoch(self, epoch: int) -> None:
        """Draw this epoch's items from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.draws

    def __iter__(self) -> Iterator[int]:
        ends = np.cumsum(self.weights.numpy())
        drawn = np.random.default_rng([self.seed, self.epoch]).random(self.draws) * ends[-1]
        places = np.minimum(np.searchsorted(ends, drawn, side="right"), len(ends) - 1)
        return iter(places.tolist())


class PerClassBatches:
    """Batches of ``classes`` different classes with ``items`` each: P x K; a batch sampler for torch's DataLoader.

    Classes are dealt in turn from a shuffled deck, so that all come equally often to within one; within a class items
    come in shuffled order, all once before any twice. A class of fewer than ``items`` repeats its own in a batch.

    Arguments:
        labels: ``[n]`` integers >= 0.
        classes: P >= 1; items: K >= 1 (2 and more, for a positive).
        batches: of an epoch; default ``n // (P K)``, at least 1.
        seed: batches depend on it and the epoch (:meth:`set_epoch`) alone.

    Raises :class:`~nearfar.errors.DataError` for fewer classes than P, and labels below 0.
    """

    def __init__(
        self, labels: Numbers, *, classes: int = 8, items: int = 4, batches: int | None = None, seed: int = 0
    ) -> None:
        known = _labels(labels)
        if min(classes, items) < 1 or (batches is not None and batches < 1):
            raise UsageError(f"classes, items and batches must be at least 1, got {classes}, {items}, {batches}")
        inverse = torch.unique(known, return_inverse=True)[1]
        self._members = [(inverse == label).nonzero()[:, 0].numpy() for label in range(int(inverse.max()) + 1)]
        if len(self._members) < classes:
            raise DataError(f"there are {len(self._members)} classes, fewer than the {classes} of a batch")
        self.classes, self.items, self.seed, self.epoch = classes, items, seed, 0
        self.batches = max(1, len(known) // (classes * items)) if batches is None else batches

    def set_epoch(self, epoch: int) -> None:
        """Iterate over this epoch's batches from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        decks = [_Deck(members, generator) for members in self._members]
        order = _Deck(np.arange(len(decks)), generator)
        for _ in range(self.batches):
            yield [row for label in order.deal(self.classes) for row in decks[label].deal(self.items)]


class _Deck:
    """Cards dealt in random order, shuffled anew when they run out; no card twice in one deal while others are left."""

    def __init__(self, cards: npt.NDArray[np.int64], generator: np.random.Generator) -> None:
        self.cards, self.generator = cards, generator
        self.left: list[int] = []

    def deal(self, number: int) -> list[int]:
        dealt: list[int] = []
        while len(dealt) < number:
            if not self.left:
                fresh = self.generator.permutation(self.cards).tolist()
                held = set(dealt)
                # those in this deal go to the bottom
                self.left = [card for card in fresh if card in held] + [card for card in fresh if card not in held]
            dealt.append(self.left.pop())
        return dealt


def _labels(labels: Numbers) -> Tensor:
    known = torch.as_tensor(labels).detach().cpu()
    if known.dim() != 1 or not len(known) or known.is_floating_point():
        raise DataError(f"labels must be integers [n] of at least one item, got {tuple(known.shape)} of {known.dtype}")
    known = known.long()
    below = (known < 0).nonzero()[:, 0]
    if len(below):
        place = int(below[0])
        raise DataError(
            f"labels must be at least 0, and that at position {place} is {int(known[place])}",
            hint="leave out items without a label, and number the classes from 0",
        )
    return known


def _counts(counts: Numbers) -> Tensor:
    n = torch.as_tensor(counts).detach().cpu().double()
    if n.dim() != 1 or not torch.isfinite(n).all() or (n < 0).any() or not (n > 0).any():
        raise UsageError(f"counts must be finite numbers >= 0, one a class and one above 0, got {counts}")
    return n
