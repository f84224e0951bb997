import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.charts import Series, bar_width, column_chart, nice_ceiling, percent, spark_bars, split_bar


def test_columns_are_stacked_from_the_bottom_and_scaled_to_the_highest() -> None:
    chart = column_chart(["a", "b"], [Series("x", "X", (3, 0)), Series("y", "Y", (1, 2))])
    assert chart.y_labels == ("4", "3", "2", "1", "0")
    first, second = chart.columns
    assert [(shape.key, shape.y, shape.height) for shape in first.shapes] == [("x", "25", "75"), ("y", "0", "25")]
    assert [(shape.key, shape.y, shape.height) for shape in second.shapes] == [("y", "50", "50")]
    assert (first.total, second.total, chart.total) == (4, 2, 6)
    assert first.tip == "a: 4\nY: 1\nX: 3"
    assert second.tip == "b: 2\nY: 2"


def test_series_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="one value per label"):
        column_chart(["a"], [Series("x", "X", (1, 2))])


def test_chart_without_columns_has_no_shapes() -> None:
    chart = column_chart([], [])
    assert (chart.columns, chart.total) == ((), 0)


@given(st.lists(st.lists(st.integers(0, 10**7), min_size=3, max_size=3), min_size=1, max_size=95))
def test_no_shape_leaves_the_box_and_heights_add_up(rows: list[list[int]]) -> None:
    series = [Series(str(index), str(index), tuple(row[index] for row in rows)) for index in range(3)]
    chart = column_chart([str(index) for index in range(len(rows))], series)
    top = nice_ceiling(max(sum(row) for row in rows))
    for column, row in zip(chart.columns, rows, strict=True):
        assert sum(float(shape.height) for shape in column.shapes) == pytest.approx(100 * sum(row) / top, abs=0.01)
        for shape in column.shapes:
            assert float(shape.y) >= -0.001
            assert float(shape.y) + float(shape.height) <= 100.001
            assert 0 <= float(shape.x) < float(shape.x) + float(shape.width) <= 100.001
    assert len(chart.x_labels) <= 10


@given(st.integers(0, 10**9))
def test_axis_reaches_the_value_with_four_whole_steps_and_wastes_little(value: int) -> None:
    top = nice_ceiling(value)
    assert top >= value
    assert top % 4 == 0
    assert top <= max(4, 2 * value + 4)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "\N{EN DASH}"),
        (0, 7, "0 %"),
        (7, 7, "100 %"),
        (1, 3, "33 %"),
        (1, 100_000, "0.1 %"),
        (1, 250, "0.4 %"),
        (999_999, 1_000_000, "99.9 %"),
    ],
)
def test_percent_says_zero_and_hundred_only_when_it_is_true(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


def test_split_bar_leaves_out_empty_parts_and_fills_the_whole() -> None:
    parts = split_bar({"a": 1, "b": 0, "c": 3})
    assert [(part.key, part.x, part.width, part.percent) for part in parts] == [
        ("a", "0", "25", "25 %"),
        ("c", "25", "75", "75 %"),
    ]
    assert split_bar({"a": 0}) == ()


def test_small_bars_stay_visible_and_empty_ones_do_not() -> None:
    assert [bar_width(value, 1000) for value in (0, 1, 500, 1000)] == ["0", "1", "50", "100"]


def test_negative_days_are_drawn_as_no_bar() -> None:
    assert [(bar.x, bar.height) for bar in spark_bars([2, -1, 4])] == [("3.333", "50"), ("70", "100")]
