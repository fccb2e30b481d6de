"""The tear sheet as one page of HTML: nothing is loaded, pictures are SVG inside it, and it prints as it looks."""

import html
from collections.abc import Sequence
from typing import Any, Final

from odin_core.evaluation.tearsheet.contents import (
    DETAILS,
    OF_QUANTITY,
    OWN,
    SECTIONS,
    TILES,
    Column,
    Section,
    Shown,
)
from odin_core.evaluation.tearsheet.drawing import PICTURES, svg
from odin_core.evaluation.tearsheet.formats import DASH, told
from odin_core.evaluation.tearsheet.returns import MONTHS
from odin_core.evaluation.tearsheet.sheet import TearSheet

STYLE: Final = """
:root{color-scheme:light;--ink:#1b1f24;--pale:#5c6670;--line:#d8dde3;--card:#f6f8fa;--good:#0b5cad;--bad:#b00020}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:#fff;max-width:1040px;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;line-height:1.2;margin:.5rem 0}h2{margin:2.5rem 0 .5rem;border-bottom:2px solid var(--line)}
h3{font-size:1rem;margin:1.5rem 0 .3rem}.pale,caption{color:var(--pale);font-size:.8rem}
nav a{margin-right:1rem;color:var(--good)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(max(140px,22%),1fr));gap:.6rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.5rem .7rem}
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.tile span{font-size:.78rem;color:var(--pale)}
.note{border-left:4px solid #d9a400;background:#fff8e1;padding:.5rem .8rem;margin:1rem 0}.note p{margin:.2rem 0}
figure{margin:1rem 0}figure svg{display:block;width:100%;height:auto;max-width:900px}
figcaption{font-size:.8rem;color:var(--pale)}
figure.narrow svg{max-width:440px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums}
caption{caption-side:bottom;text-align:left;padding-top:.25rem}
td,th{padding:2px 14px 2px 0;text-align:right;vertical-align:top;white-space:nowrap}
th{font-weight:600;color:var(--pale);vertical-align:bottom}
td.text,th.text{text-align:left}td.prose{text-align:left;white-space:normal;min-width:18rem}
tr{border-bottom:1px solid var(--line)}tr.gap td{color:var(--pale);text-align:left}
.good{color:var(--good)}.bad{color:var(--bad)}
table.months td{padding:3px 6px;text-align:right}table.months td.sum{font-weight:600}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(24rem,100%),1fr));gap:0 2rem;margin:0;
font-size:.84rem}
dl div{display:flex;justify-content:space-between;border-bottom:1px solid var(--line);padding:2px 0}
dt{color:var(--pale)}dd{margin:0;font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap;padding-left:1rem}
@media print{html{font-size:11px}body{max-width:none;padding:0;font-size:11px}.tiles{
grid-template-columns:repeat(4,1fr)}
dl{grid-template-columns:1fr 1fr}nav{display:none}.wide{overflow:visible}
figure,table.months,.tiles,.note{break-inside:avoid}h2,h3{break-after:avoid}tr{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}table{font-size:9px}td,th{padding-right:6px}}
"""


def page(sheet: TearSheet) -> str:
    """The whole page. Of a range without sessions it says so."""
    title = f"Tear sheet: {sheet.title}"
    body = [f"<h1>{_text(title)}</h1>", f"<p>{_lead(sheet)}</p>", _notes(sheet)]
    if not sheet.is_empty:
        links = " ".join(f'<a href="#{_anchor(s.title)}">{_text(s.title)}</a>' for s in SECTIONS)
        body += [f"<nav>{links}</nav>", _tiles(sheet), _details(sheet)]
        body += [_section(sheet, section) for section in SECTIONS]
    body.append(_origin(sheet))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def lead(sheet: TearSheet) -> str:
    """One sentence: which sessions, how much capital, where the life got to."""
    span = f"{sheet.first or 'the beginning'} to {sheet.last or 'the end'}"
    if sheet.is_empty:
        return f"{span}: no session"
    end, champion = sheet.headline["phase"], sheet.headline["champion"]
    return (
        f"{sheet.headline['sessions']} sessions, {span}; fixed capital {sheet.capital:,.0f} {sheet.currency}; "
        f"phase {end}, {f'champion {champion}' if champion else 'no champion'} at the end. Ratios are annualised over "
        f"{sheet.periods:g} sessions"
    )


def cell(row: dict[str, Any], column: Column) -> str:
    """A value of a table as text. Metrics and quantities come in units of their own."""
    value = row[column.name]
    if column.name == "what":
        return OF_QUANTITY[value][0]
    if column.unit == OWN:
        return told(value, row["unit"] if "unit" in row else OF_QUANTITY[row["what"]][1])
    return told(value, column.unit)


def rows_of(sheet: TearSheet, shown: Shown) -> list[dict[str, Any] | None]:
    """The rows to show; None stands for those left out of a long table."""
    table = sheet.tables[shown.table]
    if shown.most is None or table.height <= 2 * shown.most + 1:
        return list(table.to_dicts())
    return [*table.head(shown.most).to_dicts(), None, *table.tail(shown.most).to_dicts()]


def _lead(sheet: TearSheet) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in sheet.facts.items())
    return _text(lead(sheet)) + (f".<br><span class=pale>{_text(facts)}</span>" if facts else ".")


def _notes(sheet: TearSheet) -> str:
    lines = "".join(f"<p>{_text(line)}.</p>" for line in sheet.missing)
    return f'<div class="note">{lines}</div>' if lines else ""


def _tiles(sheet: TearSheet) -> str:
    tiles = "".join(
        f'<div class="tile"><b class="{_sign(sheet.headline[name]) if name in SIGNED else ""}">'
        f"{told(sheet.headline[name], unit)}</b><span>{_text(title)}</span></div>"
        for name, title, unit in TILES
    )
    return f'<div class="tiles">{tiles}</div>'


SIGNED: Final = ("total_return", "sharpe", "net_of_notional")


def _details(sheet: TearSheet) -> str:
    pairs = "".join(
        f"<div><dt>{_text(title)}</dt><dd>{_text(told(sheet.headline[name], unit))}</dd></div>"
        for name, title, unit in DETAILS
    )
    return f"<dl>{pairs}</dl>"


def _section(sheet: TearSheet, section: Section) -> str:
    parts = [f'<h2 id="{_anchor(section.title)}">{_text(section.title)}</h2>']
    parts += [_picture(sheet, name) for name in section.pictures]
    if section.title == "By time":
        parts.append(_months(sheet))
    parts += [_table(sheet, shown) for shown in section.tables]
    return "\n".join(parts)


def _picture(sheet: TearSheet, name: str) -> str:
    told_of = PICTURES[name][0]
    drawn = svg(sheet, name).replace("<svg ", f'<svg role="img" aria-label="{html.escape(told_of)}" ', 1)
    narrow = ' class="narrow"' if name == "confidence" else ""
    return f"<figure{narrow}>{drawn}<figcaption>{_text(told_of)}</figcaption></figure>"


def _table(sheet: TearSheet, shown: Shown) -> str:
    rows = rows_of(sheet, shown)
    if not rows:
        return f"<h3>{_text(shown.title)}</h3><p class=pale>None. From {_text(shown.source)}.</p>"
    head = "".join(f"<th{_kind(column)}>{_text(column.title)}</th>" for column in shown.columns)
    left_out = sheet.tables[shown.table].height - 2 * (shown.most or 0)
    gap = f'<tr class="gap"><td colspan="{len(shown.columns)}">… {left_out} between them …</td></tr>'
    body = "\n".join(gap if row is None else _row(row, shown.columns) for row in rows)
    return (
        f'<h3>{_text(shown.title)}</h3><div class="wide"><table><caption>From {_text(shown.source)}.</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _row(row: dict[str, Any], columns: Sequence[Column]) -> str:
    cells = []
    for column in columns:
        sign = f" {_sign(row[column.name])}" if column.signed else ""
        kind = "" if column.unit != "text" else "prose" if column.name == "reason" else "text"
        classes = f"{kind}{sign}".strip()
        cells.append(
            f'<td class="{classes}">{_text(cell(row, column))}</td>'
            if classes
            else f"<td>{_text(cell(row, column))}</td>"
        )
    return f"<tr>{''.join(cells)}</tr>".replace(' class=""', "")


def _kind(column: Column) -> str:
    return ' class="text"' if column.unit == "text" else ""


def _months(sheet: TearSheet) -> str:
    """Years by months, coloured by sign and size."""
    table = sheet.tables["months"]
    largest = max((abs(v) for name in MONTHS for v in table[name].drop_nulls().to_list()), default=0.0)
    head = "".join(f"<th>{title}</th>" for title in ("", *MONTHS, "year", "random, mean", "buy and hold"))
    body = "\n".join(_year(row, largest) for row in table.iter_rows(named=True))
    return (
        '<h3>Months</h3><div class="wide"><table class="months"><caption>From phase_state: sums of session_return, per '
        f"cent of capital; a dash is a month without sessions.</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def _year(row: dict[str, Any], largest: float) -> str:
    cells = [f"<td class=text>{row['year']}</td>"]
    for name in MONTHS:
        cells.append(f'<td style="background:{_shade(row[name], largest)}">{_bare(row[name])}</td>')
    cells += [f'<td class="sum {_sign(row[name])}">{_bare(row[name])}</td>' for name in ("total", "random", "hold")]
    return f"<tr>{''.join(cells)}</tr>"


def _bare(value: float | None) -> str:
    return DASH if value is None else told(value, "percent").removesuffix(" %")


def _shade(value: float | None, largest: float) -> str:
    """White at zero, blue above, red below, the deeper the larger."""
    if not value or largest <= 0:
        return "#fff"
    depth = 0.12 + 0.5 * min(abs(value) / largest, 1.0)
    full = (31, 95, 191) if value > 0 else (176, 0, 32)
    return "#" + "".join(f"{round(255 - (255 - c) * depth):02x}" for c in full)


def _origin(sheet: TearSheet) -> str:
    read = ", ".join(f"{name} {rows:,}" for name, rows in sheet.made_from.items())
    return f'<p class="pale">Computed from rows of this life\'s tables: {_text(read)}. Returns are after costs.</p>'


def _sign(value: Any) -> str:
    return "" if not isinstance(value, int | float) or value == 0 else "good" if value > 0 else "bad"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _text(value: object) -> str:
    return html.escape(str(value), quote=False)
