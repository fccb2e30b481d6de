"""Pictures of an encoder's diagnostics; nothing that decides anything is computed here."""

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from odin_core.diagnostic_page import drawn, small_png
from odin_core.encoder.config import REGIMES
from odin_core.features.series import FloatArray
from odin_core.features.windows import Float32Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from odin_core.encoder.diagnostics import Looked

COLOURS: Final = dict(zip(REGIMES, ("#4477aa", "#b39c4d", "#cc6677"), strict=True))
UNKNOWN: Final = "#bbbbbb"
TRUE, SAID = "#777777", "#1f5fbf"
CANDLE: Final = ("log_return_1", "bar_gap", "bar_range", "upper_wick", "lower_wick")
CANDLES_SHOWN: Final = 36
SAMPLES_SHOWN: Final = 3
FEATURES_SHOWN: Final = 30
NAMES: Final = {"pca": "PCA", "tsne": "t-SNE"}


def map_picture(maps: pl.DataFrame) -> bytes:
    """One panel a method, points by regime. `maps`: MAP."""
    figure = drawn(10, 4.8)
    panels = figure.subplots(1, 2, squeeze=False)[0]
    for axes, (method, name) in zip(panels, NAMES.items(), strict=True):
        points = maps.filter(method=method)
        for regime in (None, *REGIMES):
            part = points.filter(pl.col("regime").eq_missing(regime))
            if part.height:
                colour = COLOURS[regime] if regime else UNKNOWN
                axes.scatter(part["x"], part["y"], s=9, alpha=0.7, color=colour, label=regime or "unknown", linewidth=0)
        axes.set_title(name)
        axes.set_xticks([])
        axes.set_yticks([])
        if points.is_empty():
            _nothing(axes, "too few bars with half a window before them")
    if not maps.is_empty():
        panels[0].legend(fontsize=8, loc="best")
    return small_png(figure)


def reconstruction_picture(looked: "Looked", table: pl.DataFrame, interval: str) -> bytes:
    """Left, skill by feature and that of the last row seen; right, samples of candles, where the encoder reads what a
    candle is made of. `table`: RECONSTRUCTION."""
    figure = drawn(10, 6)
    grid = figure.add_gridspec(SAMPLES_SHOWN, 2, width_ratios=(2, 3))
    _draw_skill(figure.add_subplot(grid[:, 0]), table)
    names = [f"{name}_{interval}" for name in CANDLE]
    judged = (looked.hidden & looked.counted).sum(axis=1)
    windows = np.argsort(-judged, kind="stable")[:SAMPLES_SHOWN]
    for n in range(SAMPLES_SHOWN):
        axes = figure.add_subplot(grid[n, 1])
        axes.tick_params(labelbottom=False)
        if not set(names) <= set(looked.features):
            _nothing(axes, "the encoder does not read what a candle is made of" if n == 0 else "")
        elif n >= len(windows) or not judged[windows[n]]:
            _nothing(axes, "no hidden bar")
        else:
            _draw_sample(axes, looked, int(windows[n]), [looked.features.index(name) for name in names])
        if n == 0:
            axes.set_title("true candles (grey) and what was said of hidden ones (blue), %")
    return small_png(figure)


def coverage_picture(table: pl.DataFrame) -> bytes:
    """Observed share over level, a line a horizon. `table`: COVERAGE."""
    figure = drawn(6.5, 5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    colours = ("#4477aa", "#66aa77", "#b39c4d", "#cc6677", "#8866aa", "#555555")
    known = table.filter(pl.col("observed").is_not_null())
    for n, horizon in enumerate(known["horizon"].unique(maintain_order=True)):
        part = known.filter(horizon=horizon)
        level, observed = part["level"].to_numpy() + 0.004 * n, part["observed"].to_numpy()
        error = np.stack([observed - part["lower"].to_numpy(), part["upper"].to_numpy() - observed])
        colour = colours[n % len(colours)]
        axes.errorbar(level, observed, error, marker="o", markersize=4, linewidth=1, capsize=3, color=colour,
                      label=f"{horizon} bars ahead, {part['rows'][0]:,} rows")  # fmt: skip
    axes.set_xlabel("level of the quantile")
    axes.set_ylabel("share of returns at or below it, with 95 % over sessions")
    if known.height:
        axes.legend(fontsize=8)
    else:
        _nothing(axes, "no return is known")
    return small_png(figure)


def curves_picture(curves: pl.DataFrame) -> bytes:
    """A panel a head. `curves`: step, head, split, loss, of `TrainedEncoder.curves`."""
    heads = curves["head"].unique(maintain_order=True).to_list()
    figure = drawn(10, 5)
    panels = figure.subplots(2, 3, squeeze=False).ravel()
    for axes, head in zip(panels, [*heads, *[None] * 6], strict=False):
        if head is None:
            axes.set_axis_off()
            continue
        for split, colour in (("training", TRUE), ("validation", SAID)):
            part = curves.filter(head=head, split=split).sort("step")
            axes.plot(part["step"], part["loss"], color=colour, label=split, linewidth=1.2)
        axes.set_title(head)
    if heads:
        panels[0].legend(fontsize=8)
    else:
        _nothing(panels[0], "the encoder says nothing of its training")
    return small_png(figure)


def candles_of(values: Float32Array, columns: list[int]) -> FloatArray:
    """Open, high, low and close, (rows, 4), as logarithms over the close before, out of the features of rows in the
    columns that CANDLE names. A range or wick below 0, which no bar has, counts as 0."""
    close, gap, width, upper, lower = (values[:, column].astype(np.float64) for column in columns)
    width = np.maximum(width, 0.0)
    high = np.maximum(gap, close) + np.maximum(upper, 0.0) * width
    low = np.minimum(gap, close) - np.maximum(lower, 0.0) * width
    return np.stack([gap, high, low, close], axis=1)


def _draw_skill(axes: "Axes", table: pl.DataFrame) -> None:
    shown = table.filter(pl.col("skill").is_not_null()).head(FEATURES_SHOWN)
    if shown.is_empty():
        _nothing(axes, "no hidden bar with half a window before it")
        return
    y = np.arange(shown.height)[::-1]
    axes.barh(y, shown["skill"].clip(-1, 1), color=SAID, height=0.65, label="the encoder")
    axes.plot(shown["last_seen"].clip(-1, 1), y, "|", color="black", markersize=7, label="the last row seen")
    axes.axvline(0, color="#555555", linewidth=0.8)
    axes.set_xlim(-1.05, 1.05)
    axes.set_yticks(y, shown["feature"].to_list())
    axes.set_xlabel("skill (below −1 drawn at −1)")
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _draw_sample(axes: "Axes", looked: "Looked", window: int, columns: list[int]) -> None:
    """The last bars of a window up to a hidden one."""
    hidden = np.flatnonzero(looked.hidden[window] & looked.counted[window])
    end = min(int(hidden[len(hidden) // 2]) + CANDLES_SHOWN // 2, looked.hidden.shape[1])
    part = slice(max(end - CANDLES_SHOWN, 0), end)
    true, said = (candles_of(array[window, part], columns) for array in (looked.true, looked.said))
    path = np.concatenate([[0.0], np.nancumsum(true[:, 3])[:-1]])  # the true close before each bar
    x = np.arange(len(path))
    known = np.isfinite(true).all(axis=1)
    _draw_candles(axes, x[known], 100 * (path[:, None] + true)[known], TRUE, 0.0)
    shown = looked.hidden[window, part]
    _draw_candles(axes, x[shown], 100 * (path[:, None] + said)[shown], SAID, 0.25)
    axes.use_sticky_edges = False
    axes.autoscale_view()
    axes.set_xlim(-1, len(path))


def _draw_candles(axes: "Axes", x: np.ndarray, candles: FloatArray, colour: str, shift: float) -> None:
    open_, high, low, close = candles.T
    axes.vlines(x + shift, low, high, color=colour, linewidth=0.8)
    height = np.maximum(np.abs(close - open_), 1e-3)  # of a bar that did not move, so that it is seen
    axes.bar(x + shift, height, bottom=np.minimum(open_, close), width=0.45, color=colour, linewidth=0)


def _nothing(axes: "Axes", why: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, fontsize=9)
