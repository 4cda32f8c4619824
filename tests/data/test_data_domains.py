"""Domains: only on request, labels that may be missing, two domains and which is the target."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nearfar import data
from nearfar.data import Examples
from nearfar.data.columns import recognise
from nearfar.errors import DataError, UsageError

COLUMNS = "text,label,domain"
ROWS = [("a", "pos", "books"), ("b", "neg", "books"), ("c", "", "books"), ("d", "", "kitchen"), ("e", "", "kitchen")]


def domains(rows: list[tuple[str, str, str]] | None = None) -> Examples:
    texts, labels, names = zip(*(ROWS if rows is None else rows), strict=True)
    return Examples.from_columns({"text": texts, "label": labels, "domain": names}, shape="domains")


@pytest.mark.parametrize(("names", "shape"), [
    ("text label domain", "labelled texts"),
    ("text domain", "texts"),
    ("text label domain document image", "labelled texts"),
])  # fmt: skip
def test_nothing_is_read_as_domains_by_itself(names: str, shape: str) -> None:
    layout = recognise(names.split(), "x.csv")
    assert layout.shape == shape
    assert "domain" in layout.ignored


def test_what_is_wanted_decides() -> None:
    assert recognise(["text", "label", "domain", "id"], "x", shapes=("domains",)).shape == "domains"
    assert recognise(["text", "label", "domain"], "x", shapes=("labelled texts",)).shape == "labelled texts"
    with pytest.raises(DataError, match="make labelled texts, not domains"):
        Examples.from_columns({"text": ["a"], "label": ["b"]}, shape="domains")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", "-classes.parquet"])
def test_the_same_domains_out_of_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".csv":
        path.write_text("text,label,domain\n" + "".join(f"{','.join(row)}\n" for row in ROWS))
    elif suffix == ".jsonl":
        rows = [{"text": text, "domain": domain} | ({"label": label} if label else {}) for text, label, domain in ROWS]
        rows[-1]["label"] = None  # type: ignore[assignment]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        texts, labels, names = map(list, zip(*ROWS, strict=True))
        column = pa.array([label or None for label in labels])
        metadata = None
        if suffix.startswith("-classes"):
            column = pa.array([["neg", "pos"].index(label) if label else -1 for label in labels])
            features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
            metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = pa.table({"text": texts, "label": column, "domain": names})
        parquet.write_table(table.replace_schema_metadata(metadata), path)
    examples = data.read(path, columns=COLUMNS)
    assert examples.shape == "domains"
    codes, labels = examples.labels()
    assert (codes.tolist(), labels) == ([1, 0, -1, -1, -1], ["neg", "pos"])
    assert examples.sha256() == domains().sha256()
    described = examples.describe()
    assert "source 'books' 3 texts, 2 labelled; target 'kitchen' 2 texts, 0 labelled" in described
    assert "classes: 2 (neg, pos)" in described
    assert data.read(path, columns=COLUMNS).column("label") == ["pos", "neg", "", "", ""]


def test_which_domain_is_the_target() -> None:
    codes, names = domains().domains()
    assert (codes.tolist(), codes.dtype, names) == ([0, 0, 0, 1, 1], np.int64, ("books", "kitchen"))
    codes, names = domains().domains("books")
    assert (codes.tolist(), names) == ([1, 1, 1, 0, 0], ("kitchen", "books"))
    first = domains([("a", "", "x"), ("b", "1", "y"), ("c", "", "y")])
    assert first.domains()[1] == ("y", "x")
    both = domains([("a", "1", "x"), ("b", "2", "y")])
    with pytest.raises(UsageError, match=r"both have labels(.|\n)*name it"):
        both.domains()
    assert both.domains("x")[1] == ("y", "x")
    assert domains([("a", "1", "target"), ("b", "2", "y")]).domains()[1] == ("y", "target")
    with pytest.raises(UsageError, match="neither has labels"):
        domains([("a", "", "x"), ("b", "", "y")]).domains()
    with pytest.raises(UsageError, match="there is no domain 'z'"):
        both.domains("z")
    with pytest.raises(UsageError, match="there are 1 domains"):
        both.select([0]).domains()
    with pytest.raises(UsageError, match="not domains"):
        Examples.from_columns({"text": ["a"]}).domains()


def test_labels_in_the_terms_of_others() -> None:
    codes, _ = domains().labels(["zero", "neg", "pos"])
    assert codes.tolist() == [2, 1, -1, -1, -1]
    with pytest.raises(DataError, match="not among"):
        domains().labels(["pos"])
    numbers = domains([("a", "10", "x"), ("b", "9", "x"), ("c", "", "y")])
    assert numbers.labels()[0].tolist() == [1, 0, -1]
    assert domains([("a", "", "x"), ("b", "", "y")]).labels()[1] == []


@pytest.mark.parametrize(("rows", "reason", "place"), [
    ("a,1,x\nb,1,y\nc,1,z\n", "'z' is a third domain, beside 'x' and 'y'", "line 4, column 'domain'"),
    ("a,1,x\nb,1,\n", "the domain is empty", "line 3, column 'domain'"),
    ("a,1,x\nb,2,x\n", "all rows are of the domain 'x'", "x.csv"),
])  # fmt: skip
def test_domains_that_are_not_two(tmp_path: Path, rows: str, reason: str, place: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"text,label,domain\n{rows}")
    with pytest.raises(DataError, match=reason) as caught:
        data.read(path, columns=COLUMNS)
    assert place in (caught.value.where or "")


def test_labels_of_labelled_texts_are_still_needed(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label,domain\na,1,x\nb,,y\n")
    with pytest.raises(DataError, match=r"the label is empty(.|\n)*line 3"):
        data.read(path)


def test_the_check_of_domains() -> None:
    def found(rows: list[tuple[str, str, str]]) -> dict[str, str]:
        return {finding.name: finding.severity for finding in data.check(domains(rows)).findings}

    assert found(ROWS) == {}
    assert found([("a", "", "x"), ("b", "", "y")])["no-labels"] == "error"
    assert found([("a", "", "x"), ("b", "1", "target"), ("c", "2", "x")])["target-labels"] == "info"
    assert found([("a", "1", "x"), ("b", "2", "y")])["which-target"] == "warning"
    assert found([("a", "1", "x"), ("b", "", "y")])["one-class"] == "warning"
    assert found([*ROWS, ("A", "", "kitchen")])["both-domains"] == "info"
    # a text without a label contradicts none
    assert found([*ROWS, ("a", "neg", "books")])["contradictory-labels"] == "warning"
    assert "contradictory-labels" not in found([*ROWS, ("a", "", "books")])
    assert "duplicate-rows" in found([*ROWS, ("a", "pos", "books")])
    assert "duplicate-rows" not in found([*ROWS, ("a", "pos", "kitchen")])


def test_only_labelled_texts() -> None:
    assert domains().only("texts").shape == "texts"
    labelled = domains().select([0, 1]).only("labelled texts")
    assert labelled.labels()[0].tolist() == [1, 0]


def test_the_labelled_texts_of_domains() -> None:
    assert domains().labelled().column("text") == ["a", "b"]
    assert domains().labelled().shape == "labelled texts"
    # of a target that has labels, these; where nothing says which it is, all
    named = domains([("a", "1", "x"), ("b", "2", "target"), ("c", "", "target")])
    assert named.labelled().column("text") == ["b"]
    assert domains([("a", "1", "x"), ("b", "2", "y")]).labelled().column("text") == ["a", "b"]
