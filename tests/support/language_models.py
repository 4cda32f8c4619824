"""Small causal language models of many architectures, and rows of tokens for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nearfar.data.preferences.tokens import TokenisedRow

VOCABULARY = 61
_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
_LLAMA = {**_SIZES, "intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 64}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 64}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _LLAMA),
    "qwen2": ("Qwen2", _LLAMA),
    "qwen3": ("Qwen3", {**_LLAMA, "head_dim": 12}),
    "phi": ("Phi", {**_LLAMA, "num_key_value_heads": 2}),  # its head has a bias
    "gpt2": ("GPT2", _GPT2),
    "gpt-neox": ("GPTNeoX", {**_SIZES, "intermediate_size": 32, "max_position_embeddings": 64}),
    "opt": ("OPT", {**_SIZES, "ffn_dim": 32, "word_embed_proj_dim": 24, "max_position_embeddings": 64}),
    "bloom": ("Bloom", {"vocab_size": VOCABULARY, "hidden_size": 24, "n_layer": 2, "n_head": 2}),  # alibi
    "cohere": ("Cohere", {**_LLAMA, "logit_scale": 0.25}),
    "granite": ("Granite", {**_LLAMA, "logits_scaling": 3.0}),
    "gemma2": ("Gemma2", {**_LLAMA, "head_dim": 12, "final_logit_softcapping": 2.0, "sliding_window": 4}),
    "mistral": ("Mistral", {**_LLAMA, "head_dim": 12, "sliding_window": 4}),
}
SHARING = ("llama", "qwen2", "qwen3", "phi", "gpt2", "gpt-neox", "opt", "cohere", "granite")
"""Those that can compute a prompt once for several responses."""


def causal(name: str, *, dtype: torch.dtype = torch.float32, attention: str | None = None, **changes: Any) -> Any:
    """A model in evaluation mode whose logits are of size 1, not near 0."""
    import transformers

    kind, settings = ARCHITECTURES[name]
    config = getattr(transformers, f"{kind}Config")(
        **settings, **changes, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    if attention is not None:
        config._attn_implementation = attention
    torch.manual_seed(0)
    model = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    return model.to(dtype).eval()


def rows(*shapes: tuple[int, tuple[int, ...]], seed: int = 0) -> list[TokenisedRow]:
    """Rows of random tokens: the length of the prompt, the lengths of its responses."""
    draw = np.random.default_rng(seed)

    def tokens(count: int) -> Any:
        return draw.integers(3, VOCABULARY, count, np.int32)

    return [TokenisedRow(tokens(prompt), tuple(tokens(each) for each in responses)) for prompt, responses in shapes]


RAGGED = ((7, (3, 5)), (2, (4,)), (9, (1, 2, 6)), (1, (2, 2)))
"""Prompts of different lengths with different numbers of responses, for :func:`rows`."""


def plainly(model: Any, given: list[TokenisedRow], temperature: float = 1.0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Log-probabilities of the responses, each by the model's own forward of one sequence, and of their tokens."""
    totals, tokens = [], []
    for row in given:
        for response in row.responses:
            ids = torch.from_numpy(np.concatenate([row.prompt, response]).astype(np.int64))
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
            log_p = torch.log_softmax(logits.double() / temperature, 1)
            start = len(row.prompt) - 1
            found = torch.stack([log_p[start + place, token] for place, token in enumerate(response.tolist())])
            tokens.append(found)
            totals.append(found.sum())
    return torch.stack(totals), tokens
