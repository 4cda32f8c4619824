"""Texts as 64-bit numbers: which are the same once case, width and white space are put aside, in 8 bytes a text; and
whole tables as one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def normalise(text: str) -> str:
    """``text`` as it is compared: Unicode NFKC, case folded, runs of white space as one blank, none at the ends."""
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def text_hashes(texts: Iterable[str]) -> Hashes:
    """The BLAKE2b-64 of each normalised text, ``[n]`` uint64.

    Equal texts get equal numbers; among n different texts two share one with probability about n^2 / 2^65 (3e-8 for a
    million), so equal numbers are taken for equal texts.
    """
    digests = b"".join([blake2b(normalise(text).encode("utf-8"), digest_size=8).digest() for text in texts])
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def combined(first: Hashes, second: Hashes, *, ordered: bool = True) -> Hashes:
    """One number for each pair of numbers. Not ``ordered``: (a, b) and (b, a) get the same."""
    if not ordered:
        first, second = np.minimum(first, second), np.maximum(first, second)
    mixed = _mixed(first) + second  # wraps around, as intended
    return _mixed(mixed)


def table_sha256(table: pa.Table, head: str) -> str:
    """The SHA-256 (hex) of ``head``, the names of the columns and all values in order, of texts, ``score`` and
    ``image``.

    Each column is hashed by itself, lengths and bytes apart, so one pass over a mapped table is enough.
    """
    whole = sha256(head.encode())
    for name in table.column_names:
        lengths, content = sha256(), sha256()
        for chunk in table.column(name).chunks:
            if name == "score":
                content.update(np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False), "<f8").tobytes())
            elif name == "image":
                lengths.update(np.diff(chunk.offsets.to_numpy()).astype("<i8").tobytes())
                content.update(np.ascontiguousarray(chunk.flatten().to_numpy(), "<f4").tobytes())
            elif len(chunk):
                _, offsets_buffer, data = chunk.buffers()
                offsets = np.frombuffer(offsets_buffer, np.int64, len(chunk) + 1, chunk.offset * 8)
                for at in range(0, len(chunk), 1 << 20):
                    lengths.update(np.diff(offsets[at : at + (1 << 20) + 1]).astype("<i8").tobytes())
                if offsets[-1] > offsets[0]:
                    content.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
        whole.update(f"\0{name}\0".encode() + lengths.digest() + content.digest())
    return whole.hexdigest()


def _mixed(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): a bijection without visible structure."""
    mixed = values + _MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Hashes = mixed ^ (mixed >> np.uint64(31))
    return result
