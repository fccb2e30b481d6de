"""The pictures of a tear sheet. Numbers are those of its tables; nothing is computed here but bins and running sums.

Each is a function of a `TearSheet` and an empty matplotlib `Figure`; `svg` and `png` draw one by its name in PICTURES.
Drawing is deterministic: no date, no random ids, fixed fonts."""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from odin_core import pictures
from odin_core.evaluation.tearsheet.records import FRICTION, FloatArray
from odin_core.evaluation.tearsheet.sheet import TearSheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_PNG: Final = 50_000  # bytes: Dagster keeps pictures in its event log
MARGINS: Final = (0.85, 0.15, 0.12, 0.48)  # inches: left, right, top, bottom
MOST_POINTS: Final = 1_200  # of a line; a longer life is drawn by every k-th session
PHASES: Final = ("#f1f1f1", "#dbe9f6", "#d8f0d8", "#fff2cc")
MINE, CHANCE, BAND, MARKET, BAD, INK = "#1f5fbf", "#777777", "#c9c9c9", "#b36b00", "#b00020", "#222222"
OF_COST: Final = dict(zip(FRICTION, ("#7a9cc6", "#c6a57a", "#9b7ac6"), strict=True))


def equity(sheet: TearSheet, figure: "Figure") -> None:
    """Running return with the random band, drawdown, buy and hold; phases behind."""
    figure.set_size_inches(9, 6.2)
    curve, days = _curve(sheet)
    top, below, hold = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    names = ("total", "random", "random_low", "random_high", "drawdown", "hold")
    percent = {name: _numbers(curve, name) * 100 for name in names}
    band = (percent["random_low"], percent["random_high"])
    top.fill_between(days, *band, color=BAND, linewidth=0, label="random: 5 % to 95 %")
    top.plot(days, percent["random"], color=CHANCE, linewidth=1, label="random, same turnover: mean")
    top.plot(days, percent["total"], color=MINE, linewidth=1.8, label="ODIN")
    top.axhline(0, color=INK, linewidth=0.6)
    top.set_ylabel("return so far\n% of capital")
    top.legend(loc="lower left", fontsize=8, framealpha=0.8)
    _phases(top, sheet, days)
    below.fill_between(days, percent["drawdown"], 0, color=BAD, alpha=0.25, linewidth=0)
    below.plot(days, percent["drawdown"], color=BAD, linewidth=1)
    below.set_ylabel("drawdown\n% of capital")
    hold.plot(days, percent["hold"], color=MARKET, linewidth=1)
    hold.axhline(0, color=INK, linewidth=0.6)
    hold.set_ylabel("buy and hold\n% of capital")


def rolling_sharpe(sheet: TearSheet, figure: "Figure") -> None:
    """Rolling Sharpe ratio and the returns of single sessions."""
    figure.set_size_inches(9, 4.2)
    curve, days = _curve(sheet)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    window = sheet.headline["rolling_window"]
    top.plot(days, _numbers(curve, "rolling_sharpe"), color=MINE, linewidth=1.4)
    top.axhline(0, color=INK, linewidth=0.6)
    whole = sheet.headline["sharpe"]
    if isinstance(whole, float):
        top.axhline(whole, color=CHANCE, linewidth=1, linestyle="--", label=f"all sessions: {whole:.2f}")
        top.legend(loc="upper left", fontsize=8, framealpha=0.8)
    told = f"Sharpe ratio of\n{window} sessions" if window else "too few sessions\nfor a rolling Sharpe"
    top.set_ylabel(told)
    value = np.nan_to_num(_numbers(curve, "return")) * 100
    for part, colour in ((np.maximum(value, 0), MINE), (np.minimum(value, 0), BAD)):
        below.fill_between(days, part, 0, step="mid", color=colour, linewidth=0)
    below.axhline(0, color=INK, linewidth=0.6)
    below.set_ylabel("return of a session\n% of capital")


def trade_distribution(sheet: TearSheet, figure: "Figure") -> None:
    """How trades' net returns and holding times are distributed, and profit by how they ended."""
    figure.set_size_inches(9, 3.4)
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 2, 2))
    net = sheet.trades["net_return"].to_numpy() * 1e4
    if net.size:
        low, high = np.quantile(net, (0.005, 0.995))
        reach = max(abs(low), abs(high), 1e-9)
        edges = np.linspace(-reach, reach, 42)
        counts, _ = np.histogram(np.clip(net, -reach, reach), edges)
        centres = (edges[:-1] + edges[1:]) / 2
        left.bar(centres, counts, width=edges[1] - edges[0], color=_by_sign(centres), linewidth=0)
        left.axvline(float(net.mean()), color=INK, linewidth=1, linestyle="--", label=f"mean {net.mean():.1f}")
        left.legend(fontsize=8)
        hours = sheet.trades["minutes"].to_numpy() / 60
        middle.hist(hours[hours <= np.quantile(hours, 0.98)], bins=24, color=CHANCE)
    left.set_xlabel("net return, basis points of notional")
    left.set_ylabel("trades")
    middle.set_xlabel("held, hours (shortest 98 %)")
    ended = sheet.tables["trades_by_exit_reason"].sort("group", descending=True)
    profit = ended["profit"].to_numpy() * 100
    right.barh(ended["group"].to_list(), profit, color=_by_sign(profit))
    right.axvline(0, color=INK, linewidth=0.6)
    right.set_xlabel("profit by exit, % of capital")


def exposure_and_costs(sheet: TearSheet, figure: "Figure") -> None:
    """Exposure by session, and what was earned before costs against what was paid."""
    figure.set_size_inches(9, 4.4)
    curve, days = _curve(sheet)
    top, below = figure.subplots(2, 1, sharex=True)
    long, short = _numbers(curve, "long") * 100, _numbers(curve, "short") * 100
    for side, held, colour in (("long", long, MINE), ("short", -short, BAD)):
        top.fill_between(days, held, 0, step="mid", color=colour, alpha=0.55, linewidth=0, label=side)
    top.plot(days, long - short, drawstyle="steps-mid", color=INK, linewidth=0.8, label="net")
    top.axhline(0, color=INK, linewidth=0.6)
    top.set_ylabel("exposure\n% of capital")
    top.legend(loc="upper left", fontsize=8, ncols=3, framealpha=0.8)
    bottom = np.zeros(len(days))
    for name, colour in OF_COST.items():
        paid = curve[f"paid_{name}"].to_numpy() * 100
        below.fill_between(days, bottom, bottom + paid, color=colour, linewidth=0, label=name)
        bottom = bottom + paid
    below.plot(days, curve["earned"].to_numpy() * 100, color=MINE, linewidth=1.6, label="profit before costs")
    below.axhline(0, color=INK, linewidth=0.6)
    below.set_ylabel("so far\n% of capital")
    below.legend(loc="upper left", fontsize=8, framealpha=0.8)


def confidence(sheet: TearSheet, figure: "Figure") -> None:
    """Stated confidence against what happened, with intervals."""
    figure.set_size_inches(4.4, 3.8)
    axes = figure.subplots()
    table = sheet.tables["calibration"]
    if table.height:
        stated, happened = table["probability"].to_numpy(), table["happened"].to_numpy()
        ends = np.concatenate((stated, table["lower"].to_numpy(), table["upper"].to_numpy()))
        span = (max(float(ends.min()) - 0.02, 0.0), min(float(ends.max()) + 0.02, 1.0))
        axes.plot(span, span, color=CHANCE, linewidth=1, linestyle="--", label="calibrated")
        errors = np.abs(np.stack((table["lower"].to_numpy(), table["upper"].to_numpy())) - happened)
        axes.errorbar(stated, happened, yerr=errors, fmt="o", color=MINE, markersize=4, linewidth=1, capsize=2)
        axes.set_xlim(*span)
        axes.set_ylim(*span)
        axes.legend(fontsize=8, loc="upper left")
    axes.set_xlabel("stated confidence")
    axes.set_ylabel("share that ended above costs")


PICTURES: Final[dict[str, tuple[str, Callable[[TearSheet, "Figure"], None]]]] = {  # name → what it shows, how
    "equity": ("Return so far against random portfolios; drawdown; buy and hold; phases behind.", equity),
    "rolling_sharpe": ("Rolling Sharpe ratio and the returns of single sessions.", rolling_sharpe),
    "trade_distribution": ("Net returns and holding times of trades; profit by how they ended.", trade_distribution),
    "exposure_and_costs": (
        "Exposure by session; profit before costs against costs, both as running sums.",
        exposure_and_costs,
    ),
    "confidence": ("Stated confidence of decisions against what happened, with 95 % intervals.", confidence),
}
IN_DAGIT: Final = ("equity", "rolling_sharpe", "trade_distribution", "exposure_and_costs")


def svg(sheet: TearSheet, name: str) -> str:
    """A picture as an SVG element to stand inside a page: text stays text, ids are its own."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify_threshold": 0.3}):
        buffer = io.StringIO()
        _figure(sheet, name, 72).savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r"(\d+\.\d\d)\d+", r"\1", drawn)
    return re.sub(r"\s*\n\s*", "\n", drawn).strip()


def png(sheet: TearSheet, name: str) -> bytes:
    """A picture as a PNG of at most LARGEST_PNG bytes, as fine as that allows."""
    return pictures.png(_figure(sheet, name, 72), LARGEST_PNG)


def _figure(sheet: TearSheet, name: str, dpi: int) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=dpi)
    FigureCanvasAgg(figure)
    PICTURES[name][1](sheet, figure)
    wide, high = figure.get_size_inches()
    left, right, top, bottom = MARGINS
    figure.subplots_adjust(
        left / wide, bottom / high, 1 - right / wide, 1 - top / high, wspace=0.32, hspace=0.1
    )  # a fixed layout: measuring one takes as long as drawing it
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _curve(sheet: TearSheet) -> tuple[pl.DataFrame, Any]:
    """The curve with running sums, and its sessions; of a long life every k-th session and the last."""
    curve = sheet.tables["curve"].with_columns(
        **{f"paid_{name}": pl.col(name).cum_sum() for name in FRICTION}, earned=pl.col("gross").cum_sum()
    )
    step = -(-max(curve.height, 1) // MOST_POINTS)
    kept = (pl.int_range(pl.len()) % step == 0) | (pl.int_range(pl.len()) == pl.len() - 1)
    curve = curve.filter(kept)
    return curve, curve["session"].to_numpy()


def _numbers(curve: pl.DataFrame, name: str) -> FloatArray:
    """A column with NaN, which matplotlib leaves out, where nothing is known."""
    return curve[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _by_sign(values: FloatArray) -> list[str]:
    return np.where(values < 0, BAD, MINE).tolist()


def _phases(axes: "Axes", sheet: TearSheet, days: Any) -> None:
    """Colours behind the curve, one per phase in which sessions were decided."""
    if not len(days):
        return
    runs = sheet.tables["curve"].select("session", "phase").with_columns(run=pl.col("phase").rle_id())
    spans = runs.group_by("run", maintain_order=True).agg(pl.col("phase").first(), first=pl.col("session").min())
    starts = [*spans["first"].to_list(), sheet.last]
    for phase, start, end in zip(spans["phase"], starts[:-1], starts[1:], strict=True):
        axes.axvspan(start, end, color=PHASES[phase or 0], zorder=0, linewidth=0)
        axes.annotate(f"phase {phase}", (start, 1), xycoords=("data", "axes fraction"), fontsize=7, color=CHANCE,
                      xytext=(2, -2), textcoords="offset points", va="top")  # fmt: skip
