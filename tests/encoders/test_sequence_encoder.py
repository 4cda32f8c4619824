"""The recurrent encoder: padding has no part in anything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from nearfar.encoders.sequence import GRUEncoder
from nearfar.errors import UsageError

EACH = pytest.mark.parametrize("pooling", ["last", "mean", "max"])
BOTH = pytest.mark.parametrize("bidirectional", [False, True])


def _encoder(**options: Any) -> GRUEncoder:
    torch.manual_seed(0)
    return GRUEncoder(**{"hidden": 6, "dimension": 5, **options})


@EACH
@BOTH
@pytest.mark.parametrize("embedding", [None, 4])
def test_padding_changes_nothing(pooling: str, bidirectional: bool, embedding: int | None) -> None:
    encoder = _encoder(
        vocabulary=9, embedding=embedding, pooling=pooling, bidirectional=bidirectional, layers=2, padding=0
    )
    alone = encoder(torch.tensor([[3, 5, 8]]))
    padded = torch.tensor([[3, 5, 8, 0, 0], [0, 0, 3, 5, 8], [0, 3, 5, 0, 8], [1, 2, 3, 4, 5]])
    torch.testing.assert_close(encoder(padded)[:3], alone.expand(3, 5))
    assert not torch.allclose(encoder(padded)[3], alone[0])


@EACH
@BOTH
def test_it_is_torchs_gru_pooled(pooling: str, bidirectional: bool) -> None:
    encoder = _encoder(features=3, pooling=pooling, bidirectional=bidirectional)
    series = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(1))
    states, _ = encoder.recurrent(series)
    if pooling == "last":
        expected = torch.cat([states[:, -1, :6], states[:, 0, 6:]], 1)
    else:
        expected = states.mean(1) if pooling == "mean" else states.amax(1)
    torch.testing.assert_close(encoder(series), encoder.last(expected))


@EACH
def test_a_mask_says_which_steps_there_are(pooling: str) -> None:
    encoder = _encoder(features=2, pooling=pooling)
    series = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True, True, False, True, False, False], [True] * 6])
    found = encoder(series, mask)
    torch.testing.assert_close(found[0], encoder(series[:1, [0, 1, 3]])[0])
    torch.testing.assert_close(found[1], encoder(series[1:])[0])


@EACH
def test_an_empty_sequence_is_a_state_of_zeros(pooling: str) -> None:
    encoder = _encoder(vocabulary=9, pooling=pooling)
    found = encoder(torch.tensor([[0, 0, 0], [1, 2, 0]]))
    torch.testing.assert_close(found[0], encoder.last.bias)
    found.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_one_hot_is_an_embedding_by_the_identity() -> None:
    encoder, embedded = _encoder(vocabulary=7), _encoder(vocabulary=7, embedding=7)
    embedded.load_state_dict({**encoder.state_dict(), "embedding.weight": torch.eye(7)})
    ids = torch.randint(1, 7, (4, 5))
    torch.testing.assert_close(encoder(ids), embedded(ids))
    torch.testing.assert_close(encoder(ids), _encoder(features=7)(F.one_hot(ids, 7).float()))
    assert encoder(ids.int()).shape == (4, 5)


@EACH
@BOTH
def test_no_sequences_give_no_vectors(pooling: str, bidirectional: bool) -> None:
    options: dict[str, Any] = {"pooling": pooling, "bidirectional": bidirectional}
    found = _encoder(features=3, **options)(torch.zeros(0, 4, 3))
    assert found.shape == _encoder(features=3, **options)(torch.zeros(2, 4, 3))[:0].shape
    found.sum().backward()
    for embedding in (None, 5):
        ids = torch.zeros(0, 6, dtype=torch.long)
        encoder = _encoder(vocabulary=7, embedding=embedding, **options)
        assert encoder(ids, torch.zeros(0, 6, dtype=torch.bool)).shape == found.shape
    with pytest.raises(ValueError, match=r"\[n, t, 3\]"):
        _encoder(features=3)(torch.zeros(0, 4, 2))


@EACH
def test_a_step_that_is_missing_may_be_no_number(pooling: str) -> None:
    encoder, series = _encoder(features=3, pooling=pooling), torch.randn(2, 4, 3)
    mask = torch.tensor([[True, False, True, False], [False] * 4])

    def run(filling: float) -> list[torch.Tensor | None]:
        encoder.zero_grad()
        outputs = encoder(series.masked_fill(~mask[..., None], filling), mask)
        outputs.square().sum().backward()
        return [outputs, *(each.grad for each in encoder.parameters())]

    for found, expected in zip(run(torch.nan), run(0.0), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_without_padding_id_zero_is_an_id() -> None:
    encoder = _encoder(vocabulary=3, padding=None)
    assert not torch.allclose(encoder(torch.tensor([[1, 2]])), encoder(torch.tensor([[1, 2, 0]])))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"features": 3, "vocabulary": 4},
        {"features": 3, "embedding": 4},
        {"vocabulary": 0},
        {"features": 3, "layers": 0},
        {"features": 3, "pooling": "first"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        GRUEncoder(**options)


def test_items_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[n, t, 3\]"):
        _encoder(features=3)(torch.rand(2, 4, 2))
    with pytest.raises(ValueError, match="integers"):
        _encoder(vocabulary=3)(torch.rand(2, 4))
    with pytest.raises(ValueError, match=r"0 \.\. 2"):
        _encoder(vocabulary=3)(torch.tensor([[1, 3]]))
    with pytest.raises(ValueError, match="mask"):
        _encoder(vocabulary=3)(torch.tensor([[1, 2]]), torch.ones(1, 3))
