"""Tasks of coherence out of running text: neighbours in either order, and candidates for what comes next."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


def ordered_pairs(document: Tensor, position: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The indices ``[p]`` and ``[p]`` of sentences and of those right behind them.

    ``document [n]``: integers, which document a sentence of the batch is of; ``position [n]``: its place in the text,
    by default the order of the batch. Row i + 1 is behind row i where it is of the same document and one place on.
    """
    places = torch.arange(len(document), device=document.device) if position is None else position
    follows = (document[1:] == document[:-1]) & (places[1:] == places[:-1] + 1)
    first = follows.nonzero()[:, 0]
    return first, first + 1


def swapped(
    first: Tensor, second: Tensor, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the pairs, drawn at random, the other way around: left ``[p]``, right ``[p]``, and 1 where the left comes
    first, else 0, ``[p]`` float32."""
    device = "cpu" if generator is None else generator.device
    keep = (torch.rand(len(first), generator=generator, device=device) < 0.5).to(first.device)
    return torch.where(keep, first, second), torch.where(keep, second, first), keep.float()


def next_sentences(
    document: Tensor,
    position: Tensor | None = None,
    *,
    context: int = 3,
    candidates: int = 5,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Contexts, and candidates of which one comes next: ``[m, context]``, ``[m, candidates]``, and its place ``[m]``.

    There is one task for each run of ``context + 1`` sentences of a document. The wrong candidates are later sentences
    of the same document, drawn without repetition; where there are too few, others of the batch that are not in the
    run (DiscSent, 2017: later ones of the same paragraph). The right one stands at a random place. No task where the
    batch has fewer than ``candidates`` sentences outside of the context. ``document`` and ``position`` as in
    :func:`ordered_pairs`. Raises UsageError for a context below 1 or fewer than two candidates.
    """
    if context < 1 or candidates < 2:
        raise UsageError(f"a context of 1 and 2 candidates are needed at least, got {context} and {candidates}")
    n, device = len(document), document.device
    empty = torch.empty(0, context, dtype=torch.long, device=device)
    if n < context + candidates:
        return empty, empty.new_empty(0, candidates), empty.new_empty(0)
    first, _ = ordered_pairs(document, position)
    follows = torch.zeros(n, dtype=torch.long, device=device)
    follows[first] = 1
    runs = follows.unfold(0, context, 1).all(1) if n >= context else follows[:0].bool()
    start = runs.nonzero()[:, 0]
    start = start[start + context < n]
    inside = start[:, None] + torch.arange(context + 1, device=device)
    true = inside[:, -1]
    rows = torch.arange(n, device=device)
    places = rows if position is None else position
    later = (document == document[true][:, None]) & (places > places[true][:, None])
    draw = torch.rand(len(start), n, generator=generator, device="cpu" if generator is None else generator.device)
    # later sentences of the document before all others, those of the run never
    key = draw.to(device) + torch.where(later, 1.0, 0.0)
    key = key.scatter(1, inside, -1.0)
    wrong = key.topk(candidates - 1, dim=1).indices
    place = torch.randint(candidates, (len(start),), generator=generator, device=draw.device).to(device)
    shown = torch.cat([wrong, true[:, None]], 1)
    last = torch.full_like(place, candidates - 1)
    slots = torch.arange(candidates, device=device)
    source = torch.where(
        slots == place[:, None], last[:, None], torch.where(slots == candidates - 1, place[:, None], slots)
    )
    return inside[:, :-1], shown.gather(1, source), place
