"""The report of a set of features: its numbers are those of the rows, and every null has its reason."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from realdata import market_file
from reportlake import CALENDAR, FIRST, LAST, PROFILE, SESSIONS, SILENT, Parts, drawn, entry_of, fill, points_of

from odin_core.features.catalogue import UnknownSet, features_of, set_version
from odin_core.features.report.catalogue import (
    USUAL,
    catalogue_page,
)
from odin_core.features.report.distributions import MEDIAN, QUANTILES, Distributions, distributions, measured
from odin_core.features.report.features_report import Report, features_report
from odin_core.features.report.sample import sample_of
from odin_core.lake import Lake
from odin_core.market.bars import BARS, MINUTE
from odin_core.market.data import MarketData
from odin_core.market.quality.report import LARGEST_PICTURE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    return fill(Lake(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module", params=["technical", "price_action", "cross_section", "open_interest", "decision"])
def report(data: MarketData, request: pytest.FixtureRequest) -> Report:
    return features_report(data, request.param, SESSIONS[2], LAST)


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


def test_the_picture_is_a_small_png_that_can_be_read(report: Report):
    assert report.picture.startswith(b"\x89PNG")
    assert int.from_bytes(report.picture[16:20]) == 720  # pixels across
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
