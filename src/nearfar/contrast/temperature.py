"""Temperatures: scores are divided by them before an objective sees them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nearfar.contrast.items import ItemTable, mean_by_id
from nearfar.errors import UsageError


class Temperature(nn.Module):
    """A fixed or learned temperature T > 0; scores become ``score / T``.

    A learned one is kept as ``log_scale = log(1 / T)`` (CLIP, 2021) and held within ``[minimum, maximum]``; CLIP's
    bound on the scale, 100, is the default minimum 0.01.

    Raises UsageError for a value that is not a finite number > 0, or a learned one outside its bounds.
    """

    individual: ClassVar[bool] = False
    """Whether each item has its own: the engine then asks :meth:`scales` instead of :meth:`scale`."""

    follows_alignment: ClassVar[bool] = False
    """Whether it depends on the batch's alignment, which the engine then tells it first, by :meth:`observe`."""

    def __init__(self, value: float, *, learned: bool = False, minimum: float = 0.01, maximum: float = 100.0) -> None:
        super().__init__()
        _check(value)
        if learned and not 0 < minimum <= value <= maximum:
            raise UsageError(f"the learned temperature {value} lies outside its bounds [{minimum}, {maximum}]")
        self.learned = learned
        self.initial = float(value)
        self.minimum = minimum
        self.maximum = maximum
        self.log_scale = nn.Parameter(torch.tensor(-math.log(value))) if learned else None

    @property
    def value(self) -> float:
        """The present temperature."""
        if self.log_scale is None:
            return self.initial
        return min(self.maximum, max(self.minimum, math.exp(-float(self.log_scale.detach()))))

    @property
    def varies(self) -> bool:
        """Whether it may differ from one batch to the next."""
        return self.learned

    def scale(self) -> Tensor | float:
        """``1 / T``: a number when fixed, a scalar tensor with a gradient when learned."""
        if self.log_scale is None:
            return 1.0 / self.initial
        # clamping the parameter, not its value, lets it come back from the bound; by `.data`, since a graph made before
        # may hold the parameter, whose value within the bounds does not change
        self.log_scale.data.clamp_(-math.log(self.maximum), -math.log(self.minimum))
        return self.log_scale.exp()

    def scales(self, ids: Tensor) -> Tensor:
        """``1 / T`` of each row ``[n]``, without a gradient, by the ids ``[n]`` of the rows; where ``individual``."""
        raise NotImplementedError

    def observe(self, alignment: Tensor) -> None:
        """Take note of the mean score (a scalar) of the batch's positive pairs; where ``follows_alignment``."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.value:g}" + (f", learned in [{self.minimum:g}, {self.maximum:g}]" if self.learned else "")


class ScheduledTemperature(Temperature):
    """Base of temperatures that follow the number of optimiser steps; :meth:`at` says how.

    Training by nearfar calls :meth:`set_step` after every step of the optimiser; a loop of one's own calls
    :meth:`step`. The number of steps is part of the state that checkpoints save.
    """

    steps: Tensor

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def at(self, step: int) -> float:
        """The temperature after ``step`` steps of the optimiser."""
        raise NotImplementedError

    def step(self) -> None:
        """Say that the optimiser has made a step."""
        self.steps += 1

    def set_step(self, step: int) -> None:
        """Say that the optimiser has made ``step`` steps so far."""
        if step < 0:
            raise UsageError(f"a temperature cannot be at step {step}")
        self.steps.fill_(step)

    @property
    def value(self) -> float:
        return self.at(int(self.steps))

    @property
    def varies(self) -> bool:
        return True

    def scale(self) -> Tensor | float:
        return 1.0 / self.value


class CosineTemperature(ScheduledTemperature):
    """Cosine schedule: T swings between two bounds and back once a period (Kukleva et al., 2023, arXiv:2303.13664).

    ``T(step) = minimum + (maximum - minimum) (1 + cos(2 pi step / period)) / 2``: it begins at ``maximum``. Low
    temperatures set single items apart, high ones groups; the paper swings between 0.1 and 1 over 400 epochs, for data
    with a long tail. ``period`` counts steps of the optimiser.

    Raises UsageError unless 0 < minimum <= maximum < inf and period >= 1.
    """

    def __init__(self, minimum: float, maximum: float, period: int) -> None:
        super().__init__(maximum)
        _check(minimum)
        if minimum > maximum:
            raise UsageError(f"the cosine temperature's minimum {minimum} lies above its maximum {maximum}")
        if isinstance(period, bool) or not isinstance(period, int) or period < 1:
            raise UsageError(f"the cosine temperature's period must be a number of steps >= 1, got {period!r}")
        self.minimum, self.maximum, self.period = float(minimum), float(maximum), period

    def at(self, step: int) -> float:
        share = (1 + math.cos(2 * math.pi * (step % self.period) / self.period)) / 2
        return self.minimum + (self.maximum - self.minimum) * share

    def extra_repr(self) -> str:
        return f"{self.value:g}, cosine in [{self.minimum:g}, {self.maximum:g}] over {self.period:,} steps"


class AdaptiveTemperature(Temperature):
    """T follows the batch's alignment (MACL; Huang et al., 2023, arXiv:2207.07874).

    ``T = value (1 + alpha (A - reference))``, A the mean score of the positive pairs of the whole batch (all
    processes), without a gradient: the better aligned the batch, the kinder to hard negatives. Held at ``minimum`` or
    above, where the formula could fall to 0 or below.

    Arguments: ``value`` default 0.1, ``alpha`` 0.5, ``reference`` 0 (the paper's for SimCLR; for SimCSE 0.05, 2, 0.8).
    """

    alignment: Tensor
    follows_alignment = True

    def __init__(
        self, value: float = 0.1, alpha: float = 0.5, reference: float = 0.0, *, minimum: float = 0.01
    ) -> None:
        super().__init__(value)
        _check(minimum)
        if not 0 <= alpha < math.inf:
            raise UsageError(f"the adaptive temperature's alpha must be a finite number >= 0, got {alpha}")
        if not math.isfinite(reference):
            raise UsageError(f"the adaptive temperature's reference must be a finite number, got {reference}")
        self.alpha, self.reference, self.minimum = float(alpha), float(reference), float(minimum)
        self.register_buffer("alignment", torch.tensor(self.reference), persistent=False)

    def observe(self, alignment: Tensor) -> None:
        self.alignment = alignment.detach()

    @property
    def value(self) -> float:
        return float(self._present())

    @property
    def varies(self) -> bool:
        return True

    def scale(self) -> Tensor | float:
        return self._present().reciprocal()

    def _present(self) -> Tensor:
        return (self.initial * (1 + self.alpha * (self.alignment - self.reference))).clamp_min(self.minimum)

    def extra_repr(self) -> str:
        return f"{self.value:g}, adaptive: {self.initial:g} (1 + {self.alpha:g} (alignment - {self.reference:g}))"


class IndividualTemperature(Temperature):
    """Each item has its own T, by its id (iSogCLR; Qiu et al., 2023, arXiv:2305.11965).

    T of an item is the dual variable of the worst case over distributions of its negatives within a Kullback-Leibler
    ball: the minimiser over T >= ``minimum`` of ``T log mean_j exp(s_ij / T) + T rho``. :meth:`update` makes a step of
    the descent by the derivative ``log mean_j exp(s_ij / T) + rho - E[s_ij / T]`` that an objective found (``isogclr``
    does; others use the temperatures as they are): ``u <- (1 - momentum) u + momentum * clamp(gradient, -clip, clip)``,
    ``T <- clamp(T - rate u, minimum, maximum)``. Temperatures and momenta are saved in checkpoints.

    The relation of a batch must give ids (``Paired(ids)``, ``Views(2, ids=...)``): integers from 0, best the rows of
    the data.

    Arguments: ``value`` where all begin, default 0.1; ``minimum`` 0.05, ``maximum`` 1, ``rho`` >= 0, 0.4, ``rate``
    >= 0, 0.03, ``momentum`` in (0, 1], 0.5, ``clip`` > 0, 3 (the official code's for CIFAR-100); ``items``: room for
    that many at once (default 0: it grows).
    """

    individual = True

    def __init__(
        self,
        value: float = 0.1,
        *,
        minimum: float = 0.05,
        maximum: float = 1.0,
        rho: float = 0.4,
        rate: float = 0.03,
        momentum: float = 0.5,
        clip: float = 3.0,
        items: int = 0,
    ) -> None:
        super().__init__(value)
        if not 0 < minimum <= value <= maximum < math.inf:
            raise UsageError(f"the individual temperature {value} lies outside its bounds [{minimum}, {maximum}]")
        if not (0 <= rho < math.inf and 0 <= rate < math.inf and 0 < momentum <= 1 and 0 < clip <= math.inf):
            raise UsageError(
                "individual temperatures need rho >= 0, rate >= 0, 0 < momentum <= 1 and clip > 0, got "
                f"{rho}, {rate}, {momentum} and {clip}"
            )
        self.minimum, self.maximum = float(minimum), float(maximum)
        self.rho, self.rate, self.momentum, self.clip = float(rho), float(rate), float(momentum), float(clip)
        self.temperatures = ItemTable(self.initial, items)
        self.gradients = ItemTable(0.0, items)

    def of(self, ids: Tensor) -> Tensor:
        """The temperatures ``[n]`` of the items ``ids [n]``."""
        found: Tensor = self.temperatures(ids)
        return found

    def scales(self, ids: Tensor) -> Tensor:
        return self.of(ids).reciprocal()

    def scale(self) -> Tensor | float:
        raise ValueError("an individual temperature has no single value: it cannot be used where all rows share one")

    @torch.no_grad()
    def update(self, ids: Tensor, gradient: Tensor) -> None:
        """A step of the descent, given the derivative ``[n]`` by the temperatures of ``ids [n]``; an id's rows count by
        their mean."""
        ids, gradient = mean_by_id(gradient, ids)
        smoothed = (1 - self.momentum) * self.gradients(ids) + self.momentum * gradient.clamp(-self.clip, self.clip)
        self.gradients.write(ids, smoothed)
        self.temperatures.write(ids, (self.of(ids) - self.rate * smoothed).clamp(self.minimum, self.maximum))

    @property
    def value(self) -> float:
        """The mean over the items there is room for."""
        table = self.temperatures.values
        return float(table.mean()) if table.numel() else self.initial

    @property
    def varies(self) -> bool:
        return True

    def extra_repr(self) -> str:
        return f"{self.initial:g} at first, one an item in [{self.minimum:g}, {self.maximum:g}]"


_FORMS = "a number, 'learned', 'learned:0.07', 'cosine:MINIMUM:MAXIMUM:PERIOD' or 'adaptive:VALUE:ALPHA:REFERENCE'"


def get(temperature: float | str | Temperature | None, default: float) -> Temperature:
    """A :class:`Temperature` from a number, a text, or made already.

    Texts: a number; "learned" (from ``default``) or "learned:0.07"; "cosine:0.1:0.5:200" (:class:`CosineTemperature`);
    "adaptive" (from ``default``), "adaptive:0.1", "adaptive:0.1:0.5" or "adaptive:0.1:0.5:0"
    (:class:`AdaptiveTemperature`).
    """
    if isinstance(temperature, Temperature):
        return temperature
    if temperature is None:
        return Temperature(default)
    if not isinstance(temperature, str):
        return Temperature(temperature)
    kind, *parts = temperature.split(":")
    numbers = [_number(part, temperature) for part in parts]
    if kind == "learned" and len(parts) < 2:
        return Temperature(*(numbers or [default]), learned=True)
    if kind == "adaptive" and len(parts) < 4:
        return AdaptiveTemperature(*(numbers or [default]))
    if kind == "cosine" and len(parts) == 3:
        if not numbers[2].is_integer():
            raise UsageError(f"the cosine temperature's period must be a number of steps >= 1, got {parts[2]}")
        return CosineTemperature(numbers[0], numbers[1], int(numbers[2]))
    if parts:
        raise _unknown(temperature)
    return Temperature(_number(kind, temperature))


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _unknown(whole) from None


def _unknown(text: str) -> UsageError:
    return UsageError(f"the temperature must be {_FORMS}, got {text!r}")


def _check(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"the temperature must be a number, got {value!r}")
    if not math.isfinite(value) or value <= 0:
        raise UsageError(
            f"the temperature must be a finite number > 0, got {value}", hint="usual values lie between 0.01 and 1"
        )
