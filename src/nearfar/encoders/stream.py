"""Embedding a file of any size to disk: in constant memory, resumable after the process was killed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import nearfar
from nearfar.encoders.encode import INT8_SCALE, Progress, Task, check_output, encode
from nearfar.encoders.save import fingerprint
from nearfar.encoders.sentence_modules import dimension_of
from nearfar.encoders.vocabulary import checked_texts
from nearfar.errors import OutputError, UsageError
from nearfar.files import output_error, write_json
from nearfar.locking import only_one

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples

FORMAT = "nearfar-embeddings"


@dataclass(frozen=True)
class EncodedFile:
    """What :func:`encode_file` wrote: a NumPy array ``[rows, dimension]`` and a small JSON file that describes it."""

    path: Path
    sidecar: Path
    rows: int
    dimension: int
    dtype: str
    normalized: bool
    scale: float | None
    """int8 only: the stored numbers times this are the embeddings."""
    skipped_rows: int
    """Rows of the source that could not be used (see ``max_bad_rows``); the array has no row for them."""

    def open(self) -> npt.NDArray[Any]:
        """The stored array, memory-mapped, read only."""
        stored: npt.NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return stored

    def vectors(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """Rows ``start:stop`` as float32, with the scale of int8 applied."""
        stored = np.asarray(self.open()[start:stop], dtype=np.float32)
        return stored * np.float32(self.scale) if self.scale is not None else stored


def encode_file(
    model: SentenceTransformer,
    source: str | os.PathLike[str] | Examples | Sequence[str],
    output: str | os.PathLike[str],
    *,
    column: str | None = None,
    batch_size: int | None = None,
    window: int = 50_000,
    dtype: str = "float32",
    normalize: bool = True,
    task: Task | None = None,
    resume: bool = True,
    overwrite: bool = False,
    max_bad_rows: int = 0,
    progress: Progress | None = None,
) -> EncodedFile:
    """Embed every row of ``source`` and write ``<output>.npy`` (rows in the order of the source) and ``<output>.json``.

    The rows are taken in windows; inside a window they are sorted by length for speed and put back in order. Memory
    holds one window of texts and embeddings, whatever the size of the file. After each window the rows are on disk:
    when the process is killed, the same call goes on after the last finished window and the file ends up byte for
    byte as if it had not been killed (on the same machine). Until the end the work lies in ``<output>.npy.part``; the
    finished file appears at once.

    Args:
        model: The encoder.
        source: Whatever :func:`nearfar.data.read` reads (JSONL, CSV, Parquet, text, ...; gzipped or not), examples
            already read, or texts in memory.
        output: Path without suffix (``.npy`` is taken off).
        column: Which column of a file holds the texts, by the file's own name for it. Needed when the file has
            several texts a row.
        batch_size, normalize, dtype, task: As for :func:`nearfar.encoders.encode`. The scale of int8 is in the JSON
            file.
        window: Rows embedded between two savings.
        resume: Go on with unfinished work of the same model, source and settings. False: begin anew.
        overwrite: Replace an output that exists.
        max_bad_rows: How many rows that cannot be read may be left out (counted in the JSON file).
        progress: Called with (rows done, rows in all) after every batch.

    Raises :class:`OutputError` when the output exists, cannot be written, or unfinished work belongs to another
    model, source or setting; :class:`DataError` when the source cannot be read; :class:`UsageError` for settings that
    make no sense.
    """
    check_output(batch_size, dtype, normalize)
    if window < 1:
        raise UsageError(f"the window must be at least 1 row, not {window}")
    place = Path(output)
    target = place.with_name(place.name.removesuffix(".npy") + ".npy")
    sidecar = target.with_suffix(".json")
    if target.exists() and not overwrite:
        raise OutputError(
            "the output exists already", where=str(target), hint="choose another name, or pass --overwrite"
        )
    texts = _texts(source, column, max_bad_rows)
    result = EncodedFile(
        path=target,
        sidecar=sidecar,
        rows=texts.rows,
        dimension=dimension_of(model),
        dtype=dtype,
        normalized=normalize,
        scale=INT8_SCALE if dtype == "int8" else None,
        skipped_rows=texts.skipped,
    )
    job = {
        "model": fingerprint(model),
        "source": texts.digest(),
        "rows": texts.rows,
        "dtype": dtype,
        "normalize": normalize,
        "task": task,
        "window": window,
        "batch_size": batch_size,
    }
    with only_one(target.with_name(f".{target.name}.lock"), f"writing {target.name}"):
        _run(model, texts, result, job, window, batch_size, task, resume, progress)
    return result


@dataclass(frozen=True)
class _Texts:
    rows: int
    skipped: int
    take: Callable[[int, int], list[str]]
    digest: Callable[[], str]


def _texts(source: Any, column: str | None, max_bad_rows: int) -> _Texts:
    from nearfar import data

    if isinstance(source, data.Examples):
        examples = source
    elif isinstance(source, (str, os.PathLike)):
        columns = {"text": column} if column else None
        examples = data.read(source, columns=columns, shapes=data.PLAIN_SHAPES, max_bad_rows=max_bad_rows)
        column = None
    else:
        return _in_memory(list(source))
    names = examples.text_columns
    if column is not None and column not in names:
        raise UsageError(f"there is no text column {column!r}", hint=f"there are {', '.join(names)}")
    if column is None and len(names) > 1:
        raise UsageError(
            f"each row holds several texts ({', '.join(names)})", hint="say which to encode, e.g. column='document'"
        )
    name = column or names[0]
    values = examples.table.column(name)
    return _Texts(
        rows=len(examples),
        skipped=len(examples.bad_rows),
        take=lambda start, stop: values.slice(start, stop - start).to_pylist(),
        digest=lambda: f"{name}:{examples.sha256()}",
    )


def _in_memory(texts: list[str]) -> _Texts:
    def digest() -> str:
        whole = hashlib.sha256()
        for text in checked_texts(texts):
            encoded = text.encode()
            whole.update(len(encoded).to_bytes(8, "little") + encoded)
        return f"memory:{whole.hexdigest()}"

    return _Texts(rows=len(texts), skipped=0, take=lambda start, stop: texts[start:stop], digest=digest)


def _run(
    model: SentenceTransformer,
    texts: _Texts,
    result: EncodedFile,
    job: dict[str, Any],
    window: int,
    batch_size: int | None,
    task: Task | None,
    resume: bool,
    progress: Progress | None,
) -> None:
    part = result.path.with_name(result.path.name + ".part")
    state = result.path.with_name(result.path.name + ".part.json")
    done = _finished_rows(state, part, job) if resume else 0
    header = _header(result)
    row_bytes = result.dimension * np.dtype(result.dtype).itemsize
    if done and part.stat().st_size < len(header) + done * row_bytes:
        done = 0
    with _writing(part):
        if done == 0:
            state.unlink(missing_ok=True)
            part.write_bytes(header)
        try:
            with open(part, "r+b") as file:
                file.truncate(len(header) + done * row_bytes)
                file.seek(0, os.SEEK_END)
                for start in range(done, result.rows, window):
                    stop = min(start + window, result.rows)
                    embedded = encode(
                        model,
                        texts.take(start, stop),
                        batch_size=batch_size,
                        normalize=result.normalized,
                        dtype=result.dtype,
                        task=task,
                        progress=_shifted(progress, start, result.rows),
                    )
                    file.write(embedded.data)
                    file.flush()
                    os.fsync(file.fileno())
                    write_json(state, {"job": job, "done": stop})
        except BaseException:
            if not state.exists():  # nothing worth keeping
                part.unlink(missing_ok=True)
            raise
        _write_sidecar(result, job)
        os.replace(part, result.path)
    state.unlink(missing_ok=True)


def _finished_rows(state: Path, part: Path, job: dict[str, Any]) -> int:
    """Rows that an interrupted call left in ``part``; :class:`OutputError` when that call had another ``job``."""
    if not state.exists() or not part.exists():
        return 0
    try:
        saved = json.loads(state.read_text(encoding="utf-8"))
        before, done = saved["job"], int(saved["done"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    different = sorted(name for name in job if before.get(name) != job[name])
    if different:
        raise OutputError(
            f"there is unfinished work with another {', '.join(different)}",
            where=str(part),
            hint="repeat the call that began it, begin anew with resume=False, or choose another output",
        )
    return done


def _header(result: EncodedFile) -> bytes:
    """The beginning of the .npy file."""
    stream = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(result.dtype)), "fortran_order": False}
    np.lib.format.write_array_header_1_0(stream, {**description, "shape": (result.rows, result.dimension)})
    return stream.getvalue()


def _write_sidecar(result: EncodedFile, job: dict[str, Any]) -> None:
    described = {name: value for name, value in asdict(result).items() if name not in ("path", "sidecar")}
    write_json(
        result.sidecar,
        {
            "format": FORMAT,
            "nearfar": nearfar.__version__,
            "array": result.path.name,
            **described,
            "task": job["task"],
            "model": job["model"],
            "source": job["source"],
        },
    )


def _shifted(progress: Progress | None, start: int, rows: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(start + done, rows)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise output_error(path, error) from error
