"""What an alignment run trains: a language model, by an objective on how probable it finds responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.alignment.columns import MISMATCHED, REFERENCE, Columns, gather
from nearfar.alignment.language import SharedPrefix, response_scores
from nearfar.alignment.readings import Reading
from nearfar.alignment.scores import is_sharded
from nearfar.alignment.watch import SHOWN, watched
from nearfar.contrast.distributed import of_all, sum_over_processes, total_over_processes
from nearfar.objectives.preference_anchored import kto_reference_point
from nearfar.training import processes
from nearfar.training.cached import accumulate_chunks, loss_of_chunks, sum_of_chunks
from nearfar.training.method import Batch, Logs, Method, scale_gradient
from nearfar.training.processes import process_group, world_size


class AlignmentMethod(Method):
    """Trains ``policy``, a causal language model, by a :class:`~nearfar.alignment.readings.Reading` of an objective.

    A batch (:class:`nearfar.alignment.inputs.ResponseBatches`) is scored chunk by chunk. Where the loss is a mean over
    rows each chunk is differentiated at once; where it is not (a pair's cost depends on the other pairs), chunks are
    scored without a graph, the loss is taken of all of them, and each is scored again (cached gradients). Both give the
    gradient of the undivided batch. Over several processes the loss is that of the global batch. Where they share out
    the policy's weights among them (:func:`nearfar.alignment.sharding.shard`) they score equally many chunks: a process
    with fewer scores a row again, which costs nothing.

    ``adapter``: the policy is an adapter on a frozen model, which checkpoints then leave out. ``shared_prefix``: see
    :func:`~nearfar.alignment.language.response_scores`.
    """

    main_part = "policy"
    scored = "log-probabilities"
    shown = SHOWN

    def __init__(
        self, policy: nn.Module, reading: Reading, *, adapter: bool = False, shared_prefix: SharedPrefix = "auto"
    ) -> None:
        super().__init__()
        self.policy = policy
        self.reading = reading
        self.keeps_frozen = adapter
        self.shared_prefix = shared_prefix
        self.takes_shift = "shift" in getattr(reading.objective, "extras", ())
        self.reward_sum: Tensor
        self.reward_count: Tensor
        if self.takes_shift:  # BCO's shift: the mean reward of all responses so far
            self.register_buffer("reward_sum", torch.zeros((), dtype=torch.float64))
            self.register_buffer("reward_count", torch.zeros((), dtype=torch.float64))
        self.latest: Logs = {}
        """What was seen of the last batch (:func:`nearfar.alignment.watch.watched`)."""
        self._bad_rows: list[int] | None = None

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        columns, chunks = Columns(**batch["columns"]), self._chunks(batch["chunks"])
        group = process_group()
        state = self._state(batch, columns)
        if self.reading.separable:
            loss, values = self._parts(columns, chunks, state)
        else:
            loss, values = self._whole(columns, chunks, state)
        whole = columns.gathered(group)
        sums = of_all(self.reading.sums(columns, values), group)
        self._note_bad(batch, columns, self.reading.sums(columns, values))
        if self.takes_shift and self.training:
            self._remember(whole, sums)
        self.latest = watched(whole, sums, per_token=self.reading.per_token)
        return scale_gradient(loss, world_size()), self.latest

    def score(self, chunk: Sequence[Any], *, tokens: bool = False) -> Tensor:
        """Log-probabilities ``[N]`` of the responses of tokenised rows; ``tokens``: ``[T]`` of their tokens."""
        found = response_scores(self.policy, chunk, shared_prefix=self.shared_prefix, tokens=tokens)
        if not tokens:
            return found.log_probability
        assert found.tokens is not None
        return found.tokens

    @property
    def sharded(self) -> bool:
        return is_sharded(self.policy)

    def not_finite(self) -> list[int] | None:
        return self._bad_rows

    def _parts(self, columns: Columns, chunks: Sequence[Any], state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss as a sum over chunks, each with its share of the mean; and the values, without a graph."""
        group = process_group()
        total = total_over_processes(self.reading.weight(columns), group).clamp_min(torch.finfo(torch.float32).tiny)
        values: list[Tensor] = []
        starts = _starts(chunks)

        def part(number: int) -> Tensor:
            found = self._values(chunks[number])
            if starts[number] >= len(columns):
                return found.sum() * 0
            mine = columns.part(starts[number], starts[number + 1])
            values.append(found.detach())
            weight = self.reading.weight(mine)
            if not bool(weight > 0):
                return found.sum() * 0
            loss: Tensor = self.reading(mine, found, state)
            return loss * (weight / total).to(loss.dtype)

        numbers = range(len(chunks))
        if len(chunks) == 1:
            loss = part(0)
        elif self.sharded:
            loss = accumulate_chunks(part, numbers, world_size())
        else:
            loss = sum_of_chunks(part, numbers, list(self.parameters()))
        return sum_over_processes(loss, group), torch.cat(values)

    def _whole(self, columns: Columns, chunks: Sequence[Any], state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss of all rows of all processes together; and this process's values, without a graph."""
        group = process_group()
        everything = columns.gathered(group)
        held: list[Tensor] = []
        count = int(columns.length.sum()) if self.reading.need.tokens else len(columns.length)

        def loss_of(values: Tensor) -> Tensor:
            values = values[:count]
            held.append(values.detach())
            loss: Tensor = self.reading(everything, gather(values, group), state) / world_size()
            return sum_over_processes(loss, group)

        if len(chunks) > 1:
            loss = loss_of_chunks(self._values, chunks, loss_of, list(self.parameters()), sharded=self.sharded)
        else:
            loss = loss_of(self._values(chunks[0]))
        return loss, held[0]

    def _chunks(self, chunks: Sequence[Any]) -> Sequence[Any]:
        """The chunks; where weights are sharded as many as any process has, the last of which hold a row again."""
        if not self.sharded:
            return chunks
        missing = processes.most(len(chunks), next(self.parameters()).device) - len(chunks)
        return [*chunks, *[chunks[-1][:1]] * missing]

    def _values(self, chunk: Sequence[Any]) -> Tensor:
        return self.score(chunk, tokens=self.reading.need.tokens)

    def _state(self, batch: Batch, columns: Columns) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        if MISMATCHED in batch:
            with torch.no_grad():
                found = torch.cat([self.score(chunk) for chunk in self._chunks(batch[MISMATCHED])])[: len(columns)]
            apart = found - columns.of_rows[MISMATCHED].to(found.dtype)
            state["mismatched"] = kto_reference_point(apart, process_group())
        if self.takes_shift:
            state["shift"] = (self.reward_sum / self.reward_count.clamp_min(1)).float()
        return state

    def _remember(self, columns: Columns, sums: Tensor) -> None:
        beta = float(self.reading.objective.beta)
        rewards = beta * (sums - columns.of_responses[REFERENCE]).double()
        self.reward_sum += rewards.sum()
        self.reward_count += rewards.numel()

    def _note_bad(self, batch: Batch, columns: Columns, sums: Tensor) -> None:
        self._bad_rows = None
        bad = ~torch.isfinite(sums)
        if bool(bad.any()) and not bool(bad.all()):
            rows: list[int] = batch["rows"][columns.row[bad].cpu()].unique().tolist()
            self._bad_rows = rows


def _starts(chunks: Sequence[Any]) -> list[int]:
    starts = [0]
    for chunk in chunks:
        starts.append(starts[-1] + len(chunk))
    return starts
