"""Over two and four processes with uneven parts, every row objective of the catalogue is that of the global batch.

Value, gradients of embeddings and parameters, and tables that an objective keeps; also under DistributedDataParallel.
The processes run this file as a script; they are started once for all examples.
"""

from __future__ import annotations

import datetime
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nearfar.objectives import RowObjective
from support.batches import BATCHES, Batch, Part
from support.examples import all_examples
from support.outcomes import Outcome, assert_same, outcome, tiles_of
from support.processes import of_processes

EXAMPLES = all_examples()
WAYS: dict[str, tuple[int, list[str]]] = {
    # how many processes, and how each evaluates its part
    "two, dense and tiled": (2, ["dense", "tiled"]),
    "four, tiled": (4, ["tiled"] * 4),
}

PATIENCE = datetime.timedelta(seconds=20)


class Trained(nn.Module):
    """A small encoder and an objective that may have parameters of its own: what DistributedDataParallel wraps."""

    def __init__(self, make: Callable[[], RowObjective]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.objective = make()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
        self.double()

    def forward(self, part: Part, **where: Any) -> Tensor:
        key = None if part.key is None else self.encoder(part.key)
        loss: Tensor = self.objective(self.encoder(part.query), key, relation=part.relation, **where)
        return loss

    def gradients(self) -> Outcome:
        return {name: parameter.grad for name, parameter in self.named_parameters() if parameter.grad is not None}


def _trained(make: Callable[[], RowObjective], batch: Batch, rank: int, group: dist.ProcessGroup) -> Outcome:
    """Gradients as DistributedDataParallel leaves them: averaged over processes, hence the loss times their number."""
    model = DistributedDataParallel(Trained(make), process_group=group, broadcast_buffers=False)
    with tiles_of(3):
        loss = model(batch.part(rank, 2), memory="tiled", group=group)
    (2 * loss).backward()
    module: Trained = model.module
    return {"loss": loss.detach(), **module.gradients()}


def _whole(make: Callable[[], RowObjective], batch: Batch) -> Outcome:
    model = Trained(make)
    loss = model(batch.whole(), memory="dense")
    loss.backward()
    return {"loss": loss.detach(), **model.gradients()}


def _found(name: str, rank: int, groups: dict[int, dist.ProcessGroup]) -> dict[str, Any]:
    make, batch = EXAMPLES[name].make, BATCHES[EXAMPLES[name].data]()
    found: dict[str, Any] = {}
    for way, (processes, memories) in WAYS.items():
        if rank >= processes:
            continue
        where = {"memory": memories[rank], "tile_rows": 2, "group": groups[processes]}
        found[way] = outcome(make, batch.part(rank, processes), **where)
    if rank < 2:
        found["trained"] = _trained(make, batch, rank, groups[2])
    return found


def _groups() -> dict[int, dist.ProcessGroup]:
    return {size: dist.new_group(list(range(size)), timeout=PATIENCE) for size in (2, 4)}


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=4)
    marks = dist.FileStore(str(folder / "marks"), 4)
    groups = _groups()
    found: dict[str, dict[str, Any]] = {}
    for name in EXAMPLES:
        print(name, flush=True)
        try:
            found[name] = _found(name, rank, groups)
        except Exception:
            found[name] = {"error": traceback.format_exc()}
        marks.set(f"{name} {rank}", "failed" if "error" in found[name] else "passed")
        if b"failed" in [marks.get(f"{name} {other}") for other in range(4)]:
            groups = _groups()  # those that an example failed in are of no more use to the next
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    return of_processes(__file__, folder, count=4, timeout=600)


def _of_example(processes: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    errors = [process[name]["error"] for process in processes if "error" in process[name]]
    assert not errors, "\n".join(errors)
    return [process[name] for process in processes]


def _together(parts: list[Outcome]) -> Outcome:
    """What the processes hold as one: their rows one after the other, the sum of their parameters' gradients."""
    first, *others = parts
    for part in others:
        for name, value in part.items():
            if name == "loss" or name.startswith("buffer "):  # every process holds the same
                torch.testing.assert_close(value, first[name], rtol=1e-12, atol=1e-12)
    return {
        name: torch.cat([part[name] for part in parts]) if name in ("query", "key")
        else torch.stack([part[name] for part in parts]).sum(0) if name.startswith("parameter ") else value
        for name, value in first.items()
    }  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_processes_together_are_the_global_batch(processes: list[dict[str, Any]], name: str, way: str) -> None:
    parts = _of_example(processes, name)[: WAYS[way][0]]
    expected = outcome(EXAMPLES[name].make, BATCHES[EXAMPLES[name].data]().whole(), memory="dense")
    assert_same(_together([part[way] for part in parts]), expected)


@pytest.mark.parametrize("name", EXAMPLES)
def test_distributed_data_parallel(processes: list[dict[str, Any]], name: str) -> None:
    expected = _whole(EXAMPLES[name].make, BATCHES[EXAMPLES[name].data]())
    assert expected["encoder.0.weight"].abs().max() > 1e-6
    for part in _of_example(processes, name)[:2]:
        assert_same(part["trained"], expected)


if __name__ == "__main__":
    _work(int(sys.argv[1]), Path(sys.argv[2]))
