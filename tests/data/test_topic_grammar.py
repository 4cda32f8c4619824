"""Sentences about topics: what they hold, how often, and their ids."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic import TopicGrammar
from nearfar.errors import UsageError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sentences_hold_what_they_say() -> None:
    grammar = TopicGrammar(topics=3, concepts=4, synonyms=2, function_words=5)
    drawn = grammar.draw(2000, generator=generator(), content=5, function=3, denied=0.5, named=0.1)
    denied = named = 0
    for text, topic, no in zip(drawn.texts, drawn.topic.tolist(), drawn.denied.tolist(), strict=True):
        words = text.split()
        own = {word for concept in grammar.topic_words[topic] for word in concept}
        assert sum(word in own for word in words) == 5
        assert sum(word in grammar.function_words for word in words) == 3
        assert ("not" in words) == no
        assert set(words) & set(grammar.names) <= {grammar.names[topic]}
        assert words.count(grammar.names[topic]) == (words[-1] == grammar.names[topic])
        denied += no
        named += words[-1] == grammar.names[topic]
    assert abs(denied / 2000 - 0.5) < 0.05
    assert abs(named / 2000 - 0.1) < 0.03
    assert torch.bincount(drawn.topic).min() > 550
    assert len({tuple(text.split().index(word) for word in text.split()) for text in drawn.texts}) > 100
    again = grammar.draw(2000, generator=generator(), content=5, function=3, denied=0.5, named=0.1)
    assert again.texts == drawn.texts
    assert grammar.draw(10, generator=generator(1)).texts != drawn.texts[:10]
    assert not any("not" in text.split() for text in grammar.draw(200, generator=generator()).texts)


def test_synonyms_are_of_one_concept() -> None:
    grammar = TopicGrammar(topics=2, concepts=3, synonyms=3)
    assert len(grammar.thesaurus) == 18
    for word, others in grammar.thesaurus.items():
        assert len(others) == 2
        assert {word.rpartition("x")[0]} == {other.rpartition("x")[0] for other in others}
    assert TopicGrammar(synonyms=1).thesaurus["w0x0x0"] == []


def test_ids_are_the_places_of_words() -> None:
    grammar = TopicGrammar()
    assert len(set(grammar.words)) == len(grammar.words) == 2 + 8 + 8 * 12 * 2 + 20
    text = grammar.draw(1, generator=generator(), denied=1.0).texts[0]
    ids = grammar.ids([text, "", "not"], length=13)
    assert [grammar.words[number] for number in ids[0].tolist() if number] == text.split()
    assert ids.shape == (3, 13)
    assert ids[1].sum() == 0
    assert ids[2, 0] == grammar.id_of("not") == 1
    assert grammar.ids([text], length=2).shape == (1, 2)
    with pytest.raises(UsageError):
        TopicGrammar(topics=0)
