"""Documents of facts, references that trust what is common, and candidates with swaps."""

from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic.fact_documents import FactDocuments
from nearfar.errors import UsageError


def test_documents_give_every_entity_a_value() -> None:
    world = FactDocuments(4, 5)
    documents = world.documents(50, generator=torch.Generator().manual_seed(0))
    for document in documents:
        assert sorted(fact.split("=")[0] for fact in document.split()) == ["e0", "e1", "e2", "e3"]
        assert set(document.split()) <= set(world.symbols)
        assert world.precision(document, document) == 1
    assert len(set(documents)) == 50
    with pytest.raises(UsageError):
        FactDocuments(1)


@pytest.mark.parametrize("belief", [0.0, 0.5, 1.0])
def test_references_replace_facts_by_the_common_one(belief: float) -> None:
    world, generator = FactDocuments(4, 5, belief=belief), torch.Generator().manual_seed(0)
    wrong = 0
    for document in world.documents(500, generator=generator):
        facts = world.reference(document, generator=generator).split()
        assert len({fact[:2] for fact in facts}) == 3
        made_up = [fact for fact in facts if fact not in document.split()]
        assert all(fact.endswith("v0") for fact in made_up)
        wrong += len(made_up)
    expected = belief * 4 / 5  # a fact that has the common value anyway stays right
    assert abs(wrong / 1500 - expected) <= 4 * (expected * (1 - expected) / 1500) ** 0.5


def test_candidates_cover_the_metric() -> None:
    world, generator = FactDocuments(4, 5), torch.Generator().manual_seed(0)
    (document,) = world.documents(1, generator=generator)
    candidates = world.candidates(document, 200, generator=generator)
    assert {len(each.split()) for each in candidates} == {1, 2, 3, 4}
    assert all(len({fact[:2] for fact in each.split()}) == len(each.split()) for each in candidates)
    found = [world.precision(document, each) for each in candidates]
    assert min(found) == 0
    assert max(found) == 1
    assert world.precision("e0=v1 e1=v2", "e0=v1 e1=v1") == 0.5
    assert world.precision("e0=v1", "") == 0
