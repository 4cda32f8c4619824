"""From rows of data to batches: texts are tokenised once, batches are slices of token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from nearfar.data.grouping import name_codes
from nearfar.errors import ModelError
from nearfar.training import static
from nearfar.training.method import Batch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples
    from nearfar.negatives import Batches

Integers = npt.NDArray[np.integer[Any]]

_TWO_VIEWS = ("texts", "captions", "domains")
_TASKS = {"anchor": "query", "positive": "document", "negative": "document"}


class TextBatches(Dataset[Batch]):
    """Batches of ``examples``, tokenised for ``encoder``.

    ``batch(rows)`` gives one as :class:`~nearfar.training.ContrastiveMethod` reads it:

    - ``"rows"``: int64 ``[n]``, the rows of the data;
    - ``"chunks"``: features of the texts to embed, in chunks of at most ``chunk_size`` texts of like length;
    - ``"order"``: int64; ``embedded[order]`` are the embeddings by column (all anchors, all positives, ...), None where
      they are already;
    - ``"exclude"`` (pairs, texts and captions): int64, equal for equal texts; for pairs of positives, then negatives.
      Only where two of a batch can be equal;
    - ``"labels"``, ``"targets"``: of labelled texts, of scored pairs;
    - ``"documents"``: int64, which document each row is of;
    - ``"images"``: float32 ``[n, w]``, zeros where a text has none, and ``"image_ids"``: int64, equal for equal
      images, -1 where there is none;
    - ``"domains"``: int64, which domain each row is of, numbered as they come; with ``"labels"``, -1 for none.

    Texts, captions and domains are embedded twice, as two views.

    Where a model was saved with prompts for queries and documents, anchors and positives get them, as in evaluation.

    Arguments:
        chunk_size: see :class:`nearfar.training.chunking.Chunking`; may be set later.
        unique: whether batches never hold equal texts, so that only hard negatives need ``"exclude"``.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        examples: Examples,
        *,
        chunk_size: int | None = None,
        unique: bool = False,
        hashes: Sequence[npt.NDArray[np.uint64]] | None = None,
    ) -> None:
        self.shape = examples.shape
        self.rows = len(examples)
        self.columns = examples.text_columns
        self.chunk_size = chunk_size
        self.tokens = _Tokens(encoder, examples)
        self.vocabulary = static.quick_vocabulary(encoder)
        self.mean = self.vocabulary is not None and encoder[0].embedding.mode == "mean"
        self._exclude = self._hashes(examples, unique, hashes)
        self._images = examples.images if self.shape == "captions" else None
        self._of_rows = _of_rows(examples)

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, rows: Any) -> Any:
        return rows  # a loader asks for all rows of a batch at once; `batch` makes it

    @property
    def texts_per_row(self) -> int:
        """Texts that are embedded for one row."""
        return 2 if self.shape in _TWO_VIEWS else len(self.columns)

    def batch(self, rows: Integers | Sequence[int]) -> Batch:
        """The batch of these rows."""
        index = np.asarray(rows, dtype=np.int64)
        items = np.concatenate([index + column * self.rows for column in range(len(self.columns))])
        if self.shape in _TWO_VIEWS:
            items = np.concatenate([items, items])
        chunks, order = self._chunks(items)
        made: Batch = {"rows": torch.from_numpy(index), "chunks": chunks, "order": order}
        if self._exclude is not None:
            made["exclude"] = torch.from_numpy(np.concatenate([column[index] for column in self._exclude]))
        made.update({name: values[index] for name, values in self._of_rows.items()})
        if self._images is not None:
            made["images"] = torch.from_numpy(np.nan_to_num(self._images(index)))
        return made

    def _chunks(self, items: Integers) -> tuple[list[dict[str, Any]], torch.Tensor | None]:
        if self.chunk_size is None or self.chunk_size >= len(items):
            return [self._features(items)], None
        if self.tokens.static:
            parts = np.split(items, range(self.chunk_size, len(items), self.chunk_size))
            return [self._features(part) for part in parts], None
        # texts of like length share a chunk, so that little is padding; the longest come first, so that memory that
        # does not suffice is known at once
        by_length = np.argsort(-self.tokens.lengths[items], kind="stable")
        parts = np.split(items[by_length], range(self.chunk_size, len(items), self.chunk_size))
        order = np.empty_like(by_length)
        order[by_length] = np.arange(len(items))
        return [self._features(part) for part in parts], torch.from_numpy(order)

    def _features(self, items: Integers) -> dict[str, Any]:
        features = self.tokens.features(items)
        if self.vocabulary is not None:
            ids, offsets = features["input_ids"].numpy(), features["offsets"].numpy()
            ends = np.append(offsets, len(ids))
            features.update(static.transposed(ids, ends, self.vocabulary, mean=self.mean))
        return features

    def _hashes(
        self, examples: Examples, unique: bool, hashes: Sequence[npt.NDArray[np.uint64]] | None
    ) -> list[npt.NDArray[np.int64]] | None:
        if self.shape in ("texts", "captions"):
            names = [] if unique else ["text", "text"]
        elif self.shape == "pairs":
            names = self.columns[1:] if len(self.columns) > 2 or not unique else []
        else:
            names = []
        known = dict(zip(self.columns, hashes or (), strict=False))
        made = {
            name: ((known[name] if name in known else examples.hashes(name)) >> np.uint64(1)).astype(np.int64)
            for name in dict.fromkeys(names)
        }
        return [made[name] for name in names] or None


class _Tokens:
    """The token ids of all texts of all columns; text r of column c is item ``c * rows + r``."""

    def __init__(self, encoder: SentenceTransformer, examples: Examples) -> None:
        from nearfar import encoders
        from nearfar.encoders.sentence_modules import is_static

        self.static = is_static(encoder)
        self._encoder = encoder
        self._examples = examples
        self._prompts = [prompt_of(encoder, column) for column in examples.text_columns]
        try:
            self._ahead: encoders.Tokenized | None = encoders.pretokenize(encoder, self._texts())
            self.lengths = self._ahead.lengths
        except ModelError:  # the model's preprocessing does more than pad token ids
            self._ahead = None
            self.lengths = np.array([len(text) // 4 + 1 for text in self._texts()])

    def features(self, items: Integers) -> dict[str, Any]:
        if self._ahead is not None:
            return self._ahead.batch(items)
        from nearfar import encoders

        column, row = np.divmod(items, len(self._examples))
        taken = self._examples.take(row)
        names = self._examples.text_columns
        texts = [self._prompts[c] + taken[names[c]][position] for position, c in enumerate(column.tolist())]
        return encoders.tokenize(self._encoder, texts)

    def _texts(self) -> Iterator[str]:
        for name, prompt in zip(self._examples.text_columns, self._prompts, strict=True):
            for batch in self._examples.batches(columns=[name]):
                yield from (prompt + text for text in batch[name]) if prompt else batch[name]


def _of_rows(examples: Examples) -> dict[str, torch.Tensor]:
    """What a batch says of its rows beside their texts, by name: a value for each row of the data."""
    if examples.shape == "labelled texts":
        return {"labels": torch.from_numpy(examples.labels()[0])}
    if examples.shape == "scored pairs":
        return {"targets": torch.tensor(examples.column("score"), dtype=torch.float32)}
    if examples.shape == "documents":
        sizes = torch.from_numpy(np.diff(examples.documents()))
        return {"documents": torch.arange(len(sizes)).repeat_interleave(sizes)}
    if examples.shape == "captions":
        return {"image_ids": torch.from_numpy(examples.image_ids())}
    if examples.shape == "domains":
        codes = name_codes(examples.table.column("domain"))[0]
        return {"domains": torch.from_numpy(codes), "labels": torch.from_numpy(examples.labels()[0])}
    return {}


def prompt_of(encoder: SentenceTransformer, column: str) -> str:
    """What evaluation puts before texts of this column: the model's prompt for its task, or its default prompt."""
    prompts = getattr(encoder, "prompts", None) or {}
    task = _TASKS.get(column.split("_")[0])
    if task and prompts.get(task):
        return str(prompts[task])
    name = getattr(encoder, "default_prompt_name", None)
    return str(prompts.get(name) or "") if name is not None else ""


class Rows(Protocol):
    """What a :class:`Loader` makes batches of."""

    def __len__(self) -> int: ...

    def __getitems__(self, rows: Any) -> Any:
        """The rows themselves: a loader asks for all of a batch at once, and :meth:`batch` makes it."""
        ...

    def batch(self, rows: Any) -> Batch:
        """The batch of these rows."""
        ...


class Loader(DataLoader[Batch]):
    """A torch loader over :class:`TextBatches`, or other rows, in the order of :class:`nearfar.negatives.Batches`."""

    def __init__(self, texts: Rows, batches: Batches, *, workers: int = 0) -> None:
        self.batches = batches
        super().__init__(
            texts,  # type: ignore[arg-type]
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=texts.batch,
            num_workers=workers,
            persistent_workers=False,
            generator=torch.Generator(),  # torch's own is for dropout, which must not depend on the loader
        )

    def set_epoch(self, epoch: int) -> None:
        """Iterate over this epoch from now on."""
        self.batches.set_epoch(epoch)
