"""The world of several sensors: what its measurements share and what they do not."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic import Sensors
from nearfar.errors import UsageError


def test_a_class_stays_and_the_state_does_not() -> None:
    world = Sensors(5, 200, dwell=10, seed=1)
    blocks = world.labels.reshape(-1, 10)
    assert (blocks == blocks[:, :1]).all()
    assert len(blocks[:, 0].unique()) == 5
    assert (world.latent[1:] != world.latent[:-1]).any(1).all()
    around = world.latent - world.means[world.labels]
    assert float(around.std()) == pytest.approx(0.6, rel=0.1)


def test_a_measurement_is_its_sensor_s_map_of_the_state() -> None:
    world = Sensors(3, 50, sensors=3, noise=0.0, dimension=7, latent_dimensions=4)
    index = torch.tensor([0, 49, 50, 120, 149])
    assert world.sensor_of(index).tolist() == [0, 0, 1, 2, 2]
    assert world.step_of(index).tolist() == [0, 49, 0, 20, 49]
    assert torch.equal(world.class_of(index), world.labels[torch.tensor([0, 49, 0, 20, 49])])
    for number, seen in zip(index.tolist(), world.measure(index), strict=True):
        sensor, step = divmod(number, 50)
        torch.testing.assert_close(seen, world.latent[step] @ world.maps[sensor] + world.offsets[sensor])
    assert len(world) == 150
    assert world.dimension == 7


def test_every_look_has_noise_of_its_own_from_the_given_generator() -> None:
    world = Sensors(3, 50, noise=0.5)
    index = torch.arange(100)
    first, second = (world.measure(index, generator=torch.Generator().manual_seed(s)) for s in (3, 4))
    assert float((first - second).std()) == pytest.approx(0.5 * 2**0.5, rel=0.1)
    assert torch.equal(first, world.measure(index, generator=torch.Generator().manual_seed(3)))


def test_a_window_ends_with_its_measurement_and_stays_with_its_sensor() -> None:
    world = Sensors(3, 20, noise=0.0)
    windows = world.window(torch.tensor([5, 21]), 3)
    torch.testing.assert_close(windows[0], world.measure(torch.tensor([3, 4, 5])))
    torch.testing.assert_close(windows[1], world.measure(torch.tensor([20, 20, 21])))


def test_fresh_measurements_come_from_the_same_maps() -> None:
    world = Sensors(4, 30, spread=0.0, noise=0.0)
    seen, labels, sensor = world.fresh(500, generator=torch.Generator().manual_seed(0))
    assert labels.unique().tolist() == [0, 1, 2, 3]
    assert sensor.unique().tolist() == [0, 1]
    expected = torch.einsum("nl,nld->nd", world.means[labels], world.maps[sensor]) + world.offsets[sensor]
    torch.testing.assert_close(seen, expected)


def test_the_same_seed_gives_the_same_world() -> None:
    one, same, other = (Sensors(steps=40, seed=seed) for seed in (2, 2, 3))
    assert torch.equal(one.latent, same.latent)
    assert torch.equal(one.maps, same.maps)
    assert not torch.equal(one.latent, other.latent)


@pytest.mark.parametrize("name", ["multisensory", "transformation", "context-instance", "sequential", "clustering"])
def test_what_pairs_share(name: str) -> None:
    world = Sensors(4, 60, seed=0)
    index = torch.arange(len(world))
    pairs = world.pairs(name)(index, torch.Generator().manual_seed(0))
    same_sensor = world.sensor_of(pairs.partner) == world.sensor_of(index)
    apart = (world.step_of(pairs.partner) - world.step_of(index)).abs()
    same_class = world.class_of(pairs.partner) == world.class_of(index)
    if name == "multisensory":
        assert not same_sensor.any()
        assert (apart == 0).all()
    elif name == "sequential":
        assert same_sensor.all()
        assert (apart == 1).all()
        assert 0.5 < float(same_class.float().mean()) < 1
    elif name == "clustering":
        assert same_class.all()
        assert 0.3 < float(same_sensor.float().mean()) < 0.7
        assert not (pairs.partner == index).any()
    else:
        assert torch.equal(pairs.partner, index)
    assert pairs.query.shape == pairs.key.shape == (len(world), world.dimension)


def test_pairs_of_windows_and_of_nothing() -> None:
    world = Sensors(4, 60)
    index = torch.arange(16)
    assert world.pairs("sequential", width=4)(index).query.shape == (16, 4, world.dimension)
    random = world.pairs("random")(torch.zeros(4000, dtype=torch.long), torch.Generator().manual_seed(0)).partner
    assert torch.bincount(random, minlength=120).min() > 5
    with pytest.raises(UsageError, match="no source of pairs") as error:
        world.pairs("multi")
    assert "multisensory" in str(error.value.hint)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Sensors(sensors=0)
