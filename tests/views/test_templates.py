"""Templates and prompts on token ids, against strings put together by hand."""

from __future__ import annotations

import pytest
import torch

from nearfar.encoders.states import SpecialTokens
from nearfar.errors import UsageError
from nearfar.views.text.templates import Template, prompts

SPECIAL = SpecialTokens(padding=0, first=1, last=2, mask=3, all=frozenset(range(5)))
IDS = torch.tensor([[1, 50, 51, 2, 0], [1, 60, 61, 62, 2]])
MASK = torch.tensor([[False, True, True, False, False], [False, True, True, True, False]])
AFTER, BEFORE = Template(("text", 90, 91, "answer", 92)), Template(("answer", 80, "text"))


def encode(text: str) -> list[int]:
    return [100 + len(word) for word in text.split(" ")]


def test_a_template_is_parsed_with_the_space_before_its_words() -> None:
    found = Template.parse("{text} It was {mask} .", encode)
    assert found.pieces == ("text", 100, 102, 103, "answer", 100, 101)
    assert Template.parse("  {mask}: {text}", encode).pieces == ("answer", 101, "text")
    assert Template.parse("{text}{mask}", encode).tokens == 1
    for wrong in ("{text} was", "{mask}", "{text} {text} {mask}", "", "{text} {answer}"):
        with pytest.raises(UsageError, match="one text and one answer"):
            Template.parse(wrong, encode)


def test_prompts_are_the_texts_in_their_templates() -> None:
    found = prompts(IDS, MASK, [AFTER], SPECIAL)
    assert found.ids.tolist() == [[1, 50, 51, 90, 91, 3, 92, 2, 0], [1, 60, 61, 62, 90, 91, 3, 92, 2]]
    assert found.mask.tolist() == (found.ids != 0).tolist()
    assert found.answer.tolist() == [5, 6]
    states = found.ids[:, :, None].float().expand(-1, -1, 4)
    assert found.at_answer(states).tolist() == [[3.0] * 4] * 2


def test_every_text_has_the_template_chosen_for_it() -> None:
    found = prompts(IDS, MASK, [AFTER, BEFORE], SPECIAL, chosen=torch.tensor([1, 0]))
    assert found.ids.tolist() == [[1, 3, 80, 50, 51, 2, 0, 0, 0], [1, 60, 61, 62, 90, 91, 3, 92, 2]]
    assert found.answer.tolist() == [1, 6]


def test_demonstrations_follow_with_their_answers() -> None:
    shown = [
        (torch.tensor([[70, 71], [72, 0]]), torch.tensor([[True, True], [True, False]]), 40),
        (torch.tensor([[75], [76]]), torch.ones(2, 1, dtype=torch.bool), 41),
    ]
    found = prompts(IDS, MASK, [AFTER, BEFORE], SPECIAL, chosen=torch.tensor([0, 1]), demonstrations=shown, room=1)
    assert found.ids.tolist() == [
        [1, 50, 90, 91, 3, 92, 70, 90, 91, 40, 92, 75, 90, 91, 41, 92, 2],
        [1, 3, 80, 60, 40, 80, 72, 41, 80, 76, 2, 0, 0, 0, 0, 0, 0],
    ]
    assert found.answer.tolist() == [4, 1]


def test_padding_of_any_id_and_texts_that_hold_the_mask_token() -> None:
    special = SpecialTokens(padding=2, mask=3)  # without [CLS] and [SEP], padded with what may be a word
    ids = torch.tensor([[3, 2, 50]])
    found = prompts(ids, torch.tensor([[True, True, True]]), [AFTER], special)
    assert found.ids.tolist() == [[3, 2, 50, 90, 91, 3, 92]]
    assert found.answer.tolist() == [5]
    empty = prompts(ids, torch.zeros(1, 3, dtype=torch.bool), [AFTER], special)
    assert empty.ids.tolist() == [[90, 91, 3, 92]]
    assert prompts(ids[:0], torch.zeros(0, 3, dtype=torch.bool), [AFTER], special).ids.shape[0] == 0


def test_a_vocabulary_without_a_mask_cannot_be_asked() -> None:
    with pytest.raises(UsageError, match="token for what is asked"):
        prompts(IDS, MASK, [AFTER], SpecialTokens(padding=0))
