"""Quality on the recorded files: each bad day of their README is found, and no good day is called wrong."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from realdata import market_file

from odin_core.lake import Lake
from odin_core.market.bars import BARS, MINUTE, minutes_of, table_of
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.importing import store_page
from odin_core.market.intake.pages import Page
from odin_core.market.profile import load_profile
from odin_core.market.quality.assessing import assess_session, assess_sessions, blocking
from odin_core.market.reference.actions import ACTIONS
from odin_core.market.sources.source import SOURCE_BARS

YEARS = {  # of long files
    "us_daily_unadjusted": [2000, 2005, 2008, 2009, 2014],
    "nse_daily_unadjusted": [2019, 2020, 2022, 2023, 2024],
    "nse_daily_adjusted": [2016, 2020, 2022, 2023],
    "multi_asset_1h": [2022, 2023],
}
DAILY = 1 / 1.32  # an open below this share of the close before is a jump


class Recorded(NamedTuple):
    lake: Lake
    market: str
    findings: pl.DataFrame  # FINDINGS and session

    def of(self, session: str, rule: str, symbol: str | None = None) -> dict[str, Any]:
        """Symbol to severity and count."""
        found = self.findings.filter(pl.col("session") == date.fromisoformat(session), pl.col("rule") == rule)
        return {s: (severity, n) for s, severity, n in found.select("symbol", "severity", "count").rows()}

    def count(self, severity: str) -> dict[str, int]:
        """Findings by rule."""
        return dict(self.findings.filter(severity=severity).group_by("rule").len().sort("rule").rows())


def stored(lake: Lake, bars: pl.DataFrame, market: str, interval: str) -> None:
    """Recorded bars as they are, each session's in its partition; those outside the hours are left out."""
    calendar, minutes = session_calendar(load_profile(market)), minutes_of(interval)
    if "oi" not in bars.columns:
        bars = bars.with_columns(oi=pl.lit(None, pl.Float64))
    by_time = bars.sort("ts")
    for session in calendar.sessions(
        max(by_time["ts"][0].date() - timedelta(days=1), calendar.first),
        min(by_time["ts"][-1].date() + timedelta(days=1), calendar.last),
    ):
        hours = calendar.hours(session)
        if minutes is None:  # a day's bar is labelled with the date
            edges = [datetime(session.year, session.month, session.day, tzinfo=UTC) + timedelta(days=n) for n in (0, 1)]
        else:
            edges = [hours.open, hours.close]
        first, last = (by_time["ts"].search_sorted(edge, side="left") for edge in edges)
        here = by_time.slice(first, last - first)
        if minutes is None:
            here = here.with_columns(pl.lit(hours.open).alias("ts"), pl.lit(hours.close).alias("known_at"))
        else:
            here = here.with_columns(pl.min_horizontal(pl.col("ts") + MINUTE * minutes, hours.close).alias("known_at"))
        if here.height:
            whole = here.select(pl.col(name).cast(dtype) for name, dtype in BARS.items())
            lake.write(table_of(interval), session, whole.sort("symbol", "ts"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recorded]:
    """A recorded file in a lake of its own, assessed; made once for this module."""
    made: dict[tuple[str, ...], Recorded] = {}

    def make(file: str, market: str = "nse", interval: str = "1m", *symbols: str) -> Recorded:
        key = (file, market, interval, *symbols)
        if key not in made:
            bars = recorded_bars(file)
            lake = Lake(tmp_path_factory.mktemp(file))
            stored(lake, bars.filter(pl.col("symbol").is_in(symbols)) if symbols else bars, market, interval)
            made[key] = Recorded(lake, market, findings_of(lake, market, interval))
        return made[key]

    return make


def recorded_bars(file: str) -> pl.DataFrame:
    bars = pl.read_parquet(market_file(f"{file}.parquet"))
    return bars.filter(pl.col("ts").dt.year().is_in(YEARS[file])) if file in YEARS else bars


def findings_of(lake: Lake, market: str, interval: str) -> pl.DataFrame:
    sessions = lake.sessions(table_of(interval))
    found = assess_sessions(lake, session_calendar(load_profile(market)), sessions)
    return pl.concat([frame.with_columns(pl.lit(session).alias("session")) for session, frame in found])


# What the files hold, counted: errors (they block) and warnings by rule. An error on a good day would be a false alarm.
FALSE_ALARMS_AND_FINDINGS = {
    ("nse_equity_1m_2016",): ({}, {"bad_tick": 1}),
    ("nse_futures_index_1m",): ({}, {}),
    ("nse_index_1m",): ({}, {"feed_hole": 6, "missing_bars": 6}),
    ("nse_options_1m", "nse_options"): ({}, None),
    ("nse_equity_1m_2021",): ({}, None),
    ("nse_equity_1m_2015",): ({"jump_without_action": 1}, None),
    ("crypto_1m", "crypto"): ({}, None),
    ("crypto_perp_1m_gappy", "crypto"): ({}, None),
    ("crypto_venues_1m_202303", "crypto"): ({}, {"bad_tick": 3, "stale": 16}),
    ("metals_fx_1m", "metals", "1m", "XAUUSD"): ({}, None),
    ("us_equity_1m", "us", "1m", "AAPL.CFD", "MSFT.CFD"): ({}, None),
    ("index_fx_5m", "indices", "5m", "US30", "NAS100"): ({}, None),
    ("multi_asset_1h", "crypto", "60m", "ETHUSDT"): ({}, None),
    ("multi_asset_1h", "metals", "60m", "XAGUSD"): ({}, None),
}


@pytest.mark.parametrize("file", FALSE_ALARMS_AND_FINDINGS, ids=lambda f: f"{f[0]}-{'-'.join(f[1:])}")
def test_no_good_day_of_the_recorded_files_is_called_wrong(recorded: Callable[..., Recorded], file: tuple[str, ...]):
    """2,200 sessions; the one error is the bonus of FEDERALBNK, which is none once the action is known."""
    errors, warnings = FALSE_ALARMS_AND_FINDINGS[file]
    assert recorded(*file).count("error") == errors
    if warnings is not None:
        assert recorded(*file).count("warning") == warnings


@pytest.mark.parametrize(
    ("file", "session", "rule", "symbol", "count"),
    [
        ("nse_index_1m", "2020-02-18", "feed_hole", "*", 6),
        ("nse_index_1m", "2020-10-12", "feed_hole", "*", 26),
        ("nse_index_1m", "2021-07-23", "feed_hole", "*", 41),
        ("nse_index_1m", "2021-11-01", "feed_hole", "*", 4),
        ("nse_index_1m", "2022-01-21", "feed_hole", "*", 13),
        ("nse_index_1m", "2022-03-07", "feed_hole", "*", 39),
        ("nse_index_1m", "2022-03-07", "missing_bars", "BANKNIFTY", 77),
        ("nse_equity_1m_2021", "2021-04-07", "feed_hole", "*", 296),
        ("nse_equity_1m_2021", "2021-06-10", "feed_hole", "*", 210),
        ("nse_equity_1m_2021", "2021-05-24", "feed_hole", "*", 122),
        ("nse_equity_1m_2021", "2021-05-25", "early_stop", "BAJAJFINSV", 239),
        ("nse_equity_1m_2015", "2015-01-14", "missing_sessions", "*", 4),
        ("nse_equity_1m_2015", "2015-02-18", "missing_sessions", "*", 9),
        ("nse_equity_1m_2015", "2015-07-03", "jump_without_action", "FEDERALBNK", 1),
    ],
)
def test_each_bad_day_that_the_readme_names_is_found(
    recorded: Callable[..., Recorded], file: str, session: str, rule: str, symbol: str, count: int
):
    found = recorded(file).of(session, rule)
    assert found[symbol] == ("error" if rule == "jump_without_action" else "warning", count)


@pytest.mark.parametrize(("session", "bars"), [("2021-04-07", 79), ("2021-05-25", 142), ("2021-06-10", 162)])
def test_a_recorder_that_stopped_is_found_for_each_symbol(recorded: Callable[..., Recorded], session: str, bars: int):
    nse = recorded("nse_equity_1m_2021")
    held = nse.lake.read("price_history", date.fromisoformat(session)).group_by("symbol").len()
    few = nse.of(session, "few_bars")
    assert len(few) >= 0.9 * held.height
    assert held["len"].median() == pytest.approx(bars, abs=25)
    assert {n for _, n in few.values()} <= set(held["len"])


@pytest.mark.parametrize(
    "session", ["2020-03-13", "2020-03-23", "2021-02-24", "2020-11-14", "2021-11-04", "2020-02-01"]
)
def test_halts_the_outage_day_and_special_sessions_are_no_defects(recorded: Callable[..., Recorded], session: str):
    nse = recorded("nse_index_1m")
    found = nse.findings.filter(pl.col("session") == date.fromisoformat(session), pl.col("severity") != "info")
    assert date.fromisoformat(session) in nse.lake.sessions("price_history")
    assert found.is_empty()


@pytest.mark.parametrize(("session", "symbol", "count"), [
    ("2021-04-20", "BTCUSDT", 150), ("2021-04-25", "BTCUSDT", 284), ("2021-08-13", "ETHUSDT", 270),
])  # fmt: skip
def test_outages_of_the_crypto_exchange_are_found_to_the_minute(
    recorded: Callable[..., Recorded], session: str, symbol: str, count: int
):
    assert recorded("crypto_1m", "crypto").of(session, "missing_bars")[symbol] == ("warning", count)


def test_a_download_that_skipped_pages_is_known_on_every_day_by_the_length_of_its_runs(
    recorded: Callable[..., Recorded],
):
    crypto = recorded("crypto_perp_1m_gappy", "crypto")
    pages = crypto.findings.filter(rule="paging_holes")
    sessions = crypto.lake.sessions("price_history")
    assert pages["session"].n_unique() >= len(sessions) - 1
    assert pages["detail"].str.contains("runs of exactly 200 bars").all()
    assert recorded("crypto_1m", "crypto").findings.filter(rule="paging_holes").is_empty()


def test_volume_that_changes_its_scale_is_found(recorded: Callable[..., Recorded]):
    assert recorded("multi_asset_1h", "crypto", "60m", "ETHUSDT").of("2022-12-01", "volume_scale") == {
        "ETHUSDT": ("warning", 1)
    }


def test_earnings_the_depeg_and_expiry_days_are_told_and_nothing_more(recorded: Callable[..., Recorded]):
    us = recorded("us_equity_1m", "us", "1m", "AAPL.CFD", "MSFT.CFD")
    assert us.findings.filter(pl.col("session") == date(2025, 5, 1)).is_empty()  # MSFT opens 10 % higher
    options = recorded("nse_options_1m", "nse_options").findings
    expiry = options.filter(pl.col("session").is_in([date(2024, 1, 18), date(2024, 1, 25)]))
    assert expiry.filter(rule="large_move", severity="info").height > 10
    assert expiry.filter(pl.col("rule").is_in(["bad_tick", "wrong_magnitude", "jump_without_action"])).is_empty()


def test_the_rest_of_a_day_at_an_eleventh_blocks_that_day_and_no_other(tmp_path: Path):
    """README: from 09:56 on 2015-03-30 all rows are about 1/11 of the true level; labels are bar ends."""
    names = ["symbol", "day", "time", "open", "high", "low", "close"]
    rows = pl.read_csv(
        market_file("raw/banknifty_1m_wrong_magnitude_rest_of_day.txt"),
        has_header=False, new_columns=names, schema_overrides={"day": pl.String, "time": pl.String},
    )  # fmt: skip
    local = (pl.col("day") + pl.col("time")).str.to_datetime("%Y%m%d%H:%M").dt.replace_time_zone("Asia/Kolkata")
    bars = rows.with_columns(ts=local.dt.convert_time_zone("UTC") - MINUTE, volume=pl.lit(0.0))
    stored(Lake(tmp_path), bars, "nse", "1m")
    errors = blocking(findings_of(Lake(tmp_path), "nse", "1m"))
    assert errors.select("session", "symbol", "rule").rows() == [(date(2015, 3, 30), "BANKNIFTY", "wrong_magnitude")]
    finding = errors.row(0, named=True)
    wrong = Lake(tmp_path).read("price_history", date(2015, 3, 30)).filter(pl.col("close") < 5000)
    assert finding["count"] == wrong.height > 290
    assert finding["detail"].startswith("bars are at 0.0873 times the level of")
    assert "the session before, from 04:25 UTC" in finding["detail"]


def test_a_week_whose_clock_was_left_as_it_was_before_the_change_is_found(tmp_path: Path):
    """README: the server of AAPL.CFD follows European summer time, so its first week is one hour off New York. Here
    that hour is put back, and only what was held back beyond the session can tell."""
    bars = pl.read_parquet(market_file("us_equity_1m.parquet")).filter(
        (pl.col("symbol") == "AAPL.CFD") & (pl.col("ts") < datetime(2025, 4, 5, tzinfo=UTC))
    )
    off = pl.when(pl.col("ts") < datetime(2025, 3, 30, tzinfo=UTC)).then(timedelta(hours=1)).otherwise(timedelta(0))
    shifted = bars.with_columns(pl.col("ts") - off, pl.lit(None, pl.Float64).alias("oi")).select(*SOURCE_BARS)
    lake, calendar = Lake(tmp_path), session_calendar(load_profile("us"))
    store_page(Page("aapl.csv", "0" * 16, shifted, shifted), lake=lake, calendar=calendar)
    sessions = lake.sessions("price_history")
    found = {s: dict(blocking(lake.read("data_quality", s)).select("rule", "count").rows()) for s in sessions}
    assert found.pop(date(2025, 3, 21)) == {}  # recorded from the afternoon on: all of it is inside either way
    wrong = [s for s in found if s < date(2025, 3, 30)]
    assert found == {s: {"clock_shift": 60} if s in wrong else {} for s in found}
    assert len(wrong) == 5 < len(found)


def test_five_minute_bars_that_pass_for_minutes_are_found(tmp_path: Path):
    bars = pl.read_parquet(market_file("index_fx_5m.parquet")).filter(pl.col("symbol") == "US30")
    stored(Lake(tmp_path), bars, "indices", "1m")
    found = findings_of(Lake(tmp_path), "indices", "1m")
    long = found.filter(rule="missing_bars").filter(pl.col("count") < 1370)
    assert set(long["session"]) <= set(found.filter(rule="coarse_bars")["session"])
    assert found.filter(rule="coarse_bars")["detail"].str.starts_with("all bars lie 5 minutes").all()


def test_a_close_below_its_low_and_an_adjustment_that_is_wrong_are_found(recorded: Callable[..., Recorded]):
    """README: SUZLON on 2023-10-10, and demerger factors that are missing. TATASTEEL's factor is dated wrongly too."""
    errors = blocking(recorded("nse_daily_adjusted", "nse", "day").findings)
    assert errors.select("symbol", "session", "rule").sort("session").rows() == [
        ("MFSL", date(2016, 1, 27), "jump_without_action"),
        ("TATACHEM", date(2020, 2, 18), "jump_without_action"),
        ("TATASTEEL", date(2022, 6, 16), "jump_without_action"),
        ("NMDC", date(2022, 10, 27), "jump_without_action"),
        ("SUZLON", date(2023, 10, 10), "bad_price"),
    ]


def jumps_by_hand(file: str) -> pl.DataFrame:
    """Symbol and session of the daily bars that open far from the close before, at most ten days earlier."""
    daily = recorded_bars(file).sort("symbol", "ts")
    before = pl.col("close", "open", "ts").shift().over("symbol").name.suffix("_before")
    near = pl.col("ts") - pl.col("ts_before") <= timedelta(days=10)
    ratio, again = pl.col("open") / pl.col("close_before"), pl.col("open") / pl.col("open_before")
    far = [(r < DAILY) | (r > 1 / DAILY) for r in (ratio, again)]
    return daily.with_columns(before).filter(near & far[0] & far[1]).select("symbol", pl.col("ts").dt.date())


@pytest.mark.parametrize(("file", "market"), [("nse_daily_unadjusted", "nse"), ("us_daily_unadjusted", "us")])
def test_every_jump_of_the_daily_bars_is_found_and_nothing_else(
    recorded: Callable[..., Recorded], file: str, market: str
):
    found = recorded(file, market, "day").findings.filter(pl.col("rule").str.starts_with("jump_"))
    by_hand = set(jumps_by_hand(file).rows())
    # a symbol that is not traded for some sessions is compared with the last three that the market has
    assert set(found.select("symbol", "session").rows()) <= by_hand
    assert len(by_hand) - found.height <= 1
    if market == "nse":
        below = pl.read_parquet(market_file(f"{file}.parquet")).filter(pl.col("open") < 0.72 * pl.col("prev_close"))
        assert below.height == 54  # as the README counts
        below = below.filter(pl.col("ts").dt.year().is_in(YEARS[file]))
        assert set(below.select("symbol", pl.col("ts").dt.date()).rows()) <= set(found["symbol", "session"].rows())


def test_a_split_is_told_from_a_crash(recorded: Callable[..., Recorded]):
    """Splits as the factor file has them; AIG, WM and AAPL in crashes of 2000 and 2008."""
    us = recorded("us_daily_unadjusted", "us", "day")
    factors = pl.read_parquet(market_file("us_factors.parquet")).sort("symbol", "date")
    later = pl.col("split_factor").shift(-1).over("symbol")
    change = factors.with_columns(by=later / pl.col("split_factor")).filter(
        (pl.col("by") > 1 / DAILY) | (pl.col("by") < DAILY)
    )
    errors = us.findings.filter(rule="jump_without_action")
    said = {(symbol, day) for symbol, day in errors.select("symbol", "session").rows()}
    have = recorded_bars("us_daily_unadjusted")
    change = change.filter(pl.col("date").dt.year().is_in(YEARS["us_daily_unadjusted"]))
    splits = [
        (symbol, min(d for d in have.filter(symbol=symbol)["ts"].dt.date() if d > last))
        for symbol, last in change.select("symbol", "date").rows()
        if symbol in have["symbol"].unique() and have.filter(symbol=symbol)["ts"].dt.date().min() <= last
    ]
    assert len(splits) >= 5
    assert set(splits) <= said
    news = set(us.findings.filter(rule="jump_on_news").select("symbol", "session").rows())
    crashes = {("AIG", date(2008, 9, d)) for d in (15, 16, 17, 19)} | {("AAPL", date(2000, 9, 29))}
    assert crashes <= news


@pytest.fixture
def nse_splits() -> pl.DataFrame:
    """The splits of the recorded event list from 2019 on, as actions that were known on their ex-date."""
    events = pl.read_parquet(market_file("nse_corporate_actions.parquet"))
    splits = events.filter((pl.col("split") > 0) & (pl.col("ts").dt.year() >= 2019))
    rows = splits.select("symbol", ex_date=pl.col("ts").dt.date(), known_at="ts", ratio="split").to_dicts()
    fixed = {"kind": "split", "origin": "events", "origin_id": "0" * 16}
    return pl.DataFrame([row | fixed for row in rows], schema=ACTIONS)


def test_jumps_that_the_event_list_explains_are_none_and_its_double_entries_are_said(
    recorded: Callable[..., Recorded], nse_splits: pl.DataFrame, tmp_path: Path
):
    nse = recorded("nse_daily_unadjusted", "nse", "day")
    jumps = nse.findings.filter(rule="jump_without_action")
    explained = jumps.join(nse_splits, left_on=["symbol", "session"], right_on=["symbol", "ex_date"])
    assert explained.height >= 10
    lake = Lake(tmp_path)
    lake.root.mkdir(exist_ok=True)
    (lake.root / "bars_day").symlink_to(nse.lake.root / "bars_day")
    lake.write("corporate_actions", date(2019, 8, 23), nse_splits)
    after = findings_of(lake, "nse", "day")
    left = after.filter(rule="jump_without_action").select("symbol", "session").rows()
    told = set(explained.select("symbol", "session").rows()) - {("BAJAJFINSV", date(2022, 9, 13))}  # the list has its
    assert set(left) == set(jumps.select("symbol", "session").rows()) - told  # split and lacks the bonus of that day
    wrong = after.filter(rule="action_without_jump").select("symbol", "session").rows()
    assert set(wrong) == {("NYKAA", date(2022, 11, 2)), ("LODHA", date(2023, 5, 26))}


def test_the_bonus_of_2015_no_longer_blocks_once_it_is_known(recorded: Callable[..., Recorded], tmp_path: Path):
    nse = recorded("nse_equity_1m_2015")
    lake, calendar = Lake(tmp_path), session_calendar(load_profile("nse"))
    (lake.root / "price_history").symlink_to(nse.lake.root / "price_history")
    action = {"symbol": "FEDERALBNK", "ex_date": date(2015, 7, 3), "kind": "bonus", "ratio": 2.0}
    known = {"known_at": datetime(2015, 6, 1, tzinfo=UTC), "origin": "test", "origin_id": "0" * 16}
    assert not blocking(assess_session(lake, calendar, date(2015, 7, 3))).is_empty()
    lake.write("corporate_actions", date(2015, 6, 1), pl.DataFrame([action | known], schema=ACTIONS))
    assert blocking(assess_session(lake, calendar, date(2015, 7, 3))).is_empty()
