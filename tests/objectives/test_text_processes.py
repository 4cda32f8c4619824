"""Over two processes with uneven parts, objectives with inputs of their own are those of the global batch.

The processes run this file as a script; they are started once for all cases.
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

from nearfar.contrast import Adjacent, Paired
from nearfar.negatives import ClusterMemory, by_cluster, by_complement, harder, own_negatives
from nearfar.objectives import (
    CLAIF,
    CLHAIF,
    CLIM,
    CLP,
    DCLR,
    GCL,
    MCSE,
    ClusterNS,
    CompCSE,
    DropInfoNCE,
    InfoNCE,
    MoPQ,
    QuickThoughts,
    SGBert,
)
from support.processes import of_processes

SIZES = [4, 3]
LEAVES = ("a", "b", "c", "e")
CLUSTERS, DOMAIN = torch.tensor([0, 1, 0, 1, 1, 2, 0]), torch.tensor([3, 5, 3, 5, 3, 3, 3])
GRADE = torch.tensor([0.5, 1.0, 0.0, 0.25, 1.0, 0.75, 0.1], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 0])


class Batch:
    """Rows ``rows`` of a batch of 7 items: embeddings a, b, c (leaves), layers e, and a codebook."""

    def __init__(self, rows: slice, memory: str, group: dist.ProcessGroup | None) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.a, self.b, self.c = (draw(7, 4)[rows].clone().requires_grad_() for _ in range(3))
        self.e = draw(7, 2, 4)[rows].clone().requires_grad_()
        self.codebook = draw(2, 3, 2).requires_grad_()
        self.f1, self.f2 = draw(7, 2)[rows], draw(7, 2)[rows]
        self.rows = rows
        self.n = len(self.a)
        self.where: dict[str, Any] = {"memory": memory, "group": group}
        self.group = group

    @property
    def keys(self) -> Tensor:
        return torch.cat([self.b, self.c])

    def of(self, values: Tensor) -> Tensor:
        return values[self.rows]


def _clusterns(batch: Batch, average: str) -> Tensor:
    given = {"clusters": batch.of(CLUSTERS), "hard_negatives": batch.c}
    return ClusterNS(2.0, 0.1, 0.2, average=average)(batch.a, batch.b, **given, **batch.where)


def _dclr(batch: Batch) -> Tensor:
    noise = harder(batch.c, batch.a, batch.b, step_size=0.1, **batch.where)
    change = by_complement(batch.f1, batch.f2, threshold=0.5, keys=2 * batch.n, group=batch.group)
    return DCLR()(batch.a, torch.cat([batch.b, noise]), relation=Paired().reweight(change), **batch.where)


def _clusters_remembered(batch: Batch) -> Tensor:
    memory = ClusterMemory(3, 4, rate=0.3, start_at=1.0).double()
    for _ in range(2):
        memory.update(batch.a, batch.b, group=batch.group)
    return memory.centroids.sum() + 0 * batch.a.sum()


def _mopq(batch: Batch) -> Tensor:
    objective = MoPQ(dense_weight=0.5, distortion=["l2", "dot", "subdot"], distortion_weight=0.3)
    return objective(batch.a, batch.keys, codebook=batch.codebook, **batch.where)


def _mcse(batch: Batch) -> Tensor:
    images = {"grounded_query": batch.b, "grounded_key": batch.c, "image": batch.a}
    return MCSE(0.7)(batch.a, batch.b, **images, **batch.where)


def _clim(batch: Batch) -> Tensor:
    given = {"domain": batch.of(DOMAIN), "logits": batch.c, "labels": batch.of(LABELS)}
    return CLIM(2.0)(batch.a, batch.b, unlabelled_logits=batch.b, **given, **batch.where)


def _by_cluster(batch: Batch) -> Tensor:
    own = batch.of(CLUSTERS)
    relation = Paired().reweight(by_cluster(own, own, same=0.0, other=2.0, group=batch.group))
    return InfoNCE()(batch.a, batch.b, relation=relation, **batch.where)


def _own_negatives(batch: Batch) -> Tensor:
    relation = Paired().reweight(own_negatives(batch.n, 2 * batch.n, logit=0.7, others=0.5, group=batch.group))
    return InfoNCE()(batch.a, batch.keys, relation=relation, **batch.where)


def _adjacent(batch: Batch) -> Tensor:
    relation = Adjacent(2, document=batch.of(DOMAIN))
    return QuickThoughts()(batch.a, batch.b, relation=relation, **batch.where)


CASES: dict[str, Callable[[Batch], Tensor]] = {
    "clp": lambda batch: CLP(0.3)(batch.a, batch.keys, negative_query=batch.e[:, 0], **batch.where),
    "gcl": lambda batch: GCL()(batch.a, batch.keys, weight=batch.of(GRADE), **batch.where),
    "clhaif": lambda batch: CLHAIF()(batch.a, batch.keys, grade=batch.of(GRADE), **batch.where),
    "clhaif all": lambda batch: CLHAIF("smooth-all")(batch.a, batch.keys, grade=batch.of(GRADE), **batch.where),
    "drop-infonce": lambda batch: DropInfoNCE()(batch.a, batch.keys, **batch.where),
    "sg-opt": lambda batch: SGBert(temperature=0.1)(batch.a, batch.e, **batch.where),
    "sg-opt1": lambda batch: SGBert("opt1", temperature=0.1)(batch.a, batch.b, **batch.where),
    "sg-opt2": lambda batch: SGBert("opt2-official-code", temperature=0.1)(batch.a, batch.b, **batch.where),
    "sg": lambda batch: SGBert("sg", temperature=0.1)(batch.a, batch.b, **batch.where),
    "compcse": lambda batch: CompCSE("max", width=3)(batch.a, batch.e, **batch.where),
    "quick-thoughts": lambda batch: QuickThoughts()(batch.a, batch.b, **batch.where),
    "quick-thoughts in documents": _adjacent,
    "clusterns": lambda batch: _clusterns(batch, "cells"),
    "clusterns official": lambda batch: _clusterns(batch, "official-code"),
    "clusterns pairs": lambda batch: _clusterns(batch, "pairs"),
    "dclr": _dclr,
    "cluster memory": _clusters_remembered,
    "mopq": _mopq,
    "mcse": _mcse,
    "clim": _clim,
    "claif": lambda batch: CLAIF()(batch.a, batch.b, batch.of(GRADE), group=batch.group),
    "by cluster": _by_cluster,
    "own negatives": _own_negatives,
}


def _outcome(case: str, batch: Batch) -> dict[str, Tensor]:
    loss = CASES[case](batch)
    loss.backward()
    found = {"loss": loss.detach()}
    for name in (*LEAVES, "codebook"):
        leaf: Tensor = getattr(batch, name)
        found[name] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return found


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=30)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2, timeout=patience
    )
    start = sum(SIZES[:rank])
    rows = slice(start, start + SIZES[rank])
    memory = ["dense", "tiled"][rank]
    found = {case: _outcome(case, Batch(rows, memory, dist.group.WORLD)) for case in CASES}
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("text")
    return of_processes(__file__, folder, timeout=120)


@pytest.mark.parametrize("case", CASES)
def test_two_processes(case: str, processes: list[dict[str, dict[str, Tensor]]]) -> None:
    expected = _outcome(case, Batch(slice(0, 7), "dense", None))
    parts = [process[case] for process in processes]
    for part in parts:
        torch.testing.assert_close(part["loss"], expected["loss"], rtol=1e-9, atol=1e-12)
    for name in LEAVES:
        together = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(together, expected[name], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts[0]["codebook"] + parts[1]["codebook"], expected["codebook"], rtol=1e-9, atol=1e-9)
    if case != "cluster memory":
        assert expected["a"].abs().max() > 1e-3


if __name__ == "__main__":
    _work(int(sys.argv[1]), Path(sys.argv[2]))
