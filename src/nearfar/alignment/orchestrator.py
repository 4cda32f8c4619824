"""Preference Orchestrator: which of several rewards matter is inferred from the prompt (Liu et al., 2025).

arXiv:2511.10656; withdrawn from ICLR 2026, and no official code was found: what the paper leaves open is said where it
is decided. The targets say what the *preferred* response scores high in. A reward in which it scores low gets little
weight, also where it should matter most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.alignment.rewards_in_context import RewardScale, extended, rewards_of, written
from nearfar.data.preferences.rows import DEMONSTRATIONS, PreferenceRow, PreferenceSet, Text, plain
from nearfar.errors import DataError, ModelError, UsageError
from nearfar.files import atomic_folder
from nearfar.training.steps import random_batches, seeded, train_steps

Embed = Callable[[Sequence[str]], Tensor]
"""Texts to their embeddings ``[n, d]``, without a gradient."""

TEMPERATURE = 0.1


def target_weights(standardised: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """``softmax(r / T)`` over the standardised rewards ``[..., R]`` of preferred responses: what a prompt asks for.

    ``temperature`` T > 0, default 0.1 (Liu et al., 2025), which comes close to the one highest reward. Rewards must be
    on one scale (:meth:`~nearfar.alignment.rewards_in_context.RewardScale.standardised`): else the weights say which
    reward has the largest numbers.
    """
    if not temperature > 0:
        raise UsageError(f"the temperature must be above 0, got {temperature}")
    return torch.softmax(standardised / temperature, dim=-1)


def divergence_from_targets(log_weights: Tensor, target: Tensor) -> Tensor:
    """``KL(w* || f)``, mean over prompts, of weights as logarithms ``[n, R]`` from targets ``[n, R]``; in nats, >= 0.

    The paper does not state the direction; from the targets, it covers all that prompts like this one ask for.
    """
    return F.kl_div(log_weights, target, reduction="batchmean")


def weighted_reward(weights: Tensor, standardised: Tensor) -> Tensor:
    """``sum_r w_r r_r``: one reward ``[n, K]`` of responses with standardised rewards ``[n, K, R]``, by ``weights
    [n, R]``."""
    return (standardised * weights[:, None, :]).sum(2)


class WeightAdapter(nn.Module):
    """``f(x) = softmax(W e(x) + b)``: weights of R rewards from a prompt's embedding ``[n, d]``; uniform at first.

    ``fit`` minimises :func:`divergence_from_targets`. The paper trains the encoder (XLM-RoBERTa) too; here the
    embeddings are given.
    """

    def __init__(self, dimension: int, rewards: int) -> None:
        super().__init__()
        if dimension < 1 or rewards < 1:
            raise UsageError(f"dimension and rewards are at least 1, got {dimension} and {rewards}")
        self.linear = nn.Linear(dimension, rewards)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """The weights' logarithms ``[n, R]``."""
        return F.log_softmax(self.linear(embeddings), dim=1)

    def fit(
        self,
        embeddings: Tensor,
        target: Tensor,
        *,
        steps: int = 500,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-3,
        seed: int = 0,
    ) -> list[float]:
        """Train on embeddings ``[n, d]`` and targets ``[n, R]`` by AdamW; the losses. The defaults are ours."""
        with seeded(seed) as generator:
            batches = random_batches(len(embeddings), batch_size, steps, generator)
            return train_steps(
                lambda index: divergence_from_targets(self(embeddings[index]), target[index]),
                [self],
                batches,
                optimizer="adamw",
                learning_rate=learning_rate,
                weight_decay=weight_decay,
            )


class Orchestrator:
    """Weights of several rewards by prompt: ``Orchestrator.fit(data, embed).weights(prompts)``.

    ``scale``: of the rewards; ``adapter``; ``temperature`` of its targets; ``embed``: what it was fitted with.
    """

    def __init__(
        self, scale: RewardScale, adapter: WeightAdapter, embed: Embed, *, temperature: float = TEMPERATURE
    ) -> None:
        self.scale, self.adapter, self.embed, self.temperature = scale, adapter, embed, temperature

    @classmethod
    def fit(
        cls,
        data: PreferenceSet,
        embed: Embed,
        *,
        temperature: float = TEMPERATURE,
        steps: int = 500,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        seed: int = 0,
    ) -> Orchestrator:
        """From multi-reward lists with scores, the best scored response of each being the preferred one; of a list
        without scores, its first.

        Rewards are standardised over all responses. ``embed``: texts to ``[n, d]``, such as the ``encode`` of an
        encoder. Raises as :meth:`RewardScale.fit` does.
        """
        scale = RewardScale.fit(rewards_of(data), data.reward_names)
        rows = list(data)
        preferred = torch.tensor([(row.rewards or ())[_best(row)] for row in rows], dtype=torch.float64)
        target = target_weights(scale.standardised(preferred), temperature).float()
        embeddings = embed([plain(row.prompt) for row in rows])
        adapter = WeightAdapter(embeddings.shape[1], len(scale.names))
        adapter.fit(embeddings, target, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
        return cls(scale, adapter, embed, temperature=temperature)

    @torch.no_grad()
    def weights(self, prompts: Sequence[Text], given: Sequence[float] | None = None) -> Tensor:
        """The weights ``[n, R]`` of prompts, or the ``given`` ones ``[R]`` (>= 0, not all 0) for each, summing to 1."""
        if given is None:
            inferred: Tensor = self.adapter(self.embed([plain(prompt) for prompt in prompts]))
            return inferred.exp()
        weight = torch.tensor(list(given), dtype=torch.float32)
        if weight.shape != (len(self.scale.names),) or not bool((weight >= 0).all()) or not float(weight.sum()) > 0:
            raise UsageError(f"weights must be {len(self.scale.names)} numbers >= 0, not all 0, got {list(given)}")
        return (weight / weight.sum()).expand(len(prompts), -1)

    def reward(self, prompts: Sequence[Text], rewards: Tensor, given: Sequence[float] | None = None) -> Tensor:
        """One reward ``[n, K]`` of responses with rewards ``[n, K, R]`` as their models give them: what a policy is
        trained on (the paper's PRO-MORLHF)."""
        weights = self.weights(prompts, given)
        return weighted_reward(weights.to(rewards.dtype), self.scale.standardised(rewards))

    def asked(self, prompt: Text, given: Sequence[float] | None = None) -> Text:
        """A prompt with its weights at the end, for a policy that is told them (PRO "weights in context")."""
        return extended(prompt, written(self.scale.names, self.weights([prompt], given)[0]))

    def demonstrations(self, data: PreferenceSet) -> PreferenceSet:
        """What such a policy is fine-tuned on: preferred responses, after prompts with their *target* weights."""
        rows = []
        for row in data:
            best = _best(row)
            rewards = torch.tensor((row.rewards or ())[best], dtype=torch.float64)
            told = written(self.scale.names, target_weights(self.scale.standardised(rewards), self.temperature))
            rows.append(PreferenceRow(extended(row.prompt, told), (row.responses[best],), where=row.where))
        return PreferenceSet.from_rows(DEMONSTRATIONS, rows)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the adapter (safetensors) and the scale (JSON); the encoder is not written."""
        from safetensors.torch import save_file

        with atomic_folder(folder, overwrite=overwrite) as path:
            save_file(self.adapter.state_dict(), path / "adapter.safetensors")
            settings = {"scale": asdict(self.scale), "temperature": self.temperature}
            (path / "orchestrator.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, embed: Embed) -> Orchestrator:
        """What :meth:`save` wrote. Raises :class:`~nearfar.errors.ModelError` for a folder that is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(folder)
        try:
            settings = json.loads((path / "orchestrator.json").read_text(encoding="utf-8"))
            scale = RewardScale(**{name: tuple(values) for name, values in settings["scale"].items()})
            weights = load_file(path / "adapter.safetensors")
            adapter = WeightAdapter(weights["linear.weight"].shape[1], len(scale.names))
            adapter.load_state_dict(weights)
            return cls(scale, adapter.eval(), embed, temperature=float(settings["temperature"]))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, IndexError, SafetensorError) as error:
            raise ModelError(f"this is no orchestrator: {error}", where=str(path)) from None


def _best(row: PreferenceRow) -> int:
    """The place of the preferred response."""
    if not row.rewards:
        raise DataError("a list has no rewards", where=row.where or None)
    return 0 if row.scores is None else row.scores.index(max(row.scores))
