"""What people look at of a model, on one page: each diagnostic a picture, a table, and how to read them.

The diagnostics themselves are made where their model is: `encoder.diagnostics`, `rl.diagnostics`."""

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from odin_core.pictures import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BYTES: Final = 50_000  # of a picture, which Dagit may hold in its event log
MOST_ROWS: Final = 40  # of a table on the page
STYLE: Final = (
    "body{font:15px/1.5 sans-serif;color:#222;max-width:980px;margin:2em auto;padding:0 1em}"
    "img{max-width:100%}table{border-collapse:collapse;font-size:13px}summary{cursor:pointer;color:#1f5fbf}"
    "th,td{padding:.15em .7em;text-align:right;border-bottom:1px solid #ddd}p{max-width:760px}"
)


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """`name`: of files and metadata; `told`: what is seen, in a sentence or two, with the numbers that matter."""

    name: str
    title: str
    told: str
    table: pl.DataFrame
    picture: bytes
    """PNG of at most MOST_BYTES"""


def page(title: str, told: str, diagnostics: Sequence[Diagnostic]) -> str:
    """One HTML page that needs nothing from elsewhere; equal input, equal text. Of a table the first MOST_ROWS rows."""
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1><p>{html.escape(told)}</p>"
    ]
    for each in diagnostics:
        picture = base64.b64encode(each.picture).decode()
        parts.append(
            f'<h2 id="{each.name}">{html.escape(each.title)}</h2><p>{html.escape(each.told)}</p>'
            f'<img alt="{html.escape(each.title)}" src="data:image/png;base64,{picture}">'
            f"<details><summary>numbers</summary>{_table(each.table)}</details>"
        )
    return "\n".join([*parts, "</body></html>\n"])


def drawn(width: float, height: float) -> "Figure":
    """An empty figure, in inches, that no window belongs to."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def small_png(figure: "Figure") -> bytes:
    """The figure with small letters and open frames, in at most MOST_BYTES."""
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        axes.title.set_fontsize(10)
        axes.spines[["top", "right"]].set_visible(False)
    return png(figure, MOST_BYTES)


def _table(frame: pl.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in frame.columns)
    rows = ["".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) for row in frame.head(MOST_ROWS).rows()]
    more = f"<p>the first {MOST_ROWS} of {frame.height:,} rows</p>" if frame.height > MOST_ROWS else ""
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>{more}"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
