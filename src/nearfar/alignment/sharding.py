"""Language models whose weights several processes share out among them (FSDP2, torch's ``fully_shard``).

Each process holds a part of every weight, of its gradient and of what the optimiser keeps of it. A layer's weights are
whole on each device only while it computes, in the forward and again in the backward pass; embeddings and head from the
first layer of a forward pass to the end of its backward pass. All processes make such passes together, equally many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from nearfar.alignment.body import architecture, causal_model, head_of
from nearfar.alignment.scores import SHARDED, parts_of_scores, response_scores, supports_shared_prefix
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.errors import ModelError
from nearfar.training import processes

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@contextmanager
def told_by_launcher() -> Iterator[bool]:
    """Whether ``accelerate launch`` was told to shard weights (``--use_fsdp``).

    Inside the block transformers and accelerate do not know: they would load no weights on processes other than the
    main one, and shard what is sharded already.
    """
    told, word = processes.told_to_shard(), os.environ.pop(processes.SHARDS, None)
    try:
        yield told
    finally:
        if word is not None:
            os.environ[processes.SHARDS] = word


def shard(model: nn.Module, device: torch.device, *, half: bool = False) -> None:
    """Share out the weights of ``model``, which lie on the CPU, among all processes, layer by layer, in place.

    ``device``: where each process computes; a layer is moved there at a time, then what lies outside of layers.
    ``half``: layers compute in bfloat16 copies of the float32 weights, gradients are added up in float32. From here on
    the model says by :func:`nearfar.alignment.scores.response_scores` alone how probable responses are.

    Raises :class:`ModelError` for an architecture whose layers are not known, or that has parameters which are single
    numbers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    # what is found out once by trying is found out while the weights are whole
    head_of(model)
    supports_shared_prefix(model)
    mesh: DeviceMesh = init_device_mesh(device.type, (processes.world_size(),))
    numbers: dict[str, Any] = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if half else {}
    try:
        for layer in layers(model):
            fully_shard(layer, mesh=mesh, mp_policy=MixedPrecisionPolicy(**numbers))
        fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(**numbers, cast_forward_inputs=False))
    except ValueError as error:  # parameters that are single numbers
        raise ModelError(
            f"the weights of {architecture(model)} cannot be sharded: {error}", where="--shard", hint="leave it out"
        ) from error
    setattr(model, SHARDED, MethodType(parts_of_scores, model))
    register_fsdp_forward_method(model, SHARDED)
    # torch looks at the first pass which parameters are trained; that of a reference has its adapters switched off
    token = np.zeros(1, np.int32)
    with torch.no_grad():
        response_scores(model, [TokenisedRow(token, (token,))])


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the language model in ``model``, inner ones first: what its architecture says is not to be split.

    Raises :class:`ModelError` where it says nothing.
    """
    inner = causal_model(model)
    kinds = getattr(inner, "_no_split_modules", None) or ()
    found = [each for each in inner.modules() if type(each).__name__ in kinds]
    if not found:
        raise ModelError(
            f"the layers of {type(inner).__name__} are not known, so that its weights cannot be sharded",
            where="--shard",
            hint="leave it out",
        )
    return found[::-1]
