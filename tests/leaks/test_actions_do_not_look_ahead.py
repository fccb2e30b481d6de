"""Corporate actions and fundamentals in features and lives: no jump at an ex-date, nothing seen before it was known."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from smalllives import FIRST, LAST, begin, plain_edge, quick, run_to, tables

from odin_core.home import open_home
from odin_core.lake import Lake
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import SessionResult, verify
from odin_core.market.bars import BARS
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.data import MarketData
from odin_core.market.intake.knowntables import rewrite
from odin_core.market.profile import load_profile
from odin_core.market.reference import actions, fundamentals
from odin_core.market.reference.actions import ACTIONS
from odin_core.market.reference.fundamentals import FUNDAMENTALS, UnknownFigure

Find = Callable[[str], Path]
NSE = load_profile("nse")
CALENDAR = session_calendar(NSE)
EX = date(2015, 7, 3)  # FEDERALBNK opens at half its price
LAST_BEFORE, LAST_ASKED = date(2015, 7, 2), date(2015, 7, 10)
SCALED = ("open", "high", "low", "close")
ORIGIN = {"origin": "by hand", "origin_id": "0" * 16}


def act(
    symbol: str, ex_date: date, kind: str, calendar: SessionCalendar, known: date | None = None, **size: Any
) -> Any:
    """A row of ACTIONS, known one minute before the open of its ex-date or at the open of `known`."""
    known_at = calendar.hours(known or ex_date).open - timedelta(minutes=1)
    empty = dict.fromkeys(("ratio", "amount", "other"))
    return {"symbol": symbol, "ex_date": ex_date, "known_at": known_at, "kind": kind, **empty, **size, **ORIGIN}


def know(lake: Lake, calendar: SessionCalendar, *rows: dict[str, Any]) -> None:
    rewrite(lake, actions.TABLE, pl.DataFrame(list(rows), schema=ACTIONS).sort(actions.KEY), calendar)


@pytest.fixture(scope="module")
def recorded(request: pytest.FixtureRequest) -> pl.DataFrame:
    """Minute bars of five shares of 2015 from two weeks before the bonus on, inside the sessions' hours."""
    raw = pl.read_parquet(request.getfixturevalue("market_file")("nse_equity_1m_2015.parquet"))
    names = ("FCEL", "FEDERALBNK", "FINCABLES", "FORTIS", "FSL")
    known_at = pl.col("ts") + timedelta(minutes=1)
    bars = raw.filter(pl.col("symbol").is_in(names), pl.col("ts").dt.date().is_between(date(2015, 6, 10), LAST_ASKED))
    return bars.with_columns(known_at=known_at, oi=pl.lit(None, pl.Float64)).select(BARS.names()).sort("symbol", "ts")


def market(folder: Path, bars: pl.DataFrame, *rows: dict[str, Any]) -> MarketData:
    lake = open_home(folder).lake("nse")
    for session in CALENDAR.sessions(date(2015, 6, 10), LAST_ASKED):
        hours = CALENDAR.hours(session)
        lake.write("price_history", session, bars.filter(pl.col("ts").is_between(*hours, closed="left")))
    know(lake, CALENDAR, *rows)
    return MarketData(lake, NSE)


def features(data: MarketData, first: date = LAST_BEFORE) -> dict[date, pl.DataFrame]:
    return {session: data.decision_rows(session) for session in CALENDAR.sessions(first, LAST_ASKED)}


def of_federal(frames: dict[date, pl.DataFrame], session: date) -> dict[str, Any]:
    return frames[session].filter(pl.col("symbol") == "FEDERALBNK").row(0, named=True)


def test_a_bonus_leaves_no_jump_in_features_from_the_ex_date_on(tmp_path: Path, recorded: pl.DataFrame):
    plain = features(market(tmp_path / "plain", recorded))
    known = features(market(tmp_path / "known", recorded, act("FEDERALBNK", EX, "bonus", CALENDAR, ratio=2.0)))
    assert of_federal(plain, EX)["gap_day"] == pytest.approx(77.8 / 154.15 - 1, abs=1e-4)
    assert of_federal(known, EX)["gap_day"] == pytest.approx(2 * 77.8 / 154.15 - 1, abs=1e-4)
    assert of_federal(plain, EX)["realised_volatility_75_5m"] > 0.5
    assert of_federal(known, EX)["realised_volatility_75_5m"] < 0.05
    assert_frame_equal(plain[LAST_BEFORE], known[LAST_BEFORE], check_exact=True)
    for session in CALENDAR.sessions(EX, LAST_ASKED):
        others = pl.col("symbol") != "FEDERALBNK"
        assert_frame_equal(plain[session].filter(others), known[session].filter(others), check_exact=True)
        assert of_federal(known, session)["close"] == of_federal(plain, session)["close"]  # of its own session: raw


def test_features_are_bit_for_bit_those_of_bars_that_were_halved_by_hand(tmp_path: Path, recorded: pl.DataFrame):
    before = (pl.col("symbol") == "FEDERALBNK") & (pl.col("ts") < CALENDAR.hours(EX).open)
    halved = recorded.with_columns(
        *(pl.when(before).then(pl.col(p) * 0.5).otherwise(p).alias(p) for p in SCALED),
        volume=pl.when(before).then(pl.col("volume") * 2).otherwise("volume"),
    )
    by_hand = features(market(tmp_path / "hand", halved), EX)
    known = features(market(tmp_path / "known", recorded, act("FEDERALBNK", EX, "bonus", CALENDAR, ratio=2.0)), EX)
    for session, frame in by_hand.items():  # the regime's volatility is of ratios inside a session, so equal too
        assert_frame_equal(known[session], frame, check_exact=True)


MIXED = (
    act("FEDERALBNK", EX, "bonus", CALENDAR, ratio=2.0),
    act("FSL", date(2015, 7, 6), "split", CALENDAR, ratio=1.1),
    act("FSL", date(2015, 7, 6), "dividend", CALENDAR, amount=0.7),
    act("FORTIS", date(2015, 6, 29), "dividend", CALENDAR, known=date(2015, 7, 7), amount=3.0),
    act("FCEL", date(2015, 7, 7), "rename", CALENDAR, other="FUTURE"),
)


def renamed(bars: pl.DataFrame) -> pl.DataFrame:
    late = (pl.col("symbol") == "FCEL") & (pl.col("ts") >= CALENDAR.hours(date(2015, 7, 7)).open)
    return bars.with_columns(symbol=pl.when(late).then(pl.lit("FUTURE")).otherwise("symbol")).sort("symbol", "ts")


def test_session_by_session_and_each_session_anew_are_the_same_bits(tmp_path: Path, recorded: pl.DataFrame):
    data = market(tmp_path, renamed(recorded), *MIXED)
    going_on = features(data)
    for session, frame in going_on.items():
        data.lake.remove(data.features_table, session)
        assert_frame_equal(MarketData(data.lake, NSE).decision_rows(session), frame, check_exact=True)


def test_a_series_has_its_features_from_its_first_session_under_a_new_name_on(tmp_path: Path, recorded: pl.DataFrame):
    kept = features(market(tmp_path / "kept", recorded))
    chained = features(market(tmp_path / "chained", renamed(recorded), MIXED[-1]))
    unchained = features(market(tmp_path / "unchained", renamed(recorded)))
    for session in CALENDAR.sessions(date(2015, 7, 7), LAST_ASKED):
        own = kept[session].filter(pl.col("symbol") == "FCEL").drop("symbol")
        now = chained[session].filter(pl.col("symbol") == "FUTURE").drop("symbol")
        assert_frame_equal(now, own, check_exact=True)
        lost = unchained[session].filter(pl.col("symbol") == "FUTURE").drop("symbol")
        assert lost["rsi_14_60m"].null_count() == 1


def test_what_becomes_known_later_changes_no_feature_until_then(tmp_path: Path, recorded: pl.DataFrame):
    known = date(2015, 7, 8)
    late = market(tmp_path / "late", recorded, act("FEDERALBNK", EX, "bonus", CALENDAR, known=known, ratio=2.0))
    never, at_once = market(tmp_path / "never", recorded), market(tmp_path / "at once", recorded, MIXED[0])
    for session in CALENDAR.sessions(LAST_BEFORE, LAST_ASKED):
        twin = never if session < known else at_once
        assert_frame_equal(late.decision_rows(session), twin.decision_rows(session), check_exact=True)


def test_stored_features_are_made_again_when_an_action_comes_to_the_lake_later(tmp_path: Path, recorded: pl.DataFrame):
    data = market(tmp_path, recorded)
    before = features(data)
    know(data.lake, CALENDAR, MIXED[0])
    after = features(MarketData(data.lake, NSE))
    assert_frame_equal(after[LAST_BEFORE], before[LAST_BEFORE], check_exact=True)
    assert of_federal(before, EX)["gap_day"] < -0.4 < of_federal(after, EX)["gap_day"]


def test_bars_are_read_as_they_looked_at_a_close_under_the_name_of_then(tmp_path: Path, recorded: pl.DataFrame):
    data = market(tmp_path, renamed(recorded), *MIXED)
    first, renamed_on = date(2015, 6, 25), date(2015, 7, 7)

    def seen(symbol: str, session: date, interval: str = "day") -> pl.DataFrame:
        return data.adjusted([symbol], first, LAST_ASKED, interval, as_of=CALENDAR.hours(session).close)

    assert seen("FEDERALBNK", LAST_BEFORE)["close"][-1] == pytest.approx(154.15)
    assert seen("FEDERALBNK", EX)["close"][-2] == pytest.approx(154.15 / 2)
    assert seen("FUTURE", renamed_on).height == len(CALENDAR.sessions(first, renamed_on))
    assert seen("FUTURE", LAST_BEFORE).is_empty()
    minutes = seen("FUTURE", renamed_on, "1m")
    raw = recorded.filter(pl.col("symbol") == "FCEL", pl.col("ts") >= CALENDAR.hours(first).open)
    assert minutes["close"].equals(raw.filter(pl.col("known_at") <= CALENDAR.hours(renamed_on).close)["close"])


RULES = "filter.fundamentals=pe <= 30"


def small_life(folder: Path, known_until: date) -> tuple[Life, MarketData]:
    """A life of twelve shares with actions and P/E ratios through three weeks, of which only those are in the lake that
    were known at the close of `known_until`."""
    life, data = begin(folder, quick(RULES), edit=plain_edge())
    calendar = data.calendar
    days = calendar.sessions(FIRST, LAST)
    names = data.bars(FIRST)["symbol"].unique().sort().to_list()
    acted = [act(names[i], day, "dividend", calendar, amount=2.0 + i) for i, day in enumerate(days)]
    acted += [act(names[0], days[4], "split", calendar, known=days[6], ratio=1.5)]
    told = [
        {"symbol": name, "known_at": calendar.hours(day).close - timedelta(hours=1), "figure": "pe",
         "value": float((7 * i + 11 * n) % 45) or None, "period": None, **ORIGIN}
        for n, day in enumerate(days) for i, name in enumerate(names) if (i + n) % 4 == 0
    ]  # fmt: skip
    close = calendar.hours(known_until).close
    know(data.lake, calendar, *(row for row in acted if row["known_at"] <= close))
    known = pl.DataFrame(told, schema=FUNDAMENTALS).filter(pl.col("known_at") <= close)
    rewrite(data.lake, fundamentals.TABLE, known.sort(*fundamentals.KEY), calendar)
    return life, data


@pytest.mark.parametrize("cut", [date(2023, 1, 4), date(2023, 1, 10)])
def test_a_life_does_not_change_up_to_a_close_with_what_became_known_after_it(tmp_path: Path, cut: date):
    whole, data = small_life(tmp_path / "whole", LAST)
    run_to(whole, data)
    blind, seen = small_life(tmp_path / "blind", cut)
    run_to(blind, seen)
    kept = [session for session in whole.commits() if session <= cut]
    mine, theirs = tables(blind, kept), tables(whole, kept)
    assert mine.keys() == theirs.keys()
    assert all(mine[key].equals(theirs[key]) for key in mine)
    assert [blind.committed(s) for s in kept] == [whole.committed(s) for s in kept]
    rest = [session for session in whole.commits() if session > cut]
    assert any(not frame.equals(tables(whole, rest)[key]) for key, frame in tables(blind, rest).items())


def test_the_filter_by_fundamentals_lets_in_only_who_was_known_to_pass_and_counts_the_others(tmp_path: Path):
    life, data = small_life(tmp_path, LAST)
    run_to(life, data)
    kept_out = 0
    for session in life.commits():
        row = life.read("phase_state", session).row(0, named=True)
        figures = data.fundamentals(session)
        cheap = set(figures.filter(pl.col("pe") <= 30)["symbol"])
        assert set(life.read("recommendations", session)["symbol"]) <= cheap
        kept_out += row["fundamentals_failed"] + row["fundamentals_unknown"]
        assert row["filtered"] == life.read("recommendations", session).height
    assert kept_out > 0
    assert life.read("phase_state", FIRST)["fundamentals_unknown"].item() > 0


def test_a_figure_that_nobody_ever_told_is_refused_with_the_nearest_names(tmp_path: Path):
    life, data = begin(tmp_path, quick("filter.fundamentals=pee <= 30"), edit=plain_edge())
    with pytest.raises(UnknownFigure, match="demo has no fundamentals at all"):
        run_to(life, data)
    row = {"symbol": "A", "known_at": datetime(2023, 1, 9, tzinfo=data.calendar.hours(FIRST).open.tzinfo),
           "figure": "pe", "value": 1.0, "period": None, **ORIGIN}  # fmt: skip
    rewrite(data.lake, fundamentals.TABLE, pl.DataFrame([row], schema=FUNDAMENTALS), data.calendar)
    with pytest.raises(UnknownFigure, match="did you mean pe"):
        run_to(life, MarketData(data.lake, data.profile))


def test_an_action_that_reaches_the_lake_after_a_session_ran_marks_that_session_as_outdated(tmp_path: Path):
    life, data = begin(tmp_path, quick(), edit=plain_edge())
    run_to(life, data, date(2023, 1, 4))
    symbol = data.bars(FIRST)["symbol"][0]
    know(data.lake, data.calendar, act(symbol, date(2023, 1, 3), "dividend", data.calendar, amount=1.0))

    def seen(session: date) -> SessionResult:
        return verify(life, MarketData(data.lake, data.profile), session)

    assert [seen(s).did for s in life.commits()] == ["skipped", "outdated", "skipped"]
