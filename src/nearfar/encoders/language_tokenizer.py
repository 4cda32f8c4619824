"""The tokenizer of a language model alone, where its weights are not needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from nearfar.encoders.language_model import model_folder
from nearfar.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


def language_tokenizer(name_or_path: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of what :func:`~nearfar.encoders.language_model.language_model` calls ``name_or_path``.

    Raises :class:`~nearfar.errors.ModelError` where there is none, :class:`~nearfar.errors.MissingExtraError` without
    transformers.
    """
    from nearfar.encoders.pretrained import quiet

    folder = model_folder(name_or_path)
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError:
        raise MissingExtraError("transformers", "align") from None
    auto: Any = AutoTokenizer
    try:
        with quiet():
            found: PreTrainedTokenizerBase = auto.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # whatever a damaged file makes the library raise
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ModelError(f"this folder has no tokenizer that can be read: {reason}", where=str(folder)) from error
    return found
