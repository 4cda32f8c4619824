"""Over two processes: queues, support sets, sequences, views and directions that are numbered by position.

Each process calls the objective on its own part; value and gradients are those of one process with everything. The
processes run this file as a script.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import Labels, Views
from nearfar.contrast.directions import DIRECTIONS, Directions
from nearfar.objectives import (
    CPC,
    DHEL,
    MVDHEL,
    NNCLR,
    InfoNCE,
    MoCo,
    MoCoDualHard,
    MVInfoNCE,
    NPairs,
    PolyView,
    RowObjective,
    SupCon,
)
from support.processes import of_processes

SIZES = (3, 2)
"""How many items each process holds."""


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A, B, C = (_drawn(seed, 5, 4) for seed in range(3))
QUEUE, LABELS = _drawn(9, 7, 4), torch.tensor([0, 1, 0, 1, 1])
CONTEXT, LATENTS = _drawn(10, 5, 4, 3), _drawn(11, 5, 4, 2)
ITEMS = (slice(0, 3), slice(3, 5))
VIEWS = torch.tensor([0] * 3 + [1] * 3 + [0] * 2 + [1] * 2)
IDS = torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 3, 4])

Call = Callable[[RowObjective, int | None, dict[str, Any]], tuple[Tensor, list[Tensor]]]
"""Calls an objective on the part of a process, or on everything (None): its loss and what has a gradient."""


def _leaves(*values: Tensor) -> list[Tensor]:
    return [value.clone().requires_grad_() for value in values]


def _pairs(**more: Any) -> Call:
    def call(objective: RowObjective, rank: int | None, where: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
        part = slice(None) if rank is None else ITEMS[rank]
        query, key = _leaves(A[part], B[part])
        return objective(query, key, **more, **where), [query, key]

    return call


def _symmetric(objective: RowObjective, rank: int | None, where: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    part = slice(None) if rank is None else ITEMS[rank]
    query, key, other = _leaves(A[part], B[part], C[part])
    return objective(query, key, queue=QUEUE, other_query=other, other_key=key, **where), [query, other]


def _views(objective: RowObjective, rank: int | None, where: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """A process numbers its own views by their places; the whole batch has ids."""
    parts = [torch.cat([A[part], B[part]]) for part in ITEMS]
    (items,) = _leaves(torch.cat(parts) if rank is None else parts[rank])
    relation = Views(2, ids=IDS, views=VIEWS) if rank is None else Views(2)
    return objective(items, relation=relation, **where), [items]


def _directions(objective: RowObjective, rank: int | None, where: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """Hard negatives belong to the queries of their own process, by position."""
    if rank is not None:
        part = ITEMS[rank]
        query, key, hard = _leaves(A[part], B[part], C[part])
        return objective(query, torch.cat([key, hard]), **where), [query, key, hard]
    query, key, hard = _leaves(A, B, C)
    return objective(torch.cat([query, key, hard]), relation=Directions(5, 10), **where), [query, key, hard]


def _anchors(objective: RowObjective, rank: int | None, where: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    part = slice(None) if rank is None else ITEMS[rank]
    (items,) = _leaves(A[part])
    chosen = torch.tensor([True, True, False, True, False])[part]
    return objective(items, relation=Labels(LABELS[part]), anchors=chosen, **where), [items]


def _sequences(objective: RowObjective, rank: int | None, where: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    part = slice(None) if rank is None else ITEMS[rank]
    context, latents = _leaves(CONTEXT[part], LATENTS[part])
    return objective(context, latents, **where), [context, latents]


def _cpc(candidates: str) -> CPC:
    torch.manual_seed(0)
    return CPC(2, 3, 2, candidates=candidates).double()


CASES: dict[str, tuple[Callable[[], RowObjective], Call]] = {
    "moco": (MoCo, _pairs(queue=QUEUE)),
    "hardest of a queue": (lambda: MoCoDualHard("query", hardest=3), _pairs(queue=QUEUE)),
    "dual": (lambda: MoCoDualHard("dual", hardest=3), _pairs(queue=QUEUE)),
    "symmetric": (lambda: MoCoDualHard(hardest=3), _symmetric),
    "nnclr": (NNCLR, _pairs(support=QUEUE)),
    "n-pairs": (lambda: NPairs(0.1), _pairs()),
    "dhel": (DHEL, _views),
    "mv-dhel": (MVDHEL, _views),
    "mv-infonce": (MVInfoNCE, _views),
    "sufficient": (lambda: PolyView("sufficient"), _views),
    "directions": (lambda: InfoNCE(temperature=0.3, directions=DIRECTIONS), _directions),
    "anchors": (SupCon, _anchors),
    "cpc": (lambda: _cpc("all"), _sequences),
    "cpc sequences": (lambda: _cpc("sequences"), _sequences),
    "cpc moments": (lambda: _cpc("moments"), _sequences),
}


def _found(name: str, rank: int | None, where: dict[str, Any]) -> list[Tensor]:
    make, call = CASES[name]
    objective = make()
    loss, inputs = call(objective, rank, where)
    inputs += list(objective.parameters())
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [loss.detach(), *(torch.zeros_like(v) if g is None else g for v, g in zip(inputs, gradients, strict=True))]


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=30)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2, timeout=patience
    )
    where = {"group": dist.group.WORLD}
    found = {
        f"{name} {memory}": _found(name, rank, {**where, "memory": memory})
        for name in CASES
        for memory in ("dense", "tiled")
    }
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    return of_processes(__file__, folder, timeout=120)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(processes: list[dict[str, list[Tensor]]], name: str, memory: str) -> None:
    expected = _found(name, None, {"memory": "dense"})
    parts = [process[f"{name} {memory}"] for process in processes]
    for part in parts:
        torch.testing.assert_close(part[0], expected[0], rtol=1e-9, atol=1e-10)
    for place, whole in enumerate(expected[1:], 1):
        shares = [part[place] for part in parts]
        together = shares[0] + shares[1] if shares[0].shape == whole.shape else torch.cat(shares)
        torch.testing.assert_close(together, whole, rtol=1e-9, atol=1e-10)
    assert expected[1].abs().max() > 1e-6 or expected[2].abs().max() > 1e-6


if __name__ == "__main__":
    _work(int(sys.argv[1]), Path(sys.argv[2]))
