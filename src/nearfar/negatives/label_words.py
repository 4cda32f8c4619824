"""Words as labels of the text they stand in: some of its own, and words of other texts as negatives (CLESS)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.errors import UsageError


class LabelWords(NamedTuple):
    """``rest [n, L]``: texts without the words taken; ``words [n, g + b]``: those, then words of the corpus; ``target
    [n, g + b]``: 1 for words of the text, 0 for negatives; ``there [n, g + b]`` (bool): which of them count."""

    rest: Tensor
    words: Tensor
    target: Tensor
    there: Tensor


def label_words(
    ids: Tensor,
    corpus: Tensor,
    *,
    positives: int = 3,
    negatives: int = 20,
    padding: int = 0,
    exclude_own: bool = True,
    generator: torch.Generator | None = None,
) -> LabelWords:
    """``positives`` random words of each text ``ids [n, L]``, taken out of it, and ``negatives`` of the corpus.

    A text of fewer words gives all but one, one word none. A word that stands in a text more than once may stay in the
    rest. Negatives are drawn, with repetition, from the ``corpus [m]`` of words as often as they are used there; with
    ``exclude_own`` those that stand in the text do not count (they would be false negatives).

    Arguments: ``padding``: the id that is no word; ``generator``: None: torch's own. Defaults: 3 and 20 (CLESS has 8 to
    20 and 50 to 150). Raises UsageError for numbers below 1 (negatives: 0) and an empty corpus.
    """
    if positives < 1 or negatives < 0:
        raise UsageError(f"positives must be at least 1 and negatives at least 0, got {positives} and {negatives}")
    if negatives and not len(corpus):
        raise UsageError("the corpus has no words to draw negatives from")
    device = "cpu" if generator is None else generator.device
    words = ids != padding
    drawn = torch.rand(ids.shape, generator=generator, device=device).to(ids.device).masked_fill(~words, 2.0)
    rank = drawn.argsort(1).argsort(1)
    count = torch.minimum(words.sum(1, keepdim=True) - 1, torch.tensor(positives)).clamp_min(0)
    taken = words & (rank < count)
    rest = ids.masked_fill(taken, padding)
    own = ids.gather(1, drawn.argsort(1)[:, :positives])
    short = positives - own.shape[1]
    own = torch.cat([own, own.new_full((len(own), short), padding)], 1) if short > 0 else own
    valid = torch.arange(positives, device=ids.device) < count
    place = torch.randint(max(len(corpus), 1), (len(ids), negatives), generator=generator, device=device)
    others = corpus.to(ids.device)[place.to(ids.device)] if negatives else ids[:, :0]
    clean = torch.ones_like(others, dtype=torch.bool)
    if exclude_own:
        clean = ~(others[:, :, None] == ids[:, None, :]).any(2)
    target = torch.cat([torch.ones_like(own), torch.zeros_like(others)], 1).float()
    return LabelWords(
        rest, torch.cat([own.masked_fill(~valid, padding), others], 1), target, torch.cat([valid, clean], 1)
    )
