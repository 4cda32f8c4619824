"""Views of texts: on strings, on token ids and inside an encoder, by name.

::

    from nearfar.views import text

    view = text.get("synonym", thesaurus={"quick": ["fast", "swift"]}, share=0.2)
    view(["a quick fox"], generator)

The names are :func:`names`, the whole catalogue :data:`CATALOGUE`; ``nearfar views`` shows it.
"""

from __future__ import annotations

from nearfar.views.text.base import Chain, Each, Identity, TextPairs, TextView
from nearfar.views.text.catalogue import CATALOGUE, Entry
from nearfar.views.text.registry import find, get, names, parse
from nearfar.views.text.thesaurus import STOP_WORDS, Thesaurus

__all__ = [
    "CATALOGUE",
    "STOP_WORDS",
    "Chain",
    "Each",
    "Entry",
    "Identity",
    "TextPairs",
    "TextView",
    "Thesaurus",
    "find",
    "get",
    "names",
    "parse",
]
