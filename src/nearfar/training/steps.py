"""Training on tensors in a few lines, where there are no files, no checkpoints and no epochs: experiments, examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.errors import TrainingError

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}

_OTHER_STREAM = 0x9E3779B9


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """Everything torch draws inside comes from ``seed``, and nothing outside is disturbed.

    Yields a generator, which ``seed`` starts too, for draws that must not depend on how many numbers the rest takes
    (the data, the batches), so that two methods see the same ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # of the same seed it would give the same stream, and data would be a function of the initial weights
        yield torch.Generator().manual_seed(seed ^ _OTHER_STREAM)


def random_batches(items: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """``steps`` batches of indices ``[batch_size]`` without repetition inside one; all items where there are fewer."""
    for _ in range(steps):
        yield torch.randperm(items, generator=generator)[:batch_size]


def train_steps(
    loss: Callable[[Tensor], Tensor],
    parts: Iterable[nn.Module],
    batches: Iterable[Tensor],
    *,
    optimizer: Literal["adam", "adamw", "sgd"] = "adam",
    learning_rate: float = 2e-3,
    after_step: Callable[[int], None] | None = None,
    **options: float,
) -> list[float]:
    """Minimise ``loss(batch)`` over ``batches`` in the parameters of ``parts``; returns the losses.

    ``options`` go to the optimiser (``momentum``, ``weight_decay``). ``after_step(step)``, from 1, drives momentum
    copies, queues and schedules. Parts train in training mode and are left in evaluation mode, after an error too.

    Raises :class:`~nearfar.errors.TrainingError` when a loss is not finite, before it changes a weight.
    """
    modules = list(parts)
    parameters = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
    # one call for all parameters: small models spend most of a step on calls
    chosen: dict[str, Any] = {"lr": learning_rate, "fused": True, **options}
    made = OPTIMIZERS[optimizer](list(parameters.values()), **chosen)
    losses: list[float] = []
    try:
        for module in modules:
            module.train()
        for step, batch in enumerate(batches, 1):
            value = loss(batch)
            losses.append(float(value.detach()))
            if not math.isfinite(losses[-1]):
                raise TrainingError(f"the loss of step {step} is {losses[-1]}")
            made.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            made.step()
            if after_step is not None:
                after_step(step)
    finally:
        for module in modules:
            module.eval()
    return losses
