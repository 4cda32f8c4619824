"""Checks of values that depend on where they stand: documents in one piece, images of one length, two domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.data.columns import CAPTIONS, DOMAINS, Layout
from nearfar.data.values import BadValueError, Check, kind_of, label_check, score_check, shorten, text_check

PICTURES = frozenset((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".heic", ".svg"))
_IMAGE = "an image (a list of numbers, or in a file the path of a .npy file)"
FEATURES_HINT = (
    "pictures are not opened here: run them once through any frozen image encoder (ResNet, CLIP, ...), save the vector "
    "of each with numpy.save('cat.npy', vector) and name that file, or write its numbers as a list (JSON, Parquet); to "
    "read the texts alone: --columns text"
)


class ValueChecks:
    """The checks of the values of all columns of a layout, over all files that are read.

    ``optional``: the columns that a row needs not have. ``limit``: bytes of a text.
    """

    def __init__(self, layout: Layout, limit: int) -> None:
        self._layout, self._limit = layout, limit
        self._documents, self._domains, self._images = DocumentOrder(limit), TwoDomains(limit), ImageVectors(limit)
        self.optional = {CAPTIONS: ("image",), DOMAINS: ("label",)}.get(layout.shape, ())

    def of(self, *, typed: bool, folder: Path | None = None) -> dict[str, Check]:
        """A check for each canonical column; ``typed``: numbers come as numbers (JSON), not as texts (CSV);
        ``folder``: that of the file, where it may name others (None: it may not)."""
        label = label_check(self._limit)
        kinds: dict[str, Check] = {
            "score": score_check(typed=typed),
            "label": unless_empty(label, "") if "label" in self.optional else label,
            "document": self._documents.numbered if self._layout.lists else self._documents,
            "domain": self._domains,
            "image": self._images.check(folder),
        }
        text = sentences_check(self._limit) if self._layout.lists else text_check(self._limit)
        return {role: kinds.get(role, text) for role in self._layout.columns}

    def lacking(self) -> str | None:
        """What all rows together lack, None where they are as they should be."""
        if self._layout.shape == CAPTIONS and self._images.length is None:
            return "no row has an image"
        if self._layout.shape == DOMAINS and len(self._domains.names) == 1:
            return f"all rows are of the domain {shorten(self._domains.names[0], 40)!r}, where two are needed"
        return None

    def next_document(self) -> str:
        """A name for a document that has none."""
        return next(self._documents.numbers)


def exploded(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows of sentences out of rows of documents: ``text`` with lists of texts, ``document`` with a name for each."""
    pairs = [(text, name) for texts, name in zip(columns["text"], columns["document"], strict=True) for text in texts]
    return {"text": [text for text, _ in pairs], "document": [name for _, name in pairs]}


def unless_empty(check: Check, empty: Any) -> Check:
    """A check that gives ``empty`` for null and for a text without a letter, and what ``check`` gives for the rest."""

    def checked(value: Any) -> Any:
        if value is None or (isinstance(value, str) and not value.strip()):
            return empty
        return check(value)

    return checked


def sentences_check(limit: int) -> Check:
    """A check that returns a list of texts, of at most ``limit`` bytes each."""
    as_text = text_check(limit)

    def check(value: Any) -> list[str]:
        if not isinstance(value, (list, tuple)):
            raise BadValueError(f"{kind_of(value)} where a list of sentences is needed")
        if not value:
            raise BadValueError("the list of sentences is empty")
        sentences = []
        for number, sentence in enumerate(value, 1):
            try:
                sentences.append(as_text(sentence))
            except BadValueError as error:
                raise BadValueError(f"sentence {number}: {error}") from error
        return sentences

    return check


class DocumentOrder:
    """Checks that the rows of a document stand together. Keeps some tens of bytes for each document.

    Called with what names the document of the next row, returns it as text; raises :class:`BadValueError` where it
    names none, or one that ended before.
    """

    def __init__(self, limit: int) -> None:
        self._name = label_check(limit, "document")
        self._last: str | None = None
        self._seen: set[int] = set()
        self.numbers: Iterator[str] = map(str, count(1))
        """Names for documents that have none."""

    def __call__(self, value: Any) -> str:
        name: str = self._name(value)
        if name != self._last:
            if hash(name) in self._seen:
                raise BadValueError(
                    f"document {shorten(name, 40)!r} goes on here, after another one has begun; the rows of a document "
                    "must stand together",
                    hint="sort the rows by document, those of each in their order; where files number their documents "
                    "alike, give each a name of its own; to read the texts alone: --columns text",
                )
            self._seen.add(hash(name))
            self._last = name
        return name

    def numbered(self, value: Any) -> str:
        """The next number: of a row that is a document."""
        return next(self.numbers)


class TwoDomains:
    """Checks that texts are of two domains. Called with a row's domain, returns it as text."""

    def __init__(self, limit: int) -> None:
        self._name = label_check(limit, "domain")
        self.names: list[str] = []

    def __call__(self, value: Any) -> str:
        name: str = self._name(value)
        if name not in self.names:
            if len(self.names) == 2:
                raise BadValueError(
                    f"{shorten(name, 40)!r} is a third domain, beside "
                    f"{shorten(self.names[0], 40)!r} and {shorten(self.names[1], 40)!r}; there are two of them: the "
                    "source, which has labels, and the target"
                )
            self.names.append(name)
        return name


class ImageVectors:
    """Checks images: each a list of numbers or the path of a .npy file, all of the length of the first.

    An image that is empty (null, or a text without a letter) becomes a vector of length 0.
    """

    def __init__(self, limit: int) -> None:
        self._as_text = text_check(limit)
        self.length: int | None = None
        self._file: tuple[Path, npt.NDArray[np.float32]] | None = None

    def check(self, folder: Path | None) -> Check:
        """The check of a file in ``folder``, from which its paths start and out of which none leads; None: no paths."""

        def check(value: Any) -> npt.NDArray[np.float32]:
            if isinstance(value, str):
                return self._sized(self._of_file(self._as_text(value), folder))
            if isinstance(value, (list, tuple, np.ndarray)):
                return self._sized(_numbers(value))
            raise BadValueError(
                f"{kind_of(value)} where an image is needed: a list of numbers, or the path of a .npy file"
            )

        return unless_empty(check, np.empty(0, np.float32))

    def _sized(self, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if not len(vector):
            raise BadValueError("an image without numbers; where a text has none, leave it empty or null")
        if self.length is None:
            self.length = len(vector)
        elif len(vector) != self.length:
            raise BadValueError(f"an image of {len(vector):,} numbers, where the ones before have {self.length:,}")
        return vector

    def _of_file(self, name: str, folder: Path | None) -> npt.NDArray[np.float32]:
        suffix = Path(name).suffix.casefold()
        if suffix in PICTURES:
            raise BadValueError(
                f"{shorten(name, 60)!r} is a picture, and features of it are needed", hint=FEATURES_HINT
            )
        if folder is None or suffix != ".npy":
            raise BadValueError(f"{kind_of(name)} where {_IMAGE} is needed")
        path = folder / name
        try:
            if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
                raise BadValueError(f"{shorten(name, 60)!r} is outside of the folder that the data file is in")
            if self._file is None or self._file[0] != path:
                # one format and nothing else: no pickles, no archives; the header is looked at before the numbers
                self._file = (path, _numbers(np.lib.format.open_memmap(path, mode="r")))
        except (OSError, ValueError, EOFError) as error:
            if isinstance(error, BadValueError):
                raise
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise BadValueError(
                f"{shorten(name, 60)!r} cannot be read as a NumPy array: {shorten(reason, 100)}"
            ) from error
        return self._file[1]


def _numbers(values: Any) -> npt.NDArray[np.float32]:
    """``values`` as a vector in float32; BadValueError for anything else than a flat list of finite numbers."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            found = f"an array {list(values.shape)} of {values.dtype}"
            raise BadValueError(f"{found} in an image, where a flat list of numbers is needed")
    else:
        kinds = {
            kind for kind in set(map(type, values)) if kind is bool or not issubclass(kind, (int, float, np.number))
        }
        if kinds:
            wrong = next(each for each in values if type(each) in kinds)
            raise BadValueError(f"{kind_of(wrong)} in an image, where a flat list of numbers is needed")
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(values).astype(np.float32)
    except (OverflowError, TypeError) as error:  # an integer of hundreds of digits, a complex number
        raise BadValueError(f"a number in an image that cannot be used: {error}") from error
    if not np.isfinite(vector).all():
        raise BadValueError(f"number {int(np.flatnonzero(~np.isfinite(vector))[0]) + 1} of the image is not finite")
    return vector
