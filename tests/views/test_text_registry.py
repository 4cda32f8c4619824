"""Text views by name: the catalogue is complete and wired, the command line shows and applies it."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from nearfar.cli import commands  # noqa: F401  registers the commands
from nearfar.cli.app import app
from nearfar.errors import UsageError
from nearfar.views import text
from nearfar.views.text.catalogue import CATALOGUE, ELSEWHERE, LEVELS
from nearfar.views.text.preview import all_of, preview
from nearfar.views.text.registry import RESOURCES, table, value_of
from nearfar.views.text.sides import Side
from support import sentence_models

DOCS = Path(__file__).parents[2] / "docs" / "text-views.md"
SAID = "She did not see 3 foxes near Paris, but Anna did see them. They ran. Nobody else was there. It rained."

RESOURCE: dict[str, Any] = {
    "thesaurus": {"see": ["watch", "spot"], "ran": ["fled"]},
    "antonyms": {"near": ["far", "distant"]},
    "texts": [SAID, "She saw foxes"],
    "model": lambda texts: [f"so {text}" for text in texts],
    "there": lambda texts: texts,
    "back": lambda texts: [f"so {text}" for text in texts],
    "parse": lambda said: (said.split(), [-1] + [0] * (len(said.split()) - 1)),
}

on_strings = [entry for entry in CATALOGUE if entry.level in ("words", "characters", "passages", "models")]


def made(entry: text.Entry) -> Any:
    return text.get(entry.name, **{need: RESOURCE[need] for need in entry.needs})


def test_every_number_of_the_review_is_somewhere() -> None:
    found = {number for entry in CATALOGUE for number in entry.numbers} | set(ELSEWHERE)
    assert found == set(range(1, 40))
    assert len(set(text.names())) == len(CATALOGUE)
    assert {entry.level for entry in CATALOGUE} == set(LEVELS)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_entries_are_wired(entry: text.Entry) -> None:
    assert text.find(entry.name.upper().replace("-", "_")) is entry
    assert inspect.getdoc(entry.make)
    assert not entry.strength or entry.strength in entry.arguments
    assert set(entry.needs) <= set(RESOURCES)
    assert set(entry.preset) <= set(inspect.signature(entry.make).parameters)
    assert entry.rule
    assert entry.source


@pytest.mark.parametrize("entry", on_strings, ids=lambda entry: entry.name)
def test_two_views_differ_and_the_generator_decides(entry: text.Entry) -> None:
    names = ("Bo", "Cy", "Di", "Ed", "Flo", "Guy", "Hal", "Ida")
    view, texts = made(entry), [f"{SAID} Then came {name}." for name in names]
    drawn = torch.Generator().manual_seed(0)
    first, second = view(texts, drawn), view(texts, drawn)
    assert first == view(texts, torch.Generator().manual_seed(0))
    rewritten = entry.level == "models" and entry.name not in ("tree-crop", "tree-rotation", "branch-deletion")
    if entry.random and not rewritten:
        assert first != second, "a transformation that is applied once serves as both views"
    else:
        assert first == second
    if entry.gives == "both views":
        assert isinstance(view, text.TextPairs)
        return
    assert (first == texts) == (entry.name == "identity"), "it changes nothing"
    assert view(["", " "]) == ["", " "]


def test_strengths_and_options() -> None:
    assert text.get("deletion", 0.3).rate == 0.3
    assert text.get("deletion", rate=0.3).rate == 0.3
    assert text.get("keyboard", 0.2).kind == "keyboard"
    assert text.get("crop", (0.2, 0.4)).share == (0.2, 0.4)
    for wrong, said in (
        (lambda: text.get("delition"), "deletion"),
        (lambda: text.get("negation", 0.3), "how much"),
        (lambda: text.get("deletion", share=0.3), "no option 'share'"),
        (lambda: text.get("keyboard", kind="ocr"), "no option 'kind'"),
        (lambda: text.get("synonym"), "needs thesaurus"),
        (lambda: text.get("deletion", 2.0), "rate"),
    ):
        with pytest.raises(UsageError) as caught:
            wrong()
        assert said in f"{caught.value.message} {caught.value.hint}"


def test_views_as_they_are_written() -> None:
    found = text.parse("crop:0.5..0.9+keyboard:0.02,p=0.5+negation")
    assert [(entry.name, options) for entry, options in found] == [
        ("crop", {"share": (0.5, 0.9)}),
        ("keyboard", {"rate": 0.02, "p": 0.5}),
        ("negation", {}),
    ]
    values = {
        "3": 3,
        "0.5": 0.5,
        "1..2": (1, 2),
        "true": True,
        "none": None,
        "a b": "a b",
        "nan": "nan",
        "x..y": "x..y",
    }
    assert {written: value_of(written) for written in values} == values
    for wrong in ("", "crop:0.5+", "negation:1", "crop,share", "crop,size=1", "nothing"):
        with pytest.raises(UsageError):
            text.parse(wrong)


def test_a_side_puts_strings_first() -> None:
    side = Side("feature-cutoff+deletion:0.5+dropout:0.3+embedding-dropout")
    assert len(side.latent) == len(side.dropouts) == len(side.pooled) == 1
    assert side.inside
    assert side.said(["a b c d e f"], [3]) == Side("deletion:0.5").said(["a b c d e f"], [3])
    assert Side("").written == "identity"
    with pytest.raises(UsageError, match="both views"):
        Side("inverse-cloze")
    with pytest.raises(UsageError, match="one view"):
        Side("deletion", pairs=True)
    with pytest.raises(UsageError, match="needs special"):
        Side("token-shuffle")


def test_the_page_holds_the_catalogue() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), "docs/text-views.md holds another table than the registry"


def test_the_example_of_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], str(DOCS), "exec"), {})


# -- a look at them ---------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["views", *arguments])


def test_the_command_lists_and_shows() -> None:
    listed = run("--json")
    assert [each["name"] for each in json.loads(listed.output)] == text.names()
    assert [each["name"] for each in json.loads(run("--json", "--level", "latent").output)] == text.names("latent")
    assert "token-cutoff" in run().output
    page = run("synonym")
    assert "EDA" in page.output
    assert "thesaurus" in page.output
    assert isinstance(run("nothing").exception, UsageError)
    assert isinstance(run("--level", "nothing").exception, UsageError)
    assert isinstance(run("synonym", "--set", "p=0.2").exception, UsageError)


def test_the_command_applies_views(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("see: watch\n", encoding="utf-8")
    arguments = ("synonym", "--apply", "I see you", "--set", f"thesaurus={tmp_path / 't.txt'}", "--set", "share=0.3")
    assert run(*arguments, "--count", "1").output == "I watch you\n"
    seen = json.loads(run("deletion:0.5", "--apply", SAID, "--count", "3", "--json").output)["views"]
    assert len(seen) == 3
    assert len(set(seen)) == 3
    assert seen == json.loads(run("deletion:0.5", "--apply", SAID, "--count", "3", "--json").output)["views"]
    other = run("deletion:0.5", "--apply", SAID, "--count", "3", "--json", "--seed", "1")
    assert seen != json.loads(other.output)["views"]
    every = json.loads(run("--apply", SAID, "--json").output)["views"]
    assert set(every) == {entry.name for entry in on_strings if not entry.needs}
    assert len(every["inverse-cloze"]) == 2
    for wrong in (("synonym", "--apply", "x"), ("noise", "--apply", "x"), ("crop", "--apply", "x", "--set", "size=2")):
        assert isinstance(run(*wrong).exception, UsageError)


def test_tokens_are_shown_by_an_encoder(tmp_path: Path) -> None:
    bert = sentence_models.bert(tmp_path / "bert", masked_lm=True)
    said = sentence_models.texts(1, least=6, most=6)[0]
    seen = preview("token-shuffle", said, encoder=str(bert), count=5)
    assert all(sorted(each.split()) == sorted(f"[CLS] {said} [SEP]".split()) for each in seen)
    assert len(set(seen)) > 1
    assert "[MASK]" in preview("token-mask:0.9", said, encoder=str(bert))[0]
    assert preview("token-substitution:0.5", said, encoder=str(bert))[0] != f"[CLS] {said} [SEP]"
    with pytest.raises(UsageError, match="needs special"):
        preview("token-shuffle", said)
    assert dict(all_of(on_strings, said))["identity"] == said


def test_a_thesaurus_of_an_encoder_s_words(tmp_path: Path) -> None:
    from nearfar import encoders

    bert = encoders.load(sentence_models.bert(tmp_path / "bert"), device="cpu")
    found = text.Thesaurus.of_encoder(bert, count=3, least=-1.0)
    assert len(found) == len(sentence_models.WORDS)
    table_of = bert[0].auto_model.get_input_embeddings().weight.detach()
    vocabulary = bert.tokenizer.get_vocab()
    word = sentence_models.WORDS[0]
    scores = {
        other: float(torch.cosine_similarity(table_of[vocabulary[word]], table_of[vocabulary[other]], dim=0))
        for other in sentence_models.WORDS[1:]
    }
    assert found(word) == tuple(sorted(scores, key=lambda other: -scores[other])[:3])
