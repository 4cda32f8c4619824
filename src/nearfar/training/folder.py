"""The run folder: made whole, never overwritten by accident, and found again to be resumed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import nearfar
from nearfar.errors import OutputError, TrainingError, UsageError
from nearfar.files import atomic_folder, output_error, write_json
from nearfar.training.checked import NOT_OF_THE_RUN, Checked

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

AnySettings = TypeVar("AnySettings", bound=Checked)

CONFIG, METRICS, LINES = "config.json", "metrics.json", "metrics.jsonl"
CHECKPOINTS, MODEL, INITIAL, LAST_GOOD, BEST = "checkpoints", "model", "initial", "last-good", "best"
FAILURE = "failure.json"
LOCK = ".lock"

_COPIES = 9
"""Copies of the weights that may be on disk at once: initial, two checkpoints of three each (with the optimiser's two),
the best, the model."""

_REST = 16 * 2**20
"""Bytes for everything else: report (5 MiB, most of them the library that draws), tokenizer, diagnostics, metrics."""

_PACKAGES = (
    "torch",
    "numpy",
    "transformers",
    "sentence-transformers",
    "accelerate",
    "peft",
    "tokenizers",
    "safetensors",
    "pyarrow",
    "scikit-learn",
    "scipy",
)


def is_run(path: Path) -> bool:
    """Whether ``path`` is a folder that training wrote."""
    return "nearfar" in _config(path) and "settings" in _config(path)


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run. Raises :class:`TrainingError` where there is none."""
    config = _config(path)
    if "nearfar" not in config or "settings" not in config:
        reason = "there is no such folder" if not path.exists() else f"its {CONFIG} is not that of a run"
        raise TrainingError(
            f"this is not a run that can be resumed: {reason}",
            where=str(path),
            hint="name the folder that --output named when the run was started",
        )
    return config


def check_output(path: Path, *, overwrite: bool, weights: int) -> None:
    """Raise :class:`OutputError` early when a run could not be written to ``path``: something is there already, the
    place cannot be written, or the disk has no room for ``weights`` bytes of weights with their checkpoints."""
    if path.exists() and not _is_empty_folder(path):
        if not overwrite:
            hint = "pass --overwrite to replace it, --resume to go on with it, or choose another folder"
            raise OutputError("the output exists already", where=str(path), hint=hint)
        if not is_run(path):
            raise OutputError(
                "the output is not a folder of a run, so it is not overwritten",
                where=str(path),
                hint="choose another folder, or remove it yourself",
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as trial:
            trial.write(b"\0" * 4096)
            trial.flush()
            os.fsync(trial.fileno())
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise output_error(path, error) from error
    needed = _COPIES * weights + _REST
    if free < needed:
        raise OutputError(
            f"the disk has {free / 2**20:,.0f} MiB free, and a run of this model may need {needed / 2**20:,.0f} MiB",
            where=str(path),
            hint="free some space or choose another --output",
        )


def create(path: Path, files: Mapping[str, Any], encoder: SentenceTransformer | None = None) -> None:
    """Make a run folder with these JSON files and the encoder as it begins (None: it can be had again from elsewhere);
    it takes the place of what was there."""
    from nearfar.encoders.save import write_model

    with atomic_folder(path, overwrite=True) as place:
        for name, content in files.items():
            write_json(place / name, content)
        (place / CHECKPOINTS).mkdir()
        if encoder is not None:
            (place / CHECKPOINTS / INITIAL).mkdir()
            write_model(encoder, place / CHECKPOINTS / INITIAL)


def versions() -> dict[str, str]:
    """Versions of everything that computed something, and the machine's kind."""
    found = {"nearfar": nearfar.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def stored_settings(config: Mapping[str, Any], given: AnySettings) -> AnySettings:
    """The settings of a run that is resumed, with what ``given`` says of where and how it goes on.

    Raises :class:`UsageError` when ``given`` asks for another run.
    """
    stored = type(given).from_dict(config["settings"])
    changed = given.changed(stored)
    if changed:
        raise UsageError(
            "a resumed run keeps its settings, but these were given another value: " + ", ".join(changed),
            hint="leave them out, or start a new run",
        )
    how: dict[str, Any] = {name: getattr(given, name) for name in NOT_OF_THE_RUN if hasattr(given, name)}
    how.update(resume=True, overwrite=False)
    for name in ("tensorboard", "shard"):
        if name in how:
            how[name] = getattr(stored, name, False) or how[name]
    how["device"] = how["device"] or getattr(stored, "device", None)
    for name, value in how.items():
        setattr(stored, name, value)
    return stored


def _config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
