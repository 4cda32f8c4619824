"""What a fine-tuned language model's logits say of values: inverse soft Q-learning read backwards.

A policy that is the optimum of some rewards under entropy or under a reference has them in its logits (Wang et al.,
2025, arXiv:2507.00018, after Garg et al., 2021): ``Q = beta l``, ``V = beta log sum exp l`` and
``log p = (Q - V) / beta``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.contrast.precision import at_least_float32
from nearfar.objectives.preference import positive


def action_values(logits: Tensor, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    """``Q(s, a) = beta l(s, a)`` ``[..., A]`` and ``V(s) = beta log sum_a exp l(s, a)`` ``[...]`` of logits l.

    ``Q`` is known up to a constant of each state, which ``V`` has as well. ``beta`` > 0, default 1.
    """
    values = at_least_float32(logits)
    beta = positive("action_values", "beta", beta)
    return beta * values, beta * torch.logsumexp(values, -1)


def token_rewards(
    log_probability: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    reference: Tensor | None = None,
    beta: float = 1.0,
) -> Tensor:
    """The implicit reward ``[n, t]`` of each token of completions; 0 where the mask is.

    ``r(s, a) = beta (log p(a|s) - log p_ref(a|s)) + V(s) - V(s')``, V 0 behind the last token; without a reference
    ``Q(s, a) - V(s')``. Over a completion it telescopes to ``beta sum (log p - log p_ref) + V(s_0)``, whose last term
    is the same for all completions of a prompt.

    ``log_probability``, ``reference [n, t]``: of the tokens. ``value [n, t]``: V of the state in which each token is
    chosen (:func:`action_values` of the logits that predict it). ``mask [n, t]``: 1 or True for tokens of the
    completion, which stand together.
    """
    given = [log_probability, value, mask, *(() if reference is None else (reference,))]
    if log_probability.dim() != 2 or any(each.shape != log_probability.shape for each in given):
        raise ValueError(f"token_rewards: all must be [n, t] alike, got {[list(each.shape) for each in given]}")
    kept = mask > 0
    state = torch.where(kept, at_least_float32(value), 0)
    after = torch.cat([state[:, 1:], torch.zeros_like(state[:, :1])], 1)
    ratio = at_least_float32(log_probability)
    if reference is not None:
        ratio = ratio - at_least_float32(reference)
    return torch.where(kept, positive("token_rewards", "beta", beta) * ratio + state - after, 0)
