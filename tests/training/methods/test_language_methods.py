"""DiffCSE, DenoSent, CLEAR and LM-SupCon on a user's texts: against the formulas by loops, and what they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar import encoders
from nearfar.data import Examples
from nearfar.encoders.discriminator import fill_in
from nearfar.encoders.inside import Inside
from nearfar.encoders.masked_language import MaskedLanguageHead, embedding_table, masked_language_loss
from nearfar.errors import DataError, ModelError, UsageError
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.method import Batch
from nearfar.training.methods.denoising import DenoSent
from nearfar.training.methods.edits import DiffCSE
from nearfar.training.methods.masked_language import Clear
from nearfar.training.methods.prompts import PromptedSupCon, label_words, templates_of
from nearfar.training.text_training import TextSetting
from nearfar.views.text.token_operations import SubstituteWords
from support.sentence_models import WORDS, bert, texts

SMALL = {"layers": 1, "hidden": 8}
LABELS = ["kab", "lod", "mif"]
VOCABULARY = [*WORDS, *LABELS, "It", "was", "so", "great", "bad", ".", ":", "[DEL]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("language") / "bert", words=VOCABULARY, masked_lm=True, length=60)


@pytest.fixture
def encoder(folder: Path) -> Any:
    return encoders.load(folder, device="cpu")


def setting(encoder: Any, folder: Path | None, recipe: str, examples: Examples, **given: Any) -> TextSetting:
    training = registry.find(recipe).training
    assert training is not None
    options = {**training.options, **given}
    return TextSetting(encoder, examples, options, 8, steps=4, steps_per_epoch=2, seed=3, source=folder)


def of_texts(count: int = 6) -> Examples:
    return Examples.from_columns({"text": texts(count)})


def of_pairs(count: int = 6) -> Examples:
    drawn = texts(2 * count)
    return Examples.from_columns({"anchor": drawn[:count], "positive": drawn[count:]})


def of_labels(count: int = 12) -> Examples:
    return Examples.from_columns({"text": texts(count), "label": [LABELS[i % 3] for i in range(count)]})


def batch_of(encoder: Any, examples: Examples) -> Batch:
    return TextBatches(encoder, examples).batch(list(range(len(examples))))


def nce(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    costs = []
    for i, q in enumerate(query):
        scores = torch.stack([torch.cosine_similarity(q, k, dim=0) for k in key]) / temperature
        costs.append(scores.logsumexp(0) - scores[i])
    return torch.stack(costs).mean()


def touched(module: nn.Module) -> set[str]:
    return {
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
    }


# -- DiffCSE ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fill": "sample", "places": "masked", "over": "tokens", "weight": 3.0}])
def test_diffcse_is_a_contrast_and_the_detection_of_replaced_words(
    encoder: Any, folder: Path, options: dict[str, Any]
) -> None:
    examples = of_texts()
    method = DiffCSE(setting(encoder, folder, "diffcse", examples, **options)).eval()
    batch = batch_of(encoder, examples)
    torch.manual_seed(5)
    loss, logs = method(batch)
    ids, there = batch["chunks"][0]["input_ids"], batch["chunks"][0]["attention_mask"].bool()
    inside = Inside(encoder)
    h = method.head(encoder(dict(batch["chunks"][0]))["sentence_embedding"])
    torch.manual_seed(5)
    edited = fill_in(
        ids,
        method.generator,
        inside.special,
        vocabulary=inside.vocabulary,
        mask=there,
        fill=options.get("fill", "argmax"),
        places=options.get("places", "every"),
    )
    costs = []
    for row in range(len(ids)):
        copied = Inside(method.discriminating_encoder)
        inputs = copied.embed(ids[row : row + 1] * 0 + edited.ids[row : row + 1]).clone()
        inputs[0, 0] = h[row]
        states = copied.states(edited.ids[row : row + 1], there[row : row + 1], inputs=inputs).hidden[0]
        for column in range(ids.shape[1]):
            if options.get("over") == "tokens" and not there[row, column]:
                continue
            logits = method.discriminator.head(states[column])
            costs.append(logits.logsumexp(0) - logits[int(edited.replaced[row, column])])
    expected = nce(h[:6], h[6:], 0.05) + options.get("weight", 0.005) * torch.stack(costs).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert float(logs["replaced"]) == pytest.approx(float(edited.replaced.sum() / there.sum()))
    assert edited.replaced.any()


def test_the_detection_teaches_the_encoder_and_not_the_generator(encoder: Any, folder: Path) -> None:
    examples = of_texts()
    method = DiffCSE(setting(encoder, folder, "diffcse", examples)).train()
    assert not method.generator.training
    assert not method.generator.model.training
    batch = batch_of(encoder, examples)
    _, logs = method(batch)
    ids, there = batch["chunks"][0]["input_ids"], batch["chunks"][0]["attention_mask"].bool()
    inside = Inside(encoder)
    h = method.head(inside.pool(inside.states(ids, there)))
    assert float(h.detach().mean(0).abs().max()) < 1e-5, "the head normalises over all rows of both views"
    method.discriminator(ids, h, there).square().sum().backward()
    found = touched(method)
    assert any(name.startswith("encoder.") for name in found)
    assert any(name.startswith("discriminating_encoder.") for name in found)
    assert not any(name.startswith("generator.") for name in found)
    assert float(logs["detection"]) > 0
    assert method.embeddings is not None
    assert method.embeddings.shape == (12, 16)


def test_diffcse_says_what_its_generator_lacks(encoder: Any, folder: Path, tmp_path: Path) -> None:
    examples = of_texts()
    bare = bert(tmp_path / "bare", words=VOCABULARY)
    with pytest.raises(ModelError, match="--set generator=DIR") as caught:
        DiffCSE(setting(encoder, bare, "diffcse", examples))
    assert "simcse" in str(caught.value)
    with pytest.raises(ModelError, match="no head that predicts masked tokens"):
        DiffCSE(setting(encoder, None, "diffcse", examples))
    with pytest.raises(ModelError, match="no head that predicts masked tokens"):
        DiffCSE(setting(encoder, folder, "diffcse", examples, generator=str(bare)))
    other = bert(tmp_path / "other", words=WORDS[:-1], masked_lm=True)
    with pytest.raises(ModelError, match="other tokens than the encoder"):
        DiffCSE(setting(encoder, folder, "diffcse", examples, generator=str(other)))
    short = bert(tmp_path / "short", words=VOCABULARY, masked_lm=True, length=12)
    with pytest.raises(UsageError, match="--max-length 12"):
        DiffCSE(setting(encoder, folder, "diffcse", examples, generator=str(short)))
    with pytest.raises(ModelError, match="there is no model"):
        DiffCSE(setting(encoder, folder, "diffcse", examples, generator=str(tmp_path / "nowhere")))
    for wrong in ({"weight": -1.0}, {"share": 1.5}):
        with pytest.raises(UsageError, match="diffcse is at least 0"):
            DiffCSE(setting(encoder, folder, "diffcse", examples, **wrong))
    deeper = bert(tmp_path / "deeper", words=VOCABULARY, masked_lm=True, layers=1, dimension=8, length=60)
    method = DiffCSE(setting(encoder, bare, "diffcse", examples, generator=str(deeper)))
    method(batch_of(encoder, examples))[0].backward()


# -- DenoSent ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", [of_texts(), of_pairs()], ids=["texts", "pairs"])
def test_denosent_is_a_contrast_and_a_restoration(encoder: Any, folder: Path, examples: Examples) -> None:
    method = DenoSent(setting(encoder, folder, "denosent", examples, **SMALL)).eval()
    batch = batch_of(encoder, examples)
    loss, logs = method(batch)
    chunk = batch["chunks"][0]
    vectors = method.head(encoder(dict(chunk))["sentence_embedding"])
    ids, there = chunk["input_ids"][6:], chunk["attention_mask"][6:].bool()
    assert method.decoder is not None
    assert method.language is not None
    costs, right = [], 0
    for row in range(6):
        own = ids[row : row + 1, : int(there[row].sum())]
        embedded = Inside(encoder).embed(own)
        restored = method.decoder(embedded, vectors[row : row + 1], torch.ones_like(own, dtype=torch.bool))[0]
        for place, token in enumerate(own[0]):
            logits = method.language(restored[place])
            costs.append(logits.logsumexp(0) - logits[token])
            right += int(logits.argmax() == token)
    contrast = nce(vectors[:6], vectors[6:], 0.05)
    torch.testing.assert_close(loss, 5 * contrast + 7 * torch.stack(costs).mean(), rtol=1e-5, atol=1e-5)
    assert float(logs["restored"]) == pytest.approx(right / len(costs))


def test_either_part_of_denosent_can_be_left_out(encoder: Any, folder: Path) -> None:
    examples = of_pairs()
    batch = batch_of(encoder, examples)
    contrast = DenoSent(setting(encoder, None, "denosent", examples, denoising_weight=0.0))
    assert contrast.decoder is None
    assert set(contrast(batch)[1]) == {"contrast"}
    denoising = DenoSent(setting(encoder, folder, "denosent", examples, contrast_weight=0.0, **SMALL))
    loss, logs = denoising(batch)
    assert set(logs) == {"restoration", "restored"}
    loss.backward()
    assert any(".attention." in name for name in touched(encoder)), "the vector carries the gradient to the encoder"
    for wrong in ({"contrast_weight": 0.0, "denoising_weight": 0.0}, {"contrast_weight": -1.0}):
        with pytest.raises(UsageError, match="not both 0"):
            DenoSent(setting(encoder, folder, "denosent", examples, **wrong))


@pytest.mark.parametrize(("recipe", "method"), [("denosent", DenoSent), ("clear", Clear)])
def test_without_a_masked_language_head_a_new_one_can_begin(
    encoder: Any, tmp_path: Path, recipe: str, method: Any
) -> None:
    examples = of_texts()
    bare = bert(tmp_path / "bare", words=VOCABULARY)
    more: dict[str, Any] = dict(SMALL) if recipe == "denosent" else {}
    for source in (bare, None):
        with pytest.raises(ModelError, match="--set new_head=true") as caught:
            method(setting(encoder, source, recipe, examples, **more))
        assert recipe in str(caught.value)
        assert "simcse" in str(caught.value)
    made = method(setting(encoder, bare, recipe, examples, new_head=True, **more))
    assert isinstance(made.language, MaskedLanguageHead)
    assert made.language.table is embedding_table(encoder)
    made(batch_of(encoder, examples))[0].backward()


# -- CLEAR ------------------------------------------------------------------------------------------------------------


def test_clear_contrasts_all_views_and_predicts_masked_words(encoder: Any, folder: Path) -> None:
    examples = of_texts()
    method = Clear(setting(encoder, folder, "clear", examples, operations="del-word+reorder", language_weight=2.0))
    method.eval()
    batch = batch_of(encoder, examples)
    torch.manual_seed(6)
    loss, _ = method(batch)
    ids = batch["chunks"][0]["input_ids"][:6]
    there = batch["chunks"][0]["attention_mask"][:6].bool()
    torch.manual_seed(6)
    inside = Inside(encoder)
    views = [operation(ids) for operation in method.operations]
    mark = encoder.tokenizer.get_vocab()["[DEL]"]
    assert (views[0] == mark).any()
    assert not (views[1] == mark).any()
    z = method.head(torch.cat([inside.pool(inside.states(view)) for view in views]))
    costs = []
    for i in range(12):
        scores = torch.stack([torch.cosine_similarity(z[i], z[j], dim=0) for j in range(12)]) / 0.1
        others = torch.tensor([j != i for j in range(12)])
        costs.append(scores[others].logsumexp(0) - scores[(i + 6) % 12])
    assert method.language is not None
    language = masked_language_loss(inside, method.language, ids, there)
    torch.testing.assert_close(loss, torch.stack(costs).mean() + 2 * language, rtol=1e-5, atol=1e-5)


def test_clear_without_the_masked_lm_needs_no_head(encoder: Any) -> None:
    examples = of_texts()
    method = Clear(setting(encoder, None, "clear", examples, operations="del-span", language_weight=0.0))
    loss, logs = method(batch_of(encoder, examples))
    assert logs == {}
    loss.backward()


def test_what_clear_marks_deleted_words_with(encoder: Any, folder: Path, tmp_path: Path) -> None:
    examples = of_texts()

    def mark(words: list[str], **options: Any) -> int | None:
        place = bert(tmp_path / f"{len(words)}", words=words)
        model = encoders.load(place, device="cpu")
        method = Clear(setting(model, None, "clear", examples, language_weight=0.0, **options))
        found: int | None = method.operations[0].mark  # type: ignore[attr-defined]
        return found

    assert mark([*WORDS, "[DEL]"]) == 5 + len(WORDS)
    assert mark([*WORDS, "[unused0]", "x"]) == 5 + len(WORDS)
    assert mark(WORDS) is None
    assert mark([*WORDS, "a", "b", "gone"], deleted="gone") == 5 + len(WORDS) + 2
    with pytest.raises(UsageError, match="masked words"):
        Clear(setting(encoder, folder, "clear", examples, deleted="[MASK]"))


def test_clear_substitutes_words_near_in_the_table_of_words_that_the_texts_have(encoder: Any, folder: Path) -> None:
    examples = of_texts()
    method = Clear(setting(encoder, folder, "clear", examples, operations="subs"))
    view = method.operations[0]
    assert isinstance(view, SubstituteWords)
    used = batch_of(encoder, examples)["chunks"][0]["input_ids"].unique()
    known = (view.similar >= 0).any(1).nonzero()[:, 0]
    assert set(known.tolist()) == set(used.tolist()) - {0, 1, 2, 3, 4}
    table = embedding_table(encoder).detach()
    for token in known[:4].tolist():
        cosine = torch.cosine_similarity(table[token], table, dim=1)
        cosine[[0, 1, 2, 3, 4, token]] = -2
        assert set(view.similar[token].tolist()) == set(cosine.topk(5).indices.tolist())
    with pytest.raises(UsageError, match="no operation 'swap'"):
        Clear(setting(encoder, folder, "clear", examples, operations="swap"))
    with pytest.raises(UsageError, match="3 operations"):
        Clear(setting(encoder, folder, "clear", examples, operations="subs+subs+subs"))
    with pytest.raises(UsageError, match="language_weight"):
        Clear(setting(encoder, folder, "clear", examples, language_weight=-1.0))


# -- LM-SupCon --------------------------------------------------------------------------------------------------------


def prompted(encoder: Any, folder: Path, examples: Examples, **options: Any) -> PromptedSupCon:
    usual = {"templates": "{text} It was {mask} .|{mask} : {text}"}
    return PromptedSupCon(setting(encoder, folder, "lm-supcon", examples, **{**usual, **options}))


def test_lm_supcon_without_demonstrations(encoder: Any, folder: Path) -> None:
    examples = of_labels()
    method = prompted(encoder, folder, examples, demonstrations=False, contrast_weight=2.0).eval()
    batch = batch_of(encoder, examples)
    torch.manual_seed(7)
    loss, logs = method(batch)
    torch.manual_seed(7)
    chosen = torch.randint(2, (12,))
    vocabulary = encoder.tokenizer.get_vocab()
    whole = encoders.load(folder, device="cpu")[0].auto_model
    from transformers import BertForMaskedLM

    language = BertForMaskedLM.from_pretrained(folder).eval()
    vectors: list[Tensor] = []
    costs = []
    labels = examples.labels()[0].tolist()
    names = examples.labels()[1]
    right = 0
    for view in (torch.zeros(12, dtype=torch.long), chosen):
        for row in range(12):
            text = examples[row]["text"].split()
            words = [*text, "It", "was", "[MASK]", "."] if view[row] == 0 else ["[MASK]", ":", *text]
            ids = torch.tensor([[2, *(vocabulary[word] for word in words), 3]])
            place = 1 + words.index("[MASK]")
            vectors.append(whole(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, place])
            if len(costs) < 12:
                logits = language(ids).logits[0, place][[vocabulary[name] for name in names]]
                costs.append(logits.logsumexp(0) - logits[labels[row]])
                right += int(logits.argmax() == labels[row])
    z = F.normalize(torch.stack([torch.tanh(method.head.dense(vector)) for vector in vectors]), dim=1)
    supcon = []
    for i in range(24):
        scores = z[i] @ z.T / 0.07
        others = torch.tensor([j != i for j in range(24)])
        near = [j for j in range(24) if j != i and labels[j % 12] == labels[i % 12]]
        supcon.append((scores[others].logsumexp(0) - scores[near]).mean())
    expected = torch.stack(costs).mean() + 2 * torch.stack(supcon).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    assert float(logs["labels told"]) == pytest.approx(right / 12)


def test_demonstrations_are_other_texts_of_each_label_with_its_word(encoder: Any, folder: Path) -> None:
    examples = of_labels()
    method = prompted(encoder, folder, examples)
    batch = batch_of(encoder, examples)
    ids, there = method._content(batch["chunks"][0])
    words = encoder.tokenizer.get_vocab()
    word_of = {number: word for word, number in words.items()}
    known = {tuple(examples[row]["text"].split()): row for row in range(12)}
    seen = set()
    for _ in range(20):
        found = method._prompts(ids, there, batch["rows"], vary=True)
        for row in range(12):
            tokens = [word_of[token] for token in found.ids[row][found.mask[row]].tolist()]
            assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
            inner = tokens[1:-1]
            if inner[0] == "[MASK]":
                parts = " ".join(inner).replace(" : ", ":").split()
                starts = [place for place, part in enumerate(parts) if ":" in part]
                pieces = [parts[a:b] for a, b in zip(starts, [*starts[1:], len(parts)], strict=True)]
                answers = [piece[0].split(":")[0] for piece in pieces]
                shown = [[piece[0].split(":")[1], *piece[1:]] for piece in pieces]
            else:
                ends = [place for place, token in enumerate(inner) if token == "."]
                starts = [0, *(end + 1 for end in ends[:-1])]
                shown = [inner[a : b - 3] for a, b in zip(starts, ends, strict=True)]
                answers = [inner[end - 1] for end in ends]
            assert answers == ["[MASK]", *examples.labels()[1]]
            rows = [known[tuple(text)] for text in shown]
            assert rows[0] == row
            assert row not in rows[1:]
            assert [examples[each]["label"] for each in rows[1:]] == examples.labels()[1]
            seen.add((row, *rows[1:]))
            assert tokens[int(found.answer[row])] == "[MASK]"
    assert len(seen) > 100, "demonstrations are drawn anew"
    loss, _ = method.train()(batch)
    loss.backward()


def test_the_contrast_of_lm_supcon_leaves_the_language_head_alone(encoder: Any, folder: Path) -> None:
    examples = of_labels()
    method = prompted(encoder, folder, examples, steps="alternate").eval()
    batch = batch_of(encoder, examples)
    own = {name for name, _ in method.named_parameters() if name.startswith("language.")}
    assert own
    contrast, logs = method(batch)
    torch.testing.assert_close(contrast.detach(), logs["contrast"])
    contrast.backward()
    found = touched(method)
    assert any(name.startswith("encoder.") for name in found)
    assert any(name.startswith("head.") for name in found)
    assert not found & own
    method.zero_grad()
    method.after_step(1)
    answers, logs = method(batch)
    torch.testing.assert_close(answers.detach(), logs["label words"])
    answers.backward()
    assert touched(method) & own
    assert not any(name.startswith("head.") for name in touched(method))
    method.after_step(2)
    torch.testing.assert_close(method(batch)[1]["contrast"].detach(), method(batch)[1]["contrast"], atol=5, rtol=5)
    assert int(method.state_dict()["turn"]) == 2


def test_label_words(encoder: Any) -> None:
    vocabulary = encoder.tokenizer.get_vocab()
    found = label_words(encoder, ["good", "kab"], "good = great")
    assert found.tolist() == [vocabulary["great"], vocabulary["kab"]]
    with pytest.raises(DataError, match="'good' is to be told by the word 'good', which is no token"):
        label_words(encoder, ["good", "kab"])
    with pytest.raises(DataError, match="no token"):
        label_words(encoder, ["kab"], "kab=so great")
    with pytest.raises(DataError, match="two labels"):
        label_words(encoder, ["kab", "lod"], "kab=great, lod=great")
    for wrong in ("good", "nobody=great", "kab="):
        with pytest.raises(UsageError, match="gives no word"):
            label_words(encoder, ["kab"], wrong)


def test_templates_and_prompts_that_cannot_be_used(encoder: Any, folder: Path) -> None:
    vocabulary = encoder.tokenizer.get_vocab()
    found = templates_of(encoder, "{text} It was {mask}.|{mask}: {text}")
    assert found[0].pieces == ("text", vocabulary["It"], vocabulary["was"], "answer", vocabulary["."])
    assert found[1].pieces == ("answer", vocabulary[":"], "text")
    with pytest.raises(UsageError, match="no template"):
        templates_of(encoder, " | ")
    with pytest.raises(UsageError, match="unlike 'It was'"):
        templates_of(encoder, "It was")
    examples = of_labels()
    with pytest.raises(UsageError, match="'sum' or 'alternate'"):
        prompted(encoder, folder, examples, steps="both")
    with pytest.raises(UsageError, match="contrast_weight"):
        prompted(encoder, folder, examples, contrast_weight=-0.1)
    encoder.max_seq_length = 30
    with pytest.raises(UsageError, match="4 texts leaves 3 of 30 tokens") as caught:
        prompted(encoder, folder, examples)
    assert "demonstrations=false" in str(caught.value)
    assert prompted(encoder, folder, examples, demonstrations=False).room == 24
    with pytest.raises(ModelError, match="lm-supcon needs a head"):
        PromptedSupCon(setting(encoder, None, "lm-supcon", examples, demonstrations=False))
