"""Log-probabilities of given tokens from hidden states: the softmax over a vocabulary without its matrix.

The logits of a few tokens at a time are computed, used and forgotten, forward and backward, so that memory grows with
the tokens and with the vocabulary, never with their product (as in fused linear cross-entropy).
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from nearfar.errors import UsageError

CHUNK_BYTES = 2**25
"""Of the logits that exist at once, where ``chunk`` is not given: 170 tokens of SmolLM2's vocabulary in float32."""


@overload
def token_log_probabilities(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: Literal[False] = False,
) -> Tensor: ...
@overload
def token_log_probabilities(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def token_log_probabilities(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """``log softmax(cap(scale (W h_i + b)) / temperature)[target_i]`` of each token ``[N]``, in nats.

    ``cap(z) = soft_cap tanh(z / soft_cap)``, or z without one. float32 for hidden states of float32 or less, whose
    products are summed in float32; float64 for float64. Gradients reach ``hidden``, ``weight`` and ``bias``, once
    (there are no second derivatives).

    Arguments:
        hidden: ``[N, d]``, what the last layer gives.
        weight: ``[V, d]``, the output matrix.
        target: ``[N]``, int64 in [0, V).
        bias: ``[V]``.
        scale: what logits are multiplied with, default 1 (Cohere's ``logit_scale``, one over Granite's
            ``logits_scaling``).
        soft_cap: > 0, default none (Gemma 2: 30).
        temperature: > 0, default 1.
        chunk: so many tokens at once; default what fits in :data:`CHUNK_BYTES`.
        entropy: also give ``-sum_v p_v log p_v`` of each token ``[N]``, through which gradients flow as well.

    Raises ValueError for shapes that do not fit, UsageError for numbers out of range.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1] or target.shape != hidden.shape[:1]:
        raise ValueError(
            "hidden, weight and target must be [N, d], [V, d] and [N], got "
            f"{list(hidden.shape)}, {list(weight.shape)} and {list(target.shape)}"
        )
    if temperature <= 0 or (soft_cap is not None and soft_cap <= 0) or (chunk is not None and chunk < 1):
        raise UsageError(f"temperature, soft_cap and chunk are above 0, got {temperature}, {soft_cap} and {chunk}")
    if chunk is None:
        chunk = max(1, CHUNK_BYTES // (weight.shape[0] * (8 if hidden.dtype == torch.float64 else 4)))
    settings = (float(scale), soft_cap, float(temperature), chunk, entropy)
    apply: Any = _TokenLogProbabilities.apply
    found, spread = apply(hidden, weight, bias, target, settings)
    return (found, spread) if entropy else found


_Settings = tuple[float, "float | None", float, int, bool]


class _TokenLogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, settings: _Settings
    ) -> tuple[Tensor, Tensor]:
        chunk, entropy = settings[3:]
        ctx.set_materialize_grads(False)
        log_probability = torch.empty(len(hidden), dtype=_accumulation(hidden.dtype), device=hidden.device)
        normaliser = torch.empty_like(log_probability)
        spread = torch.empty_like(log_probability) if entropy else log_probability.new_empty(0)
        # without a gradient for the weights, that of the hidden states is one vector a token, whatever comes from above
        early = ctx.needs_input_grad[0] and not any(ctx.needs_input_grad[1:3])
        slopes = torch.empty(hidden.shape, dtype=log_probability.dtype, device=hidden.device) if early else None
        spread_slopes = torch.empty_like(slopes) if slopes is not None and entropy else None
        with torch.autocast(hidden.device.type, enabled=False):
            matrix = _matrix(hidden, weight)
            for start in range(0, len(hidden), chunk):
                part = slice(start, start + chunk)
                logits = _logits(hidden[part], matrix, bias, settings)
                normaliser[part] = logits.logsumexp(1)
                log_probability[part] = _at(logits, target[part]) - normaliser[part]
                if entropy:
                    log_p = logits - normaliser[part, None]
                    spread[part] = -(log_p.exp() * log_p).sum(1)
                if slopes is not None:
                    ones = torch.ones_like(normaliser[part])
                    slope = _slope(
                        logits.clone() if entropy else logits, normaliser[part], target[part], ones, settings
                    )
                    slopes[part] = _product(slope, matrix)
                if spread_slopes is not None:
                    slope = _spread_slope(logits, normaliser[part], spread[part], ones, settings)
                    spread_slopes[part] = _product(slope, matrix)
        ctx.settings = settings
        ctx.early = early
        if early:
            ctx.save_for_backward(slopes, spread_slopes)
            ctx.given = hidden.dtype
        else:
            ctx.save_for_backward(hidden, weight, bias, target, normaliser, spread)
        return log_probability, spread

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor | None, spread_above: Tensor | None) -> tuple[Tensor | None, ...]:
        if ctx.early:
            slopes, spread_slopes = ctx.saved_tensors
            total = None if above is None else slopes * above[:, None]
            if spread_above is not None and spread_slopes is not None:
                more = spread_slopes * spread_above[:, None]
                total = more if total is None else total + more
            return (None if total is None else total.to(ctx.given)), None, None, None, None
        return (*_gradients(ctx, above, spread_above), None, None)


def _gradients(
    ctx: Any, above: Tensor | None, spread_above: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """d/d(hidden, weight, bias), the logits computed anew."""
    hidden, weight, bias, target, normaliser, spread = ctx.saved_tensors
    chunk, entropy = ctx.settings[3:]
    wide = normaliser.dtype
    wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
    of_hidden = torch.empty(hidden.shape, dtype=wide, device=hidden.device) if wants_hidden else None
    of_weight = torch.zeros(weight.shape, dtype=wide, device=hidden.device) if wants_weight else None
    of_bias = torch.zeros(weight.shape[0], dtype=wide, device=hidden.device) if wants_bias else None
    with torch.autocast(hidden.device.type, enabled=False):
        matrix = _matrix(hidden, weight)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = _logits(hidden[part], matrix, bias, ctx.settings)
            slope = None
            if entropy and spread_above is not None:
                slope = _spread_slope(logits, normaliser[part], spread[part], spread_above[part], ctx.settings)
            if above is not None:
                own = _slope(logits, normaliser[part], target[part], above[part], ctx.settings)
                slope = own if slope is None else slope.add_(own)
            if slope is None:
                slope = torch.zeros_like(logits)
            if of_hidden is not None:
                of_hidden[part] = _product(slope, matrix)
            if of_weight is not None:
                of_weight.addmm_(slope.T, hidden[part].to(wide))
            if of_bias is not None:
                of_bias.add_(slope.sum(0))
    return (
        None if of_hidden is None else of_hidden.to(hidden.dtype),
        None if of_weight is None else of_weight.to(weight.dtype),
        None if of_bias is None else of_bias.to(bias.dtype),
    )


def _accumulation(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _widened(hidden: Tensor) -> bool:
    """Whether products of half-precision numbers have to be taken of their float32 copies: only GPUs sum them in
    float32 as they are."""
    return hidden.dtype not in (torch.float16, torch.bfloat16) or hidden.device.type != "cuda"


def _matrix(hidden: Tensor, weight: Tensor) -> Tensor:
    return weight.detach().to(_accumulation(hidden.dtype) if _widened(hidden) else hidden.dtype)


def _logits(hidden: Tensor, matrix: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
    """``cap(scale (W h + b)) / temperature``, ``[t, V]``."""
    scale, soft_cap, temperature = settings[:3]
    if hidden.dtype == matrix.dtype and hidden.dtype in (torch.float16, torch.bfloat16):
        logits = torch.mm(hidden, matrix.T, out_dtype=torch.float32)
    else:
        logits = hidden.to(matrix.dtype) @ matrix.T
    if bias is not None:
        logits.add_(bias)
    if soft_cap is not None:
        return logits.mul_(scale / soft_cap).tanh_().mul_(soft_cap / temperature)
    return logits if scale == temperature else logits.mul_(scale / temperature)


def _at(rows: Tensor, target: Tensor) -> Tensor:
    return rows.gather(1, target[:, None]).squeeze(1)


def _slope(logits: Tensor, normaliser: Tensor, target: Tensor, above: Tensor, settings: _Settings) -> Tensor:
    """``above_i (1[v = target_i] - p_iv)`` times what leads from products to logits; overwrites ``logits``."""
    bend = _bend(logits, settings)
    slope = logits.sub_(normaliser[:, None]).exp_().mul_(-above[:, None])
    slope.scatter_add_(1, target[:, None], above[:, None])
    return slope.mul_(bend)


def _spread_slope(logits: Tensor, normaliser: Tensor, spread: Tensor, above: Tensor, settings: _Settings) -> Tensor:
    """``-above_i p_iv (log p_iv + entropy_i)`` times what leads from products to logits."""
    log_p = logits - normaliser[:, None]
    return (log_p.exp() * (log_p + spread[:, None])).mul_(-above[:, None]).mul_(_bend(logits, settings))


def _bend(logits: Tensor, settings: _Settings) -> Tensor | float:
    """The derivative of ``cap(scale z) / temperature`` by z."""
    scale, soft_cap, temperature = settings[:3]
    if soft_cap is None:
        return scale / temperature
    return (1 - (logits * (temperature / soft_cap)).square_()).mul_(scale / temperature)


def _product(slope: Tensor, matrix: Tensor) -> Tensor:
    if matrix.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(slope.to(matrix.dtype), matrix, out_dtype=torch.float32)
    return slope @ matrix
