"""Drift for people: Evidently's page, a short Markdown table, and a picture of the index by feature and session.

What comes in: frames of rows, `DriftScores`, or the stored tables of many sessions (`reference.DRIFT` with `session`).
Nothing is computed here that decides anything."""

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from odin_core.lake import write_text
from odin_core.monitoring.reference import DriftScores
from odin_core.pictures import png

SAMPLE = 5_000  # rows; Evidently takes 14 s for 100,000 × 60
PICTURE_BYTES = 50_000
MOST_SUBJECTS = 40
EVIDENTLY = (
    "That is ODIN's finding, and what halts entries when it comes twice in a row. Below, Evidently compares each "
    "feature's rows as if they were independent, at one fixed distance for all (0.1). Symbols of a session move "
    "together and volatility wanders for months, so it calls many features drifted where nothing has changed. Look "
    "there at what moved and how, not at its verdict."
)
UNLIMITED = "since chance alone carries them as far within the training: only faults alarm"


def drift_page(
    reference: pl.DataFrame, current: pl.DataFrame, path: Path, *, scores: DriftScores | None = None, seed: int = 0
) -> Path:
    """Write Evidently's drift report on `current` against `reference` as one self-contained HTML page; returns `path`.
    With `scores` what they find stands above it, since Evidently judges otherwise.

    Numeric or text columns of the same names; columns without any value on either side are left out. At most SAMPLE
    rows of each side are drawn, by `seed`. About 3 to 4 MB and some seconds: weekly, or when there is an alarm."""
    columns = _shared(reference, current)
    from evidently import Report
    from evidently.presets import DataDriftPreset

    sides = [_sample(frame.select(columns), seed + i) for i, frame in enumerate((current, reference))]
    page = Report([DataDriftPreset()]).run(*sides)
    drawn = page.get_html_str(as_iframe=False)
    start = re.search(r"<body[^>]*>", drawn)
    if scores is not None and start is not None:
        drawn = drawn[: start.end()] + _verdict(scores) + drawn[start.end() :]
    write_text(drawn, path)
    return path


def _verdict(scores: DriftScores) -> str:
    """What stands above Evidently's part of the page."""
    reason = scores.reason if scores.judged else f"not judged: {scores.reason}"
    colour = "#b00020" if scores.alarm else "#1a7f37" if scores.judged else "#555555"
    return (
        '<div style="font:15px/1.5 sans-serif;max-width:1200px;margin:1.5em auto;padding:0 1.5em">'
        f'<p style="font-size:20px;color:{colour};margin:0 0 .4em">{html.escape(_sentence(reason))}</p>'
        f'<p style="margin:0">{html.escape(EVIDENTLY)}</p></div>'
    )


def drift_markdown(scores: DriftScores, *, most: int = 10) -> str:
    """The finding, and the `most` subjects that are furthest, as Markdown."""
    reason = scores.reason if scores.judged else f"not judged: {scores.reason}"
    lines = [
        f"**{_sentence(reason)}**" if scores.alarm else _sentence(reason),
        "",
        drift_table(scores.table, most=most),
    ]
    if not scores.judged:
        return "\n".join(lines) + "\n"
    without = scores.table.filter(pl.col("limit").is_null())["subject"].to_list()
    return "\n".join([*lines, *([f"\nWithout a limit, {UNLIMITED}: {', '.join(without)}."] if without else [])]) + "\n"


def drift_table(table: pl.DataFrame, *, most: int = 10) -> str:
    """The `most` subjects that are furthest, alarms in bold, as Markdown. `table`: rows of DRIFT of one session."""
    lines = [
        "| subject | index | limit | share of limit | KS | Wasserstein | z | missing | outside |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    shown = table.sort("alarm", "score", "psi", descending=True, nulls_last=True).head(most)
    for row in shown.iter_rows(named=True):
        cells = (
            f"**{row['subject']}**" if row["alarm"] else row["subject"],
            _text(row["psi"], ".2f"), _text(row["limit"], ".2f"), _text(row["score"], ".0%"), _text(row["ks"], ".2f"),
            _text(row["wasserstein"], ".2f"), _text(row["z"], "+.1f"), _text(row["missing"], ".1%"),
            _text(row["out_of_range"], ".1%"),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"{r['subject']}: {r['fault']}" for r in shown.iter_rows(named=True) if r["fault"]]
    if table.height > shown.height:
        notes.append(f"{table.height - shown.height} more subjects, none nearer to its limit")
    return "\n".join([*lines, *(f"\n{note}." for note in notes)])


def drift_picture(tables: pl.DataFrame) -> bytes:
    """PNG of at most 50 kB: each subject's share of its limit by session, darker for more, alarms in red.

    `tables`: rows of DRIFT with a column `session`. Subjects that have no limit in the last of them are marked, and
    drawn by their index over ten. With more than MOST_SUBJECTS of them only those that came furthest. The same rows
    give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, sessions, heat, alarms = _grid(tables)
    if not names:
        names, sessions, heat, alarms = ["nothing yet"], [], np.zeros((1, 1)), np.zeros((1, 1), bool)
    figure = Figure(figsize=(9, 1.6 + 0.19 * max(len(names), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(heat, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    rows, columns = np.nonzero(alarms)
    axes.scatter(columns, rows, marker="s", s=14, color="#b00020", label="alarm")
    last = tables.filter(session=pl.col("session").max()) if sessions else tables
    free = set(last.filter(pl.col("score").is_null())["subject"]) if sessions else set()
    axes.set_yticks(range(len(names)), [f"{n} *" if n in free else n for n in names], fontsize=7)
    at = np.unique(np.linspace(0, max(len(sessions) - 1, 0), 8).astype(int)) if sessions else np.empty(0, int)
    axes.set_xticks(at, [str(sessions[i]) for i in at], fontsize=7, rotation=30)
    said = "population stability index, last sessions against training, as share of its limit"
    axes.set_title(f"{said}\n* has no limit: index over ten" if free else said, fontsize=9)
    figure.colorbar(image, ax=axes, fraction=0.03)
    return png(figure, PICTURE_BYTES)


def _grid(tables: pl.DataFrame) -> tuple[list[str], list[Any], np.ndarray, np.ndarray]:
    shown = tables.with_columns(heat=pl.coalesce("score", pl.col("psi") / 10, pl.lit(0.0)).clip(0, 1))
    furthest = shown.group_by("subject").agg(pl.col("alarm").any(), pl.col("heat").max())
    kept = furthest.sort(["alarm", "heat", "subject"], descending=[True, True, False])["subject"].head(MOST_SUBJECTS)
    names = [n for n in tables["subject"].unique(maintain_order=True) if n in set(kept)]
    sessions = tables["session"].unique().sort().to_list()
    heat = np.zeros((len(names), len(sessions)))
    alarms = np.zeros(heat.shape, bool)
    row, column = ({value: i for i, value in enumerate(values)} for values in (names, sessions))
    for subject, session, value, alarm in shown.select("subject", "session", "heat", "alarm").iter_rows():
        if subject in row:
            heat[row[subject], column[session]] = value
            alarms[row[subject], column[session]] = bool(alarm)
    return names, sessions, heat, alarms


def _shared(reference: pl.DataFrame, current: pl.DataFrame) -> list[str]:
    """Columns of both that Evidently can compare. Raises ValueError where there are none."""
    both = [c for c in reference.columns if c in current.columns]
    usable = [
        c
        for c in both
        if all(f[c].dtype.is_numeric() or f[c].dtype in (pl.String, pl.Boolean) for f in (reference, current))
        and all(f[c].fill_nan(None).count() if f[c].dtype.is_float() else f[c].count() for f in (reference, current))
    ]
    if not usable:
        raise ValueError(f"no column has values in both frames; they share {', '.join(both) or 'no column'}")
    return usable


def _sample(frame: pl.DataFrame, seed: int) -> Any:
    rows = frame.sample(SAMPLE, seed=seed) if frame.height > SAMPLE else frame
    return rows.to_pandas()


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
