"""Which words mean the same: a mapping, a file, WordNet's files, or neighbours among word vectors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from nearfar.contrast import normalize
from nearfar.errors import DataError, UsageError
from nearfar.views.text.base import whole

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Words: TypeAlias = "Thesaurus | Mapping[str, Sequence[str]] | str | os.PathLike[str]"
"""What views take for a thesaurus: one, a mapping, or the path of a file or of WordNet's folder."""

_STOP_WORDS = """
a about above after again all also am an and any are as at be because been before being below between both but by
can could did do does doing down during each few for from further had has have having he her here hers herself him
himself his how i if in into is it its itself just me more most my myself of off on once only or other our ours
ourselves out over own same she should so some such than that the their theirs them themselves then there these they
this those through to too under until up very was we were what when where which while who whom whose why will with
would you your yours yourself yourselves
"""

STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Frequent English words that say little by themselves. "not", "no", "never", "nor" and "without" are none of them:
they turn what a sentence says into its opposite."""


class Thesaurus:
    """For each word others that may stand in its place; upper and lower case do not matter.

    Arguments: ``entries``: a mapping of words to lists of words; a word is none of its own, and one without any is left
    out. Raises :class:`~nearfar.errors.DataError` for entries of another form.
    """

    def __init__(self, entries: Mapping[str, Iterable[str]]) -> None:
        found: dict[str, tuple[str, ...]] = {}
        for word, others in entries.items():
            if isinstance(others, str) or not all(isinstance(other, str) for other in others):
                raise DataError(f"the words for {word!r} must be a list of words, got {others!r}")
            kept = dict.fromkeys(other.strip() for other in others if other.strip().lower() != word.strip().lower())
            kept.pop("", None)
            if kept and word.strip():
                found[word.strip().lower()] = tuple(kept)
        self.entries = found

    def __call__(self, word: str) -> tuple[str, ...]:
        """The words for ``word``, none where it is not known."""
        return self.entries.get(word.lower(), ())

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def of(cls, given: Words) -> Thesaurus:
        """``given`` as a thesaurus: one, a mapping, or a path for :meth:`read`."""
        if isinstance(given, Thesaurus):
            return given
        return cls(given) if isinstance(given, Mapping) else cls.read(given)

    @classmethod
    def groups(cls, groups: Iterable[Iterable[str]]) -> Thesaurus:
        """Each word for all others of its groups."""
        entries: dict[str, list[str]] = {}
        for group in groups:
            words = list(group)
            for word in words:
                entries.setdefault(word.strip().lower(), []).extend(words)
        return cls(entries)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, relation: str = "synonyms") -> Thesaurus:
        """The thesaurus in a file (UTF-8) or in a folder of WordNet's files.

        A file is JSON, one object of words and lists of words; or text, where a line is ``word: other, other`` or a
        group ``word, word, word`` of which each may stand for each. Empty lines and those that begin with ``#`` do not
        count. ``relation``: "synonyms" or "antonyms" of WordNet. Raises :class:`~nearfar.errors.DataError` with the
        line that cannot be read, and for a file without an entry.
        """
        from nearfar.views.text import wordnet

        place = Path(path)
        if place.is_dir():
            return wordnet.read(place, relation=relation)
        try:
            text = place.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the thesaurus cannot be read: {error}", where=str(place)) from None
        made = cls._of_json(text, place) if place.suffix == ".json" else cls._of_lines(text, place)
        if not made:
            raise DataError("the thesaurus holds no word", where=str(place), hint=_FORM)
        return made

    @classmethod
    def _of_json(cls, text: str, place: Path) -> Thesaurus:
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"the thesaurus is no JSON: {error}", where=str(place)) from None
        if not isinstance(content, dict) or not all(isinstance(others, list) for others in content.values()):
            raise DataError("the thesaurus must be one object of words and lists of words", where=str(place))
        return cls(content)

    @classmethod
    def _of_lines(cls, text: str, place: Path) -> Thesaurus:
        entries: dict[str, list[str]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            word, colon, others = line.partition(":")
            words = [each.strip() for each in (others if colon else line).split(",")]
            if not all(words) or (colon and not word.strip()) or (not colon and len(words) < 2):
                raise DataError("this line holds no words", where=f"{place}, line {number}", hint=_FORM)
            for each in [word.strip()] if colon else words:
                entries.setdefault(each.lower(), []).extend(words)
        return cls(entries)

    @classmethod
    def neighbours(
        cls, words: Sequence[str], vectors: torch.Tensor, *, count: int = 5, least: float = 0.0
    ) -> Thesaurus:
        """For each word the ``count`` words whose vectors have the largest cosine with its own, above ``least``.

        ``vectors [w, d]`` as ``words``. Linear memory. Raises UsageError for other sizes.
        """
        whole("neighbours: count", count)
        if vectors.dim() != 2 or len(vectors) != len(words):
            raise UsageError(f"vectors must be [{len(words)}, d], got {tuple(vectors.shape)}")
        unit = normalize(vectors.detach().float())
        taken = min(count, len(words) - 1)
        entries: dict[str, list[str]] = {}
        for start in range(0, len(words), 1024):
            part = range(start, min(start + 1024, len(words)))
            scores = unit[start : start + 1024] @ unit.T
            scores[torch.arange(len(part)), torch.arange(start, part.stop)] = -torch.inf
            best = scores.topk(max(taken, 0), dim=1)
            for own, values, others in zip(part, best.values.tolist(), best.indices.tolist(), strict=True):
                entries[words[own]] = [words[o] for o, v in zip(others, values, strict=True) if v > least]
        return cls(entries)

    @classmethod
    def of_encoder(cls, encoder: SentenceTransformer, *, count: int = 5, least: float = 0.0) -> Thesaurus:
        """:meth:`neighbours` among the whole words of an encoder's own table of token vectors (static or transformer).

        Word pieces, special tokens, numbers and marks are left out. Raises :class:`~nearfar.errors.ModelError` for an
        encoder without a table.
        """
        from nearfar.encoders.masked_language import embedding_table
        from nearfar.encoders.sentence_modules import is_static

        first: Any = encoder[0]
        table: torch.Tensor = first.embedding.weight if is_static(encoder) else embedding_table(encoder)
        tokens = {word: place for word, place in whole_words(encoder.tokenizer).items() if place < len(table)}
        vectors = table.detach().cpu()[list(tokens.values())]
        return cls.neighbours(list(tokens), vectors, count=count, least=least)

    def __repr__(self) -> str:
        return f"Thesaurus({len(self):,} words)"


def whole_words(tokenizer: object) -> dict[str, int]:
    """The whole words of a tokenizer's vocabulary and their ids, as letters alone.

    Where pieces are marked that go on (``##ing``), all others are words; where those are marked that begin (``Ġword``,
    ``▁word``), these are.
    """
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()  # type: ignore[attr-defined]
    marks = [mark for mark in ("Ġ", "▁") if sum(token.startswith(mark) for token in vocabulary) > len(vocabulary) // 10]
    found: dict[str, int] = {}
    for token, number in sorted(vocabulary.items(), key=lambda each: each[1]):
        word = token.removeprefix(marks[0]) if marks else token
        if word.isalpha() and (not marks or token != word):
            found.setdefault(word, number)
    return found


_FORM = "lines are 'word: other, other' or 'word, word, word'; a .json file is an object of words and lists of words"
