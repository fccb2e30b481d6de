"""Corporate actions: factors against a slow twin and vendors' own, what was known when, names over time."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from companyevents import CALENDAR, US_CALENDAR, action, actions, as_actions, closes, daily, midnight, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.calendar import SessionCalendar
from odin_core.market.intake.knowntables import rewrite
from odin_core.market.reference.actionfiles import actions_from_factors
from odin_core.market.reference.actions import (
    KEY,
    TABLE,
    ActionBook,
    adjusted,
    adjustment,
    effective,
    split_factors,
    symbol_history,
)

Find = Callable[[str], Path]
NO_CLOSES = pl.DataFrame(schema={"symbol": pl.String, "ts": BARS["ts"], "close": pl.Float64})
DAYS = CALENDAR.sessions(date(2021, 3, 1), date(2021, 3, 31))
CLOSES = pl.DataFrame(
    [{"symbol": s, "session": d, "close": 100.0 + 10 * i + n} for i, s in enumerate("AB") for n, d in enumerate(DAYS)]
)


def close_of(session: date, calendar: SessionCalendar = CALENDAR) -> datetime:
    return calendar.hours(session).close


@st.composite
def some_actions(draw: st.DrawFn) -> pl.DataFrame:
    """Splits, bonuses and dividends of A and B in March 2021, on any date, some known only days later."""
    rows = []
    for symbol, day, kind, late in draw(
        st.lists(
            st.tuples(
                st.sampled_from("AB"),
                st.dates(DAYS[0], DAYS[-1]),
                st.sampled_from(["split", "bonus", "dividend"]),
                st.integers(-20, 15),
            ),
            max_size=8,
            unique_by=lambda row: row[:3],
        )
    ):
        is_cash = kind == "dividend"
        value = draw(st.floats(0.1, 90.0) if is_cash else st.sampled_from([0.05, 0.5, 1.1, 2.0, 10.0]))
        sized = {"amount": value} if is_cash else {"ratio": value}
        rows.append(action(symbol, day, kind, known_at=midnight(day + timedelta(days=late)), **sized))
    return actions(*rows)


def factors_by_hand(rows: pl.DataFrame, symbol: str, session: date, instant: datetime) -> tuple[float, float, float]:
    """(split, dividend, volume) of one symbol and session, action by action."""
    split, dividend = [], []
    for row in rows.iter_rows(named=True):
        ex = next(d for d in [*DAYS, date(2021, 4, 1)] if d >= row["ex_date"])
        applies = row["symbol"] == symbol and session < ex and row["known_at"] <= instant
        if not applies or CALENDAR.hours(ex).open > instant:
            continue
        if row["kind"] == "dividend":
            before = CLOSES.filter(pl.col("symbol") == symbol, pl.col("session") < ex).sort("session")
            if before.height and row["amount"] < before["close"][-1]:
                dividend.append(1 - row["amount"] / before["close"][-1])
        else:
            split.append(row["ratio"])
    return 1 / prod(split), prod(dividend), prod(split)


@settings(max_examples=60, deadline=None)
@given(some_actions(), st.sampled_from(DAYS))
def test_factors_agree_with_their_slow_twin(rows: pl.DataFrame, asked: date):
    found = adjustment(
        rows, ["A", "B"], DAYS, calendar=CALENDAR, as_of=close_of(asked), closes=closes(CLOSES, CALENDAR)
    )
    assert found.height == 2 * len(DAYS)
    for row in found.iter_rows(named=True):
        expected = factors_by_hand(rows, row["symbol"], row["session"], close_of(asked))
        assert (row["split"], row["dividend"], row["volume"]) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(some_actions(), some_actions(), st.sampled_from(DAYS))
def test_what_becomes_known_or_takes_effect_later_does_not_change_what_was_seen_before(
    rows: pl.DataFrame, more: pl.DataFrame, asked: date
):
    instant = close_of(asked)
    opens = effective(more, CALENDAR).select("symbol", "ex_date", "kind", "ex_at")
    later = more.join(opens, on=["symbol", "ex_date", "kind"], how="left")
    later = later.filter((pl.col("known_at") > instant) | (pl.col("ex_at") > instant)).drop("ex_at")
    for_both = {"calendar": CALENDAR, "as_of": instant, "closes": closes(CLOSES, CALENDAR)}
    assert_frame_equal(
        adjustment(pl.concat([rows, later]), ["A", "B"], DAYS, **for_both),
        adjustment(rows, ["A", "B"], DAYS, **for_both),
        check_exact=True,
    )


@settings(max_examples=40, deadline=None)
@given(some_actions())
def test_each_action_is_felt_in_exactly_one_session_and_not_before_it_is_known(rows: pl.DataFrame):
    days = CALENDAR.sessions(date(2021, 1, 4), date(2021, 4, 30))
    with TemporaryDirectory() as folder:
        rewrite(Lake(Path(folder)), TABLE, rows.sort(KEY), CALENDAR)
        book = ActionBook(Lake(Path(folder)), CALENDAR)
        felt = pl.concat([book.taking_effect(day).with_columns(felt=pl.lit(day)) for day in days])
    assert felt.height == rows.height
    for row in felt.iter_rows(named=True):
        assert max(row["known_at"], row["ex_at"]) <= close_of(row["felt"])
        assert max(row["known_at"], row["ex_at"]) > close_of(CALENDAR.previous(row["felt"]))


def test_an_action_that_is_not_known_yet_is_not_seen_and_then_it_is():
    ex = date(2021, 3, 10)
    known = datetime(2021, 3, 12, 4, tzinfo=CALENDAR.hours(ex).open.tzinfo)
    late = actions(action("A", ex, "split", ratio=5.0, known_at=known))

    def factor(asked: date) -> list[float]:
        sessions = [date(2021, 3, 9), ex]
        return split_factors(late, ["A"], sessions, calendar=CALENDAR, as_of=close_of(asked))["factor"].to_list()

    assert factor(date(2021, 3, 9)) == [1.0, 1.0]
    assert factor(ex) == [1.0, 1.0]
    assert factor(date(2021, 3, 12)) == [0.2, 1.0]


def test_raw_prices_and_the_vendors_events_give_the_vendors_adjusted_prices(market_file: Find):
    """Yahoo's adjusted closes of 2019-10 to 2023-10 against raw closes of the exchange. Where they differ, Yahoo has
    applied an event twice, which is what the checks found."""
    raw = daily(market_file("nse_daily_unadjusted.parquet"))
    sessions = CALENDAR.sessions(date(2019, 10, 1), date(2023, 10, 10))
    raw = raw.filter(pl.col("session").is_in(sessions))
    events = recorded(market_file, "nse_corporate_actions.parquet", "nse_daily_unadjusted.parquet")
    theirs = daily(market_file("nse_daily_adjusted.parquet")).select("symbol", "session", adjusted="close")
    factors = adjustment(
        as_actions(events), raw["symbol"].unique().to_list(), sessions, calendar=CALENDAR,
        as_of=close_of(sessions[-1]), closes=closes(raw, CALENDAR),
    )  # fmt: skip
    both = raw.join(theirs, on=["symbol", "session"]).join(factors, on=["symbol", "session"])
    off = (pl.col("close") * pl.col("split") * pl.col("dividend") / pl.col("adjusted") - 1).abs()
    worst = both.group_by("symbol").agg(off=off.quantile(0.99))
    assert both.height > 100_000
    assert both.select(off.median()).item() < 1e-6
    repeated = events.filter((pl.col("rule") == "repeated") & (pl.col("ex_date") > sessions[0]))["symbol"]
    disagree = set(worst.filter(pl.col("off") > 0.01)["symbol"])
    assert disagree <= set(repeated)
    assert {"BAJAJFINSV", "TATACHEM"} <= disagree  # a bonus on the day of a split, and a demerger: not in the list
    assert (worst.height, worst.filter(pl.col("off") < 0.01).height) == (111, 96)


def test_lean_factors_come_back_from_the_actions_made_of_them_and_raw_prices(market_file: Find):
    raw = daily(market_file("us_daily_unadjusted.parquet"))
    lean = pl.read_parquet(market_file("us_factors.parquet"))
    made = as_actions(actions_from_factors(lean, US_CALENDAR))
    for symbol in ("AAPL", "AIG", "SPY", "USO", "BNO"):
        own = raw.filter(pl.col("symbol") == symbol).filter(pl.col("session").is_in(US_CALENDAR.sessions()))
        found = adjustment(
            made, [symbol], own["session"].to_list(), calendar=US_CALENDAR,
            as_of=close_of(date(2021, 3, 31), US_CALENDAR), closes=closes(own, US_CALENDAR),
        ).sort("session")  # fmt: skip
        factors = lean.filter(pl.col("symbol") == symbol).sort("date")
        last = factors.filter(pl.col("date") >= date(2021, 3, 31)).row(0, named=True)  # what is after as_of is unknown
        theirs = found.select("session").join_asof(
            factors, left_on="session", right_on="date", strategy="forward"
        )  # fmt: skip
        np.testing.assert_allclose(found["split"], theirs["split_factor"] / last["split_factor"], rtol=2e-4)
        np.testing.assert_allclose(found["dividend"], theirs["price_factor"] / last["price_factor"], rtol=4e-3)


@pytest.mark.parametrize(
    ("symbol", "day", "kind", "ratio"),
    [
        ("RELIANCE", date(2024, 10, 28), "bonus", 2.0),
        ("GOLDBEES", date(2019, 12, 19), "split", 100.0),
        ("NESTLEIND", date(2024, 1, 5), "split", 10.0),
    ],
)
def test_a_known_split_leaves_no_jump_in_the_recorded_prices(
    market_file: Find, symbol: str, day: date, kind: str, ratio: float
):
    raw = daily(market_file("nse_daily_unadjusted.parquet")).filter(pl.col("symbol") == symbol).sort("session")
    around = raw.filter(pl.col("session").is_between(day - timedelta(days=9), day + timedelta(days=9)))
    factors = split_factors(
        actions(action(symbol, day, kind, ratio=ratio)), [symbol], around["session"].to_list(), calendar=CALENDAR,
        as_of=close_of(around["session"][-1]),
    )  # fmt: skip
    night = (around["open"] * factors["factor"]) / (around["close"] * factors["factor"]).shift() - 1
    raw_night = around["open"] / around["close"].shift() - 1
    assert raw_night.abs().max() > 0.4
    assert night.drop_nulls().abs().max() < 0.12


def day_bars(symbol: str, sessions: list[date], price: float) -> pl.DataFrame:
    hours = [CALENDAR.hours(session) for session in sessions]
    prices = {"open": price, "high": price + 1, "low": price - 1, "close": price, "volume": 100.0, "oi": None}
    rows = [{"symbol": symbol, "ts": h.open, "known_at": h.close, **prices} for h in hours]
    return pl.DataFrame(rows, schema=BARS)


def test_bars_as_of_an_instant_are_scaled_and_cut_and_keep_their_columns():
    sessions = DAYS[:6]
    ex = DAYS[3]
    bars = pl.concat([day_bars("A", sessions[:3], 100.0), day_bars("A", sessions[3:], 19.0)])
    rows = actions(action("A", ex, "split", ratio=5.0), action("A", ex, "dividend", amount=5.0))
    before = adjusted(bars, rows, calendar=CALENDAR, as_of=close_of(DAYS[2]))
    assert_frame_equal(before, bars.head(3))
    after = adjusted(bars, rows, calendar=CALENDAR, as_of=close_of(DAYS[5]))
    assert after.schema == BARS
    assert after["close"].to_list() == pytest.approx([19.0] * 6)  # (100 − 5) / 5
    assert after["high"].to_list() == pytest.approx([101 * 0.19] * 3 + [20.0] * 3)
    assert after["volume"].to_list() == [500.0] * 3 + [100.0] * 3


def test_a_series_goes_on_under_its_new_name_and_another_companys_old_bars_do_not(market_file: Find):
    first = date(2022, 12, 20)
    raw = pl.read_parquet(market_file("nse_daily_unadjusted.parquet"))
    raw = raw.filter(pl.col("symbol").is_in(["SRTRANSFIN", "SHRIRAMFIN"]), pl.col("ts").dt.year() >= 2022)
    opens = {d: CALENDAR.hours(d) for d in raw["ts"].dt.date().unique()}
    bars = raw.with_columns(
        ts=pl.Series([opens[d.date()].open for d in raw["ts"]], dtype=BARS["ts"]),
        known_at=pl.Series([opens[d.date()].close for d in raw["ts"]], dtype=BARS["ts"]),
        oi=pl.lit(None, pl.Float64),
    ).select(BARS.names())
    rows = actions(action("SRTRANSFIN", first, "rename", other="SHRIRAMFIN"))
    for asked, names in ((date(2022, 12, 19), {"SRTRANSFIN"}), (first, {"SHRIRAMFIN"})):
        seen = adjusted(bars, rows, calendar=CALENDAR, as_of=close_of(asked))
        assert set(seen["symbol"]) == names
        assert seen.height == bars.filter(pl.col("known_at") <= close_of(asked)).height
    night = (seen["open"] / seen["close"].shift() - 1).abs().max()
    assert night is not None
    assert night < 0.1
    strangers = pl.concat(
        [bars, bars.filter(pl.col("symbol") == "SRTRANSFIN").with_columns(symbol=pl.lit("SHRIRAMFIN"))]
    )
    assert_frame_equal(adjusted(strangers, rows, calendar=CALENDAR, as_of=close_of(first)), seen)


def test_the_names_of_a_series_are_known_as_of_each_date():
    rows = actions(
        action("OLD", date(2021, 3, 5), "rename", other="MID"), action("MID", date(2021, 3, 19), "rename", other="NEW")
    )
    asked = {"calendar": CALENDAR, "as_of": close_of(DAYS[-1])}
    assert symbol_history(rows, "NEW", **asked) == [
        ("OLD", None), ("MID", date(2021, 3, 5)), ("NEW", date(2021, 3, 19))
    ]  # fmt: skip
    earlier = symbol_history(rows, "MID", calendar=CALENDAR, as_of=close_of(date(2021, 3, 8)))
    assert earlier == [("OLD", None), ("MID", date(2021, 3, 5))]
    assert symbol_history(rows, "OTHER", **asked) == [("OTHER", None)]


def test_a_split_under_the_old_name_scales_the_series_under_its_new_one():
    ex, renamed = date(2021, 3, 5), date(2021, 3, 10)
    rows = actions(action("OLD", ex, "split", ratio=2.0), action("OLD", renamed, "rename", other="NEW"))
    sessions = [date(2021, 3, 4), ex]
    asked = {"calendar": CALENDAR, "as_of": close_of(DAYS[-1])}
    assert split_factors(rows, ["NEW"], sessions, **asked)["factor"].to_list() == [0.5, 1.0]
    bars = pl.concat([day_bars("OLD", DAYS[:4], 100.0), day_bars("OLD", [ex], 50.0), day_bars("NEW", [renamed], 50.0)])
    seen = adjusted(bars, rows, **asked)
    assert seen["symbol"].to_list() == ["NEW"] * 6
    assert seen["close"].to_list() == pytest.approx([50.0] * 6)


def test_nobody_knows_of_anything_in_an_empty_lake(tmp_path: Path):
    book = ActionBook(Lake(tmp_path), CALENDAR)
    assert book.taking_effect(DAYS[3]).is_empty()
    assert book.mark(CALENDAR.hours(DAYS[0]).open, close_of(DAYS[3])) == ""
    found = adjustment(book.rows.drop("ex_at"), ["A"], DAYS[:2], calendar=CALENDAR, as_of=close_of(DAYS[3]),
                       closes=NO_CLOSES)  # fmt: skip
    assert found.select("split", "dividend", "volume").rows() == [(1.0, 1.0, 1.0)] * 2
