"""Cached gradients: contrast a batch of any size with an encoder that fits only a few of its items in memory.

After Gao, Zhang, Han and Callan (2021), *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*:

1. embed the batch chunk by chunk without a graph, remembering the random state before each chunk;
2. evaluate the loss on all embeddings at once; keep its gradient with respect to them;
3. for each chunk, restore the random state, embed again with a graph and push the kept gradient through it.

The gradient is that of the undivided batch, dropout included; the price is one more forward pass. (Layers that mix the
items of a batch, such as batch normalisation, see chunks in both cases.)

A loss that is a sum over chunks needs no second pass: :func:`sum_of_chunks` differentiates each as soon as it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

Embed = Callable[[Any], Tensor]
"""A chunk -> its embeddings ``[rows, d]``."""


@dataclass(frozen=True)
class RandomState:
    """The state of torch's random generators: the CPU's and those of the devices that given tensors are on."""

    cpu: Tensor
    devices: list[int]
    states: list[Tensor]

    @classmethod
    def capture(cls, *values: Any) -> RandomState:
        """The present state; ``values`` are tensors, or dictionaries and lists with tensors, whose devices count."""
        devices, states = get_device_states(*_tensors(values))
        return cls(torch.get_rng_state(), list(devices), list(states))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """This state inside the block; the state from before comes back after it."""
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.cpu)
            if self.devices:
                set_device_states(self.devices, self.states)
            yield


def loss_of_chunks(
    embed: Embed,
    chunks: Sequence[Any],
    loss: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    *,
    sharded: bool = False,
) -> Tensor:
    """``loss(torch.cat([embed(chunk) for chunk in chunks]))`` with cached gradients.

    Args:
        embed: The encoder; called twice for each chunk (once without a graph).
        chunks: What it is called with, in the order in which ``loss`` wants the embeddings.
        loss: Embeddings of all chunks ``[n, d]`` -> a scalar; called once.
        parameters: Everything trainable that ``embed`` or ``loss`` uses, each once. Those of ``loss`` (a learned
            temperature) get their gradient from the one call of ``loss``.
        sharded: The weights of ``embed`` are shared out among processes, so that each chunk has a backward pass of its
            own, which adds to their gradients.

    Returns the loss. Its ``backward`` runs step 3 and hands every parameter its whole gradient at once: gradient hooks
    of distributed wrappers fire once a parameter, in whatever context (``no_sync``, gradient scaling, accumulation) the
    caller calls ``backward``. It cannot be differentiated twice. Without gradients enabled only the loss is computed.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not torch.is_grad_enabled() or not parameters:
        return loss(torch.cat([embed(chunk) for chunk in chunks]))
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(RandomState.capture(chunk))
            parts.append(embed(chunk))
    embeddings = torch.cat(parts).requires_grad_()
    value = loss(embeddings)
    to_embeddings, *to_parameters = torch.autograd.grad(value, [embeddings, *parameters], allow_unused=True)
    if to_embeddings is None:
        to_embeddings = torch.zeros_like(embeddings)
    plan = _Plan(
        embed=embed,
        chunks=list(chunks),
        states=states,
        gradients=list(torch.split(to_embeddings, [len(part) for part in parts])),
        direct=list(to_parameters),
        autocast=_Autocast.present(embeddings.device.type),
        sharded=sharded,
    )
    total: Tensor = _Replay.apply(plan, value.detach(), *parameters)  # type: ignore[no-untyped-call]
    return total


def sum_of_chunks(loss: Callable[[Any], Tensor], chunks: Sequence[Any], parameters: Sequence[nn.Parameter]) -> Tensor:
    """``sum(loss(chunk) for chunk in chunks)`` with the activations of one chunk in memory at a time.

    Args:
        loss: A chunk -> its part of the loss, a scalar; called once for each.
        chunks: What it is called with.
        parameters: Everything trainable that ``loss`` uses, each once.

    Returns the sum, whose ``backward`` hands every parameter its whole gradient at once, as in :func:`loss_of_chunks`.
    It cannot be differentiated twice. Without gradients enabled only the sum is computed.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not torch.is_grad_enabled() or not parameters:
        return torch.stack([loss(chunk) for chunk in chunks]).sum()
    sums = _Sums([None] * len(parameters))
    parts = []
    for chunk in chunks:
        part = loss(chunk)
        sums.add(torch.autograd.grad(part, parameters, allow_unused=True))
        parts.append(part.detach())
    total: Tensor = _Known.apply(sums, torch.stack(parts).sum(), *parameters)  # type: ignore[no-untyped-call]
    return total


def accumulate_chunks(loss: Callable[[Any], Tensor], chunks: Sequence[Any], upstream: float) -> Tensor:
    """:func:`sum_of_chunks` for parameters that are shared out among processes, which are whole only within a pass.

    Each chunk has a backward pass of its own at once, which adds ``upstream`` times its gradient to the parameters';
    that of the sum, which is returned, adds nothing more. Without gradients enabled only the sum is computed.
    """
    parts = []
    for chunk in chunks:
        part = loss(chunk)
        if torch.is_grad_enabled():
            (part * upstream).backward()  # type: ignore[no-untyped-call]
        parts.append(part.detach())
    return torch.stack(parts).sum().requires_grad_(torch.is_grad_enabled())


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: _Sums, value: Tensor, *parameters: nn.Parameter) -> Tensor:
        ctx.sums = sums
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        values, ctx.sums = ctx.sums.values, None
        given = []
        while values:  # one by one, so that there are never two of all of them
            value = values.pop(0)
            given.append(None if value is None else value * upstream.to(value.dtype))
        return None, None, *given


@dataclass(frozen=True)
class _Autocast:
    """Whether and how automatic mixed precision was on during the first pass."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def present(cls, device: str) -> _Autocast:
        return cls(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    def again(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled)


@dataclass
class _Plan:
    """What the second pass needs."""

    embed: Embed
    chunks: list[Any]
    states: list[RandomState]
    gradients: list[Tensor]
    direct: list[Tensor | None]
    autocast: _Autocast
    sharded: bool


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, value: Tensor, *parameters: nn.Parameter) -> Tensor:
        ctx.plan = plan
        ctx.parameters = parameters
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        parameters: tuple[nn.Parameter, ...] = ctx.parameters
        sums = _Sums([None if value is None else value * upstream.to(value.dtype) for value in plan.direct])
        for chunk, state, gradient in zip(plan.chunks, plan.states, plan.gradients, strict=True):
            with state.restored(), torch.enable_grad(), plan.autocast.again():
                embedded = plan.embed(chunk)
            if embedded.requires_grad:
                above = gradient * upstream.to(gradient.dtype)
                if plan.sharded:
                    torch.autograd.backward(embedded, above)
                else:
                    sums.add(torch.autograd.grad(embedded, parameters, above, allow_unused=True))
        return None, None, *sums.values


class _Sums:
    """Running sums of gradients, some of which may be None."""

    def __init__(self, values: list[Tensor | None]) -> None:
        self.values = values
        self._own = [False] * len(values)

    def add(self, more: Sequence[Tensor | None]) -> None:
        for index, value in enumerate(more):
            present = self.values[index]
            if value is None:
                continue
            if present is None:
                self.values[index] = value
            elif self._own[index] and present.layout == value.layout == torch.strided:
                present.add_(value)
            else:
                # the first sum is a new tensor: autograd may give two parameters one and the same gradient tensor
                self.values[index] = present + value
                self._own[index] = True


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
