"""Texts against labels: which words are drawn, what they cost, and what the exported encoder ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from nearfar import encoders, training
from nearfar.data import Examples
from nearfar.encoders.matching import CosineMatcher, Matcher
from nearfar.errors import DataError, UsageError
from nearfar.negatives.label_words import label_words
from nearfar.training import TrainingSettings
from nearfar.training.loading import TextBatches
from nearfar.training.methods.text_labels import OPTIONS, TextLabels
from nearfar.training.text_training import TextSetting
from support import sentence_models

pytestmark = pytest.mark.filterwarnings("ignore:.*narrow cone")
WORDS = sentence_models.WORDS


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_words_are_taken_out_and_others_are_not_of_the_text() -> None:
    ids = torch.tensor([[5, 6, 7, 8, 0], [9, 9, 10, 0, 0], [11, 0, 0, 0, 0], [0] * 5, [12, 13, 0, 0, 0]])
    corpus = torch.tensor([5, 9, 9, 9, 20, 21])
    for seed in range(50):
        found = label_words(ids, corpus, positives=3, negatives=6, generator=generator(seed))
        assert found.there[:, :3].sum(1).tolist() == [3, 2, 0, 0, 1]
        for row, (old, rest) in enumerate(zip(ids.tolist(), found.rest.tolist(), strict=True)):
            own = [w for w, t in zip(found.words[row, :3].tolist(), found.there[row, :3].tolist(), strict=True) if t]
            assert sorted(own + [word for word in rest if word]) == sorted(word for word in old if word)
        assert torch.equal(found.target, torch.tensor([[1.0] * 3 + [0.0] * 6] * 5))
        kept = found.there[:, 3:]
        assert torch.equal(kept, ~(found.words[:, 3:, None] == ids[:, None]).any(2))
        assert set(found.words[:, 3:].flatten().tolist()) <= set(corpus.tolist())
    many = label_words(torch.tensor([[30, 31]]), corpus, positives=1, negatives=6000, generator=generator())
    share = (many.words[0, 1:] == 9).double().mean()
    assert abs(float(share) - 0.5) < 0.03, "negatives come as often as they are used"
    assert label_words(ids, corpus, negatives=3, exclude_own=False).there[:, 3:].all()
    assert label_words(ids, corpus[:0], negatives=0).words.shape == (5, 3)
    for wrong in ({"positives": 0}, {"negatives": -1}):
        with pytest.raises(UsageError):
            label_words(ids, corpus, **wrong)
    with pytest.raises(UsageError, match="no words"):
        label_words(ids, corpus[:0])


def test_matchers_broadcast() -> None:
    x, label = torch.randn(4, 1, 8, generator=generator()), torch.randn(3, 8, generator=generator(1))
    matcher = Matcher(8)
    both = matcher(x, label)
    assert both.shape == (4, 3)
    pair = torch.cat([x[2, 0], label[1], x[2, 0] * label[1]])
    torch.testing.assert_close(both[2, 1], matcher.perceptron(pair)[0])
    cosine = CosineMatcher(scale=4.0, bias=-1.0)(x, label)
    torch.testing.assert_close(cosine, 4 * torch.cosine_similarity(x, label[None], dim=2) - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_models.bert(tmp_path_factory.mktemp("labels") / "bert", dropout=0.0)


def method_for(folder: Path, examples: Examples, **given: Any) -> TextLabels:
    encoder = encoders.load(folder, device="cpu")
    return TextLabels(TextSetting(encoder, examples, {**OPTIONS, **given}, 8, 10, 5)).train()


def embedded(method: TextLabels, texts: list[str]) -> torch.Tensor:
    found: torch.Tensor = method.encoder(encoders.tokenize(method.encoder, texts))["sentence_embedding"]
    return found


@pytest.mark.parametrize("matcher", ["cosine", "mlp"])
def test_the_loss_is_that_of_the_formula(folder: Path, matcher: str) -> None:
    said = [f"{WORDS[0]}, {WORDS[1]} !  {WORDS[2]}", f"{WORDS[3]} {WORDS[4]}.", WORDS[5], f"{WORDS[6]} {WORDS[7]}"]
    method = method_for(folder, Examples.from_columns({"text": said}), matcher=matcher, positives=2, negatives=4)
    batch = TextBatches(method.encoder, method.examples).batch(range(4))
    torch.manual_seed(1)
    loss, _ = method(batch)
    torch.manual_seed(1)
    drawn = torch.get_rng_state()
    ids = torch.zeros(4, 4, dtype=torch.int64)
    for row, text in enumerate(said):
        numbers = [method.number[part.strip(",.!")] for part in text.split()]
        ids[row, : len(numbers)] = torch.tensor(numbers)
    torch.set_rng_state(drawn)
    chosen = label_words(ids, method.corpus, positives=2, negatives=4)
    costs = []
    for row, text in enumerate(said):
        own = zip(chosen.words[row, :2].tolist(), chosen.there[row, :2].tolist(), strict=True)
        gone = {method.words[word] for word, there in own if there}
        rest = " ".join(part for part in text.split() if part.strip(",.!") not in gone)
        x = embedded(method, [rest])[0]
        for word, there, target in zip(chosen.words[row], chosen.there[row], chosen.target[row], strict=True):
            if there:
                logit = float(method.matcher(x, embedded(method, [method.words[int(word)]])[0]).detach())
                p = 1 / (1 + math.exp(-logit))
                costs.append(-math.log(p if target else 1 - p))
    assert float(loss.detach()) == pytest.approx(sum(costs) / len(costs), abs=1e-5)


def test_names_of_classes_are_labels(folder: Path) -> None:
    texts = sentence_models.texts(12)
    names = [WORDS[20], WORDS[21], WORDS[22]]
    examples = Examples.from_columns({"text": texts, "label": [names[row % 3] for row in range(12)]})
    method = method_for(folder, examples)
    batch = TextBatches(method.encoder, examples).batch([0, 1, 3])
    loss, _ = method(batch)
    x, label = embedded(method, [texts[0], texts[1], texts[3]]), embedded(method, names)
    logit = method.matcher(x[:, None], label[None])
    target = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)


def test_cached_chunks_cost_the_same(folder: Path) -> None:
    examples = Examples.from_columns({"text": sentence_models.texts(12)})
    losses = []
    for size in (None, 5):
        method = method_for(folder, examples, matcher="cosine")
        method.chunk_size = size
        torch.manual_seed(0)
        loss, _ = method(TextBatches(method.encoder, examples).batch(range(12)))
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_what_cannot_be_is_refused(folder: Path) -> None:
    texts = Examples.from_columns({"text": sentence_models.texts(4)})
    for given in ({"positives": 0}, {"negatives": 0}, {"matcher": "dot"}):
        with pytest.raises(UsageError):
            method_for(folder, texts, **given)
    with pytest.raises(DataError, match="fewer than two"):
        method_for(folder, Examples.from_columns({"text": ["one", "one!"]}))
    with pytest.raises(DataError, match="labels are the same"):
        method_for(folder, Examples.from_columns({"text": ["a b", "c d"], "label": ["x", "x"]}))


def test_a_run_exports_an_encoder_that_finds_words_of_a_text(tmp_path: Path, folder: Path) -> None:
    groups = [WORDS[start : start + 8] for start in range(0, 32, 8)]
    texts = [
        text for number, words in enumerate(groups) for text in sentence_models.texts(40, words=words, seed=number)
    ]
    chosen = TrainingSettings(
        output=str(tmp_path / "run"), encoder=str(folder), recipe="nlp-contrast-primer", batch_size=16, epochs=4,
        learning_rate=3e-3, general_check=False, device="cpu",
    )  # fmt: skip
    run = training.train(chosen, examples=Examples.from_columns({"text": texts}))
    model = SentenceTransformer(str(run.folder / "model"), device="cpu")
    assert not any("matcher" in name for name in model.state_dict())

    def right(model: SentenceTransformer) -> float:
        x = model.encode(texts, convert_to_tensor=True)
        names = model.encode([words[0] for words in groups], convert_to_tensor=True)
        found = torch.cosine_similarity(x[:, None], names[None], dim=2).argmax(1)
        return float((found == torch.arange(4).repeat_interleave(40)).float().mean())

    assert right(model) > right(SentenceTransformer(str(folder), device="cpu")) + 0.2
