"""The catalogue of features for people, out of the definitions alone: Markdown, and a page with a plot of each.

Nothing about a feature is written here. What is said of it is its docstring and its decorator; `docs/features.md` is
these lines below a head that people write, and a test compares them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from odin_core.errors import OdinError
from odin_core.features.catalogue import (
    DEFINITIONS,
    INTERVALS,
    MODULES,
    SELECTIONS,
    Definition,
    Feature,
    UnknownFeature,
    all_features,
    features_of,
    named,
    set_version,
)
from odin_core.features.report.drawing import value_plot
from odin_core.features.report.page import number, page, prose, values
from odin_core.features.report.sample import SampleOfSymbol

MARKER: Final = "<!-- Below: `odin features catalogue --markdown docs/features.md`; write above this line only. -->"
USUAL: Final = {"1m": 375, "5m": 75, "15m": 25, "60m": 7, "day": 1}
"""Bars of a session of 6¼ hours (NSE), by which the Markdown tells sessions; the page counts by its own market."""

KNOWN_AT: Final = {
    "bars": "the end of the bar",
    "panel": "the end of the bar, from all symbols' bars that end at that instant",
    "facts": "the row's instant, from what had been published by then",
}


class NoHead(OdinError):
    def __init__(self, path: object) -> None:
        super().__init__(f"{path} has no line {MARKER!r}, below which the catalogue goes; add it, or name a new file")


def definition_of(name: str) -> Definition:
    """The function of that name; for a feature's or a column's name, with its parameters and interval alone. Raises
    UnknownFeature."""
    if name in DEFINITIONS:
        return DEFINITIONS[name]
    try:
        feature = named(name)
    except UnknownFeature:
        raise UnknownFeature(name, [*DEFINITIONS, *all_features()]) from None
    one = replace(feature.definition, variants=(feature.parameters,))
    if not feature.interval:
        return one
    if feature.interval not in one.intervals:
        raise UnknownFeature(name, [f"{names_of(one)[0]}_{i}" for i in one.intervals] or names_of(one))
    return replace(one, intervals=(feature.interval,))


def described(definition: Definition, per_session: Mapping[str, int]) -> dict[str, str]:
    """What there is to know of one function beside its docstring: label to text, names between backticks."""
    d = definition
    told = {
        "Names": ", ".join(f"`{name}`" for name in names_of(d)),
        "Parameters": _parameters(d),
        "Intervals": ", ".join(i for i in d.intervals if i)
        or ("any row" if d.kind == "facts" else "any, by name only"),
        "N": _warm_ups(d, per_session),
        "Reads": reads(d),
        "Known at": KNOWN_AT[d.kind],
        "Unit": d.unit,
        "Range": "" if range_of(d.bounds) == d.unit else range_of(d.bounds),
        "Mirror": "" if d.mirror is None else number(d.mirror),
        "Source": d.source,
    }
    return {label: text for label, text in told.items() if text}


def names_of(definition: Definition) -> list[str]:
    """Its features' names without the interval, one for each variant of the parameters."""
    return [Feature(definition, variant, "").name for variant in definition.variants]


def reads(definition: Definition) -> str:
    """Which columns, features or published figures its values are made of."""
    needs = [f"`{name}`" for name in sorted(definition.needs)]
    if definition.kind == "facts":
        return ", ".join(needs)
    if definition.kind == "panel":
        found = [name for variant in definition.variants for name in definition.inputs(*variant)]
        return f"{', '.join(f'`{name}`' for name in dict.fromkeys(found))} of all symbols"
    return ", ".join(["prices", *needs])


def range_of(bounds: tuple[float, float]) -> str:
    """Bounds in words: \"0 to 100\", \"0 or more\", \"any\"."""
    low, high = bounds
    if math.isfinite(low) and math.isfinite(high):
        return f"{number(low)} to {number(high)}"
    return f"{number(low)} or more" if math.isfinite(low) else f"{number(high)} or less" if high < math.inf else "any"


def _parameters(definition: Definition) -> str:
    code = definition.formula.__code__
    arguments = code.co_varnames[: code.co_argcount][-len(definition.variants[0]) :] if definition.variants[0] else ()
    columns = zip(arguments, zip(*definition.variants, strict=True), strict=True)
    return ", ".join(f"{name} = {_or(list(map(number, dict.fromkeys(column))))}" for name, column in columns)


def _or(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]


def _warm_ups(definition: Definition, per_session: Mapping[str, int]) -> str:
    """N of each variant; of the largest also about how many sessions that is, by interval."""
    found = sorted({Feature(definition, variant, "").bars for variant in definition.variants})
    if definition.kind == "facts":
        return ""
    if found == [0]:
        return "0, its own session only"
    sessions = [
        f"{math.ceil(found[-1] / per_session[i])} of {i}" for i in definition.intervals or INTERVALS if i in per_session
    ]
    about = ", ".join(sessions).replace(" of", " session of" if sessions[0].startswith("1 ") else " sessions of", 1)
    return f"{_or(list(map(str, found)))} bars, at most {about}"


def _definitions(set_name: str) -> list[Definition]:
    return [d for d in DEFINITIONS.values() if d.set == set_name]


def markdown_catalogue() -> str:
    """All definitions, set by set, without plots."""
    parts = [f"{MARKER}\n\n## Which sets there are\n\n{_sets_table()}"]
    for name in MODULES:
        parts.append(f"## {_title(name)}\n\n{_set_says(name)}")
        parts += [_entry(d) for d in _definitions(name)]
    parts.append(_selections())
    return "\n\n".join(parts) + "\n"


def with_catalogue(text: str, path: object = "the file") -> str:
    """The Markdown `text` with its catalogue as it is now; what stands above the marker is kept. An empty text becomes
    the catalogue alone. Raises NoHead for a text without the marker."""
    head, found, _ = text.partition(MARKER)
    if text.strip() and not found:
        raise NoHead(path)
    return head + markdown_catalogue()


def _sets_table() -> str:
    anchors = {name: name.replace("_", "-") for name in MODULES}
    rows = [f"| [{n}](#{a}) | {len(_definitions(n))} | {len(features_of(n))} |" for n, a in anchors.items()]
    return "\n".join(["| set | functions | columns |", "|---|---:|---:|", *rows])


def _title(set_name: str) -> str:
    return f"{set_name.replace('_', ' ').capitalize()}"


def _set_says(set_name: str) -> str:
    """What the set's module says of itself in its first paragraph."""
    import importlib

    return (importlib.import_module(f"odin_core.features.{set_name}").__doc__ or "").split("\n\n")[0].strip()


def _entry(definition: Definition) -> str:
    told = described(definition, USUAL)
    lines = [
        ("Names", "Parameters"), ("Intervals", "N"), ("Reads", "Known at"), ("Unit", "Range", "Mirror"), ("Source",),
    ]  # fmt: skip
    listed = [" · ".join(f"**{label}** {told[label]}" for label in line if label in told) for line in lines]
    return "\n".join([f"### {definition.name}\n", definition.says, "", *(f"- {line}" for line in listed if line)])


def _selections() -> str:
    parts = ["## Sets that pick from the others"]
    parts += [f"- `{name}`: {', '.join(f'`{f}`' for f in chosen)}" for name, chosen in SELECTIONS.items()]
    return "\n\n".join(parts)


@dataclass(frozen=True)
class CataloguePage:
    """The page, and what it shows. `plotted`: functions that have a plot; of the others it says why they have none."""

    sample: SampleOfSymbol
    plotted: Sequence[str]
    html: str


def catalogue_page(sample: SampleOfSymbol) -> CataloguePage:
    """The catalogue as one self-contained page, each function with a plot of its first variant on `sample`."""
    body, plotted = [sample.panels(), _contents(sample)], list[str]()
    for name in MODULES:
        body.append(f'<h2 id="set-{name}">{_title(name)} <small>version {set_version(name)}</small></h2>')
        body.append(f"<p>{prose(_set_says(name))}</p>")
        for definition in _definitions(name):
            figure = _figure(definition, sample)
            plotted += [definition.name] if figure.startswith("<figure") else []
            body.append(
                f'<section class="entry" id="{definition.name}"><div><h3>{definition.name}</h3>'
                f"<div>{prose(definition.says)}</div>{values(described(definition, sample.per_session))}</div>"
                f"{figure}</section>"
            )
    return CataloguePage(sample, plotted, page(f"Features of {sample.market}", "\n".join(body)))


def _contents(sample: SampleOfSymbol) -> str:
    links = [
        f'<h3><a href="#set-{name}">{_title(name)}</a> <small class="pale">{len(_definitions(name))} functions, '
        f"{len(features_of(name))} columns</small></h3><p>"
        + " ".join(f'<a href="#{d.name}">{d.name}</a>' for d in _definitions(name))
        + "</p>"
        for name in MODULES
    ]
    picks = "".join(
        f'<h3>{_title(name)} <small class="pale">{len(chosen)} columns picked from the others, version '
        f"{set_version(name)}</small></h3><p>{' '.join(f'<code>{f}</code>' for f in chosen)}</p>"
        for name, chosen in SELECTIONS.items()
    )
    return (
        f"<p>{len(DEFINITIONS)} functions, each shown on <b>{prose(sample.symbol)}</b>, {sample.says}: the price in "
        "grey above, the feature below it, dashed where its mirror lies. A value follows from the session's own bars "
        "up to its row and from exactly the N bars before the session's first one.</p>"
        f"<nav>{''.join(links)}{picks}</nav>"
    )


def _figure(definition: Definition, sample: SampleOfSymbol) -> str:
    shown = sample.shown(definition)
    if isinstance(shown, str):
        return f'<p class="pale">{prose(shown)}</p>'
    plot = value_plot(shown.panel, shown.axis, shown.values, definition.bounds, definition.mirror)
    return (
        f"<figure>{plot}<figcaption>{shown.name} on {shown.grid} bars of {prose(sample.symbol)}</figcaption></figure>"
    )
