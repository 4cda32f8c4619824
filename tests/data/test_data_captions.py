"""Captions: images as numbers or .npy files, what is refused and why, which of them are the same."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from nearfar import data
from nearfar.data import Examples
from nearfar.data.columns import parse_columns, recognise
from nearfar.data.store import ColumnStore
from nearfar.errors import DataError, UsageError


def captions() -> Examples:
    return Examples.from_columns(
        {"text": ["a", "b", "c", "d", "e"], "image": [[1, 2], [0, 3.5], None, [1, 2], [-0.0, 3.5]]}
    )


def mapped(examples: Examples) -> Examples:
    """The same through the disk."""
    store = ColumnStore(examples.column_names)
    for batch in examples.batches(2):
        store.append(batch)
    return Examples(store.seal(), examples.shape)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("names", "shape"), [
    ("text image", "captions"),
    ("Image Text id url", "captions"),
    ("text image author", "texts"),
    ("text image label", "labelled texts"),
    ("text image document", "texts"),
    ("anchor positive image", "pairs"),
])  # fmt: skip
def test_what_is_recognised_by_names_alone(names: str, shape: str) -> None:
    assert recognise(names.split(), "x.csv").shape == shape


def test_what_is_wanted_decides() -> None:
    assert recognise(["text", "image", "author"], "x", shapes=("captions",)).shape == "captions"
    assert recognise(["text", "image"], "x", shapes=("texts",)).shape == "texts"
    assert parse_columns("text=caption,image=vector") == {"text": "caption", "image": "vector"}


@pytest.mark.parametrize("make", [lambda examples: examples, mapped], ids=["memory", "mapped"])
def test_images(make: object) -> None:
    examples: Examples = make(captions())  # type: ignore[operator]
    assert examples.shape == "captions"
    assert examples.text_columns == ["text"]
    assert examples.image_length == 2
    nothing = [np.nan, np.nan]
    expected = np.array([[1, 2], [0, 3.5], nothing, [1, 2], [0, 3.5]], np.float32)
    np.testing.assert_array_equal(examples.images(), expected)
    np.testing.assert_array_equal(examples.images([2, 4, 2, -5]), expected[[2, 4, 2, 0]])
    assert examples.images().dtype == np.float32
    assert examples.images([]).shape == (0, 2)
    ids = examples.image_ids()
    assert ids[2] == -1
    assert ids[0] == ids[3] != ids[1] == ids[4]
    assert sorted(set(ids.tolist())) == [-1, 0, 1]
    assert examples[1] == {"text": "b", "image": [0.0, 3.5]}
    assert examples[2]["image"] == []
    part = examples.select([3, 2])
    np.testing.assert_array_equal(part.images(), expected[[3, 2]])
    assert part.image_ids().tolist() == [0, -1]
    assert examples.sha256() == captions().sha256()
    assert examples.select([2]).image_length == 0
    assert examples.select([2]).images().shape == (1, 0)
    assert examples.only("texts").column("text") == list("abcde")
    with pytest.raises(IndexError):
        examples.images([5])
    with pytest.raises(UsageError, match="not captions"):
        examples.only("texts").images()


def test_fingerprints_know_the_numbers() -> None:
    def of(*images: object) -> str:
        return Examples.from_columns({"text": ["a"] * len(images), "image": images}).sha256()

    assert len({of([1, 2], [3, 4]), of([1, 2], [3, 5]), of([1, 2], None), of([3, 4], [1, 2]), of([1], [2])}) == 5


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", "-lists.parquet", "-fixed.parquet", "-paths.parquet"])
def test_the_same_captions_out_of_every_format(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "features").mkdir()
    vectors = {"cat": [1.0, 2.5, -3.0], "dog": [0.5, 0.25, 8.0]}
    for name, vector in vectors.items():
        np.save(tmp_path / "features" / f"{name}.npy", np.array(vector, np.float64))
    shown = ["cat", "cat", None, "dog"]
    paths = [None if name is None else f"features/{name}.npy" for name in shown]
    lists = [None if name is None else vectors[name] for name in shown]
    texts = ["one", "two", "three", "four"]
    path = tmp_path / f"x{suffix}"
    if suffix == ".csv":
        path.write_text("text,image\n" + "".join(f"{t},{p or ''}\n" for t, p in zip(texts, paths, strict=True)))
    elif suffix == ".jsonl":
        images = [paths[0], lists[1], paths[2], paths[3]]  # a row each way
        write(path, [{"text": text, "image": image} for text, image in zip(texts, images, strict=True)])
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        kinds = {"-fixed.parquet": pa.list_(pa.float32(), 3), "-paths.parquet": pa.string()}
        column = pa.array(paths if suffix.startswith("-paths") else lists, kinds.get(suffix, pa.list_(pa.float64())))
        parquet.write_table(pa.table({"text": texts, "image": column}), path)
    examples = data.read(path)
    assert examples.shape == "captions"
    expected = np.array([vectors["cat"], vectors["cat"], [np.nan] * 3, vectors["dog"]], np.float32)
    np.testing.assert_array_equal(examples.images(), expected)
    assert examples.sha256() == Examples.from_columns({"text": texts, "image": lists}).sha256()
    assert "images: 2 different, of 3 numbers each; 1 text without" in examples.describe()
    assert "image: 3 numbers" in examples.describe()


def test_a_row_needs_no_image(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"text": "a"}, {"text": "b", "image": [1, 2]}, {"text": "c", "image": ""}])
    assert data.read(path).image_ids().tolist() == [-1, 0, -1]
    write(path, [{"text": "a", "image": None}])
    with pytest.raises(DataError, match="no row has an image"):
        data.read(path)
    assert data.read(path, shapes=("texts",)).shape == "texts"


@pytest.mark.parametrize(("image", "reason"), [
    ([1, "2"], "the text '2' in an image"),
    ([1, None], "null in an image"),
    ([1, [2]], "a list in an image"),
    ([1, 10**400], "cannot be used|not finite"),
    ([[1, 2]], "a list in an image"),
    ([1, True], "true in an image"),
    ([1, 2, 3], "an image of 3 numbers, where the ones before have 2"),
    ([], "an image without numbers"),
    ([1, 1e39], "number 2 of the image is not finite"),
    (7, "the number 7 where an image"),
    ({"bytes": "x"}, "an object where an image"),
    ("cat", "the text 'cat' where an image"),
    ("cat.JPG", "'cat.JPG' is a picture, and features of it are needed"),
    ("https://x.org/cat.png", "is a picture"),
    ("[1, 2]", "the text '\\[1, 2\\]' where an image"),
    ("missing.npy", "cannot be read as a NumPy array: No such file"),
    ("../outside.npy", "outside of the folder"),
    ("/outside.npy", "outside of the folder"),
    ("link.npy", "outside of the folder"),
    ("text.npy", "cannot be read as a NumPy array"),
    ("pickle.npy", "cannot be read as a NumPy array"),
    ("objects.npy", "cannot be read as a NumPy array"),
    ("archive.npy", "cannot be read as a NumPy array"),
    ("empty.npy", "cannot be read as a NumPy array|without numbers"),
    ("matrix.npy", r"an array \[2, 2\] of float64 in an image"),
    ("three.npy", "an image of 3 numbers"),
    ("words.npy", "an array"),
    ("nan.npy", "number 1 of the image is not finite"),
    ("folder.npy", "cannot be read as a NumPy array: Is a directory"),
    ("a\0.npy", "a NUL character"),
])  # fmt: skip
def test_an_image_that_cannot_be_used(tmp_path: Path, image: object, reason: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(tmp_path / "outside.npy", np.ones(2))
    os.symlink(tmp_path / "outside.npy", folder / "link.npy")
    (folder / "text.npy").write_text("1, 2")
    (folder / "pickle.npy").write_bytes(pickle.dumps([1.0, 2.0]))
    np.save(folder / "objects.npy", np.array([1.0, 2.0], object), allow_pickle=True)
    with open(folder / "archive.npy", "wb") as stream:
        np.savez(stream, a=np.ones(2))
    for name, array in (
        ("empty", np.ones(0)),
        ("matrix", np.ones((2, 2))),
        ("three", np.ones(3)),
        ("words", np.array(["a", "b"])),
        ("nan", np.array([np.nan, 1])),
    ):
        np.save(folder / f"{name}.npy", array)
    (folder / "folder.npy").mkdir()
    rows = [{"text": "a", "image": [1, 2]}, {"text": "b", "image": image}, {"text": "c", "image": [3, 4]}]
    path = write(folder / "x.jsonl", rows)
    with pytest.raises(DataError, match=reason) as caught:
        data.read(path)
    assert "line 2, column 'image'" in (caught.value.where or "")
    examples = data.read(path, max_bad_rows=1)
    assert examples.column("text") == ["a", "c"]


def test_pictures_say_how_features_are_made(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,image\na cat,cat.png\n")
    with pytest.raises(DataError, match=r"image encoder(.|\n)*numpy.save(.|\n)*--columns text"):
        data.read(path)
    assert data.read(path, columns="text").shape == "texts"
    assert data.read(path, shapes=("texts", "pairs")).shape == "texts"
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = pa.array([{"bytes": b"x", "path": "cat.png"}])
    parquet.write_table(pa.table({"text": ["a cat"], "image": images}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"values of type struct(.|\n)*image encoder"):
        data.read(tmp_path / "x.parquet")


def test_paths_start_from_their_own_file(tmp_path: Path) -> None:
    for name, number in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "v.npy", np.array([number]))
        write(tmp_path / name / "x.jsonl", [{"text": name, "image": "v.npy"}])
    examples = data.read([tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl"])
    assert examples.images().ravel().tolist() == [1.0, 2.0]


def test_in_memory_no_paths_are_followed() -> None:
    with pytest.raises(DataError, match=r"where an image(.|\n)*row 1, column 'image'"):
        Examples.from_columns({"text": ["a"], "image": ["v.npy"]})
    array = Examples.from_columns({"text": ["a", "b"], "image": np.eye(2)})
    assert array.images().tolist() == [[1, 0], [0, 1]]


def test_a_split_keeps_the_captions_of_an_image_together() -> None:
    number = np.random.default_rng(0).integers(0, 12, 60)
    images = [[float(each), 1.0] if each else None for each in number]
    examples = Examples.from_columns({"text": [f"t{i}" for i in range(60)], "image": images})
    rest, held = examples.split(0.3, 1)
    assert len(rest) + len(held) == 60
    kept, out = ({tuple(row) for row in part.images() if row[0] == row[0]} for part in (rest, held))
    assert kept
    assert out
    assert not kept & out


def test_the_check_of_captions() -> None:
    found = {finding.name: finding for finding in data.check(captions(), batch_size=2).findings}
    assert (found["without-image"].severity, found["without-image"].count) == ("info", 1)
    assert "duplicate-rows" not in found
    twice = Examples.from_columns({"text": ["a", "A", "a", "b"], "image": [[1, 2], [1, 2], [1, 3], [0, 0]]})
    found = {finding.name: finding for finding in data.check(twice).findings}
    assert found["duplicate-rows"].count == 1
    assert (found["zero-images"].severity, found["zero-images"].count) == ("warning", 1)
    assert found["zero-images"].examples == ('row 4: "b" | 2 numbers',)
    one = data.check(Examples.from_columns({"text": ["a", "b"], "image": [[1, 2], [1, 2]]}))
    assert "one-image" in {finding.name for finding in one.findings}
