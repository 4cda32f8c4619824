"""Synonyms and antonyms from the files of WordNet's database: ``data.noun``, ``data.verb``, ``data.adj``, ``data.adv``.

The folder is that of the database, ``dict`` in the distribution of Princeton and ``wordnet`` in nltk's data. The format
is that of the manual page wndb(5WN), the same in all versions since 1.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nearfar.errors import DataError, UsageError
from nearfar.views.text.thesaurus import Thesaurus

PARTS = ("noun", "verb", "adj", "adv")
_MARKER = re.compile(r"\((?:p|a|ip)\)$")
_LETTERS = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}


def read(folder: Path, *, relation: str = "synonyms") -> Thesaurus:
    """The thesaurus in ``folder``: words of a synset for each other, or the antonyms (pointers ``!``) of each word.

    Words of several, joined by ``_``, are joined by blanks. Raises :class:`~nearfar.errors.DataError` where no data
    file is there or a line is damaged, UsageError for another relation.
    """
    if relation not in ("synonyms", "antonyms"):
        raise UsageError(f"relation must be 'synonyms' or 'antonyms', got {relation!r}")
    files = [folder / f"data.{part}" for part in PARTS if (folder / f"data.{part}").is_file()]
    if not files:
        raise DataError(
            "the folder holds no files of WordNet", where=str(folder), hint="data.noun, data.verb, data.adj, data.adv"
        )
    synsets = {
        (path.suffix[1:], offset): (words, pointers) for path in files for offset, words, pointers in _lines(path)
    }
    if relation == "synonyms":
        return Thesaurus.groups(words for words, _ in synsets.values())
    entries: dict[str, list[str]] = {}
    for words, pointers in synsets.values():
        for part, offset, source, target in pointers:
            others = synsets.get((part, offset), ([], []))[0]
            # 0 and 0: the whole synset
            own = [words[source - 1]] if 0 < source <= len(words) else words
            opposite = [others[target - 1]] if 0 < target <= len(others) else others
            for word in own:
                entries.setdefault(word.lower(), []).extend(opposite)
    return Thesaurus(entries)


_Antonyms = list[tuple[str, str, int, int]]


def _lines(path: Path) -> Iterator[tuple[str, list[str], _Antonyms]]:
    """Offset, words and antonyms (part, offset, source, target) of each synset."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith("  "):  # the licence
                continue
            fields = line.partition("|")[0].split()
            try:
                count = int(fields[3], 16)
                words = [_MARKER.sub("", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
                after = 4 + 2 * count
                pointers = [fields[after + 1 + 4 * k : after + 5 + 4 * k] for k in range(int(fields[after]))]
                antonyms = [
                    (_LETTERS[part], offset, int(where[:2], 16), int(where[2:], 16))
                    for symbol, offset, part, where in pointers
                    if symbol == "!"
                ]
            except (IndexError, ValueError, KeyError):
                raise DataError("this is no line of WordNet's database", where=f"{path}, line {number}") from None
            if len(words) != count or not count:
                raise DataError("a synset has fewer words than it says", where=f"{path}, line {number}")
            yield fields[0], words, antonyms
