"""MCSE and CLIM on a user's data: against the formulas by loops, what is in a batch, what is kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nearfar import encoders
from nearfar.data import Examples
from nearfar.errors import DataError, UsageError
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.methods.captions import CaptionGrounding, two_streams
from nearfar.training.methods.domains import CrossDomain, source_and_target, triples
from nearfar.training.text_training import TextSetting
from support.sentence_models import bert, texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("shapes") / "bert")


@pytest.fixture
def encoder(folder: Path) -> Any:
    return encoders.load(folder, device="cpu")


def setting(encoder: Any, recipe: str, examples: Examples, *, steps: int = 40, **given: Any) -> TextSetting:
    how = registry.find(recipe).training
    assert how is not None
    return TextSetting(encoder, examples, {**how.options, **given}, 8, steps=steps, steps_per_epoch=6, seed=3)


def nce(query: Tensor, key: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """Mean over i of ``-log(exp(s_ii / T) / sum_j w_ij exp(s_ij / T))``, by loops."""
    costs = []
    for i in range(len(query)):
        scores = [torch.cosine_similarity(query[i], key[j], dim=0) / temperature for j in range(len(key))]
        total = sum((1.0 if weights is None else weights[i, j]) * score.exp() for j, score in enumerate(scores))
        costs.append(-(scores[i].exp() / total).log())
    return torch.stack(costs).mean()


def captions() -> Examples:
    images = [[1.0, 2.0, 0.5], None, [0.0, -1.0, 1.0], [1.0, 2.0, 0.5], None, [2.0, 0.0, 0.0]]
    return Examples.from_columns({"text": texts(6), "image": images})


def test_mcse_by_plain_loops(encoder: Any) -> None:
    examples = captions()
    method = CaptionGrounding(
        setting(encoder, "mcse", examples, weight=0.3, width=5, temperature=0.1, image_temperature=0.2)
    ).double()
    rows = [0, 1, 2, 5]
    batch = TextBatches(encoder, examples).batch(rows)
    embeddings = torch.randn(8, 16, dtype=torch.float64, requires_grad=True)
    loss, logs = method.contrast(embeddings, batch)
    z = torch.tanh(embeddings @ method.head.dense.weight.T + method.head.dense.bias)
    g = torch.tanh(embeddings @ method.grounding.dense.weight.T + method.grounding.dense.bias)
    x = torch.tensor(examples.images([0, 2, 5]), dtype=torch.float64)
    v = torch.tanh(x @ method.image_head.dense.weight.T + method.image_head.dense.bias)
    shown = [0, 2, 3]  # places in the batch
    across = (nce(g[:4][shown], v, 0.2) + nce(g[4:][shown], v, 0.2)) / 2
    expected = nce(z[:4], z[4:], 0.1) + 0.3 * across
    torch.testing.assert_close(loss, expected)
    gradient, wanted = (torch.autograd.grad(each, embeddings, retain_graph=True)[0] for each in (loss, expected))
    torch.testing.assert_close(gradient, wanted)
    assert float(logs["texts with images"]) == 0.75


def test_both_copies_of_an_image_are_near(encoder: Any) -> None:
    examples = captions()
    method = CaptionGrounding(setting(encoder, "mcse", examples, weight=1.0)).double()
    batch = TextBatches(encoder, examples).batch([0, 2, 3])
    embeddings = torch.randn(6, 16, dtype=torch.float64)
    z, g = method.head(embeddings), method.grounding(embeddings)
    v = method.image_head(torch.tensor(examples.images([0, 2, 3]), dtype=torch.float64))
    found = method.contrast(embeddings, batch)[0] - nce(z[:3], z[3:], 0.05)
    costs = []
    for view in (g[:3], g[3:]):
        scores = torch.stack([torch.stack([torch.cosine_similarity(a, b, dim=0) / 0.05 for b in v]) for a in view])
        for i, near in ((0, [0, 2]), (1, [1]), (2, [0, 2])):  # both copies of the one image are near
            costs.append((scores[i].logsumexp(0) - scores[i, near]).mean())
    torch.testing.assert_close(found, torch.stack(costs).mean())


def test_a_batch_without_images_is_simcse(encoder: Any) -> None:
    examples = captions()
    method = CaptionGrounding(setting(encoder, "mcse", examples)).double()
    batch = TextBatches(encoder, examples).batch([1, 4])
    embeddings = torch.randn(4, 16, dtype=torch.float64)
    loss, logs = method.contrast(embeddings, batch)
    z = method.head(embeddings)
    torch.testing.assert_close(loss, nce(z[:2], z[2:], 0.05))
    assert float(logs["texts with images"]) == 0


def test_streams_of_captions_and_of_texts() -> None:
    number = np.arange(60)
    images = [[float(each % 7), 1.0] if each % 3 == 0 else None for each in number]
    examples = Examples.from_columns({"text": [f"t{each % 50}" for each in number], "image": images})
    plan = two_streams(examples, {}, 5, seed=2).plan(1)
    assert sorted(np.concatenate(plan).tolist()) == list(range(60))
    ids, words = examples.image_ids(), examples.hashes("text")
    for batch in plan:
        assert len({id >= 0 for id in ids[batch].tolist()}) == 1
        assert len(set(words[batch].tolist())) == len(batch)
        if ids[batch[0]] >= 0:
            assert len(set(ids[batch].tolist())) == len(batch)
    with pytest.raises(DataError, match="fewer than two texts have an image"):
        two_streams(examples.select([0, 1, 2]), {}, 5)
    # all texts have images: one stream; a single text without is left out
    every = examples.select(np.flatnonzero(ids >= 0))
    assert sorted(np.concatenate(two_streams(every, {}, 5).plan(0)).tolist()) == list(range(20))
    but_one = examples.select([*np.flatnonzero(ids >= 0).tolist(), 1])
    assert sorted(np.concatenate(two_streams(but_one, {}, 5).plan(0)).tolist()) == list(range(20))


# -- CLIM -------------------------------------------------------------------------------------------------------------


def domains() -> Examples:
    labels = ["good", "bad", "", "", "good", "so", "", "good"]
    names = ["books", "books", "books", "food", "food", "books", "food", "books"]
    return Examples.from_columns({"text": texts(8), "label": labels, "domain": names}, shape="domains")


def test_the_source_s_labels_alone_are_known() -> None:
    domain, codes, names = source_and_target(domains(), {"target": "food"})
    assert domain.tolist() == [0, 0, 0, 1, 1, 0, 1, 0]
    assert names == ["bad", "good", "so"]
    assert codes.tolist() == [1, 0, -1, -1, -1, 2, -1, 1]
    with pytest.raises(UsageError, match="both have labels"):
        source_and_target(domains(), {"target": "none"})
    with pytest.raises(DataError, match=r"'food', has labels of 1 classes(.|\n)*--set target="):
        source_and_target(domains(), {"target": "books"})
    # a class of the target alone is none
    only = Examples.from_columns(
        {"text": texts(4), "label": ["a", "b", "c", ""], "domain": ["x", "x", "y", "y"]}, shape="domains"
    )
    assert source_and_target(only, {"target": "y"})[2] == ["a", "b"]


def test_batches_are_triples() -> None:
    examples = domains()
    plan = triples(examples, {"target": "food"}, 3, seed=1).plan(0)
    assert len(plan) == 4
    for batch in plan:
        assert batch[0] in (0, 1, 5, 7)
        assert batch[1] == 2
        assert batch[2] in (3, 4, 6)
    labelled = examples.select([0, 1, 3, 4, 5])
    assert {len(batch) for batch in triples(labelled, {"target": "food"}, 4, seed=1).plan(0)} == {4}


@pytest.mark.parametrize("done", [0, 1, 7, 9])
def test_clim_by_plain_loops(encoder: Any, done: int) -> None:
    """Six steps an epoch; the mutual information from the second on, the labels in two steps of three."""
    examples = domains()
    given = setting(encoder, "clim", examples, target="food", temperature=0.2, weight=0.5, information_weight=0.7)
    method = CrossDomain(given).double()
    method.done.fill_(done)
    rows = [0, 5, 2, 7, 3, 4]
    embeddings = torch.randn(12, 16, dtype=torch.float64, requires_grad=True)
    loss, logs = method.contrast(embeddings, {"rows": torch.tensor(rows)})
    z, logits = method.projection(embeddings), method.head(embeddings)
    expected = torch.zeros((), dtype=torch.float64)
    for members in ([0, 1, 2, 3], [4, 5]):
        both = torch.cat([z[members], z[[m + 6 for m in members]]])
        n, costs = len(members), []
        for i in range(2 * n):
            scores = [torch.cosine_similarity(both[i], both[k], dim=0) / 0.2 for k in range(2 * n)]
            total = sum(score.exp() for k, score in enumerate(scores) if k != i)
            costs.append(-(scores[(i + n) % (2 * n)].exp() / total).log())
        expected = expected + 0.5 * torch.stack(costs).mean()
    if done % 6 % 3:
        labelled = {0: 1, 1: 2, 3: 1}  # place in the batch -> class
        expected = expected + torch.stack([-logits[p].log_softmax(0)[c] for p, c in labelled.items()]).mean()
    if done >= 6:
        p = torch.cat([logits[[2, 4, 5]], logits[6:]]).softmax(1)
        conditional = -(p * p.log()).sum(1).mean()
        marginal = -(p.mean(0) * p.mean(0).log()).sum()
        threshold = 0.53 / math.log(2) * math.log(3)
        expected = expected + 0.7 * (conditional - marginal if float(marginal.detach()) < threshold else conditional)
        assert float(logs["entropy of the mean prediction"]) == pytest.approx(float(marginal.detach()))
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(each, embeddings, retain_graph=True)[0] for each in (loss, expected))
    torch.testing.assert_close(found, wanted)
    right = [int(logits[place].argmax()) == known for place, known in ((0, 1), (1, 2), (3, 1))]
    assert float(logs["labelled right"]) == pytest.approx(np.mean(right))


def test_labels_of_the_target_change_nothing(encoder: Any) -> None:
    examples = domains()
    hidden = examples.table.column("label").to_pylist()
    hidden[4] = "bad"
    other = Examples.from_columns(
        {"text": examples.column("text"), "label": hidden, "domain": examples.column("domain")}, shape="domains"
    )
    losses = []
    for each in (examples, other):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            method = CrossDomain(setting(encoder, "clim", each, target="food"))
        method.done.fill_(7)
        losses.append(float(method.contrast(torch.ones(6, 16), {"rows": torch.tensor([0, 4, 6])})[0].detach()))
    assert losses[0] == losses[1]


def test_the_second_view_is_another_text(encoder: Any) -> None:
    examples = domains()
    method = CrossDomain(setting(encoder, "clim", examples, target="food", view2="swap:0.5"))
    seen = method.seen(TextBatches(encoder, examples).batch([0, 3, 5]))
    first, second = (chunk["input_ids"] for chunk in seen["chunks"])
    assert first.shape == second.shape
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(1).values, second.sort(1).values)
    loss, _ = method(TextBatches(encoder, examples).batch([0, 3, 5]))
    loss.backward()
    with pytest.raises(UsageError, match="no text view"):
        CrossDomain(setting(encoder, "clim", examples, target="food", view2="translation"))


def test_the_saved_classifier_is_the_method_s(encoder: Any) -> None:
    method = CrossDomain(setting(encoder, "clim", domains(), target="food"))
    embeddings = torch.randn(5, 16)
    made = method.classifier()
    assert made.labels == ("bad", "good", "so")
    expected = method.head(embeddings).softmax(1).detach().numpy()
    np.testing.assert_allclose(made.probabilities(embeddings.numpy()), expected, rtol=1e-5)


def test_a_run_too_short_for_mutual_information_says_so(encoder: Any) -> None:
    with pytest.warns(UserWarning, match="ends before epoch 1"):
        CrossDomain(setting(encoder, "clim", domains(), steps=6, target="food"))
