"""Checkpoints that are whole or not there: made aside, synced, put in place in one step, and checked before use.

A checkpoint folder holds ``model.safetensors`` (the method's weights), the optimiser's, scheduler's and random
generators' states (``.pt`` files that transformers writes and reads by ``torch.load(weights_only=True)``, which cannot
run code), ``trainer_state.json``, and ``nearfar.json``: the run it belongs to and the size of every file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nearfar.errors import OutputError, TrainingError
from nearfar.files import output_error, write_json

MANIFEST = "nearfar.json"
WEIGHTS = "model.safetensors"
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
_NEEDED = (WEIGHTS, OPTIMIZER, SCHEDULER, "trainer_state.json")
_NAME = re.compile(r"checkpoint-(\d+)")
_UNFINISHED = ".part"


def unfinished(folder: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is made before it is put in place."""
    return folder / f".checkpoint-{step}{_UNFINISHED}"


@contextmanager
def writing(folder: Path, step: int) -> Iterator[None]:
    """A context that makes a checkpoint; what libraries raise when the disk is full becomes an OutputError."""
    try:
        yield
    except Exception as error:  # torch and safetensors have their own kinds for what the system says
        shutil.rmtree(unfinished(folder, step), ignore_errors=True)
        full = "No space left" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full:
            raise
        raise OutputError(
            f"the checkpoint of step {step:,} cannot be written: no space left",
            where=str(folder),
            hint="free some space and go on with --resume; the checkpoint before is whole",
        ) from error


def put_in_place(folder: Path, step: int, manifest: dict[str, Any]) -> Path:
    """Finish the checkpoint made in :func:`unfinished`: write its manifest, sync it to disk and rename it."""
    inner = unfinished(folder, step) / f"checkpoint-{step}"
    final = folder / f"checkpoint-{step}"
    try:
        files = {path.name: path.stat().st_size for path in sorted(inner.iterdir()) if path.is_file()}
        write_json(inner / MANIFEST, {**manifest, "step": step, "files": files})
        for path in (*inner.iterdir(), inner):
            _sync(path)
        if final.exists():
            shutil.rmtree(final)
        os.replace(inner, final)
        _sync(folder)
        shutil.rmtree(inner.parent, ignore_errors=True)
    except OSError as error:
        raise output_error(final, error) from error
    return final


def steps(folder: Path) -> list[int]:
    """Steps with a complete checkpoint, ascending."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(name.group(1)) for name in found if name and _is_complete(folder / name.group(0)))


def last(folder: Path, run: str) -> Path | None:
    """The newest complete checkpoint in ``folder``; None without one.

    Raises :class:`TrainingError` when it belongs to another run than ``run``.
    """
    there = steps(folder)
    if not there:
        return None
    newest = folder / f"checkpoint-{there[-1]}"
    if manifest(newest).get("run") != run:
        raise TrainingError(
            "the checkpoint belongs to another run: data or settings have changed since",
            where=str(newest),
            hint="start anew with --overwrite, or in another output folder",
        )
    return newest


def manifest(checkpoint: Path) -> dict[str, Any]:
    """What the checkpoint says of itself; empty when it does not."""
    try:
        content = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def thin_out(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` complete checkpoints, and everything unfinished or incomplete."""
    there = steps(folder)
    kept = {f"checkpoint-{step}" for step in there[len(there) - keep :]} if keep else set()
    for path in folder.iterdir() if folder.is_dir() else ():
        ours = _NAME.fullmatch(path.name) or (path.name.startswith(".checkpoint-") and path.suffix == _UNFINISHED)
        if ours and path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _is_complete(checkpoint: Path) -> bool:
    files = manifest(checkpoint).get("files")
    if not isinstance(files, dict) or not all(name in files for name in _NEEDED):
        return False
    try:
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
