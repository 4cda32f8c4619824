from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import UsageError
from nearfar.views.substitution import GAP, Substitution, gamma_rates


def _uneven() -> Substitution:
    s = torch.tensor([[0.0, 1, 4, 1], [1, 0, 1, 4], [4, 1, 0, 1], [1, 4, 1, 0]])
    return Substitution.reversible(s, torch.tensor([0.4, 0.3, 0.2, 0.1]))


@pytest.mark.parametrize("letters", [2, 4, 20])
@pytest.mark.parametrize("length", [0.0, 0.1, 1.0, 7.0])
def test_jukes_cantor_has_its_closed_form(letters: int, length: float) -> None:
    P = Substitution.jukes_cantor(letters).transitions(length)
    same = 1 / letters + (1 - 1 / letters) * math.exp(-length * letters / (letters - 1))
    expected = torch.full((letters, letters), (1 - same) / (letters - 1), dtype=torch.float64)
    expected.fill_diagonal_(same)
    torch.testing.assert_close(P, expected, rtol=1e-9, atol=1e-12)


def test_jukes_cantor_information_is_the_capacity_of_a_symmetric_channel() -> None:
    model = Substitution.jukes_cantor(20)
    for length in (0.01, 0.5, 2.0):
        p = float(model.transitions(length)[0, 0])
        expected = math.log2(20) + p * math.log2(p) + (1 - p) * math.log2((1 - p) / 19)
        assert float(model.information(length)) == pytest.approx(expected, abs=1e-9)
    assert float(model.information(0.0)) == pytest.approx(math.log2(20))
    assert float(model.information(100.0)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("model", [Substitution.jukes_cantor(4), _uneven()], ids=["JC69", "GTR"])
def test_information_is_lost_along_a_branch(model: Substitution) -> None:
    found = model.information(torch.linspace(0, 5, 50))
    assert bool((found.diff() < 0).all())


def test_reversible_model() -> None:
    model = _uneven()
    pi = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    torch.testing.assert_close(model.frequencies, pi, rtol=1e-6, atol=1e-9)
    P = model.transitions(0.7)
    flow = pi[:, None] * P
    torch.testing.assert_close(flow, flow.T)  # detailed balance
    torch.testing.assert_close(model.transitions(0.3) @ model.transitions(0.4), P)
    assert float((pi * model.rates.diagonal()).sum()) == pytest.approx(-1)
    # one change a unit of length, while few sites have changed twice
    assert float(model.changed(1e-4)) == pytest.approx(1e-4, rel=1e-3)


def test_length_of_a_share_of_changes() -> None:
    model = Substitution.jukes_cantor(4)
    assert model.length_of(0.3) == pytest.approx(-0.75 * math.log(1 - 0.3 / 0.75))
    assert float(_uneven().changed(_uneven().length_of(0.55))) == pytest.approx(0.55)
    with pytest.raises(UsageError, match="never reached"):
        model.length_of(0.75)


def test_descendants_follow_the_transitions_of_their_sites() -> None:
    model = _uneven()
    rates = torch.tensor([0.0, 0.3, 2.0])
    sequences = torch.ones(20_000, 3, dtype=torch.long)
    found = model.descend(sequences, 0.8, rates=rates, generator=torch.Generator().manual_seed(0))
    assert bool((found[:, 0] == 1).all())
    for site in (1, 2):
        expected = model.transitions(0.8 * float(rates[site]))[1]
        shares = torch.bincount(found[:, site], minlength=4) / len(found)
        assert float((shares - expected).abs().max()) < 4 * 0.5 / len(found) ** 0.5


def test_gaps_stay_gaps() -> None:
    sequences = torch.tensor([[0, GAP, 3], [GAP, GAP, 1]])
    found = Substitution.jukes_cantor(4).descend(sequences, 50.0)
    assert torch.equal(found < 0, sequences < 0)


def test_gamma_rates_have_mean_one_and_the_variance_of_their_shape() -> None:
    rates = gamma_rates(40_000, 0.5, generator=torch.Generator().manual_seed(1))
    assert float(rates.mean()) == pytest.approx(1, abs=0.04)
    assert float(rates.var()) == pytest.approx(2, rel=0.1)
    assert not torch.equal(gamma_rates(5), gamma_rates(5))


@pytest.mark.parametrize(
    "rates",
    [
        torch.zeros(4, 4),
        torch.ones(4, 4),
        torch.tensor([[1.0, -1.0], [1.0, -1.0]]),
        torch.zeros(1, 1),
        torch.full((2, 2), math.nan),
    ],
)
def test_what_holds_no_rates(rates: torch.Tensor) -> None:
    with pytest.raises(UsageError):
        Substitution(rates)


def test_what_does_not_fit() -> None:
    model = Substitution.jukes_cantor(4)
    with pytest.raises(ValueError, match="there are 4 letters"):
        model.descend(torch.tensor([[4]]), 1.0)
    with pytest.raises(ValueError, match="one a site"):
        model.descend(torch.tensor([[1, 2]]), 1.0, rates=torch.ones(3))
    with pytest.raises(UsageError, match=">= 0"):
        model.transitions(-1.0)
