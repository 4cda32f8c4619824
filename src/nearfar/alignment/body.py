"""A causal language model taken apart: layers that give hidden states, and the head that makes logits of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nearfar.encoders.encode import evaluating
from nearfar.errors import ModelError

_PROBE = 5
"""Tokens that a model is tried on."""

HALF_TOLERANCE, TOLERANCE = 0.1, 1e-3
"""How far two ways to the same logits may be apart, in standard deviations of the logits."""


@dataclass(frozen=True)
class Head:
    """How logits are made of hidden states: ``cap(scale (W h + b))``; see
    :func:`nearfar.alignment.head.token_log_probabilities`."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    soft_cap: float | None


def causal_model(model: nn.Module) -> Any:
    """The ``transformers`` model with its head inside ``model``, which may be peft's or torch's wrapper around it.

    Its adapters work as they do in the wrapper. Raises :class:`ModelError` for prompt-learning adapters, which put
    tokens of their own before every sequence, and for what is no causal language model.
    """
    inner: Any = model
    if isinstance(inner, nn.parallel.DistributedDataParallel):
        inner = inner.module
    if hasattr(inner, "get_base_model"):
        settings: Any = inner.peft_config[inner.active_adapter]
        if settings.is_prompt_learning:
            raise ModelError(
                f"adapters of the kind {settings.peft_type} put tokens of their own before every sequence, which "
                "scores of responses do not know",
                hint="use LoRA or another adapter of the layers",
            )
        inner = inner.get_base_model()
    if getattr(inner, "base_model", inner) is inner or getattr(inner, "get_output_embeddings", None) is None:
        raise ModelError(f"{type(inner).__name__} is no causal language model of transformers")
    return inner


def hidden_states(model: nn.Module, ids: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
    """What the last layer gives, after its norm: ids ``[b, L]`` -> ``[b, L, d]``.

    ``positions [b, L]``: default counted from 0. ``mask [b, 1, L, L]`` (bool): who may look at whom, default what came
    before.
    """
    inner = causal_model(model)
    if not ids.numel():
        return torch.zeros(*ids.shape, width_of(inner), dtype=inner.dtype, device=ids.device)
    extra: dict[str, Any] = {}
    if positions is not None:
        extra["position_ids"] = positions
    if mask is not None:
        extra["attention_mask"] = mask if attention(inner) == "sdpa" else _added(mask, inner.dtype)
    states: Tensor = inner.base_model(input_ids=ids, use_cache=False, **extra).last_hidden_state
    return states


def architecture(model: nn.Module) -> str:
    """The name of the language model's class; torch puts a word before it where weights are shared out."""
    return type(causal_model(model)).__name__.removeprefix("FSDP")


def attention(inner: Any) -> str:
    """How the model computes attention: "sdpa", "eager", ..."""
    return str(getattr(inner.config, "_attn_implementation", "eager"))


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as what attention computed step by step adds to its scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def width_of(model: nn.Module) -> int:
    """The dimension of the hidden states."""
    return int(causal_model(model).config.get_text_config().hidden_size)


_checked: WeakKeyDictionary[nn.Module, tuple[float, float | None]] = WeakKeyDictionary()


def head_of(model: nn.Module) -> Head:
    """The head of ``model`` as it is now, adapters included; its matrix is the model's own, not a copy.

    The first time, its logits are compared with the model's own on a few tokens. Raises :class:`ModelError` where they
    differ: then the architecture does something between its last layer and its logits that is not known here.
    """
    inner = causal_model(model)
    output = inner.get_output_embeddings()
    if output is None:
        raise ModelError(f"{type(inner).__name__} has no output matrix")
    weight, bias = _matrix(output)
    if inner not in _checked:
        settings = _settings(inner)
        _compare(inner, Head(weight, bias, *settings))
        _checked[inner] = settings
    return Head(weight, bias, *_checked[inner])


def _settings(inner: Any) -> tuple[float, float | None]:
    """Scale and soft cap of the logits, by the names that architectures have for them."""
    config = inner.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
    soft_cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and later
    return scale, None if soft_cap is None else float(soft_cap)


def _matrix(output: Any) -> tuple[Tensor, Tensor | None]:
    """Matrix and bias of an output layer, with what peft put around it."""
    if hasattr(output, "modules_to_save"):
        replaced = output.modules_to_save
        inactive = output.disable_adapters or output.active_adapter not in replaced
        output = output.original_module if inactive else replaced[output.active_adapter]
    if not hasattr(output, "base_layer"):
        return output.weight, getattr(output, "bias", None)
    weight, bias = _matrix(output.base_layer)
    if not output.disable_adapters and not output.merged:
        for name in output.active_adapters:
            if name in output.lora_A:
                weight = weight + output.get_delta_weight(name)
    return weight, bias


def _compare(inner: Any, head: Head) -> None:
    vocabulary = head.weight.shape[0]
    ids = (torch.arange(_PROBE, device=head.weight.device) * 7 + 3)[None] % vocabulary
    with evaluating(inner), torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
        given = inner(input_ids=ids, use_cache=False).logits.float()
        logits = hidden_states(inner, ids, None, None).float() @ head.weight.T.float()
    logits = head.scale * (logits if head.bias is None else logits + head.bias)
    if head.soft_cap is not None:
        logits = head.soft_cap * torch.tanh(logits / head.soft_cap)
    allowed = TOLERANCE if inner.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
    apart = float((logits - given).abs().max()) if logits.shape == given.shape else float("inf")
    if apart > allowed * float(given.std()) + 1e-6:  # what is not finite says nothing
        raise ModelError(
            f"the logits of {type(inner).__name__} are not its output matrix times its last hidden states (they differ "
            f"by up to {apart:.3g})",
            hint="scores of responses are known for architectures with a plain, scaled or soft-capped head",
        )
