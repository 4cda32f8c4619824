"""Preferences over two processes with uneven parts are those of the global batch. Run as a script by each process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from nearfar.objectives import get
from nearfar.objectives.preference_anchored import kto_reference_point
from support.preferences import Pairs, pairs
from support.processes import of_processes

CASES: dict[str, dict[str, Any]] = {
    "rpo": {},
    "rpo tiled": {"memory": "tiled"},
    "rpo-uniform": {"reduction": "sum"},
    "rpo-diagonal": {},
    "dpo": {},
    "dpo-nll pooled": {"likelihood": "pooled"},
    "dpo sum": {"reduction": "sum"},
    "dbaql": {},
    "aql": {},
    "aqfl": {},
    "aot": {},
    "kto-pair": {},
    "simpo": {},
    "sppo": {},
    "mapl": {},
}


def _evaluate(case: str, batch: Pairs, prompts: torch.Tensor, rows: slice, more: dict[str, Any]) -> dict[str, Any]:
    objective = get(case.split()[0], **CASES[case])
    references = {name: value[rows] for name, value in batch.references.items()}
    if objective.name == "simpo":
        references = {}
    if objective.name != "rpo":
        references |= {name: value[rows] for name, value in batch.lengths.items()}
    if objective.name == "sppo":
        more = {**more, "win_rate": torch.linspace(0.5, 1, 7, dtype=torch.float64)[rows]}
    if objective.name == "mapl":
        more = {**more, "gap_wide": batch.chosen[rows] + 30, "gap_narrow": batch.rejected[rows] + 30}
    policy = [value[rows].detach().clone().requires_grad_() for value in batch.policy]
    if getattr(objective, "weighting", None) == "embedding":
        more = {**more, "chosen_prompt": prompts[rows]}
    loss = objective(*policy, **references, **more)
    loss.backward()
    return {"loss": loss.detach(), "gradients": torch.stack([value.grad for value in policy])}


def _by_pair(batch: Pairs, rows: slice, more: dict[str, Any]) -> torch.Tensor:
    references = {name: value[rows] for name, value in batch.references.items()}
    policy = [value[rows] for value in batch.policy]
    costs: torch.Tensor = get("dbaql", reduction="none")(*policy, **references, **more)
    return costs


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    group = dist.group.WORLD
    batch, prompts, rows = *_data(), [slice(0, 5), slice(5, 7)][rank]
    found = {case: _evaluate(case, batch, prompts, rows, {"group": group}) for case in CASES}
    found["point"] = {"loss": kto_reference_point(batch.chosen[rows] + 32, group)}
    found["by pair"] = {"loss": _by_pair(batch, rows, {"group": group}).detach()}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def _data() -> tuple[Pairs, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return pairs(40, 7), torch.randn(7, 3, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    return of_processes(__file__, folder, timeout=300)


@pytest.mark.parametrize("case", CASES)
def test_preferences_of_the_global_batch(processes: list[dict[str, Any]], case: str) -> None:
    expected = _evaluate(case, *_data(), slice(0, 7), {})
    for part in processes:
        torch.testing.assert_close(part[case]["loss"], expected["loss"], rtol=1e-11, atol=1e-12)
    together = torch.cat([part[case]["gradients"] for part in processes], 1)
    torch.testing.assert_close(together, expected["gradients"], rtol=1e-9, atol=1e-13)
    assert expected["gradients"].norm() > 1e-6


def test_costs_by_pair_are_those_of_a_process(processes: list[dict[str, Any]]) -> None:
    expected = _by_pair(_data()[0], slice(0, 7), {}).detach()
    for part, rows in zip(processes, (slice(0, 5), slice(5, 7)), strict=True):
        torch.testing.assert_close(part["by pair"]["loss"], expected[rows], rtol=1e-11, atol=1e-12)


def test_the_reference_point_of_kto_is_averaged_before_it_is_clamped(processes: list[dict[str, Any]]) -> None:
    batch, _ = _data()
    expected = kto_reference_point(batch.chosen + 32)
    assert expected > 0
    for part in processes:
        torch.testing.assert_close(part["point"]["loss"], expected)


if __name__ == "__main__":
    _work(int(sys.argv[1]), Path(sys.argv[2]))
