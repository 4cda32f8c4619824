"""Batches of running text, and tasks of coherence made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearfar.errors import DataError, UsageError
from nearfar.negatives.batches import batch_sizes
from nearfar.negatives.discourse import next_sentences, ordered_pairs, swapped
from nearfar.negatives.running_text import RunningText


def offsets(sizes: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])


SIZES = [5, 1, 9, 2, 30, 3, 1, 7]


@pytest.mark.parametrize("batch_size", [2, 7, 16, 58])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_row_once_in_batches_of_running_text(batch_size: int, epoch: int) -> None:
    batches = RunningText(offsets(SIZES), batch_size, seed=1)
    plan = batches.plan(epoch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(58))
    assert sorted(map(len, plan)) == sorted(batch_sizes(58, batch_size))
    assert len(batches) == len(plan)
    document = np.repeat(np.arange(len(SIZES)), SIZES)
    broken = 0
    for batch in plan:
        inside = document[batch][1:] == document[batch][:-1]
        assert (np.diff(batch)[inside] == 1).all()  # neighbours stand in their order
        # documents are whole but for the first and the last of a batch
        for middle in set(document[batch][1:-1]) - {document[batch][0], document[batch][-1]}:
            assert (document[batch] == middle).sum() == SIZES[middle]
        broken += len(batch) - 1 - inside.sum()
    pairs = sum(size - 1 for size in SIZES)
    kept = sum(len(batch) - 1 for batch in plan) - broken
    assert kept >= pairs - (len(plan) - 1)  # at most one pair of neighbours is lost where a batch ends


def test_seed_and_epoch_alone_decide() -> None:
    def plan(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in RunningText(offsets(SIZES), 8, seed=seed).plan(epoch)]

    assert plan(0, 1) == plan(0, 1)
    assert plan(0, 1) != plan(0, 2)
    assert plan(0, 1) != plan(1, 1)


def test_processes_share_a_batch_in_its_order() -> None:
    whole = RunningText(offsets(SIZES), 8, seed=2).plan(0)
    parts = [list(RunningText(offsets(SIZES), 8, seed=2, rank=rank, processes=2)) for rank in range(2)]
    for number, batch in enumerate(whole):
        assert np.concatenate([parts[0][number], parts[1][number]]).tolist() == batch.tolist()


def test_documents_without_neighbours() -> None:
    with pytest.raises(DataError, match="no document has two sentences"):
        RunningText(offsets([1, 1, 1]), 2)
    with pytest.warns(UserWarning, match="larger than the data"):
        assert len(RunningText(offsets([2]), 8)) == 1


def test_neighbours_in_their_order() -> None:
    document = torch.tensor([4, 4, 4, 7, 2, 2])
    first, second = ordered_pairs(document)
    assert first.tolist() == [0, 1, 4]
    assert second.tolist() == [1, 2, 5]
    # where rows are missing or stand in another order there is no neighbour
    first, second = ordered_pairs(document, torch.tensor([0, 1, 3, 9, 5, 4]))
    assert first.tolist() == [0]
    assert len(ordered_pairs(document[:1])[0]) == len(ordered_pairs(document[:0])[0]) == 0


def test_half_of_the_pairs_are_swapped() -> None:
    first, second = torch.arange(4000), torch.arange(4000) + 1
    left, right, before = swapped(first, second, generator=torch.Generator().manual_seed(0))
    assert torch.equal(left + right, first + second)
    assert torch.equal(before, (left < right).float())
    assert 0.47 < float(before.mean()) < 0.53
    again = swapped(first, second, generator=torch.Generator().manual_seed(0))[2]
    assert torch.equal(before, again)


@pytest.mark.parametrize(("context", "candidates"), [(3, 5), (1, 2), (2, 9)])
@pytest.mark.parametrize("seed", range(3))
def test_tasks_of_the_next_sentence(context: int, candidates: int, seed: int) -> None:
    document = torch.tensor(np.repeat(np.arange(len(SIZES)), SIZES))
    shown_context, shown, place = next_sentences(
        document, context=context, candidates=candidates, generator=torch.Generator().manual_seed(seed)
    )
    runs = [row for row in range(58 - context) if len(set(document[row : row + context + 1].tolist())) == 1]
    assert shown_context[:, 0].tolist() == runs
    for task, (rows, options, right) in enumerate(zip(shown_context, shown, place, strict=True)):
        assert rows.tolist() == list(range(runs[task], runs[task] + context))
        true = runs[task] + context
        assert options[right] == true
        wrong = set(options.tolist()) - {true}
        assert len(wrong) == candidates - 1
        assert not wrong & set(rows.tolist())
        later = {row for row in range(true + 1, 58) if document[row] == document[true]}
        assert len(wrong & later) == min(len(later), candidates - 1)
    if len(place) > 30:
        assert len(set(place.tolist())) == candidates


def test_the_right_candidate_stands_anywhere() -> None:
    place = next_sentences(torch.zeros(400, dtype=torch.long), generator=torch.Generator().manual_seed(0))[2]
    share = place.bincount(minlength=5) / len(place)
    assert float((share - 0.2).abs().max()) < 0.08


def test_wrong_candidates_are_drawn_anew() -> None:
    document = torch.zeros(12, dtype=torch.long)
    drawn = {tuple(next_sentences(document)[1][0].sort().values.tolist()) for _ in range(30)}
    assert len(drawn) > 5


def test_batches_too_small_have_no_task() -> None:
    for n in (0, 1, 3, 7):
        context, shown, place = next_sentences(torch.zeros(n, dtype=torch.long))
        assert context.shape == (0, 3)
        assert shown.shape == (0, 5)
        assert place.shape == (0,)
    assert len(next_sentences(torch.zeros(8, dtype=torch.long))[2]) == 5
    assert len(next_sentences(torch.arange(20))[2]) == 0
    for options in ({"context": 0}, {"candidates": 1}):
        with pytest.raises(UsageError, match="at least"):
            next_sentences(torch.zeros(9, dtype=torch.long), **options)
