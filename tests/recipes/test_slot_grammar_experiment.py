"""The experiment that recipes on sentences share: what depends on the seed alone, and what is measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nearfar.data.synthetic import SlotGrammar
from nearfar.diagnostics import uniformity
from nearfar.recipes import slot_grammar

GRAMMAR = SlotGrammar(seed=3)


def corpus(seed: int, count: int = 200) -> Tensor:
    drawn = slot_grammar.stream(seed)
    return GRAMMAR.sentences(GRAMMAR.draw(count, generator=drawn), generator=drawn, length=14)


class Oracle(nn.Module):
    """Knows what a sentence says: one-hot vectors of its concepts."""

    def forward(self, ids: Tensor) -> Tensor:
        said = torch.zeros(len(ids), GRAMMAR.slots * GRAMMAR.concepts + 1)
        number = torch.where(GRAMMAR.slot >= 0, GRAMMAR.slot * GRAMMAR.concepts + GRAMMAR.concept, said.shape[1] - 1)
        return said.scatter_(1, number[ids], 1.0)[:, :-1]


class Blind(nn.Module):
    """Random vectors, whatever the sentence."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.randn(len(ids), 8, generator=torch.Generator().manual_seed(int(ids.sum())))


def test_spearman_is_that_of_cosine_and_truth() -> None:
    # the cosine of one-hot vectors is the share of slots that are alike
    assert slot_grammar.spearman(Oracle(), GRAMMAR, seed=0) == pytest.approx(1.0)
    assert abs(slot_grammar.spearman(Blind(), GRAMMAR, seed=0)) < 0.08
    begun = slot_grammar.start(GRAMMAR, seed=0)
    assert 0.2 < slot_grammar.spearman(begun, GRAMMAR, seed=0) < 0.4
    assert slot_grammar.spearman(begun, GRAMMAR, seed=0) != slot_grammar.spearman(begun, GRAMMAR, seed=1)


def test_uniformity_is_that_of_fresh_sentences() -> None:
    begun = slot_grammar.start(GRAMMAR, seed=0)
    found = slot_grammar.uniformity_of(begun, GRAMMAR, seed=0, items=300)
    other = GRAMMAR.sentences(GRAMMAR.draw(300, generator=slot_grammar.stream(9)), generator=slot_grammar.stream(8))
    with torch.no_grad():
        assert found == pytest.approx(uniformity(begun(other)), abs=0.1)


def test_the_start_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    one = slot_grammar.start(GRAMMAR, seed=4)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after), "the global generator was disturbed"
    torch.manual_seed(2)
    other = slot_grammar.start(GRAMMAR, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert torch.equal(one.table, GRAMMAR.vectors)
    assert not one.training
    assert not torch.equal(one.layers[0].up.weight, slot_grammar.start(GRAMMAR, seed=5).layers[0].up.weight)
    # without dropout the same weights
    still = slot_grammar.start(GRAMMAR, seed=4, dropout=0.0)
    assert torch.equal(one.layers[0].up.weight, still.layers[0].up.weight)


def test_batches_depend_on_the_seed_alone_and_streams_do_not_repeat_each_other() -> None:
    def batches(draws: int, seed: int = 4) -> list[Tensor]:
        seen: list[Tensor] = []
        part = nn.Linear(2, 1)

        def loss(index: Tensor) -> Tensor:
            seen.append(index)
            torch.rand(draws)
            cost: Tensor = part.weight.sum()
            return cost

        slot_grammar.train(loss, [part], items=50, seed=seed, steps=4, batch_size=8)
        return seen

    one, other = batches(0), batches(100)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], batches(0, seed=5)[0])
    assert all(len(set(each.tolist())) == 8 for each in one)
    heads = slot_grammar.pooler(64, seed=4).dense.weight
    drawn = torch.rand(64 * 64, generator=slot_grammar.stream(4))
    assert abs(float(torch.corrcoef(torch.stack([heads.detach().flatten(), drawn]))[0, 1])) < 0.05


def test_simcse_is_decided_by_its_seed_and_takes_views_of_ones_own() -> None:
    ids = corpus(0)
    made = [slot_grammar.simcse(slot_grammar.start(GRAMMAR, seed=0), ids, seed=0, steps=3) for _ in range(2)]
    assert torch.equal(made[0].table, made[1].table)
    assert not made[0].training
    other = slot_grammar.simcse(slot_grammar.start(GRAMMAR, seed=0), ids, seed=1, steps=3)
    assert not torch.equal(made[0].table, other.table)
    called = []

    def views(encoder: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        called.append(rows.shape)
        return slot_grammar.twice(encoder, rows)

    again = slot_grammar.simcse(slot_grammar.start(GRAMMAR, seed=0), ids, seed=0, views=views, steps=3)
    assert torch.equal(again.table, made[0].table)
    assert called == [(64, 14)] * 3


def test_two_views_of_a_sentence_differ_by_dropout_only() -> None:
    ids = corpus(0, 20)
    encoder = slot_grammar.start(GRAMMAR, seed=0)
    torch.testing.assert_close(*slot_grammar.twice(encoder, ids))
    first, second = slot_grammar.twice(encoder.train(), ids)
    assert first.shape == second.shape == (20, 64)
    assert not torch.equal(first, second)
    assert float(torch.cosine_similarity(first, second).detach().min()) > 0.5


def test_what_the_world_is_in_words() -> None:
    assert "one pre-norm transformer layer" in slot_grammar.text()
    assert "3 pre-norm transformer layers" in slot_grammar.text(layers=3)
    assert "transformer" not in slot_grammar.text(layers=0)
    assert "AdamW at 0.003, 150 steps of 128" in slot_grammar.text(steps=150, batch_size=128, learning_rate=3e-3)
