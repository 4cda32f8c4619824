"""Saving an encoder as a sentence-transformers folder, and telling two encoders apart."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import torch

from nearfar.encoders.sentence_modules import is_static
from nearfar.errors import OutputError
from nearfar.files import atomic_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def save(model: SentenceTransformer, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write ``model`` to ``folder``, all of it or nothing: weights as safetensors, tokenizer, limits, pooling,
    normalisation, prompts.

    ``sentence_transformers.SentenceTransformer(folder)`` and :func:`nearfar.encoders.load` read it and give equal
    vectors. Raises :class:`~nearfar.errors.OutputError` when the folder exists (and ``overwrite`` is false) or cannot
    be written.
    """
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        write_model(model, temporary)


def write_model(model: SentenceTransformer, folder: str | os.PathLike[str]) -> None:
    """Write the files of ``model`` into ``folder``, in place.

    No model card is written: the library's asks the hub about the base model. A calibration of these weights goes with
    them (:mod:`nearfar.encoders.calibration`). Raises :class:`OutputError` when the weights cannot be written.
    """
    from safetensors import SafetensorError

    from nearfar.encoders.calibration import write_calibration
    from nearfar.encoders.pretrained import quiet

    with quiet():
        saved = model
        if is_static(model):
            from nearfar.encoders.distinct import is_distinct, portable

            saved = portable(model) if is_distinct(model) else model
        try:
            saved.save(os.fspath(folder), create_model_card=False, safe_serialization=True)
        except SafetensorError as error:
            full = "No space left" in str(error)
            raise OutputError(
                f"cannot write: {'no space left' if full else str(error)}",
                where=str(folder),
                hint="free some space or choose another folder" if full else None,
            ) from error
    write_calibration(model, folder)


def fingerprint(model: SentenceTransformer) -> str:
    """A hexadecimal digest (BLAKE2b, 128 bits) of what decides the embeddings.

    That is the weights, the modules and their settings, the tokenizer, the token limit and the prompts.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, module in model.named_children():
        digest.update(f"{name} {type(module).__name__} {module!r}\n".encode())
    digest.update(_tokenizer_state(model).encode())
    digest.update(repr((model.max_seq_length, model.prompts, model.default_prompt_name)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(np.ascontiguousarray(values.reshape(-1).view(torch.uint8).numpy()).data)
    return digest.hexdigest()


def _tokenizer_state(model: SentenceTransformer) -> str:
    """What decides the tokens. A transformer's tokenizer changes its padding and cutting with every call; those do not
    count, its token limit is the model's."""
    if is_static(model):
        return str(model.tokenizer.to_str())
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(model.tokenizer)
    return json.dumps({**json.loads(backend.to_str()), "padding": None, "truncation": None})
