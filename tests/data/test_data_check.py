"""What the data check finds, and that it finds nothing where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar import data
from nearfar.data import DataCheck, Examples, Finding, RetrievalSet
from nearfar.errors import DataError, UsageError


def pairs(rows: list[tuple[str, ...]]) -> Examples:
    names = ["anchor", "positive", *(f"negative_{k}" for k in range(1, len(rows[0]) - 1))]
    return Examples.from_columns(dict(zip(names, zip(*rows, strict=True), strict=True)))


def labelled(rows: list[tuple[str, str]]) -> Examples:
    return Examples.from_columns(dict(zip(("text", "label"), zip(*rows, strict=True), strict=True)))


def scored(rows: list[tuple[str, str, float]]) -> Examples:
    return Examples.from_columns(dict(zip(("sentence1", "sentence2", "score"), zip(*rows, strict=True), strict=True)))


def found(report: DataCheck, name: str) -> Finding:
    chosen = [finding for finding in report.findings if finding.name == name]
    assert len(chosen) == 1, [finding.name for finding in report.findings]
    return chosen[0]


CLEAN = [(f"question {i}", f"answer {i}", f"wrong {i}") for i in range(20)]


@pytest.mark.parametrize("examples", [
    pairs(CLEAN), labelled([(f"text {i}", "ab"[i % 2]) for i in range(20)]),
    scored([(f"left {i}", f"right {i}", i / 20) for i in range(20)]),
    Examples.from_columns({"text": [f"t{i}" for i in range(20)]}),
], ids=["pairs", "labelled", "scored", "texts"])  # fmt: skip
def test_nothing_is_found_in_clean_data(examples: Examples) -> None:
    report = data.check(examples, batch_size=16, evaluation=pairs([("other", "thing")]))
    assert not report.errors
    assert not report.warnings
    assert [finding.name for finding in report.findings] in ([], ["lonely-anchors"])
    report.raise_on_errors()
    report.raise_if_strict()
    text = report.text()
    assert text.splitlines()[0] == f"data check: 20 {examples.shape}, batches of 16, 1 to evaluate on"
    assert "nothing found" in text or "lonely-anchors" in text


def test_no_rows() -> None:
    report = data.check(Examples.from_columns({"text": []}), batch_size=4, token_lengths=lambda texts: [0] * len(texts))
    assert [(finding.severity, finding.name) for finding in report.findings] == [("error", "no-rows")]
    with pytest.raises(DataError, match="cannot be trained on"):
        report.raise_on_errors()
    with pytest.raises(DataError, match="no-rows"):
        report.raise_if_strict()


def test_empty_texts() -> None:
    report = data.check(pairs([("a", "x"), ("", "y"), ("b", " \u3000\n"), ("  ", "z")]))
    empty = [finding for finding in report.findings if finding.name == "empty-texts"]
    assert [(finding.severity, finding.count, finding.share) for finding in empty] == [
        ("warning", 2, 0.5),
        ("warning", 1, 0.25),
    ]
    assert empty[0].examples[0].startswith("row 2:")
    report = data.check(pairs([("a", ""), ("b", " ")]))
    assert found(report, "empty-texts").severity == "error"
    assert "'positive' is empty in every row" in found(report, "empty-texts").detail
    with pytest.raises(DataError, match="'positive' is empty"):
        report.raise_on_errors()


def test_duplicate_rows_after_normalisation() -> None:
    report = data.check(pairs([("a b", "x"), ("A  B", "X"), ("a b", "y"), ("c", "x"), (" a b ", "x")]))
    duplicate = found(report, "duplicate-rows")
    assert (duplicate.severity, duplicate.count, duplicate.share) == ("warning", 2, 0.4)
    assert duplicate.examples == ('3 times, row 1: "a b" | "x"',)


def test_rows_that_differ_in_label_or_score_only_are_no_duplicates() -> None:
    assert {finding.name for finding in data.check(labelled([("a", "x"), ("a", "y"), ("b", "x")])).findings} == {
        "contradictory-labels", "single-row-classes",
    }  # fmt: skip
    assert {finding.name for finding in data.check(scored([("a", "b", 0.0), ("a", "b", 1.0)])).findings} == {
        "contradictory-scores"
    }
    assert "duplicate-rows" in {
        finding.name for finding in data.check(scored([("a", "b", 0.0), ("a", "b", -0.0), ("c", "d", 1.0)])).findings
    }


def test_all_rows_equal() -> None:
    report = data.check(pairs([("a", "x")] * 5), batch_size=4)
    assert found(report, "all-rows-equal").severity == "warning"
    assert found(report, "false-negatives").share == pytest.approx(1.0)
    assert found(report, "false-negatives").count == pytest.approx(12.0)
    assert "duplicate-rows" not in {finding.name for finding in report.findings}


def test_one_row() -> None:
    report = data.check(pairs([("a", "x")]), batch_size=8)
    assert [finding.name for finding in report.findings] == ["fewer-rows-than-batch"]
    assert "8" in report.findings[0].detail


def test_anchor_is_positive() -> None:
    report = data.check(pairs([("a", "A "), ("b", "x"), ("", "")]))
    same = found(report, "anchor-is-positive")
    assert (same.severity, same.count) == ("warning", 1)  # the empty pair is counted as empty
    assert same.examples == ('row 1: "a"',)


def test_contradictory_labels() -> None:
    report = data.check(labelled([("a", "x"), ("b", "x"), ("A", "y"), ("a", "x"), ("b", "x"), ("c", "y")]))
    contradictory = found(report, "contradictory-labels")
    assert (contradictory.severity, contradictory.count, contradictory.share) == ("warning", 3, 0.5)
    assert any('row 3: "A" | "y"' in line for line in contradictory.examples)


def test_contradictory_scores_in_either_order() -> None:
    report = data.check(scored([("a", "b", 0.5), ("b", "A", 0.6), ("a", "c", 0.5), ("c", "a", 0.5)]))
    assert found(report, "contradictory-scores").count == 2


def test_contradictory_pairs() -> None:
    rows = [("a", "p", "n"), ("b", "q", "m"), ("c", "r", "R"), ("a", "z", "P"), ("q", "s", "b")]
    contradictory = found(data.check(pairs(rows)), "contradictory-pairs")
    assert contradictory.severity == "warning"
    assert [line.split(":")[0] for line in contradictory.examples] == ["row 3", "row 4", "row 5"]


def oracle_contradictory_pairs(rows: list[tuple[str, ...]]) -> int:
    near = {frozenset((anchor, positive)) for anchor, positive, *_ in rows}
    return sum(any(frozenset((anchor, negative)) in near for negative in negatives) for anchor, _, *negatives in rows)


@pytest.mark.parametrize("seed", range(5))
def test_counts_against_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [tuple(map(str, row)) for row in rng.integers(0, 12, (60, 4)).tolist()]
    findings = {
        finding.name: finding.count
        for finding in data.check(pairs([(f"t{a}", f"t{b}", f"t{c}", f"t{d}") for a, b, c, d in rows])).findings
    }
    assert findings.get("contradictory-pairs", 0) == oracle_contradictory_pairs(rows)
    assert findings.get("duplicate-rows", 0) == len(rows) - len(set(rows))
    assert findings.get("anchor-is-positive", 0) == sum(row[0] == row[1] for row in rows)
    texts = [(row[0], row[1]) for row in rows]
    of_text = {text: {label for other, label in texts if other == text} for text, _ in texts}
    expected = sum(len(of_text[text]) > 1 for text, _ in texts)
    assert found(data.check(labelled([(f"t{a}", f"l{b}") for a, b in texts])), "contradictory-labels").count == expected


def test_one_class_and_classes_of_one_row() -> None:
    assert found(data.check(labelled([("a", "x"), ("b", "x")])), "one-class").severity == "warning"
    single = found(data.check(labelled([("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")])), "single-row-classes")
    assert (single.severity, single.count) == ("info", 2)
    assert single.examples == ("y, z",)
    assert found(data.check(labelled([("a", "x"), ("b", "y")])), "single-row-classes").severity == "warning"


def test_scores_out_of_range_and_equal_scores() -> None:
    report = data.check(scored([("a", "b", 0.0), ("c", "d", 5.0), ("e", "f", -1.0)]))
    assert found(report, "score-range").count == 1
    assert "from -1 to 5" in found(report, "score-range").detail
    assert found(data.check(scored([("a", "b", 0.5), ("c", "d", 0.5)])), "equal-scores").severity == "warning"


def test_numbers_for_texts_and_lost_characters() -> None:
    report = data.check(pairs([("1", "caf\ufffd"), ("2.5", "x")]))
    assert "'anchor'" in found(report, "only-numbers").detail
    assert (found(report, "lost-characters").count, found(report, "lost-characters").share) == (1, 0.5)


def test_false_negatives_are_weighed() -> None:
    rows = [(f"q{i}", f"a{i}") for i in range(1000)]
    rare = data.check(pairs([*rows, ("q0", "other")]), batch_size=2)
    assert found(rare, "false-negatives").severity == "info"
    assert found(rare, "false-negatives").count == pytest.approx(2 * 2 * 1 / (1001 * 1000))
    many = data.check(pairs([(f"q{i % 50}", f"a{i}") for i in range(1000)]), batch_size=64)
    finding = found(many, "false-negatives")
    assert finding.severity == "warning"
    assert finding.count == pytest.approx(64 * 63 * 2 * 50 * 190 / (1000 * 999))
    assert '20 times as anchor, row 1: "q0"' in finding.examples
    texts = data.check(Examples.from_columns({"text": ["a", "a", "b", "c"]}), batch_size=4)
    assert found(texts, "false-negatives").count == pytest.approx(2.0)


def test_lonely_anchors() -> None:
    report = data.check(labelled([(f"t{i}", f"class {i % 50}") for i in range(100)]), batch_size=4)
    lonely = found(report, "lonely-anchors")
    assert lonely.severity == "warning"
    assert lonely.share == pytest.approx(96 / 99)
    assert "0.0303 positives" in lonely.detail


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_lengths() -> None:
    rows = [("one two", "a b c d e f")] * 5 + [("one", "a")] * 45
    report = data.check(pairs([(f"{a} {i}", p) for i, (a, p) in enumerate(rows)]), token_lengths=words, token_limit=4)
    cut = found(report, "texts-cut")
    assert (cut.severity, cut.count, cut.share) == ("warning", 5, 0.05)
    assert "10.0 % of 'positive'" in cut.detail
    assert "'anchor'" not in cut.detail
    assert "longest 6" in cut.detail
    within = data.check(pairs(CLEAN), token_lengths=words, token_limit=512)
    assert found(within, "text-lengths").severity == "info"
    assert "median 2 tokens, longest 2" in found(within, "text-lengths").detail
    assert "text-lengths" in {finding.name for finding in data.check(pairs(CLEAN), token_lengths=words).findings}
    with pytest.raises(UsageError, match="lengths for 20 texts"):
        data.check(pairs(CLEAN), token_lengths=lambda texts: [1])


def test_lengths_of_large_data_are_measured_on_rows_evenly_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfar.data import findings_batch

    monkeypatch.setattr(findings_batch, "MEASURED_ROWS", 100)
    seen: list[str] = []

    def lengths(texts: list[str]) -> list[int]:
        seen.extend(texts)
        return words(texts)

    report = data.check(
        Examples.from_columns({"text": [str(i) + " x" * (i % 2) for i in range(10_001)]}),
        token_lengths=lengths,
        token_limit=1,
    )
    assert len(seen) == 100
    assert seen[0] == "0"
    assert seen[-1].split()[0] == "10000"
    assert "measured on 100 of 10,001 rows" in found(report, "texts-cut").detail
    assert 0.3 < (found(report, "texts-cut").share or 0) < 0.7


def test_overlap_of_pairs() -> None:
    train = pairs([("a", "x"), ("b", "y"), ("c", "z")])
    report = data.check(train, evaluation=pairs([("A", "x"), ("y", "b"), ("c", "new"), ("new", "z"), ("u", "v")]))
    assert found(report, "overlap-pairs").count == 2
    assert found(report, "overlap-pairs").examples[0] == 'evaluation row 1: "A" | "x"'
    texts = {finding.severity: finding for finding in report.findings if finding.name == "overlap-texts"}
    assert texts["warning"].count == 3  # anchors A, y and c
    assert texts["info"].count == 3  # positives x, b and z
    assert texts["warning"].share == pytest.approx(0.6)


def test_overlap_of_other_shapes() -> None:
    train = labelled([("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")])
    assert found(data.check(train, evaluation=labelled([("B", "x"), ("e", "y")])), "overlap-texts").share == 0.5
    assert found(data.check(train, evaluation=train), "overlap-texts").share == 1.0
    report = data.check(pairs([("a", "x"), ("b", "y")]), evaluation=scored([("x", "a", 1.0), ("p", "q", 0.0)]))
    assert found(report, "overlap-pairs").count == 1
    assert not data.check(train, evaluation=Examples.from_columns({"text": []})).warnings


def test_overlap_with_a_retrieval_set() -> None:
    train = pairs([("a", "x"), ("b", "y")])
    evaluation = RetrievalSet(
        ["1", "2", "3"], ["X", "new", "y"], ["p", "q"], ["A", "fresh"], {"p": {"1": 1, "3": 0}, "q": {"2": 2}}
    )
    report = data.check(train, evaluation=evaluation)
    assert (found(report, "overlap-pairs").count, found(report, "overlap-pairs").share) == (1, 0.5)
    texts = {finding.severity: finding.count for finding in report.findings if finding.name == "overlap-texts"}
    assert texts == {"warning": 1, "info": 2}
    assert report.evaluation_rows == 2


def test_skipped_rows_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\noops\n\n{"text": "b"}\n{"text": 1}\n')
    report = data.check(data.read(path, max_bad_rows=5))
    bad = found(report, "bad-rows")
    assert (bad.severity, bad.count, bad.share) == ("info", 2, 0.5)
    assert "line 2" in bad.examples[0]
    assert found(report, "blank-lines").count == 1


def test_a_report_is_json_and_text_and_strict() -> None:
    rows = [("a", "A"), ("b\x1b[2J", "y"), ("b\x1b[2J", "y"), ("c", "")]
    report = data.check(pairs(rows), batch_size=100, evaluation=pairs(rows))
    written = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    findings = written.pop("findings")
    assert written == {"shape": "pairs", "rows": 4, "batch_size": 100, "evaluation_rows": 4}
    assert [Finding(**{**row, "examples": tuple(row["examples"])}) for row in findings] == report.findings
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    text = report.text()
    assert "\x1b" not in text
    for finding in report.findings:
        assert finding.name in text
        assert finding.detail in text
    report.raise_on_errors()
    with pytest.raises(DataError, match=r"--strict(.|\n)*anchor-is-positive") as caught:
        report.raise_if_strict()
    assert all(finding.name in str(caught.value) for finding in report.warnings)


def test_the_same_data_gives_the_same_report() -> None:
    rng = np.random.default_rng(0)
    rows = [(f"t{a}", f"t{b}", f"t{c}") for a, b, c in rng.integers(0, 9, (200, 3)).tolist()]
    first, second = (data.check(pairs(rows), batch_size=16, evaluation=pairs(rows[:5])).to_dict() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": -3}, {"token_limit": 0}])
def test_options_without_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        data.check(pairs(CLEAN), **options)
    with pytest.raises(UsageError, match="only examples"):
        data.check([("a", "b")])  # type: ignore[arg-type]
