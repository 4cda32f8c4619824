"""An index asked by sets of examples: as it is, through an adapter, by a tuned copy of the encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.encoders.adapters import ResidualAdapter
from nearfar.errors import DataError, UsageError
from nearfar.objectives import SetCSE
from nearfar.search import Index, search_sets, set_queries
from nearfar.search.set_tuning import tune_adapter, tune_encoder
from nearfar.search.sets import series_scores, set_similarity
from search.conftest import make_documents
from support.scenarios import embeddings

LIKE = [["the fox jumps", "the fox sings 3 times", "the dog jumps"]]
UNLIKE = [["the whale hides", "the heron hides"]]


def _scores(model: Any, texts: list[str], like: Any, unlike: Any) -> torch.Tensor:
    items, *sets = (torch.from_numpy(encoders.encode(model, each, task="document")) for each in (texts, *like, *unlike))
    return series_scores(items, sets[: len(like)], sets[len(like) :])


@pytest.mark.parametrize(("like", "unlike"), [(LIKE, UNLIKE), (LIKE, []), ([], UNLIKE), (LIKE + UNLIKE, LIKE)])
def test_as_it_is_the_index_finds_what_comparing_all_finds(model: Any, index: Index, like: Any, unlike: Any) -> None:
    documents = make_documents(100)
    expected = _scores(model, [each["text"] for each in documents], like, unlike)
    hits = search_sets(index, like, unlike, k=7)
    assert [hit.rank for hit in hits] == list(range(1, 8))
    assert [hit.score for hit in hits] == pytest.approx(expected.sort(descending=True).values[:7].tolist(), abs=1e-5)
    row = int(hits[0].id[1:])
    assert hits[0].text == documents[row]["text"]
    assert hits[0].fields["number"] == row
    assert len(search_sets(index, like, unlike, k=1000)) == 100


def test_sets_that_cancel_leave_the_order_of_the_documents(index: Index) -> None:
    hits = search_sets(index, LIKE, LIKE, k=4)
    assert [hit.id for hit in hits] == ["d0", "d1", "d2", "d3"]
    assert [hit.score for hit in hits] == pytest.approx([0] * 4, abs=1e-9)


@pytest.mark.parametrize("block", [7, 16_384])
def test_through_an_adapter(model: Any, index: Index, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(set_queries, "BLOCK", block)
    seen = []
    hits = search_sets(index, LIKE, UNLIKE, k=100, tuning="adapter", progress=lambda done, total: seen.append(done))
    assert seen[-1] == 100
    members = [torch.from_numpy(encoders.encode(model, each, task="document")) for each in (*LIKE, *UNLIKE)]
    adapter = tune_adapter(members, seed=0)
    texts = [each["text"] for each in make_documents(100)]
    with torch.no_grad():
        items, *sets = (
            adapter(torch.from_numpy(encoders.encode(model, each, task="document"))) for each in (texts, *LIKE, *UNLIKE)
        )
    expected = series_scores(items, sets[:1], sets[1:])
    assert [hit.score for hit in hits] == pytest.approx(expected.sort(descending=True).values.tolist(), abs=1e-5)
    assert hits[0].score > search_sets(index, LIKE, UNLIKE, k=1)[0].score + 0.1  # the sets are further apart


def test_by_a_copy_of_the_encoder(model: Any, index: Index) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hits = search_sets(index, LIKE, UNLIKE, k=5, tuning="encoder", steps=5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    tuned = tune_encoder(index.model, [*LIKE, *UNLIKE], steps=5)
    expected = _scores(tuned, [each["text"] for each in make_documents(100)], LIKE, UNLIKE)
    assert [hit.score for hit in hits] == pytest.approx(expected.sort(descending=True).values[:5].tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", ["hnsw"])
def test_another_kind_of_index(model: Any, tmp_path: Any, index: Index, kind: str) -> None:
    other = Index.build(tmp_path / kind, model, make_documents(100), kind=kind)
    for tuning in ("none", "adapter"):
        one, two = (search_sets(each, LIKE, UNLIKE, k=5, tuning=tuning) for each in (index, other))
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in two], abs=1e-5)
    np.testing.assert_allclose(other.vectors(3, 8), index.vectors(3, 8), atol=1e-6)


def test_a_single_set_is_not_tuned_and_says_so(index: Index) -> None:
    with pytest.warns(UserWarning, match="nothing is tuned"):
        hits = search_sets(index, LIKE, tuning="adapter", k=5)
    assert [hit.to_dict() for hit in hits] == [hit.to_dict() for hit in search_sets(index, LIKE, k=5)]


def test_what_cannot_be_asked(index: Index) -> None:
    with pytest.raises(UsageError, match="no set to search by"):
        search_sets(index, [])
    with pytest.raises(DataError, match="set 2 of the query holds no text"):
        search_sets(index, LIKE, [["", "  "]])
    with pytest.raises(DataError, match="set 1 of the query holds no text"):
        search_sets(index, [[]])
    with pytest.raises(UsageError, match="lists of texts"):
        search_sets(index, ["the fox"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="no tuning 'all'"):
        search_sets(index, LIKE, tuning="all")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1 document"):
        search_sets(index, LIKE, k=0)


def test_tuning_tells_sets_apart_and_begins_at_the_identity() -> None:
    # two meanings in two of 20 dimensions, drowned by what all have in common
    def draw(seed: int, side: int, n: int) -> torch.Tensor:
        points = 0.5 * embeddings(seed, n, 20)
        points[:, 0] += 4
        points[:, 1] += side
        return points.float()

    sets = [draw(0, 1, 20), draw(1, -1, 20)]
    adapter = tune_adapter(sets)
    with torch.no_grad():
        again = [adapter(draw(2, 1, 200)), adapter(draw(3, -1, 200))]
        members = [adapter(each) for each in sets]
        apart = (set_similarity(again[0], members[0]) - set_similarity(again[0], members[1])).mean()
        plain = (set_similarity(draw(2, 1, 200), sets[0]) - set_similarity(draw(2, 1, 200), sets[1])).mean()
    assert apart > plain + 0.3
    assert torch.equal(ResidualAdapter(20)(sets[0]), sets[0])
    assert torch.equal(tune_adapter(sets, steps=0)(sets[0]), sets[0])
    assert torch.equal(tune_adapter(sets[:1])(sets[0]), sets[0])  # nothing to tell apart
    assert torch.equal(tune_adapter(sets, seed=1).up, tune_adapter(sets, seed=1).up)
    other = tune_adapter(sets, objective=SetCSE("infonce", reduction="mean"), rank=2)
    assert other.rank == 2
    assert not torch.equal(other(sets[0]), sets[0])


def test_tuning_ends_when_the_loss_no_longer_falls() -> None:
    taken = []

    class Counted(SetCSE):
        def forward(self, *arguments: Any, **more: Any) -> torch.Tensor:
            taken.append(1)
            return super().forward(*arguments, **more) * 0

    tune_adapter([embeddings(0, 3, 4), embeddings(1, 3, 4)], objective=Counted(), steps=50)
    assert 5 < len(taken) < 10


def test_sets_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"\[\[2, 3\], \[0, 3\]\]"):
        tune_adapter([torch.ones(2, 3), torch.zeros(0, 3)])
    with pytest.raises(UsageError, match="must be embeddings"):
        tune_adapter([torch.ones(2, 3), torch.ones(2, 4)])
    with pytest.raises(UsageError, match="rank of at least 1"):
        ResidualAdapter(4, 0)
