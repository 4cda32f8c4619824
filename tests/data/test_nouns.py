from __future__ import annotations

import pytest
import torch

from nearfar.data.nouns import NounVocabulary, base_forms, listed, wordnet_nouns, words
from nearfar.data.synthetic.captions import CONCEPTS, FILLERS, PLURALS, CaptionedImages, bags_of_words
from nearfar.errors import DataError, UsageError


def test_words_without_markup_addresses_and_possessives() -> None:
    assert words("A <b>Dog's</b> life, see https://example.org/dogs?x=1 or the ice-cream #4!") == [
        *("a", "dog", "life", "see", "or", "the", "ice-cream"),
    ]
    assert words("naïve Café") == ["naïve", "café"]


@pytest.mark.parametrize(
    ("plural", "single"),
    [
        *[("dogs", "dog"), ("buses", "bus"), ("boxes", "box"), ("benches", "bench"), ("dishes", "dish")],
        *[("wolves", "wolf"), ("knives", "knife"), ("cities", "city"), ("potatoes", "potato"), ("firemen", "fireman")],
        *[("children", "child"), ("mice", "mouse"), ("people", "person"), ("feet", "foot"), ("quizzes", "quizz")],
        *[("waltzes", "waltz"), ("axes", "axis"), ("axes", "axe")],
    ],
)
def test_base_forms(plural: str, single: str) -> None:
    assert single in base_forms(plural)
    assert base_forms(single)[0] == single


def test_a_word_that_is_known_as_it_is_stays() -> None:
    vocabulary = NounVocabulary(["glasses", "glass"], listed(["glasses", "glass"]))
    assert vocabulary.tags(["two glasses", "a glass"]) == [[0], [1]]
    assert "gla" not in base_forms("glass")
    assert "gras" not in base_forms("grass")


def test_mining_counts_captions_and_orders_by_them() -> None:
    captions = ["dogs and dogs and a cat", "A dog!", "cats", "one dog, three wolves", "nothing at all"]
    mined = NounVocabulary.mine(captions, listed(["cat", "dog", "wolf", "nothing-else"]), at_least=1)
    assert mined.keys == ("dog", "cat", "wolf")
    assert mined.counts == (3, 2, 1)
    assert mined.tags(captions) == [[0, 1], [0], [1], [0, 2], []]
    assert mined.multi_hot(captions).long().tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert NounVocabulary.mine(captions, mined.synset, at_least=2).keys == ("dog", "cat")
    assert NounVocabulary.mine(captions, mined.synset, at_least=1, most=1).keys == ("dog",)
    with pytest.raises(DataError, match="mentioned by 3"):
        NounVocabulary.mine(captions, mined.synset)
    with pytest.raises(UsageError, match="once: cat"):
        NounVocabulary(["cat", "dog", "cat"], mined.synset)


def test_rows_of_another_label_set() -> None:
    vocabulary = NounVocabulary(["dog", "bear", "polar_bear"], listed(["dog", "bear", "polar_bear", "unicorn"]))
    assert vocabulary.rows(["Dogs", "polar bear", "brown bear", "unicorn", "", "xyz"]) == [0, 2, 1, None, None, None]


class _Sense:
    def __init__(self, name: str, offset: int) -> None:
        self._name, self._offset = name, offset

    def name(self) -> str:
        return self._name

    def offset(self) -> int:
        return self._offset


class _Reader:
    """WordNet of three words."""

    def synsets(self, lemma: str, pos: str) -> list[_Sense]:
        assert pos == "n"
        car, dog = _Sense("car.n.01", 2958343), _Sense("dog.n.01", 2084071)
        return {"car": [car], "auto": [car], "dog": [dog, car]}.get(lemma, [])


def test_the_first_sense_counts_where_it_is_named_after_the_word() -> None:
    vocabulary = NounVocabulary.mine(["cars", "auto", "dogs dog"], wordnet_nouns(_Reader()), at_least=1)
    assert vocabulary.keys == ("n02084071", "n02958343")
    assert vocabulary.tags(["an auto", "a car"]) == [[], [1]]


def test_captions_name_what_the_images_show() -> None:
    world = CaptionedImages(300, seed=2)
    assert sorted(world.shown.sum(1).unique().tolist()) == [1, 2, 3, 4]
    vocabulary = NounVocabulary.mine(world.captions, listed(world.nouns), at_least=1)
    place = [world.nouns.index(key) for key in vocabulary.keys]
    assert torch.equal(vocabulary.multi_hot(world.captions), world.shown[:, place].bool())
    noise = world.images - world.shown @ world.vectors
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)
    one = CaptionedImages(5, noise=0.0).image_of_one(torch.tensor([3, 0, 3]))
    torch.testing.assert_close(one, CaptionedImages(5, noise=0.0).vectors[[3, 0, 3]])
    assert not set(CONCEPTS) & set(FILLERS)
    assert set(PLURALS) <= set(CONCEPTS)
    assert torch.equal(CaptionedImages(300, seed=2).images, world.images)
    with pytest.raises(UsageError, match="concepts"):
        CaptionedImages(3, concepts=41)


def test_bags_of_words() -> None:
    table, spelled = bags_of_words(["b a b", "c"])
    assert spelled == ["a", "b", "c"]
    assert table.tolist() == [[1, 2, 0], [0, 0, 1]]
