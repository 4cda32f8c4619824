"""Rewards of sampled responses: tables, functions of the user's own, offline baselines, win rates in the pool."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.alignment.online.rollouts import Rewarder
from nearfar.alignment.policy import Policy, Prompts, Responses
from nearfar.errors import DataError, UsageError
from nearfar.objectives.preference_values import contrastive_reward

Reward = Rewarder
Judge = Callable[[Prompts, Responses], Tensor]
"""``judge(prompts, responses)[i, a, b]``: how probably, or whether, response a to prompt i beats response b: ``[n, K,
K]`` in [0, 1]."""


class TableReward:
    """``table[x, a]`` plus normal noise: what a tabular policy's answers are worth.

    ``table [P, A]``; ``noise``: standard deviation, default 0, drawn anew for every sample from ``generator``.
    """

    def __init__(self, table: Tensor, noise: float = 0.0, *, generator: torch.Generator | None = None) -> None:
        self.table = table
        self.noise = noise
        self.generator = generator

    def __call__(self, prompts: Tensor, responses: Tensor) -> Tensor:
        found = self.table[prompts].gather(1, responses)
        if not self.noise:
            return found
        return found + self.noise * torch.randn(found.shape, dtype=found.dtype, generator=self.generator)


class ContrastiveReward:
    """A reward less that of answers of the *first* policy to the same prompt, drawn once (Shen et al., 2024).

    ``stored``: rewards ``[k]`` of the baseline answers by prompt, see :meth:`drawn`; ``aggregate``: see
    :func:`nearfar.objectives.preference_values.contrastive_reward`. Whiten, if at all, after the subtraction.
    Raises :class:`~nearfar.errors.DataError` for a prompt without baseline answers.
    """

    def __init__(self, reward: Rewarder, stored: Mapping[Any, Tensor], *, aggregate: str | float = "mean") -> None:
        self.reward = reward
        self.stored = stored
        self.aggregate = aggregate

    @classmethod
    def drawn(
        cls,
        reward: Rewarder,
        policy: Policy,
        prompts: Prompts,
        count: int = 5,
        *,
        aggregate: str | float = "mean",
        generator: torch.Generator | None = None,
    ) -> ContrastiveReward:
        """With ``count`` (default 5, the paper's) answers to each prompt drawn from the policy as it is now."""
        with torch.no_grad():
            values = reward(prompts, policy.sample(prompts, count, generator=generator))
        return cls.of_values(reward, prompts, values, aggregate=aggregate)

    @classmethod
    def of_values(
        cls, reward: Rewarder, prompts: Prompts, values: Tensor, *, aggregate: str | float = "mean"
    ) -> ContrastiveReward:
        """With the rewards ``values [n, k]`` of baseline answers to the prompts that are known already."""
        return cls(reward, dict(zip(map(_key, prompts), values, strict=True)), aggregate=aggregate)

    def baseline(self, prompts: Prompts) -> Tensor:
        """The stored rewards ``[n, k]``."""
        try:
            return torch.stack([self.stored[_key(prompt)] for prompt in prompts])
        except KeyError as error:
            raise DataError(
                f"there is no baseline answer to the prompt {error}", hint="draw baselines of all prompts first"
            ) from None

    def __call__(self, prompts: Prompts, responses: Responses) -> Tensor:
        raw, stored = self.reward(prompts, responses), self.baseline(prompts)
        columns = [contrastive_reward(raw[:, k], stored, self.aggregate) for k in range(raw.shape[1])]
        return torch.stack(columns, 1)


class PoolWinRates:
    """How often a response beats the responses drawn with it, itself included, which counts 1/2: in (0, 1).

    An estimate of ``E_{y' ~ policy} P(y beats y')`` from the pool alone, with no further samples (Rosset et al., 2024).
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def __call__(self, prompts: Prompts, responses: Responses) -> Tensor:
        wins = self.judge(prompts, responses)
        own = torch.eye(wins.shape[-1], dtype=torch.bool, device=wins.device)
        return torch.where(own, 0.5, wins).mean(2)


class FunctionReward:
    """A reward function on texts, called as those of TRL are: ``function(prompts=[...], completions=[...])``.

    Both lists have one entry a response, prompts repeated; it returns as many numbers. Several functions add up with
    their ``weights`` (default 1 each).

    Raises :class:`~nearfar.errors.UsageError` for a function that cannot be called so, and when called
    :class:`~nearfar.errors.DataError` for one that fails or gives other than that.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], weights: Sequence[float] | None = None) -> None:
        self.functions = list(functions)
        self.weights = [1.0] * len(self.functions) if weights is None else list(weights)
        if not self.functions or len(self.weights) != len(self.functions):
            raise UsageError(f"there are {len(self.functions)} reward functions and {len(self.weights)} weights")
        for function in self.functions:
            _check_arguments(function)

    def __call__(self, prompts: Prompts, responses: Responses) -> Tensor:
        count = len(responses[0])
        repeated = [prompt for prompt in prompts for _ in range(count)]
        flat = list(chain.from_iterable(responses))
        total = torch.zeros(len(flat))
        for function, weight in zip(self.functions, self.weights, strict=True):
            name = _name(function)
            try:
                found = function(prompts=repeated, completions=flat)
            except Exception as error:
                raise DataError(f"the reward function {name} failed: {type(error).__name__}: {error}") from error
            try:
                values = torch.as_tensor([float(value) for value in found])
            except (TypeError, ValueError) as error:
                raise DataError(f"the reward function {name} gave what is no list of numbers: {error}") from error
            if values.shape != total.shape:
                raise DataError(f"the reward function {name} gave {len(values)} rewards for {len(flat)} responses")
            total = total + weight * values
        return total.view(len(responses), count)


def _check_arguments(function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind(prompts=[], completions=[])
    except TypeError as error:
        raise UsageError(
            f"the reward function {_name(function)} cannot be called with prompts and completions: {error}",
            hint=f"define it as {_name(function)}(prompts, completions)",
        ) from error
    except ValueError:  # one that is not written in Python does not tell
        return


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def reward_function(named: str) -> Callable[..., Any]:
    """The function of the user's own ``file.py:name``. The file is run: name only code that you trust.

    Raises :class:`~nearfar.errors.UsageError` where there is no such file or function.
    """
    path, colon, name = named.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise UsageError(f"{named!r} names no reward function", hint="write file.py:name")
    place = Path(path)
    if not place.is_file():
        raise UsageError(f"there is no file {path!r}", hint="write file.py:name of a reward function")
    spec = importlib.util.spec_from_file_location(f"nearfar_reward_{place.stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        has = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(f"{path} has no function {name!r}", hint=f"it has {', '.join(has) or 'none'}")
    found: Callable[..., Any] = function
    return found


def _key(prompt: Any) -> Hashable:
    """What a prompt is found by: its number, its text, or the text of a conversation."""
    if isinstance(prompt, Tensor):
        return int(prompt)
    return prompt if isinstance(prompt, str | int) else repr(prompt)
