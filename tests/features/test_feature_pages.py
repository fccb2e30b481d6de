"""The catalogue's pages say what the definitions say, and their plots show the provider's rows."""

import html
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reportlake import FIRST, LAST, PROFILE, SESSIONS, Parts, drawn, entry_of, fill, points_of

from odin_core.features.catalogue import DEFINITIONS, MODULES, Definition, features_of, set_version
from odin_core.features.report.catalogue import (
    MARKER,
    USUAL,
    CataloguePage,
    NoHead,
    catalogue_page,
    described,
    markdown_catalogue,
    names_of,
    range_of,
    with_catalogue,
)
from odin_core.features.report.drawing import FAN, LEFT, RIGHT, VALUE, TimeAxis, fan, strips, value_plot
from odin_core.features.report.page import number, percent, prose
from odin_core.features.report.sample import NoBarsOf, most_traded, sample_of
from odin_core.lake import Lake
from odin_core.market.data import MarketData, NoData

DOCS = Path(__file__).parents[2] / "docs" / "features.md"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    return fill(Lake(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def catalogue(data: MarketData) -> CataloguePage:
    return catalogue_page(sample_of(data, "AA"))


# The documented catalogue


def test_the_committed_page_is_what_the_definitions_say():
    told = DOCS.read_text("utf-8")
    assert with_catalogue(told) == told, "run: odin features catalogue --markdown docs/features.md"


def test_a_new_function_is_in_the_markdown_and_on_the_page_by_itself(monkeypatch: pytest.MonkeyPatch, data: MarketData):
    def brand_new(bars: Any, runs: Any, window: int = 3) -> Any:
        """Half of the close, <b> & all. NaN never."""
        return bars.close / 2.0

    entered = replace(DEFINITIONS["sma"], name="brand_new", formula=brand_new, variants=((3,),), unit="half a price")
    before = markdown_catalogue()
    monkeypatch.setitem(DEFINITIONS, "brand_new", entered)
    assert (
        "### brand_new\n\nHalf of the close, <b> & all. NaN never.\n\n- **Names** `brand_new_3`" in markdown_catalogue()
    )
    assert "brand_new" not in before
    page = catalogue_page(sample_of(data, "AA")).html
    assert "Half of the close, &lt;b&gt; &amp; all." in entry_of(page, "brand_new")
    heights = points_of(entry_of(page, "brand_new"))[:, 1]
    shown = data.read(["AA"], SESSIONS[-5], LAST, "5m")["close"].to_numpy()
    np.testing.assert_allclose(heights, drawn(shown, shown.min(), shown.max()), atol=0.051)


def test_the_head_is_kept_and_a_text_without_its_marker_is_refused():
    assert with_catalogue(f"Mine.\n{MARKER}\nold") == f"Mine.\n{markdown_catalogue()}"
    assert with_catalogue("") == markdown_catalogue()
    with pytest.raises(NoHead, match=r"notes\.md has no line"):
        with_catalogue("Mine.", "notes.md")


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_everything_that_a_definition_says_is_told(definition: Definition):
    told = described(definition, USUAL)
    assert told["Source"] == definition.source
    assert told["Unit"] == definition.unit
    assert told["Names"].replace("`", "").split(", ") == names_of(definition)
    ends = {f.interval for f in features_of(definition.set) if f.definition is definition and f.interval}
    assert not ends or set(told["Intervals"].split(", ")) == ends
    for feature in features_of(definition.set):
        if feature.definition is definition and definition.kind != "facts":
            assert re.search(rf"\b{feature.bars}\b", told["N"].partition(" bars")[0])
            if feature.bars:
                assert f"{math.ceil(max_bars(definition) / USUAL[feature.interval])} " in told["N"]
    for need in definition.needs if definition.kind != "panel" else ():
        assert f"`{need}`" in told["Reads"]
    for name in (n for v in definition.variants for n in definition.inputs(*v)):
        assert f"`{name}`" in told["Reads"]
    assert ("Mirror" in told) == (definition.mirror is not None)
    low, high = definition.bounds
    if low > -math.inf and high < math.inf:
        assert range_of(definition.bounds) == f"{low:g} to {high:g}".replace("-", "−")
    entry = markdown_catalogue().split(f"\n### {definition.name}\n")[1].split("\n### ")[0]
    for label, text in told.items():
        assert f"**{label}** {text}" in entry
    assert definition.says in entry


def max_bars(definition: Definition) -> int:
    return max(int(definition.warm_up(*variant)) for variant in definition.variants)


# The page with plots


def test_the_page_has_every_definition_with_a_plot_or_the_reason_why_not(catalogue: CataloguePage):
    page = catalogue.html
    for definition in DEFINITIONS.values():
        entry = entry_of(page, definition.name)
        assert html.escape(" ".join(definition.says.split()), quote=False) in " ".join(
            re.sub("</?code>", "`", entry).split()
        )
        assert html.escape(definition.source, quote=False) in entry
        plotted = '<path class="value" d="M' in entry
        assert plotted == (definition.name in catalogue.plotted)
        assert plotted or "needs" in entry.rpartition("</div>")[2]
    without = {d.name for d in DEFINITIONS.values()} - set(catalogue.plotted)
    known = {d.name for d in DEFINITIONS.values() if d.kind == "facts" or "oi" in d.needs}
    assert without == known | {"relative_strength"} - set(catalogue.plotted)
    for name in MODULES:
        assert set_version(name) in page


def test_the_page_loads_nothing_leads_nowhere_else_and_is_small(catalogue: CataloguePage):
    parts = Parts(catalogue.html)
    assert {source[0] for source in parts.sources} == {"#"}
    assert {source[1:] for source in parts.sources} <= set(parts.ids)
    assert len(parts.ids) == len(set(parts.ids))
    assert {d.name for d in DEFINITIONS.values()} <= {source[1:] for source in parts.sources}
    assert not re.search(r"https?:|url\(|@import|<script", catalogue.html)
    assert len(catalogue.html.encode()) < 4_000_000


@pytest.mark.parametrize(("name", "column"), [("rsi", "rsi_14_5m"), ("return_rank", "return_rank_1_5m")])
def test_a_plot_shows_the_rows_that_the_provider_gives(
    catalogue: CataloguePage, data: MarketData, name: str, column: str
):
    low, high = DEFINITIONS[name].bounds
    rows = data.features(["AA"], "5m", SESSIONS[-5], LAST, DEFINITIONS[name].set)[column]
    points = points_of(entry_of(catalogue.html, name))
    np.testing.assert_allclose(points[:, 1], drawn(rows.to_numpy(), low, high), atol=0.051)
    assert (np.diff(points[:, 0]) > 0).all()
    assert points[0, 0] >= LEFT
    assert points[-1, 0] <= RIGHT


def test_what_is_computed_by_name_is_seeded_before_the_rows_that_are_shown(catalogue: CataloguePage, data: MarketData):
    closes = data.read(["AA"], FIRST, LAST, "5m")["close"]
    means = closes.rolling_mean(20).to_numpy()[-5 * 75 :]
    np.testing.assert_allclose(
        points_of(entry_of(catalogue.html, "sma"))[:, 1], drawn(means, means.min(), means.max()), atol=0.051
    )


def test_the_symbol_is_what_was_traded_most_and_no_index(data: MarketData, tmp_path: Path):
    assert most_traded(data, LAST) == "AA"
    lake = Lake(tmp_path)
    lake.write("price_history", LAST, data.bars(LAST).with_columns(volume=pl.lit(5e9)).filter(pl.col("symbol") != "AA"))
    assert most_traded(MarketData(lake, PROFILE), LAST) == "BB"
    assert sample_of(data, session=SESSIONS[8]).last == SESSIONS[8]


def test_an_unknown_symbol_and_an_empty_lake_are_the_users_mistakes(data: MarketData, tmp_path: Path):
    with pytest.raises(NoBarsOf, match=r"'AB' in the sessions up to 2021-04-23; known: AA, BB, NIFTY"):
        sample_of(data, "AB")
    with pytest.raises(NoData, match="it has none at all"):
        sample_of(MarketData(Lake(tmp_path), PROFILE))


# Drawing and words

finite = st.floats(-1e12, 1e12, allow_nan=False)
series = st.lists(st.one_of(finite, st.just(math.nan)), min_size=1, max_size=30).map(np.array)


@given(series, st.sets(st.integers(1, 29), max_size=4))
def test_a_plot_has_a_point_for_each_known_value_inside_its_panel(values: np.ndarray, breaks: set[int]):
    edges = np.array([0, *sorted(b for b in breaks if b < len(values))])
    drawing = value_plot("p", TimeAxis(len(values), edges, ()), values, (-math.inf, math.inf), 0.0)
    points = points_of(drawing)
    assert len(points) == np.isfinite(values).sum()
    assert ((points[:, 1] >= VALUE[0] - 0.06) & (points[:, 1] <= VALUE[1] + 0.06)).all()
    assert "nan" not in drawing
    pieces = re.findall('M[^M"]*', re.search(r'class="value" d="([^"]*)"', drawing)[1])  # pyright: ignore[reportOptionalSubscript]
    known = np.isfinite(values)
    expected = sum(known[i] and (i == 0 or i in edges or not known[i - 1]) for i in range(len(values)))
    assert len(pieces) == expected
    assert all("L" in piece or piece.endswith("h0") for piece in pieces)


@given(st.lists(st.lists(finite, min_size=5, max_size=5).map(sorted), min_size=1, max_size=12))
def test_a_fan_keeps_its_bands_in_order(rows: list[list[float]]):
    lowest, low, middle, high, highest = np.array(rows).T
    drawing = fan(lowest, low, middle, high, highest)
    assert len(points_of(drawing)) == len(rows)
    wide, band = (points_of(drawing, kind)[:, 1] for kind in ("wide", "band"))
    half = len(rows)
    assert (wide[:half] <= band[:half] + 0.11).all()
    assert (band[half:] <= wide[half:] + 0.11).all()
    assert min(wide) >= FAN[0] - 0.06
    assert max(wide) <= FAN[1] + 0.06


def test_a_heat_map_draws_nothing_for_unknown_red_for_none_and_one_rectangle_for_equal_neighbours():
    drawing = strips(np.array([[math.nan, 0.0, 0.0, 1.0, 1.0, 0.5]]), ["a<b"], [(0, "now")])
    assert re.findall(r'width="([\d.]+)" height="11" (class="\w+")', drawing) == [
        ("162.7", 'class="none"'), ("162.7", 'class="full"'), ("81.3", 'class="full"'),
    ]  # fmt: skip
    assert "a&lt;b" in drawing


@given(st.floats(-1e9, 1e9, allow_nan=False))
def test_numbers_are_told_with_three_digits(value: float):
    told = float(number(value).replace(",", "").replace("−", "-"))
    assert told == pytest.approx(value, rel=0.006, abs=1e-300)


@given(st.floats(0, 1))
def test_only_all_is_100_percent_and_only_nothing_is_0(share: float):
    told = percent(share)
    assert (told == "100 %") == (share == 1.0)
    assert (told == "0 %") == (share == 0.0)
    assert percent(math.nan) == "–"


def test_prose_is_escaped_and_has_code():
    assert prose("`a_b` < c & `d`") == "<code>a_b</code> &lt; c &amp; <code>d</code>"
