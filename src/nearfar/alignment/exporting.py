"""The policy of an alignment run as it was trained, and as it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nearfar.alignment.adapters import write_adapter, write_merged
from nearfar.alignment.method import AlignmentMethod
from nearfar.alignment.prepare import Prepared, policy_of
from nearfar.encoders.language_model import write_language_model
from nearfar.errors import TrainingError
from nearfar.training import folder as run_folder
from nearfar.training import processes
from nearfar.training.weights import gather_weights

ADAPTER = "adapter"


def trained_policy(run: Prepared, method: AlignmentMethod) -> Any:
    """The policy with the weights that it has now.

    Where processes share them out, all call this together, and the main one puts them together on its CPU; None on the
    others. Raises :class:`TrainingError` where the model that the run began with is another one now.
    """
    gathered = gather_weights(method)
    if gathered is None:
        return run.policy
    if not processes.is_main():
        return None
    policy, _ = policy_of(run.settings, Path(run.resolved.model), device="cpu")
    lead = f"{method.main_part}."
    weights = {name.removeprefix(lead): value for name, value in gathered.items() if name.startswith(lead)}
    other = policy.load_state_dict(weights, strict=False).unexpected_keys
    if other:
        raise TrainingError(
            f"the model has changed since the run began: it has no {other[0]}", where=run.resolved.model
        )
    return policy


def write_policy(policy: Any, run: Prepared, place: Path) -> None:
    """Write ``policy`` into the folder ``place``, of transformers, or with LoRA the adapter's."""
    if run.settings.lora:
        write_adapter(policy, run.tokenizer, place)
    else:
        write_language_model(policy, run.tokenizer, place, overwrite=True)


def export(policy: Any, run: Prepared, path: Path) -> None:
    """Write the trained policy into the run folder ``path``: model/ is a folder of transformers, or with LoRA the
    adapter's; where it is to be merged, model/ is the whole model and adapter/ the adapter."""
    if run.settings.merge:
        write_policy(policy, run, path / ADAPTER)
        write_merged(policy, run.tokenizer, path / run_folder.MODEL)
    else:
        write_policy(policy, run, path / run_folder.MODEL)
