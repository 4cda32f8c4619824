"""Whether a label fits a text: a score of two embeddings, as a new head or by their cosine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.contrast import normalize
from nearfar.encoders.perceptron import Perceptron


class Matcher(nn.Module):
    """``MLP([x; l; x * l])``, the logit that label l belongs to text x (CLESS; Rethmeier and Augenstein, 2020).

    ``matcher(x [..., d], l [..., d]) -> [...]``, leading dimensions broadcast. Its sigmoid is the probability, for
    labels that it was never trained on too: a new label needs an embedding and no new weight.

    Arguments: ``dimension``: d; ``hidden``: width of the one hidden layer, default d. Raises
    :class:`~nearfar.errors.UsageError` for sizes below 1.
    """

    def __init__(self, dimension: int, hidden: int | None = None) -> None:
        super().__init__()
        self.perceptron = Perceptron((3 * dimension, dimension if hidden is None else hidden, 1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        product = x * label
        parts = [x.expand_as(product), label.expand_as(product), product]
        logit: Tensor = self.perceptron(torch.cat(parts, -1))[..., 0]
        return logit


class CosineMatcher(nn.Module):
    """``exp(a) cos(x, l) + b`` with learned a and b: a score that the embeddings keep without this head.

    Arguments: ``scale``: exp(a) at the start, default 10; ``bias``: b at the start, default -5 (a text and an
    unrelated label begin as a mismatch; SigLIP, Zhai et al., 2023, begins at 10 and -10).
    """

    def __init__(self, scale: float = 10.0, bias: float = -5.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        cosine = (normalize(x) * normalize(label)).sum(-1)
        logit: Tensor = self.log_scale.exp() * cosine + self.bias
        return logit
