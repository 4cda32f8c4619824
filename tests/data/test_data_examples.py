"""Examples: access, labels, splits, fingerprints, descriptions, and that they do not live in memory."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nearfar import data
from nearfar.data import Examples
from nearfar.data.store import ColumnStore
from nearfar.errors import DataError, UsageError


def pairs(count: int = 10) -> Examples:
    return Examples.from_columns(
        {"anchor": [f"a{i}" for i in range(count)], "positive": [f"p{i}" for i in range(count)]}
    )


def mapped(examples: Examples) -> Examples:
    """The same through the disk."""
    store = ColumnStore(examples.column_names)
    for batch in examples.batches(3):
        store.append(batch)
    return Examples(store.seal(), examples.shape)


@pytest.mark.parametrize("make", [lambda examples: examples, mapped], ids=["memory", "mapped"])
def test_access(make: object) -> None:
    examples: Examples = make(pairs())  # type: ignore[operator]
    assert len(examples) == 10
    assert examples.column_names == examples.text_columns == ["anchor", "positive"]
    assert examples.negatives == []
    assert examples.column("anchor") == [f"a{i}" for i in range(10)]
    assert examples[3] == {"anchor": "a3", "positive": "p3"}
    assert examples[-1] == {"anchor": "a9", "positive": "p9"}
    assert examples.take([3, 0, 3]) == {"anchor": ["a3", "a0", "a3"], "positive": ["p3", "p0", "p3"]}
    assert examples.take(np.array([9, -10], np.int32))["anchor"] == ["a9", "a0"]
    assert examples.take([]) == {"anchor": [], "positive": []}
    assert list(examples.texts()) == [text for i in range(10) for text in (f"a{i}", f"p{i}")]
    assert [len(batch["anchor"]) for batch in examples.batches(4)] == [4, 4, 2]
    for index in (10, -11):
        with pytest.raises(IndexError):
            examples.take([index])
    for indices in ([0.5], [[1]], [True]):
        with pytest.raises(TypeError):
            examples.take(indices)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no column 'text'"):
        examples.column("text")


def test_selected_rows_are_examples(tmp_path: Path) -> None:
    part = mapped(pairs()).select([7, 2, -1])
    assert part.shape == "pairs"
    assert part.column("positive") == ["p7", "p2", "p9"]
    assert part.sha256() == Examples.from_columns(part.take(range(3))).sha256()
    assert len(pairs().select([])) == 0
    with pytest.raises(IndexError):
        pairs().select([10])
    assert [row["anchor"] for row in part] == ["a7", "a2", "a9"]  # type: ignore[attr-defined]


def test_examples_without_rows() -> None:
    empty = Examples.from_columns({"text": [], "label": []})
    assert empty.labels()[1] == []
    assert empty.labels(["a"])[0].tolist() == []
    assert list(empty.texts()) == list(empty.batches()) == []
    assert len(empty.hashes("text")) == 0
    assert empty.sha256() != Examples.from_columns({"text": []}).sha256()
    with pytest.raises(DataError, match="cannot be split"):
        empty.split(0.5)


def test_tensors_are_indices() -> None:
    torch = pytest.importorskip("torch")
    assert pairs().take(torch.tensor([2, 1]))["anchor"] == ["a2", "a1"]


def test_from_columns_of_every_shape() -> None:
    scored = Examples.from_columns({"sentence1": ["a"], "sentence2": ["b"], "score": [np.float32(0.5)]})
    assert (scored.shape, scored[0]["score"], scored.text_columns) == ("scored pairs", 0.5, ["sentence1", "sentence2"])
    labelled = Examples.from_columns({"text": np.array(["a", "b"]), "label": np.array([1, 0])})
    assert (labelled.shape, labelled.column("label"), labelled.text_columns) == ("labelled texts", ["1", "0"], ["text"])
    triplets = Examples.from_columns({"query": ("a",), "positive": ("b",), "negative_2": ("d",), "negative_1": ("c",)})
    assert triplets[0] == {"anchor": "a", "positive": "b", "negative_1": "c", "negative_2": "d"}
    assert len(Examples.from_columns({"text": []})) == 0


@pytest.mark.parametrize(("columns", "reason"), [
    ({"text": ["a", 5]}, r"the number 5 where text is needed(.|\n)*row 2, column 'text'"),
    ({"text": ["a", float("nan")]}, r"the number nan where text(.|\n)*row 2"),
    ({"anchor": ["a"], "positive": ["b", "c"]}, "different numbers of rows: 'anchor' 1, 'positive' 2"),
    ({"one": ["a"], "two": ["b"]}, "not known"),
    ({"sentence1": ["a"], "sentence2": ["b"], "score": [float("inf")]}, "not finite"),
    ({"text": ["a"], "label": [None]}, "null where a label"),
    ({}, "no columns"),
])  # fmt: skip
def test_from_columns_that_cannot_be(columns: dict[str, list[object]], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Examples.from_columns(columns)


def test_a_table_must_hold_what_the_shape_says() -> None:
    with pytest.raises(UsageError, match="does not hold 'texts'"):
        Examples(pairs().table, "texts")
    with pytest.raises(UsageError, match="does not hold 'triplets'"):
        Examples(pairs().table, "triplets")


def test_a_table_of_other_arrow_types_is_taken() -> None:
    pa = pytest.importorskip("pyarrow")
    plain = Examples(pa.table({"anchor": ["a", "b"], "positive": ["c", "d"]}), "pairs")
    assert plain.sha256() == Examples.from_columns({"anchor": ["a", "b"], "positive": ["c", "d"]}).sha256()


def test_labels_do_not_depend_on_the_order_of_rows() -> None:
    names = ["b", "a", "c", "a"]
    codes, classes = Examples.from_columns({"text": ["w", "x", "y", "z"], "label": names}).labels()
    assert classes == ["a", "b", "c"]
    assert codes.dtype == np.int64
    assert codes.tolist() == [1, 0, 2, 0]
    codes, classes = Examples.from_columns({"text": ["w", "x", "y"], "label": ["10", "9", "-1"]}).labels()
    assert (codes.tolist(), classes) == ([2, 1, 0], ["-1", "9", "10"])


def test_labels_in_the_terms_of_the_training_data() -> None:
    examples = Examples.from_columns({"text": ["w", "x"], "label": ["c", "a"]})
    codes, classes = examples.labels(["a", "b", "c"])
    assert (codes.tolist(), classes) == ([2, 0], ["a", "b", "c"])
    with pytest.raises(DataError, match="1 labels are not among the 2 known ones: 'c'"):
        examples.labels(["a", "b"])
    with pytest.raises(UsageError, match="pairs, which have no labels"):
        pairs().labels()


@pytest.mark.parametrize("make", [lambda examples: examples, mapped], ids=["memory", "mapped"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_split_keeps_rows_and_their_order_and_equal_anchors_together(make: object, fraction: float) -> None:
    rows = [(f"Anchor  {i % 40}".upper() if i % 3 else f"anchor {i % 40}", f"p{i}") for i in range(200)]
    examples: Examples = make(
        Examples.from_columns(dict(zip(("anchor", "positive"), zip(*rows, strict=True), strict=True)))
    )  # type: ignore[operator]
    rest, held = examples.split(fraction, seed=3)
    assert len(rest) + len(held) == 200
    assert abs(len(held) - fraction * 200) <= 5
    of = {part: [int(text[1:]) for text in part.column("positive")] for part in (rest, held)}
    assert sorted(of[rest] + of[held]) == list(range(200))
    assert all(numbers == sorted(numbers) for numbers in of.values())
    anchors = [{data.normalise(text) for text in part.column("anchor")} for part in (rest, held)]
    assert not anchors[0] & anchors[1]
    again = examples.split(fraction, seed=3)
    assert [part.sha256() for part in again] == [rest.sha256(), held.sha256()]
    assert examples.split(fraction, seed=4)[1].sha256() != held.sha256()


def test_split_leaves_neither_part_empty() -> None:
    for fraction in (0.001, 0.999):
        rest, held = pairs(5).split(fraction, seed=0)
        assert {len(rest), len(held)} == {1, 4}
    with pytest.raises(DataError, match="all have the same anchor"):
        Examples.from_columns({"anchor": ["a", " A "], "positive": ["b", "c"]}).split(0.5, seed=0)
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError):
            pairs().split(fraction, seed=0)


def test_the_fingerprint_sees_every_change_and_nothing_else() -> None:
    base = {"sentence1": ["ab", "c"], "sentence2": ["d", ""], "score": [1.0, 2.0]}
    same = Examples.from_columns(base).sha256()
    assert mapped(Examples.from_columns(base)).sha256() == same
    changes = [
        {**base, "sentence1": ["a", "bc"]}, {**base, "sentence1": ["c", "ab"]}, {**base, "sentence2": ["", "d"]},
        {**base, "score": [2.0, 1.0]}, {**base, "sentence1": base["sentence2"], "sentence2": base["sentence1"]},
        {name: values[:1] for name, values in base.items()}, {"anchor": ["ab", "c"], "positive": ["d", ""]},
    ]  # fmt: skip
    prints = [Examples.from_columns(change).sha256() for change in changes]
    assert len({same, *prints}) == len(changes) + 1


def test_the_fingerprint_does_not_depend_on_chunks() -> None:
    pa = pytest.importorskip("pyarrow")
    whole = pairs(100)
    cut = Examples(pa.concat_tables([whole.table.slice(at, 7) for at in range(0, 100, 7)]), "pairs")
    assert cut.table.column(0).num_chunks > 1
    assert cut.sha256() == whole.sha256()
    assert cut.take([99, 5, 50]) == whole.take([99, 5, 50])


def test_descriptions_are_plain_and_safe_to_print(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"anchor": "\\u001b[31mred\\u202e\\nnext", "positive": "' + "long " * 100 + '", "url": "u"}\n')
    described = data.read(path).describe(width=60)
    assert described.splitlines()[0] == "pairs (anchor, positive): 1 row from x.jsonl"
    assert "columns not used: url" in described
    assert r"\x1b[31mred\u202e next" in described
    assert "\x1b" not in described
    assert max(map(len, described.splitlines())) <= 80
    assert (
        "scores: from -1 to 2.5"
        in Examples.from_columns({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [2.5, -1]}).describe()
    )
    assert (
        "classes: 7 (c0, c1, c2, c3, c4, ...)"
        in Examples.from_columns({"text": ["t"] * 7, "label": [f"c{i}" for i in range(7)]}).describe()
    )
    assert "0 rows" in Examples.from_columns({"text": []}).describe()


def test_scripts_and_emoji_are_shown_as_they_are() -> None:
    texts = ["Здравствуй", "你好", "שלום", "مرحبا", "नमस्ते", "👩‍👩‍👧‍👦🏳️‍🌈"]
    for text in texts:
        assert text in Examples.from_columns({"text": [text]}).describe()


def test_examples_go_through_pickle() -> None:
    copy = pickle.loads(pickle.dumps(mapped(pairs())))
    assert copy.sha256() == pairs().sha256()


def test_a_column_store_of_nothing() -> None:
    examples = Examples(ColumnStore(["sentence1", "sentence2", "score"]).seal(), "scored pairs")
    assert len(examples) == 0
    assert examples.column("score") == []


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n' * 100)
    examples = data.read(tmp_path / "x.jsonl")
    if sys.platform != "win32":
        assert list((tmp_path / "tmp").iterdir()) == []
    assert examples.column("text") == ["a"] * 100


_MEASURE = """
import resource, sys
from nearfar import data
import pyarrow
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
data.read(sys.argv[1])
before = peak()
examples = data.read(sys.argv[2])
assert len(examples) == 45_000 and examples[44_999]["positive"].endswith("044999"), len(examples)
print(peak() - before)
"""


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str) -> None:
    """45,000 rows of 2 x 500 bytes are 45 MB; reading them may not take more than 35 MB over reading a thousand."""
    if not sys.platform.startswith("linux"):
        pytest.skip("ru_maxrss is counted differently elsewhere")
    for name, count in (("small", 1000), ("large", 45_000)):
        with open(tmp_path / f"{name}{suffix}", "w") as stream:
            stream.write("" if suffix == ".jsonl" else "anchor,positive\n")
            for number in range(count):
                anchor, positive = "a" * 494 + f"{number:06}", "p" * 494 + f"{number:06}"
                line = (
                    f'{{"anchor": "{anchor}", "positive": "{positive}"}}'
                    if suffix == ".jsonl"
                    else f"{anchor},{positive}"
                )
                stream.write(f"{line}\n")
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / f"small{suffix}"), str(tmp_path / f"large{suffix}")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 35
