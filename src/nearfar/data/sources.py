"""From the path a user gives to the files that are read: formats, folders, compression, saved datasets."""

from __future__ import annotations

import difflib
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nearfar.errors import DataError

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".text": "text",
}
READABLE = "JSONL, JSON, CSV, TSV, Parquet, Arrow or plain text (each may be gzipped), or a saved Hugging Face dataset"

_GZIP = b"\x1f\x8b"
_UNREADABLE = {
    b"PK\x03\x04": "a zip archive (or .npz, .xlsx)",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
    b"SQLite format 3": "an SQLite database",
    b"\x93NUMPY": "a NumPy array",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file",
    b"\x80\x02": "a Python pickle, which is never opened",
    b"\x80\x03": "a Python pickle, which is never opened",
    b"\x80\x04": "a Python pickle, which is never opened",
    b"\x80\x05": "a Python pickle, which is never opened",
}
_BESIDE_DATA = re.compile(r"(licen[cs]e|readme|copyright|copying|notice|changelog|citation|authors)", re.IGNORECASE)
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "evaluation"),
}


@dataclass(frozen=True)
class Source:
    """One file to read: where it is, what is in it (a value of :data:`FORMATS`) and whether it is gzipped."""

    path: Path
    format: str
    gzipped: bool = False

    @property
    def unit(self) -> str:
        """What places in this file are counted in."""
        return "row" if self.format in ("parquet", "arrow") else "line"


def find_sources(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[list[Source], list[str]]:
    """The files that ``path`` (file, folder, saved dataset, or a list of them) stands for, and what was left out.

    Raises :class:`DataError` when there is nothing there, nothing readable, or more than one split.
    """
    if not isinstance(path, (str, os.PathLike)):
        if not path:
            raise DataError("no file was given")
        found = [find_sources(each) for each in path]
        return [source for sources, _ in found for source in sources], [note for _, notes in found for note in notes]
    place = Path(path)
    if "\0" in str(place):
        raise DataError("this is not a path: it holds a NUL byte", where=repr(str(place)))
    try:
        if place.is_dir():
            return _folder(place)
        if place.is_file():
            return [_file(place)], []
        exists = place.exists()
    except OSError as error:
        raise read_error(place, error) from error
    if exists:
        raise DataError(
            "this is neither a file nor a folder",
            where=str(place),
            hint="pipes and devices cannot be read; save the data to a file first",
        )
    raise DataError("there is no such file or folder", where=str(place), hint=near_names(place))


def near_names(path: Path) -> str:
    """A hint for a path that does not exist: what is there under a similar name, or how far the path does lead."""
    if any(sign in path.name for sign in "*?["):
        return "patterns are not expanded here: name one file, or the folder that holds them"
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        path, parent = parent, parent.parent
    try:
        names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return f"{parent} cannot be listed"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    near += [name for name in names if name not in near and _stem(name) == _stem(path.name)][: 3 - len(near)]
    if near:
        return "did you mean " + " or ".join(str(parent / name) for name in near) + "?"
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{parent.absolute()} holds: {listed}" if names else f"{parent.absolute()} is empty"


def read_error(path: Path | str, error: BaseException) -> DataError:
    """Turn what the operating system or the decompressor says into a :class:`DataError`."""
    if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
        return DataError(
            f"the gzip data is damaged or cut short: {error}",
            where=str(path),
            hint="fetch or compress the file again (gzip -t tells whether it is whole)",
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DataError(f"cannot read: {reason}", where=str(path))


@contextmanager
def open_bytes(source: Source) -> Iterator[IO[bytes]]:
    """The (decompressed) bytes of ``source``, buffered."""
    try:
        with open(source.path, "rb", buffering=1 << 20) as raw:
            if source.gzipped:
                with gzip.GzipFile(fileobj=raw) as unpacked, io.BufferedReader(unpacked, 1 << 20) as stream:
                    yield stream
            else:
                yield raw
    except (OSError, EOFError, zlib.error) as error:
        raise read_error(source.path, error) from error


def _stem(name: str) -> str:
    return name.split(".", 1)[0].casefold()


def _suffixes(path: Path) -> tuple[str, bool]:
    """The format's suffix and whether the name says gzip."""
    name = path.name.casefold()
    bare = re.sub(r"(\.gz)+$", "", name)
    return Path(bare).suffix, bare != name


def _file(path: Path) -> Source:
    suffix, named_gzip = _suffixes(path)
    kind = FORMATS.get(suffix, "text")
    with open(path, "rb") as stream:
        start = stream.read(16)
    gzipped = start.startswith(_GZIP)
    if named_gzip and not gzipped:
        reason = "the file is empty" if not start else "its name ends in .gz but it is not gzip"
        raise DataError(
            reason, where=str(path), hint=None if not start else "rename it without .gz if it is not compressed"
        )
    source = Source(path, kind, gzipped)
    if gzipped:
        with open_bytes(source) as stream:
            start = stream.read(16)
    if not start:
        raise DataError("the file is empty", where=str(path))
    if gzipped and start.startswith(_GZIP):
        raise DataError("the file is gzipped twice", where=str(path), hint="unpack it once")
    return Source(path, _by_content(path, kind, suffix, start), gzipped)


def _by_content(path: Path, kind: str, suffix: str, start: bytes) -> str:
    """The format after a look at the first bytes: some files are not what their name says."""
    parquet, arrow = start.startswith(b"PAR1"), start.startswith((b"ARROW1", b"\xff\xff\xff\xff"))
    if kind == "parquet" and not parquet:
        raise DataError("the file is not Parquet, though its name says so", where=str(path))
    if kind == "arrow" and not arrow:
        raise DataError("the file is not an Arrow file, though its name says so", where=str(path))
    if kind in ("parquet", "arrow"):
        return kind
    for magic, what in _UNREADABLE.items():
        if start.startswith(magic):
            raise DataError(f"the file is {what}", where=str(path), hint=f"give it as {READABLE}")
    if parquet or (arrow and suffix not in FORMATS):
        return "parquet" if parquet else "arrow"
    return kind


def _folder(folder: Path) -> tuple[list[Source], list[str]]:
    if (folder / "dataset_dict.json").is_file():
        saved = sorted(entry.name for entry in folder.iterdir() if (entry / "state.json").is_file())
        raise DataError(
            f"this saved Hugging Face dataset is divided into splits: {', '.join(saved) or 'none of them is there'}",
            where=str(folder),
            hint=f"name one of them, such as {folder / saved[0]}" if saved else None,
        )
    if (folder / "state.json").is_file() and ((folder / "dataset_info.json").is_file() or any(folder.glob("*.arrow"))):
        return _saved_dataset(folder), []
    entries = sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda entry: entry.name
    )
    files = [entry for entry in entries if entry.is_file()]
    data = [file for file in files if _suffixes(file)[0] in FORMATS and not _BESIDE_DATA.match(file.name)]
    if not data:
        inside = ", ".join(entry.name + ("/" if entry.is_dir() else "") for entry in entries[:8]) or "nothing"
        raise DataError(
            "the folder holds no file that can be read",
            where=str(folder),
            hint=f"it holds: {inside}{', ...' if len(entries) > 8 else ''}\n"
            f"wanted: {READABLE}; subfolders are not searched",
        )
    splits = _splits_of(data)
    if len(splits) > 1:
        raise DataError(
            f"the folder holds several splits: {', '.join(sorted(splits))}",
            where=str(folder),
            hint=f"name the file that is meant, such as {splits[min(splits)]}",
        )
    empty = [file for file in data if not file.stat().st_size]
    if len(empty) < len(data):
        data = [file for file in data if file not in empty]
    notes = [f"{file.name} is empty" for file in empty if file not in data]
    left_out = [
        entry.name + ("/" if entry.is_dir() else "") for entry in entries if entry not in data and entry not in empty
    ]
    if left_out:
        notes.append(f"in {folder.name or folder} these were not read: {', '.join(left_out)}")
    return [_file(file) for file in data], notes


def _splits_of(files: Sequence[Path]) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    for file in files:
        for word in re.split(r"[^a-z]+", file.name.casefold()):
            if word in _SPLITS:
                splits.setdefault(_SPLITS[word], file)
    return splits


def _saved_dataset(folder: Path) -> list[Source]:
    """The Arrow files of a folder written by ``datasets.Dataset.save_to_disk``, in their order.

    They are opened here and not by ``datasets.load_from_disk``, which takes whatever path ``state.json`` names.
    """
    state_file = folder / "state.json"
    try:
        state: Any = json.loads(state_file.read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        indices = state.get("_indices_data_files") or []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the saved dataset's description cannot be read: {error}", where=str(state_file)) from error
    if indices:
        raise DataError(
            "this dataset was saved with an index over its rows by an old version of datasets",
            where=str(folder),
            hint="load it with datasets and save it again after flatten_indices()",
        )
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise DataError(f"the saved dataset names a file outside its folder: {name!r}", where=str(state_file))
        if not (folder / name).is_file():
            raise DataError(f"a file of the saved dataset is missing: {name}", where=str(folder))
    if not names:
        raise DataError("the saved dataset has no rows", where=str(folder))
    return [_file(folder / name) for name in names]
