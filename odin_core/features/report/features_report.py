"""The report of a set of features: how complete, how distributed, what is odd, as Markdown, page and picture."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from odin_core.features.catalogue import named
from odin_core.features.report.distributions import (
    HIGHEST,
    LOWEST,
    MEDIAN,
    P1,
    P25,
    P75,
    P99,
    QUANTILES,
    Distributions,
    distributions,
)
from odin_core.features.report.drawing import fan, strips
from odin_core.features.report.page import number, page, percent, prose, table
from odin_core.features.report.sample import day_of
from odin_core.features.series import FloatArray, IntArray
from odin_core.market.quality.report import LARGEST_PICTURE
from odin_core.pictures import png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from odin_core.market.data import MarketData

POOREST: Final = 30  # features in the picture's heat map
FANS: Final = 6  # distributions in the picture, those that moved most
MOVED: Final = 8  # lines of the Markdown's table
MOSTLY: Final = 0.5  # share of values on a bound that is worth a line; with all of them it is a flag
NOTES: Final = 8  # lines of the Markdown
NAMED: Final = 6  # features that a line names; the others are counted
MOST_COLUMNS: Final = 120  # of a heat map; more sessions are averaged


@dataclass(frozen=True)
class Report:
    """A set of features between two dates; `html` is a whole page, `picture` a PNG below 50 kB."""

    measured: Distributions

    def to_dict(self) -> dict[str, Any]:
        m = self.measured
        of_all = dict(zip(("rows", "features", "sessions"), self._counts, strict=True))
        columns = zip(m.names, m.completeness, m.bound_share, m.shift, strict=True)
        return {
            "market": m.market,
            "set": m.set_name,
            "version": m.version,
            "interval": m.interval,
            **of_all,
            "first": m.sessions[0] if m.sessions else None,
            "last": m.sessions[-1] if m.sessions else None,
            "completeness": self._complete,
            "constant": m.constant,
            "null": [{"why": reason.why, "lost": reason.lost} for reason in m.reasons],
            "by_feature": [
                {"feature": name, "completeness": float(share), "at_bounds": float(bound), "shift": float(shift)}
                for name, share, bound, shift in columns
            ],
        }

    @property
    def _counts(self) -> tuple[int, int, int]:
        m = self.measured
        return int(m.rows.sum()), len(m.features), len(m.sessions)

    @property
    def _complete(self) -> float:
        rows, features, _ = self._counts
        return float(self.measured.filled.sum() / (rows * features)) if rows else float("nan")

    @cached_property
    def _head(self) -> str:
        m, (rows, features, sessions) = self.measured, self._counts
        if not sessions:
            return f"{m.market}, {m.set_name}: no rows of {m.interval} in these sessions"
        return (
            f"{m.market}, {m.set_name} (version {m.version}): {features} features on {rows:,} rows of {m.interval}, "
            f"{sessions} sessions {m.sessions[0]} to {m.sessions[-1]}; {percent(self._complete)} of the values known"
        )

    @cached_property
    def _notes(self) -> list[str]:
        """One line for each reason of nulls, and for each other oddity."""
        m = self.measured
        total = max(m.rows.sum() * len(m.features), 1)
        lines = [
            f"{percent(reason.values / total)} of the values are null: {reason.why}: {_named(list(reason.lost))}"
            for reason in m.reasons
        ]
        if m.constant:
            lines.append(f"one value only: {_named(m.constant)}")
        bound = [(share, name) for name, share in zip(m.names, m.bound_share, strict=True) if MOSTLY < share < 1.0]
        if bound:
            lines.append(f"more than half of the values on a bound: {_named([n for _, n in sorted(bound)[::-1]])}")
        return lines

    @cached_property
    def _moved(self) -> IntArray:
        """Columns by how far the last session's median lies from the usual, the farthest first; without those that
        did not move."""
        size = np.abs(self.measured.shift)
        order = np.argsort(-np.nan_to_num(size, nan=-1.0), kind="stable")
        return order[size[order] > 0]

    @cached_property
    def markdown(self) -> str:
        """A screen of text: what there is, what is null and why, what moved."""
        m, parts = self.measured, [f"**{self._head}**"]
        if self._notes:
            lines = self._notes[:NOTES] + [f"and {len(self._notes) - NOTES} more"] * (len(self._notes) > NOTES)
            parts.append("\n".join(f"- {line}" for line in lines))
        if len(m.sessions) > 1 and len(self._moved):
            head = f"| farthest from usual on {m.sessions[-1]} | median | usual median | in interquartile ranges |"
            rows = [
                f"| {m.names[c]} | {number(float(m.quantiles[MEDIAN, -1, c]))} | "
                f"{number(float(np.nanmedian(m.quantiles[MEDIAN, :, c])))} | {number(float(m.shift[c]))} |"
                for c in self._moved[:MOVED].tolist()
            ]
            parts.append("\n".join([head, "|---|---:|---:|---:|", *rows]))
        return "\n\n".join(parts) + "\n"

    @cached_property
    def html(self) -> str:
        """One self-contained page: the notes, the heat map of all features, all distributions, all numbers."""
        m = self.measured
        title = f"Features of {m.market}: {m.set_name}"
        if not m.sessions:
            return page(title, f"<p>{prose(self._head)}.</p>")
        shares, days = _columns(m)
        notes = "".join(f"<li>{prose(line)}</li>" for line in self._notes)
        fans = "".join(
            f"<figure><figcaption>{name}</figcaption>"
            f"{fan(*(m.quantiles[q, :, c] for q in (P1, P25, MEDIAN, P75, P99)))}</figure>"
            for c, name in enumerate(m.names)
            if m.filled[:, c].any()
        )
        return page(
            title,
            f"<p>{prose(self._head)}.</p><ul>{notes}</ul>"
            "<h2>Completeness by session</h2><p class=pale>Share of values that are known: blue is all, red is none."
            f"</p><div class=table>{strips(shares.T, m.names, days)}</div>"
            f"<h2>Distributions by session</h2><p class=pale>{m.sessions[0]} to {m.sessions[-1]}. Line: median; dark "
            f"band: half of the values; pale band: 98 % of them.</p><div class=fans>{fans}</div>"
            f"<h2>Numbers</h2>{self._numbers()}",
        )

    def _numbers(self) -> str:
        """All features, with medians over the sessions of what each session's distribution is."""
        m = self.measured
        shown = (LOWEST, P1, P25, MEDIAN, P75, P99, HIGHEST)
        heads = ["lowest", *(f"{QUANTILES[q]:.0%}".replace("%", " %") for q in shown[1:-1]), "highest"]
        rows = []
        for c, name in enumerate(m.names):
            known = m.filled[:, c] > 0
            of = m.quantiles[:, known, c]
            middle = np.median(of, axis=1) if known.any() else np.full(len(QUANTILES), np.nan)
            ends = {LOWEST: of[LOWEST].min(initial=np.inf), HIGHEST: of[HIGHEST].max(initial=-np.inf)}
            told = [number(float(ends.get(q, middle[q]))) if known.any() else "–" for q in shown]
            rows.append([f"`{name}`", percent(m.completeness[c]), *told, _on_bound(m, c)])
        return table(["feature", "known", *heads, "on a bound"], rows)

    @cached_property
    def picture(self) -> bytes:
        """The least complete features by session, and the distributions that moved most: a PNG below 50 kB."""
        drawn = (_drawn(self, dpi) for dpi in (80, 64, 48))
        return next((png for png in drawn if len(png) < LARGEST_PICTURE), b"") or _drawn(self, 32)


def features_report(data: "MarketData", set_name: str, first: date, last: date, interval: str | None = None) -> Report:
    """The report of a set on all symbols of a market from `first` to `last`, both included; `distributions` says what
    is computed, stored and raised."""
    return Report(distributions(data, set_name, first, last, interval))


def _named(names: list[str]) -> str:
    """Names between backticks, those of one indicator together with their intervals, the first few."""
    intervals: dict[str, list[str]] = {}
    for name in names:
        feature = named(name)
        intervals.setdefault(name.removesuffix(f"_{feature.interval}"), []).append(feature.interval)
    told = [
        f"`{name}_{of[0]}`" if len(of) == 1 and of[0] else f"`{name}` ({', '.join(of)})" if of[0] else f"`{name}`"
        for name, of in list(intervals.items())[:NAMED]
    ]
    return ", ".join(told) + (f" and {len(intervals) - NAMED} more" if len(intervals) > NAMED else "")


def _columns(m: Distributions) -> tuple[FloatArray, list[tuple[int, str]]]:
    """Shares (columns, features), many sessions averaged into MOST_COLUMNS, and which columns have a label."""
    pieces = np.array_split(np.arange(len(m.sessions)), min(len(m.sessions), MOST_COLUMNS))
    shares = np.stack([m.filled[piece].sum(axis=0) / m.rows[piece].sum() for piece in pieces])
    marked = np.linspace(0, len(pieces) - 1, min(len(pieces), 7)).astype(int).tolist()
    return shares, [(n, f"{day_of(m.sessions[pieces[n][0]])} {m.sessions[pieces[n][0]]:%y}") for n in marked]


def _drawn(report: Report, dpi: int) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    m = report.measured
    poorest = np.sort(np.argsort(m.completeness, kind="stable")[:POOREST])
    chosen = (report._moved if len(m.sessions) > 1 else np.empty(0, np.int64))[:FANS].tolist()
    lines = -(-len(chosen) // 3)
    tall = 0.9 + 0.13 * len(poorest)
    figure = Figure(figsize=(9, tall + 1.3 * lines), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    heights = [tall, 1.3 * lines] if lines else [tall]
    top, *below = cast("list[SubFigure]", np.ravel(figure.subfigures(len(heights), 1, height_ratios=heights)).tolist())  # pyright: ignore[reportArgumentType, reportCallIssue]
    axes = top.subplots()
    which = f"the {len(poorest)} least complete of " if len(poorest) < len(m.features) else ""
    axes.set_title(f"{m.set_name}: {which}{len(m.features)} features, share known", fontsize=9)
    if m.sessions:
        shares, days = _columns(m)
        drawn = axes.imshow(
            np.round(shares[:, poorest].T, 1), aspect="auto", cmap="YlGnBu", vmin=0, vmax=1, interpolation="nearest"
        )
        axes.set_yticks(range(len(poorest)), [m.names[c] for c in poorest], fontsize=6)
        axes.set_xticks([n for n, _ in days], [text for _, text in days], fontsize=7)
        top.colorbar(drawn, ax=axes)
    panels = below[0].subplots(lines, 3, squeeze=False).ravel().tolist() if lines else []
    for n, panel in enumerate(panels):
        if n < len(chosen):
            _fan(panel, m, chosen[n])
        else:
            panel.set_axis_off()
    return png(figure)


def _fan(panel: "Axes", m: Distributions, column: int) -> None:
    over = np.arange(len(m.sessions))
    for low, high, colour in ((P1, P99, "#e2edfa"), (P25, P75, "#9cc3ef")):
        panel.fill_between(over, m.quantiles[low, :, column], m.quantiles[high, :, column], color=colour, linewidth=0)
    panel.plot(over, m.quantiles[MEDIAN, :, column], color="#0b62c4", linewidth=1)
    panel.set_title(m.names[column], fontsize=7, pad=2)
    panel.set_xticks([])
    panel.tick_params(labelsize=6)


def _on_bound(m: Distributions, column: int) -> str:
    """The share on a bound, of what has a bound that values can lie on."""
    return percent(m.bound_share[column]) if np.isfinite(m.features[column].definition.bounds).any() else "–"
