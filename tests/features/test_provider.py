"""The provider against a plain one: windows by filter and tail, in any order, company, range and number of threads."""

import os
import subprocess
import sys
from datetime import timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from odin_core.features import regime
from odin_core.features.catalogue import FEATURES, Window
from odin_core.features.provider import SESSIONS_NEEDED, FeatureStream, feature_schema, session_features
from odin_core.lake import logical_hash
from odin_core.market.bars import INTERVAL_BARS, session_bars
from tests.features.histories import SYMBOLS, Day, random_days
from tests.realdata import market_file

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ("open", "high", "low", "close", "volume")
OF_THE_MARKET = ("market_volatility", "volatility_ratio", "vol_regime")


@pytest.fixture(scope="module")
def days() -> list[Day]:
    return random_days(16)


def features_of(days: list[Day]) -> pl.DataFrame:
    return session_features([day.bars for day in days], days[-1].session, days[-1].close_at)


def stream_of(days: list[Day]) -> list[pl.DataFrame]:
    stream = FeatureStream()
    return [stream.advance(day.bars, day.session, day.close_at) for day in days]


def assert_same_bits(left: pl.DataFrame, right: pl.DataFrame) -> None:
    assert_frame_equal(left, right, check_exact=True)
    assert logical_hash(left) == logical_hash(right)


def without(day: Day, rows: pl.Expr) -> Day:
    return day._replace(bars=day.bars.filter(~rows))


def window_by_hand(days: list[Day], symbol: str, interval: str, bars: int) -> Window | None:
    rows = pl.concat([day.bars for day in days[-SESSIONS_NEEDED:]])
    rows = rows.filter((pl.col("symbol") == symbol) & (pl.col("interval") == interval)).sort("ts").tail(bars)
    return Window(*(rows[f].to_numpy()[None].copy() for f in FIELDS)) if len(rows) == bars else None


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("sessions", [1, 3, 7, 16])
def test_a_feature_is_its_formula_on_the_last_bars_of_the_symbol(days: list[Day], sessions: int, name: str):
    known, entry = days[:sessions], FEATURES[name]
    expected = []
    for symbol in SYMBOLS:
        window = window_by_hand(known, symbol, entry.interval, entry.bars)
        value = float(entry.formula(window)[0]) if window else None
        expected.append(value)
    assert features_of(known)[name].to_list() == expected


def test_a_stream_one_shot_and_a_history_cut_to_what_is_needed_give_the_same_bits(days: list[Day]):
    for i, streamed in enumerate(stream_of(days)):
        assert_same_bits(streamed, features_of(days[: i + 1]))
        assert_same_bits(streamed, features_of(days[max(0, i + 1 - SESSIONS_NEEDED) : i + 1]))


def test_a_stream_that_starts_later_with_the_history_before_it_gives_the_same_bits(days: list[Day]):
    whole = stream_of(days)
    stream = FeatureStream([day.bars for day in days[:13]])
    for day, expected in zip(days[13:], whole[13:], strict=True):
        assert_same_bits(stream.advance(day.bars, day.session, day.close_at), expected)


def test_a_symbol_has_the_same_bits_whoever_else_is_there(days: list[Day]):
    few = [without(day, ~pl.col("symbol").is_in(["ITC", "TCS"])) for day in days]
    together = features_of(days).filter(pl.col("symbol").is_in(["ITC", "TCS"])).drop(OF_THE_MARKET)
    assert_same_bits(features_of(few).drop(OF_THE_MARKET), together)


def test_the_order_of_rows_and_chunks_does_not_matter_and_the_bars_come_back_untouched(days: list[Day]):
    shuffled = [day._replace(bars=day.bars.sample(fraction=1, shuffle=True, seed=3)) for day in days]
    copies = [day.bars.clone() for day in shuffled]
    assert_same_bits(features_of(shuffled), features_of(days))
    for day, copy in zip(shuffled, copies, strict=True):
        assert_frame_equal(day.bars, copy, check_exact=True)


THREADS = """
from odin_core.features.provider import session_features
from odin_core.lake import logical_hash
from tests.features.histories import random_days
days = random_days(12, missing=0.1)
print(logical_hash(session_features([d.bars for d in days], days[-1].session, days[-1].close_at)))
"""


def test_the_number_of_threads_does_not_change_a_bit():
    prints = []
    for threads in ("1", "4"):
        environment = os.environ | {"POLARS_MAX_THREADS": threads, "NUMBA_NUM_THREADS": threads}
        command = [sys.executable, "-c", THREADS]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        prints.append(done.stdout)
    assert prints[0] == prints[1] != ""


def test_rows_are_sorted_by_symbol_and_columns_are_those_of_the_schema(days: list[Day]):
    rows = features_of(days)
    assert rows.schema == feature_schema()
    assert rows["symbol"].to_list() == sorted(SYMBOLS)
    assert rows["session"].unique().to_list() == [days[-1].session]
    assert rows["bars_5m"].to_list() == [75] * len(SYMBOLS)
    assert rows["complete"].all()


def test_decided_at_is_stored_in_utc_whatever_zone_it_came_in(days: list[Day]):
    kolkata = days[-1].close_at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    rows = session_features([day.bars for day in days], days[-1].session, kolkata)
    assert_same_bits(rows, features_of(days))


def test_a_feature_is_null_until_its_bars_are_there_and_the_row_is_incomplete_until_all_are(days: list[Day]):
    streamed = stream_of(days)
    assert [rows["gap"].null_count() for rows in streamed[:2]] == [len(SYMBOLS), 0]
    assert [rows["return_5d"].null_count() for rows in streamed[4:6]] == [len(SYMBOLS), 0]
    assert [rows["complete"].any() for rows in streamed[:9]] == [False] * 9
    assert all(rows["complete"].all() for rows in streamed[9:])


def test_a_late_starter_is_incomplete_until_its_own_warm_up_is_over(days: list[Day]):
    joined = [without(day, pl.col("symbol") == "SBIN") if i < 4 else day for i, day in enumerate(days)]
    complete = [rows.filter(pl.col("symbol") == "SBIN")["complete"].to_list() for rows in stream_of(joined)]
    assert complete == [[]] * 4 + [[False]] * 9 + [[True]] * 3


def test_two_missed_sessions_are_made_up_by_older_ones_and_three_are_not(days: list[Day]):
    def complete(missed: set[int]) -> bool:
        halted = [without(d, pl.col("symbol") == "TCS") if i in missed else d for i, d in enumerate(days)]
        return features_of(halted).filter(pl.col("symbol") == "TCS")["complete"].item()

    assert complete({9, 12})
    assert not complete({9, 11, 12})


def test_a_symbol_without_a_bar_in_the_session_has_no_row(days: list[Day]):
    halted = [*days[:-1], without(days[-1], pl.col("symbol") == "ITC")]
    assert_same_bits(
        features_of(halted).drop(OF_THE_MARKET), features_of(days).filter(pl.col("symbol") != "ITC").drop(OF_THE_MARKET)
    )


@pytest.mark.parametrize("nothing", [INTERVAL_BARS.to_frame(), pl.DataFrame()], ids=["no rows", "no columns"])
def test_a_session_without_bars_gives_no_row_and_the_next_one_goes_on(days: list[Day], nothing: pl.DataFrame):
    broken = [*days[:14], days[14]._replace(bars=nothing), days[15]]
    rows = stream_of(broken)
    assert rows[14].is_empty()
    assert rows[14].schema == feature_schema()
    assert rows[15]["complete"].all()
    assert_same_bits(rows[15], features_of(broken))


def test_without_volume_in_the_source_a_row_is_complete_and_its_volume_features_are_null(days: list[Day]):
    volume = pl.when(pl.col("symbol") != "ITC").then(pl.col("volume"))
    rows = features_of([day._replace(bars=day.bars.with_columns(volume=volume)) for day in days])
    assert rows["complete"].all()
    of_volume = [name for name, entry in FEATURES.items() if entry.needs_volume]
    assert all(rows.filter(pl.col("symbol") == "ITC")[name].null_count() == 1 for name in of_volume)
    assert_same_bits(rows.filter(pl.col("symbol") != "ITC"), features_of(days).filter(pl.col("symbol") != "ITC"))


def test_where_only_a_session_lost_its_volume_the_row_is_incomplete(days: list[Day]):
    lost = days[-1].bars.with_columns(volume=pl.lit(None, pl.Float64))
    assert not features_of([*days[:-1], days[-1]._replace(bars=lost)])["complete"].any()


def test_the_regime_columns_are_those_of_the_regime_module(days: list[Day]):
    wild = days[-1].bars.with_columns(close=pl.col("close") * (1 + 0.002 * (pl.int_range(pl.len()) % 2)))
    rows = stream_of([*days[:-1], days[-1]._replace(bars=wild)])
    history = np.array([day["market_volatility"][0] for day in rows])
    assert [day["vol_regime"][0] for day in rows] == [regime.volatility_regime(history[: i + 1]) for i in range(16)]
    assert rows[-1]["volatility_ratio"].to_list() == [regime.volatility_ratio(history)] * len(SYMBOLS)
    assert rows[-1]["vol_regime"].unique().to_list() == ["high"]


def test_the_market_volatility_of_a_session_agrees_with_a_loop_over_its_bars(days: list[Day]):
    volatilities = []
    for bars in days[3].bars.filter(pl.col("interval") == "5m").sort("ts").partition_by("symbol"):
        prices = np.array([bars["open"][0], *bars["close"]])
        steps = (bars["known_at"][-1] - bars["ts"][0]) / timedelta(minutes=5)
        volatilities.append(np.sqrt((np.diff(np.log(prices)) ** 2).sum() / steps))
    assert features_of(days[:4])["market_volatility"][0] == pytest.approx(np.median(volatilities), rel=1e-12)


def test_a_bar_known_late_enters_from_the_next_decision_on(days: list[Day]):
    day = days[13]
    late = (pl.col("symbol") == "TCS") & (pl.col("known_at") == day.close_at)
    delayed = pl.when(late).then(pl.col("known_at") + timedelta(hours=2)).otherwise(pl.col("known_at"))
    history = [*days[:13], day._replace(bars=day.bars.with_columns(known_at=delayed)), *days[14:]]
    streamed = stream_of(history)
    assert_same_bits(streamed[13], features_of([*days[:13], without(day, late)]))
    assert_same_bits(streamed[14].drop(OF_THE_MARKET), features_of(days[:15]).drop(OF_THE_MARKET))
    assert_same_bits(streamed[14], features_of(history[:15]))


def test_a_history_out_of_order_or_with_a_session_twice_is_refused(days: list[Day]):
    with pytest.raises(ValueError, match="give each session's bars once, oldest session first"):
        features_of([days[1], days[0]])
    with pytest.raises(ValueError, match="give each session's bars once, oldest session first"):
        features_of([days[0], days[0]])


def test_an_empty_history_and_a_naive_time_are_refused(days: list[Day]):
    with pytest.raises(ValueError, match="the history must hold at least the session's own bars"):
        session_features([], days[0].session, days[0].close_at)
    with pytest.raises(ValueError, match="has no time zone; give it in UTC"):
        session_features([days[0].bars], days[0].session, days[0].close_at.replace(tzinfo=None))


def test_recorded_bars_with_outages_give_complete_rows_after_the_warm_up():
    opens, closes = pl.time(3, 45), pl.time(10, 0)
    minutes = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).filter(
        pl.col("ts").dt.time().is_between(opens, closes, closed="left"), pl.col("symbol").is_in(["TCS", "SBIN", "INFY"])
    )
    minutes = minutes.with_columns(known_at=pl.col("ts") + timedelta(minutes=1), oi=None)
    stream, complete = FeatureStream(), []
    for session in minutes["ts"].dt.date().unique().sort()[:20]:
        open_at = pl.select(pl.lit(session).dt.combine(opens).dt.replace_time_zone("UTC")).item()
        close_at = open_at + timedelta(minutes=375)
        known = minutes.filter(pl.col("ts").is_between(open_at, close_at, closed="left"))
        rows = stream.advance(session_bars(known, open_at, close_at), session, close_at)
        complete.append(rows["complete"].sum())
    assert complete[:9] == [0] * 9
    assert complete[10:] == [3] * 10
