"""Which columns are recognised, which are refused, and what the user is told to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearfar import data
from nearfar.data.columns import parse_columns, recognise
from nearfar.errors import DataError, UsageError

KNOWN = [
    ("anchor positive", "pairs", "anchor positive", ""),
    ("positive anchor", "pairs", "anchor positive", ""),
    ("anchor positive negative", "pairs", "anchor positive negative", ""),
    ("anchor positive negative_1 negative_2", "pairs", "anchor positive negative_1 negative_2", ""),
    ("negative_10 anchor negative_2 positive", "pairs", "anchor positive negative_2 negative_10", ""),
    ("anchor positive negative negative_2", "pairs", "anchor positive negative negative_2", ""),
    ("Anchor Positive", "pairs", "Anchor Positive", ""),
    ("query positive negative", "pairs", "query positive negative", ""),
    ("query document", "pairs", "query document", ""),
    ("query document negative", "pairs", "query document negative", ""),
    ("query passage", "pairs", "query passage", ""),
    ("query answer", "pairs", "query answer", ""),
    ("question answer", "pairs", "question answer", ""),
    ("query_id question url answer title", "pairs", "question answer", "query_id url title"),
    ("anchor positive score whatever", "pairs", "anchor positive", "score whatever"),
    ("sentence1 sentence2", "pairs", "sentence1 sentence2", ""),
    ("sentence1 sentence2 score", "scored pairs", "sentence1 sentence2 score", ""),
    ("score sentence2 sentence1 idx", "scored pairs", "sentence1 sentence2 score", "idx"),
    ("sentence1 sentence2 label", "scored pairs", "sentence1 sentence2 label", ""),
    ("sentence1 sentence2 similarity_score genre", "scored pairs", "sentence1 sentence2 similarity_score", "genre"),
    ("query document label", "scored pairs", "query document label", ""),
    ("text label", "labelled texts", "text label", ""),
    ("label title text", "labelled texts", "text label", "title"),
    ("text", "texts", "text", ""),
    ("year president text", "texts", "text", "year president"),
]


@pytest.mark.parametrize(("names", "shape", "used", "ignored"), KNOWN)
def test_known_names(names: str, shape: str, used: str, ignored: str) -> None:
    layout = recognise(names.split(), "x.csv")
    assert layout.shape == shape
    assert list(layout.columns.values()) == used.split()
    assert list(layout.ignored) == ignored.split()
    wanted = {
        "pairs": ["anchor", "positive", *(f"negative_{k}" for k in range(1, len(used.split()) - 1))],
        "scored pairs": ["sentence1", "sentence2", "score"],
        "labelled texts": ["text", "label"],
        "texts": ["text"],
    }
    assert list(layout.columns) == wanted[shape]


UNCLEAR = [
    ("sentence1 sentence2 paraphrase", "not clear what 'paraphrase'", "--columns sentence1,sentence2,score=paraphrase"),
    ("sentence1 sentence2 score_0_5", "not clear what 'score_0_5'", "--columns anchor=sentence1,positive=sentence2"),
    (
        "query document relevance",
        "not clear what 'relevance'",
        "--columns sentence1=query,sentence2=document,score=relevance",
    ),
    ("sentence1 sentence2 score label", "not clear what", "score"),
    ("text label_0_4", "not clear whether 'label_0_4' labels", "--columns text,label=label_0_4"),
    ("text labels label", "not clear whether", "--columns text,label="),
    ("anchor query positive", "more than one way", "--columns anchor,positive or --columns anchor=query,positive"),
    ("query document answer", "more than one way", "--columns anchor=query,positive=answer"),
    ("query document text", "more than one way", "--columns text"),
    ("text Text", "differ in nothing but case", "--columns"),
]


@pytest.mark.parametrize(("names", "message", "hint"), UNCLEAR)
def test_what_could_mean_two_things_is_refused(names: str, message: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        recognise(names.split(), "x.csv")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.where == "x.csv"


UNKNOWN = [
    ("en de fr", "--columns anchor=en,positive=de"),
    ("id summary code", "--columns anchor=summary,positive=code"),
    ("anchor entailment contradiction", "--columns anchor,positive=entailment,negative=contradiction"),
    ("prompt chosen rejected", "--columns anchor=prompt,positive=chosen,negative=rejected"),
    ("query pos neg", "--columns query,positive=pos,negative=neg"),
    ("word1 word2 score", "--columns sentence1=word1,sentence2=word2,score"),
    ("anchors positives", "--columns anchor=anchors,positive=positives"),
    ("body", "--columns text=body"),
    ("abstract label", "--columns text=abstract,label"),
    ("premise hypothesis label", "a contradicting one as its negative"),
    ("query_id doc_id relevance", "the judgements of a retrieval set"),
    ("messages label", "chat data"),
]


@pytest.mark.parametrize(("names", "hint"), UNKNOWN)
def test_unknown_names_are_listed_with_a_columns_option_to_copy(names: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        recognise(names.split(), "x.csv")
    for name in names.split():
        assert repr(name) in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "labelled texts: text, label" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "names", [names.split() for names, hint in (*UNKNOWN, *[(n, h) for n, _, h in UNCLEAR]) if "--columns" in hint]
)
def test_the_option_that_is_suggested_works(names: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        recognise(names, "x.csv")
    suggestions = [part.split()[0] for part in (caught.value.hint or "").split("--columns ")[1:]]
    for suggestion in (part.strip(";") for part in suggestions if "=" in part or "," in part or part == "text"):
        layout = recognise(names, "x.csv", parse_columns(suggestion))
        assert set(layout.columns.values()) <= set(names)


@pytest.mark.parametrize(("columns", "roles"), [
    ("anchor=summary,positive=code", {"anchor": "summary", "positive": "code"}),
    (["anchor=summary", "positive=code"], {"anchor": "summary", "positive": "code"}),
    ({"anchor": "summary", "positive": "code, all"}, {"anchor": "summary", "positive": "code, all"}),
    (" Query = q , document=d", {"anchor": "q", "positive": "d"}),
    ("question=q,answer=a", {"anchor": "q", "positive": "a"}),
    ("anchor=a,positive=p,negative_2=x", {"anchor": "a", "positive": "p", "negative_2": "x"}),
    ("sentence1=a,sentence2=b,label=c", {"sentence1": "a", "sentence2": "b", "score": "c"}),
    ("text,label=a=b", {"text": "text", "label": "a=b"}),
    ("text", {"text": "text"}),
])  # fmt: skip
def test_the_columns_option(columns: object, roles: dict[str, str]) -> None:
    assert parse_columns(columns) == roles  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [
    "", "anchor", "anchor=a", "anchor=a,positive=", "ancor=a,positive=b", "anchor=a,anchor=b,positive=c",
    "text=a,negative=b",
    "anchor=a,positive=b,score=c", "anchor=a,query=b,positive=c", "label=a", [], {}, "anchor=a,positive=b,text=c",
    "sentence1=a,sentence2=b",
])  # fmt: skip
def test_a_columns_option_without_sense(columns: object) -> None:
    with pytest.raises(UsageError, match=r"--columns(.|\n)*known shapes"):
        parse_columns(columns)  # type: ignore[arg-type]


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("summary,code,id\na,b,1\n")
    with pytest.raises(
        DataError, match=r"no column 'sumary' \(wanted as anchor\)[^\n]*'summary', 'code', 'id'(.|\n)*anchor=summary"
    ):
        data.read(path, columns="anchor=sumary,positive=code")


def test_renamed_columns_are_read_and_described(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("summary,code,id,hard,harder\na,b,1,c,d\n")
    examples = data.read(path, columns="anchor=summary,positive=code,negative_7=harder,negative_3=hard")
    assert examples[0] == {"anchor": "a", "positive": "b", "negative_1": "c", "negative_2": "d"}
    assert examples.negatives == ["negative_1", "negative_2"]
    assert examples.layout.ignored == ("id",)
    described = examples.describe()
    for part in ("'summary' as anchor", "'hard' as negative_1", "not used: id", "2 negatives each", "x.csv"):
        assert part in described


def test_one_column_may_be_both_anchor_and_positive(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("one\ntwo\n")
    examples = data.read(path, columns="anchor=text,positive=text")
    assert examples.column("anchor") == examples.column("positive") == ["one", "two"]


def test_columns_with_signs_in_their_names_are_suggested_quoted() -> None:
    with pytest.raises(DataError, match="--columns 'anchor=my question,positive=the answer'"):
        recognise(["my question", "the answer"], "x")
