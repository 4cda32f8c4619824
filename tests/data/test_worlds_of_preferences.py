"""Worlds of answers, pairs and lists to align with: what they say of rewards, labels and features is so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nearfar.data.synthetic.judged_lists import JudgedLists
from nearfar.data.synthetic.planted_lists import PlantedLists
from nearfar.data.synthetic.revisions import Revisions
from nearfar.data.synthetic.scored_answers import ScoredAnswers, offset_answers, three_arms
from nearfar.data.synthetic.topic_answers import TopicAnswers
from nearfar.data.synthetic.translations import Translations
from nearfar.errors import DataError, UsageError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_draws_are_of_the_samplers_and_carry_their_rewards() -> None:
    world = three_arms()
    draws = world.draw(20_000, generator=generator())
    assert len(draws) == 20_000
    assert draws.prompt.eq(0).all()
    for column, sampler in enumerate(world.samplers):
        share = torch.bincount(draws.answer[:, column], minlength=3) / 20_000
        torch.testing.assert_close(share.double(), sampler[0], atol=0.015, rtol=0)
    assert torch.equal(draws.reward, torch.tensor([2.5, 2.0, 1.0]).double()[draws.answer])
    # independent: the product of the shares is the share of both
    both = ((draws.answer[:, 0] == 2) & (draws.answer[:, 1] == 2)).double().mean()
    assert float(both) == pytest.approx(0.7 * 0.9, abs=0.015)
    again = world.draw(20_000, generator=generator())
    assert torch.equal(again.answer, draws.answer)


def test_offsets_are_of_prompts_and_reference_and_sampler_are_apart() -> None:
    world = offset_answers(2000, 6, seed=1)
    means = world.reward.mean(1)
    assert float(means.std()) == pytest.approx((9 + 1 / 6) ** 0.5, rel=0.05)
    assert float((world.reward - means[:, None]).std()) == pytest.approx((5 / 6) ** 0.5, rel=0.05)
    columns = torch.stack([world.reference.flatten(), world.samplers[0].log().flatten(), world.reward.flatten()])
    assert float(torch.corrcoef(columns).fill_diagonal_(0).abs().max()) < 0.05
    assert set(world.draw(500, generator=generator()).prompt.tolist()) <= set(range(2000))


@pytest.mark.parametrize(
    ("reward", "samplers", "reference"),
    [
        (torch.zeros(2, 3), torch.full((1, 2, 2), 0.5), None),
        (torch.zeros(3), torch.full((1, 1, 3), 1 / 3), None),
        (torch.zeros(1, 2), torch.tensor([[[1.0, 0.0]]]), None),
        (torch.zeros(1, 2), torch.tensor([[[0.5, 0.6]]]), None),
        (torch.tensor([[0.0, torch.nan]]), torch.full((1, 1, 2), 0.5), None),
        (torch.zeros(1, 2), torch.full((1, 1, 2), 0.5), torch.tensor([[0.0, torch.inf]])),
        (torch.zeros(1, 2), torch.full((1, 1, 2), 0.5), torch.zeros(2, 1)),
    ],
)
def test_what_is_no_world_of_scored_answers_is_refused(reward: Any, samplers: Any, reference: Any) -> None:
    with pytest.raises(UsageError):
        ScoredAnswers(reward, samplers, reference)


def test_a_revision_is_a_step_for_the_better_and_keeps_the_content() -> None:
    world = Revisions(5, seed=2)
    answer = torch.arange(28)
    revised = world.revised(answer)
    assert torch.equal(world.content[revised], world.content[answer])
    assert (world.level[revised] - world.level[answer]).abs().max() == 1
    changed = revised != answer
    assert torch.equal(~changed, world.level == world.peak)
    assert (world.quality[:, revised] > world.quality[:, answer])[:, changed].all()
    # the features of a pair differ in the manner alone
    difference = world.features[:, revised] - world.features[:, answer]
    assert difference[..., 1:].eq(0).all()
    assert torch.equal(difference[..., 0], (world.level[revised] - world.level[answer]).double().expand(5, -1))
    assert world.level[world.best].eq(world.peak).all()
    best = torch.softmax(world.writer(2.0), 1).argmax(1)
    assert world.level[best].eq(2).all()


def test_answers_in_words_are_told_apart_and_found_again() -> None:
    world = Revisions(2)
    texts = [world.text(answer) for answer in range(28)]
    assert len(set(texts)) == 28
    assert [world.number(text) for text in texts] == list(range(28))
    assert len(world.text(0).split()) == 6
    assert len(world.text(6).split()) == 12
    with pytest.raises(DataError, match="no answer"):
        world.number("point0a")


def test_other_systems_are_better_richer_in_style_and_paraphrase() -> None:
    world = Translations(3000, seed=1)
    own, other = ~world.external, world.external
    assert (int(own.sum()), int(other.sum())) == (10, 6)
    for values, lead in ((world.quality, 0.7), (world.style, 2.0), (world.overlap, -2.0), (world.base, -3.0)):
        assert float(values[:, other].mean() - values[:, own].mean()) == pytest.approx(lead, abs=0.05)
    assert torch.equal(world.liked, world.quality + world.style)
    assert torch.equal(world.lexical, world.overlap + world.quality / 2)
    assert float(world.quality[:, own].std()) == pytest.approx(1.0, abs=0.03)
    # quality is half made of the four features, in one direction of the world
    rows = world.features[:, own, :4].reshape(-1, 4)
    solved = torch.linalg.lstsq(rows, world.quality[:, own].reshape(-1, 1)).solution[:, 0]
    assert float(solved.norm()) == pytest.approx(0.5**0.5, abs=0.03)
    elsewhere = Translations(3000, seed=2)
    rows = elsewhere.features[:, own, :4].reshape(-1, 4)
    again = torch.linalg.lstsq(rows, elsewhere.quality[:, own].reshape(-1, 1)).solution[:, 0]
    torch.testing.assert_close(solved, again, atol=0.05, rtol=0)


def test_candidates_are_of_as_many_systems_as_are_asked_for_and_differ() -> None:
    world = Translations(50)
    source = torch.arange(50)
    for systems in (0, 2):
        found = world.candidates(source, systems, 3, generator=generator())
        assert found.shape == (50, 3)
        assert world.external[found].sum(1).eq(systems).all()
        assert all(len(set(row)) == 3 for row in found.tolist())


def test_the_worthiest_are_graded_and_what_is_told_of_low_ones_may_be_wrong() -> None:
    world = PlantedLists(2000, doubt=0.5, seed=3)
    for values in (world.grade, world.feedback):
        assert values.eq(2).sum(1).eq(2).all()
        assert values.eq(1).sum(1).eq(2).all()
    assert torch.equal(world.grade == 2, world.feedback == 2)
    wrong = ((world.grade == 1) & (world.feedback == 0)).double().sum(1) / 2
    assert float(wrong.mean()) == pytest.approx(0.5, abs=0.06)
    sure = PlantedLists(2000, doubt=0.0, seed=3)
    assert torch.equal(sure.grade, sure.feedback)
    assert torch.equal(sure.features, world.features), "doubt changes what is told, and nothing else"
    assert torch.equal(sure.grade, world.grade)
    assert torch.equal(sure.reference, world.reference)
    # the reference ranks better than chance, which is half a grade
    assert float(world.grade.gather(1, world.reference.argmax(1, keepdim=True)).mean()) > 0.7


def test_labels_are_shares_of_comparisons_won() -> None:
    world = JudgedLists(4000, seed=1)
    torch.testing.assert_close(world.label.sum(1), torch.full((4000,), 4.0).double())
    torch.testing.assert_close(world.grade.sum(1), torch.full((4000,), 4.0).double())
    assert float((world.label * 8 - 0.5).frac().abs().max()) < 1e-9, "a judge says yes or no"
    # each answer's label is its grade on average, of those with a high grade too
    high = world.grade > 0.7
    assert float((world.label - world.grade)[high].mean()) == pytest.approx(0.0, abs=0.01)
    both = torch.linalg.lstsq(world.features.reshape(-1, 10), world.reward.reshape(-1, 1)).solution[:, 0]
    assert float(both.norm()) == pytest.approx(1.0, abs=0.05), "a linear fit finds u and none of v"


def test_tastes_are_of_topics_and_opposed_ones_cancel() -> None:
    world = TopicAnswers(4000, opposed=True, fluency=0.0, seed=2)

    def taste(topic: int) -> torch.Tensor:
        of = world.topic == topic
        return torch.linalg.lstsq(world.traits[of].flatten(0, 1), world.quality[of].flatten()[:, None]).solution[:, 0]

    for topic in range(0, 8, 2):
        torch.testing.assert_close(taste(topic), -taste(topic + 1), atol=1e-9, rtol=0)
        assert float(taste(topic).norm()) == pytest.approx(1.5)
    fluent = TopicAnswers(4000, taste=0.0, seed=2)
    torch.testing.assert_close(fluent.quality, 0.75 * fluent.traits[..., -1])
    assert world.features.shape == (4000, 8, 17 * 6)
    torch.testing.assert_close(
        world.features[..., 6:].unflatten(2, (16, 6)),
        torch.einsum("pe,pat->paet", world.embedding, world.traits),
    )
    cosine = torch.cosine_similarity(world.embedding[:, None], world.embedding[None, :300], dim=2)
    alike = world.topic[:, None] == world.topic[None, :300]
    assert float(cosine[alike].mean()) > float(cosine[~alike].mean()) + 0.5


@pytest.mark.parametrize(
    "made",
    [
        lambda seed: Revisions(4, seed=seed).quality,
        lambda seed: Translations(4, seed=seed).quality,
        lambda seed: PlantedLists(4, seed=seed).features,
        lambda seed: JudgedLists(4, seed=seed).label,
        lambda seed: TopicAnswers(4, seed=seed).quality,
        lambda seed: offset_answers(4, seed=seed).reward,
    ],
)
def test_the_seed_decides(made: Any) -> None:
    assert made(0).dtype == torch.float64
    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))


@pytest.mark.parametrize(
    "made",
    [
        lambda: Revisions(contents=1),
        lambda: Revisions(peak=6),
        lambda: Translations(own=1),
        lambda: Translations(0),
        lambda: PlantedLists(items=4),
        lambda: PlantedLists(doubt=1.5),
        lambda: JudgedLists(answers=1),
        lambda: TopicAnswers(topics=3, opposed=True),
        lambda: TopicAnswers(topics=1),
    ],
)
def test_worlds_that_cannot_be_are_refused(made: Any) -> None:
    with pytest.raises(UsageError):
        made()
