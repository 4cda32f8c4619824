"""Objectives called with more than a batch: queues, support sets, sequences, directions, chosen anchors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nearfar.contrast import Labels, Paired, Views, evaluate
from nearfar.contrast.directions import DIRECTIONS, Directions
from nearfar.errors import UsageError
from nearfar.objectives import CPC, DHEL, NNCLR, InfoNCE, MoCo, MoCoDualHard, SpectralContrastive, SupCon
from support.loops import cosine, dot
from support.recorded import two_views
from support.scenarios import embeddings


def test_moco_contrasts_with_the_queue_alone() -> None:
    query, key, queue = embeddings(3, 4, 3).requires_grad_(), embeddings(4, 4, 3).requires_grad_(), embeddings(5, 6, 3)
    t = 0.2
    rows = [[cosine(q, k) / t] + [cosine(q, other) / t for other in queue] for q, k in zip(query, key, strict=True)]
    expected = torch.stack([torch.stack(row).logsumexp(0) - row[0] for row in rows]).mean()
    for memory in ("dense", "tiled"):
        loss = MoCo(temperature=t)(query, key, queue=queue, memory=memory)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(
            torch.autograd.grad(loss, query), torch.autograd.grad(expected, query, retain_graph=True)
        )
        everything = MoCoDualHard("query", hardest=6, temperature=t)(query, key, queue=queue, memory=memory)
        torch.testing.assert_close(everything, expected, rtol=0, atol=1e-14)
    assert torch.autograd.grad(MoCo()(query, key, queue=queue), key, allow_unused=True) == (None,)


def test_a_queue_may_hold_an_earlier_key_of_the_query() -> None:
    query, key, queue = embeddings(3, 4, 3), embeddings(4, 4, 3), embeddings(5, 6, 3)
    ids, numbers = torch.tensor([7, 1, 3, 9]), torch.tensor([5, 3, 8, -1, 7, 7])
    costs = MoCo(reduction="none")(query, key, relation=Paired(ids), queue=queue, queue_ids=numbers)
    for row, number in enumerate(ids.tolist()):
        kept = queue[numbers != number]
        alone = MoCo()(query[row : row + 1], key[row : row + 1], queue=kept)
        torch.testing.assert_close(costs[row], alone)
    plain = MoCo()(query, key, relation=Paired(ids), queue=queue)
    torch.testing.assert_close(plain, MoCo()(query, key, queue=queue))
    hard = torch.cat([key, embeddings(6, 2, 3)])
    more = MoCo()(query, hard, queue=queue)
    torch.testing.assert_close(more, MoCo()(query, key, queue=torch.cat([hard[4:], queue])))


def test_moco_dual_hard_adds_another_direction() -> None:
    query, key, queue = embeddings(3, 4, 3).requires_grad_(), embeddings(4, 4, 3), embeddings(5, 6, 3)
    queried = MoCoDualHard("query", hardest=2)
    one, other = queried(query, key, queue=queue), queried(key, query, queue=queue)
    dual = MoCoDualHard("dual", hardest=2, share=0.3)(query, key.requires_grad_(), queue=queue)
    torch.testing.assert_close(dual, 0.3 * one + 0.7 * other)
    assert torch.autograd.grad(dual, key, retain_graph=True, allow_unused=True) == (None,)
    views = {"other_query": embeddings(6, 4, 3), "other_key": embeddings(7, 4, 3)}
    symmetric = MoCoDualHard(hardest=2)(query, key, queue=queue, **views)
    expected = (one + queried(views["other_query"], views["other_key"], queue=queue)) / 2
    torch.testing.assert_close(symmetric, expected)
    with pytest.raises(ValueError, match="other_query and other_key"):
        MoCoDualHard()(query, key, queue=queue)
    relation = Paired(torch.tensor([4, 2, 9, 5]))
    torch.testing.assert_close(
        MoCoDualHard("dual", hardest=2, share=0.3)(query, key, relation=relation, queue=queue), dual
    )


def test_nnclr_replaces_the_query() -> None:
    query, key, support = (
        embeddings(3, 5, 3).requires_grad_(),
        embeddings(4, 5, 3).requires_grad_(),
        embeddings(5, 9, 3),
    )
    chosen = [max(range(9), key=lambda j: cosine(q, support[j]).item()) for q in query]
    loss = NNCLR()(query, key, support=support)
    expected = InfoNCE(temperature=0.1)(support[chosen], key)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, key), torch.autograd.grad(expected, key))
    torch.testing.assert_close(NNCLR()(query, key), InfoNCE(temperature=0.1)(query, key))
    with pytest.raises(ValueError, match=r"support must be \[k, 3\], got \(4, 2\)"):
        NNCLR()(query, key, support=torch.ones(4, 2))


@pytest.mark.parametrize("candidates", ["all", "sequences", "moments"])
def test_cpc_predicts_the_steps_ahead(candidates: str) -> None:
    b, t, c, d, steps = 3, 5, 4, 2, 3
    objective = CPC(steps, c, d, candidates=candidates).double()
    context, latents = embeddings(3, b, t, c).requires_grad_(), embeddings(4, b, t, d).requires_grad_()
    per_step = []
    for k in range(1, steps + 1):
        costs = []
        for i, now in itertools.product(range(b), range(t - k)):
            predicted = [dot(row, context[i, now]) for row in objective.predictors[k - 1].weight]
            scores = {
                (j, then): sum(p * z for p, z in zip(predicted, latents[j, then + k], strict=True))
                for j in range(b)
                for then in range(t - k)
                if {"all": True, "sequences": then == now, "moments": j == i}[candidates]
            }
            costs.append(torch.stack(list(scores.values())).logsumexp(0) - scores[i, now])
        per_step.append(torch.stack(costs).mean())
    expected = torch.stack(per_step).mean()
    loss = objective(context, latents)
    torch.testing.assert_close(loss, expected)
    inputs = [context, latents, *objective.parameters()]
    for one, other in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert objective.report is not None
    assert objective.report.anchors == b * (4 + 3 + 2)


def test_cpc_of_short_or_misfitting_sequences() -> None:
    with pytest.raises(ValueError, match="nothing to predict"):
        CPC()(torch.ones(2, 1, 3), torch.ones(2, 1, 3))
    with pytest.raises(ValueError, match=r"\(2, 4, 3\) and \(2, 5, 3\)"):
        CPC()(torch.ones(2, 4, 3), torch.ones(2, 5, 3))
    with pytest.raises(ValueError, match="give no relation"):
        CPC()(torch.ones(2, 4, 3), torch.ones(2, 4, 3), relation=Paired())
    assert torch.isfinite(CPC(12)(embeddings(0, 2, 3, 4), embeddings(1, 2, 3, 4)))  # two steps are all there are


def _directions(query: Tensor, key: Tensor, which: list[str], owner: list[int], t: float) -> Tensor:
    n, m = len(query), len(key)
    costs = []
    for i in range(n):
        every = [cosine(query[i], key[j]) for j in range(m)]
        if "query_to_query" in which:
            every += [cosine(query[i], query[j]) for j in range(n) if j != i]
        if "doc_to_query" in which:
            every += [cosine(key[i], query[j]) for j in range(n)]
        if "doc_to_doc" in which:
            every += [cosine(key[i], key[j]) for j in range(m) if owner[j] != i]
        costs.append((torch.stack(every) / t).logsumexp(0) - cosine(query[i], key[i]) / t)
    return torch.stack(costs)


WHICH = [DIRECTIONS, DIRECTIONS[:1], DIRECTIONS[:2], DIRECTIONS[:3], (DIRECTIONS[0], DIRECTIONS[2])]


@pytest.mark.parametrize("way", [{"memory": "dense"}, {"memory": "tiled", "tile_rows": 3}])
@pytest.mark.parametrize("which", WHICH, ids=len)
def test_directions(which: tuple[str, ...], way: dict[str, object]) -> None:
    query, key = embeddings(3, 4, 3).requires_grad_(), embeddings(4, 12, 3).requires_grad_()
    expected = _directions(query, key, list(which), [0, 1, 2, 3] * 3, 0.3)
    loss = evaluate(InfoNCE(temperature=0.3, directions=which, reduction="none"), query, key, **way)
    torch.testing.assert_close(loss, expected)
    for one, other in zip(*(torch.autograd.grad(v.sum(), (query, key)) for v in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other)


def test_directions_by_ids_and_without_duplicates() -> None:
    query, key = embeddings(3, 3, 3), embeddings(4, 5, 3)
    ids, key_ids = torch.tensor([5, 2, 8]), torch.tensor([5, 2, 8, -1, -1])
    objective = InfoNCE(temperature=0.3, directions=DIRECTIONS, reduction="none")
    by_ids = objective(query, key, relation=Paired(ids, key_ids))
    expected = _directions(query, key, list(DIRECTIONS), [0, 1, 2, -1, -1], 0.3)
    torch.testing.assert_close(by_ids, expected[[1, 0, 2]])  # in ascending order of ids
    texts = Paired(ids, key_ids, query_exclude=torch.tensor([1, 2, 1]), key_exclude=torch.tensor([1, 2, 3, 2, 4]))
    kept = objective(query, key, relation=texts)
    # the second query is neither far from the fourth document, which has its text, nor is its own document
    every = [cosine(query[1], key[j]) for j in (0, 1, 2, 4)] + [cosine(query[1], query[j]) for j in (0, 2)]
    every += [cosine(key[1], query[j]) for j in range(3)] + [cosine(key[1], key[j]) for j in (0, 2, 4)]
    torch.testing.assert_close(
        kept[0], (torch.stack(every) / 0.3).logsumexp(0) - cosine(query[1], key[1]) / 0.3, rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("way", [{"memory": "dense"}, {"memory": "tiled"}])
def test_anchors_without_a_positive_may_count_as_zero(way: dict[str, str]) -> None:
    z, labels = embeddings(3, 5, 3), torch.tensor([0, 0, 1, 2, 2])
    for form in ("out", "in"):
        dropped = SupCon(form, reduction="sum")(z, relation=Labels(labels), **way)
        counted = SupCon(form, without_positive="zero")(z, relation=Labels(labels), **way)
        torch.testing.assert_close(counted, dropped / 5)
        based = SupCon(form, base_temperature=0.07)(z, relation=Labels(labels), **way)
        torch.testing.assert_close(based, dropped / 4 * (0.1 / 0.07))
    costs = SupCon(reduction="none")(z, relation=Labels(labels), **way)
    anchors = torch.tensor([True, False, True, False, True])
    chosen = SupCon()(z, relation=Labels(labels), anchors=anchors, **way)
    torch.testing.assert_close(chosen, costs[[0, 4]].mean())
    with pytest.raises(ValueError, match=r"anchors must be \[5\] bool, got \[4\]"):
        SupCon()(z, relation=Labels(labels), anchors=torch.ones(4, dtype=torch.bool))


def test_features_are_drawn_back_to_the_ball() -> None:
    a, b = 3 * embeddings(3, 4, 3), 0.1 * embeddings(4, 4, 3)
    within = math.sqrt(2) * torch.nn.functional.normalize(a, dim=1)
    torch.testing.assert_close(SpectralContrastive(mu=2.0)(a, b), SpectralContrastive()(within, b))
    torch.testing.assert_close(SpectralContrastive(mu=1e3)(a, b), SpectralContrastive()(a, b))


def test_directions_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="no direction"):
        InfoNCE(directions=["query_to_answer"])
    with pytest.raises(UsageError, match="must hold 'query_to_doc'"):
        InfoNCE(directions=["doc_to_query"])
    with pytest.raises(UsageError, match="'doc_to_doc' needs 'doc_to_query'"):
        InfoNCE(directions=["query_to_doc", "doc_to_doc"])
    with pytest.raises(UsageError, match="no other option"):
        InfoNCE(directions=DIRECTIONS, two_sided=True)
    with pytest.raises(ValueError, match="need a Paired relation, got Labels"):
        InfoNCE(directions=DIRECTIONS)(torch.ones(2, 3), torch.ones(2, 3), relation=Labels(torch.tensor([0, 1])))
    with pytest.raises(ValueError, match="as one tensor and no key"):
        InfoNCE()(torch.ones(2, 3), torch.ones(2, 3), relation=Directions(2, 2))
    with pytest.raises(ValueError, match="query_within"):
        Directions(2, 2, Paired(query_within=torch.tensor([0, 1])))


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_dhel_with_the_energy_of_the_first_view_alone(memory: Any) -> None:
    """DHEL-KCL losses.py, DHEL with include_augs=False: the energy of the first view alone."""
    a, b = (normalize(x.detach()).requires_grad_() for x in two_views(3, 5, 4))
    first, own = torch.arange(10) < 5, torch.eye(5, dtype=torch.bool)
    expected = ((a @ a.T / 0.3).masked_fill(own, -torch.inf).logsumexp(1) - (a * b).sum(1) / 0.3).mean()
    for relation in (Views(2), Views(2, negatives="same-view")):
        loss = DHEL("one")(torch.cat([a, b]), relation=relation, anchors=first, memory=memory)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="anchors must be"):
        DHEL("one")(torch.cat([a, b]), relation=Views(2), anchors=first[:4])


@pytest.mark.parametrize("objective", [MoCo(two_sided=True), MoCoDualHard("query", two_sided=True)])
def test_a_queue_has_one_direction(objective: MoCo) -> None:
    query, key, queue = embeddings(3, 4, 3), embeddings(4, 4, 3), embeddings(5, 6, 3)
    with pytest.raises(ValueError, match="no direction back"):
        objective(query, key, queue=queue)
    assert objective(query, key) > 0
