"""Views of strings, word by word: exact counts, what stays, what is never touched."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch

from nearfar.errors import DataError, UsageError
from nearfar.views import text
from nearfar.views.text.base import Each, core, counted, in_place_of, seed_of
from nearfar.views.text.characters import Punctuation
from nearfar.views.text.opposites import AntonymReplacement
from nearfar.views.text.words import (
    Crop,
    RandomDeletion,
    RandomInsertion,
    RandomSwap,
    Repetition,
    StopWordRemoval,
    SynonymReplacement,
    TfIdfReplacement,
)

WORDS = [f"word{number}" for number in range(23)]
TEXT = " ".join(WORDS)
THESAURUS = {word: [f"{word}a", f"{word}b"] for word in WORDS[:9]}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(view: text.TextView, said: str = TEXT, times: int = 50) -> list[list[str]]:
    return [each.split() for each in view([said] * times, generator())]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5])
def test_as_many_words_are_replaced_as_the_share_says(share: float) -> None:
    for words in changed(SynonymReplacement(THESAURUS, share)):
        differ = [(old, new) for old, new in zip(WORDS, words, strict=True) if old != new]
        assert len(differ) == min(math.ceil(share * 23 - 1e-9), 9)  # nine have synonyms
        assert all(new in THESAURUS[old] for old, new in differ)


def test_stop_words_are_not_replaced_and_marks_and_capitals_stay() -> None:
    view = SynonymReplacement({"the": ["a"], "fox": ["dog"], "nato": ["eu"]}, 1.0)
    assert view(['The ("Fox"), NATO!'], generator()) == ['The ("Dog"), EU!']


def test_insertions_are_counted_and_the_rest_stays_in_order() -> None:
    for words in changed(RandomInsertion(THESAURUS, 0.2)):
        assert len(words) == 23 + 5
        assert [word for word in words if word in WORDS] == WORDS
        assert all(word[:-1] in THESAURUS for word in words if word not in WORDS)
    assert RandomInsertion({"none": ["other"]})([TEXT]) == [TEXT]


def test_swaps_keep_all_words() -> None:
    seen = changed(RandomSwap(0.04))  # one exchange
    assert all(Counter(words) == Counter(WORDS) for words in seen)
    assert {sum(a != b for a, b in zip(words, WORDS, strict=True)) for words in seen} == {2}
    assert len({tuple(words) for words in seen}) > 30


def test_deletion_leaves_the_order_at_least_a_word_and_as_many_as_the_rate_says() -> None:
    seen = changed(RandomDeletion(0.3), times=2000)
    mean = sum(map(len, seen)) / 2000 / 23
    assert abs(mean - 0.7) < 4 * math.sqrt(0.3 * 0.7 / (2000 * 23))
    for words in seen[:50]:
        assert words == [word for word in WORDS if word in words]
    assert all(len(words) == 1 for words in changed(RandomDeletion(1.0)))


def test_stop_words_go_and_not_stays() -> None:
    view = StopWordRemoval()
    assert view(["It is not the one, you know.", "the of and", "No one never said nor did without"]) == [
        "not one, know.",
        "the of and",
        "No one never said nor without",
    ]
    for word in ("not", "no", "never", "nor", "without", "none", "cannot"):
        assert word not in text.STOP_WORDS


def test_repetition_says_words_twice_and_nothing_else() -> None:
    most = 7  # floor(0.32 * 23)
    counts = set()
    for words in changed(Repetition(), times=300):
        once = [word for place, word in enumerate(words) if place == 0 or words[place - 1] != word]
        assert once == WORDS
        assert max(Counter(words).values()) <= 2
        counts.add(len(words) - 23)
    assert counts == set(range(most + 1))
    assert {len(words) for words in changed(Repetition(), "one")} == {1, 2}


@pytest.mark.parametrize(("share", "length"), [(0.9, 20), (0.5, 11), (0.0, 1), (1.0, 23)])
def test_a_crop_is_a_run_of_words(share: float, length: int) -> None:
    starts = set()
    for words in changed(Crop(share), times=300):
        assert len(words) == length
        start = WORDS.index(words[0])
        starts.add(start)
        assert words == WORDS[start : start + length]
    assert starts == set(range(23 - length + 1))


def test_marks_are_put_before_words_and_no_word_goes() -> None:
    counts = set()
    for words in changed(Punctuation(), times=300):
        assert [word for word in words if word in WORDS] == WORDS
        marks = [word for word in words if word not in WORDS]
        assert set(marks) <= set(".;?:!,")
        counts.add(len(marks))
    assert counts == set(range(1, 8))


def test_words_that_say_most_are_not_replaced_and_what_comes_says_little() -> None:
    corpus = [f"the of and rare{number} rare{number}" for number in range(50)]
    view = TfIdfReplacement.of_corpus(corpus, rate=0.4)
    replaced = total = 0
    for seen in view(["the of and rare7"] * 2000, generator()):
        words = seen.split()
        assert words[3] == "rare7"
        assert set(words[:3]) <= {"the", "of", "and", *(f"rare{n}" for n in range(50))}
        replaced += sum(a != b for a, b in zip(words, ("the", "of", "and", "rare7"), strict=True))
        total += sum(word.startswith("rare") for word in words[:3])
    assert total == 0  # all others have the largest score of the corpus
    # of four words 0.4 are drawn on average, and a third of what is drawn is the word itself
    expected = 0.4 * 4 * 2 / 3
    assert abs(replaced / 2000 - expected) < 0.1
    alike = TfIdfReplacement.of_corpus(["a b c"] * 3, rate=1.0)
    assert alike(["a b c"]) == ["a b c"]
    with pytest.raises(DataError, match="no words"):
        TfIdfReplacement.of_corpus([])


def test_antonyms_of_a_mapping() -> None:
    view = AntonymReplacement({"hot": ["cold"], "big": ["small"]}, 0.5)
    assert view(["A hot big day", "nothing here"], generator()) == ["A cold small day", "nothing here"]


every = pytest.mark.parametrize(
    "view",
    [
        SynonymReplacement(THESAURUS, 0.3),
        RandomInsertion(THESAURUS, 0.3),
        RandomSwap(0.3),
        RandomDeletion(0.3),
        Repetition(),
        Crop(0.5),
        Punctuation(),
        TfIdfReplacement.of_corpus([" ".join(WORDS[:n]) for n in range(1, 24)], rate=0.9),
    ],
    ids=lambda view: type(view).__name__,
)


@every
def test_the_generator_decides_everything(view: text.TextView) -> None:
    texts = [TEXT] * 20
    first = view(texts, generator(3))
    assert first == view(texts, generator(3))
    assert first != view(texts, generator(4))
    assert len(set(first)) > 5, "the texts of a batch are changed alike"
    drawn = generator(3)
    assert view(texts, drawn) != view(texts, drawn), "two views are the same"


@every
def test_what_happens_to_a_text_depends_on_its_number_alone(view: text.TextView) -> None:
    alone = view.by_seeds([TEXT], [17])
    assert view.by_seeds(["other words", TEXT, ""], [3, 17, 5])[1] == alone[0]


@every
def test_no_text_and_one_word_and_blanks(view: text.TextView) -> None:
    assert view([]) == []
    assert view(["", "  "], generator()) == ["", "  "]
    assert all(each.strip() for each in view(["one"] * 30, generator()))


@every
def test_p_is_the_share_of_texts_that_are_changed(view: text.TextView) -> None:
    view.p, texts = 0.5, [f"{TEXT}  x"] * 400  # two blanks, which only an unchanged text keeps
    try:
        kept = sum(each == texts[0] for each in view(texts, generator()))
    finally:
        view.p = 1.0
    assert 150 < kept < 280


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), "much", True])
def test_wrong_shares_are_refused(bad: object) -> None:
    for make in (RandomSwap, RandomDeletion, Crop, Repetition):
        with pytest.raises(UsageError):
            make(bad)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="p must lie"):
            make(p=bad)  # type: ignore[arg-type]


def test_texts_are_lists_of_strings() -> None:
    with pytest.raises(DataError, match="list of texts"):
        RandomSwap()("one text")
    with pytest.raises(DataError, match="list of texts"):
        RandomSwap()([1, 2])  # type: ignore[list-item]


def test_views_one_after_the_other() -> None:
    chain = text.Chain(RandomDeletion(0.3), Punctuation())
    seen = chain([TEXT] * 5, generator())
    assert seen == chain([TEXT] * 5, generator())
    assert all(any(mark in each.split() for mark in ".;?:!,") and len(each.split()) < 31 for each in seen)
    assert text.Chain()([TEXT]) == [TEXT]
    assert Each(str.upper)(["ab", ""]) == ["AB", ""]
    assert text.Identity()(["a  b"]) == ["a  b"]


def test_small_parts() -> None:
    assert core("(\"Well,'") == ('("', "Well", ",'")
    assert core("...") == ("...", "", "")
    assert in_place_of("I,", "you") == "You,"
    assert [counted(0.1, n) for n in (0, 1, 10, 11, 20)] == [0, 1, 1, 2, 2]
    assert seed_of(1, 2, 3) == seed_of(1, 2, 3) != seed_of(1, 23)
    assert len({seed_of(0, epoch, row) for epoch in range(20) for row in range(200)}) == 4000


def test_a_thesaurus_of_a_file(tmp_path: Path) -> None:
    place = tmp_path / "synonyms.txt"
    place.write_text("# groups\nbig, large, huge\n\nquick: fast, swift\n", encoding="utf-8")
    found = text.Thesaurus.read(place)
    assert found("Large") == ("big", "huge")
    assert found("quick") == ("fast", "swift")
    assert found("fast") == ()
    assert len(found) == 4
    (tmp_path / "t.json").write_text('{"Hot": ["warm", "hot"]}', encoding="utf-8")
    assert text.Thesaurus.of(str(tmp_path / "t.json"))("hot") == ("warm",)
    for content, said in (("quick: , x", "line 1"), ("alone", "line 1"), ("", "holds no word")):
        place.write_text(content, encoding="utf-8")
        with pytest.raises(DataError) as caught:
            text.Thesaurus.read(place)
        assert said in f"{caught.value.message} {caught.value.where}"
    with pytest.raises(DataError, match="cannot be read"):
        text.Thesaurus.read(tmp_path / "none.txt")
    with pytest.raises(DataError, match="list of words"):
        text.Thesaurus({"a": "b"})  # type: ignore[dict-item]


DATA = """  1 This is the licence
00001740 03 n 02 car 0 motor_car 1 001 @ 00002000 n 0000 | a machine; "x | y"
00002000 03 n 01 vehicle 0 000 | that carries
"""
ADJECTIVES = """00000100 00 a 01 hot 0 001 ! 00000200 a 0101 | of high temperature
00000200 00 a 02 cold(p) 0 chilly 0 002 ! 00000100 a 0101 & 00000100 a 0000 | of low temperature
"""


def test_wordnet_s_files(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(DATA, encoding="utf-8")
    (tmp_path / "data.adj").write_text(ADJECTIVES, encoding="utf-8")
    synonyms = text.Thesaurus.read(tmp_path)
    assert synonyms("car") == ("motor car",)
    assert synonyms("cold") == ("chilly",)
    assert synonyms("vehicle") == ()
    antonyms = text.Thesaurus.read(tmp_path, relation="antonyms")
    assert antonyms.entries == {"hot": ("cold",), "cold": ("hot",)}
    assert AntonymReplacement(str(tmp_path), 1.0)(["so hot"]) == ["so cold"]
    (tmp_path / "data.adj").write_text("no line of it\n", encoding="utf-8")
    with pytest.raises(DataError, match="no line of WordNet"):
        text.Thesaurus.read(tmp_path)
    with pytest.raises(DataError, match="no files of WordNet"):
        text.Thesaurus.read(Path(__file__).parent)


def test_neighbours_are_those_of_the_largest_cosine() -> None:
    vectors = torch.randn(40, 8, generator=generator())
    words = [f"v{number}" for number in range(40)]
    found = text.Thesaurus.neighbours(words, vectors, count=3)
    cosine = torch.cosine_similarity(vectors[:, None], vectors[None], dim=2).fill_diagonal_(-2)
    for place, word in enumerate(words):
        best = cosine[place].argsort(descending=True)[:3].tolist()
        assert found(word) == tuple(words[other] for other in best if cosine[place, other] > 0)
    with pytest.raises(UsageError, match="vectors must be"):
        text.Thesaurus.neighbours(words, vectors[:3])


def test_random_numbers_are_those_of_python() -> None:
    """The numbers of a text are drawn by Python's generator, whose draws from a number are the same everywhere."""
    drawn = Random(1)
    kept = [word for word in WORDS if drawn.random() >= 0.5]
    assert RandomDeletion(0.5).change(TEXT, Random(1)).split() == kept
