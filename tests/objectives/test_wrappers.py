"""Objectives made of another: both directions, several views, hardness weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nearfar.contrast import Labels, Paired, Temperature, Views, evaluate
from nearfar.errors import UsageError
from nearfar.objectives import (
    DCL,
    DCLW,
    BarlowTwins,
    InfoNCE,
    PairwiseLogistic,
    RowObjective,
    SupCon,
    Triplet,
    get,
)
from nearfar.objectives.wrappers import HardnessWeighted, MultiView, Symmetric
from support.loops import Case, Rows, Scalars, compare, near_columns
from support.scenarios import SCENARIOS, Matrix, embeddings

WAYS = [{"memory": "dense"}, {"memory": "tiled", "tile_rows": 2}]


@pytest.mark.parametrize("inner", [InfoNCE, DCL, DCLW, SupCon, PairwiseLogistic])
@pytest.mark.parametrize("scenario", ["pairs", "several positives", "weights"])
def test_symmetric_is_the_mean_of_both_directions(inner: type[RowObjective], scenario: str) -> None:
    given = SCENARIOS[scenario]()
    for way in WAYS:
        expected = evaluate(inner(two_sided=True), given.query, given.key, relation=given.relation, **way)
        found = evaluate(Symmetric(inner()), given.query, given.key, relation=given.relation, **way)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_symmetric_keeps_the_closed_form_and_the_temperature() -> None:
    inner = InfoNCE(temperature="learned")
    wrapped = Symmetric(inner)
    assert wrapped.softmax_form == "all"
    assert [value is inner.temperature.log_scale for value in wrapped.parameters()] == [True]


def hardness_weighted_info_nce(strength: float, *, normalized: bool, detached: bool) -> object:
    def formula(scores: Scalars, positive: Matrix, negative: Matrix, scale: Tensor) -> Rows:
        rows: Rows = []
        for s, near, far in zip(scores, positive, negative, strict=True):
            if not near_columns(near):
                rows.append(None)
                continue
            hard = {j: (strength * (s[j].detach() if detached else s[j])).exp() for j in near_columns(far)}
            mean = sum(hard.values()) / len(hard) if normalized and hard else 1.0
            weight = [far[j] * hard[j] / mean if j in hard else 0.0 for j in range(len(s))]
            candidates = sum((1.0 if near[j] else weight[j]) * (s[j] * scale).exp() for j in range(len(s)))
            cost = sum(-near[p] * ((s[p] * scale).exp() / candidates).log() for p in near_columns(near))
            rows.append((cost / sum(near), 1.0))
        return rows

    return formula


@pytest.mark.parametrize(
    "scenario", ["pairs", "hard negatives", "several positives", "own labels", "weights", "one row"]
)
@pytest.mark.parametrize(("normalized", "detached"), [(True, True), (False, True), (True, False)])
def test_hardness_weighted_equals_its_formula(scenario: str, normalized: bool, detached: bool) -> None:
    def make(**more: object) -> RowObjective:
        inner = InfoNCE(temperature=Temperature(0.3, learned=True), **more)
        return HardnessWeighted(inner, strength=2.0, normalized=normalized, detached=detached)

    formula = hardness_weighted_info_nce(2.0, normalized=normalized, detached=detached)
    compare(Case(make, formula, temperature=0.3), SCENARIOS[scenario]())


@pytest.mark.parametrize("inner", [InfoNCE(), DCL(), SupCon("in"), PairwiseLogistic(), Triplet()])
def test_without_strength_nothing_changes(inner: RowObjective) -> None:
    given = SCENARIOS["several positives"]()
    expected = evaluate(inner, given.query, given.key, relation=given.relation)
    found = evaluate(HardnessWeighted(inner, strength=0.0), given.query, given.key, relation=given.relation)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class _Given(nn.Module):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


@pytest.mark.parametrize("columns", [2, 3])
def test_equals_sentence_transformers_hardness(columns: int) -> None:
    """MultipleNegativesRankingLoss(hardness_mode="all_negatives", hardness_strength=9)."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    texts = [embeddings(seed, 7, 5).requires_grad_() for seed in range(columns)]
    peer = MultipleNegativesRankingLoss(_Given(), hardness_mode="all_negatives", hardness_strength=9.0)
    expected = peer([{"sentence_embedding": value} for value in texts], None)
    wrapped = HardnessWeighted(InfoNCE(temperature=0.05), strength=9.0, normalized=False)
    for way in WAYS:
        loss = evaluate(wrapped, texts[0], torch.cat(texts[1:]), **way)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
        for one, other in zip(
            torch.autograd.grad(loss, texts), torch.autograd.grad(expected, texts, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_a_great_strength_does_not_overflow() -> None:
    query, key = embeddings(0, 6, 4).float().requires_grad_(), embeddings(1, 6, 4).float()
    loss = HardnessWeighted(InfoNCE(temperature=0.01), strength=500.0)(query, key)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(query.grad).all()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_pairs_of_views(count: int) -> None:
    views = [embeddings(seed, 5, 4) for seed in range(count)]
    pairs = [(v, w) for v in range(count) for w in range(v + 1, count)]
    inner = InfoNCE(temperature=0.3)
    among = [inner(torch.cat([views[v], views[w]]), relation=Views(2)) for v, w in pairs]
    torch.testing.assert_close(MultiView(inner)(*views), torch.stack(among).mean())
    across = [inner(views[v], views[w]) for v, w in pairs]
    torch.testing.assert_close(MultiView(inner, across=True)(*views), torch.stack(across).mean())
    first = [among[i] for i, (v, _) in enumerate(pairs) if v == 0]
    torch.testing.assert_close(MultiView(inner, views="first")(*views), torch.stack(first).mean())
    together = inner(torch.cat(views), relation=Views(count))
    torch.testing.assert_close(MultiView(inner, views="all")(*views), together)
    twins = [BarlowTwins()(views[v], views[w]) for v, w in pairs]
    torch.testing.assert_close(MultiView("barlow-twins")(*views), torch.stack(twins).mean())


def test_what_cannot_be_wrapped() -> None:
    with pytest.raises(UsageError, match="wraps row objectives"):
        Symmetric(BarlowTwins())
    with pytest.raises(UsageError, match="more than its rows"):
        HardnessWeighted(get("proxy-nca", classes=3, dimension=2))
    with pytest.raises(UsageError, match="strength"):
        HardnessWeighted(InfoNCE(), strength=-1)
    with pytest.raises(UsageError, match="row or view"):
        MultiView("binary-nce")
    with pytest.raises(UsageError, match="need a row objective"):
        MultiView(BarlowTwins(), views="all")
    with pytest.raises(UsageError, match="'pairs', 'first' or 'all'"):
        MultiView(InfoNCE(), views="some")
    with pytest.raises(ValueError, match="batch of one process"):
        MultiView("barlow-twins")(*[embeddings(seed, 5, 4) for seed in (1, 2)], group=object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least two views"):
        MultiView(InfoNCE())(embeddings(0, 3, 2))
    with pytest.raises(ValueError, match="alike"):
        MultiView(InfoNCE())(embeddings(0, 3, 2), embeddings(0, 4, 2))


def test_wrappers_wrap_wrappers() -> None:
    query, key = embeddings(0, 5, 4), embeddings(1, 5, 4)
    both = Symmetric(HardnessWeighted(DCL(temperature=0.3), strength=2.0))
    one = evaluate(HardnessWeighted(DCL(temperature=0.3), strength=2.0), query, key)
    other = evaluate(HardnessWeighted(DCL(temperature=0.3), strength=2.0), key, query)
    torch.testing.assert_close(evaluate(both, query, key, relation=Paired()), (one + other) / 2)
    labelled = evaluate(HardnessWeighted(SupCon()), query, relation=Labels(torch.tensor([0, 0, 1, 1, 1])))
    assert torch.isfinite(labelled)
