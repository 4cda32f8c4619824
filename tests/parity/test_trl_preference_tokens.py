"""Beside TRL: where the prompt ends in pairs that do not say it, and the tokens of its DPO trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from trl.data_utils import _tokenize, common_prefix_length, extract_prompt

from nearfar.data.preferences import Budget, PreferenceRow, tokenise
from nearfar.data.preferences.prompts import common_start
from support.chats import CHAT, CHAT_EOS, CHAT_THINKS, CORPUS, answer, byte_pairs, turns


@pytest.mark.parametrize("seed", range(200))
def test_where_the_prompt_ends(seed: int) -> None:
    draw = np.random.default_rng(seed)
    shared = "".join(draw.choice(list("ab "), draw.integers(1, 8)))
    chosen, rejected = (shared + "".join(draw.choice(list("ab "), draw.integers(1, 5))) for _ in range(2))
    expected = extract_prompt({"chosen": chosen, "rejected": rejected})
    end = common_start(chosen, rejected)
    assert (chosen[:end], chosen[end:], rejected[end:]) == tuple(
        expected[key] for key in ("prompt", "chosen", "rejected")
    )


def test_where_the_prompt_of_conversations_ends() -> None:
    talk = [list(turns("a", "b", "c", answer)) for answer in ("d", "e")]
    expected = extract_prompt({"chosen": talk[0], "rejected": talk[1]})
    end = common_start(tuple(talk[0]), tuple(talk[1]))
    assert talk[0][:end] == expected["prompt"]
    assert talk[1][end:] == expected["rejected"]


def trl_tokens(tokenizer: Any, row: PreferenceRow) -> tuple[list[int], list[int], list[int]]:
    """What ``DPOTrainer`` makes of a row: its ``add_eos`` and ``tokenize_fn``."""
    prompt, (chosen, rejected) = row.prompt, row.responses
    if isinstance(prompt, str):
        eos = tokenizer.eos_token
        ends = [text if text.endswith(eos) else text + eos for text in (str(chosen), str(rejected))]
        ids = [_tokenize(tokenizer, text)["input_ids"] for text in (prompt, prompt + ends[0], prompt + ends[1])]
    else:
        told = {"add_generation_prompt": True}
        ids = [
            _tokenize(tokenizer, list(prompt), **told)["input_ids"],
            *(_tokenize(tokenizer, [*prompt, *response])["input_ids"] for response in (chosen, rejected)),
        ]
    end = min(common_prefix_length(ids[0], ids[1]), common_prefix_length(ids[0], ids[2]))
    return ids[0][:end], ids[1][end:], ids[2][end:]


@pytest.mark.parametrize("begins", [False, True])
def test_plain_texts(begins: bool) -> None:
    tokenizer = byte_pairs(begins=begins)
    draw = np.random.default_rng(0)
    words = [*CORPUS[:10], "blue", "bell", " and", "", "</s>"]
    tried = 0
    for _ in range(100):
        prompt, chosen, rejected = ("".join(draw.choice(words, 2)) for _ in range(3))
        theirs = trl_tokens(tokenizer, PreferenceRow(prompt, (chosen, rejected)))
        # of a prompt without a token ours begins with one; an end inside of a text is another test's
        if theirs[0] and "</s>" not in prompt + chosen[:-4] + rejected[:-4]:
            ours = tokenise([PreferenceRow(prompt, (chosen, rejected))], tokenizer, budget=Budget(None, None))[0]
            assert (ours.prompt.tolist(), *(each.tolist() for each in ours.responses)) == theirs
            tried += 1
    assert tried > 50


@pytest.mark.parametrize("template", [CHAT, CHAT_EOS, CHAT_THINKS])
def test_conversations(template: str) -> None:
    """TRL counts the line break that the template writes after the closing token too; nothing that is generated has
    it."""
    tokenizer = byte_pairs(template=template)
    row = PreferenceRow(turns("who are you ?", "no idea", "say it"), (answer("it is blue"), answer("the sky")))
    ours = tokenise([row], tokenizer, budget=Budget(None, None))[0]
    prompt, *responses = trl_tokens(tokenizer, row)
    assert ours.prompt.tolist() == prompt
    line = tokenizer("\n")["input_ids"]
    assert [each.tolist() + line for each in ours.responses] == responses
