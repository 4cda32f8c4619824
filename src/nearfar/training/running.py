"""What runs of every kind have in common: what they say, how their folder begins, and whether they may go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.errors import MissingExtraError, TrainingError
from nearfar.training import checkpoints, folder, processes
from nearfar.training.checked import Checked

if TYPE_CHECKING:
    from rich.console import Console
    from sentence_transformers import SentenceTransformer

    from nearfar.data import DataCheck

_PARTS = {"tokens": "tokenizer or chat template", "model": "model", "reference": "reference model"}
"""Parts of what a run began with that are no data."""


class Interruptible:
    """A run that says why it ``ended``: "all steps", "early stop", or the name of the signal that interrupted it."""

    ended: str

    @property
    def interrupted(self) -> bool:
        """Whether the run ended before it was done; ``resume`` goes on with it."""
        return self.ended not in ("all steps", "early stop")


def speaker(console: Console | None) -> Callable[[str], None]:
    """What says a line on ``console``: silent without one, and on all processes but the main one."""
    if console is None or not processes.is_main():
        return lambda text: None
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)


def begin(
    path: Path,
    settings: Checked,
    *,
    resolved: Mapping[str, Any],
    data: Mapping[str, Any],
    check: DataCheck,
    weights: int,
    command: Sequence[str] | None,
    encoder: SentenceTransformer | None = None,
    **more: Any,
) -> None:
    """Make the run folder: config.json, data-check.json, versions.json and empty metrics.

    ``weights``: bytes of what checkpoints hold; ``encoder``: as it begins; ``more``: what else config.json says. Raises
    what :func:`nearfar.training.folder.check_output` raises.
    """
    run: Any = settings
    folder.check_output(path, overwrite=run.overwrite, weights=weights)
    found = folder.versions()
    config = {
        "nearfar": found["nearfar"],
        **more,
        "command": list(command) if command is not None else None,
        "seed": run.seed,
        "settings": run.to_dict(),
        "resolved": resolved,
        "data": data,
        "processes": processes.world_size(),
    }
    files = {
        folder.CONFIG: config,
        "data-check.json": check.to_dict(),
        "versions.json": found,
        folder.METRICS: {},
    }
    folder.create(path, files, encoder)


def check_unchanged(config: Mapping[str, Any], fingerprints: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise :class:`TrainingError` where a run that is resumed began with other data, or another model, than now."""
    for name, entry in config["data"].items():
        now = fingerprints.get(name, {}).get("sha256")
        if now == entry["sha256"]:
            continue
        raise TrainingError(
            f"the {_PARTS.get(name, f'{name} data')} has changed since the run began"
            if now
            else f"the run had {name} data, and none was given",
            where=", ".join(entry["path"]) if isinstance(entry["path"], list) else str(entry["path"]),
            hint="restore it, or start a new run",
        )


def write_report(path: Path, say: Callable[[str], None]) -> None:
    """Write report.html of the run in ``path`` and say where it is, or why there is none."""
    from nearfar import report

    try:
        say(f"report: {report.write(path)}")
    except MissingExtraError as error:
        say(f"no report: {error.message}; {error.hint}")


def tidy(path: Path) -> None:
    """Of a complete run only the last checkpoint stays."""
    place = path / folder.CHECKPOINTS
    for name in (folder.BEST, folder.INITIAL, folder.LAST_GOOD):
        shutil.rmtree(place / name, ignore_errors=True)
    checkpoints.thin_out(place, keep=1)
    (path / folder.FAILURE).unlink(missing_ok=True)


def metrics_of_complete(path: Path) -> dict[str, Any] | None:
    """What metrics.json says of the run in ``path``, where it is complete."""
    try:
        metrics: dict[str, Any] = json.loads((path / folder.METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return metrics if "ended" in metrics and (path / folder.MODEL).is_dir() else None
