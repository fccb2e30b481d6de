"""The report of a life: one self-contained page with a picture, and the picture alone for Dagit."""

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from odin_core.lake import write_text
from odin_core.lifecycle.life import REPORT, Life
from odin_core.lifecycle.summary import phase_table, summarise

PHASE_COLOURS = ("#f0f0f0", "#dbe9f6", "#d8f0d8", "#fff2cc")
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:900px;margin:2em auto}"
    "td,th{padding:2px 10px;text-align:left;vertical-align:top}td:first-child{white-space:nowrap}"
)


def write_report(life: Life) -> tuple[Path, str]:
    """Write `<life>/reports/life.html`; returns its path and the picture as base64 PNG (below 50 kB)."""
    picture = base64.b64encode(_picture(phase_table(life))).decode()
    path = life.reports / REPORT
    write_text(_page(summarise(life), picture), path)
    return path, picture


def _picture(states: pl.DataFrame) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    sessions = states["session"].to_list()
    random = np.cumsum(np.array(states["random_returns"].to_list()), axis=0)
    top.plot(sessions, (states["equity"] - 1) * 100, color="#1f5fbf", label="ODIN")
    top.plot(sessions, random.mean(axis=1) * 100, color="#777777", label="random, same turnover (mean of 20)")
    top.axhline(0, color="black", linewidth=0.5, label="doing nothing")
    top.set_ylabel("cumulative return\n% of capital")
    top.legend(loc="upper left", fontsize=8)
    middle.plot(sessions, states["drawdown"] * 100, color="#b00020")
    middle.set_ylabel("drawdown, %")
    bottom.step(sessions, states["phase"], where="post", color="#333333", label="phase")
    bottom.plot(sessions, states["epsilon"], color="#b36b00", label="ε")
    bottom.set_ylabel("phase, ε")
    bottom.legend(loc="upper left", fontsize=8)
    runs = states["phase"].rle().struct.unnest()
    starts = [0, *np.cumsum(runs["len"]).tolist()]
    for phase, first, after in zip(runs["value"], starts[:-1], starts[1:], strict=True):
        top.axvspan(sessions[first], sessions[min(after, len(sessions) - 1)], color=PHASE_COLOURS[phase], zorder=0)
    figure.autofmt_xdate()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _page(summary: dict[str, Any], picture: str) -> str:
    transitions = _columns(summary["phase"]["transitions"], "session", "from", "to", "reason")
    retrained = _columns(summary["retrains"], "session", "rows", "outcome", "candidate", "reason")
    performance = [("", ""), *_flat(summary["performance"])]
    title = f"{summary['market']}, life {summary['life']}"
    counts = ", ".join(f"{n} {status}" for status, n in summary["decisions"].items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f"<p>{summary['sessions']} sessions, {summary['first_session']} to {summary['last_session']}; "
        f"phase {summary['phase']['final']}; decisions: {counts}</p>"
        f'<img alt="equity, drawdown, phase" src="data:image/png;base64,{picture}">'
        f"<h2>Performance</h2>{_table(performance)}"
        f"<h2>Phases</h2>{_table(transitions)}<p>Next: {html.escape(summary['phase']['next'])}</p>"
        f"<h2>Retrains</h2>{_table(retrained)}</body></html>\n"
    )


def _columns(records: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """The names, then one row per record; what is missing is a dash."""
    return [names, *(tuple("–" if r[name] is None else r[name] for name in names) for r in records)]


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        else:
            rows.append((prefix + name, f"{value:.4g}" if isinstance(value, float) else str(value)))
    return rows


def _table(rows: list[tuple[Any, ...]]) -> str:
    cells = ("".join(f"<td>{html.escape(str(c))}</td>" for c in row) for row in rows)
    return "<table>" + "".join(f"<tr>{c}</tr>" for c in cells) + "</table>"
