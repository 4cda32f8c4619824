from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nearfar import objectives
from nearfar.data import Examples
from nearfar.errors import UsageError
from nearfar.training import ContrastiveMethod, TextBatches
from nearfar.training.method import scale_gradient


def embed(model: Any, texts: list[str]) -> torch.Tensor:
    model.eval()
    return model(model.preprocess(texts))["sentence_embedding"]


def run(model: Any, examples: Examples, objective: Any, **options: Any) -> torch.Tensor:
    method = ContrastiveMethod(
        model, objective, shape=examples.shape, hard_negatives=len(examples.negatives), **options
    ).eval()
    batches = TextBatches(model, examples, chunk_size=options.get("chunk_size"))
    loss, _ = method(batches.batch(np.arange(len(examples))))
    return loss


@pytest.mark.parametrize("two_sided", [False, True])
def test_pairs_with_hard_negatives(static_model: Any, make_pairs: Any, two_sided: bool) -> None:
    examples = make_pairs(6, negatives=2)
    loss = run(static_model, examples, objectives.get("info-nce", temperature=0.1, two_sided=two_sided))
    anchors, positives = (F.normalize(embed(static_model, examples.column(c))) for c in ("anchor", "positive"))
    hard = F.normalize(embed(static_model, examples.column("negative_1") + examples.column("negative_2")))
    scores = anchors @ torch.cat([positives, hard]).T / 0.1
    expected = F.cross_entropy(scores, torch.arange(6))
    if two_sided:
        expected = (expected + F.cross_entropy(positives @ anchors.T / 0.1, torch.arange(6))) / 2
    assert torch.allclose(loss, expected, atol=1e-5)


def test_a_candidate_with_the_text_of_the_positive_is_ignored(static_model: Any) -> None:
    examples = Examples.from_columns(
        {
            "anchor": ["kab", "lob", "mib"],
            "positive": ["neb pob", "NEB  pob", "rub"],  # equal after normalisation
            "negative": ["sab", "tob", "rub"],  # the last equals its own positive
        }
    )
    loss = run(static_model, examples, objectives.get("info-nce", temperature=0.5))
    z = [F.normalize(embed(static_model, examples.column(c))) for c in ("anchor", "positive", "negative_1")]
    scores = z[0] @ torch.cat(z[1:]).T / 0.5
    ignored = torch.zeros(3, 6, dtype=torch.bool)
    ignored[0, 1] = ignored[1, 0] = ignored[2, 5] = True
    expected = F.cross_entropy(scores.masked_fill(ignored, -torch.inf), torch.arange(3))
    assert torch.allclose(loss, expected, atol=1e-5)


def test_labelled_texts(static_model: Any, make_labelled: Any) -> None:
    examples = make_labelled(12, classes=3)
    loss = run(static_model, examples, objectives.get("supcon", temperature=0.2))
    z, y = F.normalize(embed(static_model, examples.column("text"))), examples.labels()[0]
    total, count = 0.0, 0
    for i in range(12):
        near = [j for j in range(12) if j != i and y[j] == y[i]]
        if near:
            everyone = torch.logsumexp(torch.stack([z[i] @ z[j] / 0.2 for j in range(12) if j != i]), 0)
            total += sum(everyone - z[i] @ z[j] / 0.2 for j in near) / len(near)
            count += 1
    assert torch.allclose(loss, total / count, atol=1e-5)


def test_texts_alone_are_two_views_with_different_dropout(bert_model: Any, make_pairs: Any) -> None:
    examples = Examples.from_columns({"text": make_pairs(5).column("anchor")})
    objective = objectives.get("info-nce", temperature=0.5)
    method = ContrastiveMethod(bert_model, objective, shape="texts").train()
    torch.manual_seed(0)
    loss, _ = method(TextBatches(bert_model, examples).batch(np.arange(5)))
    z = F.normalize(method.embeddings)
    assert (z[:5] - z[5:]).abs().max() > 1e-3
    scores = (z @ z.T / 0.5).masked_fill(torch.eye(10, dtype=torch.bool), -torch.inf)
    assert torch.allclose(loss, F.cross_entropy(scores, (torch.arange(10) + 5) % 10), atol=1e-5)


@pytest.mark.parametrize("name", ["vicreg", "alignment"])
def test_view_objectives_see_anchors_and_positives(static_model: Any, make_pairs: Any, name: str) -> None:
    examples = make_pairs(8)
    objective = objectives.get(name)
    first, second = (embed(static_model, examples.column(c)) for c in ("anchor", "positive"))
    assert torch.allclose(run(static_model, examples, objective), objective(first, second), rtol=1e-5)


def test_scored_pairs(static_model: Any, make_pairs: Any) -> None:
    pairs = make_pairs(6)
    scores = [0.0, 1.0, 0.5, 1.0, 0.0, 0.25]
    examples = Examples.from_columns(
        {"sentence1": pairs.column("anchor"), "sentence2": pairs.column("positive"), "score": scores}
    )
    loss = run(static_model, examples, objectives.get("binary-nce"))
    dots = (embed(static_model, pairs.column("anchor")) * embed(static_model, pairs.column("positive"))).sum(1)
    expected = F.binary_cross_entropy_with_logits(dots, torch.tensor(scores))
    assert torch.allclose(loss, expected, atol=1e-5)


def test_scored_pairs_that_are_compared_with_one_another(static_model: Any, make_pairs: Any) -> None:
    pairs = make_pairs(5)
    scores = [0.0, 1.0, 0.5, 1.0, 0.25]
    examples = Examples.from_columns(
        {"sentence1": pairs.column("anchor"), "sentence2": pairs.column("positive"), "score": scores}
    )
    loss = run(static_model, examples, objectives.get("cosent"))
    cosines = F.cosine_similarity(
        embed(static_model, pairs.column("anchor")), embed(static_model, pairs.column("positive"))
    )
    total = torch.ones(())
    for p in range(5):
        for q in range(5):
            if scores[p] > scores[q]:
                total = total + ((cosines[q] - cosines[p]) / 0.05).exp()
    assert torch.allclose(loss, total.log(), rtol=1e-4)
    dimension = embed(static_model, pairs.column("anchor")).shape[1]
    wrapped = run(static_model, examples, objectives.get("matryoshka(cosent)", dimensions=dimension))
    assert torch.allclose(wrapped, loss)


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
def test_chunks_give_loss_and_gradient_of_the_whole(bert_model: Any, make_pairs: Any, chunk_size: int) -> None:
    examples = make_pairs(8, negatives=1)
    found = []
    for options in ({}, {"chunk_size": chunk_size}):
        bert_model.zero_grad()
        objective = objectives.get("info-nce", temperature="learned:0.1")
        method = ContrastiveMethod(bert_model, objective, hard_negatives=1, **options).eval()
        loss, logs = method(TextBatches(bert_model, examples, **options).batch(np.array([5, 2, 7, 0])))
        loss.backward()
        found.append((loss.detach(), [p.grad for p in method.parameters()]))
        assert float(logs["temperature"]) == pytest.approx(0.1)
        assert torch.isfinite(method.embedding_gradient)
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).abs().max() <= 1e-5 * max(float(one.abs().max()), 1e-3)


@pytest.mark.parametrize(
    ("objective", "shape", "words"),
    [
        ("info-nce", "scored pairs", "binary-nce"),
        ("barlow-twins", "scored pairs", "whatever their score"),
        ("barlow-twins", "labelled texts", "two views"),
        ("binary-nce", "pairs", "sentence1, sentence2, score"),
        ("binary-nce", "texts", "scored pairs"),
        ("info-nce", "pictures", "no shape of data"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(static_model: Any, objective: str, shape: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ContrastiveMethod(static_model, objectives.get(objective), shape=shape)


def test_view_objectives_have_no_place_for_hard_negatives(static_model: Any) -> None:
    with pytest.raises(UsageError, match="no place for hard negatives"):
        ContrastiveMethod(static_model, objectives.get("vicreg"), hard_negatives=1)


def test_texts_alone_need_dropout(static_model: Any) -> None:
    with pytest.raises(UsageError, match="this encoder has none"):
        ContrastiveMethod(static_model, objectives.get("info-nce"), shape="texts")


def test_scaling_a_gradient_leaves_the_value() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    y = scale_gradient(x * x, 4)
    y.backward()
    assert y.item() == 9.0
    assert x.grad == 24.0
