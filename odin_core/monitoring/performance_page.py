"""The evening summary of a session, for people: a page of Markdown and one picture. All numbers come from
`performance`; nothing is computed here."""

import math
from typing import Any

import numpy as np
import polars as pl

from odin_core.monitoring.expectation import Band
from odin_core.monitoring.performance import KINDS, PERFORMANCE, Details
from odin_core.pictures import png

MOST_BYTES = 50_000  # of the picture, which Dagit holds in its event log
SHOWN = 10  # anomalies


def evening_summary(row: pl.DataFrame, details: Details) -> str:
    """Markdown of one session. `row`: PERFORMANCE, one row, and `details` as `performance_at` gives them. What is not
    known is a dash. Raises ValueError for another frame."""
    if row.height != 1 or row.schema != PERFORMANCE:
        raise ValueError("one row of PERFORMANCE is summarised")
    v = row.row(0, named=True)
    champion = f"champion {v['champion']} since {v['champion_since']}" if v["champion"] else "no champion"
    values = [
        ("return of the session", _number(v["session_return"], "+.3%")),
        ("equity over capital", _number(v["equity"], ".4f")),
        ("drawdown", _number(v["drawdown"], ".2%")),
        ("Sharpe ratio, annualised", _number(v["sharpe"], ".2f")),
        ("Sharpe ratio since the champion", _number(v["sharpe_champion"], ".2f")),
        ("trades won", f"{_number(v['win_rate'], '.0%')} of {v['complete_trades']}"),
        ("mean reward of a trade, in risk units", _number(v["mean_reward"], "+.3f")),
        ("mean cost of a trade, basis points", _number(_times(v["mean_cost"], 1e4), ".1f")),
        ("turnover a session, of capital", _number(v["turnover"], ".1%")),
        ("entries that did not fill", _number(v["unfilled"], ".1%")),
        ("information coefficient", f"{_number(v['ic'], '.3f')} over {v['ic_sessions']} sessions "
                                    f"(at least {_number(v['ic_lower'], '.3f')})"),
        ("predictive entropy, bits", _number(v["predictive_entropy"], ".3f")),
        ("ε", _number(v["epsilon"], ".3f")),
    ]  # fmt: skip
    parts = [
        f"## {v['session']}: phase {v['phase']}, {v['vol_regime'] or 'unknown'} volatility",
        f"{champion}; status {v['status']}; {details.returns.height} trailing sessions",
        _table(("", ""), values),
        f"**Expected band.** {_expectation(details.band)}",
        "**Sharpe ratio** by the regime and phase in which trades were decided",
        _table(("window", "by", "", "sessions", "Sharpe"),
               [(w, b, g, n, _number(s, ".2f")) for w, b, g, n, s in details.sharpe.iter_rows()]),
        f"**States decided on**: {v['cells']} of {details.coverage.height} cells, evenness "
        f"{_number(v['coverage'], '.2f')} of 1 (share of entries; rows: market, columns: the symbol's own volatility)",
        _coverage(details.coverage),
        "**Diversity of trades**, effective numbers: "
        + ", ".join(f"{_number(v[name], '.1f')} {name}" for name in KINDS),
        _anomalies(details.anomalies),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def picture(details: Details) -> bytes:
    """A PNG of at most 50 kB: equity and drawdown of the trailing window, and live rewards in the expected band."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    equity, drawdown, band = figure.subplots(3, 1, height_ratios=(2, 1, 2))
    sessions = details.returns["session"].to_list()
    equity.plot(sessions, (details.returns["equity"] - 1) * 100, color="#1f5fbf")
    equity.set_ylabel("equity\n% of capital")
    unusual = details.anomalies.filter(kind="unusual_return")["session"].to_list()
    for i, session in enumerate(unusual):
        equity.axvline(session, color="#b36b00", linewidth=0.8, alpha=0.6, label=None if i else "unusual return")
    if unusual:
        equity.legend(loc="upper left", fontsize=8)
    drawdown.fill_between(sessions, details.returns["drawdown"] * 100, color="#b00020", alpha=0.4, linewidth=0)
    drawdown.set_ylabel("drawdown, %")
    _draw_band(band, details.band)
    return png(figure, MOST_BYTES)


def _draw_band(axes: Any, band: Band) -> None:
    if not len(band.live):
        axes.text(0.5, 0.5, "no decision of a champion has an outcome yet", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    known = np.isfinite(band.lower) & np.isfinite(band.upper)
    if known.any():
        axes.fill_between(band.sessions, band.lower, band.upper, where=known.tolist(), color="#d8f0d8",
                          label="expected by the backtest")  # fmt: skip
        axes.plot(band.sessions, band.expected, color="#5a9a5a", linewidth=0.8)
    axes.plot(band.sessions, band.live, color="#1f5fbf", label="live")
    axes.set_ylabel("sum of session\nmean rewards,\nunits of risk")
    axes.legend(loc="upper left", fontsize=8)


def _expectation(band: Band) -> str:
    if not len(band.live):
        return "The champion's own decisions have no outcomes yet."
    live = f"{len(band.live)} live sessions sum to {band.live[-1]:+.2f} risk units"
    if band.inside is None:
        return f"{live}; a backtest of {band.backtest_sessions} sessions is too short to expect anything."
    where = "inside" if band.inside else "OUTSIDE"
    return (
        f"{live}, {where} the {band.lower[-1]:+.2f} to {band.upper[-1]:+.2f} around {band.expected[-1]:+.2f} that "
        f"{band.backtest_sessions} sessions of backtest lead one to expect, at all looks together."
    )


def _coverage(table: pl.DataFrame) -> str:
    columns = table["volatility"].unique(maintain_order=True).to_list()
    rows = []
    for regime in table["vol_regime"].unique(maintain_order=True):
        shares = table.filter(vol_regime=regime)["share"]
        rows.append((regime, *(f"{share:.0%}" for share in shares)))
    return _table(("", *columns), rows)


def _anomalies(table: pl.DataFrame) -> str:
    if table.is_empty():
        return "**Anomalies**: none in the trailing sessions"
    lines = [f"- {session}: {text}" for session, _, text in table.tail(SHOWN).iter_rows()]
    more = f" (the last {SHOWN} of {table.height})" if table.height > SHOWN else ""
    return f"**Anomalies**{more}\n\n" + "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and math.isfinite(value) else "–"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
