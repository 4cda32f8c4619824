"""Temperatures: scores are divided by them before an objective sees them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nearfar.errors import UsageError


class Temperature(nn.Module):
    """A fixed or learned temperature T > 0; scores become ``score / T``.

    A learned one is kept as ``log_scale = log(1 / T)`` (CLIP, 2021) and held within ``[minimum, maximum]``; CLIP's
    bound on the scale, 100, is the default minimum 0.01.

    Raises UsageError for a value that is not a finite number > 0, or a learned one outside its bounds.
    """

    def __init__(self, value: float, *, learned: bool = False, minimum: float = 0.01, maximum: float = 100.0) -> None:
        super().__init__()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"the temperature must be a number, got {value!r}")
        if not math.isfinite(value) or value <= 0:
            raise UsageError(
                f"the temperature must be a finite number > 0, got {value}", hint="usual values lie between 0.01 and 1"
            )
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

    def scale(self) -> Tensor | float:
        """``1 / T``: a number when fixed, a scalar tensor with a gradient when learned."""
        if self.log_scale is None:
            return 1.0 / self.initial
        # clamping the parameter, not its value, lets it come back from the bound; by `.data`, since a graph made before
        # may hold the parameter, whose value within the bounds does not change
        self.log_scale.data.clamp_(-math.log(self.maximum), -math.log(self.minimum))
        return self.log_scale.exp()

    def extra_repr(self) -> str:
        return f"{self.value:g}" + (f", learned in [{self.minimum:g}, {self.maximum:g}]" if self.learned else "")


def get(temperature: float | str | Temperature | None, default: float) -> Temperature:
    """A :class:`Temperature` from a number, "learned" (starting at ``default``), "learned:0.07", or made already."""
    if isinstance(temperature, Temperature):
        return temperature
    if temperature is None:
        return Temperature(default)
    if not isinstance(temperature, str):
        return Temperature(temperature)
    kind, colon, start = temperature.rpartition(":")
    if temperature == "learned":
        return Temperature(default, learned=True)
    try:
        value = float(start)
    except ValueError:
        value = math.nan
    if (kind, colon) not in (("", ""), ("learned", ":")) or (math.isnan(value) and start.lower() != "nan"):
        raise UsageError(f"the temperature must be a number, 'learned' or e.g. 'learned:0.07', got {temperature!r}")
    return Temperature(value, learned=kind == "learned")
