from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nearfar.data import Examples
from nearfar.data.few_shot import draw_per_label, hold_out_per_label, without_texts_of
from nearfar.errors import DataError, UsageError

LABELS = np.array([5, 2, 2, 5, 5, 9, 2, 5, 2, 2])


def test_so_many_of_each_label_and_all_where_there_are_fewer() -> None:
    for shots in (1, 3, 4, 50):
        rows = draw_per_label(LABELS, shots)
        assert Counter(LABELS[rows].tolist()) == {2: min(5, shots), 5: min(4, shots), 9: 1}
        assert len(set(rows.tolist())) == len(rows)
    assert len(draw_per_label(np.empty(0, np.int64), 3)) == 0


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    many = np.arange(400) % 4
    draws = [draw_per_label(many, 5, seed=1, draw=number) for number in range(3)]
    assert draws[2].tolist() == draw_per_label(many, 5, seed=1, draw=2).tolist()
    assert len({tuple(each.tolist()) for each in (*draws, draw_per_label(many, 5, seed=2))}) == 4
    counts = np.bincount(np.concatenate([draw_per_label(many, 5, draw=number) for number in range(800)]))
    assert counts.min() > 15  # 40 are expected of each row
    assert counts.max() < 75


def labelled(texts: str, labels: str) -> Examples:
    return Examples.from_columns({"text": texts.split(), "label": labels.split()})


def test_each_label_gives_its_share_and_no_text_is_in_both() -> None:
    random = np.random.default_rng(0)
    texts = [f"t{number % 90}" for number in range(120)]  # thirty texts come twice
    examples = Examples.from_columns({"text": texts, "label": [f"{number % 90 % 3}" for number in range(120)]})
    left, held = hold_out_per_label(examples, 0.3, seed=int(random.integers(9)))
    assert len(left) + len(held) == 120
    assert set(left.column("text")).isdisjoint(held.column("text"))
    for label in "012":
        assert held.column("label").count(label) == pytest.approx(12, abs=1)
    order = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    places = [order[text] for text in dict.fromkeys(held.column("text"))]
    assert places == sorted(places)
    again = hold_out_per_label(examples, 0.3, seed=0)[1]
    assert again.column("text") == hold_out_per_label(examples, 0.3, seed=0)[1].column("text")
    assert again.column("text") != hold_out_per_label(examples, 0.3, seed=1)[1].column("text")


def test_rare_labels() -> None:
    left, held = hold_out_per_label(labelled("a b c d e", "x x y z z"), 0.01)
    assert sorted(left.column("label")) == ["x", "y", "z"]
    assert sorted(held.column("label")) == ["x", "z"]
    left, held = hold_out_per_label(labelled("a b c d e", "x x y z z"), 0.99)
    assert sorted(left.column("label")) == ["x", "y", "z"]
    with pytest.raises(DataError, match="two different texts"):
        hold_out_per_label(labelled("a A b", "x x y"), 0.5)
    with pytest.raises(UsageError):
        hold_out_per_label(labelled("a b", "x x"), 1.0)
    with pytest.raises(UsageError):
        hold_out_per_label(Examples.from_columns({"text": ["a", "b"]}), 0.5)


def test_texts_of_the_other_are_left_out() -> None:
    kept = without_texts_of(labelled("a b c A d", "x x y x y"), labelled("a q d", "x x x"))
    assert kept.column("text") == ["b", "c"]
