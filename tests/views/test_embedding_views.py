"""Views of embeddings."""

from __future__ import annotations

import pytest
import torch

from nearfar import views
from nearfar.errors import UsageError


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noise_on_the_sphere_keeps_length_and_turns_by_its_size() -> None:
    items = torch.randn(2000, 64, generator=_generator()) * torch.arange(1, 2001)[:, None]
    found = views.SphereNoise(0.5)(items, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.norm(dim=1), items.norm(dim=1))
    cosine = torch.cosine_similarity(found, items)
    assert float(cosine.mean()) == pytest.approx(1 / 1.25**0.5, abs=0.01)
    assert torch.equal(views.SphereNoise()(torch.zeros(2, 3)), torch.zeros(2, 3))
    torch.testing.assert_close(views.SphereNoise(0.0)(items), items)


def test_noise_in_the_same_orthant_changes_no_sign() -> None:
    items = torch.randn(500, 8, generator=_generator())
    found = views.SphereNoise(3.0, same_orthant=True)(items, generator=torch.Generator().manual_seed(1))
    assert torch.equal(found.sign(), items.sign())
    assert float(torch.cosine_similarity(found, items).min()) < 0.9


def test_dropout_keeps_the_mean() -> None:
    items = torch.ones(500, 100)
    found = views.EmbeddingDropout(0.25)(items, generator=_generator())
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 4 / 3]))
    assert float(found.mean()) == pytest.approx(1, abs=0.01)
    with pytest.raises(UsageError):
        views.EmbeddingDropout(1.0)


def test_cutoffs_take_whole_features_and_whole_tokens() -> None:
    items = torch.ones(200, 6, 10)
    features = views.FeatureCutoff(0.3)(items, generator=_generator())
    assert torch.equal(features, features[:, :1].expand_as(features))
    assert float((features == 0).double().mean()) == pytest.approx(0.3, abs=0.04)
    tokens = views.TokenCutoff(0.3)(items, generator=_generator())
    assert torch.equal(tokens, tokens[:, :, :1].expand_as(tokens))
    assert float((tokens == 0).double().mean()) == pytest.approx(0.3, abs=0.05)
