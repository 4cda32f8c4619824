"""Beside sentence-transformers: ranking, distillation and Matryoshka losses, value and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sentence_transformers.cross_encoder import losses as list_losses
from sentence_transformers.cross_encoder.losses import lambda_loss
from sentence_transformers.sentence_transformer import losses
from torch import Tensor, nn

from nearfar.contrast import Grouped, Taught
from nearfar.objectives import (
    KL,
    AnglE,
    CoSENT,
    InfoNCE,
    LambdaRank,
    ListMLE,
    ListNet,
    MarginMSE,
    Matryoshka,
    RowObjective,
    get,
)


def items(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def assert_equal(found: Tensor, expected: Tensor, inputs: list[Tensor], rtol: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-9, check_dtype=False)
    gradients = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=max(1e-8, 10 * rtol), atol=max(1e-10, rtol))
        assert other.norm() > 1e-6


class Passing(nn.Module):
    """Stands in for a model whose input is its output: embeddings, or scores of lists."""

    num_labels = 1
    device = torch.device("cpu")

    def preprocess(self, pairs: list[tuple[Any, Tensor]], **more: Any) -> dict[str, Tensor]:
        return {"scores": torch.stack([score for _, score in pairs])}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(features)

    def get_embedding_dimension(self) -> int:
        return 8


LENGTHS = [5, 3, 6]
GRADES = [[2.0, 0.0, 1.0, 3.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 1.0, 2.0, 3.0, 1.0]]
DISTINCT = [[2.0, 0.0, 1.0, 3.0, 4.0], [1.0, 2.0, 0.0], [0.0, 5.0, 1.0, 2.0, 3.0, 4.0]]


def of_lists(peer: nn.Module, scores: Tensor, grades: list[list[float]]) -> Tensor:
    lists = [list(row[:length]) for row, length in zip(scores, LENGTHS, strict=True)]
    found: Tensor = peer(([""] * len(lists), lists), [torch.tensor(row) for row in grades])
    return found


def graded(grades: list[list[float]]) -> Any:
    padded = torch.tensor([row + [torch.nan] * (6 - len(row)) for row in grades], dtype=torch.float64)
    return Grouped.lists(padded, mask=~padded.isnan(), gain="reward")


ROUNDED = 3e-6
"""The peer casts scores and labels to float32."""


@pytest.mark.parametrize(
    ("peer", "objective", "grades"),
    [
        # the peer's mean is over pairs; its logarithm is to base 2
        (lambda model: list_losses.RankNetLoss(model, reduction_log="natural"), get("ranknet"), GRADES),
        (
            lambda model: list_losses.LambdaLoss(model),
            LambdaRank("ndcg-loss2++", average="pairs", logarithm="binary"), GRADES,
        ),
        (
            lambda model: list_losses.LambdaLoss(model, lambda_loss.LambdaRankScheme(), sigma=2.0),
            LambdaRank(average="pairs", logarithm="binary", temperature=0.5), GRADES,
        ),
        (
            lambda model: list_losses.LambdaLoss(model, lambda_loss.NDCGLoss2Scheme(), k=2, reduction_log="natural"),
            LambdaRank("ndcg-loss2", k=2, average="pairs"), GRADES,
        ),
        (
            lambda model: list_losses.LambdaLoss(model, lambda_loss.NDCGLoss1Scheme()),
            LambdaRank("ndcg-loss1", average="pairs", logarithm="binary"), GRADES,
        ),
        (
            lambda model: list_losses.LambdaLoss(model, lambda_loss.NDCGLoss1Scheme(), k=2),
            LambdaRank("ndcg-loss1", k=2, average="pairs", logarithm="binary"), GRADES,
        ),
        (lambda model: list_losses.ListNetLoss(model), ListNet(), GRADES),
        # the peer sorts ties in an order of its own: none here
        (lambda model: list_losses.ListMLELoss(model, respect_input_order=False), ListMLE(), DISTINCT),
    ],
)  # fmt: skip
def test_lists(peer: Any, objective: RowObjective, grades: list[list[float]]) -> None:
    scores = items(0, 3, 6)
    found = objective(scores=scores, relation=graded(grades))
    assert_equal(found, of_lists(peer(Passing()), scores, grades), [scores], ROUNDED)


@pytest.mark.parametrize(
    "labels", [torch.tensor([0.1, 0.9, 0.5, 0.5, 0.0, 1.0, 0.5]), torch.tensor([1, 0, 2, 2, 1, 0, 1])]
)
@pytest.mark.parametrize("dimension", [6, 5])
def test_cosent_and_angle(dimension: int, labels: Tensor) -> None:
    """With ties among the labels; an odd dimension is padded."""
    a, b = items(1, 7, dimension), items(2, 7, dimension)
    expected = losses.CoSENTLoss(Passing(), scale=10.0).compute_loss_from_embeddings([a, b], labels)
    assert_equal(CoSENT(temperature=0.1).of_embeddings(a, b, labels), expected, [a, b])
    expected = losses.AnglELoss(Passing(), scale=10.0).compute_loss_from_embeddings([a, b], labels)
    assert_equal(AnglE(temperature=0.1).of_embeddings(a, b, labels), expected, [a, b])


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("as_margins", [False, True])
def test_margin_mse(negatives: int, as_margins: bool) -> None:
    query, *documents = (items(seed, 5, 6) for seed in range(negatives + 2))
    teacher = items(20, 5, negatives + 1).detach()
    if as_margins:
        teacher = teacher[:, :1] - teacher[:, 1:]
    expected = losses.MarginMSELoss(Passing()).compute_loss_from_embeddings([query, *documents], teacher)
    found = MarginMSE(reduction="mean").of_embeddings(query, torch.stack(documents, 1), teacher)
    assert_equal(found, expected, [query, *documents])
    torch.testing.assert_close(MarginMSE().of_embeddings(query, torch.stack(documents, 1), teacher).mean(), found)


@pytest.mark.parametrize(("student", "teacher"), [(1.0, 1.0), (2.0, 2.0), (0.5, 3.0)])
def test_kl_of_lists(student: float, teacher: float) -> None:
    query, *documents = (items(seed, 5, 6) for seed in range(4))
    scores = items(30, 5, 3).detach()
    peer = losses.DistillKLDivLoss(Passing(), student_temperature=student, teacher_temperature=teacher)
    expected = peer.compute_loss_from_embeddings([query, *documents], scores)
    listed = torch.stack([(query * document).sum(1) for document in documents], 1)
    found = KL(temperature=student)(scores=listed, relation=Taught(scores, temperature=teacher))
    assert_equal(found, expected, [query, *documents])


@pytest.mark.parametrize("memory", ["dense", "tiled"])
def test_matryoshka(memory: str) -> None:
    """The peer sorts the prefixes and weighs them by 1 unless told otherwise."""
    query, document = items(40, 6, 8), items(41, 6, 8)

    class Columns(nn.Module):
        """The wrapped loss, which calls the model once a column."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model
            self.loss = losses.MultipleNegativesRankingLoss(Passing())

        def forward(self, features: Any, labels: Any) -> Tensor:
            embeddings = [self.model.forward(dict(column))["sentence_embedding"] for column in features]
            loss: Tensor = self.loss.compute_loss_from_embeddings(embeddings, labels)
            return loss

    model = Passing()
    peer = losses.MatryoshkaLoss(model, Columns(model), [8, 5, 2], matryoshka_weights=[1.0, 0.5, 2.0])
    features = [{"sentence_embedding": query}, {"sentence_embedding": document}]
    objective = Matryoshka(InfoNCE(temperature=0.05), (8, 5, 2), (1.0, 0.5, 2.0))
    found = objective(query, document, memory=memory)
    assert_equal(found, peer(features, None), [query, document])
    # a score that is not normalised: the peer divides prefixes by their length
    dot = Matryoshka(InfoNCE(temperature=0.05, score="dot"), (8, 5, 2), (1.0, 0.5, 2.0), normalize=True)
    assert_equal(dot(query, document, memory=memory), peer(features, None), [query, document])
