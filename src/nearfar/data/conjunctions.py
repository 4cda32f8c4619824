"""Conjunctions that open a sentence, and what kind of tie to the sentence before each of them says (English)."""

from __future__ import annotations

import re

GROUPS: dict[str, tuple[str, ...]] = {
    "addition": (*("again", "also", "besides", "finally", "further", "furthermore", "moreover", "in addition"),),
    "contrast": (
        *("anyway", "however", "instead", "nevertheless", "otherwise", "contrarily", "conversely", "nonetheless"),
        *("in contrast", "rather"),
    ),
    "time": ("meanwhile", "next", "then", "now", "thereafter"),
    "result": (
        *("accordingly", "consequently", "hence", "henceforth", "therefore", "thus", "incidentally", "subsequently"),
    ),
    "specific": ("namely", "specifically", "notably", "that is", "for example"),
    "compare": ("likewise", "similarly"),
    "strengthen": ("indeed", "in fact"),
    "return": ("still",),
    "recognize": ("undoubtedly", "certainly"),
}
"""Kinds of ties and their conjunctions (Jernite et al., 2017: 43 phrases in 9 groups)."""

KINDS = tuple(GROUPS)

_KIND = {phrase: place for place, phrases in enumerate(GROUPS.values()) for phrase in phrases}
_OPENING = re.compile(
    r"\s*("
    + "|".join(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in sorted(_KIND, key=len, reverse=True))
    + r")\b(?!-\w)\s*[,:;–—-]*\s*",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w")


def without_conjunction(sentence: str) -> tuple[int, str] | None:
    """The kind of conjunction that opens ``sentence`` (a place in :data:`KINDS`) and the sentence without it and the
    sign behind it; None where none does, or where nothing would be left."""
    found = _OPENING.match(sentence)
    if found is None or not _WORD.search(sentence, found.end()):
        return None
    return _KIND[" ".join(found[1].casefold().split())], sentence[found.end() :]
