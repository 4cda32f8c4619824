"""What a model folder must be before it is opened: complete, safetensors only, naming no code and no other place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from nearfar.errors import ModelError

PICKLES = (".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")
READABLE_MODULES = frozenset(
    {
        "Transformer",
        "StaticEmbedding",
        "SparseStaticEmbedding",
        "Pooling",
        "WeightedLayerPooling",
        "Dense",
        "Normalize",
        "LayerNorm",
        "Dropout",
    }
)
"""The modules of sentence-transformers that a text encoder may be made of."""

PREFIX_TRANSFORMER = "nearfar.encoders.prefix_transformer.PrefixTransformer"
"""nearfar's own: a transformer with a trained prefix. Its weights are safetensors like the others'."""

_WITH_WEIGHTS = frozenset(
    {"Transformer", "StaticEmbedding", "SparseStaticEmbedding", "WeightedLayerPooling", "Dense", "LayerNorm"}
)
_WITHOUT_FILES = frozenset({"Normalize", "Dropout"})
"""Their folders are empty or nearly so, and copies lose empty folders."""

_TRANSFORMER_SETTINGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
_HARMLESS_ARGUMENTS = frozenset(
    {
        "attn_implementation",
        "torch_dtype",
        "dtype",
        "add_pooling_layer",
        "use_cache",
        "model_max_length",
        "padding_side",
        "truncation_side",
        "do_lower_case",
        "trust_remote_code",  # sentence-transformers drops it, whatever it says
    }
)
_BUILT_IN_ATTENTION = (None, "eager", "sdpa")


def check_model_folder(folder: Path) -> None:
    """Raise :class:`ModelError` when ``folder`` is not a model that can be loaded safely; say what is missing or wrong.

    Accepted are sentence-transformers folders (``modules.json``) whose modules are in :data:`READABLE_MODULES`, and
    plain transformers folders (``config.json``). All weights must be safetensors; pickles beside them are never
    opened. Refused are adapters, code, and settings that lead to files or downloads outside the folder.
    """
    if not folder.is_dir():
        what = "is a file, not a model folder" if folder.exists() else "does not exist"
        raise ModelError(f"the model {what}", where=str(folder))
    if (folder / "modules.json").is_file():
        for kind, place in _modules(folder):
            _check_module(kind, place)
    elif (folder / "config.json").is_file():
        _check_module("Transformer", folder)
    else:
        found = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
        raise ModelError(
            "this folder is not a model: it has neither modules.json (sentence-transformers) nor config.json "
            "(transformers)",
            where=str(folder),
            hint=f"it holds {found}; name the folder that a model was saved to",
        )


def read_json(path: Path) -> Any:
    """The content of a JSON file of a model; :class:`ModelError` when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}", where=str(path)) from None


def _modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """(class, folder) of each module that modules.json names."""
    path = folder / "modules.json"
    entries = read_json(path)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError("modules.json must be a list of modules", where=str(path))
    for entry in entries:
        reference, place = entry.get("type"), entry.get("path")
        if not isinstance(reference, str) or not isinstance(place, str):
            raise ModelError("each module needs a type and a path", where=str(path))
        package, _, name = reference.rpartition(".")
        own = reference == PREFIX_TRANSFORMER
        if package.split(".")[0] != "sentence_transformers" and not own:
            raise ModelError(
                f"the model asks for code outside sentence-transformers: {reference!r}",
                where=str(path),
                hint="code that comes with a model is never run",
            )
        if name not in READABLE_MODULES and not own:
            raise ModelError(
                f"the model holds a module of a kind that cannot be read: {reference!r}",
                where=str(path),
                hint=f"a text encoder may be made of {', '.join(sorted(READABLE_MODULES))}",
            )
        inner = _inside(folder, place, path)
        if name not in _WITHOUT_FILES and not inner.is_dir():
            raise ModelError(f"the model's part {place!r} is missing", where=str(folder))
        yield name, inner


def _inside(folder: Path, place: str, named_in: Path) -> Path:
    """The folder ``place`` within ``folder``; :class:`ModelError` when it leads out of it."""
    windows = PureWindowsPath(place)  # reads both kinds of slash
    inner = folder / place
    escapes = bool(windows.anchor) or ".." in windows.parts or "\0" in place
    if escapes or not inner.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"the module path {place!r} leads out of the model's folder", where=str(named_in))
    return inner


def _check_module(kind: str, place: Path) -> None:
    if kind == PREFIX_TRANSFORMER.rpartition(".")[2]:
        _need(place, "prefix.safetensors")
        kind = "Transformer"
    if kind == "Transformer":
        _check_transformer(place)
    elif kind in ("StaticEmbedding", "SparseStaticEmbedding"):
        _need(place, "tokenizer.json")
    if kind == "SparseStaticEmbedding" and (place / "config.json").is_file():
        config = read_json(place / "config.json")
        if not isinstance(config, dict) or "path" in config:
            raise ModelError("the token weights are to be read from elsewhere", where=str(place / "config.json"))
    if kind in _WITH_WEIGHTS:
        _check_weights(place, sharded=kind == "Transformer")


def _check_weights(place: Path, *, sharded: bool) -> None:
    if (place / "model.safetensors").is_file():
        return
    index = place / "model.safetensors.index.json"
    if sharded and index.is_file():
        content = read_json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict) or not shards:
            raise ModelError("the list of weight files cannot be read", where=str(index))
        for name in sorted({str(shard) for shard in shards.values()}):
            if not name.endswith(".safetensors") or PureWindowsPath(name).name != name:
                raise ModelError(
                    f"the weights name a file that is not safetensors in this folder: {name!r}", where=str(index)
                )
            _need(place, name)
        return
    pickles = sorted(item.name for item in place.iterdir() if item.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"the weights are a pickle ({', '.join(pickles[:3])}), which can run code and is never opened here",
            where=str(place),
            hint=(
                "convert it where you trust it: "
                "SentenceTransformer(folder).save_pretrained(new_folder, safe_serialization=True)"
            ),
        )
    raise ModelError("the weights are missing: there is no model.safetensors", where=str(place))


def _check_transformer(place: Path) -> None:
    if (place / "adapter_config.json").exists():
        raise ModelError(
            "this is an adapter, which needs a base model from elsewhere",
            where=str(place),
            hint="merge it into its base model first (peft: merge_and_unload) and save the whole",
        )
    _need(place, "config.json")
    config = read_json(place / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError("config.json does not say what kind of model this is (model_type)", where=str(place))
    for name in ("attn_implementation", "_attn_implementation"):
        _check_attention(config.get(name), place / "config.json")
    if not any(
        (place / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
    ):
        raise ModelError(
            "the tokenizer is missing: there is no tokenizer.json or tokenizer_config.json", where=str(place)
        )
    for name in _TRANSFORMER_SETTINGS:
        if (place / name).is_file():
            _check_settings(place / name)


def _check_settings(path: Path) -> None:
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ModelError(f"{path.name} must hold an object", where=str(path))
    if settings.get("tokenizer_name_or_path") is not None:
        raise ModelError("the model takes its tokenizer from elsewhere (tokenizer_name_or_path)", where=str(path))
    for group in _ARGUMENTS:
        arguments = settings.get(group) or {}
        if not isinstance(arguments, dict):
            raise ModelError(f"{group} must hold an object", where=str(path))
        unknown = sorted(set(arguments) - _HARMLESS_ARGUMENTS)
        if unknown:
            raise ModelError(
                f"the model asks for loading options that are not passed on: {', '.join(unknown)}",
                where=f"{path} ({group})",
                hint="remove them from the file if the model works without",
            )
        _check_attention(arguments.get("attn_implementation"), path)


def _check_attention(value: Any, path: Path) -> None:
    names = value.values() if isinstance(value, dict) else (value,)
    for name in names:
        if name not in _BUILT_IN_ATTENTION:
            raise ModelError(
                f"the model asks for the attention kernel {name!r}, which may be code from elsewhere",
                where=str(path),
                hint='set attn_implementation to "sdpa" in this file',
            )


def _need(place: Path, name: str) -> None:
    if not (place / name).is_file():
        raise ModelError(f"the model is incomplete: {name} is missing", where=str(place))
