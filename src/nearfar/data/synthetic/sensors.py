"""A slowly changing state that several sensors measure: what is near decides what a representation keeps of it."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.views.pairs import (
    SOURCES,
    Clustering,
    ContextInstance,
    Look,
    Multisensory,
    PairSource,
    RandomPairs,
    Sequential,
    Transformation,
)


class Sensors:
    """A hidden state whose class stays for a while, measured by several sensors at every step.

    ``latent = mean[class] + spread N(0, I)``, fresh at every step, with class means ``N(0, I)`` and a class that is
    drawn anew every ``dwell`` steps; sensor s measures ``latent map[s] + offset[s] + noise N(0, I)`` with a random
    linear map and offset of its own. What two views of the world share depends on how they are paired: two sensors at
    one step share the latent state but not the sensor, neighbouring steps of one sensor share the sensor and (mostly)
    the class, two measurements of one class share nothing but that.

    Measurements are numbered: number ``sensor * steps + step``. Everything that takes an index means these numbers.

    Arguments:
        classes, steps: how many of each.
        sensors: how many measure.
        dwell: steps for which a class stays.
        spread, noise: standard deviations of the state around its class and of a measurement.
        latent_dimensions, dimension: sizes of the state and of a measurement.
        seed: of everything random here.

    ``labels [steps]``, ``latent [steps, latent_dimensions]`` are the truth. Raises UsageError for sizes below 1.
    """

    def __init__(
        self,
        classes: int = 10,
        steps: int = 2000,
        *,
        sensors: int = 2,
        dwell: int = 10,
        spread: float = 0.6,
        noise: float = 0.3,
        latent_dimensions: int = 12,
        dimension: int = 24,
        seed: int = 0,
    ) -> None:
        if min(classes, steps, sensors, dwell, latent_dimensions, dimension) < 1:
            raise UsageError("classes, steps, sensors, dwell and dimensions must be at least 1")
        self.steps, self.sensors, self.dwell = steps, sensors, dwell
        self.spread, self.noise = spread, noise
        self.generator = torch.Generator().manual_seed(seed)
        self.means = torch.randn(classes, latent_dimensions, generator=self.generator)
        maps = torch.randn(sensors, latent_dimensions, dimension, generator=self.generator)
        self.maps = maps / latent_dimensions**0.5
        self.offsets = torch.randn(sensors, dimension, generator=self.generator)
        self.labels = self._draw_labels(steps, self.generator)
        self.latent = self._draw_latent(self.labels, self.generator)

    def __len__(self) -> int:
        """The number of measurements, ``sensors * steps``."""
        return self.sensors * self.steps

    @property
    def dimension(self) -> int:
        """Size of a measurement."""
        return int(self.maps.shape[2])

    def step_of(self, index: Tensor) -> Tensor:
        """At which step the measurements ``index`` were made."""
        return index % self.steps

    def sensor_of(self, index: Tensor) -> Tensor:
        """By which sensor the measurements ``index`` were made."""
        return index // self.steps

    def class_of(self, index: Tensor) -> Tensor:
        """The class of the state at the measurements ``index``."""
        return self.labels[self.step_of(index)]

    def measure(self, index: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The measurements ``index [...]`` with fresh noise, ``[..., dimension]``."""
        return self._seen(self.latent[self.step_of(index)], self.sensor_of(index), generator)

    def window(self, index: Tensor, width: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``width`` consecutive measurements of the same sensor that end with each of ``index [n]``,
        ``[n, width, dimension]``; before the first step, the first step again."""
        back = torch.arange(width - 1, -1, -1)
        step = (self.step_of(index)[:, None] - back).clamp_min(0)
        return self.measure(self.sensor_of(index)[:, None] * self.steps + step, generator=generator)

    def fresh(self, items: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Measurements ``[items, dimension]`` of states never seen, with their classes and sensors ``[items]``, both
        uniform."""
        drawn = self.generator if generator is None else generator
        labels = torch.randint(len(self.means), (items,), generator=drawn)
        sensor = torch.randint(self.sensors, (items,), generator=drawn)
        return self._seen(self._draw_latent(labels, drawn), sensor, drawn), labels, sensor

    def pairs(self, name: str, *, width: int = 1) -> PairSource:
        """A source of positive pairs of measurements, see :mod:`nearfar.views.pairs`.

        Arguments:
            name: ``"multisensory"``: two sensors at one step; ``"transformation"``: one measurement with fresh noise;
                ``"context-instance"``: half of a measurement's dimensions and all of another; ``"sequential"``:
                neighbouring steps of one sensor; ``"clustering"``: two steps of one class, by any sensors;
                ``"random"``: any two measurements.
            width: of the windows that are seen (:meth:`window`); 1: single measurements.

        Raises :class:`~nearfar.errors.UsageError` for another name.
        """

        def window(index: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return self.window(index, width, generator=generator)

        look: Look = self.measure if width == 1 else window
        if name == "multisensory":
            return Multisensory(look, sensors=self.sensors, events=self.steps)
        if name == "transformation":
            return Transformation(look)
        if name == "context-instance":
            return ContextInstance(look)
        if name == "sequential":
            return Sequential(look, length=self.steps)
        if name == "clustering":
            return Clustering(look, self.labels.repeat(self.sensors))
        if name == "random":
            return RandomPairs(look, len(self))
        raise UsageError(f"there is no source of pairs {name!r}", hint=f"choose one of {', '.join(SOURCES)} or random")

    def _seen(self, latent: Tensor, sensor: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn = self.generator if generator is None else generator
        each = torch.einsum("...l,sld->...sd", latent, self.maps)
        own = each.gather(-2, sensor[..., None, None].expand(*sensor.shape, 1, self.dimension)).squeeze(-2)
        seen = own + self.offsets[sensor]
        return seen + self.noise * torch.randn(seen.shape, generator=drawn)

    def _draw_labels(self, steps: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(len(self.means), (-(-steps // self.dwell),), generator=generator)
        return drawn.repeat_interleave(self.dwell)[:steps]

    def _draw_latent(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        centre = self.means[labels]
        return centre + self.spread * torch.randn(centre.shape, generator=generator)
