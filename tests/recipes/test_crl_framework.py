"""The framework: every combination of its taxonomy trains, and every cell holds something that runs."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch

from nearfar import objectives
from nearfar.data.synthetic import Sensors
from nearfar.encoders.perceptron import Perceptron
from nearfar.errors import UsageError
from nearfar.objectives import VICReg
from nearfar.recipes import taxonomy
from nearfar.training.compose import HEADS
from nearfar.training.keys import REGIMES
from nearfar.training.steps import random_batches, seeded, train_steps
from nearfar.views.pairs import SOURCES

WORLD = Sensors(4, 100, seed=0)
STEPS, BATCH = 20, 12


@functools.cache
def _pre_trained() -> dict[str, Any]:
    """The weights of an encoder trained by another objective."""
    with seeded(0) as generator:
        encoder, source = Perceptron((24, 16, 8)), WORLD.pairs("transformation")

        def loss(index: torch.Tensor) -> torch.Tensor:
            pairs = source(index, generator)
            value: torch.Tensor = VICReg()(encoder(pairs.query), encoder(pairs.key))
            return value

        train_steps(loss, [encoder], random_batches(len(WORLD), BATCH, STEPS, generator))
    return encoder.state_dict()


@pytest.mark.parametrize("names", taxonomy.product(), ids="+".join)
def test_every_combination_trains(names: tuple[str, str, str, str]) -> None:
    pairs, keys, _, _ = names
    with seeded(1) as generator:
        encoder = Perceptron((24, 16, 8))
        if keys == "pre-trained":
            encoder.load_state_dict(_pre_trained())
        options: dict[str, Any] = {"size": 32} if keys == "online-offline" else {}
        method = taxonomy.build(*names, WORLD, encoder, features=8, dimension=4, width=3, **options)
        start = copy.deepcopy(method.state_dict())
        losses = train_steps(  # raises for a loss that is not finite
            lambda index: method({"index": index, "generator": generator})[0],
            [method],
            random_batches(len(WORLD), BATCH, STEPS, generator),
            after_step=method.after_step,
            optimizer="sgd",
            learning_rate=0.05,
        )
        assert len(losses) == STEPS
        # one more gradient, of everything
        method.train().zero_grad(set_to_none=True)
        method({"index": torch.arange(BATCH), "generator": generator})[0].backward()
        contrast = method.keys(WORLD.pairs(pairs, width=3 if names[2] == "contextualisation" else 1)(torch.arange(6)))
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
        assert not torch.equal(parameter.detach(), start[f"keys.encoder.{name}"]), name
    into_keys = 0.0
    if contrast.keys.requires_grad:
        found = torch.autograd.grad(contrast.keys.square().sum(), list(encoder.parameters()), allow_unused=True)
        into_keys = sum(float(value.abs().sum()) for value in found if value is not None)
    offline = [value for name, value in method.named_parameters() if ".offline." in name or ".frozen." in name]
    assert all(value.grad is None for value in offline)
    if keys == "end-to-end":
        assert into_keys > 0
        assert not offline
    else:
        assert into_keys == 0
        assert offline
    for name, value in method.state_dict().items():
        if ".frozen." in name:
            assert torch.equal(value, start[name]), f"{name} moved"


def test_there_are_135_combinations_and_every_slot_is_a_partition() -> None:
    combinations = list(taxonomy.product())
    assert len(set(combinations)) == len(combinations) == 5 * 3 * 3 * 3
    for slot in taxonomy.QUESTIONS:
        names = [cell.name for cell in taxonomy.cells(slot)]
        assert len(set(names)) == len(names)
        placed = [member for cell in taxonomy.cells(slot) for member in taxonomy.members(cell)]
        assert len(set(placed)) == len(placed), "a part stands in two cells"


def test_every_cell_holds_what_runs() -> None:
    known: dict[str, Any] = {"pairs": SOURCES, "keys": REGIMES, "head": HEADS}
    for cell in taxonomy.CELLS:
        assert taxonomy.members(cell), cell.code
        assert all(callable(taxonomy.resolve(part)) for part in cell.parts), cell.code
        if cell.slot == "loss":
            assert taxonomy.place(objectives.registry.find(cell.component)[0]) == cell.name
        else:
            assert cell.component in known[cell.slot], cell.code


def test_every_objective_of_the_catalogue_has_its_place() -> None:
    places = {objective.name: taxonomy.place(objective) for objective in objectives.catalogue()}
    groups = {cell.name for cell in taxonomy.cells("loss")}
    assert {places[name] for name in ("contrastive", "triplet", "lifted-structure", "quadruplet", "angular")} == {
        "margin"
    }
    assert {places[name] for name in ("info-nce", "supcon", "nca", "n-pairs", "binary-nce", "proxy-nca")} == {"nce"}
    assert {places[name] for name in ("mine", "jsd", "infonce-bound", "nwj")} == {"mutual-information"}
    assert not {places[name] for name in ("byol", "dpo", "kl", "listnet", "mgda")} & groups


def test_every_source_and_regime_and_head_stands_in_a_cell() -> None:
    placed = {taxonomy.resolve(part) for cell in taxonomy.CELLS for part in cell.parts}
    assert set(SOURCES.values()) <= placed
    assert set(REGIMES.values()) <= placed
    modules = ("nearfar.encoders.heads", "nearfar.encoders.context", "nearfar.encoders.quantization")
    made = {type(make(8, 8)) for name, make in HEADS.items() if name != "identity"}
    assert made <= placed
    assert {part.__module__ for part in placed} >= set(modules)


def test_cells_are_found_by_name_and_code() -> None:
    assert taxonomy.cell("pairs", "A4") is taxonomy.cell("pairs", "sequential")
    with pytest.raises(UsageError, match="no cell 'D4'") as error:
        taxonomy.cell("loss", "D4")
    assert "triplet" not in str(error.value.hint)
    assert "margin (D1)" in str(error.value.hint)


def test_the_page_names_every_cell_and_every_objective() -> None:
    page = taxonomy.page()
    assert all(f"| {cell.code} | {cell.name} |" in page for cell in taxonomy.CELLS)
    assert all(f"`{objective.name}`" in page for objective in objectives.catalogue())


def test_the_example_runs() -> None:
    found: dict[str, Any] = {}
    with seeded(0):
        exec(compile(taxonomy.EXAMPLE, "docs/taxonomy.md", "exec"), found)
        loss, _ = found["own"]({"index": torch.arange(16)})
    assert found["vectors"].shape == (5, 32)
    assert float(loss.detach()) != 0
    assert taxonomy.EXAMPLE in taxonomy.page()
