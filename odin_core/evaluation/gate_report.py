"""A verdict of the gate as people read it: Markdown, one self-contained page, JSON. Same verdict, same bytes."""

import html
import json
from collections.abc import Iterable, Mapping

import numpy as np

from odin_core.evaluation.evidence import Criterion, Evidence, Verdict, needs, number
from odin_core.evaluation.gate import floats
from odin_core.evaluation.metrics import FloatArray

HEADINGS = ("criterion", "result", "value", "needs", "short by", "unit", "explanation")
COLOURS = {"candidate": "#1f5fbf", "incumbent": "#7a3fa0", "rules": "#b36b00", "random": "#777777"}
STYLE = """body{font:14px/1.5 sans-serif;max-width:960px;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}
.PASS td:nth-child(2){color:#07702f}.FAIL td:nth-child(2){color:#b00020;font-weight:bold}
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1em}dd{margin:0}"""


def report_markdown(verdict: Verdict, context: Mapping[str, object]) -> str:
    """The verdict as Markdown: outcome, `context` as lines "name: value", one table row per criterion, the facts."""
    table = [HEADINGS, ("---",) * len(HEADINGS), *map(_cells, verdict.criteria)]
    lines = [
        f"# {_markdown(verdict.candidate)}: {verdict.outcome}\n",
        f"{_markdown(verdict.reason)}\n",
        *(f"- {_markdown(name)}: {_markdown(value)}" for name, value in _heading(verdict, context)),
        "",
        *("| " + " | ".join(map(_markdown, row)) + " |" for row in table),
        "",
        *(f"- {name}: {value}" for name, value in _fact_lines(verdict)),
    ]
    return "\n".join(lines) + "\n"


def report_json(verdict: Verdict, context: Mapping[str, object]) -> str:
    """The verdict as JSON with sorted names: no NaN, no infinity."""
    told = verdict.to_dict() | {"context": {name: str(value) for name, value in context.items()}}
    return json.dumps(told, sort_keys=True, indent=1, allow_nan=False) + "\n"


def report_html(verdict: Verdict, evidence: Evidence, context: Mapping[str, object]) -> str:
    """The same as one self-contained page, with the summed rewards of candidate and baselines as inline SVG."""
    rows = (f'<tr class="{c[1]}">' + _tags("td", c) + "</tr>\n" for c in map(_cells, verdict.criteria))
    title = html.escape(f"{verdict.candidate}: {verdict.outcome}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1><p>{html.escape(verdict.reason)}</p>\n"
        f"{_terms(_heading(verdict, context))}\n"
        f"<table><tr>{_tags('th', HEADINGS)}</tr>\n{''.join(rows)}</table>\n"
        f"{_plot(evidence)}\n{_terms(_fact_lines(verdict))}</body></html>\n"
    )


def _cells(c: Criterion) -> tuple[str, ...]:
    result = "PASS" if c.passed else "FAIL"
    return (c.name, result, number(c.value), needs(c), number(c.distance), c.unit, c.explanation)


def _heading(verdict: Verdict, context: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    yield from context.items()
    yield "incumbent", verdict.incumbent or "none"
    yield "error spent", f"{number(verdict.alpha)} (hypothesis {verdict.hypothesis} of this life)"


def _fact_lines(verdict: Verdict) -> Iterable[tuple[str, object]]:
    for name, value in verdict.facts.items():
        yield name.replace("_", " "), value if isinstance(value, str) else number(value)


def _terms(pairs: Iterable[tuple[str, object]]) -> str:
    return f"<dl>{''.join(_tags('dt', [name]) + _tags('dd', [value]) for name, value in pairs)}</dl>"


def _tags(tag: str, values: Iterable[object]) -> str:
    return "".join(f"<{tag}>{html.escape(str(v))}</{tag}>" for v in values)


def _markdown(value: object) -> str:
    return " ".join(html.escape(str(value), quote=False).split()).replace("|", "\\|").replace("&gt;", ">")


def _plot(evidence: Evidence, width: int = 720, height: int = 240, margin: int = 50) -> str:
    frame = evidence.sessions.sort("session")
    shown = [name for name in COLOURS if name != "incumbent" or evidence.incumbent is not None]
    sums = {name: np.append(0.0, np.cumsum(np.nan_to_num(floats(frame, name)))) for name in shown}
    low, high = min(float(s.min()) for s in sums.values()), max(float(s.max()) for s in sums.values())
    x = np.linspace(margin, width - margin, frame.height + 1)

    def y(value: FloatArray | float) -> FloatArray:
        share = (np.asarray(value) - low) / ((high - low) or 1.0)
        return height - margin - share * (height - 2 * margin)

    lines = "".join(
        f'<text x="{margin + 100 * i}" y="20" fill="{COLOURS[name]}">{name}</text>'
        f'<polyline fill="none" stroke="{COLOURS[name]}" stroke-width="2" points="'
        + " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y(line), strict=True))
        + '"/>'
        for i, (name, line) in enumerate(sums.items())
    )
    marks = "".join(
        f'<line x1="{margin}" x2="{width - margin}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#ddd"/>'
        f'<text x="2" y="{y(v):.1f}">{number(v)}</text>'
        for v in sorted({low, 0.0, high})
    )
    days = (str(frame["session"][0]), str(frame["session"][-1])) if frame.height else ("", "")
    return (
        "<h2>Summed mean rewards by session, units of risk</h2>"
        f'<svg viewBox="0 0 {width} {height}" width="{width}" font-size="12" '
        f'role="img" aria-label="summed rewards">{marks}{lines}<text x="{margin}" y="{height - 8}">{days[0]}</text>'
        f'<text x="{width - margin}" y="{height - 8}" text-anchor="end">{days[1]}</text></svg>'
    )
