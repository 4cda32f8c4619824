"""The fused kernels against the plain engine, by Triton's interpreter on the CPU.

The interpreter has to be chosen before triton is imported, hence processes of their own, which run this file as a
script: two of them, so that a group can be tried as well.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import (
    Graded,
    Labels,
    NegativeEuclidean,
    Paired,
    Relation,
    Views,
    evaluate,
    evaluate_with_report,
    kernels,
)
from nearfar.objectives import DCL, DCLW, InfoNCE, RowObjective, SupCon
from support.processes import of_processes

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = {"float32": (2e-6, 2e-5), "bfloat16": (2e-6, 1e-2), "float16": (2e-6, 2e-3)}
"""Of the loss, whose scores are exact in float32, and of the gradients, which are as precise as the embeddings."""
QUERIES, KEYS = [slice(0, 13), slice(13, 21)], [slice(0, 8), slice(8, 37)]


@dataclass(frozen=True)
class Case:
    make: Callable[[], RowObjective]
    relation: Callable[[slice, slice], Relation] = lambda rows, columns: Paired(_ids(21, 0)[rows], _ids(37, 1)[columns])
    own: bool = False
    n: int = 21
    m: int = 37
    d: int = 19
    factor: float = 1.0
    dtype: str = "float32"


def _ids(count: int, seed: int) -> Tensor:
    """With several of most, and some below 0."""
    return torch.randint(-1, 12, (count,), generator=torch.Generator().manual_seed(seed))


def _unlike(rows: slice, columns: slice) -> Relation:
    """Pairs that look alike are ignored, -1 looks like nothing."""
    return Paired(
        _ids(21, 0)[rows], _ids(37, 1)[columns], query_exclude=_ids(21, 2)[rows], key_exclude=_ids(37, 3)[columns]
    )


def _within(rows: slice, columns: slice) -> Relation:
    parts = _ids(21, 2).clamp(-1, 2), _ids(37, 3).clamp(-1, 2)
    return Paired(_ids(21, 0)[rows], _ids(37, 1)[columns], query_within=parts[0][rows], key_within=parts[1][columns])


def _nobody_near(rows: slice, columns: slice) -> Relation:
    return Paired(torch.arange(21)[rows], 100 + torch.arange(37)[columns])


def _learned(cls: type[RowObjective] = InfoNCE, **more: Any) -> Callable[[], RowObjective]:
    return lambda: cls(temperature="learned:0.2", **more)


CASES: dict[str, Case] = {
    "info-nce": Case(_learned()),
    "info-nce two-sided": Case(_learned(two_sided=True)),
    "info-nce sum": Case(_learned(two_sided=True, reduction="sum")),
    "dcl": Case(_learned(DCL)),
    "dcl two-sided": Case(_learned(DCL, two_sided=True)),
    "ignored": Case(_learned(two_sided=True), _unlike),
    "dcl ignored": Case(_learned(DCL, two_sided=True), _unlike),
    "within": Case(_learned(two_sided=True), _within),
    "dcl within": Case(_learned(DCL), _within),
    "by position": Case(_learned(two_sided=True), lambda rows, columns: Paired()),
    "labels": Case(_learned(SupCon), lambda rows, columns: Labels(_ids(21, 0)[rows]), own=True),
    "labels of keys": Case(
        _learned(SupCon, two_sided=True), lambda rows, columns: Labels(_ids(21, 0)[rows], _ids(37, 1)[columns])
    ),
    "own ids": Case(
        _learned(), lambda rows, columns: Paired(_ids(21, 0)[rows], query_exclude=_ids(21, 2)[rows]), own=True
    ),
    "views": Case(_learned(), lambda rows, columns: Views(3), own=True),
    "views of the same": Case(_learned(), lambda rows, columns: Views(3, negatives="same-view"), own=True),
    "views of others": Case(_learned(DCL), lambda rows, columns: Views(3, negatives="other-view"), own=True),
    "dot": Case(_learned(score="dot", two_sided=True), factor=0.3),
    "fixed temperature": Case(lambda: InfoNCE(temperature=0.05, two_sided=True)),
    "cold": Case(lambda: DCL(temperature=0.01, two_sided=True)),
    "nobody near": Case(_learned(two_sided=True), _nobody_near),
    "one pair": Case(_learned(two_sided=True), lambda rows, columns: Paired(), n=1, m=1),
    "one row": Case(_learned(DCL), lambda rows, columns: Paired(), n=1, m=40, d=5),
    "wide": Case(_learned(two_sided=True), d=131),
    "long vectors": Case(_learned(), factor=1e3),
}
for _name in ("info-nce two-sided", "labels", "dot", "cold"):
    for _dtype in ("bfloat16", "float16"):
        CASES[f"{_name} {_dtype}"] = dataclasses.replace(CASES[_name], dtype=_dtype)
TOGETHER = ["dcl ignored", "own ids", "info-nce two-sided bfloat16"]
"""Cases that two processes share."""


def _embeddings(case: Case) -> tuple[Tensor, Tensor | None]:
    """In the precision of the case; a zero row on both sides, and a key that is a query."""
    generator = torch.Generator().manual_seed(case.d)
    query, key = (case.factor * torch.randn(count, case.d, generator=generator) for count in (case.n, case.m))
    if case.n > 1:
        query[2], key[3], key[5] = 0, 0, query[4]
    dtype = DTYPES[case.dtype]
    return query.to(dtype), None if case.own else key.to(dtype)


def _outcome(
    case: Case, query: Tensor, key: Tensor | None, relation: Relation, objective: RowObjective, **where: Any
) -> dict[str, Any]:
    query = query.clone().requires_grad_()
    key = None if key is None else key.clone().requires_grad_()
    loss, report = evaluate_with_report(objective, query, key, relation=relation, **where)
    leaves = [query, *([] if key is None else [key]), *objective.parameters()]
    (3 * loss).backward()
    return {
        "loss": loss.detach(),
        "gradients": [leaf.grad for leaf in leaves],
        "counts": [report.anchors, *map(int, (report.active_anchors, report.positive_pairs, report.negative_pairs))],
        "kernel": report.kernel,
    }


def _work(rank: int, folder: Path) -> None:
    from nearfar.contrast.kernels import evaluation, softmax

    torch.set_num_threads(1)
    kernels.available = lambda device: True  # type: ignore[assignment]
    softmax.SINGLE = softmax.HALF = softmax.Shape(32, 16, 32, 4, 1)
    softmax._processors = lambda device: 3  # so that columns are cut into parts
    evaluation.SQUARE = 24
    found: dict[str, Any] = {}
    for name, case in list(CASES.items())[rank::2]:
        query, key = _embeddings(case)
        relation = case.relation(slice(None), slice(None))
        found[name] = _outcome(case, query, key, relation, case.make(), memory="tiled")
    query, key = _embeddings(CASES["info-nce"])
    relation = CASES["info-nce"].relation(slice(None), slice(None))
    found["value alone"] = evaluate(CASES["info-nce"].make(), query, key, relation=relation, memory="tiled").detach()
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    for name in TOGETHER:
        case = CASES[name]
        query, key = _embeddings(case)
        key = None if key is None else key[KEYS[rank]]
        relation = case.relation(QUERIES[rank], KEYS[rank])
        found[f"{name}, together"] = _outcome(
            case, query[QUERIES[rank]], key, relation, case.make(), memory="tiled", group=dist.group.WORLD
        )
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("kernels")
    environment = {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(folder)}
    return of_processes(__file__, folder, environment=environment, timeout=300)


def _expected(case: Case) -> dict[str, Any]:
    query, key = _embeddings(case)
    relation = case.relation(slice(None), slice(None))
    key = None if key is None else key.double()
    return _outcome(case, query.double(), key, relation, case.make().double(), memory="dense")


def _assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    assert (found.double() - expected).norm() <= tolerance * (1e-2 + expected.norm())


@pytest.mark.parametrize("name", CASES)
def test_kernels_are_the_plain_engine(processes: list[dict[str, Any]], name: str) -> None:
    case = CASES[name]
    (found,) = [process[name] for process in processes if name in process]
    expected = _expected(case)
    assert found["kernel"]
    assert not expected["kernel"]
    assert found["counts"] == expected["counts"]
    of_loss, of_gradient = TOLERANCE[case.dtype]
    assert found["loss"].dtype == torch.float32
    _assert_close(found["loss"], expected["loss"], of_loss * 10 / case.make().temperature.value)
    for one, other in zip(found["gradients"], expected["gradients"], strict=True):
        _assert_close(one, other, of_gradient / min(1, 10 * case.make().temperature.value))


def test_without_a_gradient_the_value_is_the_same(processes: list[dict[str, Any]]) -> None:
    (found,) = [process["info-nce"] for process in processes if "info-nce" in process]
    for process in processes:
        assert process["value alone"] == found["loss"]
        assert not process["value alone"].requires_grad


@pytest.mark.parametrize("name", TOGETHER)
def test_processes_share_the_kernels_work(processes: list[dict[str, Any]], name: str) -> None:
    case, expected = CASES[name], _expected(CASES[name])
    parts = [process[f"{name}, together"] for process in processes]
    of_loss, of_gradient = TOLERANCE[case.dtype]
    sides = 1 if case.own else 2
    for part in parts:
        assert part["kernel"]
        _assert_close(part["loss"], expected["loss"], 10 * of_loss)
    for index, other in enumerate(expected["gradients"]):
        pieces = [part["gradients"][index] for part in parts]
        _assert_close(torch.cat(pieces) if index < sides else sum(pieces), other, of_gradient)


def test_where_they_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    query, relation = torch.zeros(4, 3), Paired().bind(4, 4, self_contrast=False, device=torch.device("cpu"))
    assert not kernels.applies(InfoNCE(), relation, query)  # not without a CUDA device
    monkeypatch.setattr(kernels, "available", lambda device: True)
    assert kernels.applies(InfoNCE(), relation, query)
    assert kernels.applies(InfoNCE(), relation, query.bfloat16())
    assert kernels.applies(SupCon(), Labels(torch.arange(4)), query)
    assert kernels.applies(InfoNCE(), Labels(torch.arange(4), torch.arange(4)).transpose(), query)
    assert not kernels.applies(InfoNCE(), relation, query.double())
    assert not kernels.applies(InfoNCE(score=NegativeEuclidean()), relation, query)
    assert not kernels.applies(InfoNCE(reduction="none"), relation, query)
    assert not kernels.applies(SupCon("in"), relation, query)
    assert not kernels.applies(DCLW(), relation, query)
    assert not kernels.applies(InfoNCE(), Graded(torch.eye(4)), query)
    assert not kernels.applies(InfoNCE(), relation.reweight(lambda near, far, rows, columns: (near, far)), query)


def test_they_compile_for_a_device_that_is_not_here(tmp_path: Path) -> None:
    """What the interpreter takes is not always what the compiler takes."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["log_sums", "tensor", "cores", "derivatives", "tensor", "cores"]


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget

from nearfar.contrast.kernels import programs, softmax

shape = softmax.HALF
constants = {
    "has_exclude": True, "has_within": True, "self_contrast": True, "only_far": True, "both_sides": True,
    "ragged": True, "widen": False, "precision": "ieee", "group_rows": 8,
    "block_m": shape.block_m, "block_n": shape.block_n, "block_d": shape.block_d,
}
integers = {"n", "m", "d", "first", "columns_a_part", "row_start", "row_end", "column_start", "column_end"}


def kind(name):
    if name in constants:
        return "constexpr"
    if name in integers:
        return "i32"
    if name in ("query", "key", "out"):
        return "*bf16"
    return "*i32" if name.endswith(("_id", "_exclude", "_within")) else "*fp32"


for program in (programs.log_sums, programs.derivatives):
    names = program.arg_names
    source = triton.compiler.ASTSource(
        fn=program,
        signature={name: kind(name) for name in names},
        constexprs={(index,): constants[name] for index, name in enumerate(names) if name in constants},
    )
    options = {"num_warps": shape.warps, "num_stages": shape.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(program.__name__, "tensor cores" if "wgmma" in compiled.asm["ptx"] else "no tensor cores")
"""

if __name__ == "__main__":
    _work(int(sys.argv[1]), Path(sys.argv[2]))
