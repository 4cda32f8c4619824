"""Over two processes with uneven parts, loss and gradients are those of the single-process global batch.

The processes run this file as a script; they are started once for all cases.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import (
    Explicit,
    Graded,
    Labels,
    Paired,
    Relation,
    Temperature,
    Views,
    evaluate_with_report,
    two_sided,
)
from nearfar.contrast.engine import RowCosts
from nearfar.objectives import DCLW, InfoNCE, PairwiseLogistic, SupCon, Triplet
from support.processes import of_processes

QUERIES = [slice(0, 5), slice(5, 8)]
KEYS = [slice(0, 5), slice(5, 12)]
QUERY_IDS = torch.tensor([3, 1, 4, 4, 9, 2, 6, 3])
KEY_IDS = torch.tensor([4, 3, 1, -1, 3, 2, 6, 4, -1, 8, -1, 2])
QUERY_TEXTS = torch.tensor([0, 1, 2, 2, 3, 1, 5, 0])
KEY_TEXTS = torch.tensor([2, 0, 1, 3, 0, 1, 5, 2, 0, -1, 7, 2])
QUERY_LABELS = torch.tensor([0, 1, 0, 2, 1, 1, 0, 3])
KEY_LABELS = torch.tensor([0, 0, 1, 2, 3, 1, 1, 0, 2, -1, 1, 0])
GRADES = {
    3: {4: 2.0, 1: 1.0}, 1: {1: 1.0, 8: 0.0, 2: 0.5}, 4: {4: 1.0, 3: 3.0}, 9: {}, 2: {2: 1.0, 6: 2.0}, 6: {6: 0.5},
}  # fmt: skip
EVERYTHING = slice(None)


@dataclass
class Case:
    make: Callable[[], RowCosts]
    own: bool
    """Whether the queries are contrasted among themselves."""
    part: Callable[[slice, slice], Relation | None]
    """The relation that a process with these queries and keys gives."""
    whole: Callable[[], Relation] | None = None
    """The relation of the global batch in one process, where that is not ``part`` of everything."""
    memory: tuple[str, str] = ("dense", "dense")


def _by_ids(queries: slice, keys: slice) -> Relation:
    return Paired(QUERY_IDS[queries], KEY_IDS[keys])


def _by_texts(queries: slice, keys: slice) -> Relation:
    return Paired(QUERY_IDS[queries], KEY_IDS[keys], query_exclude=QUERY_TEXTS[queries], key_exclude=KEY_TEXTS[keys])


def _by_labels(queries: slice, keys: slice) -> Relation:
    return Labels(QUERY_LABELS[queries], KEY_LABELS[keys])


def _by_grades(queries: slice, keys: slice) -> Relation:
    ids = QUERY_IDS[queries]
    return Graded({int(i): GRADES[int(i)] for i in ids}, ids, KEY_IDS[keys])


def _by_a_tensor_of_grades(queries: slice, keys: slice) -> Relation:
    grades = torch.zeros(10, 10)
    for query, judged in GRADES.items():
        for key, grade in judged.items():
            grades[query, key] = grade
    return Graded(grades, QUERY_IDS[queries], KEY_IDS[keys])


def _changed(queries: slice, keys: slice) -> Relation:
    def weigh(near: Tensor, far: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        return near * (1.0 + rows[:, None]), far * (0.5 + (rows[:, None] - 2 * columns).abs())

    return _by_ids(queries, keys).reweight(weigh).ignore(lambda rows, columns: rows[:, None] + columns == 6)


def _own_changed(queries: slice, keys: slice) -> Relation:
    def weigh(near: Tensor, far: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        return near * (1.0 + rows[:, None]), torch.ones_like(far, dtype=torch.float64)

    return Labels(QUERY_LABELS[queries]).reweight(weigh)


def _only_first_process(queries: slice, keys: slice) -> Relation:
    """The queries of the second process are near to nobody."""
    return Paired(torch.tensor([3, 1, 4, 4, 9, 90, 91, 92])[queries], KEY_IDS[keys])


def _learned() -> Temperature:
    return Temperature(0.2, learned=True)


# the first process has as many keys as queries, the second four more: hard negatives
_POSITIONS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1])
CASES: dict[str, Case] = {
    "info-nce": Case(lambda: InfoNCE(temperature=_learned()), False, _by_ids),
    "info-nce two-sided": Case(lambda: InfoNCE(temperature=_learned(), two_sided=True), False, _by_ids),
    "info-nce by position": Case(
        lambda: InfoNCE(two_sided=True), False, lambda *_: None, lambda: Paired(torch.arange(8), _POSITIONS)
    ),
    "info-nce sum": Case(lambda: InfoNCE(reduction="sum", two_sided=True), False, _by_ids),
    "info-nce excluded": Case(lambda: InfoNCE(two_sided=True), False, _by_texts),
    "info-nce changed": Case(lambda: InfoNCE(two_sided=True), False, _changed),
    "info-nce own changed": Case(lambda: InfoNCE(temperature=_learned()), True, _own_changed),
    "supcon own labels": Case(lambda: SupCon(temperature=_learned()), True, lambda q, k: Labels(QUERY_LABELS[q])),
    "supcon in": Case(lambda: SupCon("in", temperature=_learned(), two_sided=True), False, _by_labels),
    "own ids": Case(lambda: InfoNCE(), True, lambda q, k: Paired(QUERY_LABELS[q], query_exclude=QUERY_TEXTS[q])),
    "dclw": Case(lambda: DCLW(temperature=_learned(), two_sided=True), False, _by_ids),
    "dclw own labels": Case(lambda: DCLW(temperature=_learned()), True, lambda q, k: Labels(QUERY_LABELS[q])),
    "dclw where one process has no positive": Case(lambda: DCLW(temperature=_learned()), False, _only_first_process),
    "triplet semi-hard": Case(
        lambda: Triplet("semi-hard", average="active"), True, lambda q, k: Labels(QUERY_LABELS[q])
    ),
    "pairwise graded by a tensor and ids": Case(
        lambda: PairwiseLogistic(average="pairs", two_sided=True), False, _by_a_tensor_of_grades
    ),
    "pairwise graded": Case(lambda: PairwiseLogistic(average="pairs", two_sided=True), False, _by_grades),
}
for _name in list(CASES):
    _case = CASES[_name]
    CASES[f"{_name}, tiled"] = Case(_case.make, _case.own, _case.part, _case.whole, ("tiled", "tiled"))
for _name in ("info-nce two-sided", "dclw", "triplet semi-hard"):
    _case = CASES[_name]
    CASES[f"{_name}, one dense one tiled"] = Case(_case.make, _case.own, _case.part, _case.whole, ("dense", "tiled"))


def _embeddings() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(8, 5, generator=generator, dtype=torch.float64),
        torch.randn(12, 5, generator=generator, dtype=torch.float64),
    )


def _evaluated(
    case: Case, query: Tensor, key: Tensor | None, relation: Relation | None, **where: Any
) -> dict[str, Any]:
    objective = case.make().double()
    query = query.clone().requires_grad_()
    key = None if key is None else key.clone().requires_grad_()
    loss, report = evaluate_with_report(objective, query, key, relation=relation, **where)
    (3 * loss).backward()
    return {
        "loss": loss.detach(),
        "query": query.grad,
        "key": query.new_zeros(0) if key is None else key.grad,
        "parameters": [parameter.grad for parameter in objective.parameters()],
        "anchors": report.anchors,
        "active": int(report.active_anchors),
        "positive": int(report.positive_pairs),
        "negative": int(report.negative_pairs),
    }


def _views(rank: int) -> tuple[Tensor, Tensor]:
    """Two views of the items of a process: 3 items on the first, 1 on the second."""
    z = _embeddings()[0]
    items = [slice(0, 3), slice(3, 4)][rank]
    return torch.cat([z[:4][items], z[4:][items]]), torch.arange(4)[items].repeat(2)


def _lonely() -> tuple[Tensor, Tensor]:
    """At temperature 0.01 key 2 lies more than 100 nats below the peak of every query, on both processes."""
    generator = torch.Generator().manual_seed(1)
    towards = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    query, key = (towards + 0.1 * torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (6, 7))
    key[2] = key[2] - 2 * towards
    return query, key


LONELY = Case(lambda: InfoNCE(temperature=0.01, two_sided=True), False, lambda *_: None)
LONELY_PARTS = [(slice(0, 4), slice(0, 2)), (slice(4, 6), slice(2, 7))]
LONELY_IDS = torch.arange(6), torch.tensor([0, 1, 2, 3, 4, 5, -1])


def _refusals(group: dist.ProcessGroup) -> list[str]:
    query = torch.ones(2, 3)
    key = torch.arange(6.0).view(2, 3)
    messages = []
    for relation in (
        Explicit(torch.eye(2)),
        Graded(torch.eye(2)),
        Paired().ignore(torch.zeros(2, 2, dtype=torch.bool)),
    ):
        try:
            evaluate_with_report(InfoNCE(), query, key, relation=relation, group=group)
        except ValueError as error:
            messages.append(str(error))
    try:
        evaluate_with_report(InfoNCE(), scores=query, group=group)
    except ValueError as error:
        messages.append(str(error))
    return messages


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    group = dist.group.WORLD
    assert group is not None
    query, key = _embeddings()
    found: dict[str, Any] = {}
    shared = mock.Mock(wraps=two_sided.loss)
    for name, case in CASES.items():
        shared.reset_mock()
        with mock.patch.object(two_sided, "loss", shared):
            found[name] = _evaluated(
                case,
                query[QUERIES[rank]],
                None if case.own else key[KEYS[rank]],
                case.part(QUERIES[rank], KEYS[rank]),
                memory=case.memory[rank],
                tile_rows=2,
                group=group,
            )
        found[name]["shared"] = shared.called
    for memory in ("dense", "tiled"):
        views = Case(lambda: InfoNCE(temperature=_learned()), True, lambda *_: None)
        found[f"views {memory}"] = _evaluated(views, _views(rank)[0], None, Views(2), memory=memory, group=group)
    query, key = _lonely()
    rows, columns = LONELY_PARTS[rank]
    relation = Paired(LONELY_IDS[0][rows], LONELY_IDS[1][columns])
    found["lonely"] = _evaluated(LONELY, query[rows], key[columns], relation, memory="tiled", tile_rows=3, group=group)
    found["refusals"] = _refusals(group)
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    return of_processes(__file__, folder, timeout=120)


def _assert_same(parts: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    for part in parts:
        torch.testing.assert_close(part["loss"], expected["loss"], rtol=1e-9, atol=1e-9)
    for side in ("query", "key"):
        together = torch.cat([part[side] for part in parts])
        torch.testing.assert_close(together, expected[side], rtol=1e-9, atol=1e-9)
    for one, other, whole in zip(*(part["parameters"] for part in [*parts, expected]), strict=True):
        torch.testing.assert_close(one + other, whole, rtol=1e-9, atol=1e-9)
    for count in ("anchors", "active", "positive", "negative"):
        assert sum(part[count] for part in parts) == expected[count], count
    assert expected["query"].abs().max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_processes_together_are_the_global_batch(processes: list[dict[str, Any]], name: str) -> None:
    case = CASES[name]
    query, key = _embeddings()
    relation = case.part(EVERYTHING, EVERYTHING) if case.whole is None else case.whole()
    expected = _evaluated(case, query, None if case.own else key, relation, memory="dense")
    _assert_same([process[name] for process in processes], expected)


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_views_are_numbered_apart_on_each_process(processes: list[dict[str, Any]], memory: str) -> None:
    """The first item of one process is not a view of the first item of the other."""
    views, ids = (torch.cat(parts) for parts in zip(_views(0), _views(1), strict=True))
    case = Case(lambda: InfoNCE(temperature=_learned()), True, lambda *_: None)
    expected = _evaluated(case, views, None, Paired(ids), memory="dense")
    _assert_same([process[f"views {memory}"] for process in processes], expected)


def test_a_column_that_the_rows_of_all_processes_would_lose(processes: list[dict[str, Any]]) -> None:
    query, key = _lonely()
    expected = _evaluated(LONELY, query, key, Paired(*LONELY_IDS), memory="dense")
    _assert_same([process["lonely"] for process in processes], expected)
    assert expected["key"][2].norm() > 1


def test_directions_share_their_tiles_where_all_processes_run_tiled(processes: list[dict[str, Any]]) -> None:
    for process in processes:
        assert process["info-nce two-sided, tiled"]["shared"]
        assert not process["info-nce two-sided"]["shared"]
        assert not process["info-nce two-sided, one dense one tiled"]["shared"]


def test_what_cannot_be_spread_is_refused_on_every_process(processes: list[dict[str, Any]]) -> None:
    for process in processes:
        explicit, graded, mask, scores = process["refusals"]
        assert "Explicit" in explicit
        assert "by id" in graded
        assert "function of global rows" in mask
        assert "gathered" in scores


if __name__ == "__main__":
    _work(int(sys.argv[1]), Path(sys.argv[2]))
