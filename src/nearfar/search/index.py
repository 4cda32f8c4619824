"""An index on disk: documents, their embeddings, and the encoder that made them, in one folder."""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar import encoders
from nearfar.errors import DataError, UsageError
from nearfar.search import build as building
from nearfar.search.documents import Documents
from nearfar.search.kinds import KINDS, candidates
from nearfar.search.vectors import Vectors, faiss_module, open_faiss

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SPARE = 16
"""Candidates fetched beyond those asked for, whose exact scores are compared."""
_RESCORED = 10
"""An ivfpq index fetches this many times the candidates, since its own scores are rough."""
_ROUNDING = 1e-5
"""Candidates whose scores are so near are compared by exact scores before a result is cut off between them."""

_MOST_COMPARED = 20_000
"""Of more equal documents than this, which ones are found is up to faiss."""


@dataclass(frozen=True)
class Hit:
    """One document found: ``rank`` from 1, ``score`` the cosine in [-1, 1], ``fields`` all but its id and text."""

    rank: int
    score: float
    id: str
    text: str
    fields: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The hit as a dict for JSON."""
        return {"rank": self.rank, "score": self.score, "id": self.id, "text": self.text, "fields": self.fields}


class Index:
    """Search by meaning in documents on disk.

    Made by :meth:`build`, opened by :meth:`open`: at once, whatever the size, since vectors and documents are
    memory-mapped and the encoder is loaded with the first query. The folder holds ``index.json`` (what it is),
    ``vectors.faiss`` and ``index.faiss`` (faiss), ``documents.jsonl`` with ``offsets.npy``, and ``model`` (a
    sentence-transformers folder). It may be moved and copied.
    """

    def __init__(
        self, folder: Path, metadata: dict[str, Any], faiss_index: Any, vectors: Any, documents: Documents
    ) -> None:
        """Use :meth:`open` or :meth:`build`."""
        self.folder = folder
        self.metadata = metadata
        self.kind: str = metadata["kind"]
        self.dimension: int = metadata["dimension"]
        self.documents = documents
        self._faiss = faiss_index
        self._vectors = vectors
        self._device: str | None = None

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        model: SentenceTransformer,
        documents: Iterable[dict[str, Any]],
        *,
        kind: str = "exact",
        batch_size: int | None = None,
        overwrite: bool = False,
        progress: building.Progress | None = None,
    ) -> Index:
        """Index ``documents`` in ``folder`` with ``model`` and open it.

        Documents are taken one by one and memory does not grow with their number (except for "hnsw" and "ivfpq", which
        :func:`nearfar.search.kinds.build_kind` builds in memory). The work lies in ``.<folder>.building`` beside the
        folder and is saved every 4,096 documents; when the process is killed, building again with the same model goes
        on: documents that are stored already are read and compared but not embedded again, and from the first that
            differs on, the work is done anew. The finished index appears at once.

        Args:
            folder: Where to.
            model: The encoder; copied into the index. A prompt saved for "document" or "query" is used.
            documents: Dicts with a "text", and if wanted an "id" (text or whole number; default: the row, from 0) and
                any other fields that JSON can hold.
            kind: "exact" compares with every document (cosine; best up to some 100,000); "hnsw" searches a graph, for
                millions in memory; "ivfpq" compresses the vectors in memory and compares the best candidates with the
                exact ones on disk; needs 9,984 documents.
            batch_size: As for :func:`nearfar.encoders.encode`.
            overwrite: Replace an index (or anything) that exists there.
            progress: Called with ("embedding" or "indexing", documents done, documents in all or None when not known).

        Raises :class:`~nearfar.errors.OutputError` when the folder exists or cannot be written, :class:`DataError`
        for a document that is no such dict, none at all or too few for the kind, :class:`UsageError` for an unknown
        kind, :class:`~nearfar.errors.MissingExtraError` without faiss.
        """
        final = building.build(
            folder, model, documents, kind=kind, batch_size=batch_size, overwrite=overwrite, progress=progress
        )
        index = cls.open(final)
        index.__dict__["model"] = model
        return index

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, device: str | None = None) -> Index:
        """Open the index in ``folder``; ``device`` is where the encoder will run.

        Raises :class:`DataError` when the folder is no index, was made by a later version, or is incomplete or damaged.
        """
        faiss_module()
        place = Path(folder)
        metadata = _metadata(place)
        kind, count, dimension = metadata["kind"], metadata["count"], metadata["dimension"]
        if not (place / building.MODEL).is_dir():
            raise DataError("the index has no encoder", where=str(place / building.MODEL))
        documents = Documents(place / building.DOCUMENTS, place / building.OFFSETS, count)
        faiss_index = open_faiss(place / (building.VECTORS if kind == "exact" else building.INDEX))
        vectors = open_faiss(place / building.VECTORS) if kind == "ivfpq" else faiss_index
        for part in (faiss_index, vectors):
            if part.ntotal != count or part.d != dimension:
                raise DataError(
                    f"the index holds {part.ntotal:,} vectors of {part.d} dimensions, not {count:,} of {dimension}",
                    where=str(place),
                )
        index = cls(place, metadata, faiss_index, vectors, documents)
        index._device = device
        return index

    def __len__(self) -> int:
        return int(self.metadata["count"])

    def __repr__(self) -> str:
        return f"Index({str(self.folder)!r}, {self.kind}, {len(self):,} documents, {self.dimension} dimensions)"

    @functools.cached_property
    def model(self) -> SentenceTransformer:
        """The encoder, loaded when first used. :class:`~nearfar.errors.ModelError` when it cannot be."""
        return encoders.load(self.folder / building.MODEL, device=self._device)

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The ``k`` documents nearest to each query by cosine, best first; equal scores in the order the documents
        were given.

        Fewer when there are fewer documents; none for a query that says nothing (empty, or without a token the
        encoder knows), with a warning. An "exact" index finds exactly the nearest; "hnsw" and "ivfpq" find most of
        them (:mod:`nearfar.search.kinds` has measurements); the scores they report are exact. Scores agree between
        the kinds to about 1e-6.

        Raises :class:`UsageError` when ``k`` is below 1 or ``queries`` is a single text.
        """
        if isinstance(queries, str):
            raise UsageError("queries must be a list of texts", hint="search([query])")
        queries = list(queries)
        if k < 1:
            raise UsageError(f"at least 1 document must be asked for, not {k}")
        vectors = encoders.encode(self.model, queries, task="query")
        said = np.array([bool(query.strip()) for query in queries], dtype=bool) & vectors.any(axis=1)
        if not said.all():
            place = int(np.flatnonzero(~said)[0])
            warnings.warn(
                f"{int((~said).sum())} of {len(queries)} queries say nothing the encoder can read and find nothing, "
                f"first {queries[place]!r:.40}",
                UserWarning,
                stacklevel=2,
            )
        results: list[list[Hit]] = [[] for _ in queries]
        places = np.flatnonzero(said)
        for found_for, (rows, scores) in zip(places, self.search_vectors(vectors[places], k), strict=True):
            ranked = enumerate(zip(rows.tolist(), scores.tolist(), strict=True), 1)
            results[found_for] = [self.hit(rank, row, score) for rank, (row, score) in ranked]
        return results

    def vectors(self, start: int, stop: int) -> Vectors:
        """The embeddings ``[stop - start, d]`` of the documents from row ``start`` up to ``stop``, of length 1."""
        found: Vectors = self._vectors.reconstruct_n(start, stop - start)
        return found

    def search_vectors(
        self, vectors: Vectors, k: int = 10
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """(rows, scores) of the ``k`` nearest documents of each of ``vectors`` [m, d], which have length 1.

        Best first; among equal scores the smaller row.
        """
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise UsageError(f"queries must be [m, {self.dimension}], not {list(queries.shape)}")
        if len(queries) == 0:
            return []
        wanted = min(k, len(self))
        fetched = min(max(wanted * _RESCORED, 100) if self.kind == "ivfpq" else wanted + _SPARE, len(self))
        most = min(max(fetched, _MOST_COMPARED), len(self))
        results: list[Any] = [None] * len(queries)
        left = np.arange(len(queries))
        while len(left):
            undecided = []
            for place, rows in zip(left, candidates(self._faiss, self.kind, queries[left], fetched), strict=True):
                rows, scores = self._ranked(queries[place], rows)
                results[place] = (rows[:wanted], scores[:wanted])
                cut_between_equals = len(scores) > 0 and scores[-1] > scores[min(wanted, len(scores)) - 1] - _ROUNDING
                if self.kind == "exact" and fetched < most and cut_between_equals:
                    undecided.append(place)
            left = np.array(undecided, dtype=np.int64)
            fetched = min(4 * fetched, most)
        return results

    def _ranked(
        self, query: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``rows`` by falling exact score, summed in float64 in a fixed order so that equal documents score equally."""
        stored = self._vectors.reconstruct_batch(rows) if len(rows) else np.zeros((0, self.dimension), np.float32)
        scores = (stored.astype(np.float64) * query.astype(np.float64)).sum(axis=1).clip(-1, 1).astype(np.float32)
        order = np.lexsort((rows, -scores))
        return rows[order], scores[order]

    def hit(self, rank: int, row: int, score: float) -> Hit:
        """The document in ``row`` as a hit."""
        document = self.documents[row]
        name = document.pop("id", None)
        text = document.pop("text")
        return Hit(rank=rank, score=score, id=str(row if name is None else name), text=text, fields=document)


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / building.METADATA
    if not path.is_file():
        unfinished = building.building_folder(Path(os.path.abspath(folder)))
        hint = "its building was interrupted: build it again, the work done is kept" if unfinished.is_dir() else None
        what = "holds no index (there is no index.json)" if folder.is_dir() else "does not exist"
        raise DataError(f"the folder {what}", where=str(folder), hint=hint)
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the description of the index cannot be read: {error}", where=str(path)) from None
    if not isinstance(metadata, dict) or metadata.get("format") != building.FORMAT:
        raise DataError("this is not an index made by nearfar", where=str(path))
    if metadata.get("version") != building.VERSION:
        raise DataError(
            f"the index has format {metadata.get('version')!r}, and this version of nearfar reads {building.VERSION}",
            where=str(path),
            hint="use the version that made it, or build it again",
        )
    numbers = (metadata.get("count"), metadata.get("dimension"))
    if metadata.get("kind") not in KINDS or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise DataError("the description of the index is damaged", where=str(path))
    return metadata
