from __future__ import annotations

import pytest
import torch

from nearfar.data.synthetic.homologs import HomologFamilies
from nearfar.errors import UsageError
from nearfar.views.substitution import Substitution


def test_motifs_are_kept_and_the_rest_is_free() -> None:
    world = HomologFamilies(400, 3, seed=1)
    assert world.sequences.shape == (1200, 80)
    assert len(torch.unique(world.motifs, dim=0)) == 8
    assert torch.equal(world.ancestors[:, world.motif_sites], world.motifs[world.family_function])
    same = (world.sequences == world.ancestors[world.family]).float().mean(0)
    neutral = torch.ones(80, dtype=torch.bool)
    neutral[world.motif_sites] = False
    # 1/4 + 3/4 exp(-4/3 rate)
    assert float(same[world.motif_sites].mean()) == pytest.approx(0.906, abs=0.02)
    assert float(same[neutral].mean()) == pytest.approx(0.302, abs=0.01)


def test_worlds_of_one_seed_differ_by_their_branches_alone() -> None:
    near, far = HomologFamilies(20, branch=0.1, seed=3), HomologFamilies(20, branch=30.0, seed=3)
    assert torch.equal(near.ancestors, far.ancestors)
    assert torch.equal(near.motifs, far.motifs)
    assert not torch.equal(near.sequences, far.sequences)
    assert not torch.equal(near.ancestors, HomologFamilies(20, seed=4).ancestors)


def test_other_models_and_rates() -> None:
    world = HomologFamilies(5, model=Substitution.jukes_cantor(20), rates=[0.0] * 80)
    assert torch.equal(world.sequences, world.ancestors[world.family])
    assert int(world.sequences.max()) > 3


def test_motifs_that_cannot_differ() -> None:
    with pytest.raises(UsageError, match="do not tell"):
        HomologFamilies(5, conserved=1, functions=5)
