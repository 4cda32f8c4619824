"""One process at a time where several would spoil each other's unfinished work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearfar.errors import OutputError
from nearfar.files import output_error


@contextmanager
def only_one(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold the lock file ``path`` during the block; it is removed afterwards.

    The operating system lets go of the lock when the process ends, even by ``kill -9``. Raises :class:`OutputError`,
    naming ``what`` is being done, when another process holds it. Where the platform has no ``fcntl`` (Windows),
    nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    place = Path(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise output_error(place, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(
                f"another process is {what}", where=str(place), hint="wait for it, or choose another output"
            ) from None
        try:
            yield
        finally:
            place.unlink(missing_ok=True)
    finally:
        os.close(handle)
