"""False negatives masked by a guide model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nearfar.contrast import Labels, Paired, Views, evaluate
from nearfar.errors import UsageError
from nearfar.negatives import mask_by_guide
from nearfar.objectives import DCL, InfoNCE, Triplet


def _embeddings(seed: int, n: int, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class _Given(nn.Module):
    """Stands for a sentence encoder: gives the embeddings that the batch holds under ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.tokenizer = None

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features[self.name]}


@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("columns", [2, 3])
def test_equals_sentence_transformers(columns: int, strategy: str, margin: float) -> None:
    """GISTEmbedLoss without its anchor-anchor and positive-positive candidates."""
    from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

    student = [_embeddings(seed, 9).requires_grad_() for seed in range(columns)]
    guide = [_embeddings(10 + seed, 9, 3) for seed in range(columns)]
    peer = GISTEmbedLoss.__new__(GISTEmbedLoss)
    nn.Module.__init__(peer)
    peer.model, peer.guide, peer.must_retokenize = _Given("student"), _Given("guide"), False
    peer.temperature, peer.margin, peer.margin_strategy = 0.1, margin, strategy
    peer.contrast_anchors = peer.contrast_positives = peer.gather_across_devices = False
    peer.similarity_fct = nn.CosineSimilarity(dim=-1)
    peer.cross_entropy_loss = nn.CrossEntropyLoss()
    features = [{"student": one, "guide": two} for one, two in zip(student, guide, strict=True)]
    expected = peer(features, torch.zeros(9))
    query, keys = student[0], torch.cat(student[1:])
    relation = mask_by_guide(Paired(), guide[0], torch.cat(guide[1:]), margin=margin, relative=strategy == "relative")
    for memory in ("dense", "tiled"):
        loss = evaluate(InfoNCE(temperature=0.1), query, keys, relation=relation, memory=memory, tile_rows=4)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
        for one, other in zip(
            torch.autograd.grad(loss, student), torch.autograd.grad(expected, student, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert abs((expected - InfoNCE(temperature=0.1)(query, keys)).item()) > 0.01


@pytest.mark.parametrize("objective", [DCL(temperature=0.3), Triplet("hard")])
def test_any_row_objective_in_self_contrast(objective: nn.Module) -> None:
    z, guide = _embeddings(0, 6), _embeddings(1, 6)
    unit = torch.nn.functional.normalize(guide, dim=1)
    nearest = torch.tensor([float(unit[i] @ unit[(i + 3) % 6]) for i in range(6)], dtype=torch.float64)
    relation = mask_by_guide(Views(2), guide, nearest_positive=nearest)
    kept = relation.bind(6, 6, self_contrast=True, device=torch.device("cpu")).tile(slice(None))[1]
    for i in range(6):
        for j in range(6):
            far = j not in (i, (i + 3) % 6)
            assert bool(kept[i, j]) == (far and float(unit[i] @ unit[j]) <= float(nearest[i]))
    for memory in ("dense", "tiled"):
        assert torch.isfinite(evaluate(objective, z, relation=relation, memory=memory))


def test_two_sided_uses_the_query_as_judge_in_both_directions() -> None:
    query, key = _embeddings(0, 5), _embeddings(1, 5)
    relation = mask_by_guide(Paired(), _embeddings(2, 5), _embeddings(3, 5))
    kept = relation.bind(5, 5, self_contrast=False, device=torch.device("cpu")).tile(slice(None))[1]
    turned = relation.bind(5, 5, self_contrast=False, device=torch.device("cpu")).transpose().tile(slice(None))[1]
    assert torch.equal(turned, kept.T)
    assert torch.isfinite(InfoNCE(two_sided=True)(query, key, relation=relation))


def test_a_guide_that_finds_everything_alike_masks_nothing() -> None:
    same = torch.ones(4, 3)
    loss = InfoNCE()(_embeddings(0, 4), _embeddings(1, 4), relation=mask_by_guide(Paired(), same, same, margin=0.0))
    expected = InfoNCE()(_embeddings(0, 4), _embeddings(1, 4))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match="dimensions differ"):
        mask_by_guide(Paired(), torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="give nearest_positive"):
        mask_by_guide(Labels(torch.zeros(3, dtype=torch.long)), torch.zeros(3, 2))
    with pytest.raises(UsageError, match="margin"):
        mask_by_guide(Paired(), torch.zeros(3, 2), torch.zeros(3, 2), margin=-1)
