from __future__ import annotations

from collections import Counter

import pytest

from nearfar.data.synthetic.everyday import OBJECTS, PARTS, PLACES, SUBJECTS, TIMES, VERBS, EverydaySentences, Meaning
from nearfar.errors import UsageError


def test_every_thing_can_be_changed_in_every_part() -> None:
    assert set().union(*(actions for _, actions in OBJECTS)) == set(VERBS)
    for names, actions in OBJECTS:
        assert len(actions) > 1, names
        for action in actions:  # another thing takes the same action
            assert sum(action in others for _, others in OBJECTS) > 1, (names, action)
    for groups in (SUBJECTS, PLACES, TIMES, [names for names, _ in OBJECTS], list(VERBS.values())):
        names = [name for group in groups for name in group]
        assert len(set(names)) == len(names)
        assert all(len(group) > 1 for group in groups)


def test_just_so_many_parts_change_and_what_is_done_is_possible() -> None:
    sentences = EverydaySentences(seed=3)
    seen = Counter()
    for count in range(len(PARTS) + 1):
        for _ in range(200):
            meaning = sentences.meaning()
            other = sentences.changed(meaning, count)
            differ = [part for part in PARTS if getattr(meaning, part) != getattr(other, part)]
            assert len(differ) == count
            assert meaning.agreement(other) == len(PARTS) - count
            assert other.action in OBJECTS[other.object][1]
            seen.update(differ if count == 1 else [])
    assert set(seen) == set(PARTS)
    assert max(seen.values()) < 2 * min(seen.values())


def test_denial_costs_one_point_and_never_more_than_there_is() -> None:
    one = Meaning(0, "buy", 0, 0, 0)
    assert one.agreement(one) == 5
    assert one.agreement(Meaning(0, "buy", 0, 0, 0, denied=True)) == 4
    assert one.agreement(Meaning(1, "read", 6, 1, 1, denied=True)) == 0
    denied = Meaning(0, "buy", 0, 0, 0, denied=True)
    assert denied.agreement(denied) == 5


def test_a_sentence_says_its_meaning_in_other_words_where_it_can() -> None:
    sentences = EverydaySentences(seed=5)
    for _ in range(300):
        meaning = sentences.meaning()
        text = sentences.sentence(meaning)
        groups = [SUBJECTS[meaning.subject], OBJECTS[meaning.object][0], PLACES[meaning.place], TIMES[meaning.time]]
        assert text[0].isupper()
        assert text.endswith(".")
        for group in groups:
            assert any(name.lower() in text.lower() for name in group), (text, group)
        again = sentences.sentence(meaning, unlike=text).lower()
        for group in groups:
            used = [name for name in group if name.lower() in text.lower()]
            assert not any(name.lower() in again for name in used), (text, again)


def test_denial_is_said() -> None:
    sentences = EverydaySentences(seed=7)
    for _ in range(100):
        meaning = sentences.meaning()
        plain = sentences.sentence(meaning).lower().split()
        denied = sentences.sentence(Meaning(**{**meaning.__dict__, "denied": True})).lower().split()
        assert {"not", "never", "failed"}.isdisjoint(plain)
        assert not {"not", "never", "failed"}.isdisjoint(denied)


def test_the_same_seed_gives_the_same_pairs_of_all_scores() -> None:
    first, second, scores = EverydaySentences(seed=1).pairs(300)
    assert (first, second, scores) == EverydaySentences(seed=1).pairs(300)
    assert first != EverydaySentences(seed=2).pairs(300)[0]
    assert len(first) == len(second) == len(scores) == 300
    assert set(scores) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert min(Counter(scores).values()) > 25
    assert EverydaySentences(seed=0).pairs(1)[2][0] in range(6)
    with pytest.raises(UsageError):
        EverydaySentences().pairs(0)
