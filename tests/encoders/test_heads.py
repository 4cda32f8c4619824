"""Projections, predictions, prototypes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nearfar.encoders.heads import Prediction, PredictionBlocks, Projection, Prototypes, WideHead
from nearfar.errors import UsageError
from nearfar.objectives import DINO, SimSiam, SwaV, get


def _rows(n: int = 8, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def test_two_widths_are_a_linear_map() -> None:
    head = Projection((6, 3))
    linear = head.perceptron.layers[0]
    assert isinstance(linear, nn.Linear)
    torch.testing.assert_close(head(_rows()), _rows() @ linear.weight.T + linear.bias)
    assert head(_rows().reshape(2, 4, 6)).shape == (2, 4, 3)


def test_the_last_norm() -> None:
    layer = Projection((6, 5, 4), last="layer")(_rows())
    torch.testing.assert_close(layer.mean(1), torch.zeros(8), rtol=0, atol=1e-6)
    batch = Projection((6, 5, 4), batch_norm=True, last="batch")(_rows())
    torch.testing.assert_close(batch.mean(0), torch.zeros(4), rtol=0, atol=1e-6)
    unit = Projection((6, 5, 4), last="layer", normalize=True)(_rows())
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(8))
    zero = Projection((6, 4), normalize=True)
    nn.init.zeros_(zero.perceptron.layers[0].bias)  # type: ignore[arg-type]
    assert torch.equal(zero(torch.zeros(1, 6)), torch.zeros(1, 4))


def test_a_prediction_has_simsiams_bottleneck_and_goes_into_the_objective() -> None:
    head = Prediction(8)
    assert head.perceptron.widths == (8, 2, 8)
    assert any(isinstance(part, nn.BatchNorm1d) for part in head.modules())
    assert not any(isinstance(part, nn.BatchNorm1d) for part in Prediction(8, 32, batch_norm=False).modules())
    assert Prediction(2).perceptron.widths == (2, 1, 2)
    z1, z2 = _rows(8, 8), _rows(8, 8).flip(0)
    inside = SimSiam(head)(z1, z2)
    outside = SimSiam()(head(z1), head(z2), targets=(z1, z2))
    torch.testing.assert_close(inside, outside)
    inside.backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_prediction_blocks_are_written_out() -> None:
    torch.manual_seed(0)
    head = PredictionBlocks(3, blocks=2, factor=2).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    y = x
    for block in range(2):
        first, _, _, second, _, third = head.layers[6 * block : 6 * block + 6]
        assert (first.in_features, second.in_features, third.in_features) == (3, 6, 6)
        wide = y @ first.weight.T + first.bias
        wide = (wide - wide.mean(0)) / (wide.var(0, unbiased=False) + 1e-5).sqrt()
        wide = (wide.clamp_min(0) @ second.weight.T + second.bias).clamp_min(0)
        y = wide @ third.weight.T + third.bias
    torch.testing.assert_close(head(x), y)
    assert sum(p.numel() for p in PredictionBlocks(384).parameters()) == pytest.approx(71e6, rel=0.01)
    with pytest.raises(UsageError, match="at least 1"):
        PredictionBlocks(3, blocks=0)


def test_the_wide_head_is_written_out() -> None:
    torch.manual_seed(0)
    head = WideHead(3, 5).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)

    def gelu(v: Tensor) -> Tensor:
        return v * (1 + torch.erf(v / 2**0.5)) / 2

    first, _, second, _ = head.layers
    torch.testing.assert_close(head(x), gelu(gelu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias))
    with pytest.raises(UsageError, match="at least 1"):
        WideHead(3, 0)


def test_cosine_prototypes_ignore_lengths_and_linear_ones_do_not() -> None:
    head, z = Prototypes(5, 6), _rows()
    scores = head(z)
    expected = torch.stack([torch.cosine_similarity(z, c.expand_as(z)) for c in head.weight])
    torch.testing.assert_close(scores, expected.T)
    with torch.no_grad():
        head.weight.mul_(torch.arange(1.0, 6)[:, None])
    torch.testing.assert_close(head(3 * z), scores)
    head.normalize_()
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(5))
    linear = Prototypes(5, 6, score="linear")
    torch.testing.assert_close(linear(z), z @ linear.weight.T)


def test_prototypes_serve_swav_as_its_own_do() -> None:
    objective, head = SwaV(5, 6), Prototypes(5, 6)
    views = [_rows(), _rows().flip(0)]
    with torch.no_grad():
        objective.prototypes.copy_(head.weight)
    own = objective(*views)
    torch.testing.assert_close(objective.of_scores([head(view) for view in views]), own)
    linear = Prototypes(5, 6, score="linear")
    with torch.no_grad():
        linear.weight.copy_(head.weight)
    unit = [torch.nn.functional.normalize(view) for view in views]
    torch.testing.assert_close(objective.of_scores([linear(view) for view in unit]), own)


def test_prototypes_serve_dino() -> None:
    student, teacher = Prototypes(5, 6), Prototypes(5, 6)
    loss = DINO()(student(_rows()), student(_rows().flip(0)), targets=(teacher(_rows()), teacher(_rows().flip(0))))
    loss.backward()
    assert student.weight.grad is not None
    assert teacher.weight.grad is None
    assert float(student.weight.grad.abs().sum()) > 0


def test_heads_train_any_objective_by_name() -> None:
    head = Projection((6, 16, 4), batch_norm=True, normalize=True)
    loss = get("info-nce")(head(_rows()), head(_rows() + 0.1))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Projection((4,)),
        lambda: Projection((4, 2), last="group"),
        lambda: Prediction(0),
        lambda: Prototypes(0, 4),
        lambda: Prototypes(3, 4, score="euclidean"),
    ],
)
def test_wrong_options_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(UsageError):
        make()


def test_embeddings_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="6 dimensions"):
        Prototypes(5, 6)(_rows(8, 4))
