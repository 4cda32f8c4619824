"""Quick-Thoughts and DiscSent on a user's documents: against loops, what they keep, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.data import Examples
from nearfar.data.conjunctions import KINDS
from nearfar.errors import DataError, UsageError
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.methods.discourse import DiscourseTasks, DiscourseTraining
from nearfar.training.methods.documents import ContextPrediction, running_text
from nearfar.training.text_training import TextSetting
from support.sentence_models import bert, texts

OPENINGS = ["However, ", "Also ", "Then ", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("documents") / "bert")


@pytest.fixture
def encoder(folder: Path) -> Any:
    return encoders.load(folder, device="cpu")


@pytest.fixture
def table() -> Any:
    return encoders.load("static", texts=texts(40), dimension=16, seed=0)


def documents(sizes: tuple[int, ...] = (6, 1, 9), conjunctions: bool = True) -> Examples:
    drawn = texts(sum(sizes))
    if conjunctions:
        drawn = [OPENINGS[row % 4] + text for row, text in enumerate(drawn)]
    return Examples.from_columns({"text": drawn, "document": np.repeat(np.arange(len(sizes)), sizes)})


def setting(encoder: Any, recipe: str, examples: Examples, **given: Any) -> TextSetting:
    how = registry.find(recipe).training
    assert how is not None
    return TextSetting(encoder, examples, {**how.options, **given}, 8, steps=4, steps_per_epoch=2, seed=3)


def test_quick_thoughts_by_plain_loops(encoder: Any) -> None:
    examples = documents()
    method = ContextPrediction(setting(encoder, "quick-thoughts", examples, score="dot")).double()
    rows = [3, 4, 5, 6, 7, 8]  # a document's end, one of a single sentence, the beginning of another
    batch = TextBatches(encoder, examples).batch(rows)
    vectors = torch.randn(6, 32, dtype=torch.float64)
    loss, _ = method.contrast(vectors, batch)
    f, g = vectors[:, :16], vectors[:, 16:]
    near = {0: [1], 1: [0, 2], 2: [1], 4: [5], 5: [4]}
    costs = []
    for i, neighbours in near.items():
        everyone = 1 + sum((f[i] @ g[j]).exp() for j in range(6) if j != i)
        costs.append(-sum((f[i] @ g[j]) - everyone.log() for j in neighbours) / len(neighbours))
    torch.testing.assert_close(loss, torch.stack(costs).mean())


def test_without_boundaries_the_next_document_is_near(encoder: Any) -> None:
    examples = documents((2, 2), conjunctions=False)
    batch = TextBatches(encoder, examples).batch([1, 2])
    vectors = torch.randn(2, 32)
    apart = ContextPrediction(setting(encoder, "quick-thoughts", examples))
    across = ContextPrediction(setting(encoder, "quick-thoughts", examples, boundaries=False))
    assert float(across.contrast(vectors, batch)[0]) > 0
    with pytest.warns(UserWarning, match="positive"):  # no row has a neighbour
        assert float(apart.contrast(vectors, batch)[0]) == 0


def test_rows_that_do_not_follow_each_other_are_no_neighbours(encoder: Any) -> None:
    examples = documents((10,), conjunctions=False)
    method = ContextPrediction(setting(encoder, "quick-thoughts", examples))
    batches = TextBatches(encoder, examples)
    vectors = torch.randn(3, 32)
    together = method.contrast(vectors, batches.batch([0, 1, 2]))[0]
    mixed = method.contrast(vectors[[0, 2, 1]], batches.batch([0, 2, 1]))[0]
    torch.testing.assert_close(together, mixed)  # the rows say where a sentence stands, not the place in the batch


def test_two_encoders_are_untied_and_one_is_exported(encoder: Any) -> None:
    method = ContextPrediction(setting(encoder, "quick-thoughts", documents()))
    assert method.encoder is encoder
    names = dict(method.named_parameters())
    assert any(name.startswith("context_encoder.") for name in names)
    assert not {p.data_ptr() for p in encoder.parameters()} & {
        p.data_ptr() for name, p in names.items() if name.startswith("context_encoder.")
    }
    batch = TextBatches(encoder, documents()).batch(range(6))
    loss, _ = method(batch)
    loss.backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for name, parameter in names.items()
        if "word_embeddings" in name
    )
    assert method.embeddings is not None
    assert method.embeddings.shape == (6, 32)


def test_the_halves_of_a_static_encoder_are_two(table: Any) -> None:
    examples = documents(conjunctions=False)
    method = ContextPrediction(setting(table, "quick-thoughts", examples))
    assert method.context_encoder is None
    batch = TextBatches(table, examples).batch(range(6))
    loss, _ = method(batch)
    loss.backward()
    gradient = table[0].embedding.weight.grad
    assert gradient[:, :8].abs().sum() > 0
    assert gradient[:, 8:].abs().sum() > 0
    odd = encoders.load("static", texts=texts(40), dimension=15, seed=0)
    with pytest.raises(UsageError, match=r"no halves(.|\n)*encoders=two"):
        ContextPrediction(setting(odd, "quick-thoughts", examples))
    two = ContextPrediction(setting(table, "quick-thoughts", examples, encoders="two"))
    assert two.context_encoder is not None
    assert float(two(batch)[0].detach()) > 0


@pytest.mark.parametrize(("option", "value"), [("encoders", "three"), ("score", "l2")])
def test_options_that_do_not_exist(encoder: Any, option: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"no {option} '{value}'"):
        ContextPrediction(setting(encoder, "quick-thoughts", documents(), **{option: value}))


# -- DiscSent ---------------------------------------------------------------------------------------------------------


def test_the_tasks_by_plain_loops() -> None:
    torch.manual_seed(0)
    tasks = DiscourseTasks(4, 3).double()
    vectors = torch.randn(12, 4, dtype=torch.float64)
    document = torch.tensor([0] * 9 + [1] * 3)
    kind = torch.tensor([-1, 2, -1, 0, -1, -1, 1, -1, -1, 1, -1, 0])  # row 9 opens a document: nothing is before it
    without = torch.randn(5, 4, dtype=torch.float64)
    loss, right = tasks(vectors, document, kind=kind, without=without, generator=torch.Generator().manual_seed(1))
    heads = tasks.heads
    generator = torch.Generator().manual_seed(1)
    pairs = [(i, i + 1) for i in range(11) if document[i] == document[i + 1]]
    keep = torch.rand(len(pairs), generator=generator) < 0.5
    order, correct = [], []
    for (i, j), stays in zip(pairs, keep.tolist(), strict=True):
        left, behind = (i, j) if stays else (j, i)
        p = torch.sigmoid(heads.order(vectors[None, left], vectors[None, behind]))[0]
        order.append(-(p if stays else 1 - p).log())
        correct.append(float((p > 0.5) == stays))
    from nearfar.negatives.discourse import next_sentences

    context, shown, place = next_sentences(document, generator=generator)
    following = []
    for rows, options, true in zip(context, shown, place, strict=True):
        scores = heads.next(vectors[None, rows], vectors[None, options])[0]
        following.append(-(scores[true].exp() / scores.exp().sum()).log())
    joining = []
    for row, stripped in ((1, 0), (3, 1), (6, 2), (11, 4)):
        scores = heads.conjunction(vectors[None, row - 1], without[None, stripped])[0]
        joining.append(-(scores[kind[row]].exp() / scores.exp().sum()).log())
    expected = sum(torch.stack(costs).mean() for costs in (order, following, joining))
    torch.testing.assert_close(loss, expected)
    assert float(right["order"]) == pytest.approx(np.mean(correct))
    assert set(right) == {"order", "next", "conjunction"}


def test_a_symmetric_comparator_tells_no_order() -> None:
    vectors, document = torch.randn(40, 4), torch.zeros(40, dtype=torch.long)
    assert DiscourseTasks(4, symmetric=True).order_accuracy(vectors, document) == 0.5
    assert DiscourseTasks(4).order_accuracy(vectors, document) != 0.5


def test_a_batch_without_a_task_costs_nothing() -> None:
    vectors = torch.randn(3, 4, requires_grad=True)
    loss, right = DiscourseTasks(4)(vectors, torch.arange(3))
    assert float(loss) == 0
    assert right == {}
    loss.backward()
    for tasks in ([], ["order", "words"]):
        with pytest.raises(UsageError, match="task"):
            DiscourseTasks(4, tasks=tasks)


def test_conjunctions_are_removed_before_they_are_asked_for(encoder: Any) -> None:
    examples = documents()
    method = DiscourseTraining(setting(encoder, "discsent", examples)).eval()
    kinds = {"However, ": "contrast", "Also ": "addition", "Then ": "time"}
    assert method.kinds.tolist() == [KINDS.index(kinds[OPENINGS[row % 4]]) if row % 4 < 3 else -1 for row in range(16)]
    seen: list[torch.Tensor] = []
    assert method.discourse.heads.joining is not None
    method.discourse.heads.joining.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    rows = list(range(8, 16))
    with torch.no_grad():
        _, logs = method(TextBatches(encoder, examples).batch(rows))
        plain = examples.column("text")
        expected = [plain[row].removeprefix(OPENINGS[row % 4]) for row in rows if row % 4 < 3 and row - 1 in rows]
        wanted = torch.from_numpy(encoders.encode(encoder, expected, normalize=False))
    torch.testing.assert_close(seen[0], wanted, atol=1e-5, rtol=1e-4)
    assert set(logs) == {"order right", "next right", "conjunction right"}


def test_tasks_that_the_data_do_not_give(encoder: Any) -> None:
    with pytest.warns(UserWarning, match="conjunction is not learned: no sentence opens"):
        method = DiscourseTraining(setting(encoder, "discsent", documents(conjunctions=False)))
    assert method.discourse.tasks == ("order", "next")
    with pytest.warns(UserWarning, match="no document has 4 sentences"):
        DiscourseTraining(setting(encoder, "discsent", documents((3, 3))))
    with (
        pytest.warns(UserWarning, match="next is not learned"),
        pytest.raises(DataError, match="nothing to learn from: no document has 4 sentences"),
    ):
        DiscourseTraining(setting(encoder, "discsent", documents((3, 3)), tasks="next"))
    with pytest.raises(UsageError, match="no task 'words'"):
        DiscourseTraining(setting(encoder, "discsent", documents(), tasks="order,words"))


def test_batches_are_running_text() -> None:
    examples = documents((6, 1, 9))
    plan = running_text(examples, {}, 8, seed=1).plan(0)
    assert sorted(np.concatenate(plan).tolist()) == list(range(16))
