"""A picture of one symbol's structure at a session's close: prices, levels, the heatmap, regimes of the last sessions.

What is drawn is of `table`; nothing is computed here."""

from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from odin_core.features.series import FloatArray, IntArray
from odin_core.market.reference.actions import as_of, former_names
from odin_core.pictures import png
from odin_core.structure.density import LOOK_BACK
from odin_core.structure.heatmap import bin_edges
from odin_core.structure.regimes import DIRECTIONS, VOLATILITIES
from odin_core.structure.table import LEVEL_INTERVAL, LEVEL_SESSIONS, structure_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from odin_core.market.data import MarketData

COLOURS: Final = {
    "trend": "#4477aa", "range": "#c8c2a8", "volatile": "#cc6677",
    "low": "#cfe3d4", "medium": "#7fb6a4", "high": "#2f6f73",
    "support": "#228833", "resistance": "#bb3344",
}  # fmt: skip
LABELLED: Final = 8
"""Sessions that have their date below the axis, and levels that have their price beside them."""


class _Shown(NamedTuple):
    symbol: str
    session: date
    interval: str
    bars: pl.DataFrame  # adjusted as of the close, ascending
    place: IntArray  # (bars,), of a bar's session in `sessions`
    sessions: list[date]  # those with bars
    regimes: list[dict[str, float | str | None]]  # STRUCTURE of each of them; empty where there is none
    levels: pl.DataFrame


def structure_picture(data: "MarketData", symbol: str, session: date, dpi: int = 110) -> bytes:
    """A PNG: the last 500 bars of 15 minutes (or day bars where there are none) that levels follow from, each level
    from its first touch on, as wide as it is strong; at the right the heatmap around the close; below and behind the
    price the regimes, of each session as known at its own close. `symbol` must have a bar in `session`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _shown(data, symbol, session)
    figure = Figure(figsize=(11, 7), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, height_ratios=(5, 1, 1), width_ratios=(40, 1))
    price = figure.add_subplot(grid[0, 0])
    _draw_price(price, shown)
    _draw_heatmap(figure.add_subplot(grid[0, 1], sharey=price), shown)
    below = [figure.add_subplot(grid[row, 0], sharex=price) for row in (1, 2)]
    for axes, names, title in zip(below, (DIRECTIONS, VOLATILITIES), ("regime", "volatility"), strict=True):
        _draw_probabilities(axes, shown, names, title)
    starts = np.flatnonzero(np.diff(shown.place, prepend=-1))
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(len(starts), LABELLED)).astype(int))
    ticks = [f"{shown.sessions[n].day} {shown.sessions[n]:%b}" for n in chosen]
    for axes in (price, *below):
        axes.set_xticks(starts[chosen], ticks, fontsize=8)
        axes.tick_params(labelbottom=axes is below[-1])
    return png(figure)


def _shown(data: "MarketData", symbol: str, session: date) -> _Shown:
    calendar, close = data.calendar, data.calendar.hours(session).close
    earliest = min(max(data.profile.first_partition, calendar.first), session)
    sessions = calendar.sessions(earliest, session)[-LEVEL_SESSIONS:]
    found = structure_at(data, session)
    interval = LEVEL_INTERVAL
    bars = data.adjusted([symbol], sessions[0], session, interval, as_of=close)
    if bars.is_empty():
        interval = "day"
        bars = data.adjusted([symbol], sessions[0], session, interval, as_of=close)
    bars = bars.tail(LOOK_BACK)
    opens = pl.Series([calendar.hours(s).open for s in sessions], dtype=bars.schema["ts"])
    of, place = np.unique(opens.search_sorted(bars["ts"], side="right").to_numpy() - 1, return_inverse=True)
    drawn = [sessions[n] for n in of]
    renames = as_of(data.actions.rows, close).filter(pl.col("kind") == "rename")
    regimes = []
    for day in drawn:
        [name] = former_names([symbol], renames, calendar.hours(day).close)
        regimes.append(next(structure_at(data, day).rows.filter(symbol=name).iter_rows(named=True), {}))
    levels = found.levels.filter(symbol=symbol)
    return _Shown(symbol, session, interval, bars, place.astype(np.int64), drawn, regimes, levels)


def _draw_price(axes: "Axes", shown: _Shown) -> None:
    bars, count = shown.bars, shown.bars.height
    x = np.arange(count)
    for start, end, regime in _spans(shown):
        if regime.get("regime"):
            axes.axvspan(start, end, color=COLOURS[str(regime["regime"])], alpha=0.16, linewidth=0)
    axes.fill_between(x, bars["low"], bars["high"], color="#555555", alpha=0.35, linewidth=0)
    axes.plot(x, bars["close"], color="black", linewidth=0.8)
    low, high = float(np.nanmin(bars["low"].to_numpy())), float(np.nanmax(bars["high"].to_numpy()))
    margin = 0.04 * (high - low) or 0.01 * high
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, count * 1.08)
    named = set(shown.levels.sort("strength", descending=True)["price"].head(LABELLED))
    begins = bars["ts"].search_sorted(shown.levels["first_touch"], side="left").to_list()
    for begin, level in zip(begins, shown.levels.iter_rows(named=True), strict=True):
        colour, strength = COLOURS[level["kind"]], level["strength"]
        axes.hlines(
            level["price"], begin, count, color=colour, linewidth=0.5 + 3.5 * strength, alpha=0.25 + 0.6 * strength
        )
        if level["price"] in named:
            told = f" {level['price']:,.2f} ({level['touches']})"
            axes.text(count, level["price"], told, fontsize=7, color=colour, va="center", clip_on=True)
    last = shown.regimes[-1]
    told = [
        f"{last.get(tag) or 'unknown'} {name}"
        for tag, name in (("regime", "regime"), ("volatility_regime", "volatility"))
    ]
    axes.set_title(
        f"{shown.symbol} at the close of {shown.session}: {', '.join(told)}, {shown.levels.height} levels (touches)",
        fontsize=10,
    )
    axes.set_ylabel(f"price, bars of {shown.interval}", fontsize=8)
    axes.tick_params(labelsize=8)


def _draw_heatmap(axes: "Axes", shown: _Shown) -> None:
    axes.tick_params(labelleft=False, labelbottom=False, left=False, bottom=False)
    axes.set_title("heat", fontsize=8)
    last = shown.regimes[-1]
    width, close, heat = last.get("width"), last.get("close"), last.get("heatmap")
    if not isinstance(width, float) or not isinstance(close, float):
        return
    edges = close + width * bin_edges()
    share: FloatArray = np.asarray(heat, np.float64)[:, None]
    low, high = axes.get_ylim()
    axes.imshow(
        share, aspect="auto", origin="lower", cmap="YlOrBr", extent=(0, 1, edges[0], edges[-1]), interpolation="nearest"
    )
    axes.axhline(close, color="black", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(low, high)


def _draw_probabilities(axes: "Axes", shown: _Shown, names: tuple[str, ...], title: str) -> None:
    """Probabilities of the states as stacked areas, one step a session; a gap where they are unknown."""
    is_known = False
    for start, end, regime in _spans(shown):
        if regime.get(f"p_{names[0]}") is None:
            continue
        is_known, bottom = True, 0.0
        for name in names:
            share = float(regime[f"p_{name}"] or 0.0)
            axes.fill_between([start, end], bottom, bottom + share, color=COLOURS[name], linewidth=0)
            bottom += share
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1])
    axes.tick_params(labelsize=8)
    axes.set_ylabel(title, fontsize=8)
    if not is_known:
        axes.text(
            0.5,
            0.5,
            "unknown: the history is too short",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=8,
        )
        return
    for n, name in enumerate(names):
        axes.text(
            0.935, (n + 0.5) / len(names), name, transform=axes.transAxes, fontsize=7, va="center",
            bbox={"facecolor": COLOURS[name], "alpha": 0.9, "linewidth": 0, "pad": 1.5},
            color="white" if name in ("high", "trend", "volatile") else "black",
        )  # fmt: skip


def _spans(shown: _Shown) -> "list[tuple[int, int, dict[str, float | str | None]]]":
    """The first bar of each session, the one after its last, and its regimes."""
    starts = np.flatnonzero(np.diff(shown.place, prepend=-1)).tolist()
    return list(zip(starts, [*starts[1:], len(shown.place)], shown.regimes, strict=True))
