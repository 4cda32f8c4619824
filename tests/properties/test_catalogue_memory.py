"""Memory linear in the batch, for every row objective of the catalogue: no tensor is as large as all scores are."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nearfar import contrast
from nearfar.objectives import ranking_batch
from support.batches import BATCHES
from support.examples import all_examples
from support.outcomes import outcome

EXAMPLES = all_examples()
TIMES = 3
MORE_A_ROW = {"supremix", "rrhf", "crl-factuality"}
"""They compare pairs of columns of one row: of all labels, where their number is not limited, or of one prompt's
responses, which are few."""


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that a computation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(value, Tensor):
                self.size = max(self.size, value.untyped_storage().nbytes() // max(1, value.element_size()))
        return found


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.split()[0] not in MORE_A_ROW])
def test_nothing_of_the_size_of_all_scores_is_held(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast.relation, "PAIRS_AT_ONCE", 300)
    monkeypatch.setattr(ranking_batch, "CHUNK", 1000)
    example, batch = EXAMPLES[name], BATCHES[EXAMPLES[name].data]()
    part = batch.among_others(TIMES)
    n, m = TIMES * batch.shape[0], TIMES * batch.shape[1]
    with Largest() as largest:
        outcome(example.make, part, memory="tiled", tile_rows=3)
    assert largest.size < n * m
