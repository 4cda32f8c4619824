"""The weights of a method as checkpoints hold them: safetensors, without what the model began with and keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor

from nearfar.errors import TrainingError
from nearfar.training.method import Method


def save_weights(method: Method, path: Path) -> None:
    """Write the method's parameters and buffers; where it ``keeps_frozen`` elsewhere, only what is trained and the
    buffers."""
    if method.keeps_frozen:
        save_file({name: value.contiguous() for name, value in _changing(method).items()}, str(path))
    else:
        save_model(method, str(path))


def load_weights(method: Method, path: Path) -> None:
    """Put into ``method`` what :func:`save_weights` wrote. Raises :class:`TrainingError` for weights of another
    method."""
    if not method.keeps_frozen:
        load_model(method, str(path))
        return
    found, wanted = load_file(str(path)), _changing(method)
    if found.keys() != wanted.keys():
        other = sorted(found.keys() ^ wanted.keys())
        raise TrainingError(f"the weights are those of another method: {', '.join(other[:3])} differ", where=str(path))
    method.load_state_dict(found, strict=False)


def _changing(method: Method) -> Mapping[str, Tensor]:
    """What training changes, each tensor once."""
    kept = method.state_dict(keep_vars=True).keys()
    parameters = {name: value.detach() for name, value in method.named_parameters() if value.requires_grad}
    return {**parameters, **{name: value for name, value in method.named_buffers() if name in kept}}
