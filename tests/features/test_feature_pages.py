"""The catalogue's pages say what the definitions say, and the report's numbers are those of the rows."""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from realdata import market_file
from reportlake import CALENDAR, FIRST, LAST, PROFILE, SESSIONS, SILENT, fill

from odin_core.features.catalogue import DEFINITIONS, MODULES, Definition, UnknownSet, features_of, set_version
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
from odin_core.features.report.distributions import MEDIAN, QUANTILES, Distributions, distributions, measured
from odin_core.features.report.drawing import FAN, LEFT, RIGHT, VALUE, TimeAxis, fan, strips, value_plot
from odin_core.features.report.features_report import Report, features_report
from odin_core.features.report.page import number, percent, prose
from odin_core.features.report.sample import NoBarsOf, most_traded, sample_of
from odin_core.lake import Lake
from odin_core.market.bars import BARS, MINUTE
from odin_core.market.data import MarketData, NoData
from odin_core.market.quality.report import LARGEST_PICTURE

DOCS = Path(__file__).parents[2] / "docs" / "features.md"
RESOURCES = ("src", "href", "data", "srcset", "poster")


class Parts(HTMLParser):
    """What a page names: the ids in it, and everything that it would load or go to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.ids += [value for name, value in attrs if name == "id"]
        self.sources += [value for name, value in attrs if name in RESOURCES]


def entry_of(page: str, name: str) -> str:
    return page.split(f'<section class="entry" id="{name}">')[1].split("</section>")[0]


def points_of(drawing: str, kind: str = "value") -> np.ndarray:
    """(points, 2) of the line of that class."""
    path = re.search(rf'class="{kind}" d="([^"]*)"', drawing)
    assert path
    return np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path[1]), float).reshape(-1, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    return fill(Lake(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def catalogue(data: MarketData) -> CataloguePage:
    return catalogue_page(sample_of(data, "AA"))


@pytest.fixture(scope="module", params=["technical", "price_action", "cross_section", "open_interest", "decision"])
def report(data: MarketData, request: pytest.FixtureRequest) -> Report:
    return features_report(data, request.param, SESSIONS[2], LAST)


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
            assert re.search(rf"\b{feature.bars}\b", told["N"].partition(",")[0])
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


def drawn(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return VALUE[1] - (values - low) / (high - low) * (VALUE[1] - VALUE[0])


def test_the_symbol_is_what_was_traded_most_and_no_index(data: MarketData):
    assert most_traded(data, LAST) == "AA"
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


# The report


def test_the_reports_numbers_are_those_of_the_rows(report: Report, data: MarketData):
    m = report.measured
    rows = data.features(None, "5m", SESSIONS[2], LAST, m.set_name)
    values = rows.drop("symbol", "known_at", "session")
    assert m.names == values.columns
    assert list(m.sessions) == SESSIONS[2:]
    np.testing.assert_array_equal(m.rows, rows.group_by("session").len().sort("session")["len"])
    by_session = rows.group_by("session").agg(pl.col(values.columns).count()).sort("session").drop("session")
    np.testing.assert_array_equal(m.filled, by_session.to_numpy())
    np.testing.assert_allclose(m.completeness, [1 - values[c].null_count() / rows.height for c in values.columns])
    for n, share in enumerate(QUANTILES):
        exact = pl.col(values.columns).cast(pl.Float64).quantile(share, "linear")
        told = rows.group_by("session").agg(exact).sort("session").drop("session")
        np.testing.assert_allclose(m.quantiles[n], told.cast(pl.Float64).fill_null(math.nan).to_numpy(), rtol=1e-12)
    constant = [c for c in values.columns if values[c].drop_nulls().n_unique() == 1]
    assert m.constant == constant
    for column, feature in enumerate(m.features):
        known = values[feature.name].drop_nulls()
        on_bound = known.is_in([b for b in feature.definition.bounds if math.isfinite(b)]).sum()
        assert m.at_bounds[:, column].sum() == on_bound


def test_every_null_has_a_reason_and_only_one(report: Report):
    m = report.measured
    lost = m.rows.sum() - m.filled.sum(axis=0)
    told = {name: 0 for name in m.names}
    for reason in m.reasons:
        for name, values in reason.lost.items():
            assert values > 0
            told[name] += values
    assert told == dict(zip(m.names, lost.tolist(), strict=True))


def reasons_of(data: MarketData, set_name: str, name: str, first: date = FIRST) -> dict[str, int]:
    return {r.why: r.lost[name] for r in distributions(data, set_name, first, LAST).reasons if name in r.lost}


def test_the_reasons_are_the_right_ones(data: MarketData):
    warm_up, too_few = "warm-up, the lake begins on 2021-04-01", "symbols with fewer than N bars in the sessions before"
    assert reasons_of(data, "technical", "sma_gap_20_day") == {
        warm_up: distributions(data, "technical", FIRST, LAST).rows.sum()
    }
    assert reasons_of(data, "price_action", "log_return_1_5m") == {warm_up: 3, too_few: 1}
    back = reasons_of(data, "price_action", "log_return_60_5m", SILENT[-1])
    assert back == {too_few: 60}  # BB's first bars after four sessions without any
    assert list(reasons_of(data, "open_interest", "oi_change_1_5m")) == ["no bar has `oi`"]
    assert next(iter(reasons_of(data, "fundamental", "book_yield"))).startswith("the figures")
    by_rule = reasons_of(data, "technical", "vwap_gap_5m")
    assert list(by_rule) == ["NaN from an unknown volume on until the session's end"]  # NIFTY has none
    assert list(by_rule.values()) == [75 * len(SESSIONS)]


def test_without_minute_bars_the_report_is_of_days_and_says_which_bars_are_missing(tmp_path: Path, data: MarketData):
    lake = Lake(tmp_path)
    for session in SESSIONS:
        lake.write("bars_day", session, data.bars_of(session, "day"))
    m = distributions(MarketData(lake, PROFILE), "price_action", FIRST, LAST)
    assert m.interval == "day"
    assert m.rows.sum() == 3 * len(SESSIONS) - len(SILENT)
    lost = {name for r in m.reasons if r.why == "there are no bars of 5m" for name in r.lost}
    assert lost == {name for name in m.names if name.endswith("_5m")}


@given(st.data())
def test_measured_agrees_with_numpy_on_any_rows(drawn_data: st.DataObject):
    features = features_of("price_action")[:3] + features_of("technical")[:2] + features_of("cross_section")[:1]
    lengths = drawn_data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    value = st.one_of(st.none(), st.floats(-2, 2, width=32), st.sampled_from([0.0, 1.0, -1.0]))
    symbols = [f"S{n}" for n, length in enumerate(lengths) for _ in range(length)]
    table = {f.name: drawn_data.draw(st.lists(value, min_size=len(symbols), max_size=len(symbols))) for f in features}
    frame = pl.DataFrame({"symbol": symbols} | table, schema={"symbol": pl.String} | dict.fromkeys(table, pl.Float32))
    rows, filled, silent, at_bounds, quantiles = measured(frame, features)
    assert rows == len(symbols)
    for column, feature in enumerate(features):
        told = [v for v in table[feature.name] if v is not None]
        assert filled[column] == len(told)
        assert at_bounds[column] == sum(v in feature.definition.bounds for v in told)
        whole = [
            s
            for s in set(symbols)
            if all(v is None for v, of in zip(table[feature.name], symbols, strict=True) if of == s)
        ]
        assert silent[column] == sum(symbols.count(s) for s in whole)
        expected = np.quantile(told, QUANTILES) if told else [math.nan] * len(QUANTILES)
        np.testing.assert_allclose(quantiles[:, column], expected, atol=1e-12)


def test_the_page_needs_nothing_but_itself_and_has_every_feature(report: Report):
    parts = Parts(report.html)
    assert parts.sources == []
    assert not re.search(r"https?:|url\(|@import|<script", report.html)
    for name, filled in zip(report.measured.names, report.measured.filled.sum(axis=0), strict=True):
        assert f"<td><code>{name}</code></td>" in report.html
        assert f">{name}</text>" in report.html
        assert (f"<figcaption>{name}</figcaption>" in report.html) == bool(filled)


def test_the_markdown_fits_on_a_screen_and_names_what_moved_most(report: Report):
    m = report.measured
    assert report.markdown.startswith(
        f"**nse, {m.set_name} (version {set_version(m.set_name)}): {len(m.names)} features"
    )
    assert len(report.markdown.splitlines()) < 30
    table = report.markdown.partition("interquartile ranges |\n|---|---:|---:|---:|\n")[2].splitlines()
    known = np.flatnonzero(m.filled.any(axis=0))
    low, middle, high = (m.quantiles[q][:, known] for q in (2, 3, 4))
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.nan_to_num(
            np.abs(middle[-1] - np.nanmedian(middle, axis=0)) / np.nanmedian(high - low, axis=0), posinf=0
        )
    if len(known):
        assert table[0].startswith(f"| {m.names[known[int(size.argmax())]]} | ")
    else:
        assert not table


def test_the_picture_is_a_small_png(report: Report):
    assert report.picture.startswith(b"\x89PNG")
    assert 2_000 < len(report.picture) < LARGEST_PICTURE


def noise(sessions: Sequence[date], set_name: str) -> Distributions:
    """Distributions that compress as badly as can be."""
    features, rng = features_of(set_name), np.random.default_rng(3)
    shape = len(sessions), len(features)
    return Distributions(
        market="nse", set_name=set_name, version="0", interval="5m", features=features, sessions=sessions,
        rows=np.full(shape[0], 1000), filled=rng.integers(1, 1000, shape), silent=np.zeros(shape, np.int64),
        at_bounds=np.zeros(shape, np.int64), quantiles=np.sort(rng.normal(size=(7, *shape)), axis=0),
        before=np.arange(shape[0]), first_stored=sessions[0], absent=frozenset(), per_session=dict(USUAL),
    )  # fmt: skip


def test_the_picture_stays_small_for_years_of_noise():
    report = Report(noise(CALENDAR.sessions(date(2016, 1, 1), date(2021, 12, 31)), "technical"))
    assert len(report.picture) < LARGEST_PICTURE
    assert len(report.html) < 20_000_000


@pytest.mark.parametrize("sessions", [SESSIONS[:1], SESSIONS[:2]])
def test_one_session_is_enough(sessions: list[date]):
    report = Report(noise(sessions, "decision"))
    assert report.picture.startswith(b"\x89PNG")
    assert f"{len(sessions)} sessions {FIRST}" in report.html


def test_no_rows_give_a_report_that_says_so(data: MarketData):
    report = features_report(data, "technical", date(2022, 1, 3), date(2022, 1, 7))
    assert report.markdown == "**nse, technical: no rows of day in these sessions**\n"
    assert "no rows of day" in report.html
    assert report.picture.startswith(b"\x89PNG")
    assert report.to_dict()["rows"] == 0


def test_an_unknown_set_is_refused(data: MarketData):
    with pytest.raises(UnknownSet, match="did you mean technical"):
        features_report(data, "tecnical", FIRST, LAST)


def test_a_recorded_session_is_reported_as_it_is(tmp_path: Path):
    recorded = pl.scan_parquet(market_file("nse_equity_1m_2021.parquet"))
    start, end = datetime(2021, 6, 7, tzinfo=UTC), datetime(2021, 6, 10, tzinfo=UTC)
    wanted = recorded.filter(
        pl.col("symbol").is_in(["INFY", "RELIANCE"]), pl.col("ts").is_between(start, end)
    ).collect()
    lake = Lake(tmp_path)
    for session in CALENDAR.sessions(start.date(), date(2021, 6, 9)):
        hours = CALENDAR.hours(session)
        rows = wanted.filter(pl.col("ts") >= hours.open, pl.col("ts") < hours.close)
        rows = rows.with_columns(known_at=pl.col("ts") + MINUTE, oi=None).sort("symbol", "ts")
        lake.write("price_history", session, rows.select(pl.col(c).cast(t) for c, t in BARS.items()))
    data = MarketData(lake, PROFILE)
    m = distributions(data, "technical", start.date(), end.date())
    rows = data.features(None, "5m", date(2021, 6, 9), date(2021, 6, 9), "technical")
    column = m.names.index("rsi_14_5m")
    assert m.filled[-1, column] == rows["rsi_14_5m"].count() > 100
    assert m.quantiles[MEDIAN, -1, column] == pytest.approx(rows["rsi_14_5m"].median(), rel=1e-6)
    page = catalogue_page(sample_of(data, "RELIANCE")).html
    shown = data.features(["RELIANCE"], "5m", start.date(), end.date(), "technical")["rsi_14_5m"].drop_nulls()
    np.testing.assert_allclose(points_of(entry_of(page, "rsi"))[:, 1], drawn(shown.to_numpy(), 0, 100), atol=0.051)
