"""The classes of sentence-transformers, wherever the installed version keeps them (they moved between 5.1 and 6)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nearfar.errors import MissingExtraError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_HOMES = (
    "sentence_transformers.sentence_transformer.modules",
    "sentence_transformers.base.modules",
    "sentence_transformers.models",
)


def sentence_transformer_class() -> type[SentenceTransformer]:
    """``sentence_transformers.SentenceTransformer``; :class:`MissingExtraError` when the package is absent."""
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        if error.name == "sentence_transformers":
            raise MissingExtraError("sentence-transformers", "text") from None
        raise
    return SentenceTransformer


def module_class(name: str) -> Any:
    """The module class ``name`` ("StaticEmbedding", "Normalize", "Pooling", ...) of the installed version."""
    sentence_transformer_class()
    for home in _HOMES:
        try:
            found = getattr(importlib.import_module(home), name, None)
        except ModuleNotFoundError:
            continue
        if found is not None:
            return found
    raise MissingExtraError("sentence-transformers", "text")


def sparse_static_class() -> Any:
    """``SparseStaticEmbedding`` of the installed version: which tokens a text holds."""
    for home in ("sentence_transformers.sparse_encoder.modules", "sentence_transformers.sparse_encoder.models"):
        try:
            return importlib.import_module(home).SparseStaticEmbedding
        except (ModuleNotFoundError, AttributeError):
            continue
    raise MissingExtraError("sentence-transformers", "text")


def is_static(model: SentenceTransformer) -> bool:
    """Whether ``model`` begins with a static token table (an embedding bag over the tokens of a text)."""
    return isinstance(model[0], module_class("StaticEmbedding"))


def dimension_of(model: SentenceTransformer) -> int:
    """The number of components of the model's text embeddings.

    Raises :class:`~nearfar.errors.ModelError` when the model does not tell it.
    """
    from nearfar.errors import ModelError

    get = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    size = get()
    if size is None:
        raise ModelError("the model does not say how many dimensions its embeddings have")
    return int(size)
