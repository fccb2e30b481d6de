"""The page of an `OfflineReport`: tables and interactive figures in one file, Plotly's script inside it."""

import html
import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from odin_core.rl.offline_report import ALL_OUTCOMES, OfflineReport

if TYPE_CHECKING:
    import plotly.graph_objects as go

PALE, INK, GOOD, BAD = "#9aa4ae", "#1b1f24", "#0b5cad", "#b00020"


def page(report: OfflineReport) -> str:
    """One self-contained page of HTML, about 5 MB; equal reports give equal bytes."""
    from odin_core.evaluation.tearsheet.page import STYLE

    title = f"REINFORCE, offline: {report.market}, life {report.life}"
    lead = (
        f"Policy <b>{report.policy.version}</b>, learned from {report.decisions['train']:,} logged decisions and "
        f"stopped by {report.decisions['validation']:,}; valued on {report.decisions[report.valued]:,} decisions of "
        f"{report.first} to {report.last} that it did not learn from."
    )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in report.notes)
    parts = [f"<h1>{html.escape(title)}</h1><p>{lead}</p><div class=note>{notes}</div>"]
    for place, (heading, draw, caption) in enumerate(FIGURES):
        figure = draw(report)
        drawn = figure.to_html(
            full_html=False, include_plotlyjs=place == 0, div_id=f"figure-{place}", default_height="auto"
        )
        parts.append(f"<h2>{heading}</h2>{drawn}<p class=pale>{html.escape(caption)}</p>")
        if place == 0:
            parts.append(_table(report.values))
    settings = "\n".join(f"{name}: {value}" for name, value in report.config.model_dump(mode="json").items())
    parts.append(f"<h2>Settings</h2><pre>{html.escape(settings)}</pre>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


def _table(values: pl.DataFrame) -> str:
    heads = ("policy", "estimator", "value", "95 % interval", "rows", "effective", "mean weight")
    kinds = ("text", "text", *[""] * (len(heads) - 2))
    titles = "".join(f'<th class="{kind}">{head}</th>' for kind, head in zip(kinds, heads, strict=True))
    rows = [f"<tr>{titles}</tr>"]
    for row in values.iter_rows(named=True):
        span = "–" if row["lower"] is None else f"{row['lower']:+.3f} to {row['upper']:+.3f}"
        numbers = (
            "–" if row["value"] is None else f"{row['value']:+.3f}", span, f"{row['rows']:,}",
            f"{row['effective_rows']:,.0f}", "–" if row["mean_weight"] is None else f"{row['mean_weight']:.2f}",
        )  # fmt: skip
        names = "".join(f"<td class=text>{html.escape(row[name])}</td>" for name in ("policy", "estimator"))
        rows.append(f"<tr>{names}{''.join(f'<td>{cell}</td>' for cell in numbers)}</tr>")
        if row["doubts"]:
            doubts = html.escape("; ".join(row["doubts"]))
            rows.append(f'<tr class=gap><td class=prose colspan="{len(heads)}">doubt: {doubts}</td></tr>')
    return f"<div class=wide><table>{''.join(rows)}</table></div>"


def _figure(y: str, x: str = "", height: int = 380) -> "go.Figure":
    import plotly.graph_objects as go

    layout = {
        "template": "plotly_white",
        "height": height,
        "margin": {"t": 20, "l": 60, "r": 20},
        "hovermode": "x unified",
    }
    return go.Figure(layout={**layout, "xaxis_title": x, "yaxis_title": y})


def _values_figure(report: OfflineReport) -> "go.Figure":
    figure = _figure("", "reward per decision, units of risk", 520).update_layout(hovermode="closest")
    names = report.values["policy"].unique(maintain_order=True).to_list()
    estimators = [e for e in report.values["estimator"].unique(maintain_order=True).to_list() if e != ALL_OUTCOMES]
    for place, estimator in enumerate([*estimators, ALL_OUTCOMES]):
        rows = report.values.filter(pl.col("estimator") == estimator, pl.col("value").is_not_null())
        shift = (place - len(estimators) / 2) * 0.13
        value = rows["value"].to_numpy()
        figure.add_scatter(
            x=value, y=[names.index(name) + shift for name in rows["policy"]], mode="markers", name=estimator,
            marker={"size": 11 if estimator == ALL_OUTCOMES else 7},
            error_x={"type": "data", "symmetric": False,
                     "array": (rows["upper"].fill_null(math.nan).to_numpy() - value),
                     "arrayminus": (value - rows["lower"].fill_null(math.nan).to_numpy())},
            customdata=rows["effective_rows"].to_list(),
            hovertemplate="%{x:+.3f}, %{customdata:.0f} effective rows",
        )  # fmt: skip
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, autorange="reversed")
    return figure.add_vline(x=0, line_color=INK, line_width=1)


def _curves_figure(report: OfflineReport) -> "go.Figure":
    figure = _figure("objective", "update")
    for row in report.seeds.iter_rows(named=True):
        seed, curve = row["seed"], report.curves.filter(seed=row["seed"])
        steps = curve["step"].to_list()
        figure.add_scatter(
            x=steps, y=curve["objective"].to_list(), name=f"learned from, seed {seed}", line={"dash": "dot"}
        )
        figure.add_scatter(x=steps, y=curve["validation"].to_list(), name=f"later, seed {seed}")
        best = curve.filter(step=row["best_step"])["validation"].to_list()
        figure.add_scatter(
            x=[row["best_step"]], y=best, mode="markers", marker={"size": 10, "color": INK}, showlegend=False,
            name=f"taken, seed {seed}",
        )  # fmt: skip
    return figure


def _actions_figure(report: OfflineReport) -> "go.Figure":
    figure, days = _figure("probability"), report.sessions["session"].to_list()
    for name, colour in (("long", GOOD), ("short", BAD), ("flat", "#d8dde3")):
        figure.add_scatter(
            x=days, y=report.sessions[name].to_list(), name=name, stackgroup="one", line={"width": 0}, fillcolor=colour
        )
    return _shade(figure, report)


def _sessions_figure(report: OfflineReport) -> "go.Figure":
    figure, days = _figure("summed reward, units of risk"), report.sessions["session"].to_list()
    for name, colour in (("learned", GOOD), ("logged", INK), ("random", PALE)):
        figure.add_scatter(x=days, y=report.sessions[name].cum_sum().to_list(), name=name, line={"color": colour})
    return _shade(figure, report)


def _shade(figure: "go.Figure", report: OfflineReport) -> "go.Figure":
    for part, colour in (("validation", "#d9a400"), ("test", "#0b5cad")):
        days = report.sessions.filter(part=part)["session"].to_list()
        if days:
            figure.add_vrect(x0=days[0], x1=days[-1], fillcolor=colour, opacity=0.1, line_width=0, annotation_text=part)
    return figure


def _weights_figure(report: OfflineReport) -> "go.Figure":
    figure = _figure("decisions", "log₁₀ of the weight").update_layout(hovermode="closest")
    figure.add_histogram(x=np.log10(np.maximum(report.weights, 1e-6)).round(6).tolist(), nbinsx=60, marker_color=GOOD)
    return figure.add_vline(x=math.log10(report.config.clip), line_color=BAD, annotation_text="cut here when learning")


FIGURES = (
    (
        "Policy value",
        _values_figure,
        "Mean reward per decision in units of risk (60-minute ATR), after costs; 0 is doing nothing. “All outcomes” "
        "needs no weights and is the truth of this simulation.",
    ),
    (
        "Learning",
        _curves_figure,
        "Objective on the sessions learned from and on later ones, by seed; the dot is where the policy is from.",
    ),
    ("What it does", _actions_figure, "Mean probability by session; shaded: sessions it did not learn from."),
    ("Reward by session", _sessions_figure, "Summed mean reward per decision, by the outcomes of all actions."),
    (
        "Importance weights",
        _weights_figure,
        "π/μ of the logged choices on the sessions valued. Few large ones mean that the log says little of it.",
    ),
)
