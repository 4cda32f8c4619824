"""Reward models: a causal language model whose last token's state is turned into one number.

::

    model, tokenizer = reward_model("runs/reward")            # or any causal language model, with a new head
    found = rewards(model, tokenise(preferences, tokenizer))  # .reward [N], of every response
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.alignment.body import attention, causal_model, hidden_states, width_of
from nearfar.alignment.packing import Packed, Tokenised, repeated, shared, shared_is_cheaper
from nearfar.alignment.scores import SharedPrefix
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.encoders.encode import evaluating
from nearfar.encoders.language_model import model_folder, write_language_model
from nearfar.errors import DataError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

HEAD = "score"
"""What transformers calls the head of its sequence classifiers of causal models."""


@dataclass(frozen=True)
class Rewards:
    """``reward [N]`` of each response, response after response, row after row (float32 or wider), and ``state [N, d]``,
    what the last layer gives its last token."""

    reward: Tensor
    state: Tensor


def reward_model(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A reward model and its tokenizer, in evaluation mode: transformers' sequence classifier with one label.

    ``name_or_path``: a folder that :func:`write_reward_model` or another program wrote, a run's folder, or any causal
    language model (:func:`nearfar.encoders.language_model`), which gets a new head: a linear layer without a bias on
    the last token's state, whose weights ``seed`` decides. The other arguments are as there.

    The padding token must not be one that a response can end with, or transformers would read the reward of the token
    before; where a model has no other, a special token that ends nothing is taken.

    Raises :class:`ModelError` for a classifier of several labels, a model without such a head, and what is not safe to
    load.
    """
    from nearfar.encoders.pretrained import quiet
    from nearfar.encoders.safety import check_model_folder

    folder = model_folder(name_or_path, cache=cache)
    check_model_folder(folder)
    try:
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    except ModuleNotFoundError:
        raise MissingExtraError("transformers", "align") from None
    autos: list[Any] = [AutoConfig, AutoModelForSequenceClassification, AutoTokenizer]
    safe = {"local_files_only": True, "trust_remote_code": False}
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            config = autos[0].from_pretrained(folder, **safe)
            ready = is_reward_model(folder)
            if ready and config.num_labels != 1:
                raise ModelError(
                    f"a reward model gives one number, and this classifier has {config.num_labels} labels",
                    where=str(folder),
                )
            model, report = autos[1].from_pretrained(
                folder, num_labels=1, use_safetensors=True, dtype=dtype, output_loading_info=True, **safe
            )
            tokenizer = autos[2].from_pretrained(folder, **safe)
        except ModelError:
            raise
        except Exception as error:  # whatever a damaged file or a foreign architecture makes the library raise
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise ModelError(f"this cannot be made a reward model: {reason}", where=str(folder)) from error
    missing = sorted(name for name in report["missing_keys"] if ready or not name.startswith(f"{HEAD}."))
    if missing or not isinstance(getattr(model, HEAD, None), nn.Linear):
        lacks = ", ".join(missing[:3]) if missing else f"a linear head {HEAD!r} on the last token"
        raise ModelError(f"this cannot be made a reward model: it lacks {lacks}", where=str(folder))
    _set_padding(model, tokenizer, folder)
    if device is not None:
        model = model.to(device)
    return model.eval(), tokenizer


def is_reward_model(folder: str | os.PathLike[str]) -> bool:
    """Whether ``folder`` holds a sequence classifier of transformers (and not a language model still without a
    head)."""
    import json

    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def write_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> None:
    """Write both as a folder that :func:`reward_model` and transformers read; errors as of
    :func:`~nearfar.encoders.language_model.write_language_model`."""
    write_language_model(model, tokenizer, folder, overwrite=overwrite)


def rewards(model: nn.Module, rows: Sequence[Tokenised], *, shared_prefix: SharedPrefix = "auto") -> Rewards:
    """The rewards of all responses of tokenised rows, all in one pass, with a graph where gradients are enabled.

    The state of a response's last token (its end-of-sequence token, unless it was cut) goes through the head. A prompt
    with several responses is computed once where the model allows it and it costs less (``shared_prefix``; see
    :mod:`nearfar.alignment.packing`). Raises :class:`~nearfar.errors.DataError` for a response without tokens.
    """
    if any(not len(each) for row in rows for each in row.responses):
        raise DataError("a response without tokens has no last token to read its reward from")
    once = shared_prefix
    if once == "auto":
        once = shared_is_cheaper(rows, width_of(model)) and shares_prefix(model)
    packed = (shared if once else repeated)(rows).to(next(model.parameters()).device)
    return _read(model, packed)


def rewards_in_batches(
    model: nn.Module, rows: Sequence[TokenisedRow], *, batch_tokens: int = 8192
) -> tuple[Tensor, Tensor]:
    """Rewards ``[N]`` and states ``[N, d]`` of all responses, on the CPU, without a graph and without dropout.

    Rows of like length are computed together, about ``batch_tokens`` tokens at once, and stand in their own order.
    """
    sizes = np.array([len(row.prompt) + sum(map(len, row.responses)) for row in rows])
    parts: dict[int, tuple[Tensor, Tensor]] = {}
    with evaluating(model), torch.no_grad():
        for batch in _batches(sizes, batch_tokens):
            found = rewards(model, [rows[place] for place in batch])
            counts = [len(rows[place].responses) for place in batch]
            pieces = (torch.split(found.reward.cpu(), counts), torch.split(found.state.cpu(), counts))
            parts.update(zip(batch, zip(*pieces, strict=True), strict=True))
    ordered = [parts[place] for place in range(len(rows))]
    return torch.cat([reward for reward, _ in ordered]), torch.cat([state for _, state in ordered])


def _batches(sizes: np.ndarray[Any, np.dtype[np.int64]], tokens: int) -> list[list[int]]:
    made: list[list[int]] = []
    for place in np.argsort(-sizes, kind="stable").tolist():
        if not made or (len(made[-1]) + 1) * sizes[made[-1][0]] > tokens:
            made.append([])
        made[-1].append(place)
    return made


def _read(model: nn.Module, packed: Packed) -> Rewards:
    positions = None if packed.mask is None else packed.positions
    states = hidden_states(model, packed.ids, positions, packed.mask)
    last = packed.place[packed.length.cumsum(0) - 1]
    state = states.reshape(-1, states.shape[-1])[last]
    given: Tensor = getattr(causal_model(model), HEAD)(state)
    reward = given.squeeze(-1)
    return Rewards(reward if reward.dtype == torch.float64 else reward.float(), state)


_allowed: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def shares_prefix(model: nn.Module) -> bool:
    """Whether ``model`` gives the same rewards when a prompt is computed once for all its responses; tried once."""
    from nearfar.alignment.scores import _looks_back_fully

    inner = causal_model(model)
    if inner not in _allowed:
        _allowed[inner] = attention(inner) in ("sdpa", "eager") and _looks_back_fully(inner) and _agree(inner)
    return _allowed[inner]


def _agree(inner: Any) -> bool:
    drawn = np.random.default_rng(0).integers(0, inner.get_input_embeddings().weight.shape[0], 16, np.int32)
    rows = [TokenisedRow(drawn[:4], (drawn[4:7], drawn[7:9])), TokenisedRow(drawn[9:11], (drawn[11:12], drawn[12:16]))]
    device = inner.get_input_embeddings().weight.device
    wide = inner.dtype in (torch.float32, torch.float64)
    try:
        with evaluating(inner), torch.no_grad(), torch.autocast(device.type, enabled=False):
            plain, once = (_read(inner, layout(rows).to(device)).state for layout in (repeated, shared))
    except (TypeError, ValueError, RuntimeError, IndexError):  # an architecture without positions or such masks
        return False
    return bool(torch.allclose(plain.float(), once.float(), rtol=1e-3 if wide else 0.1, atol=1e-3 if wide else 0.2))


def _set_padding(model: Any, tokenizer: Any, folder: Path) -> None:
    ending = model.config.get_text_config().eos_token_id
    ends = {tokenizer.eos_token_id, *(ending if isinstance(ending, list) else [ending])}
    pad = tokenizer.pad_token_id
    if pad is None or pad in ends:
        special = [tokenizer.unk_token_id, *tokenizer.all_special_ids]
        pad = next((each for each in special if each is not None and each not in ends), None)
        if pad is None:
            raise ModelError(
                "the tokenizer has no token to pad with that does not end a response",
                where=str(folder),
                hint="add one: tokenizer.add_special_tokens({'pad_token': '<pad>'})",
            )
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    model.config.pad_token_id = pad
