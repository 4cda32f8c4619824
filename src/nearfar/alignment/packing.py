"""Prompts with their responses as one input of a causal language model, in two layouts.

*Repeated*: a sequence for each response, the prompt before it, shorter ones padded on the right (which a causal model
never sees, so that no mask is needed).

*Shared*: a sequence for each prompt, all its responses behind it one after another. A mask lets the tokens of a
response see the prompt and themselves alone, and their positions go on where the prompt ends, so that each response is
read as if it stood there alone; the prompt is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nearfar.errors import DataError


class Tokenised(Protocol):
    """A prompt with ``K`` responses as token ids: what :class:`nearfar.data.preferences.tokens.TokenisedRow` is."""

    @property
    def prompt(self) -> npt.NDArray[np.int32]: ...

    @property
    def responses(self) -> Sequence[npt.NDArray[np.int32]]: ...


@dataclass(frozen=True)
class Packed:
    """``b`` sequences of ``L`` tokens that hold ``N`` responses of ``n`` prompts, ``T`` tokens in all.

    ``ids, positions [b, L]``: int64. ``mask [b, 1, L, L]``: bool, who may look at whom; None: what came before.
    ``predictor, place, target [T]``: for each token of a response, response after response, where in the flattened
    ``[b L]`` the state lies that predicts it, where its own state lies, and its id.
    ``length, row [N]``: tokens of each response, and which prompt it answers.
    ``prompt_place [P], prompt_row [P]``: where the states of each prompt's tokens lie, once each, and whose they are.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor | None
    predictor: Tensor
    place: Tensor
    target: Tensor
    length: Tensor
    row: Tensor
    prompt_place: Tensor
    prompt_row: Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        moved: dict[str, Any] = {name: each if each is None else each.to(device) for name, each in vars(self).items()}
        return Packed(**moved)


def repeated(rows: Sequence[Tokenised]) -> Packed:
    """The layout with the prompt before each response. Raises :class:`DataError` for a prompt without tokens."""
    counts = [len(row.responses) for row in rows]
    sequences = [np.concatenate([row.prompt, each]) for row in rows for each in row.responses]
    ends = [len(row.prompt) for row in rows for _ in row.responses]
    firsts = np.cumsum([0, *counts])[:-1].tolist()
    return _packed(rows, sequences, None, list(enumerate(ends)), ends, firsts)


def shared(rows: Sequence[Tokenised]) -> Packed:
    """The layout with each prompt once. Raises :class:`DataError` for a prompt without tokens."""
    sequences, segments, places, ends = [], [], [], []
    for number, row in enumerate(rows):
        start = len(row.prompt)
        sequences.append(np.concatenate([row.prompt, *row.responses]))
        lengths = [len(row.prompt), *(len(each) for each in row.responses)]
        segments.append(np.repeat(np.arange(len(lengths)), lengths))
        for each in row.responses:
            places.append((number, start))
            ends.append(len(row.prompt))
            start += len(each)
    return _packed(rows, sequences, segments, places, ends, list(range(len(rows))))


def _packed(
    rows: Sequence[Tokenised],
    sequences: list[npt.NDArray[np.int32]],
    segments: list[npt.NDArray[np.int64]] | None,
    places: list[tuple[int, int]],
    ends: list[int],
    holders: list[int],
) -> Packed:
    """``places``: sequence and offset of each response, ``ends``: the length of its prompt, ``holders``: a sequence
    that begins with the prompt of each row."""
    for number, row in enumerate(rows):
        if len(row.prompt) == 0:
            raise DataError(
                f"the prompt of row {number} has no tokens, and the first token of a response needs one to follow",
                hint="begin prompts with the tokenizer's token of beginning or end",
            )
    longest = max((len(each) for each in sequences), default=0)
    ids = np.zeros((len(sequences), longest), np.int64)
    positions = np.tile(np.arange(longest), (len(sequences), 1))
    for number, tokens in enumerate(sequences):
        ids[number, : len(tokens)] = tokens
    mask = None
    if segments is not None:
        mask = torch.from_numpy(_mask(segments, longest))[:, None]
    lengths, predictors, own, targets = [], [], [], []
    responses = [each for row in rows for each in row.responses]
    for response, (sequence, start), end in zip(responses, places, ends, strict=True):
        at = sequence * longest + start + np.arange(len(response))
        positions[sequence, start : start + len(response)] = end + np.arange(len(response))
        lengths.append(len(response))
        own.append(at)
        predictors.append(np.concatenate([[sequence * longest + end - 1], at[:-1]])[: len(response)])
        targets.append(response)
    prompts = [
        holder * longest + np.arange(len(row.prompt))
        for row, holder in zip(rows, holders, strict=True)
        if row.responses
    ]
    return Packed(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        mask=mask,
        predictor=_joined(predictors),
        place=_joined(own),
        target=_joined(targets),
        length=torch.tensor(lengths, dtype=torch.int64),
        row=torch.tensor([number for number, row in enumerate(rows) for _ in row.responses], dtype=torch.int64),
        prompt_place=_joined(prompts),
        prompt_row=_joined([np.full(len(row.prompt), n) for n, row in enumerate(rows) if row.responses]),
    )


def _mask(segments: list[npt.NDArray[np.int64]], longest: int) -> npt.NDArray[np.bool_]:
    """Who may look at whom: what came before, in the same segment or in the prompt, which is segment 0."""
    padded = np.full((len(segments), longest), -1)
    for number, each in enumerate(segments):
        padded[number, : len(each)] = each
    same = padded[:, :, None] == padded[:, None, :]
    prompt = (padded == 0)[:, None, :] & (padded >= 0)[:, :, None]
    found: npt.NDArray[np.bool_] = (same | prompt) & np.tri(longest, dtype=bool)
    return found


def _joined(parts: Sequence[npt.NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.concatenate([*parts, np.zeros(0)]).astype(np.int64))


def shared_is_cheaper(rows: Sequence[Tokenised], width: int) -> bool:
    """Whether the shared layout costs less: ``24 d^2`` operations a token for matrices and ``4 L d`` for attention over
    all ``L`` places, half of them where a causal mask needs none (Kaplan et al., 2020, table 1)."""
    several = [row for row in rows if len(row.responses) > 0]
    if not any(len(row.responses) > 1 for row in several):
        return False
    longest = max(len(row.prompt) + sum(map(len, row.responses)) for row in several)
    each = max(len(row.prompt) + len(response) for row in several for response in row.responses)
    count = sum(len(row.responses) for row in several)
    together = len(several) * longest * (24 * width + 4 * longest)
    apart = count * each * (24 * width + 2 * each)
    return together < apart
