"""Rewards-in-Context: a policy that is told in the prompt which rewards its response shall have (Yang et al., 2024).

It is fine-tuned on responses with the rewards that they *have* in the prompt, and asked for the rewards that a
preference implies. arXiv:2402.10207, ICML 2024.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.alignment.policy import Policy
from nearfar.data.preferences.rows import DEMONSTRATIONS, MULTI_REWARD_LISTS, PreferenceRow, PreferenceSet, Text
from nearfar.errors import DataError, ModelError, UsageError
from nearfar.files import atomic_path
from nearfar.objectives.preference_values import target_rewards

FILE = "rewards.json"

Rewards = Callable[[Sequence[Any], Sequence[Sequence[Any]]], Tensor]
"""Of prompts ``[n]`` and ``K`` responses to each the rewards ``[n, K, R]``."""


def together(rewards: Sequence[Callable[[Any, Any], Tensor]]) -> Rewards:
    """Several rewards of the on-policy loop, each ``[n, K]``, as one: ``[n, K, R]``."""
    return lambda prompts, responses: torch.stack([each(prompts, responses) for each in rewards], dim=2)


@dataclass(frozen=True)
class RewardScale:
    """What the rewards of a data set look like: ``names``, ``mean``, ``deviation`` of each, and the range ``low`` to
    ``high`` that may be asked for, in deviations from the mean."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def fit(cls, rewards: Tensor, names: Sequence[str], *, quantile: float = 0.01) -> RewardScale:
        """From rewards ``[n, R]``. The range lies between two quantiles of the data, ``quantile`` (in [0, 0.5), default
        0.01) and 1 less it; the paper takes the extremes of 50,000 normal draws, some 4.3, which no response has.

        Raises :class:`~nearfar.errors.DataError` for no rewards, values that are not finite, or a constant reward.
        """
        if not 0 <= quantile < 0.5:
            raise UsageError(f"the quantile must lie in [0, 0.5), got {quantile}")
        if rewards.dim() != 2 or rewards.shape[1] != len(names) or not rewards.numel():
            raise DataError(f"rewards must be [n, {len(names)}], got {list(rewards.shape)}")
        values = rewards.double()
        if not bool(torch.isfinite(values).all()):
            raise DataError("a reward is not finite")
        mean, deviation = values.mean(0), values.std(0, correction=0)
        constant = [name for name, each in zip(names, deviation, strict=True) if not each > 0]
        if constant:
            raise DataError(f"the reward {constant[0]!r} is the same for all responses", hint="leave it out")
        z = (values - mean) / deviation
        bounds = [torch.quantile(z, share, dim=0).tolist() for share in (quantile, 1 - quantile)]
        return cls(tuple(names), tuple(mean.tolist()), tuple(deviation.tolist()), *map(tuple, bounds))

    def standardised(self, rewards: Tensor) -> Tensor:
        """Rewards ``[..., R]`` in deviations from the mean of the data."""
        return (rewards - rewards.new_tensor(self.mean)) / rewards.new_tensor(self.deviation)

    def targets(self, preference: Sequence[float] | Tensor, form: str = "l2") -> Tensor:
        """The standardised rewards ``[R]`` to ask for, rounded to 0.1, given a preference over them: ``>= 0``, summing
        to 1. ``form``: see :func:`nearfar.objectives.preference_values.target_rewards`."""
        weight = torch.as_tensor(preference, dtype=torch.float64)
        found = target_rewards(weight, weight.new_tensor(self.low), weight.new_tensor(self.high), form)
        return (10 * found).round() / 10

    def desired(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Standardised rewards ``[count, R]`` to generate for in an online round: good in all but one.

        Each is drawn evenly from its range, and all but the one that lies lowest in it are set to the highest.
        """
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        share = torch.rand(count, len(low), generator=generator)
        least = torch.zeros_like(share, dtype=torch.bool).scatter(1, share.argmin(1, keepdim=True), True)
        return (10 * torch.where(least, low + share * (high - low), high)).round() / 10


def written(names: Sequence[str], values: Sequence[float] | Tensor) -> str:
    """Numbers as a prompt says them: ``" <helpful> 0.3 <harmless> -1.2"``, rounded to 0.1."""
    numbers = torch.as_tensor(values, dtype=torch.float64).tolist()
    # 0 is added to what rounds to -0
    return "".join(f" <{name}> {round(value, 1) + 0.0:.1f}" for name, value in zip(names, numbers, strict=True))


def extended(prompt: Text, text: str) -> Text:
    """A prompt with ``text`` at its end: of a conversation, at the end of the last turn."""
    if isinstance(prompt, str):
        return prompt + text
    if not prompt:
        raise DataError("a conversation without turns cannot be told anything")
    *before, last = prompt
    return (*before, {**last, "content": last["content"] + text})


def rewards_of(data: PreferenceSet) -> Tensor:
    """The rewards ``[N, R]`` of all responses of multi-reward lists, in order."""
    if data.kind != MULTI_REWARD_LISTS:
        raise UsageError(f"rewards in context take {MULTI_REWARD_LISTS}, and these are {data.kind}")
    return torch.tensor([each for row in data for each in row.rewards or ()], dtype=torch.float64)


@dataclass(frozen=True)
class RewardsInContext:
    """How prompts tell rewards, for training and for asking.

    ``scale``: of the training data. ``marker``: what stands after the rewards, such as ``"\\n### Response:"``; default
    nothing, for models whose chat template begins the answer.

    A run on a user's language model is ``align(AlignmentSettings(objective="sft", ...),
    preferences=context.demonstrations(data))``; see docs/several-rewards.md.
    """

    scale: RewardScale
    marker: str = ""

    @classmethod
    def fit(cls, data: PreferenceSet, *, quantile: float = 0.01, marker: str = "") -> RewardsInContext:
        """With the scale of multi-reward lists; see :meth:`RewardScale.fit`."""
        return cls(RewardScale.fit(rewards_of(data), data.reward_names, quantile=quantile), marker)

    def prompt(self, prompt: Text, standardised: Sequence[float] | Tensor) -> Text:
        """The prompt with standardised rewards ``[R]`` at its end."""
        return extended(prompt, written(self.scale.names, standardised) + self.marker)

    def asked(self, prompt: Text, preference: Sequence[float] | Tensor, form: str = "l2") -> Text:
        """The prompt that asks for what a preference over the rewards implies; see :meth:`RewardScale.targets`."""
        return self.prompt(prompt, self.scale.targets(preference, form))

    def demonstrations(self, data: PreferenceSet) -> PreferenceSet:
        """Every response of multi-reward lists, good or bad, after its prompt with the rewards that it has."""
        self._known(data)
        rows = (
            PreferenceRow(self.prompt(row.prompt, told), (response,), where=row.where)
            for row in data
            for response, told in zip(row.responses, self._standardised(row), strict=True)
        )
        return PreferenceSet.from_rows(DEMONSTRATIONS, rows)

    def generated(
        self,
        policy: Policy,
        prompts: Sequence[Text],
        rewards: Rewards,
        *,
        generator: torch.Generator | None = None,
    ) -> PreferenceSet:
        """Multi-reward lists of one response that ``policy`` gave to each prompt when asked for good rewards.

        The rewards are those that the responses *got* (``rewards`` sees the plain prompts), not those asked for: what
        is trained on next must be true.
        """
        wanted = self.scale.desired(len(prompts), generator=generator)
        told = [self.prompt(prompt, target) for prompt, target in zip(prompts, wanted, strict=True)]
        responses = policy.sample(told, 1, generator=generator)
        got = rewards(list(prompts), responses)
        if got.shape != (len(prompts), 1, len(self.scale.names)):
            raise DataError(f"rewards must be {[len(prompts), 1, len(self.scale.names)]}, got {list(got.shape)}")
        rows = [
            PreferenceRow(prompt, (_plain(answers[0]),), rewards=(tuple(map(float, each[0])),))
            for prompt, answers, each in zip(prompts, responses, got.double(), strict=True)
        ]
        return PreferenceSet.from_rows(MULTI_REWARD_LISTS, rows, reward_names=self.scale.names)

    def merged(
        self,
        generated: PreferenceSet,
        original: PreferenceSet,
        *,
        quantile: float = 0.7,
        most: int = 10_000,
        generator: torch.Generator | None = None,
    ) -> PreferenceSet:
        """What an online round trains on: generated responses that are good in something, and as good original ones.

        Kept is a response with *any* reward at or above its ``quantile`` (default 0.7) among the generated ones; of the
        original ones that pass, at most ``most`` (default 10,000), drawn at random. Responses of a list are rows of
        their own. Raises :class:`~nearfar.errors.DataError` where nothing was generated.
        """
        for data in (generated, original):
            self._known(data)
        values = rewards_of(generated)
        if not values.numel():
            raise DataError("nothing was generated")
        threshold = torch.quantile(values, quantile, dim=0)
        kept = _singles(generated, threshold)
        old = _singles(original, threshold)
        if len(old) > most:
            chosen = torch.randperm(len(old), generator=generator)[:most].sort().values.tolist()
            old = [old[place] for place in chosen]
        return PreferenceSet.from_rows(MULTI_REWARD_LISTS, [*kept, *old], reward_names=self.scale.names)

    def save(self, folder: str | Path) -> None:
        """Write ``rewards.json`` into a folder, that of the model."""
        with atomic_path(Path(folder) / FILE) as path:
            path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> RewardsInContext:
        """What :meth:`save` wrote. Raises :class:`~nearfar.errors.ModelError` for a folder without it."""
        path = Path(folder) / FILE
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            scale = {name: tuple(values) for name, values in read["scale"].items()}
            return cls(RewardScale(**scale), str(read["marker"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"this is no model that is told rewards: {error}", where=str(path)) from None

    def _standardised(self, row: PreferenceRow) -> Tensor:
        return self.scale.standardised(torch.tensor(row.rewards, dtype=torch.float64))

    def _known(self, data: PreferenceSet) -> None:
        if data.kind != MULTI_REWARD_LISTS or data.reward_names != self.scale.names:
            raise UsageError(
                f"these are {data.kind} with the rewards {list(data.reward_names)}",
                hint=f"give {MULTI_REWARD_LISTS} with {list(self.scale.names)}",
            )


def _singles(data: PreferenceSet, threshold: Tensor) -> list[PreferenceRow]:
    """The responses of lists that pass in any reward, each as a list of one."""
    found = []
    for row in data:
        for response, rewards in zip(row.responses, row.rewards or (), strict=True):
            if bool((torch.tensor(rewards, dtype=torch.float64) >= threshold).any()):
                found.append(PreferenceRow(row.prompt, (response,), rewards=(rewards,), where=row.where))
    return found


def _plain(response: Any) -> Text:
    """A sampled text without what it carries beside it."""
    return str(response) if isinstance(response, str) else response
