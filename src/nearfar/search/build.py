"""Building an index in a folder beside its place, in steps that a killed process can be continued from."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nearfar
from nearfar.encoders import encode, fingerprint
from nearfar.encoders.save import write_model
from nearfar.encoders.sentence_modules import dimension_of
from nearfar.errors import OutputError, UsageError
from nearfar.files import output_error, write_json
from nearfar.locking import only_one
from nearfar.search.documents import cut, document_line, stored_lines
from nearfar.search.kinds import build_kind, check_count, check_kind
from nearfar.search.vectors import faiss_module, file_size, mapped, set_count

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FORMAT, VERSION = "nearfar-index", 1
METADATA, INDEX, VECTORS, DOCUMENTS, OFFSETS, MODEL = (
    "index.json",
    "index.faiss",
    "vectors.faiss",
    "documents.jsonl",
    "offsets.npy",
    "model",
)
STEP = 4096
"""Documents embedded between two savings."""

_STATE, _RAW_OFFSETS = "building.json", "offsets.int64"
_NOT_NEEDED = {
    "exact": (_STATE, _RAW_OFFSETS, INDEX),  # the file of vectors is the index
    "hnsw": (_STATE, _RAW_OFFSETS, VECTORS),  # the graph's file holds them
    "ivfpq": (_STATE, _RAW_OFFSETS),
}
"""Files that only serve an unfinished index. Taken away last, so that a process killed before can go on."""

Progress = Callable[[str, int, "int | None"], None]


def building_folder(folder: Path) -> Path:
    """Where the unfinished index of ``folder`` lies."""
    return folder.with_name(f".{folder.name}.building")


def build(
    folder: str | os.PathLike[str],
    model: SentenceTransformer,
    documents: Iterable[dict[str, Any]],
    *,
    kind: str,
    batch_size: int | None,
    overwrite: bool,
    progress: Progress | None,
) -> Path:
    """See :meth:`nearfar.search.Index.build`."""
    check_kind(kind)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    faiss_module()
    final = Path(os.path.abspath(folder))
    if final.exists() and not overwrite:
        raise OutputError(
            "the output exists already", where=str(final), hint="choose another folder, or pass --overwrite"
        )
    work = building_folder(final)
    with only_one(final.with_name(f".{final.name}.lock"), f"building {final.name}"), _writing(final):
        work.mkdir(parents=True, exist_ok=True)
        job = {
            "format": FORMAT,
            "version": VERSION,
            "model": fingerprint(model),
            "batch_size": batch_size,
            "step": STEP,
        }
        try:
            count = _embed(_Work(work, dimension_of(model), job), model, documents, batch_size, progress)
            check_count(kind, count)
        finally:
            if not (work / _STATE).exists():
                shutil.rmtree(work, ignore_errors=True)
        _finish(work, model, job, kind, count, progress)
        _put_in_place(work, final)
        for name in _NOT_NEEDED[kind]:
            (final / name).unlink(missing_ok=True)
    return final


class _Work:
    """Vectors, documents and offsets of the first ``done`` documents; what was written beyond them is cut off."""

    def __init__(self, folder: Path, dimension: int, job: dict[str, Any]) -> None:
        self.folder, self.dimension, self.job = folder, dimension, job
        self.done = self._finished()
        if self.done == 0:
            (folder / _STATE).unlink(missing_ok=True)
        self._cut()

    def _finished(self) -> int:
        try:
            state = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            done = int(state["done"])
            size = int(self._offsets(done)[-1])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return 0
        whole = (
            state.get("job") == self.job
            and (self.folder / VECTORS).stat().st_size >= file_size(self.dimension, done)
            and (self.folder / DOCUMENTS).stat().st_size >= size
        )
        return done if whole else 0

    def _offsets(self, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Where the first ``count`` documents begin, and the end."""
        ends = np.fromfile(self.folder / _RAW_OFFSETS, dtype=np.int64, count=count) if count else np.zeros(0, np.int64)
        if len(ends) < count:
            raise ValueError("too few offsets")
        return np.concatenate([np.zeros(1, dtype=np.int64), ends])

    def _cut(self) -> None:
        size = int(self._offsets(self.done)[-1])
        set_count(self.folder / VECTORS, self.dimension, self.done)
        cut(self.folder / DOCUMENTS, size)
        cut(self.folder / _RAW_OFFSETS, 8 * self.done)

    def keep(self, count: int) -> None:
        """Forget all but the first ``count`` documents."""
        write_json(self.folder / _STATE, {"job": self.job, "done": count})
        self.done = count
        self._cut()

    def append(self, lines: list[bytes], vectors: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """Add documents and their vectors, and make them last."""
        start = (self.folder / DOCUMENTS).stat().st_size
        ends = start + np.cumsum([len(line) for line in lines], dtype=np.int64)
        contents = ((DOCUMENTS, b"".join(lines)), (_RAW_OFFSETS, ends.tobytes()), (VECTORS, vectors.tobytes()))
        for name, content in contents:
            with open(self.folder / name, "ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        self.done += len(lines)
        write_json(self.folder / _STATE, {"job": self.job, "done": self.done})

    def close(self) -> None:
        """Turn what was appended into the files of a finished index."""
        np.save(self.folder / OFFSETS, self._offsets(self.done))
        set_count(self.folder / VECTORS, self.dimension, self.done)


def _embed(
    work: _Work,
    model: SentenceTransformer,
    documents: Iterable[dict[str, Any]],
    batch_size: int | None,
    progress: Progress | None,
) -> int:
    """Embed and store what ``work`` does not hold yet of ``documents``; how many they are."""
    total = len(documents) if isinstance(documents, Sized) else None
    numbered = (document_line(document, number) for number, document in enumerate(documents, 1))
    pending = _skip_stored(work, numbered)
    if progress is not None and work.done:
        progress("embedding", work.done, total)
    while block := list(itertools.islice(pending, STEP - work.done % STEP)):
        vectors = encode(model, [text for _, text in block], batch_size=batch_size, task="document")
        work.append([line for line, _ in block], vectors)
        if progress is not None:
            progress("embedding", work.done, total)
    work.close()
    return work.done


def _skip_stored(work: _Work, documents: Iterator[tuple[bytes, str]]) -> Iterator[tuple[bytes, str]]:
    """``documents`` after those that ``work`` holds; from the first that differs on, the held ones are forgotten."""
    for row, stored in enumerate(stored_lines(work.folder / DOCUMENTS, work.done)):
        document = next(documents, None)
        if document is None or document[0] != stored:
            work.keep(row)
            return itertools.chain([document], documents) if document is not None else iter(())
    return documents


def _finish(
    work: Path, model: SentenceTransformer, job: dict[str, Any], kind: str, count: int, progress: Progress | None
) -> None:
    dimension = dimension_of(model)
    parameters: dict[str, Any] = {}
    if kind != "exact":
        told = functools.partial(progress, "indexing") if progress is not None else None
        parameters = build_kind(kind, mapped(work / VECTORS, dimension, count), work / INDEX, told)
    shutil.rmtree(work / MODEL, ignore_errors=True)
    (work / MODEL).mkdir()
    write_model(model, work / MODEL)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "nearfar": nearfar.__version__,
        "kind": kind,
        "parameters": parameters,
        "count": count,
        "dimension": dimension,
        "score": "cosine (inner product of embeddings of length 1)",
        "model": job["model"],
    }
    write_json(work / METADATA, metadata)


def _put_in_place(work: Path, final: Path) -> None:
    if final.exists():
        previous = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".old", dir=final.parent))
        os.replace(final, previous / final.name)
        os.replace(work, final)
        shutil.rmtree(previous, ignore_errors=True)
    else:
        os.replace(work, final)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(folder, error) from error
