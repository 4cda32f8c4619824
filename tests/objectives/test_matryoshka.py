"""Matryoshka: the sum over prefixes of any objective; objectives that wrap others, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import Labels, Paired, Views, evaluate
from nearfar.errors import UsageError
from nearfar.objectives import (
    CoSENT,
    InfoNCE,
    Matryoshka,
    Objective,
    ProxyNCA,
    SogCLR,
    Symmetric,
    Triplet,
    VICReg,
    find,
    get,
)

SIZES, WEIGHTS = (6, 3, 2), (1.0, 0.5, 2.0)


def items(seed: int, n: int, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def assert_same(found: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert other.abs().max() > 1e-6


ROWS: dict[str, Callable[[], Objective]] = {
    "info-nce": lambda: InfoNCE(temperature="learned:0.3", two_sided=True),
    "triplet": lambda: Triplet("hard"),
    "dclw": lambda: get("dclw", score="dot"),
    "mw-loss": lambda: get("mw-loss", temperature=0.3),
    "lambda-rank": lambda: get("lambda-rank", reduction="none"),
}


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize("name", ROWS)
def test_the_sum_of_separate_losses(name: str, memory: str) -> None:
    query, key = items(0, 5), items(1, 7)
    relation = Paired(torch.arange(5), torch.tensor([0, 1, 2, 3, 4, 4, -1]))
    inner = ROWS[name]().double()
    expected = sum(
        weight * inner(query[:, :size], key[:, :size], relation=relation)
        for size, weight in zip(SIZES, WEIGHTS, strict=True)
    )
    objective = Matryoshka(inner, SIZES, WEIGHTS)
    found = objective(query, key, relation=relation, memory=memory)
    leaves = [query, key, *inner.parameters()]
    if found.dim():
        found, expected = ((loss * torch.arange(1.0, 6.0)).sum() for loss in (found, expected))
    assert_same(found, expected, *leaves)
    assert objective.report is not None
    assert objective.report.anchors in (5, 12)
    torch.testing.assert_close(
        evaluate(objective, query, key, relation=relation, memory=memory).sum(),
        objective(query, key, relation=relation).sum(),
    )


def test_prefixes_halve_unless_given() -> None:
    query, key = items(2, 5, 48), items(3, 5, 48)
    expected = sum(InfoNCE()(query[:, :size], key[:, :size]) for size in (48, 24, 12, 6, 3))
    assert_same(Matryoshka()(query, key), expected, query, key)
    short = items(4, 5, 3)
    expected = sum(InfoNCE()(short[:, :size], key[:, :size]) for size in (3, 1))
    torch.testing.assert_close(Matryoshka()(short, key[:, :3]), expected)


def test_prefixes_can_be_normalised_after_they_are_cut() -> None:
    query, key = items(5, 5), items(6, 5)
    inner = InfoNCE(score="dot")
    expected = sum(inner(normalize(query[:, :size]), normalize(key[:, :size])) for size in SIZES)
    assert_same(Matryoshka(inner, SIZES, normalize=True)(query, key), expected, query, key)
    assert abs((Matryoshka(inner, SIZES)(query, key) - expected).item()) > 0.01


def test_views() -> None:
    one, other = items(7, 8), items(8, 8)
    objective = Matryoshka(VICReg(), SIZES, WEIGHTS)
    assert objective.kind == "view"
    expected = sum(w * VICReg()(one[:, :size], other[:, :size]) for size, w in zip(SIZES, WEIGHTS, strict=True))
    assert_same(objective(one, other), expected, one, other)


def test_scores_of_pairs() -> None:
    one, other, target = items(9, 6), items(10, 6), torch.arange(6) % 4
    objective = Matryoshka(CoSENT(), SIZES, WEIGHTS)
    assert objective.kind == "point"
    expected = sum(
        w * CoSENT().of_embeddings(one[:, :size], other[:, :size], target)
        for size, w in zip(SIZES, WEIGHTS, strict=True)
    )
    assert_same(objective.of_embeddings(one, other, target), expected, one, other)


def test_proxies_are_cut_with_the_embeddings() -> None:
    x, labels = items(11, 7), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    inner = ProxyNCA(3, 6).double()
    objective = Matryoshka(inner, SIZES, WEIGHTS)
    parts = []
    for size, weight in zip(SIZES, WEIGHTS, strict=True):
        narrow = ProxyNCA(3, size).double()
        narrow.proxies = torch.nn.Parameter(inner.proxies.detach()[:, :size].clone())
        loss = weight * narrow(x[:, :size], labels=labels)
        parts.append((loss, torch.autograd.grad(loss, narrow.proxies, retain_graph=True)[0]))
    for arguments in (
        {"labels": labels},
        {"relation": Labels(labels)},
        {"relation": Labels(labels), "memory": "tiled"},
    ):
        found = objective(x, **arguments)
        torch.testing.assert_close(found, sum(loss for loss, _ in parts))
        gradient = torch.autograd.grad(found, inner.proxies)[0]
        expected = torch.zeros_like(gradient)
        for _, part in parts:
            expected[:, : part.shape[1]] += part
        torch.testing.assert_close(gradient, expected)
    assert isinstance(inner.proxies, torch.nn.Parameter)
    assert inner.dimension == 6


def test_tables_are_kept_for_each_prefix() -> None:
    ids = torch.arange(4).repeat(2)
    views = [items(seed, 8) for seed in (12, 13)]
    objective = Matryoshka(SogCLR(), SIZES)
    apart = [SogCLR() for _ in SIZES]
    for z in views:
        found = objective(z, relation=Views(2, ids=ids))
        expected = sum(inner(z[:, :size], relation=Views(2, ids=ids)) for inner, size in zip(apart, SIZES, strict=True))
        assert_same(found, expected, z)
    with pytest.raises(UsageError, match="sogclr keeps state for each prefix"):
        Matryoshka("sogclr")


def test_half_precision_is_summed_in_float32() -> None:
    query, key = items(14, 5).detach().half().requires_grad_(), items(15, 5).detach().half()
    loss = Matryoshka(InfoNCE(), SIZES)(query, key)
    exact = query.detach().float().requires_grad_()
    expected = Matryoshka(InfoNCE(), SIZES)(exact, key.float())
    torch.testing.assert_close(loss, expected)
    gradient = torch.autograd.grad(expected, exact)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, query)[0], gradient.half(), rtol=0, atol=0)


def test_it_shows_what_it_wraps() -> None:
    objective = Matryoshka("dcl", "6,3", "1,0.5")
    assert objective.dimensions == (6, 3)
    assert objective.weights_of_prefixes == (1.0, 0.5)
    assert objective.temperature is objective.objective.temperature
    assert objective.objective.name == "dcl"
    assert "DCL" in repr(objective)
    learned = Matryoshka(InfoNCE(temperature="learned"))
    assert len(list(learned.parameters())) == 1
    copy = Matryoshka(InfoNCE(temperature="learned:0.5"))
    copy.load_state_dict(learned.state_dict())
    assert copy.temperature.value == learned.temperature.value


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Matryoshka("infonse"), "no objective called 'infonse'"),
        (lambda: Matryoshka("binary-nce"), "called on scores"),
        (lambda: Matryoshka("dpo"), "called on scores"),
        (lambda: Matryoshka(dimensions=(4, 0)), "whole numbers >= 1"),
        (lambda: Matryoshka(dimensions="4,2.5"), "whole numbers >= 1"),
        (lambda: Matryoshka(dimensions="4;2"), "must be numbers"),
        (lambda: Matryoshka(dimensions=()), "whole numbers >= 1"),
        (lambda: Matryoshka(dimensions=(4, 4)), "twice"),
        (lambda: Matryoshka(weights=(1.0,)), "as many weights"),
        (lambda: Matryoshka(dimensions=(4, 2), weights=(1.0,)), "as many weights"),
        (lambda: Matryoshka(dimensions=(4, 2), weights=(1.0, -1.0)), "finite and >= 0"),
    ],
)
def test_arguments_that_make_no_sense(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_input_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a prefix of 8 is longer than embeddings of 6"):
        Matryoshka(dimensions=(8, 4))(items(16, 3), items(17, 3))
    with pytest.raises(ValueError, match="scores have no prefixes"):
        Matryoshka()(scores=torch.ones(3, 3))
    with pytest.raises(ValueError, match="give embeddings"):
        Matryoshka()()


# -- by name ---------------------------------------------------------------------------------------------------------


def test_wrappers_by_name() -> None:
    objective = get("Matryoshka(MNRL)", dimensions="4,2", temperature=0.2, two_sided=True)
    assert isinstance(objective, Matryoshka)
    assert isinstance(objective.objective, InfoNCE)
    assert objective.dimensions == (4, 2)
    assert objective.temperature.value == 0.2
    assert objective.two_sided
    assert get("matryoshka", temperature=0.3).temperature.value == 0.3
    assert get("matryoshka", objective="dcl", temperature=0.3).objective.name == "dcl"
    assert get("matryoshka(clip)").temperature.learned
    assert find("matryoshka ( nt_xent )") == (Matryoshka, {"objective": "nt_xent"})
    nested = get("matryoshka(symmetric(dcl))", dimensions=4, temperature=0.7)
    assert isinstance(nested.objective, Symmetric)
    assert nested.temperature.value == 0.7
    query, key = items(18, 4), items(19, 4)
    expected = get("dcl", temperature=0.7, two_sided=True)(query[:, :4], key[:, :4])
    torch.testing.assert_close(nested(query, key), expected)


@pytest.mark.parametrize(
    ("name", "arguments", "says", "hint"),
    [
        ("matryoshka(infonse)", {}, "no objective called 'infonse'", "info-nce"),
        ("matrioshka(info-nce)", {}, "no objective called 'matrioshka'", "matryoshka"),
        ("info-nce(dcl)", {}, "info-nce wraps no other objective", "matryoshka"),
        ("matryoshka(info-nce", {}, "is not an objective", "matryoshka(info-nce)"),
        ("matryoshka()", {}, "is not an objective", "matryoshka(info-nce)"),
        ("(info-nce)", {}, "is not an objective", "matryoshka(info-nce)"),
        ("matryoshka(info-nce)", {"margin": 0.2}, "info-nce takes no 'margin'", "temperature"),
        ("matryoshka(triplet)", {"temperature": 0.2}, "triplet takes no 'temperature'", "margin"),
    ],
)
def test_names_that_make_no_sense(name: str, arguments: dict[str, Any], says: str, hint: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        get(name, **arguments)
    assert hint in caught.value.hint


def test_arguments_beside_a_ready_made_objective() -> None:
    with pytest.raises(UsageError, match="matryoshka takes no 'temperature'"):
        get("matryoshka", objective=InfoNCE(), temperature=0.2)
