"""CLAIF and CLHAIF on a user's data: against the formulas by loops, the judge that stays as it is, runs end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar import encoders, training
from nearfar.data import Examples
from nearfar.encoders.judge import EncoderJudge
from nearfar.errors import DataError, UsageError
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.methods.feedback import JudgedContrast, JudgedRegression
from nearfar.training.text_training import TextSetting
from support.loops import cosine
from support.sentence_models import bert, texts

DRAWN = texts(60)
SCORED = Examples.from_columns(
    {"sentence1": DRAWN[:12], "sentence2": DRAWN[12:24], "score": [round(x, 2) for x in np.linspace(0, 1, 12)]}
)
TEXTS = Examples.from_columns({"text": DRAWN[:24]})
TRIPLES = Examples.from_columns({"anchor": DRAWN[:12], "positive": DRAWN[12:24], "negative": DRAWN[24:36]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("feedback") / "bert")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("feedback") / "judge", seed=5)


def setting(folder: Path, recipe: str, examples: Examples, **given: Any) -> TextSetting:
    how = registry.find(recipe).training
    assert how is not None
    encoder = encoders.load(folder, device="cpu")
    return TextSetting(encoder, examples, {**how.options, **given}, batch_size=12, steps=4, steps_per_epoch=2)


def batch_of(method: Any, examples: Examples) -> Any:
    return TextBatches(method.encoder, examples).batch(np.arange(len(examples)))


def test_the_judge(judge: Path) -> None:
    made = EncoderJudge(encoders.load(judge, device="cpu")).train()
    assert not any(module.training for module in made.modules())
    assert not any(value.requires_grad for value in made.parameters())
    embedded = encoders.encode(made.model, [*DRAWN[:3], *DRAWN[3:6]])
    expected = [max(0.0, float(embedded[place] @ embedded[place + 3])) for place in range(3)]
    assert made(DRAWN[:3], DRAWN[3:6]).tolist() == pytest.approx(expected, abs=1e-6)
    assert made(DRAWN[:2], DRAWN[:2]).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert made([], []).shape == (0,)
    with pytest.raises(DataError, match="2 and 1 texts"):
        made(DRAWN[:2], DRAWN[:1])


@pytest.mark.parametrize("smooth", [False, True])
def test_scored_pairs_by_loops(folder: Path, smooth: bool) -> None:
    method = JudgedRegression(setting(folder, "claif", SCORED, smooth=smooth)).eval()
    assert method.judge is None  # scores are there
    loss, _ = method(batch_of(method, SCORED))
    one, other = (
        torch.from_numpy(encoders.encode(method.encoder, SCORED.column(name))) for name in ("sentence1", "sentence2")
    )
    costs = [
        (cosine(a, b) - (0.8 * y + 0.1 if smooth else y)) ** 2
        for a, b, y in zip(one, other, SCORED.column("score"), strict=True)
    ]
    assert loss.item() == pytest.approx((sum(costs) / 12).item(), abs=1e-6)


def test_texts_alone_are_judged_without_some_of_their_words(folder: Path, judge: Path, monkeypatch: Any) -> None:
    method = JudgedRegression(setting(folder, "claif", TEXTS, judge=str(judge))).train()
    assert not method.judge.model.training
    asked: list[tuple[list[str], list[str]]] = []
    plain = EncoderJudge.forward
    monkeypatch.setattr(
        EncoderJudge, "forward", lambda self, one, other: asked.append((one, other)) or plain(self, one, other)
    )
    batch, others = batch_of(method, TEXTS), 0
    torch.manual_seed(0)
    for _ in range(20):
        loss, logs = method(batch)
        assert torch.isfinite(loss)
        assert 0 <= logs["score"] <= 1
        one, other = asked.pop()
        assert one == DRAWN[:24]
        for text, partner in zip(one, other, strict=True):
            if not set(partner.split()) <= set(text.split()):
                assert partner in DRAWN[:24]
                others += 1
    assert 0.12 < others / 480 < 0.25  # 2 of 11
    torch.manual_seed(1)
    one_loss = method(batch)[0]
    torch.manual_seed(1)
    assert torch.equal(one_loss, method(batch)[0])


def test_a_text_of_one_word_teaches_nothing(folder: Path, judge: Path) -> None:
    single = Examples.from_columns({"text": ["kab"]})
    method = JudgedRegression(setting(folder, "claif", single, judge=str(judge))).train()
    loss, _ = method(batch_of(method, single))
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("form", ["smooth-positive", "smooth-all"])
def test_clhaif_by_loops(folder: Path, judge: Path, form: str) -> None:
    method = JudgedContrast(setting(folder, "clhaif", TRIPLES, judge=str(judge), form=form, temperature=0.3)).eval()
    loss, logs = method(batch_of(method, TRIPLES))
    columns = [torch.from_numpy(encoders.encode(method.encoder, TRIPLES.column(name))) for name in TRIPLES.text_columns]
    grade = method.judge(TRIPLES.column("anchor"), TRIPLES.column("positive"))
    keys, costs = torch.cat(columns[1:]), []
    for i in range(12):
        scores = torch.stack([cosine(columns[0][i], key) / 0.3 for key in keys])
        log_share = scores - scores.logsumexp(0)
        target = torch.zeros(24) if form == "smooth-positive" else torch.full((24,), float((1 - grade[i]) / 23))
        target[i] = grade[i]
        costs.append(-(target * log_share).sum())
    assert loss.item() == pytest.approx((sum(costs) / 12).item(), rel=1e-4)
    assert logs["score"].item() == pytest.approx(grade.mean().item())


def test_what_the_data_lack(folder: Path) -> None:
    wide = Examples.from_columns({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [0.0, 5.0]})
    with pytest.raises(DataError, match="from 0 to 5"):
        JudgedRegression(setting(folder, "claif", wide))
    for recipe, examples, method in (("claif", TEXTS, JudgedRegression), ("clhaif", TRIPLES, JudgedContrast)):
        with pytest.raises(UsageError, match="no judge was named"):
            method(setting(folder, recipe, examples, judge=""))


@pytest.mark.parametrize(
    ("recipe", "examples", "judged"),
    [("claif", SCORED, False), ("claif", TEXTS, True), ("clhaif", TRIPLES, True)],
    ids=["claif scored", "claif texts", "clhaif"],
)
def test_runs(folder: Path, judge: Path, tmp_path: Path, recipe: str, examples: Examples, judged: bool) -> None:
    settings = training.TrainingSettings(
        recipe=recipe, encoder=str(folder), steps=2, batch_size=6, output=str(tmp_path / "run"), device="cpu",
        learning_rate=1e-3, parameters={"judge": str(judge)} if judged else {}, general_check=False,
    )  # fmt: skip
    before = encoders.encode(encoders.load(judge, device="cpu"), ["kab kad"])
    run = training.train(settings, examples=examples)
    assert run.steps == 2
    saved = encoders.load(tmp_path / "run" / "model", device="cpu")
    np.testing.assert_allclose(encoders.encode(saved, ["kab kad"]), encoders.encode(run.encoder, ["kab kad"]))
    np.testing.assert_array_equal(before, encoders.encode(encoders.load(judge, device="cpu"), ["kab kad"]))
