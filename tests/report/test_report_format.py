from __future__ import annotations

import math

import numpy as np
import pytest

from nearfar.report import format as fmt


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        (0.58837, 3, "0.588"),
        (-0.5, 2, "−0.50"),
        (36812, 0, "36,812"),
        (0, 3, "0.000"),
        (2e-5, 3, "2.00e−5"),
        (2e-5, 6, "0.000020"),
        (1e300, 3, "1.00e300"),
        (math.inf, 3, "∞"),
        (-math.inf, 3, "−∞"),
        (math.nan, 3, "–"),
        (None, 3, "–"),
        ("0.5", 3, "–"),
        (True, 3, "–"),
        (10**400, 3, "–"),
        (np.float32(0.25), 2, "0.25"),
        (np.int64(7), 0, "7"),
    ],
)
def test_number(value: object, digits: int, written: str) -> None:
    assert fmt.number(value, digits) == written


def test_signed_has_a_sign_on_both_sides_of_zero() -> None:
    assert [fmt.signed(value, 2) for value in (0.164, -0.164, 0, math.nan)] == ["+0.16", "−0.16", "0.00", "–"]


def test_percent_never_rounds_something_to_nothing() -> None:
    assert [fmt.percent(value) for value in (0.0112, 1, 0, 0.0001, math.nan, None)] == [
        "1.1 %",
        "100.0 %",
        "0.0 %",
        "< 0.1 %",
        "–",
        "–",
    ]


def test_count_shows_a_decimal_of_small_expectations_only() -> None:
    assert [fmt.count(value) for value in (2.4, 19.16, 3, 1204.0, None)] == ["2.4", "19", "3", "1,204", "–"]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.84, "0.8 s"),
        (9.96, "10 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (85.2, "1 min 25 s"),
        (3599.8, "1 h"),
        (7500, "2 h 5 min"),
        (-1, "–"),
        (math.nan, "–"),
        ("soon", "–"),
    ],
)
def test_duration(seconds: object, written: str) -> None:
    assert fmt.duration(seconds) == written


def test_decimals_follow_the_largest_value() -> None:
    assert [fmt.decimals(values) for values in ([0.5, 0.01], [1.5, 0.2], [88.4], [1204, 3], [], [math.nan, None])] == [
        3,
        3,
        2,
        0,
        3,
        3,
    ]


def test_measure_names() -> None:
    names = ["mrr", "ndcg@10", "recall@1", "random_similarity", "knn_accuracy", "bm25"]
    assert [fmt.measure_name(name) for name in names] == [
        "MRR",
        "nDCG@10",
        "recall@1",
        "random similarity",
        "kNN accuracy",
        "BM25",
    ]


def test_interval_needs_both_ends() -> None:
    assert fmt.interval(0.567, 0.609) == "0.567 to 0.609"
    assert fmt.interval(None, 0.6) == fmt.interval(0.5, math.nan) == "–"


def test_shorten_cuts_at_the_length_and_joins_lines() -> None:
    assert fmt.shorten("one\n  two", 20) == "one two"
    assert fmt.shorten("a" * 30, 10) == "a" * 9 + "…"
