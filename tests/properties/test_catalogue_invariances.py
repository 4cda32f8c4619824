"""What holds for every row objective of the catalogue: tiles and order do not matter, gradients are derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.objectives import RowObjective, catalogue
from support.batches import BATCHES, Batch
from support.examples import Example, all_examples
from support.outcomes import assert_same, outcome

EXAMPLES = all_examples()
TILES = [1, 4, None]
WITHOUT_EXAMPLE: set[str] = set()
"""Row objectives that have no example yet."""


def _example(name: str) -> tuple[Example, Batch]:
    return EXAMPLES[name], BATCHES[EXAMPLES[name].data]()


def test_every_row_objective_has_an_example() -> None:
    shown = {example.make().name for example in EXAMPLES.values()}
    listed = {objective.name for objective in catalogue() if objective.kind == "row"}
    assert listed - shown <= WITHOUT_EXAMPLE
    assert shown <= listed


def test_examples_begin_with_the_name_of_their_objective() -> None:
    for name, example in EXAMPLES.items():
        assert name.startswith(example.make().name), name


@pytest.mark.parametrize("name", EXAMPLES)
def test_tiles(name: str) -> None:
    example, batch = _example(name)
    expected = outcome(example.make, batch.whole(), memory="dense")
    assert torch.isfinite(expected["loss"])
    assert expected["query"].abs().max() > 1e-6
    for rows in TILES:
        assert_same(outcome(example.make, batch.whole(), memory="tiled", tile_rows=rows), expected)


@pytest.mark.parametrize("name", EXAMPLES)
def test_tiles_of_other_reductions(name: str) -> None:
    example, batch = _example(name)
    two_sided = example.make().two_sided  # its sides differ in length, so that single costs have no meaning
    for reduction in ["sum"] if two_sided else ["sum", "none"]:

        def change(objective: RowObjective, reduction: str = reduction) -> None:
            objective.reduction = reduction

        dense, tiled = (
            outcome(example.make, batch.whole(), memory=memory, tile_rows=4, change=change)
            for memory in ("dense", "tiled")
        )
        assert_same(tiled, dense)


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.make().softmax_form])
def test_closed_form_of_the_gradient(name: str) -> None:
    """It says what the objective's formula says."""
    example, batch = _example(name)

    def change(objective: RowObjective) -> None:
        objective.softmax_form = None

    formula = outcome(example.make, batch.whole(), memory="tiled", tile_rows=4, change=change)
    assert_same(outcome(example.make, batch.whole(), memory="tiled", tile_rows=4), formula)


@pytest.mark.parametrize("name", EXAMPLES)
def test_order_of_the_batch(name: str) -> None:
    example, batch = _example(name)
    n, m = batch.shape
    rows, columns = (torch.randperm(count, generator=torch.Generator().manual_seed(0)) for count in (n, m))
    expected = outcome(example.make, batch.whole(), memory="dense")
    for memory in ("dense", "tiled"):
        moved = outcome(example.make, batch.take(rows.tolist(), columns.tolist()), memory=memory, tile_rows=4)
        moved["query"] = _back(moved["query"], rows)
        if batch.key is not None:
            moved["key"] = _back(moved["key"], columns)
        assert_same(moved, expected)


def _back(values: Tensor, order: Tensor) -> Tensor:
    return torch.zeros_like(values).index_copy(0, order, values)


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if not example.detached])
def test_gradients_are_derivatives(name: str) -> None:
    example, batch = _example(name)
    part = batch.whole()
    parameters = [name for name, _ in example.make().named_parameters()]
    inputs = [part.query, *([] if part.key is None else [part.key])]
    values = [dict(example.make().double().named_parameters())[name].detach() for name in parameters]

    def loss(*leaves: Tensor) -> Tensor:
        torch.manual_seed(0)
        objective = example.make().double()
        given = iter(leaves)
        embeddings = [next(given) for _ in inputs]
        call = {name: next(given) for name in parameters}
        relation = {"relation": part.relation, "memory": "dense"}
        found: Tensor = torch.func.functional_call(objective, call, tuple(embeddings), relation)
        return found

    leaves = [value.clone().requires_grad_() for value in (*inputs, *values)]
    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True)
