"""What a view makes of one text, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from nearfar.errors import UsageError
from nearfar.views.sequence import IdsView
from nearfar.views.text.base import TextPairs, TextView, seed_of
from nearfar.views.text.entry import Entry
from nearfar.views.text.registry import get, parse
from nearfar.views.text.sides import made_with

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Seen = str | tuple[str, str]


def preview(
    written: str,
    text: str,
    *,
    options: Mapping[str, Any] | None = None,
    count: int = 1,
    encoder: str | None = None,
    seed: int = 0,
) -> list[Seen]:
    """``count`` versions of ``text`` by views as :func:`~nearfar.views.text.registry.parse` reads them; a pair of texts
    each where a view gives both.

    Arguments: ``options``: of the view, where it is a single one; of several, those that each of them takes;
    ``encoder``: whose tokens views of token ids work on; ``seed``: of everything random.

    Raises UsageError for views that need what is not given, and for those inside an encoder, which change no text.
    """
    entries = parse(written)
    more = dict(options or {})
    unknown = [name for name in more if not any(name in entry.arguments for entry, _ in entries)]
    if unknown:
        get(entries[0][0].name, **dict.fromkeys(unknown))  # raises with the options that there are
    model = _loaded(encoder) if encoder is not None and any(entry.level == "tokens" for entry, _ in entries) else None
    views = []
    for entry, own in entries:
        taken = {name: value for name, value in more.items() if name in entry.arguments}
        views.append((entry, made_with(entry, {**taken, **own}, _resources(model, text))))
    return [_seen(views, text, model, seed_of(seed, turn)) for turn in range(count)]


def all_of(entries: Sequence[Entry], text: str, *, seed: int = 0) -> list[tuple[str, Seen]]:
    """What each of the ``entries`` that needs nothing but the text makes of it, by name."""
    plain = [
        entry for entry in entries if not entry.needs and entry.level in ("words", "characters", "passages", "models")
    ]
    return [(entry.name, preview(entry.name, text, seed=seed)[0]) for entry in plain]


def _seen(views: Sequence[tuple[Entry, Any]], text: str, model: SentenceTransformer | None, number: int) -> Seen:
    seen: Seen = text
    for place, (entry, view) in enumerate(views):
        own = seed_of(number, place)
        if isinstance(view, TextPairs):
            if len(views) > 1:
                raise UsageError(f"{entry.name} gives both views of a text and stands alone")
            one, other = view.by_seeds([text], [own])
            return one[0], other[0]
        assert isinstance(seen, str)
        if isinstance(view, TextView):
            seen = view.by_seeds([seen], [own])[0]
        elif isinstance(view, IdsView) and model is not None:
            seen = _tokens(view, seen, model, own)
        else:
            raise UsageError(
                f"{entry.name} works inside an encoder and changes no text that could be shown",
                hint="use it in training: nearfar train FILE --recipe text-views --set view2=" + entry.name,
            )
    return seen


def _tokens(view: IdsView, text: str, model: SentenceTransformer, number: int) -> str:
    from nearfar.encoders import tokenize

    ids = tokenize(model, [text])["input_ids"]
    changed = view(ids, torch.Generator().manual_seed(number))[0]
    tokenizer: Any = model.tokenizer
    return str(tokenizer.decode(changed[changed != view.padding].tolist(), skip_special_tokens=False))


def _resources(model: SentenceTransformer | None, text: str) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {"texts": lambda: [text]}
    if model is None:
        return found
    from nearfar.encoders.inside import Inside
    from nearfar.encoders.masked_language import embedding_table
    from nearfar.views.text.token_operations import similar_tokens

    inside = Inside(model)

    def similar() -> torch.Tensor:
        from nearfar.encoders import tokenize

        own = tokenize(model, [text])["input_ids"].flatten()
        return similar_tokens(embedding_table(model).detach(), inside.special, of=own)

    return {**found, "special": lambda: inside.special, "vocabulary": lambda: inside.vocabulary, "similar": similar}


def _loaded(name: str) -> SentenceTransformer:
    from nearfar import encoders

    return encoders.load(name, device="cpu")
