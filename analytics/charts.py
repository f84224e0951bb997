"""Geometry of the charts: numbers in, shapes in a 0..100 box out. Pure; templates/components draw them as
SVG.

Shapes are stretched to the space there is, so they carry no text: labels stand in HTML around them.
Coordinates are text with a point as decimal mark, whatever the locale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log10
from typing import Final

# A share of nothing.
DASH: Final = "\N{EN DASH}"
_GAP = 0.22
_GRIDLINES = 4
_X_LABELS = 5
# So few columns have a label each.
_X_ALL = 10


@dataclass(frozen=True, slots=True)
class Series:
    """One layer of a stacked column chart; `values` one per column, never negative."""

    key: str
    name: str
    values: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.values)


@dataclass(frozen=True, slots=True)
class Shape:
    """A rectangle of series `key`."""

    key: str
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its shapes, the full-height area that reacts to the pointer, and what to say about it."""

    label: str
    x: str
    width: str
    shapes: tuple[Shape, ...]
    values: tuple[int, ...]
    total: int
    tip: str


@dataclass(frozen=True, slots=True)
class ColumnChart:
    """A stacked column chart in a 100 x 100 box with its axis labels, top to bottom and left to right."""

    columns: tuple[Column, ...]
    series: tuple[Series, ...]
    y_labels: tuple[str, ...]
    gridlines: tuple[str, ...]
    x_labels: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(column.total for column in self.columns)

    @property
    def labels_each(self) -> bool:
        """True if every column has its own label, which then stands in the column's middle."""
        return len(self.x_labels) == len(self.columns)


def column_chart(labels: Sequence[str], series: Sequence[Series]) -> ColumnChart:
    """Stack `series` (first at the bottom) over `labels`. Raises ValueError if a series has another length."""
    if any(len(one.values) != len(labels) for one in series):
        raise ValueError("Every series needs one value per label.")
    totals = [sum(one.values[index] for one in series) for index in range(len(labels))]
    top = nice_ceiling(max(totals, default=0))
    step = 100 / max(1, len(labels))
    columns = tuple(_column(index, label, series, totals[index], top, step) for index, label in enumerate(labels))
    marks = [top * index // _GRIDLINES for index in range(_GRIDLINES, -1, -1)]
    return ColumnChart(
        columns=columns,
        series=tuple(series),
        y_labels=tuple(f"{mark:,}" for mark in marks),
        gridlines=tuple(_text(100 * index / _GRIDLINES) for index in range(_GRIDLINES + 1)),
        x_labels=tuple(_spread(labels)),
    )


def _column(index: int, label: str, series: Sequence[Series], total: int, top: int, step: float) -> Column:
    x, width = step * (index + _GAP / 2), step * (1 - _GAP)
    shapes, filled = [], 0
    for one in series:
        value = one.values[index]
        if value:
            height = 100 * value / top
            filled += value
            shapes.append(Shape(one.key, _text(x), _text(100 - 100 * filled / top), _text(width), _text(height)))
    told = [f"{one.name}: {one.values[index]:,}" for one in reversed(series) if one.values[index]]
    return Column(
        label=label,
        x=_text(step * index),
        width=_text(step),
        shapes=tuple(shapes),
        values=tuple(one.values[index] for one in series),
        total=total,
        tip="\n".join([f"{label}: {total:,}", *told]),
    )


def nice_ceiling(value: int) -> int:
    """The smallest 4, 8, 12, 16, 20, 40 ... that is not below `value`, so that four gridlines fall on whole
    numbers.
    """
    if value <= 4:
        return 4
    magnitude = 10 ** int(log10(value))
    candidates = sorted({factor * magnitude for factor in (1, 2, 4, 8, 10, 12, 16, 20)} | {4, 8, 12, 16, 20})
    return next((one for one in candidates if one >= value and one % _GRIDLINES == 0), ceil(value / 4) * 4)


def _spread(labels: Sequence[str]) -> list[str]:
    """All labels of a few columns, else five at even distances, the first and the last among them."""
    if len(labels) <= _X_ALL:
        return list(labels)
    last = len(labels) - 1
    return [labels[round(last * index / (_X_LABELS - 1))] for index in range(_X_LABELS)]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a split bar: where it lies on 0..100, and its share in percent."""

    key: str
    x: str
    width: str
    percent: str


def split_bar(values: Mapping[str, int]) -> tuple[Part, ...]:
    """One bar of length 100 split by the values, empty parts left out."""
    total = sum(values.values())
    parts, start = [], 0
    for key, value in values.items():
        if value:
            width = 100 * value / total
            parts.append(Part(key, _text(100 * start / total), _text(width), percent(value, total)))
            start += value
    return tuple(parts)


def bar_width(value: int, most: int) -> str:
    """The length of a bar on 0..100; anything above zero stays visible."""
    return "0" if value <= 0 or most <= 0 else _text(max(1.0, 100 * value / most))


def spark_bars(values: Sequence[int]) -> tuple[Shape, ...]:
    """A row of thin bars in a 100 x 100 box; negative values are drawn as none."""
    most = max((*values, 1))
    step = 100 / max(1, len(values))
    return tuple(
        Shape("", _text(step * index + step * 0.1), _text(100 - height), _text(step * 0.8), _text(height))
        for index, value in enumerate(values)
        if (height := 100 * max(0, value) / most) > 0
    )


def percent(part: int, whole: int) -> str:
    """`41 %`, `0.4 %` or `100 %`; never 0 or 100 unless it is exactly that. A dash for a share of nothing."""
    if whole <= 0:
        return DASH
    share = 100 * part / whole
    if 0 < share < 1:
        return f"{max(share, 0.1):.1f} %"
    if 99 < share < 100:
        return f"{min(share, 99.9):.1f} %"
    return f"{share:.0f} %"


def cumulative(values: Sequence[int]) -> list[int]:
    """Running totals."""
    totals = [0]
    for value in values:
        totals.append(totals[-1] + value)
    return [after for _, after in pairwise(totals)]


def _text(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".") or "0"
