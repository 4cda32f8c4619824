"""Clips of videos: tuples in a row, residual frames, and pretext tasks that come with their labels.

Videos are ``[n, c, t, h, w]``, tuples of clips ``[n, k, c, t, h, w]``. The image views of :mod:`nearfar.views.image`
take clips as they are and draw once for all frames of a clip; drawn for each frame they would destroy the motion that
these tasks ask for. ``view(clips.flatten(0, 1)).view_as(clips)`` draws for each clip of a tuple.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from nearfar.errors import DataError, UsageError
from nearfar.views.base import uniform

CLOZE = ("none", "rotation", "blocks", "shuffle", "remote")
"""The operations of the video cloze procedure, in the order of their labels."""


def clip_tuples(
    videos: Tensor, count: int = 3, *, frames: int = 16, gap: int = 8, generator: torch.Generator | None = None
) -> Tensor:
    """``count`` clips of ``frames`` in a row, ``gap`` frames apart, from a random place of each video.

    ``[n, c, t, h, w] -> [n, count, c, frames, h, w]``. Defaults are those of VCP and PCL (Tao et al., 2020). Raises
    :class:`~nearfar.errors.DataError` for videos shorter than the tuple.
    """
    _check(videos)
    if min(count, frames) < 1 or gap < 0:
        raise UsageError(f"count and frames must be at least 1, gap at least 0, got {count}, {frames}, {gap}")
    needed = count * frames + (count - 1) * gap
    room = videos.shape[2] - needed
    if room < 0:
        raise DataError(f"a tuple takes {needed} frames, the videos have {videos.shape[2]}")
    start = (uniform(len(videos), generator=generator) * (room + 1)).long()
    place = torch.arange(count)[:, None] * (frames + gap) + torch.arange(frames)
    index = (start[:, None, None] + place).to(videos.device)
    rows = torch.arange(len(videos), device=videos.device)[:, None, None]
    return videos.transpose(1, 2)[rows, index].transpose(2, 3)


def residual(clips: Tensor) -> Tensor:
    """Each frame taken from the one before it, ``x_{t-1} - x_t``, the first one from the last: what stands still goes.

    Along the time of ``[..., t, h, w]``, over which it sums to 0. The sign is that of the official code.
    """
    return clips.roll(1, dims=-3) - clips


class VideoCloze:
    """The video cloze procedure (Luo et al., 2020): which operation was applied to the middle one of three clips?

    ``task(videos) -> (clips [n, 3, c, frames, h, w], label [n])`` with labels as in :data:`CLOZE`, all equally likely:
    0 none, 1 a rotation by 90, 180 or 270 degrees, 2 the 2 x 2 blocks of all frames in reversed order, 3 two of the
    four quarters of the clip exchanged in time, 4 a remote clip of the video in its place. The first and the third
    clip stay as they are: those may be contrasted, the middle one may not.

    Arguments: ``frames``, ``gap``: as in :func:`clip_tuples`. Videos must be square, of even side, with frames for a
    fourth clip behind the third, ``gap`` apart, and clips of 4 frames at least.
    """

    classes = len(CLOZE)

    def __init__(self, frames: int = 16, gap: int = 8) -> None:
        if frames < 4 or gap < 0:
            raise UsageError(f"clips of 4 frames at least and a gap >= 0 are needed, got {frames} and {gap}")
        self.frames, self.gap = frames, gap

    def __call__(self, videos: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        _check(videos)
        if videos.shape[-1] != videos.shape[-2] or videos.shape[-1] % 2:
            raise DataError(f"frames must be square, of even side, got {list(videos.shape[-2:])}")
        four = clip_tuples(videos, 4, frames=self.frames, gap=self.gap, generator=generator)
        clips = four[:, :3].clone()
        label = (uniform(len(videos), generator=generator) * self.classes).long().to(videos.device)
        operations: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda middle: rotated(middle, generator=generator)[0],
            blocks_reversed,
            lambda middle: quarters_exchanged(middle, generator=generator),
        )
        for which, operation in enumerate(operations, 1):
            chosen = label == which
            clips[chosen, 1] = operation(clips[chosen, 1])
        clips[label == 4, 1] = four[label == 4, 3]
        return clips, label


class ClipOrder:
    """Clip order prediction (Xu et al., 2019): in which order were the clips of a video shuffled?

    ``task(videos) -> (clips [n, count, c, frames, h, w], label [n])``; the label numbers the ``count!`` orders as
    :func:`itertools.permutations` does, 0 being the true one. Arguments: as of :func:`clip_tuples`.
    """

    def __init__(self, count: int = 3, *, frames: int = 16, gap: int = 8) -> None:
        if not 2 <= count <= 6:
            raise UsageError(f"count is {count}; 2 to 6 clips are put into order")
        self.orders = torch.tensor(list(itertools.permutations(range(count))))
        self.count, self.frames, self.gap = count, frames, gap

    @property
    def classes(self) -> int:
        """How many orders there are."""
        return len(self.orders)

    def __call__(self, videos: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        clips = clip_tuples(videos, self.count, frames=self.frames, gap=self.gap, generator=generator)
        label = (uniform(len(videos), generator=generator) * self.classes).long()
        order = self.orders[label].to(videos.device)
        rows = torch.arange(len(videos), device=videos.device)[:, None]
        return clips[rows, order], label.to(videos.device)


def rotated(clips: Tensor, *, still: bool = False, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Square clips ``[n, c, t, h, w]`` turned by quarters, and the quarters ``[n]``: the 3-d rotation pretext task.

    From 1 to 3 quarters counter-clockwise; ``still``: 0 to 3, as the pretext task of its own needs.
    """
    low = 0 if still else 1
    quarters = (low + uniform(len(clips), generator=generator) * (4 - low)).long().to(clips.device)
    turned = clips.clone()
    for quarter in (1, 2, 3):
        turned[quarters == quarter] = clips[quarters == quarter].rot90(quarter, (-2, -1))
    return turned, quarters


def blocks_reversed(clips: Tensor) -> Tensor:
    """The four blocks (halves by halves) of every frame in reversed order: each goes to the opposite corner."""
    return clips.roll((clips.shape[-2] // 2, clips.shape[-1] // 2), (-2, -1))


def quarters_exchanged(clips: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Two different quarters of each clip ``[n, c, t, h, w]`` exchanged in time, all pairs equally likely.

    Frames that four does not divide stay at the end.
    """
    pairs = torch.tensor(list(itertools.combinations(range(4), 2)))
    chosen = pairs[(uniform(len(clips), generator=generator) * len(pairs)).long()]
    order = torch.arange(4).repeat(len(clips), 1)
    rows = torch.arange(len(clips))
    order[rows, chosen[:, 0]], order[rows, chosen[:, 1]] = chosen[:, 1], chosen[:, 0]
    length = clips.shape[2] // 4
    index = (order[:, :, None] * length + torch.arange(length)).flatten(1)
    rest = torch.arange(4 * length, clips.shape[2]).repeat(len(clips), 1)
    index = torch.cat([index, rest], 1).to(clips.device)
    return clips.transpose(1, 2)[rows[:, None].to(clips.device), index].transpose(1, 2)


def _check(videos: Tensor) -> None:
    if videos.dim() != 5:
        raise DataError(f"videos are [n, c, t, h, w], got {list(videos.shape)}")
