"""Sentences edited by a generator, and the discriminator that finds what was replaced."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.encoders.discriminator import Edited, ReplacedTokenDiscriminator, fill_in, replaced_token_loss
from nearfar.encoders.masked_language import mask_tokens
from nearfar.encoders.states import SpecialTokens
from nearfar.encoders.token_transformer import TokenTransformer
from nearfar.errors import UsageError

SPECIAL = SpecialTokens(padding=0, first=1, last=2, mask=3, all=frozenset(range(5)))
VOCABULARY = 30


def sentences(n: int = 40, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (n, width), generator=generator)
    lengths = torch.randint(3, width + 1, (n, 1), generator=generator)
    place = torch.arange(width)
    ids = torch.where(place == lengths - 1, 2, ids).masked_fill(place >= lengths, 0)
    ids[:, 0] = 1
    return ids


class Generator:
    """Logits that depend on the token it sees, and a memory of what it was given."""

    def __init__(self, seed: int = 0) -> None:
        self.table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(seed))

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.seen = (ids, mask)
        return self.table[ids].requires_grad_()


def drawn(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_likeliest_token_stands_everywhere() -> None:
    ids, generator = sentences(), Generator()
    edited = fill_in(ids, generator, SPECIAL, vocabulary=VOCABULARY, random=drawn())
    masked, chosen = mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, share=0.3, generator=drawn(), mask=ids != 0)
    assert torch.equal(generator.seen[0], masked)
    assert not edited.ids.requires_grad
    for row in range(len(ids)):
        for column in range(ids.shape[1]):
            now = int(edited.ids[row, column])
            if ids[row, column] == 0:
                assert now == 0
            elif column == 0:
                assert now == 1
            else:
                assert now == int(generator.table[masked[row, column]].argmax())
            replaced = bool(edited.replaced[row, column])
            assert replaced == (ids[row, column] != 0 and now != int(ids[row, column]))
    assert chosen.any()
    assert torch.equal(edited.mask, ids != 0)


def test_only_masked_tokens_are_filled_in_where_asked() -> None:
    ids, generator = sentences(), Generator()
    edited = fill_in(ids, generator, SPECIAL, vocabulary=VOCABULARY, places="masked", random=drawn())
    _, chosen = mask_tokens(ids, SPECIAL, vocabulary=VOCABULARY, share=0.3, generator=drawn(), mask=ids != 0)
    assert torch.equal(edited.ids[~chosen], ids[~chosen])
    assert not edited.replaced[~chosen].any()
    nothing = fill_in(ids, generator, SPECIAL, vocabulary=VOCABULARY, share=0.0, places="masked", fill="sample")
    assert torch.equal(nothing.ids, ids)


def test_samples_follow_the_generator_s_probabilities() -> None:
    ids = torch.full((6000, 1), 7)
    generator = Generator()
    generator.table[:, 10:] = -torch.inf
    edited = fill_in(
        ids, generator, SPECIAL, vocabulary=VOCABULARY, share=0.0, fill="sample", random=drawn()
    )  # nothing is masked: every token is drawn from the row of 7
    chances = generator.table[7].softmax(0)
    found = torch.bincount(edited.ids[:, 0], minlength=VOCABULARY) / 6000
    assert (found - chances).abs().max() < 5 * (0.25 / 6000) ** 0.5


def test_a_perfect_generator_replaces_nothing() -> None:
    ids = sentences()
    edited = fill_in(ids, lambda *_: F.one_hot(ids, VOCABULARY).float(), SPECIAL, vocabulary=VOCABULARY)
    assert torch.equal(edited.ids, ids)
    assert not edited.replaced.any()


def test_options_that_do_not_exist() -> None:
    ids = sentences(2)
    for wrong in ({"fill": "beam"}, {"places": "some"}):
        with pytest.raises(UsageError, match="must be one of"):
            fill_in(ids, Generator(), SPECIAL, vocabulary=VOCABULARY, **wrong)  # type: ignore[arg-type]
    edited = fill_in(ids, Generator(), SPECIAL, vocabulary=VOCABULARY)
    with pytest.raises(UsageError, match="over must be"):
        replaced_token_loss(torch.zeros(*ids.shape, 2), edited, over="words")  # type: ignore[arg-type]


def test_the_loss_over_positions_and_over_tokens() -> None:
    ids = sentences(8)
    edited = fill_in(ids, Generator(), SPECIAL, vocabulary=VOCABULARY, random=drawn())
    logits = torch.randn(*ids.shape, 2, generator=drawn(3), dtype=torch.float64)
    every, there = [], []
    for row in range(len(ids)):
        for column in range(ids.shape[1]):
            label = int(edited.replaced[row, column]) if ids[row, column] != 0 else 0
            cost = logits[row, column].logsumexp(0) - logits[row, column, label]
            every.append(cost)
            if ids[row, column] != 0:
                there.append(cost)
    torch.testing.assert_close(replaced_token_loss(logits, edited), torch.stack(every).mean())
    torch.testing.assert_close(replaced_token_loss(logits, edited, over="tokens"), torch.stack(there).mean())
    wider = Edited(*(F.pad(part, (0, 5)) for part in (edited.ids, edited.mask, edited.replaced)))
    padded = F.pad(logits, (0, 0, 0, 5))
    torch.testing.assert_close(
        replaced_token_loss(padded, wider, over="tokens"), replaced_token_loss(logits, edited, over="tokens")
    )
    assert float(replaced_token_loss(padded, wider)) != float(replaced_token_loss(logits, edited))
    empty = Edited(ids * 0, ids < 0, ids < 0)
    assert float(replaced_token_loss(logits, empty, over="tokens")) == 0


def test_the_condition_stands_in_the_first_place_and_takes_the_gradient() -> None:
    torch.manual_seed(0)
    encoder = TokenTransformer(VOCABULARY, 8, heads=2, special=SPECIAL).double().eval()
    discriminator = ReplacedTokenDiscriminator(encoder).double()
    ids = sentences(6)
    h = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    logits = discriminator(ids, h)
    assert logits.shape == (*ids.shape, 2)
    inputs = encoder.embed(ids).detach().clone()
    inputs[:, 0] = h.detach()
    wanted = discriminator.head(encoder.states(ids, inputs=inputs).hidden)
    torch.testing.assert_close(logits, wanted)
    other = ids.clone()
    other[:, 0] = 9  # what stood in the first place does not matter
    torch.testing.assert_close(discriminator(other, h, ids != 0), logits)
    edited = fill_in(ids, Generator(), SPECIAL, vocabulary=VOCABULARY)
    replaced_token_loss(logits, edited).backward()
    assert h.grad is not None
    assert (h.grad.norm(dim=1) > 0).all()
    assert encoder.table.grad is not None
    with pytest.raises(ValueError, match="one vector a sentence"):
        discriminator(ids, h[:3])


def test_a_condition_in_half_precision() -> None:
    discriminator = ReplacedTokenDiscriminator(TokenTransformer(VOCABULARY, 8, heads=2, special=SPECIAL))
    logits = discriminator(sentences(3), torch.randn(3, 8, dtype=torch.bfloat16))
    assert logits.dtype == torch.float32
    assert isinstance(discriminator.head, nn.Linear)
