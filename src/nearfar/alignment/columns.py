"""What is known of the rows, responses and tokens of a batch: flat columns, cut into chunks and gathered together.

A row is a prompt with its responses, of which rows may have different numbers. Values of responses stand response after
response, row after row; values of tokens token after token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast.distributed import GatheredRows

COUNT, MARGIN, STATE, MISMATCHED = "count", "margin", "state", "mismatched"
"""Columns of rows: how many responses; by how much the chosen is better; the state of the prompt; the reference's
log-probability of a response to another prompt (KTO)."""

LENGTH, CUT, SIDE, SCORE, GRADE = "length", "cut", "side", "score", "grade"
REFERENCE, CHOSEN, REJECTED = "reference", "in_group", "out_group"
"""Columns of responses: their tokens; whether the end was cut; 1 for a good one, -1 for a bad one, else 0; their number
in the data; their grade among those of the row; log-probability under the reference (of tokens as well); whether AMPO
contrasts them as good, as bad."""


@dataclass(frozen=True)
class Columns:
    """Columns of ``n`` rows with ``N`` responses of ``T`` tokens in all.

    ``of_rows``: tensors ``[n, ...]``, among them ``"count"``: responses of each row; ``of_responses``: ``[N, ...]``,
    among them ``"length"``: tokens of each; ``of_tokens``: ``[T, ...]``.
    """

    of_rows: Mapping[str, Tensor]
    of_responses: Mapping[str, Tensor]
    of_tokens: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.count)

    @property
    def count(self) -> Tensor:
        """Responses of each row ``[n]``."""
        return self.of_rows[COUNT]

    @property
    def length(self) -> Tensor:
        """Tokens of each response ``[N]``."""
        return self.of_responses[LENGTH]

    @property
    def row(self) -> Tensor:
        """Which row each response is of ``[N]``."""
        return torch.arange(len(self), device=self.count.device).repeat_interleave(self.count)

    @property
    def column(self) -> Tensor:
        """Which of its row's responses each is ``[N]``."""
        first = self.count.cumsum(0) - self.count
        return torch.arange(len(self.length), device=self.count.device) - first.repeat_interleave(self.count)

    @property
    def present(self) -> Tensor:
        """Bool ``[n, K]``: where a matrix of rows and responses has one."""
        widest = int(self.count.max()) if len(self) else 0
        return torch.arange(widest, device=self.count.device) < self.count[:, None]

    def matrix(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Values ``[N]`` of responses as ``[n, K]``, ``fill`` where a row has fewer than K; with their gradient."""
        present = self.present
        return values.new_full(present.shape, fill).masked_scatter(present, values)

    def token_sums(self, values: Tensor) -> Tensor:
        """Values ``[T]`` of tokens added up over each response: ``[N]``; with their gradient."""
        index = torch.arange(len(self.length), device=values.device).repeat_interleave(self.length)
        return values.new_zeros(len(self.length)).index_add(0, index, values)

    def part(self, start: int, end: int) -> Columns:
        """The columns of rows ``start`` to ``end``."""
        responses = slice(int(self.count[:start].sum()), int(self.count[:end].sum()))
        tokens = slice(int(self.length[: responses.start].sum()), int(self.length[: responses.stop].sum()))
        return Columns(
            {name: value[start:end] for name, value in self.of_rows.items()},
            {name: value[responses] for name, value in self.of_responses.items()},
            {name: value[tokens] for name, value in self.of_tokens.items()},
        )

    def gathered(self, group: dist.ProcessGroup | None) -> Columns:
        """The columns of the rows of all processes of ``group``."""
        if group is None:
            return self
        return Columns(*(_gathered(values, group) for values in (self.of_rows, self.of_responses, self.of_tokens)))


def gather(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Values of the responses (or tokens) of all processes of ``group``, with their gradient."""
    return values if group is None else GatheredRows(len(values), group, values.device).gather_with_gradient(values)


def _gathered(values: Mapping[str, Tensor], group: dist.ProcessGroup) -> dict[str, Tensor]:
    parts: GatheredRows | None = None
    found = {}
    for name, value in values.items():
        parts = parts or GatheredRows(len(value), group, value.device)
        found[name] = parts.gather(value)
    return found
