"""Several processes that train together, as torchrun starts them: how many, which writes, and agreeing on outcomes."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from nearfar.errors import NearfarError, TrainingError, UsageError

PATIENCE = timedelta(hours=3)
"""How long processes wait for each other; the main one evaluates alone."""

_LAST_WORK = 0.1
"""Seconds in which threads let go of what they did last."""

SHARDS = "ACCELERATE_USE_FSDP"
"""What ``accelerate launch --use_fsdp`` says to the processes that it starts."""


def told_to_shard() -> bool:
    """Whether accelerate's launcher says that processes share out weights among them."""
    return os.environ.get(SHARDS, "").lower() in ("1", "true", "yes")


def start(device: str | None = None) -> None:
    """Join the processes that torchrun started (nothing happens without it, or when they are joined already).

    On the CPU they talk by gloo, on GPUs by NCCL. Raises :class:`UsageError` where accelerate's launcher was told to
    shard weights, which only runs know of that ask it themselves (:mod:`nearfar.alignment.sharding`).
    """
    if told_to_shard():
        raise UsageError(
            "weights that processes share out among them (FSDP) are for nearfar align",
            where=SHARDS,
            hint="start with torchrun, which gives each process all weights",
        )
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ or dist.is_initialized():
        return
    # its functions take the group that there is when they are read as their default, and would hold it for ever
    importlib.import_module("torch.distributed.nn")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    # threads that still wait for others when the interpreter goes would end the process with an abort
    atexit.register(leave)


def leave() -> None:
    """Part from the processes that :func:`start` joined; called by itself when the interpreter ends."""
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # wrapped models, in cycles, hold on to the group
        dist.destroy_process_group()
        # what torch remembers of sharded weights keeps the group's threads, which let go of their last work here: they
        # need the interpreter for that, and would abort one that ends
        time.sleep(_LAST_WORK)


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def process_group() -> dist.ProcessGroup | None:
    """The group of all processes, or None where there is one."""
    return dist.group.WORLD if world_size() > 1 else None


def is_main() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def most(count: int, device: torch.device) -> int:
    """The largest of the processes' numbers; ``device``: where they talk."""
    if world_size() == 1:
        return count
    value = torch.tensor(count, device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value)


def together(action: Callable[[], Any]) -> Any:
    """The result of ``action`` on the main process, given to all, where every process calls it: it takes weights that
    are shared out among them.

    The result must be made of plain Python values. A process on which it raises does not wait for the others, which
    may wait for its part: what started them ends them.
    """
    result = [action()]
    if world_size() > 1:
        dist.broadcast_object_list(result, src=0)
    return result[0]


def on_main(action: Callable[[], Any]) -> Any:
    """The result of ``action`` on the main process, given to all; where it raises, all processes raise.

    The result must be made of plain Python values.
    """
    if world_size() == 1:
        return action()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if is_main():
        try:
            outcome[0] = action()
        except NearfarError as error:
            outcome[1], failure = (error.message, error.where, error.hint), error
        except Exception as error:
            outcome[1], failure = (f"{type(error).__name__}: {error}", None, None), error
    dist.broadcast_object_list(outcome, src=0)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        message, where, hint = outcome[1]
        raise TrainingError(f"the main process failed: {message}", where=where, hint=hint)
    return outcome[0]
