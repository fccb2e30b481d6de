"""Small drawings as SVG inside a page, whose colours come from the page. Numbers in, text out; nothing is loaded.

Each is so wide that its letters can be read where it fills the width of a phone."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from odin_core.features.report.page import number
from odin_core.features.series import FloatArray

LEFT: Final = 56.0  # labels stand left of it
RIGHT: Final = 354.0
WIDTH: Final = 360
PRICE: Final = (8.0, 62.0)  # top and bottom of the price
VALUE: Final = (78.0, 166.0)  # and of the feature
HEIGHT: Final = 184
FAN: Final = (6.0, 80.0)
FAN_WIDTH: Final = 240
NEAR: Final = 10.0  # labels closer than this would touch
WORD: Final = 36.0  # and so wide is one


@dataclass(frozen=True)
class TimeAxis:
    """Where rows lie from left to right: one after the other, whatever time passes between them.

    breaks: rows (ascending, the first is 0) before which lines are interrupted; marks: rows with a label below."""

    rows: int
    breaks: NDArray[np.intp]
    marks: Sequence[tuple[int, str]]
    right: float = RIGHT

    def at(self, row: FloatArray | float) -> FloatArray | float:
        return LEFT + (row + 0.5) * (self.right - LEFT) / max(self.rows, 1)


def price_panel(name: str, axis: TimeAxis, close: FloatArray) -> str:
    """A symbol called `name`, drawn elsewhere by `use`: the price and the time axis."""
    low, high = _span(close)
    marks = _marks([(float(axis.at(row)), text) for row, text in axis.marks], HEIGHT - 4)
    edges = "".join(
        f'<path class="rule" d="M{axis.at(row - 0.5):.1f} {PRICE[0]}V{VALUE[1]}"/>' for row in axis.breaks.tolist()[1:]
    )
    return (
        f'<symbol id="{name}" viewBox="0 0 {WIDTH} {HEIGHT}">{edges}{marks}{_labels(PRICE, low, high)}'
        f'<path class="price" d="{_path(axis, close, PRICE, low, high)}"/></symbol>'
    )


def value_plot(price: str, axis: TimeAxis, value: FloatArray, bounds: tuple[float, float], middle: float | None) -> str:
    """A feature below the price that the symbol `price` draws. It fills its bounds where both are finite, else its own
    values do; `middle` is dashed where it lies inside."""
    low, high = bounds if np.isfinite(bounds).all() else _span(value)
    dashed, at = "", middle
    if middle is not None and low < middle < high:
        dashed = f'<path class="middle" d="M{LEFT} {_height(middle, VALUE, low, high):.1f}H{RIGHT}"/>'
    else:
        at = None
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><use href="#{price}"/>{dashed}'
        f"{_labels(VALUE, low, high, at)}"
        f'<path class="value" d="{_path(axis, value, VALUE, low, high)}"/></svg>'
    )


def fan(lowest: FloatArray, low: FloatArray, middle: FloatArray, high: FloatArray, highest: FloatArray) -> str:
    """How a distribution goes over sessions: a wide band, a narrow one inside it and a line, each (sessions,)."""
    axis = TimeAxis(len(middle), np.array([0]), (), FAN_WIDTH - 6.0)
    bottom, top = _span(np.concatenate([lowest, highest]))
    bands = "".join(
        f'<path class="{name}" d="{_band(axis, below, above, bottom, top)}"/>'
        for name, below, above in (("wide", lowest, highest), ("band", low, high))
    )
    return (
        f'<svg viewBox="0 0 {FAN_WIDTH} 86" role="img">{bands}{_labels(FAN, bottom, top)}'
        f'<path class="value" d="{_path(axis, middle, FAN, bottom, top)}"/></svg>'
    )


def strips(shares: FloatArray, names: Sequence[str], marks: Sequence[tuple[int, str]]) -> str:
    """A heat map, shares (names, columns) of 0 to 1 or NaN: nothing drawn is NaN, red is 0, the fuller the bluer.
    Neighbours that look alike are one rectangle."""
    width, left, height = 720, 210, 12
    across = (width - left - 22) / max(shares.shape[1], 1)
    parts = []
    for n, (name, row) in enumerate(zip(names, shares, strict=True)):
        parts.append(f'<text x="{left - 6}" y="{n * height + 10}" text-anchor="end">{html.escape(name)}</text>')
        steps = np.where(np.isnan(row), -1.0, np.where(row > 0, np.ceil(row * 20) / 20, 0.0))
        starts = np.flatnonzero(np.diff(steps, prepend=np.nan) != 0)
        for start, end in zip(starts.tolist(), [*starts.tolist()[1:], len(steps)], strict=True):
            if steps[start] >= 0:
                look = f'class="full" opacity="{0.15 + 0.85 * steps[start]:.2f}"' if steps[start] else 'class="none"'
                parts.append(
                    f'<rect x="{left + start * across:.1f}" y="{n * height}" width="{(end - start) * across:.1f}" '
                    f'height="{height - 1}" {look}/>'
                )
    bottom = len(names) * height
    parts.append(_marks([(left + (column + 0.5) * across, text) for column, text in marks], bottom + 12))
    return f'<svg viewBox="0 0 {width} {bottom + 18}" role="img">{"".join(parts)}</svg>'


def _span(values: FloatArray) -> tuple[float, float]:
    """Lowest and highest, moved apart where they are one."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    apart = 0.0 if high > low else abs(low) * 0.1 or 1.0
    return low - apart, high + apart


def _height(value: FloatArray | float, panel: tuple[float, float], low: float, high: float) -> FloatArray | float:
    top, bottom = panel
    return bottom - (value - low) / (high - low) * (bottom - top)


def _path(axis: TimeAxis, values: FloatArray, panel: tuple[float, float], low: float, high: float) -> str:
    """A line through what is known, interrupted where nothing is; a value alone becomes a dot."""
    x = np.char.mod("%.1f", axis.at(np.arange(len(values), dtype=np.float64)))
    y = np.char.mod("%.1f", _height(values, panel, low, high))
    is_known = np.isfinite(values)
    begins = is_known & ~np.append(False, is_known[:-1])
    begins[axis.breaks[axis.breaks < len(values)]] = True
    ends = np.append(begins[1:] | ~is_known[1:], True)
    parts = [
        f"M{x[i]} {y[i]}{'h0' if ends[i] else ''}" if begins[i] else f"L{x[i]} {y[i]}"
        for i in np.flatnonzero(is_known).tolist()
    ]
    return "".join(parts)


def _band(axis: TimeAxis, below: FloatArray, above: FloatArray, low: float, high: float) -> str:
    """The area between two lines, in one piece for each stretch of known values."""
    known = np.flatnonzero(np.isfinite(below) & np.isfinite(above))
    parts = []
    for stretch in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if len(stretch):
            rows = np.concatenate([stretch, stretch[::-1]])
            heights = np.concatenate([above[stretch], below[stretch[::-1]]])
            x = axis.at(rows.astype(np.float64))
            points = zip(np.char.mod("%.1f", x), np.char.mod("%.1f", _height(heights, FAN, low, high)), strict=True)
            parts.append(f"M{'L'.join(f'{a} {b}' for a, b in points)}Z")
    return "".join(parts)


def _labels(panel: tuple[float, float], low: float, high: float, middle: float | None = None) -> str:
    top, bottom = panel
    places = [(high, top), (low, bottom)]
    if middle is not None:
        at = float(_height(middle, panel, low, high))
        places += [(middle, at)] if min(at - top, bottom - at) > NEAR else []
    rules = f'<path class="rule" d="M{LEFT} {top}V{bottom}"/>'
    return rules + "".join(
        f'<text x="{LEFT - 5}" y="{at + 3.5:.1f}" text-anchor="end">{number(value)}</text>' for value, at in places
    )


def _marks(places: Sequence[tuple[float, str]], y: float) -> str:
    """Labels below an axis, those left out that would touch the one before."""
    kept: list[tuple[float, str]] = []
    for x, text in places:
        if not kept or x - kept[-1][0] > WORD:
            kept.append((x, text))
    return "".join(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{html.escape(text)}</text>' for x, text in kept)
