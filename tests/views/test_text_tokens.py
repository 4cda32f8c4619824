"""Views of token ids and inside an encoder: special tokens stay, counts are exact, gradients pass."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.encoders.masked_language import is_word
from nearfar.encoders.states import SpecialTokens
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.errors import ModelError, UsageError
from nearfar.views.text import latent, masking

SPECIAL = SpecialTokens(padding=0, first=1, last=2, mask=3, all=frozenset(range(5)))
VOCABULARY = 60


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(lengths: tuple[int, ...] = (12, 1, 0, 7), width: int = 16) -> Tensor:
    """[CLS], words that differ, [SEP], padding."""
    rows = []
    for row, length in enumerate(lengths):
        words = (torch.randperm(VOCABULARY - 5, generator=generator(row))[:length] + 5).tolist()
        rows.append([1, *words, 2] + [0] * (width - length - 2))
    return torch.tensor(rows)


def views() -> list[Any]:
    def model(ids: Tensor, mask: Tensor) -> Tensor:
        return torch.randn(*ids.shape, VOCABULARY, generator=generator(int(ids.sum())))

    return [
        masking.MaskWords(0.4, special=SPECIAL),
        masking.MaskSpan(0.4, special=SPECIAL),
        masking.CropWords(0.5, special=SPECIAL),
        masking.ShuffleWords(special=SPECIAL),
        masking.LanguageModelSubstitution(model, 0.4, special=SPECIAL, vocabulary=VOCABULARY),
    ]


@pytest.mark.parametrize("view", views(), ids=lambda view: type(view).__name__)
def test_special_tokens_stay_and_the_generator_decides(view: Any) -> None:
    ids = batch()
    kept = ids.clone()
    seen = view(ids, generator(1))
    assert torch.equal(ids, kept), "the input was written to"
    assert torch.equal(seen, view(ids, generator(1)))
    assert not torch.equal(seen, view(ids, generator(2)))
    assert (seen[:, 0] == 1).all()
    assert (seen == 2).sum(1).eq(1).all()
    assert torch.equal(seen[2], ids[2]), "a text without words"
    ends = (seen == 2).int().argmax(1)
    assert all(bool((row[end + 1 :] == 0).all()) for row, end in zip(seen, ends.tolist(), strict=True))
    assert all(bool((row[:end] != 0).all()) for row, end in zip(seen, ends.tolist(), strict=True))


def test_a_run_is_masked_and_a_run_is_cropped() -> None:
    ids = batch((12,) * 300)
    masked = masking.MaskSpan(0.4, special=SPECIAL)(ids, generator()) == 3
    assert masked.sum(1).eq(4).all()
    starts = masked.int().argmax(1)
    assert (masked.int().diff(dim=1) == 1).sum(1).eq(1).all()
    assert set(starts.tolist()) == set(range(1, 10))
    cropped = masking.CropWords(0.5, special=SPECIAL)(ids, generator())
    assert is_word(cropped, SPECIAL).sum(1).eq(6).all()
    for old, new in zip(ids.tolist(), cropped.tolist(), strict=True):
        start = old.index(new[1])
        assert new[1:7] == old[start : start + 6]
        assert new[7:] == [2] + [0] * 8


def test_shuffled_words_are_the_same_and_every_order_comes() -> None:
    ids = batch((3,) * 2000)
    ids[:] = ids[0]
    seen = masking.ShuffleWords(special=SPECIAL)(ids, generator())
    orders = Counter(map(tuple, seen[:, 1:4].tolist()))
    assert len(orders) == 6
    assert all(abs(count - 2000 / 6) < 80 for count in orders.values())
    assert torch.equal(seen[:, 1:4].sort(1).values, ids[:, 1:4].sort(1).values)


def test_shuffling_tokens_is_shuffling_their_positions() -> None:
    """ConSERT's view: the tokens where they were, the position vectors in another order."""
    torch.manual_seed(0)
    encoder = TokenTransformer(VOCABULARY, 16, layers=2, dropout=0.0, positions=16, special=SPECIAL)
    assert encoder.places is not None
    ids = batch((9, 12))
    seen = masking.ShuffleWords(special=SPECIAL)(ids, generator(3))
    places = torch.zeros_like(ids)
    for row, (old, new) in enumerate(zip(ids.tolist(), seen.tolist(), strict=True)):
        for place, token in enumerate(old):
            places[row, place] = new.index(token) if token else place
    inputs = encoder.table[ids] + encoder.places[places]
    theirs = encoder.pool(encoder.states(ids, inputs=inputs))
    torch.testing.assert_close(encoder(seen), theirs)
    assert (encoder(ids) - theirs).abs().max() > 1e-3


def test_masks_need_a_mask() -> None:
    none = SpecialTokens(padding=0, all=frozenset([0]))
    for make in (masking.MaskWords, masking.MaskSpan):
        with pytest.raises(ModelError, match="what is masked"):
            make(special=none)
    seen = masking.MaskWords(0.3, special=SPECIAL)(batch((12,) * 500), generator()) == 3
    assert abs(float(seen.sum()) / (500 * 12) - 0.3) < 0.03


def test_substitutes_are_words_drawn_from_the_model() -> None:
    def model(ids: Tensor, mask: Tensor) -> Tensor:
        logits = torch.full((*ids.shape, VOCABULARY), -1e9)
        logits[..., 0] = 1e9  # padding, which is no word
        logits[..., 40] = logits[..., 41] = 0.0
        return logits

    view = masking.LanguageModelSubstitution(model, 0.5, special=SPECIAL, vocabulary=VOCABULARY)
    ids = batch((12,) * 200)
    seen = view(ids, generator())
    new = seen[seen != ids]
    assert set(new.tolist()) == {40, 41}
    assert abs(len(new) / (200 * 12) - 0.5 * 57 / 58) < 0.06


# -- inside -----------------------------------------------------------------------------------------------------------


def encoder() -> TokenTransformer:
    torch.manual_seed(0)
    return TokenTransformer(VOCABULARY, 16, layers=1, dropout=0.0, special=SPECIAL)


LATENT = [
    latent.WordCutoff(0.4),
    latent.DimensionCutoff(0.4),
    latent.SpanCutoff(0.4),
    latent.GaussianNoise(0.5),
    latent.HiddenMixup(1.0),
]


@pytest.mark.parametrize("view", LATENT, ids=lambda view: type(view).__name__)
def test_latent_views_pass_gradients_and_obey_the_generator(view: Any) -> None:
    model, ids = encoder(), batch()
    words = is_word(ids, SPECIAL)
    inputs = model.embed(ids).detach().requires_grad_()
    seen = view(inputs, words, generator(1))
    assert torch.equal(seen, view(inputs, words, generator(1)))
    assert not torch.equal(seen, view(inputs, words, generator(2)))
    seen.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().sum() > 0
    if not isinstance(view, latent.DimensionCutoff):
        assert torch.equal(seen[~words], inputs[~words]), "special tokens were touched"
    once = latent.encoded(model, ids, view=view, generator=generator(1))
    assert torch.equal(once, latent.encoded(model, ids, view=view, generator=generator(1)))
    assert torch.equal(latent.encoded(model, ids), model(ids))
    view.p = 0.0
    assert torch.equal(view(inputs, words, generator(1)), inputs)
    view.p = 1.0


def test_cutoffs_set_as_much_to_zero_as_they_say() -> None:
    ids = batch((12,) * 400)
    words, inputs = is_word(ids, SPECIAL), torch.randn(400, 16, 32, generator=generator())
    gone = (latent.WordCutoff(0.15)(inputs, words, generator()) == 0).all(2)
    assert abs(float(gone.sum()) / words.sum() - 0.15) < 0.02
    gone = latent.DimensionCutoff(0.2)(inputs, words, generator()) == 0
    assert torch.equal(gone.all(1), gone.any(1)), "a dimension is gone in all tokens or in none"
    assert abs(float(gone.float().mean()) - 0.2) < 0.02
    gone = (latent.SpanCutoff(0.4)(inputs, words, generator()) == 0).all(2)
    assert gone.sum(1).eq(4).all()
    assert (gone.int().diff(dim=1) == 1).sum(1).eq(1).all()


def test_noise_is_as_long_as_it_says() -> None:
    ids = batch((12,) * 50)
    words, inputs = is_word(ids, SPECIAL), 3 * torch.randn(50, 16, 400, generator=generator())
    step = (latent.GaussianNoise(0.1)(inputs, words, generator()) - inputs)[words].norm(dim=1)
    share = step / inputs[words].norm(dim=1)
    assert abs(float(share.mean()) - 0.1) < 0.002


def test_a_mixed_text_is_mostly_its_own_and_partly_another() -> None:
    ids = batch((12, 5, 12))
    words = is_word(ids, SPECIAL)
    inputs = torch.randn(3, 16, 8, generator=generator(), dtype=torch.float64)
    for seed in range(30):
        seen = latent.HiddenMixup(0.5)(inputs, words, generator(seed))
        for row in range(3):
            found = None
            for other in range(3):
                both = words[row] & words[other]
                if other == row:
                    continue
                direction = (inputs[other] - inputs[row])[both].flatten()
                share = float((seen[row] - inputs[row])[both].flatten() @ direction / (direction @ direction))
                again = torch.where(both[:, None], torch.lerp(inputs[row], inputs[other], share), inputs[row])
                if torch.allclose(again, seen[row]):
                    found = share
            assert found is not None, "not on the way to any other"
            assert -1e-9 <= found <= 0.5
    assert torch.equal(latent.HiddenMixup()(inputs[:1], words[:1]), inputs[:1])


def test_the_step_raises_the_loss_most() -> None:
    model, ids = encoder(), batch((12, 7))
    words = is_word(ids, SPECIAL)
    target = torch.randn(2, 16, generator=generator(5))

    def loss(inputs: Tensor) -> Tensor:
        return (model.pool(model.states(ids, inputs=inputs)) * target).sum()

    inputs = model.embed(ids)
    before = loss(inputs)
    moved = latent.Adversarial(0.1)(before, inputs, words)
    step = (moved - inputs).detach()
    torch.testing.assert_close(step.flatten(1).norm(dim=1), torch.tensor([0.1, 0.1]))
    assert (step[~words] == 0).all()
    raised = float((loss(moved) - before).detach())
    for seed in range(20):
        other = torch.randn(step.shape, generator=generator(seed)) * words[:, :, None]
        other = 0.1 * other / other.flatten(1).norm(dim=1)[:, None, None]
        assert float((loss(inputs + other) - before).detach()) < raised
    torch.testing.assert_close(torch.autograd.grad(loss(moved), inputs, retain_graph=True)[0].shape, inputs.shape)
    nothing = latent.perturbation(torch.zeros_like(inputs), words, 1.0)
    assert (nothing == 0).all()


def test_dropout_at_a_rate_of_its_own() -> None:
    model = encoder().train()
    model.dropout = 0.1
    ids = batch((12,))
    with latent.EncoderDropout(0.9)(model):
        assert model.dropout == 0.9
        zero = (model.embed(ids) == 0).float().mean()
    assert model.dropout == 0.1
    assert zero > 0.8
    with pytest.raises(UsageError):
        latent.EncoderDropout(1.0)


def test_half_precision(tmp_path: Path) -> None:
    ids = batch((12, 7))
    words, inputs = is_word(ids, SPECIAL), torch.randn(2, 16, 8, generator=generator()).bfloat16()
    for view in LATENT:
        assert view(inputs, words, generator()).dtype == torch.bfloat16
