"""Prompts with a few answers whose rewards are known, and draws of scored answers by somebody else's policies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import UsageError


@dataclass(frozen=True)
class Draws:
    """``n`` draws: ``prompt [n]``, ``answer [n, S]`` one of each sampler, independent; their ``reward [n, S]``."""

    prompt: Tensor
    answer: Tensor
    reward: Tensor

    def __len__(self) -> int:
        return len(self.prompt)


class ScoredAnswers:
    """``P`` prompts with ``A`` answers each: rewards, a reference policy, and the policies that answers come from.

    ``reward [P, A]``: of every answer. ``reference [P, A]``: logits of a reference policy, default uniform.
    ``samplers [S, P, A]``: probabilities of what :meth:`draw` draws from, each row summing to 1 and above 0 everywhere.
    All are kept in float64. Raises UsageError for shapes that do not fit, numbers that are not finite and samplers that
    are no such probabilities.
    """

    def __init__(self, reward: Tensor, samplers: Tensor, reference: Tensor | None = None) -> None:
        reference = torch.zeros_like(reward) if reference is None else reference
        self.reward, self.samplers, self.reference = (each.double() for each in (reward, samplers, reference))
        if self.reward.dim() != 2 or not self.reward.shape == self.reference.shape == self.samplers.shape[1:]:
            shapes = [list(each.shape) for each in (reward, reference, samplers)]
            raise UsageError(f"reward and reference must be [P, A] alike and samplers [S, P, A], got {shapes}")
        if not bool(torch.isfinite(self.reward).all() and torch.isfinite(self.reference).all()):
            raise UsageError("rewards and the reference's logits must be finite")
        if not bool((self.samplers > 0).all() and ((self.samplers.sum(2) - 1).abs() < 1e-6).all()):
            raise UsageError("samplers must be probabilities above 0 that sum to 1 over the answers of a prompt")

    def draw(self, count: int, *, generator: torch.Generator) -> Draws:
        """``count`` draws: a prompt, uniformly, and one answer to it by each sampler, with their rewards."""
        prompt = torch.randint(self.reward.shape[0], (count,), generator=generator)
        answer = torch.stack(
            [torch.multinomial(sampler[prompt], 1, generator=generator)[:, 0] for sampler in self.samplers], dim=1
        )
        return Draws(prompt, answer, self.reward[prompt].gather(1, answer))


def three_arms() -> ScoredAnswers:
    """The bandit of Contrastive Policy Gradient (arXiv:2406.19185): one prompt, three answers, a uniform reference.

    Rewards 2.5, 2 and 1; two samplers, both of which prefer the worst answer: (0.1, 0.2, 0.7) and (0.05, 0.05, 0.9).
    """
    return ScoredAnswers(torch.tensor([[2.5, 2.0, 1.0]]), torch.tensor([[[0.1, 0.2, 0.7]], [[0.05, 0.05, 0.9]]]))


def offset_answers(prompts: int = 20, answers: int = 6, *, offset: float = 3.0, seed: int = 0) -> ScoredAnswers:
    """Prompts of which some are answered well by everybody: rewards ``N(0, 1) + offset N(0, 1)``, the second the same
    for all answers to a prompt; reference and one sampler are softmaxes of ``N(0, 1)``, independent of each other."""
    generator = torch.Generator().manual_seed(seed)
    reward, reference, sampler = (torch.randn(prompts, answers, generator=generator) for _ in range(3))
    offsets = offset * torch.randn(prompts, 1, generator=generator)
    return ScoredAnswers(reward + offsets, torch.softmax(sampler.double(), 1)[None], reference)
