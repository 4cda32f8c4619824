"""Search by meaning: an index on disk of documents, their embeddings and the encoder that made them.

::

    from nearfar.search import Index, search_sets

    index = Index.build("my-index", model, ({"id": name, "text": text} for name, text in my_documents))
    index = Index.open("my-index")                       # at once, in any process
    for hit in index.search(["how to shuffle a list"], k=5)[0]:
        print(hit.rank, hit.score, hit.id, hit.text)
    search_sets(index, like=[texts_about_it], unlike=[texts_about_something_else], tuning="adapter")
"""

from __future__ import annotations

from nearfar.search.index import Hit, Index
from nearfar.search.kinds import KINDS
from nearfar.search.set_queries import search_sets

__all__ = ["KINDS", "Hit", "Index", "search_sets"]
