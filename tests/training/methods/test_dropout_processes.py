"""Over two processes with uneven parts SimCSE, ClusterNS and CompCSE are those of the global batch.

The processes run this file as a script; they are started once for all cases.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nearfar import encoders
from nearfar.data import Examples
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.text_training import TextMethod, TextSetting
from support import sentence_models
from support.processes import of_processes

SIZES = [5, 3]
ROWS = sum(SIZES)
# two words each: their halves leave nothing to draw
TEXTS = Examples.from_columns({"text": sentence_models.texts(ROWS, least=2, most=2)})
_DRAWN = sentence_models.texts(3 * ROWS)
PAIRS = Examples.from_columns(
    {"anchor": _DRAWN[:ROWS], "positive": _DRAWN[ROWS : 2 * ROWS], "negative": _DRAWN[2 * ROWS :]}
)
CASES: dict[str, tuple[str, Examples, dict[str, Any]]] = {
    "simcse on texts": ("simcse", TEXTS, {}),
    "simcse on pairs": ("simcse", PAIRS, {"hard_negative_weight": 3.0}),
    "clusterns": ("clusterns", TEXTS, {"clusters": 4, "start_at": 1.0, "rate": 0.1, "weight": 5.0}),
    "compcse": ("compcse", TEXTS, {}),
}


def outcome(case: str, folder: Path, rows: range) -> dict[str, Tensor]:
    """The loss of the second of two passes over ``rows``, its gradients, and the method's buffers after it."""
    name, examples, given = CASES[case]
    training = registry.find(name).training
    assert training is not None
    encoder: Any = encoders.load(folder, device="cpu")
    torch.manual_seed(0)
    options = {**training.options, **given}
    method = training.method(TextSetting(encoder, examples, options, ROWS, steps=2, steps_per_epoch=2)).double().train()
    assert isinstance(method, TextMethod)
    assert method.distributed
    batch = TextBatches(encoder, examples).batch(list(rows))
    for _ in range(2):
        method.zero_grad()
        loss, _ = method(batch)
    loss.backward()
    found = {name: each.grad for name, each in method.named_parameters() if each.grad is not None}
    kept = {name: value for name, value in method.named_buffers() if name.startswith("clusters.")}
    return {"loss": loss.detach(), **found, **kept}


def work(rank: int, place: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(place / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=datetime.timedelta(seconds=90))
    rows = range(SIZES[0]) if rank == 0 else range(SIZES[0], ROWS)
    torch.save({case: outcome(case, place / "bert", rows) for case in CASES}, place / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    sentence_models.bert(folder / "bert", dropout=0.0)
    return folder


@pytest.fixture(scope="module")
def parts(place: Path) -> list[dict[str, dict[str, Tensor]]]:
    return of_processes(__file__, place, environment={"HF_HUB_OFFLINE": "1"}, timeout=240)


@pytest.mark.parametrize("case", CASES)
def test_two_processes(case: str, place: Path, parts: list[dict[str, dict[str, Tensor]]]) -> None:
    expected = outcome(case, place / "bert", range(ROWS))
    mine = [part[case] for part in parts]
    largest = 0.0
    for name, value in expected.items():
        assert all(name in part for part in mine), name
        if name == "loss" or name.startswith("clusters."):
            for part in mine:
                torch.testing.assert_close(part[name], value, rtol=1e-9, atol=1e-12, msg=name)
            continue
        # what a distributed wrapper makes of them: their mean
        torch.testing.assert_close((mine[0][name] + mine[1][name]) / 2, value, rtol=1e-7, atol=1e-10, msg=name)
        largest = max(largest, float(value.abs().max()))
    assert largest > 1e-3


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
