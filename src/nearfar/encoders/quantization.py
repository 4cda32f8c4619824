"""Quantising heads: embeddings become codes out of a few, with gradients that pass straight through."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.encoders.heads import Prototypes
from nearfar.errors import UsageError
from nearfar.objectives import sinkhorn


class ProductQuantizer(nn.Module):
    """Codewords chosen by Gumbel-softmax, one of each group (vq-wav2vec, wav2vec 2.0).

    ``[..., dimension] -> [..., outputs]``. A linear map gives ``groups x codes`` logits l. In training mode the code of
    a group is ``argmax_k (l_k + g_k)`` with Gumbel noise g from torch's global generator, in evaluation mode
    ``argmax_k l_k``; the output is the codewords of all groups side by side. The gradient is that of the softmax in the
    code's place. :meth:`perplexity` says how many codewords are in use.

    Arguments:
        dimension: of the embeddings. outputs: of the result, a multiple of ``groups``.
        groups: G, default 2; codes: V in each group, default 320 (both papers).
        temperature: of the softmax, default 2 (from where both papers lower it to 0.5: set :attr:`temperature`).

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1, outputs that cannot be divided, a temperature <= 0.
    """

    def __init__(
        self, dimension: int, outputs: int, *, groups: int = 2, codes: int = 320, temperature: float = 2.0
    ) -> None:
        super().__init__()
        if min(dimension, outputs, groups, codes) < 1 or outputs % groups:
            raise UsageError(
                f"a quantizer needs sizes of at least 1 and outputs that are a multiple of the groups, got dimension "
                f"{dimension}, outputs {outputs}, groups {groups} and codes {codes}"
            )
        if not 0 < temperature < math.inf:
            raise UsageError(f"temperature must be a finite number > 0, got {temperature}")
        self.groups, self.codes = groups, codes
        self.temperature = temperature
        self.logits = nn.Linear(dimension, groups * codes)
        self.codewords = nn.Parameter(torch.randn(groups, codes, outputs // groups) / (outputs // groups) ** 0.5)

    def code_logits(self, x: Tensor) -> Tensor:
        """The logits ``[..., groups, codes]``."""
        logits: Tensor = self.logits(x).unflatten(-1, (self.groups, self.codes))
        return logits

    def code_numbers(self, x: Tensor) -> Tensor:
        """The codes ``[..., groups]`` (int64) without noise."""
        return self.code_logits(x).argmax(-1)

    @torch.no_grad()
    def perplexity(self, x: Tensor) -> float:
        """``exp`` of the entropy of the mean code probabilities of the rows of ``x``, averaged over groups: in
        [1, codes], about the number of codewords in use. wav2vec 2.0 keeps it high by a penalty of its own."""
        mean = torch.softmax(self.code_logits(x), -1).flatten(0, -3).mean(0)
        return float((-(mean * mean.clamp_min(1e-12).log()).sum(-1)).exp().mean())

    def forward(self, x: Tensor) -> Tensor:
        logits = self.code_logits(x)
        if self.training:
            chosen = F.gumbel_softmax(logits, tau=self.temperature, hard=True)
        else:
            soft = torch.softmax(logits / self.temperature, -1)
            chosen = F.one_hot(logits.argmax(-1), self.codes).to(soft) - soft.detach() + soft
        return torch.einsum("...gk,gkd->...gd", chosen, self.codewords).flatten(-2)


class BalancedCodes(nn.Module):
    """Soft codes over prototypes that a batch uses about equally (SwaV): ``[n, dimension] -> [n, prototypes]``.

    In training mode the value is :func:`~nearfar.objectives.sinkhorn` of the scores against
    :class:`~nearfar.encoders.heads.Prototypes`, the gradient that of ``softmax(scores / temperature)``; in evaluation
    mode, where a row's code must not depend on its batch, the value is that softmax too. Rows sum to 1. SwaV itself
    predicts one view's codes from another's, which is the objective :class:`~nearfar.objectives.SwaV`; as a head the
    codes can be compared by any score.

    Arguments:
        dimension: of the embeddings. prototypes: K.
        temperature: default 0.1. epsilon: of the codes, default 0.05; iterations, default 3 (SwaV's).

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1 and a temperature or epsilon <= 0.
    """

    def __init__(
        self,
        dimension: int,
        prototypes: int,
        *,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf or not 0 < epsilon < math.inf or iterations < 1:
            raise UsageError(
                f"temperature and epsilon must be finite numbers > 0 and iterations at least 1, got {temperature}, "
                f"{epsilon} and {iterations}"
            )
        self.prototypes = Prototypes(prototypes, dimension)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.prototypes(x)
        soft = torch.softmax(scores / self.temperature, -1)
        if not self.training:
            return soft
        return sinkhorn(scores.detach(), self.epsilon, self.iterations) - soft.detach() + soft
