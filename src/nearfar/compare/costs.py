"""What a step of each entry takes: found out before the first run, without a slow one being made at full size.

Some objectives cost more than the square of the batch (``mw-loss`` its cube), so that a single step of theirs on a
large batch may take longer than all of a comparison should. So a step is timed on few rows first, then on twice as
many, and so on; where the next size would take too long, the growth seen so far is carried on.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from nearfar.compare.settings import LEAST_STEPS
from nearfar.errors import NearfarError, UsageError
from nearfar.report.format import duration
from nearfar.training.cached import loss_of_chunks
from nearfar.training.method import ContrastiveMethod

if TYPE_CHECKING:
    from nearfar.training.prepare import Prepared

LONGEST = 2.0
"""No step is timed that is expected to take more seconds."""
FEWEST = 8
"""Rows of the first step."""
MOST_GROWTH = 4.0
"""Exponent above which growth is taken for an accident of the clock. The largest of the catalogue is 4: ``mw-loss`` on
labelled texts, whose positives are a share of the pairs."""

REFUSED, WARNED = 20.0, 5.0
"""A run this many times as long as the others' is refused, or told of."""
LONG, NOTABLE = 600.0, 60.0
"""Seconds that all runs of an entry must take to be refused, and to be told of."""

_REPEATS, _QUICK = 3, 0.3

clock = time.perf_counter


@dataclass(frozen=True)
class Cost:
    """``seconds`` of a step on a whole batch; ``timed``: the most rows on which one was timed; ``growth``: the exponent
    of the rows by which the rest was estimated (0 where nothing had to be)."""

    seconds: float
    timed: int
    growth: float = 0.0


def estimate(step: Callable[[int], float], rows: int) -> Cost | None:
    """What a step on ``rows`` rows takes, where ``step(n)`` makes one on n rows and returns its seconds.

    n is 8, 16, ... and at last ``rows``. Before a step that would take more than :data:`LONGEST`, if the cost went on
    growing as from the last size but one to the last (at least linearly), it ends there: with ``t`` seconds on ``n``
    rows and the growth ``p`` (0 to 4) it is ``t (rows / n)^p``. Sizes on which the step cannot be made are passed over;
    None: it could not be made on any.
    """
    seen: list[tuple[int, float]] = []
    for size in _sizes(rows):
        if len(seen) > 1 and _carried_on(seen, size, least=1.0) > LONGEST:
            break
        try:
            seen.append((size, max(step(size), 1e-9)))
        except (NearfarError, ValueError, ArithmeticError, RuntimeError):
            continue  # such as a few rows of which no two are near; what is wrong with all of them a run will say
    if not seen:
        return None
    timed, seconds = seen[-1]
    if timed == rows:
        return Cost(seconds, timed)
    return Cost(_carried_on(seen, rows, least=0.0), timed, _growth(seen, least=0.0))


def of_encoder(run: Prepared, method: ContrastiveMethod, rows: npt.NDArray[np.int64]) -> Cost | None:
    """The part of a step that all entries share: embedding these rows of the data, forward and backward, and the
    optimiser. The weights are not changed."""
    device = run.encoder.device
    parameters = [parameter for parameter in run.encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=device.type in ("cpu", "cuda"))

    def prepared(size: int) -> Callable[[], None]:
        chunks = _on(device, run.texts.batch(rows[:size])["chunks"])

        def step() -> None:
            with _precision(run):
                if method.chunk_size is not None and len(chunks) > 1:
                    loss = loss_of_chunks(method.embed, chunks, _squares, parameters)
                else:
                    loss = _squares(torch.cat([method.embed(chunk) for chunk in chunks]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

        return step

    return estimate(lambda size: _quickest(prepared(size), device, warm=size <= FEWEST), len(rows))


def of_objective(run: Prepared, method: ContrastiveMethod, rows: npt.NDArray[np.int64], dimension: int) -> Cost | None:
    """The objective's part of a step, forward and backward, on random embeddings of unit length in place of those of
    these rows, whose relation they have."""
    device = run.encoder.device

    def prepared(size: int) -> Callable[[], None]:
        batch = _on(device, {**run.texts.batch(rows[:size]), "chunks": []})
        drawn = torch.randn(run.texts.texts_per_row * size, dimension, generator=torch.Generator().manual_seed(size))
        embeddings = torch.nn.functional.normalize(drawn).to(device).requires_grad_()

        def step() -> None:
            with _precision(run):
                loss, _ = method.contrast(embeddings, batch)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            method.zero_grad()
            embeddings.grad = None

        return step

    return estimate(lambda size: _quickest(prepared(size), device, warm=size <= FEWEST), len(rows))


def lowest(found: Sequence[Cost | None]) -> float | None:
    """The fewest seconds of several estimates of one thing; None where there is none."""
    return min((cost.seconds for cost in found if cost is not None), default=None)


@dataclass(frozen=True)
class Plan:
    """What an entry is going to do: ``runs`` of ``steps`` steps, each of about ``seconds`` (None: not known)."""

    name: str
    runs: int
    steps: int
    seconds: float | None

    @property
    def run(self) -> float:
        """Seconds of a run; 0 where a step's are not known."""
        return self.steps * (self.seconds or 0.0)

    @property
    def whole(self) -> float:
        """Seconds of all of its runs."""
        return self.runs * self.run


def told(plans: list[Plan]) -> list[str]:
    """What steps and all training are estimated to take, in sentences."""
    known = {plan.name: plan.seconds for plan in plans if plan.seconds is not None}
    if not known:
        return []
    quickest = min(known, key=lambda name: known[name])
    others = [f"{name} {times(known[name] / known[quickest])}" for name in known if name != quickest]
    sentence = f"a step of {quickest} is estimated to take {short(known[quickest])}"
    if others:
        sentence += f", of {', of '.join(others)} as long"
    return [sentence, f"training is estimated to take {duration(sum(plan.whole for plan in plans))} in all"]


def check(plans: list[Plan], *, batch_size: int, timed: bool) -> list[str]:
    """Notes of entries whose runs take much longer than those of the others.

    The others' time is the lower median of their runs', so that one slow entry among two counts as slow. More than
    :data:`WARNED` times that, and more than a minute in all: a note. ``timed``: whether the budget is one in seconds.

    Raises UsageError for more than :data:`REFUSED` times that, and more than ten minutes in all.
    """
    notes = []
    for plan in sorted(plans, key=lambda each: -each.whole):
        others = [each.run for each in plans if each is not plan and each.seconds is not None]
        usual = statistics.median_low(others) if others else 0.0
        if usual <= 0 or plan.run <= WARNED * usual or plan.whole <= NOTABLE:
            continue
        said = f"a run of {plan.name} is estimated to take {times(plan.run / usual)} as long as one of the others"
        if plan.run > REFUSED * usual and plan.whole > LONG:
            whole = duration(sum(each.whole for each in plans))
            enough = float(f"{max(60.0, 1.5 * LEAST_STEPS * (plan.seconds or 0.0)):.1g}")
            raise UsageError(
                f"{said} ({duration(plan.run)} instead of {duration(usual)}), and the whole comparison {whole}",
                where=plan.name,
                hint=f"leave it out, give a smaller --batch-size (it is {batch_size:,})"
                + (
                    ""
                    if timed
                    else f", or a --budget in seconds (--budget {enough:.0f}s), which is the same time for all"
                ),
            )
        notes.append(f"{said}, {duration(plan.whole)} in all")
    return notes


def times(ratio: float) -> str:
    """``1.2 times``, ``7,100 times``: two digits or three."""
    return f"{ratio:.1f} times" if ratio < 9.95 else f"{float(f'{ratio:.2g}'):,.0f} times"


def short(seconds: float) -> str:
    """A step's time: ``0.8 ms``, ``31 ms``, ``2.5 s``."""
    return f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else duration(seconds)


def _sizes(rows: int) -> list[int]:
    sizes = [FEWEST]
    while 2 * sizes[-1] < rows:
        sizes.append(2 * sizes[-1])
    return [*(size for size in sizes if size < rows), rows]


def _growth(seen: list[tuple[int, float]], *, least: float) -> float:
    if len(seen) < 2:
        return max(1.0, least)
    (few, before), (many, after) = seen[-2:]
    return min(MOST_GROWTH, max(least, math.log(after / before) / math.log(many / few)))


def _carried_on(seen: list[tuple[int, float]], rows: int, *, least: float) -> float:
    size, seconds = seen[-1]
    return float(seconds * (rows / size) ** _growth(seen, least=least))


def _quickest(step: Callable[[], None], device: torch.device, *, warm: bool) -> float:
    """Seconds of a step: of three the quickest (the first has memory to ask for), of slow ones the first."""
    if warm:
        step()
    began, least = clock(), math.inf
    for _ in range(_REPEATS):
        start = clock()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        end = clock()
        least = min(least, end - start)
        if end - began > _QUICK:
            break
    return least


def _precision(run: Prepared) -> AbstractContextManager[Any]:
    precision = run.resolved.precision
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(run.encoder.device.type, dtype=kind, enabled=precision != "fp32")


def _on(device: torch.device, batch: Any) -> Any:
    from accelerate.utils import send_to_device

    return send_to_device(batch, device)


def _squares(embeddings: torch.Tensor) -> torch.Tensor:
    return embeddings.float().square().sum()
