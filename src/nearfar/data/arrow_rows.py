"""Batches out of Parquet and Arrow files, checked column by column without going through Python objects."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.data.columns import DOMAINS, Layout
from nearfar.data.log import BadRow, ReadLog
from nearfar.data.shape_checks import FEATURES_HINT
from nearfar.data.sources import Source, open_bytes, read_error
from nearfar.data.store import BATCH_ROWS, arrow
from nearfar.data.values import BadValueError, Check
from nearfar.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def open_arrow(source: Source) -> Iterator[tuple[pa.Schema, Any]]:
    """The schema of a Parquet or Arrow file and a function from column names to its record batches.

    Raises :class:`DataError` for a file that is damaged.
    """
    pa = arrow()
    with ExitStack() as stack:
        try:
            place: Any = str(source.path)
            if source.gzipped:  # these formats are read from their end
                place = stack.enter_context(tempfile.NamedTemporaryFile(prefix="nearfar-data-"))
                with open_bytes(source) as stream:
                    shutil.copyfileobj(stream, place, 1 << 20)
                place.flush()
                place = place.name
            if source.format == "parquet":
                from pyarrow import parquet

                file = stack.enter_context(parquet.ParquetFile(place))
                yield file.schema_arrow, lambda names: file.iter_batches(BATCH_ROWS, columns=names, use_threads=False)
            else:
                reader = stack.enter_context(_open_ipc(stack.enter_context(pa.memory_map(place))))
                yield reader.schema, lambda names: _ipc_batches(reader, names)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise read_error(source.path, error) from error
            kind = "Parquet" if source.format == "parquet" else "Arrow"
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"the {kind} file is damaged or cut short: {reason}", where=str(source.path)) from error


def _open_ipc(file: Any) -> Any:
    from pyarrow import ipc

    start = file.read(6)
    file.seek(0)
    return ipc.open_file(file) if start == b"ARROW1" else ipc.open_stream(file)


def _ipc_batches(reader: Any, names: list[str]) -> Iterator[pa.RecordBatch]:
    if hasattr(reader, "num_record_batches"):
        whole = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        whole = iter(reader)
    for batch in whole:
        chosen = batch.select(names)
        for column in chosen.columns:
            _ensure_sound(column)
        for start in range(0, len(chosen), BATCH_ROWS):
            yield chosen.slice(start, BATCH_ROWS)


def _ensure_sound(column: pa.Array) -> None:
    """Raise ArrowInvalid if the buffers contradict each other.

    Arrow files are mapped as they are, and a damaged one would be read beyond its end. Texts that are not UTF-8 are
    found later, row by row.
    """
    pa = arrow()
    bare = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(column.type)
    (column if bare is None else column.view(bare)).validate(full=True)


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The names behind a column of class numbers, where Hugging Face datasets wrote them into the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
        return [str(name) for name in names] if features[column]["_type"] == "ClassLabel" and names else None
    except (KeyError, TypeError, ValueError):
        return None


def has_lists(schema: pa.Schema) -> bool:
    """Whether a column holds lists."""
    return any(_is_list(kind) for kind in schema.types)


def check_types(schema: pa.Schema, layout: Layout, where: str) -> None:
    """Raise :class:`DataError` naming the first column whose type cannot be what it is wanted as."""
    types = arrow().types
    for role, name in layout.columns.items():
        kind = schema.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        text = _is_text(kind)
        number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)
        hint = f"name another column as {role} with --columns, or convert this one"
        if role == "score":
            wanted, fits = "numbers are", number
        elif layout.lists:
            wanted, fits = "lists of sentences are", _is_list(kind) and _is_text(kind.value_type)
        elif role in ("label", "domain", "document"):
            wanted, fits = f"{role}s (texts or whole numbers) are", text or number
        elif role == "image":
            wanted = "images (lists of numbers, or paths of .npy files) are"
            fits = text or (_is_list(kind) and types.is_primitive(kind.value_type))
            hint = hint if fits or not types.is_struct(kind) else FEATURES_HINT
        else:
            wanted, fits = "texts are", text
        if not fits:
            held = "nothing but nulls" if types.is_null(kind) else f"values of type {kind}"
            raise DataError(
                f"column {name!r} holds {held} where {wanted} needed", where=f"{where}, column {name!r}", hint=hint
            )


def _is_text(kind: pa.DataType) -> bool:
    types = arrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind) or kind == arrow().string_view())


def _is_list(kind: pa.DataType) -> bool:
    types = arrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def checked_batches(
    source: Source, layout: Layout, log: ReadLog, checks: dict[str, Check], text_limit: int
) -> Iterator[dict[str, Any]]:
    """The usable rows of ``source`` as canonical name -> Arrow array or list; the others are logged as bad rows."""
    names = list(dict.fromkeys(layout.columns.values()))
    with open_arrow(source) as (schema, batches):
        classes = class_names(schema, layout.columns["label"]) if "label" in layout.columns else None
        row = 1
        for batch in batches(names):
            columns = {role: batch.column(batch.schema.get_field_index(name)) for role, name in layout.columns.items()}
            ready = {role: _ready(role, column, text_limit) for role, column in columns.items()}
            if classes is None and all(array is not None for array in ready.values()):
                yield ready
            else:
                yield _row_by_row(columns, layout, source, log, checks, row, classes)
            row += len(batch)


def _ready(role: str, column: pa.Array, text_limit: int) -> pa.Array | None:
    """The column as it is stored, if every value is certainly good; None if they have to be looked at one by one."""
    pa = arrow()
    from pyarrow import compute

    if column.null_count:
        return None
    if role == "score":
        scores = _floats(column)
        return scores if np.isfinite(scores.to_numpy(zero_copy_only=False)).all() else None
    if role in ("label", "document", "domain", "image") or _is_list(column.type):
        return None
    texts = column.cast(pa.large_string())
    try:
        texts.validate(full=True)  # Parquet does not say whether its texts are UTF-8
    except pa.ArrowInvalid:
        return None
    longest = compute.max(compute.binary_length(texts)).as_py() or 0
    return None if longest > text_limit or compute.any(compute.match_substring(texts, "\0")).as_py() else texts


def _floats(column: pa.Array) -> pa.Array:
    pa = arrow()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(pa.float64(), safe=False)


def _row_by_row(
    columns: dict[str, pa.Array],
    layout: Layout,
    source: Source,
    log: ReadLog,
    checks: dict[str, Check],
    first_row: int,
    classes: list[str] | None,
) -> dict[str, list[Any]]:
    values = {role: _values(role, column) for role, column in columns.items()}
    good: dict[str, list[Any]] = {role: [] for role in columns}
    for offset, row in enumerate(zip(*values.values(), strict=True)):
        checked = []
        for role, value in zip(columns, row, strict=True):
            try:
                if isinstance(value, _NotUtf8):
                    raise BadValueError(value.reason)
                if classes is not None and role == "label" and value is not None:
                    value = _class_name(value, classes, may_lack=layout.shape == DOMAINS)
                checked.append(checks[role](value))
            except BadValueError as error:
                place = (str(source.path), first_row + offset, layout.columns[role])
                log.bad(BadRow(*place, str(error), source.unit, error.hint))
                break
        else:
            for role, value in zip(columns, checked, strict=True):
                good[role].append(value)
    return good


def _class_name(number: int, classes: list[str], *, may_lack: bool) -> str | None:
    """The name behind a class number; None for -1, Hugging Face's for no class, where there may be none."""
    if number == -1 and may_lack:
        return None
    if not 0 <= number < len(classes):
        raise BadValueError(f"class number {number}, which has no name (unlabelled?)")
    return classes[number]


class _NotUtf8:
    def __init__(self, error: UnicodeDecodeError) -> None:
        self.reason = f"byte 0x{error.object[error.start]:02x} at byte {error.start + 1} is not valid UTF-8"


def _values(role: str, column: pa.Array) -> list[Any]:
    pa = arrow()
    if role == "score":
        return list(_floats(column).to_pylist())
    if role == "image" and _is_list(column.type):
        return _lists(column)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if kind in (pa.string(), pa.large_string(), pa.string_view()):
        # Through bytes, because a text that is not UTF-8 would end the conversion of all.
        return [_decoded(value) for value in column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()]
    return list(column.to_pylist())


def _lists(column: pa.Array) -> list[Any]:
    """Lists of numbers as arrays, without going through Python numbers; None for null."""
    pa = arrow()
    lists = column.cast(pa.large_list(column.type.value_type))
    flat, ends = lists.values.to_numpy(zero_copy_only=False), lists.offsets.to_numpy()
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    return [flat[ends[row] : ends[row + 1]] if there[row] else None for row in range(len(lists))]


def _decoded(value: bytes | None) -> str | _NotUtf8 | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError as error:
        return _NotUtf8(error)
