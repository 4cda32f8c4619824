"""The weights of a method as checkpoints hold them: safetensors, without what the model began with and keeps.

Those of a method whose weights are shared out among processes (:attr:`nearfar.training.method.Method.sharded`) are
gathered on the main process first, so that files of both kinds are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor

from nearfar.errors import TrainingError
from nearfar.training.method import Method
from nearfar.training.sharding import part, whole


def gather_weights(method: Method) -> dict[str, Tensor] | None:
    """What :func:`save_weights` writes of a method that is sharded, whole, on the CPU of the main process; all call
    this together. None for other methods."""
    if not method.sharded:
        return None
    gathered: dict[str, Tensor] = whole(dict(_changing(method)))
    return gathered


def save_weights(method: Method, path: Path, gathered: Mapping[str, Tensor] | None = None) -> None:
    """Write the method's parameters and buffers; where it ``keeps_frozen`` elsewhere, only what is trained and the
    buffers. ``gathered``: what :func:`gather_weights` gave."""
    if gathered is not None or method.keeps_frozen:
        held = _changing(method) if gathered is None else gathered
        save_file({name: value.contiguous() for name, value in held.items()}, str(path))
    else:
        save_model(method, str(path))


def load_weights(method: Method, path: Path) -> None:
    """Put into ``method`` what :func:`save_weights` wrote, on every process. Raises :class:`TrainingError` for weights
    of another method."""
    if not (method.keeps_frozen or method.sharded):
        load_model(method, str(path))
        return
    found, wanted = load_file(str(path)), _changing(method)
    names = _names(method)
    named = {names.get(name, name): value for name, value in found.items()}
    if named.keys() != wanted.keys():
        other = sorted(named.keys() ^ wanted.keys())
        raise TrainingError(f"the weights are those of another method: {', '.join(other[:3])} differ", where=str(path))
    if not method.sharded:
        method.load_state_dict(found, strict=False)
        return
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(part(named[name], value))


def _changing(method: Method) -> Mapping[str, Tensor]:
    """What :func:`save_weights` keeps of the method, each tensor once."""
    kept, names = method.state_dict(keep_vars=True).keys(), _names(method)
    parameters = {
        names[name]: value.detach()
        for name, value in method.named_parameters()
        if value.requires_grad or not method.keeps_frozen
    }
    return {**parameters, **{name: value for name, value in method.named_buffers() if name in kept}}


def _names(method: Method) -> dict[str, str]:
    """Each name of a parameter -> the first of those that it has, in the order of letters, by which safetensors keeps
    it."""
    every = sorted(method.named_parameters(remove_duplicate=False), key=lambda each: each[0])
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in every}
