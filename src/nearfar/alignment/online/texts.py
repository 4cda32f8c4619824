"""Prompts, rewards and vectors of texts: what the on-policy loop needs of a language model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearfar.alignment.online.rewards import FunctionReward, reward_function
from nearfar.alignment.online.rollouts import Rewarder
from nearfar.data.log import BadRow, ReadLog
from nearfar.data.preferences.reading import TEXT_LIMIT, Paths
from nearfar.data.preferences.rows import PreferenceRow, Text
from nearfar.data.preferences.tokens import Budget, tokenise
from nearfar.data.reading import read_rows
from nearfar.data.sources import find_sources
from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from nearfar.alignment.language import LanguagePolicy


def read_prompts(path: Paths, *, column: str = "prompt", max_bad_rows: int = 0) -> list[Text]:
    """The prompts of a file (JSONL, CSV, Parquet, ...), in order, each once: texts, or conversations whose last message
    is not the assistant's. Other columns are left alone.

    Raises :class:`~nearfar.errors.DataError` (with file, line and reason) at a bad row beyond ``max_bad_rows``, and
    where there is no prompt.
    """
    sources, notes = find_sources(path)
    log = ReadLog(max_bad_rows, notes=list(notes))
    found: dict[Text, None] = {}
    for source in sources:
        for line, row in read_rows(source, log, TEXT_LIMIT):
            try:
                found[_prompt(row, column)] = None
            except ValueError as error:
                log.bad(BadRow(str(source.path), line, column, str(error)))
    if not found:
        raise DataError("there is no prompt", where=str(sources[0].path))
    return [_readable(prompt) for prompt in found]


def _prompt(row: dict[str, Any], column: str) -> Any:
    if column not in row:
        raise ValueError(f"there is no column {column!r}; the columns are {', '.join(row)}")
    value = row[column]
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the prompt is empty")
        return value
    if not isinstance(value, list) or not value:
        raise ValueError("a prompt is a text or a list of messages")
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError("a message has a role and a content, both texts")
    if value[-1]["role"] == "assistant":
        raise ValueError("the last message is the assistant's: there is nothing to answer")
    return tuple((message["role"], message["content"]) for message in value)


def _readable(prompt: Any) -> Text:
    if isinstance(prompt, str):
        return prompt
    return tuple({"role": role, "content": content} for role, content in prompt)


class ModelReward:
    """The reward of a reward model (:mod:`nearfar.alignment.reward`): a sequence classifier with one label.

    ``budget``: tokens of prompt and response that it reads. It may have another tokenizer than the policy. A response
    that it sees no token of gets ``nothing``, default the least reward of the others of the call.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        budget: Budget | None = None,
        nothing: float | None = None,
    ) -> None:
        self.model, self.tokenizer, self.budget, self.nothing = model, tokenizer, budget, nothing

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Sequence[str]]) -> Tensor:
        from nearfar.alignment.reward.model import rewards_in_batches

        count = len(responses[0])
        rows = [
            PreferenceRow(prompt, (str(text),))
            for prompt, texts in zip(prompts, responses, strict=True)
            for text in texts
        ]
        tokens = tokenise(rows, self.tokenizer, budget=self.budget)
        if not len(tokens):
            raise DataError("the reward model sees no token of any response", hint="raise max_response")
        given, _ = rewards_in_batches(self.model, tokens)
        nothing = float(given.min()) if self.nothing is None else self.nothing
        found = torch.full((len(rows),), nothing, dtype=given.dtype)
        found[torch.from_numpy(tokens.index)] = given
        return found.view(len(prompts), count)


class SumOfRewards:
    """Several rewards added up with ``weights`` (default 1 each)."""

    def __init__(self, rewards: Sequence[Rewarder], weights: Sequence[float] | None = None) -> None:
        self.rewards = list(rewards)
        self.weights = [1.0] * len(self.rewards) if weights is None else list(weights)
        if not self.rewards or len(self.weights) != len(self.rewards):
            raise UsageError(f"there are {len(self.rewards)} rewards and {len(self.weights)} weights")

    def __call__(self, prompts: Any, responses: Any) -> Tensor:
        total = self.weights[0] * self.rewards[0](prompts, responses)
        for weight, reward in zip(self.weights[1:], self.rewards[1:], strict=True):
            total = total + weight * reward(prompts, responses)
        return total


def named_reward(name: str, *, budget: Budget | None = None, device: str | None = None) -> Rewarder:
    """``file.py:function`` (:func:`~nearfar.alignment.online.rewards.reward_function`), or a reward model's folder.

    Raises :class:`~nearfar.errors.UsageError` for what is neither.
    """
    if ".py" in name:
        return FunctionReward([reward_function(name)])
    from nearfar.alignment.reward.model import is_reward_model, reward_model
    from nearfar.encoders.language_model import model_folder

    if not os.path.isdir(name) or not is_reward_model(model_folder(name)):
        raise UsageError(
            f"{name!r} is neither a function of a file nor a reward model",
            where="--reward",
            hint="write file.py:function, or name the folder of a reward model (nearfar reward train)",
        )
    model, tokenizer = reward_model(Path(name), device=device)
    return ModelReward(model, tokenizer, budget=budget)


@torch.no_grad()
def mean_states(policy: LanguagePolicy, prompts: Sequence[Text], responses: Sequence[Sequence[str]]) -> Tensor:
    """What the policy's last layer gives a response, the mean over its tokens: ``[n, K, d]``, float32."""
    from nearfar.alignment.scores import response_scores

    rows = policy.rows(prompts, responses)
    found = response_scores(policy.model, rows, shared_prefix=policy.shared_prefix, hidden=True).hidden
    assert found is not None
    return found.response.float().reshape(len(rows), -1, found.response.shape[-1])


def distinct(responses: Sequence[Sequence[str]]) -> float:
    """The share of different texts among the responses to a prompt, mean over prompts; in (0, 1]."""
    shares = [len(set(map(str, texts))) / len(texts) for texts in responses]
    return sum(shares) / len(shares)


def ended(responses: Sequence[Sequence[Any]]) -> float:
    """The share of sampled responses that ended before the limit on tokens."""
    flat = list(chain.from_iterable(responses))
    return sum(bool(text.ended) for text in flat) / len(flat)
