"""A decoder that restores a sentence from its embedding and corrupted tokens (DenoSent)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import UsageError


class DenoisingDecoder(nn.Module):
    """All tokens of a sentence at once, from their corrupted embeddings and one vector (Wang et al., 2024).

    The embeddings are detached and dropped value by value with probability ``corruption`` (the rest times
    ``1 / (1 - corruption)``); post-norm transformer layers with ReLU attend to all of them, none is masked for the
    future, and to a memory of one token: the sentence's vector.

    Arguments:
        dimension: of tokens and of the sentence's vector, a multiple of ``heads``.
        layers: default 16. heads: default 1 (on a memory of one token several bring nothing). hidden: width of the
            feed-forward half, default 2,048. dropout: of the layers, default 0.1.
        corruption: in [0, 1), default 0.825. All defaults are the official code's for BERT-base.

    Called with what an embedding layer gave ``[n, L, d]``, the vectors ``[n, d]`` and ``mask [n, L]`` (the tokens there
    are); gives ``[n, L, d]`` for a masked-LM head. Padding takes no part. Raises UsageError for sizes that do not fit.
    """

    def __init__(
        self,
        dimension: int,
        *,
        layers: int = 16,
        heads: int = 1,
        hidden: int = 2048,
        dropout: float = 0.1,
        corruption: float = 0.825,
    ) -> None:
        super().__init__()
        if min(dimension, layers, heads, hidden) < 1 or dimension % heads:
            raise UsageError(
                f"dimension, layers, heads and hidden must be at least 1, dimension a multiple of heads, got "
                f"{dimension}, {layers}, {heads} and {hidden}"
            )
        if not 0 <= dropout < 1 or not 0 <= corruption < 1:
            raise UsageError(f"dropout and corruption must lie in [0, 1), got {dropout} and {corruption}")
        layer = nn.TransformerDecoderLayer(dimension, heads, hidden, dropout, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.corruption = corruption

    def forward(self, embedded: Tensor, sentence: Tensor, mask: Tensor) -> Tensor:
        # were they not detached, the embeddings would learn to survive the dropout, and the vector nothing
        corrupted = F.dropout(embedded.detach(), self.corruption, self.training)
        # an empty sentence attends to its padding, and to nothing else would be NaN
        there = mask.bool() | ~mask.bool().any(1, keepdim=True)
        restored: Tensor = self.decoder(corrupted, sentence[:, None], tgt_key_padding_mask=~there)
        return restored


def restoration_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """The mean of ``-log p(token)`` over k tokens, of ``logits [k, vocabulary]`` and ``ids [k]``; a scalar, 0 for none.

    Give the tokens that there are: a vocabulary is long, and padding costs nothing.
    """
    return F.cross_entropy(logits, ids, reduction="sum") / max(len(ids), 1)


@torch.no_grad()
def restored_share(logits: Tensor, ids: Tensor) -> Tensor:
    """The share, in [0, 1], of k tokens ``ids [k]`` that are the likeliest of ``logits [k, vocabulary]``; a scalar."""
    return (logits.argmax(-1) == ids).sum() / max(len(ids), 1)
