"""Batches of running text: which sentences meet, and that neighbours stay neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError
from nearfar.negatives.batches import Batches, Integers


class RunningText(Batches):
    """Batches of whole documents one after the other, in a new order each epoch; a document at the end of a batch goes
    on in another one.

    ``offsets [k + 1]`` say where documents begin and end (:meth:`nearfar.data.Examples.documents`). Every row comes
    once an epoch, and all batches are of the sizes of :func:`~nearfar.negatives.batch_sizes`: where documents are
    short, several of them meet in a batch, so that there are sentences of other documents to be far from
    (:class:`~nearfar.negatives.OrderedBatches` keeps documents apart). Which of them, and the order of the batches,
    depend on ``seed`` and epoch alone.

    Raises :class:`DataError` where no document has two rows, and as :class:`~nearfar.negatives.Batches` does.
    """

    def __init__(
        self,
        offsets: npt.NDArray[np.integer[Any]],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.offsets = np.asarray(offsets, np.int64)
        super().__init__(int(self.offsets[-1]), batch_size, seed=seed, rank=rank, processes=processes)
        if (np.diff(self.offsets) < 2).all():
            raise DataError(
                "no document has two sentences",
                hint="give the sentences of a document one below the other, under the name of the same document",
            )

    def plan(self, epoch: int) -> list[Integers]:
        generator = self._generator(epoch)
        documents = generator.permutation(len(self.offsets) - 1)
        order = np.concatenate([np.arange(self.offsets[place], self.offsets[place + 1]) for place in documents])
        batches = self._cut(order)
        return [batches[place] for place in generator.permutation(len(batches))]
