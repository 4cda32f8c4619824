"""One side of a contrast between texts: views on strings, on token ids and inside the encoder, in this order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from nearfar.encoders.masked_language import is_word
from nearfar.encoders.states import TokenEncoder
from nearfar.errors import UsageError
from nearfar.views.embedding import EmbeddingView
from nearfar.views.sequence import IdsView
from nearfar.views.text.base import Chain, TextPairs, TextView
from nearfar.views.text.entry import Entry
from nearfar.views.text.latent import Adversarial, EncoderDropout, HiddenMixup, Latent
from nearfar.views.text.registry import RESOURCES, get, parse

Resources = Mapping[str, Callable[[], Any]]
"""What views need by name, each made when a view asks for it."""


class Side:
    """The views of one side, as they are written (:func:`~nearfar.views.text.registry.parse`).

    Whatever order they are written in, strings are changed first, then token ids, then what goes on in the encoder; the
    views of one kind follow each other as they are written. "identity", or nothing, changes nothing.

    Arguments: ``written``; ``resources``: what views need that is not among their options; ``pairs``: whether the views
    may be such that give both views of a text, which then has to be the only one.

    Raises :class:`~nearfar.errors.UsageError` for views that there are not, that need what is not there, or that give
    pairs where they may not.
    """

    def __init__(self, written: str, resources: Resources | None = None, *, pairs: bool = False) -> None:
        self.written = written.strip() or "identity"
        entries = parse(self.written)
        made = [(entry, made_with(entry, options, resources or {})) for entry, options in entries]
        for entry, view in made:
            if isinstance(view, TextPairs) != pairs or (pairs and len(made) > 1):
                raise UsageError(
                    f"{entry.name} gives {'both views of a text' if isinstance(view, TextPairs) else 'one view'}",
                    hint="inverse-cloze, neighbours, spans and two-crops stand alone, as pairs; the others as view1, "
                    "view2 and negative",
                )
        views = [view for _, view in made]
        self.random = any(entry.random for entry, _ in made)
        self.gives = {entry.gives for entry, _ in made if entry.name != "identity"}
        self.pairs: TextPairs | None = next((view for view in views if isinstance(view, TextPairs)), None)
        self.strings = Chain(*(view for view in views if isinstance(view, TextView)))
        self.tokens = [view for view in views if isinstance(view, IdsView)]
        self.latent = [view for view in views if isinstance(view, Latent)]
        self.adversarial: Adversarial | None = next((view for view in views if isinstance(view, Adversarial)), None)
        self.pooled = [view for view in views if isinstance(view, EmbeddingView)]
        self.dropouts = [view for view in views if isinstance(view, EncoderDropout)]

    @property
    def inside(self) -> bool:
        """Whether it takes an encoder that can be looked into."""
        return bool(self.tokens or self.latent or self.adversarial)

    @property
    def together(self) -> bool:
        """Whether what happens to a text depends on the batch that is embedded with it."""
        return self.adversarial is not None or any(isinstance(view, HiddenMixup) for view in self.latent)

    def said(self, texts: Sequence[str], numbers: Sequence[int]) -> list[str]:
        """The texts as this side says them, a number for each deciding what is random."""
        return self.strings.by_seeds(texts, numbers)

    def inputs(self, encoder: TokenEncoder, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the first layer sees ``[n, L, d]``, the ids and the mask it belongs to, and which are words (bool).

        What is random comes from torch's global generator.
        """
        for view in self.tokens:
            before = ids
            ids = view(ids)
            # a token that stands where padding was, or the other way round, only where a view moved it
            mask = mask & ((ids != encoder.special.padding) | (ids == before))
        words = is_word(ids, encoder.special, mask)
        inputs = encoder.embed(ids)
        for change in self.latent:
            inputs = change(inputs, words)
        return inputs, ids, mask, words

    def embedded(self, embed: Callable[[], Tensor], module: nn.Module) -> Tensor:
        """What ``embed()`` gives, with this side's dropout in ``module`` and its views of embeddings afterwards."""
        with ExitStack() as ways:
            for dropout in self.dropouts:
                ways.enter_context(dropout(module))
            embeddings = embed()
        for view in self.pooled:
            embeddings = view(embeddings)
        return embeddings


def made_with(entry: Entry, options: Mapping[str, Any], resources: Resources) -> Any:
    """The view of ``entry`` with ``options`` and with what it takes of the ``resources``."""
    taken = {
        name: resources[name]()
        for name, default in entry.arguments.items()
        if name in resources and name not in options and (default is inspect.Parameter.empty or name == "padding_side")
    }
    missing = [name for name in entry.needs if name not in options and name not in taken]
    if missing:
        raise UsageError(
            f"{entry.name} needs {' and '.join(missing)}",
            hint="; ".join(f"{each}: {RESOURCES.get(each, 'see its page')}" for each in missing),
        )
    return get(entry.name, **taken, **options)
