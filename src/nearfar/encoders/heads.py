"""Heads: what stands between an encoder and an objective and is dropped after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.contrast import normalize
from nearfar.encoders.perceptron import Perceptron
from nearfar.errors import UsageError


class Projection(nn.Module):
    """The head an objective sees: ``[..., widths[0]] -> [..., widths[-1]]``.

    Two widths make a linear map (Instance Discrimination, MoCo), more a perceptron with ReLU between (SimCLR, MoCo v2:
    one hidden layer of the encoder's width, 128 outputs; Barlow Twins, VICReg: three layers of 8,192).

    Arguments:
        widths: sizes from input to output.
        batch_norm: normalise hidden layers over the batch (input ``[n, d]`` only).
        last: ``"batch"`` or ``"layer"`` normalises the output, over the batch without scale and shift (SimSiam) or over
            its dimensions with both; default none.
        normalize: divide each output by its length, after ``last``; a zero vector stays zero. Objectives on cosines do
            so by themselves.

    Raises :class:`~nearfar.errors.UsageError` for widths or a ``last`` that do not exist.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        batch_norm: bool = False,
        last: Literal["batch", "layer"] | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if last not in (None, "batch", "layer"):
            raise UsageError(f"last is {last!r}; it must be 'batch', 'layer' or None")
        self.perceptron = Perceptron(widths, batch_norm=batch_norm)
        self.last: nn.Module = nn.Identity()
        if last == "batch":
            self.last = nn.BatchNorm1d(widths[-1], affine=False)
        elif last == "layer":
            self.last = nn.LayerNorm(widths[-1])
        self.normalize = normalize

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.perceptron(x))
        return normalize(y) if self.normalize else y


class Prediction(nn.Module):
    """The predictor of BYOL and SimSiam: ``Linear, BatchNorm, ReLU, Linear``, ``[n, dimension] -> [n, dimension]``.

    Give it to the objective, ``SimSiam(Prediction(256))``, or apply it outside. Without it both collapse.

    Arguments:
        dimension: of the embeddings.
        hidden: width between; default a quarter of ``dimension``, at least 1 (SimSiam's bottleneck; BYOL: 4,096 for
            dimension 256).
        batch_norm: normalise the hidden layer over the batch, default True (both papers).

    Raises :class:`~nearfar.errors.UsageError` for a width below 1.
    """

    def __init__(self, dimension: int, hidden: int | None = None, *, batch_norm: bool = True) -> None:
        super().__init__()
        hidden = max(1, dimension // 4) if hidden is None else hidden
        self.perceptron = Perceptron((dimension, hidden, dimension), batch_norm=batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.perceptron(x)
        return y


class PredictionBlocks(nn.Module):
    """The predictor of UNSEE: ``blocks`` times ``Linear, BatchNorm, ReLU, Linear, ReLU, Linear``, one after the other.

    Arguments:
        dimension: of the embeddings, ``[n, dimension] -> [n, dimension]``.
        blocks: default 4 (the official code; 3 for BYOL).
        factor: inner layers have ``factor * dimension`` units; default 10 (71 million weights for 384 dimensions and 4
            blocks).

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1. Training needs two rows, for the batch's statistics.
    """

    def __init__(self, dimension: int, *, blocks: int = 4, factor: float = 10.0) -> None:
        super().__init__()
        hidden = round(factor * dimension)
        if min(dimension, blocks, hidden) < 1:
            raise UsageError(f"prediction blocks need sizes of at least 1, got {dimension}, {blocks} and {hidden}")
        layers: list[nn.Module] = []
        for _ in range(blocks):
            layers += [nn.Linear(dimension, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
            layers += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, dimension)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class WideHead(nn.Module):
    """The head of SG-BERT: ``Linear, GELU, Linear, GELU``, ``[..., dimension] -> [..., width]``.

    Arguments: ``dimension`` of the embeddings; ``width`` of both layers, default 4096 (Kim et al., 2021).

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1.
    """

    def __init__(self, dimension: int, width: int = 4096) -> None:
        super().__init__()
        if min(dimension, width) < 1:
            raise UsageError(f"a head has sizes of at least 1, got {dimension} and {width}")
        self.layers = nn.Sequential(nn.Linear(dimension, width), nn.GELU(), nn.Linear(width, width), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class Pooler(nn.Module):
    """``tanh(W x + b)``, ``[..., dimension] -> [..., width]``: BERT's pooler, the head of SimCSE and its family.

    Arguments:
        dimension: of the embeddings.
        width: of the output, default ``dimension``.

    Raises :class:`~nearfar.errors.UsageError` for sizes below 1.
    """

    def __init__(self, dimension: int, width: int | None = None) -> None:
        super().__init__()
        width = dimension if width is None else width
        if min(dimension, width) < 1:
            raise UsageError(f"a pooler has sizes of at least 1, got {dimension} and {width}")
        self.dense = nn.Linear(dimension, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x))


class Prototypes(nn.Module):
    """Scores of embeddings against learned prototypes: ``[..., dimension] -> [..., count]``.

    ``"cosine"`` scores are ``z/|z| . c/|c|``, in [-1, 1]: the last layer of SwaV and of DINO (a weight-normalised map
    of normalised embeddings). ``"linear"`` ones are ``z . c``, prototypes as they are: with unit embeddings and
    :meth:`normalize_` after each step they are what SwaV's official code has. Both go into
    ``SwaV(...).of_scores([s1, s2])`` and ``DINO()(s1, s2, targets=...)``.

    Arguments:
        count: K prototypes. dimension: of the embeddings.
        score: ``"cosine"`` (default) or ``"linear"``.

    ``weight [count, dimension]`` starts as random unit rows. SwaV holds it still for the first epoch:
    ``prototypes.weight.requires_grad_(False)``.
    Raises :class:`~nearfar.errors.UsageError` for sizes below 1 or no such score.
    """

    def __init__(self, count: int, dimension: int, *, score: Literal["cosine", "linear"] = "cosine") -> None:
        super().__init__()
        if min(count, dimension) < 1:
            raise UsageError(f"prototypes: count and dimension must be at least 1, got {count} and {dimension}")
        if score not in ("cosine", "linear"):
            raise UsageError(f"prototypes: score must be 'cosine' or 'linear', got {score!r}")
        self.score = score
        self.weight = nn.Parameter(normalize(torch.randn(count, dimension)))

    @torch.no_grad()
    def normalize_(self) -> None:
        """Make every prototype a unit vector, in place; a zero one stays zero. Call it after the optimiser's step."""
        self.weight.copy_(normalize(self.weight))

    def forward(self, z: Tensor) -> Tensor:
        if z.shape[-1] != self.weight.shape[1]:
            raise ValueError(f"prototypes have {self.weight.shape[1]} dimensions, got embeddings {tuple(z.shape)}")
        if self.score == "linear":
            return z @ self.weight.T
        return normalize(z) @ normalize(self.weight).T
