"""What a policy is: something that answers prompts, and says how probable an answer was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

Prompts: TypeAlias = Any
"""Prompts of any kind: texts, conversations, or an int64 tensor ``[n]`` of numbers of prompts."""

Responses: TypeAlias = Any
"""For each prompt its responses: lists of texts, or an int64 tensor ``[n, K]`` of numbers of answers."""


@dataclass(frozen=True)
class ResponseScores:
    """How probable ``K`` responses to each of ``n`` prompts are.

    ``log_probability [n, K]``: summed over the tokens of a response, its end included, given the prompt; nats.
    ``length [n, K]``: how many tokens that is; ones where a response is one symbol.
    ``tokens [n, K, T]``: log-probabilities of the single tokens, 0 beyond a response's end; None where not asked for.
    """

    log_probability: Tensor
    length: Tensor
    tokens: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """The log-probability per token ``[n, K]``."""
        return self.log_probability / self.length.clamp_min(1)

    @property
    def mask(self) -> Tensor:
        """Which of ``tokens`` are of a response: bool ``[n, K, T]``. Raises ValueError where there are no tokens."""
        if self.tokens is None:
            raise ValueError("these scores hold no single tokens")
        return torch.arange(self.tokens.shape[-1], device=self.length.device) < self.length.unsqueeze(-1)

    def detach(self) -> ResponseScores:
        """The same without a graph: what a sampler or a reference says."""
        tokens = None if self.tokens is None else self.tokens.detach()
        return ResponseScores(self.log_probability.detach(), self.length, tokens)


class Policy(Protocol):
    """What on-policy procedures ask of a policy; tables, small networks and language models alike."""

    def sample(self, prompts: Prompts, count: int, *, generator: torch.Generator | None = None) -> Responses:
        """``count`` independent responses to each prompt."""
        ...

    def scores(self, prompts: Prompts, responses: Responses, *, tokens: bool = False) -> ResponseScores:
        """How probable responses are, with a graph where gradients are enabled."""
        ...
