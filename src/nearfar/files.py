"""Writing results so that a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nearfar.errors import OutputError


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """Turn what the operating system says about ``path`` into an :class:`OutputError` with a hint."""
    hints = {
        errno.ENOSPC: "free some space or choose another --output",
        errno.EACCES: "choose an output folder you may write to",
        errno.EPERM: "choose an output folder you may write to",
        errno.EROFS: "the file system is read-only; choose another --output",
        errno.ENOTDIR: "a part of the path is a file, not a folder",
    }
    reason = error.strerror or str(error)
    return OutputError(f"cannot write: {reason}", where=str(path), hint=hints.get(error.errno or 0))


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well and is removed when it does not.

    Raises :class:`OutputError` when the place cannot be written to.
    """
    final = Path(path)
    temporary: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, final)
        temporary = None
    except OSError as error:
        raise output_error(final, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well and is removed when it does not.

    Raises :class:`OutputError` when ``path`` exists and ``overwrite`` is false, or cannot be written.
    """
    final = Path(path)
    if final.exists() and not overwrite:
        raise OutputError(
            "the output exists already", where=str(final), hint="choose another folder, or pass --overwrite"
        )
    temporary: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent))
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if final.exists():
            previous = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".old", dir=final.parent))
            os.replace(final, previous / final.name)
            os.replace(temporary, final)
            shutil.rmtree(previous)
        else:
            os.replace(temporary, final)
        temporary = None
    except OSError as error:
        raise output_error(final, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, all of it or nothing. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
