"""LoRA adapters on language models, through peft: made, found out, written, and merged."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from nearfar.encoders.language_model import write_language_model
from nearfar.errors import MissingExtraError, UsageError
from nearfar.files import atomic_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

ALL_LAYERS = "all-linear"


class AdapterSettings(Protocol):
    """What of a run's settings an adapter is made by."""

    rank: int
    lora_alpha: float | None
    lora_dropout: float
    lora_targets: str | None
    seed: int


def with_adapter(model: PreTrainedModel, settings: AdapterSettings, *, base: str, task: str = "CAUSAL_LM") -> Any:
    """``model``, frozen, with a new LoRA adapter (Hu et al., 2021) that changes nothing yet.

    Its first weights depend on the seed alone. ``base``: where the model lies, which is written with the adapter.
    ``task``: peft's name of what the model does; the head of a "SEQ_CLS" is trained as well.
    Raises :class:`~nearfar.errors.MissingExtraError` without peft, :class:`UsageError` for layers that there are not.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError:
        raise MissingExtraError("peft", "align") from None
    targets = settings.lora_targets
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha if settings.lora_alpha is not None else 2 * settings.rank,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules=ALL_LAYERS if targets is None else [name.strip() for name in targets.split(",")],
        task_type=task,
        base_model_name_or_path=base,
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise UsageError(
                f"the adapter does not fit the model: {error}",
                where=f"--lora-targets {targets}" if targets else "--lora",
                hint="name linear layers of the model, e.g. q_proj,v_proj",
            ) from error


def write_adapter(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the adapter (safetensors) and the tokenizer: what ``peft.PeftModel.from_pretrained`` reads."""
    with atomic_folder(folder, overwrite=True) as place:
        model.save_pretrained(place, safe_serialization=True)
        tokenizer.save_pretrained(str(place))
        (place / "README.md").unlink(missing_ok=True)  # peft's, with nothing filled in


def write_trained(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, *, adapter: bool) -> None:
    """Write what was trained of ``model`` and its tokenizer: the adapter, or the whole model as a folder of
    transformers."""
    if adapter:
        write_adapter(model, tokenizer, folder)
    else:
        write_language_model(model, tokenizer, folder, overwrite=True)


def write_merged(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the whole model with the adapter added to its weights; ``model`` itself stays as it is."""
    write_language_model(copy.deepcopy(model).merge_and_unload(), tokenizer, folder, overwrite=True)
