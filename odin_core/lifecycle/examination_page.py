"""An examination for people: Markdown, and one self-contained page with pictures. The numbers are `examination`'s."""

import base64
import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from odin_core.lifecycle.examination import Examination
from odin_core.lifecycle.refilling import AS_IT_WAS
from odin_core.pictures import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL, RANDOM, BAD = "#1f5fbf", "#9a9a9a", "#b00020"
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:3px 10px;text-align:left;vertical-align:top;"
    "border-bottom:1px solid #ddd}td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".pass{color:#1a7f37;font-weight:600}.fail{color:#b00020;font-weight:600}img{max-width:100%}"
    "p.note{color:#555;margin-top:-.5em}"
)
HEADS = {"ic": "rank IC", "lost_ic": "lost rank IC", "says": "what was done"}  # other columns: their names
SECTIONS = {  # table: title, what its numbers are, columns
    "footings": (
        "On every footing",
        "Means over sessions, in units of risk (60-minute ATR); random is a context and an action drawn at random on "
        "the same bars and costs; excess is reward − random, lower and upper its interval; worst session is a fraction "
        "of capital; kept is the share of the first row's excess. "
        "Under gaps and crashes a stop cuts losses and not gains, so that random may earn there: look at the loss.",
        ("footing", "trades", "reward", "random", "excess", "lower", "upper", "worst_session", "kept", "says"),
    ),
    "costs": (
        "Costs",
        "Mean reward of the model's trades were their costs this many times as high, with the interval by sessions.",
        ("multiple", "mean", "lower", "upper"),
    ),
    "stress": (
        "The market's worst windows",
        "Value is what makes the window the worst of its kind: compound market return, mean volatility, drawdown or "
        "mean estimated spread, as fractions. The rest is the model's reward by session in units of risk; known are "
        "the sessions with one, drawdown is that of their running sum, baseline is random.",
        ("kind", "rank", "first", "last", "value", "known", "mean", "worst", "drawdown", "baseline", "excess"),
    ),
    "horizons": (
        "How far ahead",
        "Rank correlation by session of the model's score with what symbols did over so many sessions, close to close; "
        "the interval allows for overlap. Spread is the mean return of the top fifth less that of the bottom fifth.",
        ("horizon", "sessions", "ic", "lower", "upper", "t", "positive", "spread", "decay"),
    ),
    "seeds": (
        "Seeds",
        "Walk-forward inside the training window: excess over random in units of risk, mean daily rank correlation.",
        ("seed", "excess", "ic"),
    ),
    "parameters": (
        "Parameters",
        "One setting changed at a time, the sessions the same; kept is the share of the unchanged learner's excess.",
        ("parameter", "unchanged", "value", "excess", "ic", "kept"),
    ),
    "families": (
        "Without a family of features",
        "Walk-forward without the family; lost is what all features had more. Families may say the same, so losses do "
        "not add up, and a family that only adds noise has a loss below 0.",
        ("group", "features", "excess", "ic", "lost_excess", "lost_ic"),
    ),
    "heads": (
        "Without a head",
        "Direction: the side is drawn. Enter: every context is traded. Exit: mean of all stops and targets. Size: all "
        "trades weigh the same. Confidence: which trades come first is drawn. Lost is the excess that goes with it.",
        ("of", "head", "excess", "lost_excess"),
    ),
}  # fmt: skip


def to_markdown(found: Examination) -> str:
    """The findings and every table."""
    lines = [f"# {_title(found)}", "", _summary(found), "", *_markdown_table(_findings(found))]
    for name, (title, note, columns) in SECTIONS.items():
        lines += ["", f"## {title}", "", note, "", *_markdown_table(_rows(found.tables[name], columns))]
    return "\n".join(lines) + "\n"


def to_html(found: Examination) -> str:
    """One page that needs nothing from elsewhere."""
    parts = [f"<h1>{html.escape(_title(found))}</h1><p>{html.escape(_summary(found))}</p>"]
    parts += [_picture("reward on every footing", footings_picture(found)), _html_table(_findings(found))]
    parts += [_picture("reward by session and stress windows", sessions_picture(found))]
    for name, (title, note, columns) in SECTIONS.items():
        table = _html_table(_rows(found.tables[name], columns))
        parts.append(f'<h2>{html.escape(title)}</h2><p class="note">{html.escape(note)}</p>{table}')
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(_title(found))}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _title(found: Examination) -> str:
    return f"Examination of {found.version}, {found.market}"


def _summary(found: Examination) -> str:
    failed = [f.name for f in found.findings if not f.passed]
    verdict = (
        f"not robust in {len(failed)} of {len(found.findings)}: {', '.join(failed)}" if failed else "robust in all"
    )
    even = f"{found.break_even:.2f} times" if math.isfinite(found.break_even) else "no known multiple of"
    stuck = f"; {found.stuck} trades were still open at the end" if found.stuck else ""
    trades = found.tables["footings"]["trades"][0]
    return (
        f"Life {found.life}; trained through {found.trained_through}; {found.sessions} sessions after it "
        f"({found.first} to {found.last}), {trades} trades. Findings: {verdict}. "
        f"Nothing would be left of its trades at {even} their costs{stuck}."
    )


def _findings(found: Examination) -> list[tuple[Any, ...]]:
    head = ("finding", "", "value", "at least", "what it is")
    return [head, *((f.name, "PASS" if f.passed else "FAIL", f.value, f.needed, f.explanation) for f in found.findings)]


def _rows(table: pl.DataFrame, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return [tuple(HEADS.get(c, c.replace("_", " ")) for c in columns), *table.select(columns).iter_rows()]


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown_table(rows: list[tuple[Any, ...]]) -> list[str]:
    lines = ["| " + " | ".join(_cell(c).replace("|", "/") for c in row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def _html_table(rows: list[tuple[Any, ...]]) -> str:
    head = "".join(f"<th>{html.escape(str(c))}</th>" for c in rows[0])
    body = "".join("<tr>" + "".join(map(_html_cell, row)) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def _html_cell(value: Any) -> str:
    kind = {"PASS": ' class="pass"', "FAIL": ' class="fail"'}.get(value, "") if isinstance(value, str) else ""
    if isinstance(value, int | float):
        kind = ' class="number"'
    return f"<td{kind}>{html.escape(_cell(value))}</td>"


def _picture(says: str, png: bytes) -> str:
    return f'<p><img alt="{says}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'


def footings_picture(found: Examination) -> bytes:
    """PNG: mean reward of the model with its interval over random, and of random, on every footing."""
    table = found.tables["footings"]
    figure = _figure(9, 0.32 * table.height + 1.2)
    axes = figure.subplots()
    place = np.arange(table.height)[::-1]
    reward, random = table["reward"].fill_null(np.nan).to_numpy(), table["random"].fill_null(np.nan).to_numpy()
    lower, upper = (random + table[name].to_numpy() for name in ("lower", "upper"))
    axes.hlines(place, lower, upper, color=MODEL, linewidth=5, alpha=0.25)
    axes.plot(reward, place, "o", color=MODEL, label="model (bar: interval of model − random)")
    axes.plot(random, place, "o", color=RANDOM, label="random on the same bars and costs")
    axes.axvline(0, color="black", linewidth=0.7)
    axes.set_yticks(place, table["footing"].to_list())
    axes.set_xlabel("mean reward, units of risk")
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return png(figure)


def sessions_picture(found: Examination) -> bytes:
    """PNG: cumulated reward of the model and of random, as it was, over the sessions, with the worst windows shaded."""
    mine = found.tables["by_session"].filter(footing=AS_IT_WAS.name)
    sessions = mine["session"].to_list()
    figure = _figure(9, 3.2)
    axes = figure.subplots()
    for column, colour, label in (("reward", MODEL, "model"), ("random", RANDOM, "random")):
        axes.plot(sessions, mine[column].fill_null(0.0).cum_sum().to_numpy(), color=colour, label=label)
    for window in found.tables["stress"].iter_rows(named=True):
        axes.axvspan(window["first"], window["last"], color=BAD, alpha=0.08, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_ylabel("mean reward by session,\ncumulated, units of risk")
    axes.legend(fontsize=8, loc="upper left", title="red: the market's worst windows", title_fontsize=8)
    figure.autofmt_xdate()
    return png(figure)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
