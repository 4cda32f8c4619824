"""A transformer of sentence-transformers with a trained prefix: how it is used, saved and loaded.

A prefix of keys and values in every layer cannot be written as weights of the plain architecture: a virtual token's
state would have d numbers a layer, its key and value have 2 d. Nor do the libraries load one by themselves:
transformers leaves prompt learning out of the adapters it opens, and the folder of such an adapter names its base model
by a path. So a model with a prefix is saved as this class, beside the whole, unchanged transformer:
:func:`nearfar.encoders.load` knows it; ``SentenceTransformer(folder, trust_remote_code=True)`` loads it wherever
nearfar is installed, and without that flag says so instead of leaving the prefix out.

Importing this module imports sentence-transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nearfar.encoders.prefix import Prefix, attending_to
from nearfar.encoders.sentence_modules import module_class
from nearfar.errors import ModelError, UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PREFIX_FILE = "prefix.safetensors"


class PrefixTransformer(module_class("Transformer")):  # type: ignore[misc]
    """sentence-transformers' ``Transformer`` whose layers attend to :attr:`prefix` as well."""

    prefix: Prefix

    def forward(self, features: dict[str, Any], **named: Any) -> dict[str, Any]:
        ids: Tensor = features["input_ids"]
        if "cu_seq_lens_q" in features:
            raise ModelError("a prefix does not go with texts that are joined to one row (flash attention)")
        with attending_to(self.auto_model, self.prefix(len(ids))):
            embedded: dict[str, Any] = super().forward(features, **named)
        return embedded

    def save(self, output_path: str, *args: Any, **named: Any) -> None:
        """The transformer's own files, and the prefix in a file beside them."""
        from safetensors.torch import save_file

        super().save(output_path, *args, **named)
        table = self.prefix.table.detach().contiguous()
        save_file({"table": table}, Path(output_path) / PREFIX_FILE, {"dropout": repr(self.prefix.dropout.p)})

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **named: Any) -> PrefixTransformer:
        """What :meth:`save` wrote. Raises :class:`~nearfar.errors.ModelError` for a prefix of another transformer."""
        from safetensors import safe_open

        places = {name: named[name] for name in _PLACES if name in named}
        path = cls.load_file_path(model_name_or_path, filename=PREFIX_FILE, **places)
        if path is None:
            raise ModelError(f"the model is incomplete: {PREFIX_FILE} is missing", where=model_name_or_path)
        with safe_open(path, framework="pt") as file:
            table, metadata = file.get_tensor("table"), file.metadata() or {}
        module: PrefixTransformer = super().load(model_name_or_path, *args, **named)
        prefix = _prefix_for(module, len(table), float(metadata.get("dropout", 0)))
        if prefix.table.shape != table.shape:
            raise ModelError(
                f"the prefix is {list(table.shape)}, this transformer takes {list(prefix.table.shape)}", where=str(path)
            )
        prefix.table.data = table.to(prefix.table)
        module.prefix = prefix
        return module


_PLACES = ("subfolder", "token", "cache_folder", "revision", "local_files_only")


def add_prefix(encoder: SentenceTransformer, length: int = 16, *, dropout: float | None = None) -> Prefix:
    """Give the transformer of ``encoder`` a new prefix, in place, and freeze everything else; returns the prefix.

    Every way of embedding texts by ``encoder`` uses it from then on, and it is saved with it.

    Arguments:
        length: how many virtual tokens, default 16; see :class:`~nearfar.encoders.prefix.Prefix`.
        dropout: of the prefix; None (default): the rate of the transformer's hidden layers, as in the official code.

    Raises :class:`~nearfar.errors.ModelError` for an encoder that cannot be given a prefix, UsageError for one that has
    one.
    """
    module: Any = encoder[0]
    if isinstance(module, PrefixTransformer):
        raise UsageError("the encoder has a prefix already", hint="give the model that it was trained from")
    if type(module) is not module_class("Transformer"):
        raise ModelError(
            f"a {type(module).__name__} cannot be given a prefix", hint="give a transformer, such as minilm"
        )
    rate = _hidden_dropout(module.auto_model.config) if dropout is None else dropout
    prefix = _prefix_for(module, length, rate)
    with attending_to(module.auto_model, ()):
        pass  # the attention can be exchanged, or this says why not
    encoder.requires_grad_(False)
    module.__class__ = PrefixTransformer
    module.prefix = prefix
    return prefix


def _prefix_for(module: Any, length: int, dropout: float) -> Prefix:
    config, some = module.auto_model.config, next(module.auto_model.parameters())
    keys = getattr(config, "num_key_value_heads", None)
    if keys not in (None, config.num_attention_heads):
        raise ModelError(f"{type(module.auto_model).__name__} has fewer keys than queries, and cannot take a prefix")
    return Prefix(config.num_hidden_layers, config.hidden_size, length, dropout=dropout).to(some).train(module.training)


def _hidden_dropout(config: Any) -> float:
    names = ("hidden_dropout_prob", "dropout", "mlp_dropout")  # BERT and its kin, DistilBERT, ModernBERT
    found = (getattr(config, name, None) for name in names)
    return float(next((rate for rate in found if rate is not None), 0.1))
