"""Parquet, Arrow and saved Hugging Face datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from nearfar import data  # noqa: E402
from nearfar.errors import DataError  # noqa: E402


def parquet_file(tmp_path: Path, table: Any, **options: Any) -> Path:
    path = tmp_path / "x.parquet"
    parquet.write_table(table, path, **options)
    return path


TEXTS = ["a", "β", "🙂", "", "x" * 1000]


@pytest.mark.parametrize("kind", [
    pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()),
], ids=str)  # fmt: skip
def test_every_type_of_text(tmp_path: Path, kind: Any) -> None:
    values = pa.array(TEXTS, pa.string()).cast(kind) if pa.types.is_dictionary(kind) else pa.array(TEXTS, kind)
    table = pa.table({"text": values, "label": pa.array([1, 2, 1, 2, 3], pa.int8())})
    for path in (parquet_file(tmp_path, table), arrow_file(tmp_path, table), arrow_stream(tmp_path, table)):
        examples = data.read(path)
        assert examples.column("text") == TEXTS
        assert examples.column("label") == ["1", "2", "1", "2", "3"]


def arrow_file(tmp_path: Path, table: Any) -> Path:
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return tmp_path / "x.arrow"


def arrow_stream(tmp_path: Path, table: Any) -> Path:
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return tmp_path / "stream.arrow"


@pytest.mark.parametrize("values", [
    pa.array([1, 0], pa.int64()), pa.array([1.0, 0.0], pa.float32()), pa.array([True, False]),
    pa.array([1, 0], pa.uint8()), pa.array(["1.0", "0.0"]).cast(pa.decimal128(4, 2)),
], ids=lambda values: str(values.type))  # fmt: skip
def test_every_type_of_score(tmp_path: Path, values: Any) -> None:
    table = pa.table({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": values})
    assert data.read(parquet_file(tmp_path, table)).column("score") == [1.0, 0.0]


@pytest.mark.parametrize(("table", "column", "reason"), [
    ({"text": pa.array([1, 2])}, "text", "values of type int64 where texts are needed"),
    ({"text": pa.array([[1.0], [2.0]])}, "text", "values of type list"),
    ({"text": pa.array([b"a", b"b"])}, "text", "values of type binary"),
    ({"text": pa.array([None, None])}, "text", "nothing but nulls"),
    ({"text": ["a", "b"], "label": pa.array([[1], [2]])}, "label", "where labels"),
    ({"sentence1": ["a"], "sentence2": ["b"], "score": ["1.0"]}, "score", "values of type string where"),
])  # fmt: skip
def test_columns_of_the_wrong_type_are_named_at_once(tmp_path: Path, table: Any, column: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"column '{column}'") as caught:
        data.read(parquet_file(tmp_path, pa.table(table)), max_bad_rows=1000)
    assert reason in caught.value.message
    assert "--columns" in (caught.value.hint or "")


def test_bad_rows_are_found_and_skipped(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")]
    )
    anchors = pa.chunked_array(
        [pa.array(["ok"] * 20_000 + [None, "nul\0", "x" * 101, "ok"]), broken, pa.array(["last"])]
    )
    table = pa.table({"anchor": anchors, "positive": [f"p{i}" for i in range(len(anchors))]})
    path = parquet_file(tmp_path, table)
    with pytest.raises(DataError, match=r"null where text is needed\nwhere: .*x\.parquet, row 20001, column 'anchor'"):
        data.read(path, text_limit=100)
    examples = data.read(path, text_limit=100, max_bad_rows=4)
    assert [(bad.line, bad.unit) for bad in examples.bad_rows] == [(n, "row") for n in (20001, 20002, 20003, 20005)]
    reasons = [bad.reason for bad in examples.bad_rows]
    assert "byte 0xff at byte 2 is not valid UTF-8" in reasons[3]
    assert "101 bytes" in reasons[2]
    assert "NUL" in reasons[1]
    assert examples.column("positive") == [f"p{i}" for i in (*range(20_000), 20_003, 20_005)]


def test_scores_that_are_not_numbers(tmp_path: Path) -> None:
    table = pa.table({"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "score": [0.5, float("nan"), None]})
    path = parquet_file(tmp_path, table)
    with pytest.raises(DataError, match=r"the score nan is not finite(.|\n)*row 2, column 'score'"):
        data.read(path)
    examples = data.read(path, max_bad_rows=2)
    assert examples.column("score") == [0.5]


@pytest.mark.parametrize("part", [slice(0, 400), slice(0, -40)])
@pytest.mark.parametrize("make", [arrow_file, arrow_stream, parquet_file])
def test_damaged_files(tmp_path: Path, make: Any, part: slice) -> None:
    path = make(tmp_path, pa.table({"text": [f"some text {i}" for i in range(5000)]}))
    content = path.read_bytes()
    path.write_bytes(content[part])
    if make is arrow_stream and part.stop == -40:
        return  # the end of a stream carries nothing: the rows are all there
    with pytest.raises(DataError, match=r"(damaged or cut short|cannot read)(.|\n)*\.(arrow|parquet)"):
        data.read(path)


def test_buffers_that_contradict_each_other_are_not_followed(tmp_path: Path) -> None:
    """An offset beyond the texts: without a check the process would read outside of the file and die."""
    offsets = pa.array([0, 2**30, 2], pa.int32()).buffers()[1]
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    for path in (make(tmp_path, pa.table({"text": texts})) for make in (arrow_file, arrow_stream)):
        with pytest.raises(DataError, match="the Arrow file is damaged"):
            data.read(path, max_bad_rows=10)


def test_parquet_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no rows"):
        data.read(parquet_file(tmp_path, pa.table({"text": pa.array([], pa.string())})))


def test_the_same_name_twice(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pytest.raises(DataError, match="'text' stands twice"):
        data.read(arrow_file(tmp_path, table))


# What datasets writes, without the package: streams of Arrow batches with the features in the schema's metadata, and
# two descriptions. The last test lets the package write.
def saved_dataset(folder: Path, table: Any, features: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    halves = [table.slice(0, 2), table.slice(2)]
    names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
    for name, half in zip(names, halves, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, half.schema) as writer:
            writer.write_table(half)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


LABELLED = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
FEATURES = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["bad", "good"], "_type": "ClassLabel"}}


def test_a_saved_dataset_with_named_classes(tmp_path: Path) -> None:
    folder = saved_dataset(tmp_path / "saved", LABELLED, FEATURES)
    with pytest.raises(DataError, match=r"class number -1, which has no name(.|\n)*data-00001.*row 1, column 'label'"):
        data.read(folder)
    examples = data.read(folder, max_bad_rows=1)
    assert examples.column("label") == ["good", "bad"]
    assert [path.name for path in examples.source] == ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]


def test_a_saved_dataset_with_splits_asks_which(tmp_path: Path) -> None:
    saved_dataset(tmp_path / "all" / "train", LABELLED.slice(0, 2), FEATURES)
    saved_dataset(tmp_path / "all" / "dev", LABELLED.slice(0, 2), FEATURES)
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "dev"]}')
    with pytest.raises(DataError, match=rf"into splits: dev, train(.|\n)*name one of them, such as {tmp_path}/all/dev"):
        data.read(tmp_path / "all")
    assert len(data.read(tmp_path / "all" / "train")) == 2


@pytest.mark.parametrize(("state", "reason"), [
    ('{"_data_files": [{"filename": "../../secret.arrow"}]}', "a file outside its folder"),
    ('{"_data_files": [{"filename": "/etc/passwd"}]}', "a file outside its folder"),
    ('{"_data_files": [{"filename": "gone.arrow"}]}', "a file of the saved dataset is missing: gone.arrow"),
    ('{"_data_files": []}', "no rows"),
    ("{}", "description cannot be read"),
    ("[1", "description cannot be read"),
])  # fmt: skip
def test_saved_datasets_that_lead_nowhere(tmp_path: Path, state: str, reason: str) -> None:
    folder = saved_dataset(tmp_path / "saved", LABELLED, FEATURES)
    (folder / "state.json").write_text(state)
    with pytest.raises(DataError, match=reason):
        data.read(folder)


def test_what_the_datasets_package_saves_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "id": datasets.Value("int32"),
        }
    )
    rows = {"text": ["a", "b", "c", "d"], "label": [1, 0, 1, 1], "id": [1, 2, 3, 4]}
    dataset = datasets.Dataset.from_dict(rows, features=features).select([3, 1, 2])
    dataset.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    dataset.to_parquet(str(tmp_path / "x.parquet"))
    for path in (tmp_path / "saved", tmp_path / "x.parquet"):
        examples = data.read(path)
        assert examples.column("text") == ["d", "b", "c"]
        assert examples.column("label") == ["good", "bad", "good"]
        assert examples.layout.ignored == ("id",)
    datasets.DatasetDict({"train": dataset}).save_to_disk(str(tmp_path / "all"))
    with pytest.raises(DataError, match="into splits: train"):
        data.read(tmp_path / "all")
