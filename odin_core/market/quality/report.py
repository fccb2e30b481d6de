"""The report of a market's data: what there is, what is wrong with it and what to do, as Markdown, page and dictionary.

The findings are those of the table `data_quality`; here they are only counted, ordered and drawn."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.lake import Lake
from odin_core.market.bars import minutes_of
from odin_core.market.calendar import SessionCalendar
from odin_core.market.profile import MarketProfile
from odin_core.market.quality.assessing import FINDINGS, WHOLE, assess_sessions, bar_tables, blocking
from odin_core.market.quality.measures import session_grid
from odin_core.pictures import png

MEANINGS = {
    "duplicate": "bars of one symbol share their time: import the file again",
    "bad_price": "prices missing, not positive or outside low to high: import the file again",
    "outside_hours": "bars outside the session: import the file again, or correct the calendar",
    "known_too_early": "bars that could be used before their end: import the file again",
    "wrong_magnitude": "part of the session is at another level: correct it at the source and import it again",
    "jump_without_action": "a jump like a split: bring in the corporate action, or accept it",
    "repeated_session": "the session before once more: the source gave the wrong day",
    "clock_shift": "stamps are off by the minutes counted: import with the right time zone",
    "bad_tick": "single bars leave both neighbours far: an error from three times the price on",
    "missing_bars": "minutes without a bar: often no trade, else fetch again",
    "few_bars": "less than 60 % of the bars",
    "late_start": "bars are missing from the open on",
    "early_stop": "bars are missing up to the close",
    "feed_hole": "minutes that no symbol has: the recording was interrupted",
    "paging_holes": "a download that skipped pages: fetch again",
    "coarse_bars": "bars of a larger interval among smaller ones: import them with their interval",
    "missing_sessions": "sessions of the calendar without any bar: fetch or import them",
    "no_bars": "a symbol has nothing in the session",
    "bars_in_halt": "bars while the exchange stood still: repeats of the last price",
    "no_volume": "the source gives no volume",
    "zero_volume": "many bars without a trade",
    "stale": "one bar again and again: the feed hung, or nobody traded",
    "large_move": "a range far beyond the usual",
    "jump_on_news": "a jump without a corporate action that is traded like news",
    "action_known_late": "features of that session saw the jump, since its action became known afterwards",
    "action_without_jump": "a corporate action that prices do not show: adjusted bars, or a wrong action",
    "volume_scale": "volume is in other units than the session before",
    "out_of_order": "rows came in another order; they were sorted",
}
HELD_BACK = "quarantined_"  # rules of rows that were held back, see `quality.assessing.RULES`
SEVERITIES = ("error", "warning", "info")
COLOURS = {"error": "#b00020", "warning": "#d98c00", "info": "#9bb8d3"}
MOST_SYMBOLS, MOST_COLUMNS, WORST = 40, 200, 10
LARGEST_PICTURE = 50_000  # bytes: Dagster stores it in its event log
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:960px;margin:2em auto}table{border-collapse:collapse}"
    "td,th{padding:2px 10px;text-align:left;vertical-align:top}.error{color:#b00020}.warning{color:#9a6400}"
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The data of a market between two dates. `findings`: FINDINGS and the column session, ascending. `coverage`: of
    the interval, one row per session and symbol that has bars; columns session, symbol, share (0 to 1)."""

    market: str
    first: date
    last: date
    interval: str
    sessions: list[date]  # of the calendar
    stored: list[date]  # those that have bars of any interval
    findings: pl.DataFrame
    coverage: pl.DataFrame

    @cached_property
    def missing(self) -> list[date]:
        return sorted(set(self.sessions) - set(self.stored))

    @cached_property
    def blocked(self) -> pl.DataFrame:
        """The error findings that nobody accepted, by session."""
        return blocking(self.findings)

    @cached_property
    def by_rule(self) -> pl.DataFrame:
        """severity, rule, sessions, symbols, findings; errors first, then by the number of sessions."""
        rank = pl.col("severity").replace_strict({s: i for i, s in enumerate(SEVERITIES)}, return_dtype=pl.Int8)
        return (
            self.findings.group_by("severity", "rule")
            .agg(
                pl.col("session").n_unique().alias("sessions"),
                pl.col("symbol").filter(pl.col("symbol") != WHOLE).n_unique().alias("symbols"),
                pl.len().alias("findings"),
            )
            .sort(rank, "sessions", "rule", descending=[False, True, False])
        )

    @cached_property
    def worst(self) -> pl.DataFrame:
        """Sessions with errors, then those that have the smallest share of their bars; at most WORST. Columns session,
        errors, warnings, share (null without bars of the interval), first (the gravest finding)."""
        grave = self.findings.filter(pl.col("severity") != "info")
        first = pl.format("{} {}: {}", "symbol", "rule", "detail").sort_by("severity", "symbol", "rule").first()
        days = grave.group_by("session").agg(
            (pl.col("severity") == "error").sum().alias("errors"),
            (pl.col("severity") == "warning").sum().alias("warnings"),
            first.alias("first"),
        )
        shares = self.coverage.group_by("session").agg(pl.col("share").mean())
        joined = days.join(shares, on="session", how="left")
        order = ["errors", "share", "warnings", "session"]
        return joined.sort(order, descending=[True, False, True, False], nulls_last=True).head(WORST)

    def to_dict(self) -> dict[str, Any]:
        return {
            "market": self.market,
            "first": str(self.first),
            "last": str(self.last),
            "interval": self.interval,
            "sessions": len(self.sessions),
            "with_bars": len(self.stored),
            "missing_sessions": [[str(a), str(b), n] for a, b, n in _spans(self.missing, self.sessions)],
            "coverage": None if self.coverage.is_empty() else round(float(self.coverage["share"].mean()), 4),  # pyright: ignore[reportArgumentType]
            "blocked_sessions": [str(s) for s in self.blocked["session"].unique().sort()],
            "rules": self.by_rule.to_dicts(),
            "worst": [row | {"session": str(row["session"])} for row in self.worst.to_dicts()],
        }

    @cached_property
    def markdown(self) -> str:
        """A screen of text: what there is, the errors, a table of rules, the worst days."""
        first, *others = self._head()
        blocks = [[f"**{first}**"], *([line] for line in others)]
        errors = self.blocked.select("session", "symbol", "rule", "detail").rows()
        blocks.append([f"- **{session} {symbol} {rule}**: {detail}" for session, symbol, rule, detail in errors[:10]])
        blocks[-1] += [f"- and {len(errors) - 10} more errors"] if len(errors) > 10 else []
        rules = [
            f"| {severity} | {rule} | {sessions} | {symbols} | {meaning(rule)} |"
            for severity, rule, sessions, symbols, _ in self.by_rule.rows()
        ]
        if rules:
            head = ["| severity | rule | sessions | symbols | what it means |", "|---|---|---:|---:|---|"]
            blocks.append(head + rules)
        if self.worst.height:
            head = ["| worst sessions | bars | errors | warnings | gravest |", "|---|---:|---:|---:|---|"]
            blocks.append(head + [f"| {' | '.join(row)} |" for row in self._worst_rows()])
        return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"

    @cached_property
    def picture(self) -> bytes:
        """Coverage by session and symbol over findings by session: a PNG below 50 kB."""
        return _picture(self)

    @cached_property
    def html(self) -> str:
        """One self-contained page with the picture."""
        title = html.escape(f"Data of {self.market}, {self.first} to {self.last}")
        rules = [
            (severity, rule, sessions, symbols, findings, meaning(rule))
            for severity, rule, sessions, symbols, findings in self.by_rule.rows()
        ]
        errors = self.blocked.select("session", "symbol", "interval", "rule", "detail").head(100).rows()
        encoded = base64.b64encode(self.picture).decode()
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
            f"{''.join(f'<p>{html.escape(line)}</p>' for line in self._head())}"
            f'<img alt="coverage and findings" src="data:image/png;base64,{encoded}">'
            f"<h2>Errors</h2>{_table(('session', 'symbol', 'interval', 'rule', 'what'), errors)}"
            f"<h2>Rules</h2>{_table(('severity', 'rule', 'sessions', 'symbols', 'findings', 'what it means'), rules)}"
            f"<h2>Worst sessions</h2>{_table(('session', 'bars', 'errors', 'warnings', 'gravest'), self._worst_rows())}"
            f"</body></html>\n"
        )

    def _head(self) -> list[str]:
        share = self.coverage["share"].mean()
        covered = f", {share * 100:.1f} % of their {self.interval} bars" if isinstance(share, float) else ""
        blocked = self.blocked["session"].n_unique()
        lines = [
            f"{self.market}: {len(self.stored)} of {len(self.sessions)} sessions have bars{covered}; "
            f"blocked sessions: {blocked}, errors: {self.blocked.height}"
        ]
        spans = _spans(self.missing, self.sessions)
        if spans:
            told = ", ".join(f"{a} to {b} ({n})" if n > 1 else str(a) for a, b, n in spans[:10])
            more = f" and {len(spans) - 10} more stretches" if len(spans) > 10 else ""
            lines.append(f"Sessions without bars: {told}{more}.")
        return lines

    def _worst_rows(self) -> list[tuple[str, ...]]:
        return [
            (str(session), "–" if share is None else f"{share * 100:.0f} %", str(errors), str(warnings), first)
            for session, errors, warnings, first, share in self.worst.rows()
        ]


def quality_report(lake: Lake, profile: MarketProfile, calendar: SessionCalendar, first: date, last: date) -> Report:
    """The report on what a market's lake holds from `first` to `last`, both included. Findings are read from the table
    `data_quality`, and assessed now, without writing, for sessions that it lacks. Raises OutsideCalendar and
    PartitionUnreadable."""
    sessions = calendar.sessions(first, last)
    tables = {session: bar_tables(lake, session) for session in sessions}
    stored = [session for session in sessions if tables[session]]
    held = {interval: table for found in tables.values() for interval, table in found.items()}
    interval = min(held, key=lambda name: (minutes_of(name) or 10**6, name), default="1m")
    return Report(
        market=profile.name,
        first=first,
        last=last,
        interval=interval,
        sessions=sessions,
        stored=stored,
        findings=_findings(lake, calendar, stored),
        coverage=_coverage(lake, calendar, interval, [s for s in stored if interval in tables[s]]),
    )


def meaning(rule: str) -> str:
    """What a rule of a finding means to people, in a line."""
    if rule.startswith(HELD_BACK):
        return f"rows held back by the rule {rule.removeprefix(HELD_BACK)}"
    return MEANINGS[rule]


def _findings(lake: Lake, calendar: SessionCalendar, sessions: Sequence[date]) -> pl.DataFrame:
    read = {s: lake.read("data_quality", s) for s in sessions if lake.has("data_quality", s)}
    fresh = {session: frame for session, frame in read.items() if frame.schema == FINDINGS}
    lacking = [session for session in sessions if session not in fresh]
    fresh |= {s: frame for s, frame in assess_sessions(lake, calendar, lacking) if s not in fresh} if lacking else {}
    parts = [fresh[s].with_columns(pl.lit(s, pl.Date).alias("session")) for s in sessions if fresh[s].height]
    return pl.concat(parts) if parts else pl.Schema(FINDINGS | {"session": pl.Date()}).to_frame()


def _coverage(lake: Lake, calendar: SessionCalendar, interval: str, sessions: Sequence[date]) -> pl.DataFrame:
    expected = {}
    for session in sessions:
        hours = calendar.hours(session)
        grid = session_grid(hours.open, hours.close, minutes_of(interval), calendar.halts(session))
        expected[session] = max(grid.total, 1)
    schema = {"session": pl.Date, "symbol": pl.String, "share": pl.Float64}
    if not expected:
        return pl.DataFrame(schema=schema)
    table = bar_tables(lake, sessions[0])[interval]
    totals = pl.DataFrame(
        {"session": list(expected), "expected": list(expected.values())},
        schema={"session": pl.Date, "expected": pl.Int64},
    )
    counts = lake.scan(table).group_by("session", "symbol").len().collect(engine="streaming")
    share = (pl.col("len") / pl.col("expected")).clip(0, 1).alias("share")
    return counts.join(totals, on="session").select("session", "symbol", share).sort("session", "symbol")


def _spans(missing: Sequence[date], sessions: Sequence[date]) -> list[tuple[date, date, int]]:
    """Stretches of missing sessions that follow one another in the calendar: first, last, how many."""
    place = {session: n for n, session in enumerate(sessions)}
    spans: list[tuple[date, date, int]] = []
    for session in missing:
        if spans and place[session] == place[spans[-1][1]] + 1:
            spans[-1] = (spans[-1][0], session, spans[-1][2] + 1)
        else:
            spans.append((session, session, 1))
    return spans


def _table(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f'<tr class="{html.escape(str(row[0]))}">{"".join(f"<td>{html.escape(str(c))}</td>" for c in row)}</tr>'
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _picture(report: Report) -> bytes:
    """The largest of a few sizes that stays below LARGEST_PICTURE."""
    drawn = (_drawn(report, dpi) for dpi in (80, 64, 48))
    return next((picture for picture in drawn if len(picture) < LARGEST_PICTURE), b"") or _drawn(report, 32)


def _drawn(report: Report, dpi: int) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    symbols, grid = _grid(report)
    figure = Figure(figsize=(9, 3.6 + 0.11 * len(symbols)), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    top, below = figure.subplots(2, 1, height_ratios=(1 + 0.11 * len(symbols), 1))
    if symbols:
        edges = (-0.5, max(len(report.sessions), 1) - 0.5, len(symbols) - 0.5, -0.5)
        drawn = top.imshow(
            np.round(grid, 1), aspect="auto", cmap="YlGnBu", vmin=0, vmax=1, extent=edges, interpolation="nearest"
        )
        every = range(0, len(symbols), max(1, len(symbols) // 20))
        top.set_yticks(list(every), [symbols[n] for n in every], fontsize=7)
        figure.colorbar(drawn, ax=top, label=f"share of {report.interval} bars")
    place = {session: n for n, session in enumerate(report.sessions)}
    counts = report.findings.group_by("session", "severity").len()
    bottom = np.zeros(max(len(report.sessions), 1))
    for severity in SEVERITIES:
        of = counts.filter(severity=severity)
        heights = np.zeros_like(bottom)
        heights[[place[session] for session in of["session"]]] = of["len"].to_numpy()
        steps = np.arange(len(bottom) + 1) - 0.5
        top_edge, low_edge = (np.append(edge, edge[-1]) for edge in (bottom + heights, bottom))
        below.fill_between(steps, low_edge, top_edge, step="post", color=COLOURS[severity], label=severity, linewidth=0)
        bottom += heights
    below.set_ylabel("findings")
    below.legend(loc="upper left", fontsize=7)
    ticks = np.linspace(0, len(report.sessions) - 1, min(len(report.sessions), 8)).astype(int)
    for axes in (top, below):
        axes.set_xlim(-0.5, len(bottom) - 0.5)
        axes.set_xticks(ticks, [str(report.sessions[n]) for n in ticks], fontsize=7)
    return png(figure)


def _grid(report: Report) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The MOST_SYMBOLS symbols with the poorest coverage, by name, and their shares: shape (symbols, sessions), many
    sessions averaged into MOST_COLUMNS columns; NaN where a symbol has no bars."""
    poorest = report.coverage.group_by("symbol").agg(pl.col("share").mean()).sort("share", "symbol")
    symbols = poorest["symbol"].head(MOST_SYMBOLS).sort().to_list()
    columns = min(len(report.sessions), MOST_COLUMNS)
    place = {session: n * columns // len(report.sessions) for n, session in enumerate(report.sessions)}
    line = {symbol: n for n, symbol in enumerate(symbols)}
    totals, counts = np.zeros((2, len(symbols), max(columns, 1)))
    drawn = report.coverage.filter(pl.col("symbol").is_in(symbols))
    at = ([line[symbol] for symbol in drawn["symbol"]], [place[session] for session in drawn["session"]])
    np.add.at(totals, at, drawn["share"].to_numpy())
    np.add.at(counts, at, 1)
    return symbols, np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
