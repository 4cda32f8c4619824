"""Views inside an encoder: of what its embedding layer gives, ``[n, L, d]``, before any layer has seen it.

A latent view is a callable ``view(inputs [n, L, d], words [n, L], generator=None) -> inputs``, where ``words`` says
which tokens are words (:func:`~nearfar.encoders.masked_language.is_word`); :func:`encoded` puts it between embedding
layer and layers of a :class:`~nearfar.encoders.states.TokenEncoder`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from nearfar.contrast import normalize
from nearfar.contrast.precision import at_least_float32
from nearfar.encoders.dropout_rates import dropout_rate
from nearfar.encoders.masked_language import is_word
from nearfar.encoders.states import TokenEncoder
from nearfar.views.base import checked_range, normal, uniform
from nearfar.views.embedding import EmbeddingView, FeatureCutoff, TokenCutoff
from nearfar.views.text.base import share_of
from nearfar.views.text.masking import in_run

LatentView: TypeAlias = Callable[..., Tensor]
"""``view(inputs [n, L, d], words [n, L], generator=None) -> inputs [n, L, d]``."""


class Latent:
    """Base of the latent views: texts are changed with probability ``p`` each; what is random comes from ``generator``.

    A subclass writes :meth:`change`. Gradients pass through.
    """

    def __init__(self, p: float = 1.0) -> None:
        self.p = share_of(f"{type(self).__name__}: p", p)

    def __call__(self, inputs: Tensor, words: Tensor, generator: torch.Generator | None = None) -> Tensor:
        changed = self.change(inputs, words, generator)
        if self.p == 1:
            return changed
        chosen = uniform(len(inputs), 1, 1, generator=generator).to(inputs.device) < self.p
        return torch.where(chosen, changed, inputs)

    def change(self, inputs: Tensor, words: Tensor, generator: torch.Generator | None) -> Tensor:
        """A new version of every text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class _OfEmbeddings(Latent):
    """A view of embeddings as a latent one; ``only_words``: special tokens and padding stay as they are."""

    only_words = True

    def __init__(self, view: EmbeddingView, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.view = view

    def change(self, inputs: Tensor, words: Tensor, generator: torch.Generator | None) -> Tensor:
        changed: Tensor = self.view(inputs, generator)
        return torch.where(words[:, :, None], changed, inputs) if self.only_words else changed


class WordCutoff(_OfEmbeddings):
    """The vectors of words set to 0 (Shen et al., 2020; ConSERT): :class:`~nearfar.views.TokenCutoff`, of words alone.

    Arguments: ``rate``: each word's probability, default 0.15 (ConSERT); ``p``: default 1.
    """

    def __init__(self, rate: float = 0.15, *, p: float = 1.0) -> None:
        super().__init__(TokenCutoff(rate), p=p)


class DimensionCutoff(_OfEmbeddings):
    """Dimensions set to 0 in all tokens of a text (Shen et al., 2020; ConSERT): :class:`~nearfar.views.FeatureCutoff`,
    of special tokens too.

    Arguments: ``rate``: each dimension's probability, default 0.2 (ConSERT); ``p``: default 1.
    """

    only_words = False

    def __init__(self, rate: float = 0.2, *, p: float = 1.0) -> None:
        super().__init__(FeatureCutoff(rate), p=p)


class SpanCutoff(Latent):
    """The vectors of a random run of ``max(1, floor(share * words))`` words set to 0 (Shen et al., 2020).

    A text without words stays as it is.

    Arguments: ``share``: of the words, default 0.1; ``p``: default 1.
    """

    def __init__(self, share: float = 0.1, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.share = share_of("SpanCutoff: share", share)

    def change(self, inputs: Tensor, words: Tensor, generator: torch.Generator | None) -> Tensor:
        length = (self.share * words.sum(1, keepdim=True) + 1e-5).long().clamp_min(1)
        run = in_run(words, words.cumsum(1) - 1, length, generator)
        return inputs.masked_fill(run[:, :, None], 0)


class GaussianNoise(Latent):
    """Gaussian noise on the vectors of words, of a length that is on average ``size`` times the vector's own.

    ``x + size |x| g / sqrt(d)``, g standard normal in d dimensions.

    Arguments: ``size``: a number or a range drawn for each text, default 0.1; ``p``: default 1.
    """

    def __init__(self, size: float | tuple[float, float] = 0.1, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.size = checked_range("GaussianNoise: size", size, 0, 1e9)

    def change(self, inputs: Tensor, words: Tensor, generator: torch.Generator | None) -> Tensor:
        values = at_least_float32(inputs)
        low, high = self.size
        size = uniform(len(inputs), 1, 1, low=low, high=high, like=values, generator=generator)
        noise = normal(*inputs.shape, like=values, generator=generator) / inputs.shape[-1] ** 0.5
        length: Tensor = torch.linalg.vector_norm(values.detach(), dim=-1, keepdim=True)
        changed: Tensor = values + words[:, :, None] * size * length * noise
        return changed.to(inputs.dtype)


class HiddenMixup(Latent):
    """Each text mixed with a random other of the batch: ``a x_i + (1 - a) x_j``, token by token (MixText; Chen et al.,
    2020).

    ``a`` is from Beta(alpha, alpha), or 1 minus that where it is larger, so that at least half remains text i's own. A
    token where j has no word stays as it is: lengths are those of text i, special tokens stay. A text alone stays too.

    Arguments: ``alpha`` > 0, default 0.2; ``p``: default 1.
    """

    def __init__(self, alpha: float = 0.2, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.alpha = share_of("HiddenMixup: alpha", alpha, least=1e-3, most=1e3)

    def change(self, inputs: Tensor, words: Tensor, generator: torch.Generator | None) -> Tensor:
        n = len(inputs)
        if n < 2:
            return inputs
        step = 1 + (uniform(n, generator=generator).to(inputs.device) * (n - 1)).long().clamp_max(n - 2)
        partner = (torch.arange(n, device=inputs.device) + step) % n
        own = _beta(n, self.alpha, generator).to(inputs.device)[:, None, None]
        own = torch.maximum(own, 1 - own).to(inputs.dtype)
        both = (words & words[partner])[:, :, None]
        return torch.where(both, own * inputs + (1 - own) * inputs[partner], inputs)


def perturbation(gradient: Tensor, words: Tensor, size: float) -> Tensor:
    """``size g / |g|``: the step that raises a loss most, of the length ``size`` for each text (FGM; Miyato et al.,
    2017).

    ``gradient [n, L, d]`` of the loss by the inputs; |g| is over all words of a text, whose other tokens have no step.
    Where the gradient of a text is 0 there is no step. ``[n, L, d]``, no gradient follows it.
    """
    step = torch.where(words[:, :, None], gradient.detach(), 0)
    flat: Tensor = normalize(at_least_float32(step).flatten(1))
    return (size * flat).view(gradient.shape).to(gradient.dtype)


class Adversarial:
    """The step that makes a text harder to find: :func:`perturbation` by the loss of the views without it.

    ``adversarial(loss, inputs, words)`` gives the ``inputs`` with the step; gradients pass through the inputs, not
    through the step. It costs a pass and a half more.

    Arguments: ``size``: the length of a text's step, default 1 (FGM's usual epsilon; ConSERT searches).
    """

    def __init__(self, size: float = 1.0) -> None:
        self.size = share_of("Adversarial: size", size, most=1e9)

    def __call__(self, loss: Tensor, inputs: Tensor, words: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, inputs, retain_graph=True)
        return inputs + perturbation(gradient, words, self.size)

    def __repr__(self) -> str:
        return f"Adversarial(size={self.size!r})"


class EncoderDropout:
    """The encoder's own dropout at another rate (SimCSE's view; SupCL-Seq by several rates).

    A context: ``with EncoderDropout(0.2)(encoder): encoder(...)``. Dropout acts in training mode alone.

    Arguments: ``rate`` in [0, 1), default 0.1 (SimCSE's).
    """

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = share_of("EncoderDropout: rate", rate, most=1 - 1e-6)

    def __call__(self, encoder: nn.Module) -> AbstractContextManager[None]:
        return dropout_rate(encoder, self.rate)

    def __repr__(self) -> str:
        return f"EncoderDropout(rate={self.rate!r})"


def encoded(
    encoder: TokenEncoder,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    view: LatentView | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The embeddings ``[n, d]`` of ``ids [n, L]`` with ``view`` between the embedding layer and the first layer."""
    inputs = encoder.embed(ids)
    if view is not None:
        inputs = view(inputs, is_word(ids, encoder.special, mask), generator)
    return encoder.pool(encoder.states(ids, mask, inputs=inputs))


def _beta(count: int, alpha: float, generator: torch.Generator | None) -> Tensor:
    """``count`` numbers from Beta(alpha, alpha): of two Gammas, because torch's Beta takes no generator."""
    device = "cpu" if generator is None else generator.device
    shape = torch.full((2, count), alpha, dtype=torch.float64, device=device)
    gammas = torch._standard_gamma(shape, generator=generator).clamp_min(1e-300)
    return gammas[0] / gammas.sum(0)
