"""The slot grammar: what a sentence says, how alike two are, and what each draw depends on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.data.synthetic import SlotGrammar
from nearfar.errors import UsageError


def drawing(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def said(grammar: SlotGrammar, ids: Tensor) -> Tensor:
    """The concepts ``[n, slots]`` that sentences say, by a plain loop."""
    rows = []
    for row in ids.tolist():
        found = {int(grammar.slot[i]): int(grammar.concept[i]) for i in row if grammar.slot[i] >= 0}
        rows.append([found[slot] for slot in range(grammar.slots)])
    return torch.tensor(rows)


def test_a_sentence_holds_its_concepts_once_and_its_function_words_and_nothing_else() -> None:
    grammar = SlotGrammar(seed=1)
    concepts = grammar.draw(500, generator=drawing())
    ids = grammar.sentences(concepts, generator=drawing(6))
    assert ids.shape == (500, 16)
    assert ids.dtype == torch.int64
    assert torch.equal(said(grammar, ids), concepts)
    assert bool(((grammar.slot[ids] >= 0).sum(1) == 4).all())
    count = (ids >= grammar.first_function_word).sum(1)
    assert set(count.tolist()) == set(range(2, 11))
    # padding is on the right and nowhere else
    real = ids != 0
    assert torch.equal(real.sum(1), 4 + count)
    assert not bool((real[:, 1:] & ~real[:, :-1]).any())
    assert bool((ids[real] >= 5).all())


def test_function_words_follow_zipfs_law_and_all_synonyms_are_used_alike() -> None:
    grammar = SlotGrammar(seed=1)
    ids = grammar.sentences(grammar.draw(20_000, generator=drawing()), generator=drawing(6))
    counts = torch.bincount(ids.flatten(), minlength=grammar.vocabulary).double()
    filler = counts[grammar.first_function_word :]
    expected = 1 / torch.arange(1, 31).double()
    torch.testing.assert_close(filler / filler.sum(), expected / expected.sum(), atol=0.01, rtol=0)
    words = counts[5 : grammar.first_function_word]
    torch.testing.assert_close(words / words.sum(), torch.full((144,), 1 / 144.0).double(), atol=0.001, rtol=0)
    # no place of a sentence is preferred by words of concepts
    first = (grammar.slot[ids[:, 0]] >= 0).double().mean()
    share = (4 / (ids != 0).sum(1)).double().mean()
    assert abs(float(first - share)) < 0.015


def test_ordered_sentences_say_their_slots_in_order() -> None:
    grammar = SlotGrammar(slots=6, seed=1)
    ids = grammar.sentences(grammar.draw(300, generator=drawing()), generator=drawing(6), ordered=True)
    slots = grammar.slot[ids]
    assert torch.equal(slots[slots >= 0].view(300, 6), torch.arange(6).expand(300, 6))
    # function words stand between them anywhere
    assert bool((slots[:, 0] < 0).any())
    assert bool((slots[:, 0] >= 0).any())


def test_a_first_token_and_other_lengths() -> None:
    grammar = SlotGrammar(seed=1)
    concepts = grammar.draw(50, generator=drawing())
    ids = grammar.sentences(concepts, generator=drawing(6), first=True, length=15)
    assert grammar.special.first == 1
    assert bool((ids[:, 0] == 1).all())
    assert torch.equal(ids[:, 1:], grammar.sentences(concepts, generator=drawing(6), length=14))
    alone = grammar.sentences(concepts, generator=drawing(6), function=(0, 0), length=4)
    assert torch.equal(said(grammar, alone), concepts)
    assert grammar.sentences(concepts[:0], generator=drawing()).shape == (0, 16)


def test_an_edit_changes_one_slot() -> None:
    grammar = SlotGrammar(concepts=3, seed=1)
    concepts = grammar.draw(3000, generator=drawing())
    edited = grammar.edited(concepts, generator=drawing(6))
    changed = concepts != edited
    assert bool((changed.sum(1) == 1).all())
    assert int(edited.min()) == 0
    assert int(edited.max()) == 2
    # every slot, and each of the other two concepts, about equally often
    assert bool((changed.sum(0) > 650).all())
    turn = ((edited - concepts) % 3)[changed]
    assert abs(float((turn == 1).double().mean()) - 0.5) < 0.05


def test_pairs_say_the_same_in_as_many_slots_as_they_tell() -> None:
    grammar = SlotGrammar(seed=1)
    one, other, overlap = grammar.pairs(2000, generator=drawing())
    assert torch.equal((said(grammar, one) == said(grammar, other)).sum(1), overlap)
    assert bool((torch.bincount(overlap, minlength=5) > 300).all())
    # sentences that say the same are not the same sentence
    assert not bool((one == other).all(1).any())


def test_synonyms_replace_words_of_concepts_and_nothing_else() -> None:
    grammar = SlotGrammar(seed=1)
    ids = grammar.sentences(grammar.draw(2000, generator=drawing()), generator=drawing(6), first=True)
    other = grammar.synonyms_of(ids, generator=drawing(7))
    means = grammar.slot[ids] >= 0
    assert torch.equal(grammar.concept[ids], grammar.concept[other])
    assert torch.equal(grammar.slot[ids], grammar.slot[other])
    assert bool((ids[means] != other[means]).all())
    assert torch.equal(ids[~means], other[~means])
    # each of the two other synonyms about equally often
    assert abs(float(((other - ids)[means] % 3 == 1).double().mean()) - 0.5) < 0.03


def test_vectors_have_the_lengths_that_were_asked_for() -> None:
    grammar = SlotGrammar(common=3.0, synonym_noise=0.5, function_scale=2.0, dimension=4096, seed=1)
    vectors = grammar.vectors
    words = vectors[5 : grammar.first_function_word]
    synonyms = words.view(48, 3, -1)
    assert not bool(vectors[0].any())
    assert bool((vectors[1:5].norm(dim=1) < 0.2).all())
    assert float(words.mean(0).norm()) == pytest.approx(3.0, rel=0.05)
    apart = (synonyms[:, 0] - synonyms[:, 1]).norm(dim=1)
    torch.testing.assert_close(apart, torch.full_like(apart, 0.5 * 2**0.5), rtol=0.1, atol=0)
    filler = vectors[grammar.first_function_word :]
    torch.testing.assert_close((filler - filler.mean(0)).norm(dim=1).mean(), torch.tensor(2.0), rtol=0.05, atol=0)


def test_the_seed_decides_the_words_and_the_generator_everything_drawn() -> None:
    grammar, same, another = SlotGrammar(seed=1), SlotGrammar(seed=1), SlotGrammar(seed=2)
    assert torch.equal(grammar.vectors, same.vectors)
    assert not torch.equal(grammar.vectors, another.vectors)
    for draw in (
        lambda world, g: world.draw(20, generator=g),
        lambda world, g: world.sentences(torch.zeros(20, 4, dtype=torch.int64), generator=g),
        lambda world, g: world.edited(torch.zeros(20, 4, dtype=torch.int64), generator=g),
        lambda world, g: torch.stack(world.pairs(20, generator=g)[:2]),
        lambda world, g: world.synonyms_of(torch.arange(5, 25)[None], generator=g),
    ):
        assert torch.equal(draw(grammar, drawing(3)), draw(another, drawing(3)))
        assert not torch.equal(draw(grammar, drawing(3)), draw(grammar, drawing(4)))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    grammar = SlotGrammar(seed=1)
    grammar.pairs(5, generator=drawing())
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_a_grammar_refuses() -> None:
    grammar = SlotGrammar()
    with pytest.raises(UsageError, match="at least 1"):
        SlotGrammar(slots=0)
    with pytest.raises(UsageError, match="lengths"):
        SlotGrammar(common=-1)
    with pytest.raises(UsageError, match="15 tokens"):
        grammar.sentences(grammar.draw(2, generator=drawing()), generator=drawing(), length=14, first=True)
    with pytest.raises(UsageError, match="no other one"):
        SlotGrammar(concepts=1).edited(torch.zeros(2, 4, dtype=torch.int64), generator=drawing())
    with pytest.raises(UsageError, match="no synonyms"):
        SlotGrammar(synonyms=1).synonyms_of(torch.tensor([[5]]), generator=drawing())
