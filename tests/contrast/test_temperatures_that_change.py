"""Temperatures by schedule, by alignment and by item."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.contrast import (
    AdaptiveTemperature,
    CosineTemperature,
    IndividualTemperature,
    Labels,
    Paired,
    Temperature,
    Views,
    evaluate,
)
from nearfar.contrast.items import LARGEST, ItemTable
from nearfar.contrast.temperature import get
from nearfar.errors import UsageError
from nearfar.objectives import DCL, DCLW, InfoNCE, RowObjective

WAYS = [{"memory": "dense"}, {"memory": "tiled"}, {"memory": "tiled", "tile_rows": 2}]


def _items(seed: int, n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- schedule ----------------------------------------------------------------------------------------------------------


def test_cosine_schedule() -> None:
    """Equation 6 of Kukleva et al. (2023): from the highest to the lowest in half a period, and back."""
    temperature = CosineTemperature(0.1, 1.0, 400)
    for step in (0, 1, 50, 100, 200, 399, 400, 1234):
        expected = (1.0 - 0.1) * (1 + math.cos(2 * math.pi * step / 400)) / 2 + 0.1
        assert temperature.at(step) == pytest.approx(expected, rel=1e-12)
    assert [temperature.at(step) for step in (0, 100, 200, 400)] == pytest.approx([1.0, 0.55, 0.1, 1.0])
    assert min(temperature.at(step) for step in range(800)) == pytest.approx(0.1)


def test_a_schedule_steps_and_is_saved() -> None:
    objective = InfoNCE(temperature="cosine:0.1:0.5:8")
    temperature = objective.temperature
    assert isinstance(temperature, CosineTemperature)
    assert temperature.varies
    query, key = _items(0, 5), _items(1, 5)
    for step in range(10):
        expected = InfoNCE(temperature=temperature.at(step))(query, key)
        torch.testing.assert_close(objective(query, key), expected)
        temperature.step()
    copy = InfoNCE(temperature="cosine:0.1:0.5:8")
    copy.load_state_dict(objective.state_dict())
    assert copy.temperature.value == temperature.value == pytest.approx(temperature.at(10))
    copy.temperature.set_step(4)
    assert copy.temperature.value == pytest.approx(0.1)
    objective.bfloat16()  # counts survive what happens to weights
    objective.temperature.set_step(1001)
    assert int(objective.temperature.steps) == 1001
    with pytest.raises(UsageError, match="at step -1"):
        copy.temperature.set_step(-1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cosine:0.1:0.5", "must be a number, 'learned'"),
        ("cosine:0.1:0.5:10:3", "must be a number, 'learned'"),
        ("cosine", "must be a number, 'learned'"),
        ("cosine:a:0.5:10", "must be a number, 'learned'"),
        ("cosine:0.5:0.1:10", "minimum 0.5 lies above its maximum 0.1"),
        ("cosine:0:0.1:10", "finite number > 0"),
        ("cosine:0.1:inf:10", "finite number > 0"),
        ("cosine:0.1:0.5:0", "steps >= 1"),
        ("cosine:0.1:0.5:2.5", "steps >= 1"),
        ("cosine:0.1:0.5:nan", "steps >= 1"),
        ("learned:0.1:0.2", "must be a number, 'learned'"),
        ("adaptive:0.1:0.5:0:1", "must be a number, 'learned'"),
        ("adaptive:0", "finite number > 0"),
        ("adaptive:0.1:-1", "alpha"),
        ("adaptive:0.1:1:inf", "reference"),
        ("0.1:0.2", "must be a number, 'learned'"),
        ("individual", "must be a number, 'learned'"),
    ],
)
def test_texts_that_say_nothing(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        InfoNCE(temperature=text)


def test_texts() -> None:
    cosine = get("cosine:0.1:0.5:200", 0.3)
    assert isinstance(cosine, CosineTemperature)
    assert (cosine.minimum, cosine.maximum, cosine.period) == (0.1, 0.5, 200)
    for text, expected in (
        ("adaptive", (0.3, 0.5, 0.0)),
        ("adaptive:0.05", (0.05, 0.5, 0.0)),
        ("adaptive:0.05:2", (0.05, 2.0, 0.0)),
        ("adaptive:0.05:2:0.8", (0.05, 2.0, 0.8)),
    ):
        adaptive = get(text, 0.3)
        assert isinstance(adaptive, AdaptiveTemperature)
        assert (adaptive.initial, adaptive.alpha, adaptive.reference) == expected
    printed = repr(InfoNCE(temperature="cosine:0.1:0.5:200"))
    assert "0.5, cosine in [0.1, 0.5] over 200 steps" in printed
    assert "adaptive: 0.1 (1 + 0.5 (alignment - 0))" in repr(InfoNCE(temperature="adaptive:0.1"))


# -- alignment ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("cls", [InfoNCE, DCL, DCLW])
def test_adaptive_is_fixed_at_what_the_batch_says(
    cls: type[RowObjective], two_sided: bool, way: dict[str, Any]
) -> None:
    query, key = _items(2, 6).requires_grad_(), _items(3, 8).requires_grad_()
    relation = Paired(torch.tensor([0, 1, 1, 2, 3, 9]), torch.tensor([1, 0, 2, 3, -1, 1, 4, 2]))
    near = torch.tensor([[0, 1], [1, 0], [1, 5], [2, 0], [2, 5], [3, 2], [3, 7], [4, 3]])
    unit, keys = (torch.nn.functional.normalize(z.detach(), dim=1) for z in (query, key))
    alignment = (unit[near[:, 0]] * keys[near[:, 1]]).sum(1).mean()
    expected = 0.2 * (1 + 0.7 * (float(alignment) - 0.1))
    adaptive = AdaptiveTemperature(0.2, 0.7, 0.1)
    losses = [
        evaluate(cls(temperature=temperature, two_sided=two_sided), query, key, relation=relation, **way)
        for temperature in (adaptive, expected)
    ]
    assert adaptive.value == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)
    for one, other in zip(*(torch.autograd.grad(loss, (query, key)) for loss in losses), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_adaptive_on_ready_made_scores_and_without_positives() -> None:
    scores = torch.tensor([[0.9, 0.1, -0.3], [0.2, 0.5, 0.4]])
    adaptive = AdaptiveTemperature(0.5, 1.0, 0.0)
    loss = InfoNCE(temperature=adaptive)(scores=scores)
    assert adaptive.value == pytest.approx(0.5 * 1.7)
    torch.testing.assert_close(loss, InfoNCE(temperature=0.85)(scores=scores))
    with pytest.warns(UserWarning, match="no anchor"):
        InfoNCE(temperature=adaptive)(_items(0, 2), relation=Labels(torch.arange(2)))
    assert adaptive.value == pytest.approx(0.5 * 1.7)  # nothing was observed


def test_adaptive_never_falls_to_zero() -> None:
    """SimCSE's settings at the beginning of training, when nothing is aligned yet."""
    adaptive = AdaptiveTemperature(0.05, 2.0, 0.8)
    query = _items(4, 5)
    loss = InfoNCE(temperature=adaptive)(query, -query)
    assert adaptive.value == pytest.approx(0.01)
    assert torch.isfinite(loss)


# -- items -------------------------------------------------------------------------------------------------------------


def _by_item() -> IndividualTemperature:
    temperature = IndividualTemperature(0.3, items=3)
    temperature.temperatures.write(torch.tensor([4, 1, 7]), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    return temperature


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cls", [InfoNCE, DCL])
def test_each_row_is_divided_by_its_own(cls: type[RowObjective], way: dict[str, Any]) -> None:
    ids = torch.tensor([1, 4, 7, 2, 4])
    query, key = _items(5, 5).requires_grad_(), _items(6, 5).requires_grad_()
    for reduction in ("mean", "none"):
        loss = evaluate(cls(temperature=_by_item(), reduction=reduction), query, key, relation=Paired(ids), **way)
        rows = []
        for i, t in enumerate((0.5, 0.1, 0.9, 0.3, 0.1)):
            single = cls(temperature=t, reduction="none")
            rows.append(single(query[i : i + 1], key, relation=Paired(ids[i : i + 1], ids))[0])
        expected = torch.stack(rows) if reduction == "none" else torch.stack(rows).mean()
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        factor = torch.arange(1.0, 1 + loss.numel(), dtype=loss.dtype).reshape(loss.shape)
        for one, other in zip(
            *(
                torch.autograd.grad((factor * value).sum(), (query, key), retain_graph=True)
                for value in (loss, expected)
            ),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_both_sides_have_temperatures_by_their_own_ids() -> None:
    query, key = _items(7, 4), _items(8, 5)
    ids, keys = torch.tensor([4, 1, 7, 2]), torch.tensor([1, 7, 4, -1, 2])
    both = InfoNCE(temperature=_by_item(), two_sided=True)(query, key, relation=Paired(ids, keys))
    there = InfoNCE(temperature=_by_item())(query, key, relation=Paired(ids, keys))
    back = InfoNCE(temperature=_by_item())(key, query, relation=Paired(keys, ids))
    torch.testing.assert_close(both, (there + back) / 2)
    scores = torch.nn.functional.normalize(query, dim=1) @ torch.nn.functional.normalize(key, dim=1).T
    ready = InfoNCE(temperature=_by_item(), two_sided=True)(scores=scores, relation=Paired(ids, keys))
    torch.testing.assert_close(ready, both)


def test_temperatures_by_item_need_ids_and_rows_of_their_own() -> None:
    for relation in (None, Views(2)):
        with pytest.raises(ValueError, match="needs their ids"):
            InfoNCE(temperature=_by_item())(_items(0, 4), None if relation else _items(1, 4), relation=relation)
    with pytest.raises(ValueError, match="no single value"):
        DCLW(temperature=_by_item())(_items(0, 4), _items(1, 4), relation=Paired(torch.arange(4)))


def test_a_step_of_the_descent() -> None:
    temperature = IndividualTemperature(0.4, minimum=0.1, maximum=0.5, rate=0.1, momentum=0.5, clip=2.0)
    temperature.update(torch.tensor([3, 0, 3]), torch.tensor([1.0, -9.0, 0.5]))
    assert temperature.gradients(torch.tensor([0, 3, 1])).tolist() == pytest.approx([-1.0, 0.375, 0.0])
    assert temperature.of(torch.tensor([0, 3, 1])).tolist() == pytest.approx([0.5, 0.4 - 0.0375, 0.4])
    temperature.update(torch.tensor([3, 0]), torch.tensor([9.0, 0.0]))
    assert temperature.gradients(torch.tensor([0, 3])).tolist() == pytest.approx([-0.5, 0.5 * 0.375 + 1.0])
    assert temperature.of(torch.tensor([0, 3])).tolist() == pytest.approx([0.5, 0.3625 - 0.11875])
    for _ in range(5):
        temperature.update(torch.tensor([3]), torch.tensor([9.0]))
    assert temperature.of(torch.tensor([3])).item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"minimum": 0.2}, {"maximum": 0.05}, {"minimum": 0.0}, {"rho": -1.0}, {"rate": math.nan}, {"momentum": 0.0},
        {"momentum": 1.5}, {"clip": 0.0}, {"items": -1},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        IndividualTemperature(0.1, **arguments)


def test_a_table_grows_with_what_is_written() -> None:
    table = ItemTable(0.5, 2)
    assert table(torch.tensor([0, 100, -1])).tolist() == [0.5, 0.5, 0.5]
    assert table.values.numel() == 2  # reading makes no room
    table.write(torch.tensor([5, 1]), torch.tensor([1.0, 2.0]))
    assert table(torch.tensor([0, 1, 5, 6, 90])).tolist() == [0.5, 2.0, 1.0, 0.5, 0.5]
    assert 6 <= table.values.numel() <= 12
    table.write(torch.zeros(0, dtype=torch.long), torch.zeros(0))
    for wrong in (-1, LARGEST):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            table.write(torch.tensor([wrong]), torch.tensor([1.0]))


def test_the_plain_temperature_is_as_it_was() -> None:
    assert not Temperature(0.1).varies
    assert Temperature(0.1, learned=True).varies
