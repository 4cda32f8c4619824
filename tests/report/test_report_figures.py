from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nearfar.report import figures
from nearfar.report.figures.curves import running_mean
from nearfar.report.figures.values import thinned


def column(figure: Any, title: str) -> list[Any]:
    index = [heading.title for heading in figure.table.columns].index(title)
    return [row[index] for row in figure.table.rows]


def losses(count: int) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 10 / step, "epoch": step / 10} for step in range(1, count + 1)]


def test_training_curve_draws_and_lists_every_step() -> None:
    records = [*losses(20), {"step": 10, "evaluation": {"mrr": {"value": 0.5, "low": 0.4, "high": 0.6}}}]
    figure = figures.training_curve(records, main="mrr")
    raw, band, measure = figure.plot.data
    assert list(raw.x) == list(range(1, 21))
    assert list(raw.y) == [10 / step for step in range(1, 21)]
    assert list(band.y) == [0.6, 0.4]
    assert (list(measure.x), list(measure.y), measure.yaxis) == ([10], [0.5], "y2")
    assert column(figure, "step") == list(range(1, 21))
    assert column(figure, "loss") == [10 / step for step in range(1, 21)]
    assert [value for value in column(figure, "MRR") if value is not None] == [0.5]
    assert column(figure, "95 % interval")[9] == "0.400 to 0.600"


def test_training_curve_smooths_long_runs_only() -> None:
    assert len(figures.training_curve(losses(59)).plot.data) == 1
    figure = figures.training_curve(losses(60))
    assert len(figure.plot.data) == 2
    assert "running mean" in str(figure.caption)


def test_training_curve_takes_the_last_word_on_a_step_and_sorts() -> None:
    records = [{"step": 2, "loss": 9.0}, {"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}]
    figure = figures.training_curve(records)
    assert list(figure.plot.data[0].x) == [1, 2]
    assert list(figure.plot.data[0].y) == [5.0, 4.0]


def test_training_curve_leaves_a_gap_where_the_loss_is_not_finite() -> None:
    figure = figures.training_curve(
        [{"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": None}]
    )
    assert list(figure.plot.data[0].y) == [1.0, None, None]
    assert str(figure.table.cells()[1][1]) == "–"


def test_training_curve_falls_back_on_a_measure_that_was_evaluated() -> None:
    records = [{"step": 5, "evaluation": {"broken": {"value": None}, "map": 0.25}}]
    figure = figures.training_curve(records, main="mrr")
    assert column(figure, "MAP") == [0.25]
    assert list(figure.plot.data[-1].y) == [0.25]


def test_training_curve_thins_very_long_runs_and_says_so() -> None:
    figure = figures.training_curve(losses(5_000))
    assert len(figure.plot.data[0].x) == 2_000
    assert (figure.plot.data[0].x[0], figure.plot.data[0].x[-1]) == (1, 5_000)
    assert len(figure.table.rows) == 300
    assert figure.table.caption == "300 of 5,000 logged steps, evenly spaced"


def test_training_curve_of_nothing() -> None:
    figure = figures.training_curve([])
    assert len(figure.plot.data) == 0
    assert figure.table.rows == []


def test_running_mean_against_a_loop() -> None:
    random = np.random.default_rng(0)
    values: list[float | None] = random.normal(size=97).tolist()
    values[10] = values[11] = None
    reach = len(values) // 40
    for index, mean in enumerate(running_mean(values)):
        near = [v for v in values[max(0, index - reach) : index + reach + 1] if v is not None]
        if values[index] is None:
            assert mean is None
        else:
            assert mean == pytest.approx(sum(near) / len(near), abs=1e-12)


def test_thinned_keeps_both_ends_and_order() -> None:
    assert thinned([1, 2, 3], 3) == [1, 2, 3]
    rows = thinned(list(range(1_000)), 7)
    assert rows[0] == 0
    assert rows[-1] == 999
    assert list(rows) == sorted(set(rows))


def test_measures_show_value_and_interval_of_every_system() -> None:
    systems = {
        "before": {"mrr": {"value": 0.4, "low": 0.35, "high": 0.5, "n": 100}, "map": 0.3},
        "after": {"mrr": {"value": 0.6, "low": 0.5, "high": 0.65, "n": 100}},
    }
    figure = figures.measure_intervals(systems, main="mrr")
    points = {trace.name: trace for trace in figure.plot.data if trace.mode == "markers"}
    assert list(points["before"].x) == [0.4, 0.3]
    assert list(points["after"].error_x.array) == pytest.approx([0.05])
    assert list(points["before"].error_x.arrayminus) == pytest.approx([0.05, 0.0])
    rows = [[str(cell) for cell in row] for row in figure.table.cells()]
    assert rows == [
        ["MRR", "before", "0.400", "0.350 to 0.500", "100"],
        ["MRR", "after", "0.600", "0.500 to 0.650", "100"],
        ["MAP", "before", "0.300", "–", "–"],
    ]
    assert figure.table.emphasis == {0, 1}


def test_measures_on_another_scale_stand_in_the_table_only() -> None:
    figure = figures.measure_intervals({"a": {"rank": 120.0, "mrr": 0.5}, "b": {"rank": 3.0, "mrr": -0.2}})
    assert [list(trace.x) for trace in figure.plot.data if trace.mode == "markers"] == [[0.5], [-0.2]]
    assert "table only" in str(figure.caption)
    assert column(figure, "value") == [120.0, 3.0, 0.5, -0.2]


def test_systems_differ_by_symbol_and_never_lie_on_each_other() -> None:
    systems = {f"system {index}": {"mrr": 0.5, "map": 0.4} for index in range(6)}
    traces = [trace for trace in figures.measure_intervals(systems).plot.data if trace.mode == "markers"]
    assert len({trace.marker.symbol for trace in traces}) == 6
    heights = sorted(height for trace in traces for height in trace.y)
    assert len(set(heights)) == 12
    assert all(-0.5 < height < 0.5 for height in heights[:6])


def test_similarity_shares_sum_to_one_and_stand_in_the_table() -> None:
    random = np.random.default_rng(0)
    pair = {"positive": random.normal(0.6, 0.1, 300).tolist(), "negative": random.normal(0.1, 0.1, 500).tolist()}
    figure = figures.similarity_histograms({"before": pair, "after": pair})
    assert len(figure.table.rows) == 100
    for side in ("positives", "negatives"):
        assert sum(column(figure, side)[:50]) == pytest.approx(1)
    assert column(figure, "from")[1:50] == pytest.approx(column(figure, "to")[:49])
    assert "AUC 1.000" in figure.plot.layout.annotations[0].text


def test_overlap_and_auc_against_loops() -> None:
    random = np.random.default_rng(1)
    positive = random.normal(0.4, 0.3, 83).round(1)
    negative = random.normal(0.1, 0.3, 61).round(1)
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    assert figures.auc_of(positive, negative) == pytest.approx(wins / (83 * 61))
    first, second = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.25, 0.75])
    assert figures.overlap_of(first, second) == 0.25
    assert figures.overlap_of(first, first) == 1
    assert figures.overlap_of(first, np.zeros(3)) is None
    assert figures.auc_of(np.zeros(0), negative) is None


def test_similarities_that_are_equal_or_not_finite_or_absent() -> None:
    figure = figures.similarity_histograms({"before": {"positive": [0.5] * 4, "negative": [0.5, math.nan, None]}})
    assert sum(column(figure, "negatives")) == pytest.approx(1)
    assert "2 similarities were not finite" in str(figure.caption)
    assert "AUC 0.500" in figure.plot.layout.annotations[0].text
    assert figures.similarity_histograms({"before": {"positive": [], "negative": []}}).plot.layout.annotations
    assert figures.similarity_histograms({}).table.rows == []


def test_map_colours_the_largest_groups_and_greys_the_rest() -> None:
    group = [f"g{index % 12}" for index in range(120)] + ["big"] * 20 + [None]
    figure = figures.embedding_map([1.0] * 141, [2.0] * 141, [f"t{i}" for i in range(141)], group)
    names = [trace.name for trace in figure.plot.data]
    assert names[0] == "5 other groups"
    assert names[1] == "big"
    assert len(names) == 9
    assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.plot.data}) == 9
    assert sum(len(trace.x) for trace in figure.plot.data) == 141
    assert column(figure, "text") == [f"t{i}" for i in range(141)]
    assert figure.searchable


def test_map_escapes_texts_and_groups() -> None:
    figure = figures.embedding_map([0.0], [0.0], ["<b>x</b>\nline"], ["<i>"])
    assert figure.plot.data[0].text[0] == "&lt;b&gt;x&lt;/b&gt;<br>line<br><i>&lt;i&gt;</i>"
    assert figure.plot.data[0].name == "&lt;i&gt;"


def test_map_leaves_out_what_has_no_place_and_says_so() -> None:
    figure = figures.embedding_map([0.0, math.nan, 1.0], [0.0, 0.0, math.inf], ["a", "b", "c"])
    assert list(figure.plot.data[0].x) == [0.0]
    assert "2 texts without a finite place" in str(figure.caption)
    with pytest.raises(ValueError, match=r"have 2, 1, 1 and 1 items"):
        figures.embedding_map([0.0, 1.0], [0.0], ["a"])


def test_geometry_plane_has_an_arrow_from_before_to_after() -> None:
    states = {
        "before": {"alignment": 1.0, "uniformity": -2.0, "effective_rank": 10.0},
        "after": {"alignment": 0.5, "uniformity": -3.0, "effective_rank": 20.0, "random_similarity": None},
    }
    figure = figures.geometry_plane(states)
    arrow = next(note for note in figure.plot.layout.annotations if note.showarrow)
    assert (arrow.ax, arrow.ay, arrow.x, arrow.y) == (-2.0, 1.0, -3.0, 0.5)
    assert [list(row) for row in figure.table.rows] == [
        ["alignment", 1.0, 0.5],
        ["uniformity", -2.0, -3.0],
        ["effective rank", 10.0, 20.0],
    ]
    assert "ower is better" in str(figure.caption)
    low, high = figure.plot.layout.xaxis.range
    assert low < -3 < -2 < high


@pytest.mark.parametrize(
    ("after", "labels"), [(0.5, ["top", "bottom"]), (1.0, ["top", "bottom"]), (1.5, ["bottom", "top"])]
)
def test_geometry_labels_keep_clear_of_the_arrow_and_each_other(after: float, labels: list[str]) -> None:
    states = {"before": {"alignment": 1.0, "uniformity": -2.0}, "after": {"alignment": after, "uniformity": -2.0}}
    traces = figures.geometry_plane(states).plot.data
    assert [trace.textposition.split()[0] for trace in traces] == labels


def test_geometry_plane_of_one_state_or_without_numbers() -> None:
    one = figures.geometry_plane({"after": {"alignment": 0.5, "uniformity": -3.0}})
    assert not [note for note in one.plot.layout.annotations if note.showarrow]
    none = figures.geometry_plane({"after": {"alignment": math.nan}})
    assert len(none.plot.data) == 0
    assert str(none.table.cells()[0][1]) == "–"
