"""Views by the syntax of a sentence, as a parser of the user's says it (Sahin and Steedman, 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

from nearfar.errors import DataError
from nearfar.views.text.base import TextView

Parse: TypeAlias = Callable[[str], tuple[Sequence[str], Sequence[int]]]
"""A text -> its words and for each the number of its head, from 0; -1 for roots."""


class _TreeView(TextView):
    def __init__(self, parse: Parse, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.parse = parse

    def change(self, text: str, draw: Random) -> str:
        words, heads = self.parse(text)
        if len(words) != len(heads) or any(not -1 <= head < len(words) for head in heads):
            raise DataError(
                f"a parse gives as many heads as words, each -1 or the number of a word; got {list(heads)} for "
                f"{list(words)}"
            )
        children: dict[int, list[int]] = {}
        for place, head in enumerate(heads):
            children.setdefault(head, []).append(place)
        if len(words) < 2 or len(self._below(-1, children)) != len(words):
            return text  # a circle has no root
        order = self.arrange(children, draw)
        if order == list(range(len(words))):
            return text
        return " ".join(words[place] for place in order) or text

    def arrange(self, children: dict[int, list[int]], draw: Random) -> list[int]:
        """The places of the words that stay, in their new order."""
        raise NotImplementedError

    @staticmethod
    def _below(root: int, children: dict[int, list[int]]) -> list[int]:
        """All words below ``root`` in their order."""
        found, left = [], list(children.get(root, ()))
        while left:
            place = left.pop()
            found.append(place)
            left += children.get(place, ())
        return sorted(found)


class TreeCrop(_TreeView):
    """A root and one of its branches, drawn at random: a simple sentence of a longer one.

    Arguments: ``parse``: a text -> words and heads (of spacy: ``lambda text: ([t.text for t in nlp(text)], ...)``);
    ``p``: default 1.
    """

    def arrange(self, children: dict[int, list[int]], draw: Random) -> list[int]:
        root = draw.choice(children[-1])
        branches = children.get(root, [])
        if not branches:
            return sorted([root, *self._below(root, children)])
        branch = draw.choice(branches)
        return sorted([root, branch, *self._below(branch, children)])


class TreeRotation(_TreeView):
    """The branches of the roots in random order around them, each as it was.

    Right where the order of the parts is free; in English it can change who does what. Arguments: as of
    :class:`TreeCrop`.
    """

    def arrange(self, children: dict[int, list[int]], draw: Random) -> list[int]:
        order: list[int] = []
        for root in children[-1]:
            parts = [[root], *(sorted([branch, *self._below(branch, children)]) for branch in children.get(root, []))]
            draw.shuffle(parts)
            order += [place for part in parts for place in part]
        return order


class BranchDeletion(_TreeView):
    """One branch below a root left out, drawn at random (constituent deletion). Arguments: as of :class:`TreeCrop`."""

    def arrange(self, children: dict[int, list[int]], draw: Random) -> list[int]:
        everything = self._below(-1, children)
        branches = [branch for root in children[-1] for branch in children.get(root, [])]
        if not branches:
            return everything
        branch = draw.choice(branches)
        gone = {branch, *self._below(branch, children)}
        return [place for place in everything if place not in gone]
