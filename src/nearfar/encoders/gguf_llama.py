"""GGUF files of the Llama architecture as folders of transformers: float32 safetensors, settings and tokenizer.

The file is read with the package ``gguf``; nothing in it is run. Each matrix is de-quantised; the rows of the query and
key matrices, which the format keeps interleaved for its own rotary embedding, are put back in their halves.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from nearfar.errors import MissingExtraError, ModelError, OutputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

TEXT = (
    "Water boils at a lower temperature on a mountain than at sea level, because the air pressure is lower there. "
    "For the same reason, food takes longer to cook. People who live in high places often use a pressure cooker, "
    "a pot with a tight lid that keeps the steam inside and raises the pressure."
)
"""What converted models are checked on."""

_CONTROL = 3
"""The type of tokens in a GGUF file that stand for no text."""

_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_DIGITS_APART = ("smollm",)
"""Tokenizers that set single digits apart and then split by bytes, by the name that the format has for them."""


def converted(file: Path, cache: Path, *, limit: float | None = None) -> Path:
    """The folder of transformers made of ``file``, in ``cache``; made once for a file's content.

    ``limit``: the highest perplexity on :data:`TEXT` that a good conversion can have; default the vocabulary's size,
    which is that of guessing.

    Raises :class:`ModelError` for a file that is not such a model or comes out wrong, OutputError where the cache
    cannot be written, :class:`MissingExtraError` without gguf or transformers.
    """
    folder = cache / f"{file.stem}-{_digest(file)}"
    if (folder / "config.json").is_file():
        return folder
    from nearfar.encoders.language_model import write_language_model

    model, tokenizer = read(file)
    found = perplexity(model, tokenizer)
    allowed = float(model.config.vocab_size) if limit is None else limit
    if not found <= allowed:
        raise ModelError(
            f"the model came out wrong: its perplexity on plain English is {found:.1f}, above {allowed:g}",
            where=str(file),
            hint="the file may be damaged, or of a variant of the architecture that is not known here",
        )
    try:
        write_language_model(model, tokenizer, folder)
    except OutputError:
        if not (folder / "config.json").is_file():  # another process may have been quicker
            raise
    return folder


def read(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in a GGUF file, float32, in evaluation mode, and its tokenizer.

    Raises :class:`ModelError` for what is no GGUF file, or another architecture than Llama's.
    """
    try:
        import gguf
    except ModuleNotFoundError:
        raise MissingExtraError("gguf", "align") from None
    from transformers import LlamaForCausalLM

    try:
        reader = gguf.GGUFReader(file)
    except Exception as error:  # whatever a damaged file makes the library raise
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ModelError(f"this is no GGUF file that can be read: {reason}", where=str(file)) from error
    fields = _Fields(file, reader)
    settings = _settings(fields)
    weights = _weights(file, reader, settings)
    settings.tie_word_embeddings = "lm_head.weight" not in weights
    with torch.device("meta"):
        model = LlamaForCausalLM(settings)
    model.to_empty(device="cpu")
    fresh = LlamaForCausalLM(_emptied(settings))  # what is computed from the settings: rotary frequencies
    model.model.rotary_emb = fresh.model.rotary_emb
    if settings.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    expected = {name: value.shape for name, value in model.state_dict().items()}
    if {name: value.shape for name, value in weights.items()} != expected:
        odd = sorted(set(expected) ^ set(weights)) or sorted(n for n in expected if expected[n] != weights[n].shape)
        raise ModelError(f"weights are missing, unknown or of another shape: {', '.join(odd[:4])}", where=str(file))
    model.load_state_dict(weights, assign=False)
    model.tie_weights()
    model.train(False)
    return model, _tokenizer(fields, file)


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str = TEXT) -> float:
    """``exp(-mean_t log p(t))`` of the tokens of ``text`` after the first."""
    ids = torch.tensor([tokenizer(text)["input_ids"]], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return math.exp(float(torch.nn.functional.cross_entropy(logits, ids[0, 1:])))


class _Fields:
    """What a GGUF file says beside its weights."""

    def __init__(self, file: Path, reader: Any) -> None:
        self.file = file
        self.fields = reader.fields

    def get(self, name: str, default: Any = None) -> Any:
        field = self.fields.get(name)
        return default if field is None else field.contents()

    def need(self, name: str) -> Any:
        found = self.get(name)
        if found is None:
            raise ModelError(f"the file does not say {name}", where=str(self.file))
        return found


def _settings(fields: _Fields) -> Any:
    """A ``LlamaConfig``."""
    from transformers import LlamaConfig

    kind = fields.need("general.architecture")
    if kind != "llama" or fields.get("llama.expert_count", 0):
        raise ModelError(
            f"the architecture is {kind!r}{' with experts' if kind == 'llama' else ''}; only plain Llama's can be read",
            where=str(fields.file),
            hint="transformers converts others: from_pretrained(folder, gguf_file=...), then save_pretrained",
        )
    if fields.get("llama.rope.scaling.type", "none") != "none":
        raise ModelError("its rotary embedding is scaled, which is not read here", where=str(fields.file))
    width, heads = fields.need("llama.embedding_length"), fields.need("llama.attention.head_count")
    special = {
        f"{ours}_token_id": fields.get(f"tokenizer.ggml.{theirs}_token_id")
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    return LlamaConfig(
        vocab_size=len(fields.need("tokenizer.ggml.tokens")),
        hidden_size=width,
        intermediate_size=fields.need("llama.feed_forward_length"),
        num_hidden_layers=fields.need("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=fields.get("llama.attention.head_count_kv", heads),
        head_dim=fields.get("llama.attention.key_length", width // heads),
        max_position_embeddings=fields.need("llama.context_length"),
        rms_norm_eps=fields.need("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": float(fields.get("llama.rope.freq_base", 10_000.0))},
        dtype="float32",
        **special,
    )


def _emptied(settings: Any) -> Any:
    """The same settings with layers of no size to speak of."""
    small = type(settings)(**settings.to_dict())
    small.num_hidden_layers, small.vocab_size = 0, 1
    small.pad_token_id = None
    return small


def _weights(file: Path, reader: Any, settings: Any) -> dict[str, torch.Tensor]:
    """The matrices by their names in transformers, float32."""
    import gguf

    found: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        name = _name(tensor.name)
        if name is None:
            if tensor.name.startswith("rope_freqs"):
                raise ModelError("its rotary embedding is scaled, which is not read here", where=str(file))
            continue
        values: npt.NDArray[np.float32] = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if ".q_proj." in name or ".k_proj." in name:
            values = _halves(values, settings.num_attention_heads if ".q_" in name else settings.num_key_value_heads)
        found[name] = torch.from_numpy(np.ascontiguousarray(values))
    return found


def _name(stored: str) -> str | None:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``; None for what is not known."""
    parts = stored.split(".")
    if parts[0] == "blk" and len(parts) == 4 and parts[2] in _LAYER:
        return f"model.layers.{parts[1]}.{_LAYER[parts[2]]}.{parts[3]}"
    if len(parts) == 2 and parts[0] in _OUTSIDE:
        return f"{_OUTSIDE[parts[0]]}.{parts[1]}"
    return None


def _halves(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows ``(0, h/2, 1, h/2 + 1, ...)`` of each head's h put back in order."""
    split = rows.reshape(heads, len(rows) // heads // 2, 2, *rows.shape[1:])
    found: npt.NDArray[np.float32] = split.swapaxes(1, 2).reshape(rows.shape)
    return found


def _tokenizer(fields: _Fields, file: Path) -> PreTrainedTokenizerBase:
    if fields.get("tokenizer.ggml.model") == "gpt2" and fields.get("tokenizer.ggml.pre") in _DIGITS_APART:
        return _byte_tokenizer(fields)
    from transformers import AutoTokenizer

    from nearfar.encoders.pretrained import quiet

    auto: Any = AutoTokenizer
    with quiet():
        try:
            made: PreTrainedTokenizerBase = auto.from_pretrained(
                file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a foreign vocabulary makes the library raise
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise ModelError(f"the tokenizer cannot be read: {reason}", where=str(file)) from error
    return made


def _byte_tokenizer(fields: _Fields) -> PreTrainedTokenizerBase:
    """Byte pairs with digits apart: transformers' own conversion forgets the digits."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = fields.need("tokenizer.ggml.tokens")
    merges = [tuple(line.split(" ", 1)) for line in fields.need("tokenizer.ggml.merges")]
    pairs = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    pairs.decoder = decoders.ByteLevel()
    kinds = fields.need("tokenizer.ggml.token_type")
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    pairs.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    named = {
        f"{ours}_token": tokens[number]
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if (number := fields.get(f"tokenizer.ggml.{theirs}_token_id")) is not None
    }
    build: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerBase = build(
        tokenizer_object=pairs,
        model_max_length=fields.need("llama.context_length"),
        clean_up_tokenization_spaces=False,
        **named,
    )
    made.chat_template = fields.get("tokenizer.chat_template")
    return made


def _digest(file: Path) -> str:
    """Of the file's content; of how it is read, so that a change here is not hidden by what was converted before."""
    found = hashlib.blake2b(json.dumps(["nearfar gguf 1", _DIGITS_APART]).encode(), digest_size=8)
    with open(file, "rb") as opened:
        while block := opened.read(2**22):
            found.update(block)
    return found.hexdigest()
