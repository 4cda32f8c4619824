from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from nearfar.data.synthetic.videos import DIRECTIONS, MovingShapes
from nearfar.errors import DataError, UsageError
from nearfar.views.image import ColourJitter
from nearfar.views.video import (
    CLOZE,
    ClipOrder,
    VideoCloze,
    blocks_reversed,
    clip_tuples,
    quarters_exchanged,
    residual,
    rotated,
)


def _counted(items: int, frames: int, size: int = 4) -> Tensor:
    """Videos of which every pixel says which one it is."""
    count = items * frames * size * size
    return torch.arange(count, dtype=torch.float64).reshape(items, 1, frames, size, size)


def test_tuples_are_clips_in_a_row() -> None:
    videos = _counted(40, 20)
    clips = clip_tuples(videos, 3, frames=4, gap=2, generator=torch.Generator().manual_seed(0))
    assert clips.shape == (40, 3, 1, 4, 4, 4)
    starts = set()
    for row in range(40):
        (start,) = {t for t in range(5) if torch.equal(videos[row, :, t : t + 4], clips[row, 0])}
        starts.add(start)
        for which in range(3):
            first = start + 6 * which
            assert torch.equal(clips[row, which], videos[row, :, first : first + 4])
    assert starts == set(range(5))
    with pytest.raises(DataError, match="takes 16 frames, the videos have 15"):
        clip_tuples(videos[:, :, :15], 3, frames=4, gap=2)
    with pytest.raises(DataError, match="videos are"):
        clip_tuples(videos[0])


def test_residuals_are_of_time_alone() -> None:
    clips = torch.randn(2, 3, 1, 5, 4, 4, dtype=torch.float64)
    found = residual(clips)
    torch.testing.assert_close(found[..., 2, :, :], clips[..., 1, :, :] - clips[..., 2, :, :])
    torch.testing.assert_close(found[..., 0, :, :], clips[..., 4, :, :] - clips[..., 0, :, :])
    still = torch.randn(2, 1, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(residual(clips + still[:, None]), found)
    torch.testing.assert_close(found.sum(-3), torch.zeros_like(found[..., 0, :, :]))


def test_the_cloze_changes_the_middle_clip_as_its_label_says() -> None:
    videos = _counted(400, 16 + 3)
    task = VideoCloze(4, 1)
    clips, label = task(videos, torch.Generator().manual_seed(1))
    assert sorted(label.unique().tolist()) == list(range(len(CLOZE)))
    for row in range(400):
        first, middle, third = clips[row]
        start = next(t for t in range(videos.shape[2]) if torch.equal(videos[row, :, t : t + 4], first))
        plain, remote = (videos[row, :, t : t + 4] for t in (start + 5, start + 15))
        assert torch.equal(third, videos[row, :, start + 10 : start + 14])
        turns = [plain.rot90(quarter, (-2, -1)) for quarter in (1, 2, 3)]
        exchanged = [plain[:, list(order)] for order in itertools.permutations(range(4)) if _one_swap(order)]
        possible = [[plain], turns, [blocks_reversed(plain)], exchanged, [remote]][int(label[row])]
        assert any(torch.equal(middle, each) for each in possible), CLOZE[int(label[row])]


def _one_swap(order: tuple[int, ...]) -> bool:
    return sum(place != value for place, value in enumerate(order)) == 2


def test_blocks_go_to_the_opposite_corner() -> None:
    image = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    expected = torch.cat(
        [
            torch.cat([image[..., 2:, 2:], image[..., 2:, :2]], -1),
            torch.cat([image[..., :2, 2:], image[..., :2, :2]], -1),
        ],
        -2,
    )
    assert torch.equal(blocks_reversed(image), expected)


def test_quarters_of_any_length() -> None:
    clips = torch.arange(10.0).reshape(1, 1, 10, 1, 1).expand(200, -1, -1, -1, -1)
    found = {tuple(row.flatten().long().tolist()) for row in quarters_exchanged(clips)}
    assert len(found) == 6
    assert all(row[8:] == (8, 9) and sorted(row) == list(range(10)) for row in found)
    assert (2, 3, 0, 1, 4, 5, 6, 7, 8, 9) in found


def test_rotations() -> None:
    clips = torch.rand(100, 2, 3, 4, 4)
    turned, quarters = rotated(clips, still=True)
    assert sorted(quarters.unique().tolist()) == [0, 1, 2, 3]
    for row in range(100):
        assert torch.equal(turned[row], clips[row].rot90(int(quarters[row]), (-2, -1)))
    assert int(rotated(clips)[1].min()) == 1


def test_clips_out_of_order() -> None:
    videos = _counted(60, 14)
    task = ClipOrder(3, frames=4, gap=1)
    clips, label = task(videos, torch.Generator().manual_seed(2))
    assert task.classes == 6
    assert len(label.unique()) == 6
    plain = clip_tuples(videos, 3, frames=4, gap=1)  # there is room for one tuple alone
    for row in range(60):
        assert torch.equal(clips[row], plain[row, list(itertools.permutations(range(3)))[int(label[row])]])
    with pytest.raises(UsageError, match="2 to 6"):
        ClipOrder(1)


def test_what_the_cloze_cannot_use() -> None:
    with pytest.raises(DataError, match="square"):
        VideoCloze(4, 0)(torch.zeros(1, 1, 16, 4, 6))
    with pytest.raises(UsageError, match="4 frames"):
        VideoCloze(3)


def test_augmentation_is_the_same_for_all_frames_of_a_clip() -> None:
    still = torch.rand(1, 1, 1, 4, 4).expand(6, 1, 5, 4, 4)
    found = ColourJitter(0.4, 0.0, p=1.0)(still, torch.Generator().manual_seed(0))
    assert torch.equal(found, found[:, :, :1].expand_as(found))
    assert len(found[:, 0, 0, 0, 0].unique()) == 6


def test_moving_shapes() -> None:
    world = MovingShapes(200, frames=9, clutter=0.0, sky=0.0, brightness=0.0, noise=0.0, seed=3)
    assert world.videos.shape == (200, 1, 9, 8, 8)
    for which, step in enumerate(DIRECTIONS):
        chosen = world.videos[world.direction == which]
        assert len(chosen)
        torch.testing.assert_close(chosen[:, :, 1:], chosen[:, :, :-1].roll(step, (-2, -1)))
    area = (world.videos[:, 0, 0] > 0).sum((1, 2))
    assert [sorted(area[world.shape == which].unique().tolist()) for which in range(4)] == [[9], [5], [5], [8]]
    sky = MovingShapes(100, clutter=0.0, seed=3)
    rows = sky.videos.mean((0, 1, 2, 4))
    assert bool((rows.diff() < 0).all())
    with pytest.raises(UsageError):
        MovingShapes(1, brightness=2.0)
