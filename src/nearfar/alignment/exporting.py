"""The policy of an alignment run as it was trained, and as it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nearfar.alignment.adapters import write_adapter, write_merged, write_trained
from nearfar.alignment.method import AlignmentMethod
from nearfar.alignment.prepare import Prepared, folder_sha256, policy_of
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
    lead = f"{method.main_part}."
    weights = {name.removeprefix(lead): value for name, value in gathered.items() if name.startswith(lead)}
    made: list[Any] = []

    def assemble() -> None:
        folder = Path(run.resolved.model)
        if folder_sha256(folder) != run.fingerprints["model"]["sha256"]:
            raise TrainingError("the model has changed since the run began", where=str(folder), hint="restore it")
        policy, _ = policy_of(run.settings, folder, device="cpu")
        policy.load_state_dict(weights, strict=False)
        made.append(policy)

    processes.on_main(assemble)
    return made[0] if made else None


def export(policy: Any, run: Prepared, path: Path) -> None:
    """Write the trained policy into the run folder ``path``: model/ is a folder of transformers, or with LoRA the
    adapter's; where it is to be merged, model/ is the whole model and adapter/ the adapter."""
    if run.settings.merge:
        write_adapter(policy, run.tokenizer, path / ADAPTER)
        write_merged(policy, run.tokenizer, path / run_folder.MODEL)
    else:
        write_trained(policy, run.tokenizer, path / run_folder.MODEL, adapter=run.settings.lora)
