"""Worlds with known rewards: noisy pairs, and responses of symbols under instructions."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic.noisy_preferences import NoisyPreferences
from nearfar.data.synthetic.symbol_responses import SymbolResponses
from nearfar.errors import DataError, UsageError


def _drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_wrong_labels_are_as_many_as_asked_for_and_mostly_where_it_is_close() -> None:
    world = NoisyPreferences(seed=1)
    found = world.pairs(40_000, generator=_drawn())
    gap = world.reward(found.chosen) - world.reward(found.rejected)
    assert torch.equal(gap >= 0, found.right)
    assert float((~found.right).float().mean()) == pytest.approx(0.33, abs=0.01)
    order = gap.abs().argsort().tensor_split(10)
    shares = [float((~found.right[tenth]).float().mean()) for tenth in order]
    assert shares[0] > 0.45
    assert 0.08 < shares[-1] < shares[4] < shares[0]


def test_clean_pairs_and_pairs_without_noise() -> None:
    world = NoisyPreferences(flips=0.0, adversarial=0.0)
    assert world.clean(50, generator=_drawn()).right.all()
    found = world.pairs(50, generator=_drawn())
    assert len(found) == 50
    assert found.right.all()
    assert (world.reward(found.chosen) >= world.reward(found.rejected)).all()
    only = NoisyPreferences(flips=0.0, adversarial=0.3).pairs(20_000, generator=_drawn())
    assert float((~only.right).float().mean()) == pytest.approx(0.3, abs=0.01)


def test_shifted_responses_differ_less_and_lie_aside() -> None:
    world = NoisyPreferences(dimension=6)
    found = world.shifted(4000, 3, shift=4.0, shrink=0.25, generator=_drawn(1))
    assert found.shape == (4000, 3, 6)
    centre = found.mean((0, 1))
    assert float(centre.norm()) == pytest.approx(4, abs=0.05)
    assert float(world.reward(centre)) == pytest.approx(0, abs=0.02)
    assert float(found.flatten(0, 1).std(0).mean()) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("wrong", [{"flips": 0.5}, {"adversarial": -0.1}, {"dimension": 0}, {"closeness": 0.0}])
def test_noise_that_there_is_not(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        NoisyPreferences(**wrong)  # type: ignore[arg-type]


def test_symbols_and_their_quality() -> None:
    world = SymbolResponses(4, 5, seed=2)
    drawn = world.draw(200, generator=_drawn())
    assert {len(each.split()) for each in drawn} == {3, 4, 5}
    assert set("".join(drawn)) == set("abcd ")
    value = dict(zip("abcd", world.value.tolist(), strict=True))
    for text, quality in zip(drawn, world.quality(drawn).tolist(), strict=True):
        assert quality == pytest.approx(sum(value[s] for s in text.split()) / len(text.split()), abs=1e-6)
    better, worse = zip(*world.pairs(50, generator=_drawn()), strict=True)
    assert (world.quality(better) >= world.quality(worse)).all()
    one, other = zip(*world.alike(500, generator=_drawn()), strict=True)
    apart = world.quality(one) - world.quality(other)
    assert apart.abs().mean() < 0.01
    assert 0.3 < (apart[apart != 0] > 0).float().mean() < 0.7


def test_features_of_symbols_and_prompts() -> None:
    world = SymbolResponses(3, 4)
    found = world.response_features(["b a b", "c c c c"])
    assert found.shape == (2, world.response_width)
    assert found[0].nonzero().flatten().tolist() == [0, 1, 3 + 1, 6 + 2]
    assert found[1].nonzero().flatten().tolist() == [2, 3 + 2, 6 + 3]
    prompts = world.prompt_features([[("contains", "b"), ("at most words", 6)], []])
    assert prompts.shape == (2, world.prompt_width)
    assert prompts.sum(1).tolist() == [2, 0]
    assert prompts[0, world.column(("contains", "b"))] == 1
    with pytest.raises(DataError, match="knows no"):
        world.column(("contains", "z"))
    with pytest.raises(UsageError):
        SymbolResponses(27)
