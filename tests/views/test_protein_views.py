from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import DataError, UsageError
from nearfar.views.protein import (
    NUCLEOTIDES,
    ColumnProfile,
    Homologs,
    letter_numbers,
    match_columns,
    one_hot,
    without_gaps,
)
from nearfar.views.substitution import GAP


def test_letters_gaps_and_lengths() -> None:
    found = letter_numbers(["AC-T", "gx", ""], NUCLEOTIDES)
    assert found.tolist() == [[0, 1, GAP, 3], [2, GAP, GAP, GAP], [GAP] * 4]
    assert letter_numbers(["ACGT"], NUCLEOTIDES, length=2).tolist() == [[0, 1]]
    assert letter_numbers(["AC"], NUCLEOTIDES, length=3).tolist() == [[0, 1, GAP]]
    hot = one_hot(found, 4)
    assert hot.shape == (3, 4, 4)
    assert hot.sum(-1).tolist() == (found >= 0).float().tolist()
    assert hot[0, 1].tolist() == [0, 1, 0, 0]
    assert without_gaps(letter_numbers(["A-C-", "--GT"], NUCLEOTIDES)).tolist() == [[0, 1, GAP, GAP], [2, 3, GAP, GAP]]


def test_columns_of_few_members_are_left_out() -> None:
    alignment = letter_numbers(["AC-T", "A--T", "AG-T", "-GCT"], NUCLEOTIDES)
    assert match_columns(alignment).tolist() == [True, True, False, True]
    assert match_columns(alignment, largest_gap_share=0).tolist() == [False, False, False, True]


def test_views_are_two_different_members_of_the_family() -> None:
    family = torch.tensor([7, 3, 7, 3, 3, 9, 9])
    homologs = Homologs(torch.arange(7), family)
    assert len(homologs) == 3
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(60):
        one, other = homologs.pairs(torch.tensor([0, 1, 2, 1]), generator=generator)
        assert family[one].tolist() == family[other].tolist() == [3, 7, 9, 7]
        assert bool((one != other).all())
        seen.add((int(one[0]), int(other[0])))
    assert len(seen) == 6  # every ordered pair of the three members
    views = homologs.views(torch.tensor([1]), generator=generator)
    assert sorted(int(view) for view in views) == [0, 2]


def test_a_largest_distance() -> None:
    place = torch.tensor([0.0, 1.0, 10.0, 0.0, 0.5])
    homologs = Homologs(
        torch.arange(5),
        torch.tensor([0, 0, 0, 1, 1]),
        distance=(place[:, None] - place).abs(),
        farthest=2.0,
    )
    one, other = homologs.pairs(torch.zeros(50, dtype=torch.long))
    assert {tuple(pair) for pair in torch.stack([one, other], 1).tolist()} == {(0, 1), (1, 0), (2, 2)}


def test_families_that_cannot_be_seen_twice() -> None:
    with pytest.raises(DataError, match=r"\[4\]"):
        Homologs(torch.arange(3), torch.tensor([1, 1, 4]))
    with pytest.raises(DataError, match="integers"):
        Homologs(torch.arange(3), torch.tensor([1, 1]))
    with pytest.raises(UsageError, match="distances"):
        Homologs(torch.arange(2), torch.tensor([1, 1]), farthest=1.0)


def test_profile_of_columns() -> None:
    alignment = letter_numbers(["AA-", "AC-", "AG-", "AT-"], NUCLEOTIDES)
    exact = ColumnProfile(alignment, 4, pseudocount=0)
    assert exact.frequencies.tolist() == [[1, 0, 0, 0], [0.25] * 4, [0.25] * 4]
    assert exact.gap_share.tolist() == [0, 0, 1]
    assert exact.information().tolist() == pytest.approx([2, 0, 0], abs=1e-6)
    # the background is 5/8 A and 1/8 of each other letter, and counts as one row
    smooth = ColumnProfile(alignment, 4)
    assert smooth.frequencies[0].tolist() == pytest.approx([4.625 / 5, 0.025, 0.025, 0.025])
    assert smooth.frequencies[2].tolist() == pytest.approx([0.625, 0.125, 0.125, 0.125])


def test_sampling_from_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    alignment = letter_numbers(["AA-", "AC-", "AG-", "AT-", "-CC"], NUCLEOTIDES)
    profile = ColumnProfile(alignment, 4, pseudocount=0)
    drawn = profile.sample(4000, generator=generator)
    assert set(drawn[:, 0].tolist()) == {0, GAP}
    tolerance = 4 * 0.5 / math.sqrt(4000)
    assert float((drawn[:, 0] < 0).float().mean()) == pytest.approx(0.2, abs=tolerance)
    assert float((drawn[:, 1] == 1).float().mean()) == pytest.approx(0.4, abs=tolerance)
    assert bool((profile.sample(10, gaps=False, generator=generator) >= 0).all())


def test_resampling_changes_what_is_free() -> None:
    generator = torch.Generator().manual_seed(0)
    alignment = letter_numbers(["AA-", "AC-", "AG-", "AT-"], NUCLEOTIDES)
    profile = ColumnProfile(alignment, 4, pseudocount=0)
    rows = alignment[:1].expand(2000, -1)
    found = profile.resample(rows, 0.5, generator=generator)
    assert torch.equal(found[:, [0, 2]], rows[:, [0, 2]])
    # a half is drawn again, of which a quarter finds the same letter
    assert float((found[:, 1] != rows[:, 1]).float().mean()) == pytest.approx(0.375, abs=0.05)
    assert torch.equal(profile.resample(rows, 0.0), rows)
    with pytest.raises(ValueError, match="sequences must be"):
        profile.resample(rows[:, :2], 0.5)
    with pytest.raises(UsageError, match="share"):
        profile.resample(rows, 1.5)


def test_alignments_that_say_nothing() -> None:
    with pytest.raises(DataError, match="gaps only"):
        ColumnProfile(torch.full((2, 3), GAP), 4)
    with pytest.raises(DataError, match="without rows"):
        ColumnProfile(torch.zeros(0, 3, dtype=torch.long), 4)
    with pytest.raises(DataError, match="alignment is"):
        match_columns(torch.zeros(3))
