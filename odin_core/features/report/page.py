"""One self-contained page: its frame, its colours by day and night, and the small pieces that features' pages share."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--pale:#66707c;--line:#d8dde3;--back:#fff;--card:#f6f8fa;--price:#8a94a0;
--value:#0b62c4;--band:#bcd6f5;--wide:#e2edfa;--bad:#c4351c}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ed;--pale:#98a2ae;--line:#3a424c;--back:#14181d;--card:#1c2229;
--price:#7d8894;--value:#6cb0ff;--band:#2c5582;--wide:#20364e;--bad:#ff8a6e}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:1080px;margin:0 auto;
padding:1rem}
a{color:var(--value);text-decoration:none}a:hover{text-decoration:underline}
h1{font-size:1.5rem;line-height:1.25}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}h3{margin:0}
h2 small{font-weight:400;font-size:.8rem;color:var(--pale)}
code{font-size:.9em;background:var(--card);border-radius:3px;padding:0 .2em;overflow-wrap:anywhere}
section.entry{padding:1rem 0;border-bottom:1px solid var(--line);display:grid;gap:.5rem 1.5rem;
grid-template-columns:minmax(0,1fr)}
@media(min-width:760px){section.entry{grid-template-columns:minmax(0,1fr) minmax(0,27rem)}}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem .8rem;margin:.5rem 0 0;font-size:.875rem}
dt{color:var(--pale)}dd{margin:0}
figure{margin:0}figcaption,.pale{font-size:.8rem;color:var(--pale)}
svg{display:block;width:100%;height:auto}svg.drawn-once{position:absolute;width:0;height:0}
text{fill:var(--pale);font:10px system-ui,sans-serif}
.price,.value{fill:none;stroke-width:1.2;stroke-linecap:round;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.price{stroke:var(--price)}.value{stroke:var(--value)}
.rule{stroke:var(--line)}.middle{stroke:var(--pale);stroke-dasharray:3 3}
.band{fill:var(--band)}.wide{fill:var(--wide)}.full{fill:var(--value)}.none{fill:var(--bad)}
nav p{margin:.2rem 0 .8rem;line-height:1.8}nav p a{margin-right:.8rem;white-space:nowrap}
.fans{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:1rem}
.table{overflow-x:auto}.table svg{min-width:600px}table{border-collapse:collapse;font-size:.875rem}
td,th{padding:2px 10px 2px 0;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}tr{border-bottom:1px solid var(--line)}
"""


def page(title: str, body: str) -> str:
    """A whole page; `body` is HTML. It loads nothing."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def prose(text: str) -> str:
    """Text as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def values(pairs: Mapping[str, str]) -> str:
    """A list of names and what they are, texts as in `prose`."""
    rows = "".join(f"<dt>{prose(name)}</dt><dd>{prose(text)}</dd>" for name, text in pairs.items())
    return f"<dl>{rows}</dl>"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table that can be pushed sideways where it is too wide; texts as in `prose`."""
    head = "".join(f"<th>{prose(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{prose(str(cell))}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="table"><table><tr>{head}</tr>\n{body}</table></div>'


def number(value: float) -> str:
    """Three digits that count, for people: 0.00123, 52.1, 1,230, −4e-06, 4.91e+06."""
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return "0" if float(text.replace(",", "")) == 0 else text.replace("-", "−", 1) if value < 0 else text


def percent(share: float) -> str:
    """A share as per cent, 0 % and 100 % only where it is exactly that; a dash for NaN."""
    if math.isnan(share):
        return "–"
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    return "< 0.1 %" if share < 0.001 else "> 99.9 %" if share > 0.999 else f"{share * 100:.1f} %"
