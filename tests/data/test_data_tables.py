"""CSV and TSV: quoting, rows that are cut, quotes left open, headers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar import data
from nearfar.data.table_rows import split_tsv
from nearfar.errors import DataError


def read_text(
    tmp_path: Path, text: str, name: str = "x.csv", max_bad_rows: int = 0, **options: object
) -> data.Examples:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8"))
    return data.read(path, max_bad_rows=max_bad_rows, **options)  # type: ignore[arg-type]


def test_rfc_4180(tmp_path: Path) -> None:
    text = 'anchor,positive\r\n"a ""quoted"" word","with, comma"\r\n"two\r\nlines",5" disk\r\n"",x\r\n'
    examples = read_text(tmp_path, text)
    assert examples.column("anchor") == ['a "quoted" word', "two\r\nlines", ""]
    assert examples.column("positive") == ["with, comma", '5" disk', "x"]


WORDS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_whatever_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], quoting: int
) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["anchor", "positive"])
    writer.writerows([("x" + first, second) for first, second in rows])
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(stream.getvalue().encode("utf-8"))
    examples = data.read(path, columns="anchor,positive") if any(s.strip() for _, s in rows) else None
    if examples is not None and not all(second.strip().isdigit() for _, second in rows):
        assert examples.column("anchor") == ["x" + first for first, _ in rows]
        assert examples.column("positive") == [second for _, second in rows]


@pytest.mark.parametrize(("row", "reason"), [
    ("a", "1 field where the header has 2"),
    ("a,b,c", "3 fields where the header has 2"),
    ('"a"b,c', "a quoted field is not followed by a comma"),
    ('"a" ,c', "a quoted field is not followed by a comma"),
])  # fmt: skip
def test_rows_that_are_not_csv(tmp_path: Path, row: str, reason: str) -> None:
    text = f"anchor,positive\nq,r\n{row}\ns,t\n"
    with pytest.raises(DataError, match=r"x\.csv, line 3") as caught:
        read_text(tmp_path, text)
    assert reason in caught.value.message
    examples = read_text(tmp_path, text, max_bad_rows=1)
    assert examples.column("anchor") == ["q", "s"]
    assert examples.bad_rows[0].line == 3


def test_a_quote_left_open_takes_one_line_only(tmp_path: Path) -> None:
    lines = ["anchor,positive", 'a,"open', *(f"a{i},b{i}" for i in range(500))]
    with pytest.raises(DataError, match=r"a quote is opened in this row and never closed[^\n]*\n.*line 2"):
        read_text(tmp_path, "\n".join(lines) + "\n")
    examples = read_text(tmp_path, "\n".join(lines) + "\n", max_bad_rows=1)
    assert examples.column("anchor") == [f"a{i}" for i in range(500)]
    assert [bad.line for bad in examples.bad_rows] == [2]


def test_a_quote_left_open_and_met_by_a_later_one(tmp_path: Path) -> None:
    text = 'anchor,positive\na,"open\nb,c\nd,"e"\nf,g\n'
    examples = read_text(tmp_path, text, max_bad_rows=1)
    assert examples.column("anchor") == ["b", "d", "f"]
    assert examples.column("positive") == ["c", "e", "g"]
    assert examples.bad_rows[0].line == 2
    assert "read up to line 4" in examples.bad_rows[0].reason


def test_a_quote_left_open_does_not_read_more_than_a_field_may_hold(tmp_path: Path) -> None:
    rows = [f"a{i},{'b' * 50}" for i in range(200)]
    text = "\n".join(["anchor,positive", 'x,"open', *rows]) + "\n"
    with pytest.raises(
        DataError, match=r"a field is longer than 1,000 characters; a quote may be left open[^\n]*\n.*line 2"
    ):
        read_text(tmp_path, text, text_limit=1000)
    assert len(read_text(tmp_path, text, max_bad_rows=1, text_limit=1000)) == 200


def test_a_row_of_very_many_lines_is_pointed_out(tmp_path: Path) -> None:
    text = 'anchor,positive\na,"open\n' + "b,c\n" * 150 + 'd,e"\nf,g\n'
    examples = read_text(tmp_path, text)
    assert len(examples) == 2  # this is what the file says, by RFC 4180
    assert any("line 2 spans 152 lines" in note for note in examples.notes)


def test_a_large_field_is_read_and_the_limit_of_the_process_is_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    examples = read_text(tmp_path, "text\n" + "x" * 1_000_000 + "\n")
    assert len(examples.column("text")[0]) == 1_000_000
    with pytest.raises(DataError, match=r"a field is longer than 1,000 characters"):
        read_text(tmp_path, "text\n" + "x" * 1001 + "\n", text_limit=1000)
    assert csv.field_size_limit() == before


def test_lines_that_cannot_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'anchor,positive\na,b\nc,d\xffe\n"f\n\x00g",h\ni,j\n')
    with pytest.raises(DataError, match=r"byte 0xff is not valid UTF-8 \(character 4\)\n.*line 3, column 'positive'"):
        data.read(path)
    examples = data.read(path, max_bad_rows=2)
    assert examples.column("anchor") == ["a", "i"]
    assert [(bad.line, bad.column) for bad in examples.bad_rows] == [(3, "positive"), (5, "anchor")]
    assert "NUL" in examples.bad_rows[1].reason


@pytest.mark.parametrize(("header", "reason"), [
    ("anchor,positive,anchor", "the column 'anchor' stands twice"),
    ('anchor,"positive', "never closed"),
    ("anchor,pos\0itive", "NUL"),
])  # fmt: skip
def test_headers_that_cannot_be_used(tmp_path: Path, header: str, reason: str) -> None:
    with pytest.raises(DataError, match=r"the header cannot be used(.|\n)*line 1") as caught:
        read_text(tmp_path, f"{header}\na,b,c\n", max_bad_rows=10)
    assert reason in caught.value.message


def test_the_unnamed_index_column_of_pandas(tmp_path: Path) -> None:
    examples = read_text(tmp_path, ",text,label\n0,a,x\n1,b,y\n")
    assert examples.column("text") == ["a", "b"]
    assert examples.layout.ignored == ("(unnamed 1)",)


def test_blanks_after_commas_as_in_the_header(tmp_path: Path) -> None:
    examples = read_text(tmp_path, 'anchor, positive\na, "b, c"\nd, e\n')
    assert examples.column("positive") == ["b, c", "e"]
    assert any("blanks after commas" in note for note in examples.notes)
    assert read_text(tmp_path, "anchor,positive\na, b\n").column("positive") == [" b"]


@pytest.mark.parametrize("sign", [";", "|", "\t"])
def test_another_separator_is_named(tmp_path: Path, sign: str) -> None:
    with pytest.raises(DataError, match="seem to be separated by"):
        read_text(tmp_path, f"anchor{sign}positive\na{sign}b\n")


def test_a_file_without_a_header_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="put a header line above it"):
        read_text(tmp_path, "A man is playing a guitar on stage.,A person plays music.\nx,y\n")


TSV_FIELDS = [
    ('He said "hello" to me.', 'He said "hello" to me.'),
    ('"Hello," he said.', '"Hello," he said.'),
    ('"A whole sentence in quotes."', '"A whole sentence in quotes."'),
    ('"never closed', '"never closed'),
    ('closed only"', 'closed only"'),
    ('"', '"'),
    ('""', ""),
    ('"5"" disk"', '5" disk'),
    ('"""Hello,"" he said."', '"Hello," he said.'),
    ('""Hello""', '""Hello""'),
    ('"a" and "b"', '"a" and "b"'),
    ("", ""),
    (" ", " "),
]


@pytest.mark.parametrize(("written", "meant"), TSV_FIELDS)
def test_quotes_in_tsv(tmp_path: Path, written: str, meant: str) -> None:
    examples = read_text(tmp_path, f"anchor\tpositive\nbefore\tx\na\t{written}\n{written}\tb\nafter\ty\n", "x.tsv")
    assert examples.column("positive") == ["x", meant, "b", "y"]
    assert examples.column("anchor") == ["before", "a", meant, "after"]


def test_a_tsv_written_by_pandas_is_read_back(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    texts = ['5" disk', "plain", '"quoted"', "tab\there", 'both\t"', '"', "'single'", "a,b", ""]
    frame = pandas.DataFrame({"anchor": texts, "positive": texts[::-1], "id": range(len(texts))})
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        frame.to_csv(tmp_path / "x.tsv", sep="\t", index=False, quoting=quoting)
        examples = data.read(tmp_path / "x.tsv")
        assert examples.column("anchor") == texts
        assert examples.column("positive") == texts[::-1]


def test_if_all_names_are_quoted_all_fields_are(tmp_path: Path) -> None:
    examples = read_text(tmp_path, '"anchor"\t"positive"\n"a"\t"He said ""x"""\nraw\t"y"\n', "x.tsv")
    assert examples.column("anchor") == ["a", "raw"]
    assert examples.column("positive") == ['He said "x"', "y"]


def test_a_tsv_row_is_one_line(tmp_path: Path) -> None:
    for text, line in (
        ('anchor\tpositive\na\t"two\nlines"\nc\td\n', 3),
        ('anchor\tpositive\n"two\nlines"\ta\nc\td\n', 2),
    ):
        with pytest.raises(
            DataError, match=rf"1 field where the header has 2; a row of a .tsv file is one line[^\n]*\n.*line {line}"
        ):
            read_text(tmp_path, text, "x.tsv")


@pytest.mark.parametrize(("line", "count"), [("a", "1 field"), ("a\tb\tc", "3 fields"), ('"a\tb\tc', "3 fields")])
def test_wrong_number_of_fields_in_tsv(tmp_path: Path, line: str, count: str) -> None:
    with pytest.raises(DataError, match=rf"{count} where the header has 2(.|\n)*x\.tsv, line 2"):
        read_text(tmp_path, f"anchor\tpositive\n{line}\n", "x.tsv")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text("ab\" '", max_size=6), min_size=1, max_size=4))
def test_quoting_by_the_csv_module_is_undone(fields: list[str]) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t", lineterminator="\n").writerow(fields)
    line = stream.getvalue().removesuffix("\n")
    if fields != [""]:
        assert split_tsv(line, len(fields)) == fields
