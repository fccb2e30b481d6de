"""A trade as a picture: the candles that the policy looked at, below them how much each mattered to its choice, and
where it then entered, stopped, aimed and left. As a PNG, and as a page that can be moved in.

What comes in is an explanation (`rl.explain`), bars of its symbol, and the trade; nothing is computed here."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.features.series import FloatArray
from odin_core.pictures import png
from odin_core.rl.choices import FLAT, LONG, SHORT, SIZES, STOPS, TARGETS
from odin_core.rl.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly.graph_objects import Figure

MOST_BYTES: Final = 50_000  # of the picture, which Dagit may hold in its event log
SHOWN: Final = 120  # bars up to the decision
AFTER: Final = 40  # bars after the exit, or after the decision where there is none
UP, DOWN = "#2f7d5b", "#b3443f"
MINE: Final = "#1f5fbf"
POSITIONS: Final = {FLAT: "flat", LONG: "long", SHORT: "short"}


class NotTheWindow(OdinError):
    def __init__(self, decision: str, symbol: str, why: str) -> None:
        super().__init__(
            f"decision {decision} of {symbol} cannot be drawn: {why}; give the symbol's bars of the encoder's "
            f"interval, those of the window and those after it"
        )


@dataclass(frozen=True, kw_only=True)
class Trade:
    """What became of a decision. Times are starts of bars (ts), prices those of the bars; None: it did not happen, or
    is not known."""

    entered: datetime | None = None
    entry: float | None = None
    exited: datetime | None = None
    exit: float | None = None
    stop: float | None = None
    target: float | None = None


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Bars that are shown, x = 0 being the decision's, and what belongs to them."""

    bars: pl.DataFrame
    x: FloatArray
    saliency: FloatArray  # (bars,) share of the window's whole saliency, %; NaN after the decision
    left_out: float  # share of saliency before what is shown, %
    lines: list[tuple[str, float, str]]  # name, price, colour
    marks: list[tuple[str, float, float]]  # name, x, price
    title: str


def trade_picture(explanation: Explanation, bars: pl.DataFrame, trade: Trade, *, shown: int = SHOWN) -> bytes:
    """A PNG of at most 50 kB. bars: ts, known_at, open, high, low, close of the explained symbol, ascending, with the
    decision's bar (its known_at is the explanation's); as many before it as the window has, up to `shown`, and what
    comes after. Raises NotTheWindow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = _drawn(explanation, bars, trade, shown)
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    price, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    _draw_candles(price, drawn)
    below.bar(drawn.x, np.nan_to_num(drawn.saliency), width=0.8, color=MINE, linewidth=0)
    below.set_ylabel("saliency of a bar,\n% of the window's", fontsize=8)
    if drawn.left_out > 0:
        told = f"{drawn.left_out:.0f} % lie before"
        below.text(0.01, 0.85, told, transform=below.transAxes, fontsize=8, color="#555555")
    chosen = np.unique(np.linspace(0, drawn.bars.height - 1, min(drawn.bars.height, 7)).astype(int))
    moments = drawn.bars["ts"].to_list()
    below.set_xticks(drawn.x[chosen], [f"{moments[i]:%d %b\n%H:%M}" for i in chosen])
    for axes in (price, below):
        axes.axvline(0, color="#777777", linewidth=0.8, linestyle=":")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    price.set_title(drawn.title, fontsize=10)
    return png(figure, MOST_BYTES)


def trade_figure(explanation: Explanation, bars: pl.DataFrame, trade: Trade, *, shown: int = SHOWN) -> "Figure":
    """The same as a plotly figure; arguments and errors as `trade_picture`."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    drawn = _drawn(explanation, bars, trade, shown)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.03)
    prices = {name: drawn.bars[name].to_list() for name in ("open", "high", "low", "close")}
    told = [f"{moment:%Y-%m-%d %H:%M}" for moment in drawn.bars["ts"]]
    x = drawn.x.tolist()
    candles = graph_objects.Candlestick(
        x=x, **prices, text=told, name=explanation.symbol, increasing_line_color=UP, decreasing_line_color=DOWN
    )
    figure.add_trace(candles, row=1, col=1)
    for name, at, value in drawn.marks:
        figure.add_trace(
            graph_objects.Scatter(
                x=[at], y=[value], name=name, mode="markers+text", text=[name], textposition="top center",
                marker={"size": 11, "symbol": "diamond", "color": MINE, "line": {"width": 1, "color": "white"}},
            ), row=1, col=1,
        )  # fmt: skip
    for name, value, colour in drawn.lines:
        ends = [x[0], x[-1]]
        line = {"color": colour, "dash": "dash", "width": 1}
        figure.add_trace(
            graph_objects.Scatter(x=ends, y=[value, value], name=name, mode="lines", line=line), row=1, col=1
        )
    known = [None if np.isnan(share) else round(float(share), 3) for share in drawn.saliency]
    bar = graph_objects.Bar(x=x, y=known, text=told, textposition="none", name="saliency", marker={"color": MINE})
    figure.add_trace(bar, row=2, col=1)
    figure.add_vline(x=0, line={"color": "#777777", "dash": "dot", "width": 1})
    figure.update_yaxes(title_text="price", row=1, col=1)
    figure.update_yaxes(title_text="saliency, % of the window's", row=2, col=1)
    figure.update_xaxes(title_text="bars from the decision", row=2, col=1)
    figure.update_layout(
        title=drawn.title, template="plotly_white", showlegend=False, xaxis_rangeslider_visible=False, height=640
    )
    return figure


def trade_page(explanation: Explanation, bars: pl.DataFrame, trade: Trade, *, shown: int = SHOWN) -> str:
    """`trade_figure` as one self-contained HTML page, about 4 MB since plotly is in it; equal input, equal text."""
    figure = trade_figure(explanation, bars, trade, shown=shown)
    return figure.to_html(include_plotlyjs=True, full_html=True, div_id="trade")


def _drawn(explanation: Explanation, bars: pl.DataFrame, trade: Trade, shown: int) -> _Drawn:
    place = bars["known_at"].search_sorted(explanation.known_at)
    if place >= bars.height or bars["known_at"][place] != explanation.known_at:
        raise NotTheWindow(explanation.decision_id, explanation.symbol, f"no bar ends {explanation.known_at}")
    if not explanation.saliency:
        raise NotTheWindow(explanation.decision_id, explanation.symbol, "it was explained without a window")
    until = bars.height if trade.exited is None else int(bars["ts"].search_sorted(trade.exited, side="right"))
    end = min(bars.height, (place + 1 if trade.exited is None else until) + AFTER)
    before = min(shown, len(explanation.saliency), place + 1)
    part = bars.slice(place + 1 - before, end - (place + 1 - before))
    saliency = np.full(part.height, np.nan)
    whole = np.asarray(explanation.saliency, np.float64)
    share = 100 * whole / whole.sum() if whole.sum() > 0 else whole
    saliency[:before] = share[len(share) - before :]
    lines = [("stop", trade.stop, DOWN), ("target", trade.target, UP)]
    marks = [("entry", trade.entered, trade.entry), ("exit", trade.exited, trade.exit)]
    return _Drawn(
        bars=part,
        x=np.arange(part.height, dtype=np.float64) - (before - 1),
        saliency=saliency,
        left_out=float(share[: len(share) - before].sum()),
        lines=[(name, price, colour) for name, price, colour in lines if price is not None],
        marks=[
            (name, float(part["ts"].search_sorted(at)) - before + 1, price)
            for name, at, price in marks
            if at is not None and price is not None
        ],
        title=_title(explanation),
    )


def in_words(choice: tuple[int, ...]) -> str:
    """What an action of the environment says: position, and where there is one its size, stop and target."""
    position, size, stop, target = choice
    told = f", size {SIZES[size]:g}, stop {STOPS[stop]:g} ATR, target {TARGETS[target]:g} stops"
    return POSITIONS[position] + (told if position != FLAT else "")


def _title(explanation: Explanation) -> str:
    return (
        f"{explanation.symbol} at {explanation.known_at:%Y-%m-%d %H:%M} UTC, {explanation.version}: "
        f"{in_words(explanation.choice)} (log probability {explanation.log_probability:.2f})"
    )


def _draw_candles(axes: "Axes", drawn: _Drawn) -> None:
    open_, high, low, close = (drawn.bars[name].to_numpy() for name in ("open", "high", "low", "close"))
    colours: list[str] = np.where(close < open_, DOWN, UP).tolist()
    axes.vlines(drawn.x, low, high, color=colours, linewidth=0.7)
    height = np.maximum(np.abs(close - open_), 1e-4 * close)  # of a bar that did not move, so that it is seen
    axes.bar(drawn.x, height, bottom=np.minimum(open_, close), width=0.7, color=colours, linewidth=0)
    for name, price, colour in drawn.lines:
        axes.axhline(price, color=colour, linewidth=0.9, linestyle="--")
        axes.text(drawn.x[-1], price, f" {name} {price:,.2f}", color=colour, fontsize=8, va="bottom", ha="right")
    for name, x, price in drawn.marks:
        axes.plot([x], [price], marker="D", markersize=6, color=MINE, markeredgecolor="white")
        axes.annotate(f"{name} {price:,.2f}", (x, price), (4, 6), textcoords="offset points", fontsize=8, color=MINE)
    _fit(axes, drawn, float(np.nanmin(low)), float(np.nanmax(high)))
    axes.set_ylabel("price", fontsize=8)


def _fit(axes: "Axes", drawn: _Drawn, low: float, high: float) -> None:
    prices: list[Any] = [price for _, price, _ in drawn.lines] + [price for _, _, price in drawn.marks]
    low, high = min([low, *prices]), max([high, *prices])
    margin = 0.05 * (high - low) or 0.01 * high
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(drawn.x[0] - 1, drawn.x[-1] + 1)
