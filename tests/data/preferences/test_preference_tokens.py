"""Prompts and responses as token ids: where responses begin and end, what budgets cut, what is dropped and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nearfar.data.preferences import Budget, PreferenceRow, TokenisedRow, tokenise, tokenise_prompts
from nearfar.encoders.language_model import symbol_tokenizer
from nearfar.errors import DataError, UsageError
from support.chats import CHAT, CHAT_EOS, CHAT_OPEN, CHAT_THINKS, answer, byte_pairs, turns


def pair(prompt: Any, chosen: Any, rejected: Any, where: str = "") -> PreferenceRow:
    return PreferenceRow(prompt, (chosen, rejected), where=where)


@pytest.fixture(scope="module")
def plain() -> Any:
    return byte_pairs()


@pytest.fixture(scope="module")
def begun() -> Any:
    return byte_pairs(begins=True, template=CHAT_EOS)


@pytest.mark.parametrize("begins", [False, True])
def test_a_text_is_its_tokens_between_its_ends(begins: bool) -> None:
    tokenizer = byte_pairs(begins=begins)
    row = tokenise([pair("the sky", " is blue", " is green today")], tokenizer)[0]
    ids = [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the sky", " is blue", " is green today")
    ]
    assert row.prompt.tolist() == [tokenizer.bos_token_id] * begins + ids[0]
    assert [response.tolist() for response in row.responses] == [[*each, tokenizer.eos_token_id] for each in ids[1:]]
    assert (row.cut_prompt, row.cut) == (False, (False, False))
    assert row.prompt.dtype == np.int32


def test_the_text_of_all_tokens_is_the_text(begun: Any) -> None:
    rows = [
        pair("blue", "bell", "berry"),
        pair("the sky ", "is blue", "is green"),
        pair("", "a", "b"),
        pair("é", "日", "本"),
    ]
    for row, tokens in zip(rows, tokenise(rows, begun), strict=True):
        for response, ids in zip(row.responses, tokens.responses, strict=True):
            text = begun.decode([*tokens.prompt, *ids])
            assert text == f"<s>{row.prompt}{response}</s>"


def test_tokens_that_merge_over_the_end_of_the_prompt_count_as_the_response(plain: Any) -> None:
    """Of "bluebell" the prompt has the first half: the response begins before it, for both responses."""
    together = plain("the bluebell")["input_ids"]
    alone = plain("the blue")["input_ids"]
    assert together[: len(alone)] != alone
    found = tokenise([pair("the blue", "bell", " sky")], plain)
    assert found.seen == {"shared-tokens": 1}
    assert "share a token" in found.describe()
    row = found[0]
    shared = plain("the blue")["input_ids"]
    assert row.prompt.tolist() == shared[: len(row.prompt)]
    assert len(row.prompt) < len(shared)
    assert row.responses[0].tolist() == plain("the bluebell</s>")["input_ids"][len(row.prompt) :]
    assert row.responses[1].tolist() == plain("the blue sky</s>")["input_ids"][len(row.prompt) :]


@pytest.mark.parametrize("prompt", ["sky", "<s>sky"])
def test_one_token_begins(begun: Any, prompt: str) -> None:
    row = tokenise([pair(prompt, " a", " b")], begun)[0]
    assert (row.prompt == begun.bos_token_id).tolist() == [True, *[False] * (len(row.prompt) - 1)]


def test_a_doubled_beginning_is_left_and_seen(begun: Any) -> None:
    assert tokenise([pair("<s><s>sky", " a", " b")], begun)[0].prompt[:2].tolist() == [begun.bos_token_id] * 2


@pytest.mark.parametrize(("end", "repeated"), [("", 0), ("</s>", 0), ("</s>\n", 0), ("</s></s>", 2)])
def test_one_token_ends(plain: Any, end: str, repeated: int) -> None:
    found = tokenise([pair("sky", " is blue" + end, " is green" + end)], plain)
    for response, text in zip(found[0].responses, (" is blue", " is green"), strict=True):
        assert response.tolist() == [*plain(text)["input_ids"], plain.eos_token_id]
    assert found.seen.get("repeated-eos", 0) == repeated


def test_without_ends() -> None:
    tokenizer = byte_pairs(bos=None, eos=None)
    found = tokenise([pair("sky", " a", " b"), pair("", "a", "b", "x:2"), pair("sky", "", " b", "x:3")], tokenizer)
    assert found[0].responses[0].tolist() == tokenizer(" a")["input_ids"]
    assert found.dropped == {
        "a prompt without tokens, and no token to begin with": ["x:2"],
        "a response without tokens": ["x:3"],
    }
    assert found.index.tolist() == [0]
    assert "1 row dropped: a response without tokens (x:3)" in found.describe()
    with pytest.raises(DataError, match=r"no row is left to train on: a response without tokens \(1\)"):
        tokenise([pair("sky", "", " b")], tokenizer)
    with pytest.raises(DataError, match="there are none"):
        tokenise([], tokenizer)


def test_an_empty_prompt_begins_with_a_token_that_is_there() -> None:
    assert tokenise([pair("", "a", "b")], byte_pairs())[0].prompt.tolist() == [1]
    assert tokenise([pair("", "a", "b")], byte_pairs(bos=None))[0].prompt.tolist() == [2]


def test_budgets(begun: Any) -> None:
    row = pair("what colour is the sky ?", " it is blue today", " no idea")
    whole = tokenise([row], begun, budget=Budget(None, None))[0]
    prompt, responses = whole.prompt.tolist(), [each.tolist() for each in whole.responses]
    for size in range(1, len(prompt) + 2):
        left = tokenise([row], begun, budget=Budget(size, None))[0]
        right = tokenise([row], begun, budget=Budget(size, None, side="right"))[0]
        if size >= len(prompt):
            assert left.prompt.tolist() == right.prompt.tolist() == prompt
        else:
            kept = prompt[-1:] if size == 1 else [prompt[0], *prompt[len(prompt) - size + 1 :]]
            assert left.prompt.tolist() == kept
            assert right.prompt.tolist() == prompt[:size]
        assert left.cut_prompt is right.cut_prompt is (size < len(prompt))
        assert [each.tolist() for each in left.responses] == responses
    for size in range(1, max(map(len, responses)) + 2):
        found = tokenise([row], begun, budget=Budget(None, size))
        assert [each.tolist() for each in found[0].responses] == [each[:size] for each in responses]
        assert found[0].cut == tuple(size < len(each) for each in responses)
        assert found.counts["responses cut"] == sum(found[0].cut)
        assert found[0].prompt.tolist() == prompt


def test_the_beginning_is_kept_only_where_it_is_asked_for() -> None:
    tokenizer = byte_pairs()
    row = tokenise([pair("<s>the sky is blue and the sky is green", " a", " b")], tokenizer, budget=Budget(3))[0]
    assert tokenizer.bos_token_id not in row.prompt.tolist()
    begins = byte_pairs(begins=True)
    cut = tokenise([pair("the sky is blue <s>sky", " a", " b")], begins, budget=Budget(3))[0].prompt.tolist()
    assert cut.count(begins.bos_token_id) == 1


def test_a_response_does_not_depend_on_the_length_of_another(plain: Any) -> None:
    short = tokenise([pair("the sky", " is blue", " no")], plain, budget=Budget(None, 4))[0]
    long = tokenise([pair("the sky", " is blue", " no idea" * 50)], plain, budget=Budget(None, 4))[0]
    assert short.responses[0].tolist() == long.responses[0].tolist()


@pytest.mark.parametrize(("prompt", "response", "side"), [(0, 1, "left"), (1, 0, "left"), (1, 1, "middle")])
def test_budgets_that_make_no_sense(prompt: int, response: int, side: str) -> None:
    with pytest.raises(UsageError):
        Budget(prompt, response, side)


TALK = pair(turns("who are you ?", system="say it"), answer("I am blue"), answer("no idea"))
ENDS = [
    (CHAT_EOS, "<|assistant|>\n", "</s>", {}),
    (CHAT, "<|assistant|>\n", "<|end|>", {}),
    (CHAT_OPEN, "<|assistant|>\n", "\n</s>", {"template-leaves-open": 2}),
    (CHAT_THINKS, "<|assistant|>\n", "<|end|>", {"template-parts": 1}),
]


@pytest.mark.parametrize(("template", "opens", "closes", "seen"), ENDS, ids=["eos", "token", "open", "parts"])
def test_a_chat_template_writes_prompt_and_response(
    template: str, opens: str, closes: str, seen: dict[str, int]
) -> None:
    tokenizer = byte_pairs(template=template)
    found = tokenise([TALK], tokenizer)
    row = found[0]
    prompt = tokenizer.decode(row.prompt.tolist())
    assert prompt.startswith("<|system|>\nsay it")
    assert prompt.endswith(opens)
    assert [tokenizer.decode(each.tolist()) for each in row.responses] == [f"I am blue{closes}", f"no idea{closes}"]
    assert found.seen == seen


def test_a_template_that_is_named_goes_before_the_tokenizers(plain: Any) -> None:
    with pytest.raises(UsageError, match="no chat template"):
        tokenise([TALK], plain)
    found = tokenise([TALK], plain, chat_template=CHAT_EOS)[0]
    other = tokenise([TALK], byte_pairs(template=CHAT_EOS))[0]
    assert found.digest() == other.digest()


def test_a_template_that_does_not_begin_gets_the_token_the_tokenizer_asks_for(begun: Any) -> None:
    assert (tokenise([TALK], begun)[0].prompt == begun.bos_token_id).tolist().count(True) == 1
    tokenizer = symbol_tokenizer("ab")
    row = tokenise([pair(turns("a"), answer("b"), answer("a"))], tokenizer)[0]
    assert tokenizer.decode(row.prompt.tolist()) == "<s> <|user|> a </s> <|assistant|>"
    assert tokenizer.decode(row.responses[0].tolist()) == "b </s>"


def test_a_template_that_refuses_says_which_row() -> None:
    tokenizer = byte_pairs(template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match="roles must alternate") as caught:
        tokenise([pair(turns("a"), answer("b"), answer("c"), where="x:7")], tokenizer)
    assert caught.value.where == "x:7"


def test_the_assistant_goes_on_where_the_prompt_ends_with_it() -> None:
    tokenizer = byte_pairs(template=CHAT_EOS)
    (prompt,) = tokenise_prompts([turns("who ?", "I am")], tokenizer)
    assert tokenizer.decode(prompt.tolist()).endswith("<|assistant|>\nI am")


def test_prompts_alone_are_the_prompts_of_rows(begun: Any) -> None:
    prompts = [turns("who are you ?"), "the sky is", "", turns("say it again", system="say it")]
    said = [[text if isinstance(prompt, str) else answer(text) for text in (" a", " b")] for prompt in prompts]
    rows = [pair(prompt, *responses) for prompt, responses in zip(prompts, said, strict=True)]
    for budget in (Budget(), Budget(4)):
        alone = tokenise_prompts(prompts, begun, budget=budget)
        for tokens, row in zip(alone, tokenise(rows, begun, budget=budget), strict=True):
            assert tokens.tolist() == row.prompt.tolist()
    with pytest.raises(DataError, match="no token to begin with"):
        tokenise_prompts([""], byte_pairs(bos=None, eos=None))


def test_rows_of_any_number_of_responses_lie_in_one_array(plain: Any) -> None:
    rows = [
        PreferenceRow("sky", tuple(f" is {word}" for word in words), scores=tuple(range(len(words))))
        for words in (["blue"], ["blue", "green", "red"], ["a", "b"])
    ]
    found = tokenise(rows, plain)
    assert found.first.tolist() == [0, 2, 6, 9]
    assert found.is_prompt.tolist() == [True, False, True, False, False, False, True, False, False]
    flat = [piece.tolist() for row in found for piece in (row.prompt, *row.responses)]
    assert found.tokens.tolist() == [token for piece in flat for token in piece]
    assert found.lengths.tolist() == list(map(len, flat))
    single = [tokenise([row], plain)[0] for row in rows]
    assert [row.digest() for row in found] == [row.digest() for row in single]
    taken = found.take([2, 0])
    assert taken.index.tolist() == [2, 0]
    assert [row.digest() for row in taken] == [single[2].digest(), single[0].digest()]
    assert [row.digest() for row in found[1:]] == [row.digest() for row in single[1:]]
    assert found[-1].digest() == single[2].digest()
    assert found.sha256() == tokenise(rows, plain).sha256() != tokenise(rows[::-1], plain).sha256()
    with pytest.raises(IndexError):
        found[3]


def test_digests_tell_rows_apart() -> None:
    def digest(prompt: list[int], *responses: list[int]) -> bytes:
        return TokenisedRow(np.array(prompt, np.int32), tuple(np.array(each, np.int32) for each in responses)).digest()

    several = [digest([1], [2, 3]), digest([1, 2], [3]), digest([1], [2], [3]), digest([1], [3, 2]), digest([1, 2, 3])]
    assert len(set(several)) == 5


def test_what_counts_is_marked(begun: Any) -> None:
    found = tokenise([pair("the sky is", " blue", " green and blue")], begun, budget=Budget(None, 3))
    lines = found.marked(0).splitlines()
    assert lines[0] == "<s>the sky is[[ blue</s>]]"
    assert lines[1].startswith("<s>the sky is[[ green")
    assert lines[1].endswith("]]...")
    cut = tokenise([pair("the sky is", " blue", " b")], begun, budget=Budget(2))
    assert cut.marked(0).startswith("...<s>")
