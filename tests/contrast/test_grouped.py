"""Responses of prompts, teachers' opinions, and what a second judgement of a pair means."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from nearfar.contrast import Graded, Grouped, Relation, Taught
from nearfar.objectives import KL, InfoNCE, PairwiseLogistic
from support.processes import of_processes

CPU = torch.device("cpu")
PROMPTS = torch.tensor([7, 3, 5, -1])
GROUPS = torch.tensor([3, 7, 3, -1, 7, 3, 9, 3, 5])
REWARDS = torch.tensor([0.5, -2.0, 1.5, 9.0, 4.0, 0.5, 1.0, -1.0, 2.0], dtype=torch.float64)


def weights(relation: Relation, n: int, m: int) -> tuple[Tensor, Tensor]:
    return relation.bind(n, m, self_contrast=False, device=CPU).tile(slice(0, n))


def by_loops(grade: Callable[[float, list[float]], float], others: str) -> tuple[Tensor, Tensor]:
    positive, negative = torch.zeros(4, 9), torch.zeros(4, 9, dtype=torch.bool)
    for i, prompt in enumerate(PROMPTS.tolist()):
        for j, group in enumerate(GROUPS.tolist()):
            if prompt == group >= 0:
                own = [float(REWARDS[k]) for k in range(9) if GROUPS[k] == group]
                positive[i, j] = grade(float(REWARDS[j]), own)
                negative[i, j] = positive[i, j] == 0
            elif others == "far":
                negative[i, j] = True
    return positive, negative


GRADES: dict[str, Callable[[float, list[float]], float]] = {
    "rank": lambda reward, own: sum(other < reward for other in own),
    "above-worst": lambda reward, own: reward - min(own),
    "best": lambda reward, own: float(reward == max(own) > min(own)),
}


@pytest.mark.parametrize("others", ["ignored", "far"])
@pytest.mark.parametrize("gain", GRADES)
def test_grades_of_the_responses_of_a_prompt(gain: str, others: str) -> None:
    expected = by_loops(GRADES[gain], others)
    relation = Grouped(PROMPTS, GROUPS, rewards=REWARDS, gain=gain, others=others)
    positive, negative = weights(relation, 4, 9)
    torch.testing.assert_close(positive, expected[0].double())
    assert torch.equal(negative, expected[1])
    bound = relation.bind(4, 9, self_contrast=False, device=CPU)
    part = bound.tile(slice(1, 3), torch.tensor([8, 0, 2]))
    assert torch.equal(part[0], positive[1:3][:, [8, 0, 2]])
    turned = bound.transpose().tile(slice(2, 5))
    assert torch.equal(turned[0], positive.T[2:5])
    assert torch.equal(turned[1], negative.T[2:5])


def test_rewards_as_they_stand_and_ranks() -> None:
    positive, negative = weights(Grouped(PROMPTS, GROUPS, rewards=REWARDS.abs(), gain="reward"), 4, 9)
    own = PROMPTS[:, None] == GROUPS
    own[3] = False
    torch.testing.assert_close(positive, own * REWARDS.abs())
    assert not negative.any()
    # 1 is the best: the same as rewards in the opposite order
    ranks = torch.tensor([2, 2, 1, 1, 1, 2, 1, 4, 1])
    one = weights(Grouped(PROMPTS, GROUPS, ranks=ranks), 4, 9)
    other = weights(Grouped(PROMPTS, GROUPS, rewards=-ranks), 4, 9)
    assert torch.equal(one[0], other[0])
    assert one[0][1].tolist() == [1, 0, 3, 0, 0, 1, 0, 0, 0]


def test_lists_and_vectors_of_scores_say_the_same() -> None:
    """Three prompts of 3, 2 and 4 responses: as a padded matrix, as vectors, and with embeddings."""
    lengths = [3, 2, 4]
    groups = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))
    generator = torch.Generator().manual_seed(0)
    scores, rewards = (torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(2))
    padded = [torch.nn.utils.rnn.pad_sequence(values.split(lengths), True, torch.nan) for values in (scores, rewards)]
    mask = ~padded[1].isnan()
    vectors = Grouped(torch.arange(3), groups, rewards=rewards)
    for gain in ("rank", "above-worst", "best"):
        vectors = Grouped(torch.arange(3), groups, rewards=rewards, gain=gain)
        lists = Grouped.lists(padded[1], mask=mask, gain=gain)
        for objective in (PairwiseLogistic(pairs="graded"), InfoNCE(temperature=1.0)):
            one = objective(scores=padded[0].nan_to_num(0), relation=lists)
            other = objective(scores=scores.expand(3, -1), relation=vectors)
            torch.testing.assert_close(one, other)
    query, key = (torch.randn(size, 4, generator=generator, dtype=torch.float64) for size in (3, 9))
    dense = PairwiseLogistic(score="dot")(query, key, relation=vectors)
    torch.testing.assert_close(dense, PairwiseLogistic()(scores=query @ key.T, relation=vectors))
    torch.testing.assert_close(dense, PairwiseLogistic(score="dot")(query, key, relation=vectors, memory="tiled"))
    ranks = Grouped.lists(ranks=torch.tensor([[1, 2, 2], [3, 3, 3]]))
    positive, negative = weights(ranks, 2, 3)
    assert positive.tolist() == [[2, 0, 0], [0, 0, 0]]
    assert negative.tolist() == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Grouped(PROMPTS, GROUPS), "rewards or ranks"),
        (lambda: Grouped(PROMPTS, GROUPS, rewards=REWARDS, ranks=REWARDS), "one of them"),
        (lambda: Grouped(PROMPTS, GROUPS, rewards=REWARDS[:3]), "3 rewards or ranks for 9 responses"),
        (lambda: Grouped(PROMPTS, GROUPS, rewards=REWARDS / 0.0), "finite"),
        (lambda: Grouped(PROMPTS, GROUPS, rewards=REWARDS, gain="reward"), ">= 0"),
        (lambda: Grouped(PROMPTS, GROUPS, ranks=GROUPS, gain="reward"), "ranks have no size"),
        (lambda: Grouped(PROMPTS, GROUPS, rewards=REWARDS, gain="dcg"), "gain must be one of"),
        (lambda: Grouped(PROMPTS, GROUPS, rewards=REWARDS, others="near"), "'ignored' or 'far'"),
        (lambda: Grouped.lists(REWARDS), r"\[n, k\], got \[9\]"),
        (lambda: Grouped.lists(REWARDS[None], mask=torch.ones(1, 2).bool()), r"\[1, 9\] bool"),
        (lambda: Grouped(PROMPTS, GROUPS, rewards=REWARDS).bind(4, 4, self_contrast=True, device=CPU), "as keys"),
        (lambda: Grouped(PROMPTS, GROUPS, rewards=REWARDS).bind(4, 8, self_contrast=False, device=CPU), "8 keys"),
        (lambda: Taught(REWARDS), r"\[n, m\]"),
        (lambda: Taught(REWARDS[None], temperature=0.0), "temperature"),
        (lambda: Taught(REWARDS[None] / 0.0), "not finite"),
        (lambda: Taught(REWARDS[None], mask=torch.ones(1, 9)), "bool"),
        (lambda: Taught.of_embeddings(REWARDS), r"\[rows, dimension\]"),
    ],
)
def test_what_makes_no_sense(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_a_pair_is_judged_once() -> None:
    ids = (torch.tensor([1, 2]), torch.tensor([5, 6]))
    for grades in ([1.0, 2.0, 1.0], [1.0, 2.0, 0.0]):
        twice = (torch.tensor([1, 2, 1]), torch.tensor([6, 6, 6]), torch.tensor(grades))
        with pytest.raises(ValueError, match="query 1 and key 6 are judged more than once"):
            Graded(twice, *ids)
        stored = torch.sparse_coo_tensor([[0, 1, 0], [1, 1, 1]], grades, (2, 2), check_invariants=True)
        with pytest.raises(ValueError, match="1 pairs are judged more than once"):
            Graded(stored)
    once = (torch.tensor([2, 1, 1, 2]), torch.tensor([6, 6, 5, 5]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert weights(Graded(once, *ids), 2, 2)[0].tolist() == [[3, 2], [4, 1]]
    # an item may stand in a batch twice: that is one judgement
    assert weights(Graded(once, ids[0], torch.tensor([5, 5, 6])), 2, 3)[0].tolist() == [[3, 3, 2], [4, 4, 1]]


def test_the_teacher_gives_a_distribution() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 300.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True] * 3, [False] * 3])
    positive, negative = weights(Taught(scores, mask=mask, temperature=0.5), 3, 3)
    assert not negative.any()
    torch.testing.assert_close(positive[0, :2], torch.softmax(2 * scores[0, :2], 0))
    assert positive[0, 2] == 0
    assert (positive[1] > 0).all()  # next to nothing is not nothing
    assert positive[1].sum() == 1
    assert (positive[2] == 0).all()
    part = Taught(scores, temperature=0.5).bind(3, 3, self_contrast=False, device=CPU).tile(slice(0, 2), slice(1, 3))
    torch.testing.assert_close(part[0], weights(Taught(scores, temperature=0.5), 3, 3)[0][:2, 1:])


# -- over processes ----------------------------------------------------------------------------------------------------


def _of_two(rank: int, group: dist.ProcessGroup | None) -> list[Tensor]:
    """Losses and gradients of the whole, or of the rows of process ``rank``: a prompt's responses are on both."""
    generator = torch.Generator().manual_seed(1)
    query, key, teacher_query, teacher_key = (
        torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in (4, 9, 4, 9)
    )
    rows, columns = (
        (slice(0, 4), slice(0, 9))
        if group is None
        else ((slice(0, 1), slice(1, 4))[rank], (slice(0, 5), slice(5, 9))[rank])
    )
    relations: list[Relation] = [
        Grouped(PROMPTS[rows], GROUPS[columns], rewards=REWARDS[columns], others="far"),
        Taught.of_embeddings(teacher_query[rows], teacher_key[columns]),
        # both judge query 3 and key 7 alike
        Graded({7: {3: 1.0}, 3: {7: 2.0, 9: 1.0}, 5: {5: 1.0}}, PROMPTS[rows], GROUPS[columns]),
    ]
    found: list[Tensor] = []
    for relation, objective in zip(relations, (PairwiseLogistic(pairs="graded"), KL(), KL("both")), strict=True):
        one, other = query[rows].clone().requires_grad_(), key[columns].clone().requires_grad_()
        for memory in ("dense", "tiled"):
            loss = objective(one, other, relation=relation, memory=memory, group=group)
            found += [loss.detach(), *torch.autograd.grad(loss, (one, other))]
    return found


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    group = dist.group.WORLD
    found = _of_two(rank, group)
    disagreeing = Graded({7: {3: 1.0 + rank}}, PROMPTS[:1], GROUPS[:1])
    refused = []
    for relation in (disagreeing, Taught(torch.zeros(1, 1))):
        try:
            KL()(torch.ones(1, 2), torch.ones(1, 2), relation=relation, group=group)
        except ValueError as error:
            refused.append(str(error))
    torch.save({"found": found, "refused": refused}, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_responses_and_teachers_over_two_processes(tmp_path: Path) -> None:
    parts = of_processes(__file__, tmp_path, timeout=120)
    for part in parts:
        assert "different grades" in part["refused"][0]
        assert "the teacher's embeddings" in part["refused"][1]
    expected = _of_two(0, None)
    for index, value in enumerate(expected):
        first, second = (part["found"][index] for part in parts)
        if value.dim():
            torch.testing.assert_close(torch.cat([first, second]), value, rtol=1e-10, atol=1e-12)
            assert value.abs().max() > 1e-6
        else:
            torch.testing.assert_close(first, value, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(second, value, rtol=1e-12, atol=1e-12)


if __name__ == "__main__":
    _work(int(sys.argv[1]), Path(sys.argv[2]))
