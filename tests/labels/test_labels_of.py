"""All labels of a market's sessions: against plain Python, piecewise and at once, cut, scrambled, and over actions."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.labels import LABELS, labels_of
from odin_core.labels.grids import HISTORY, KEY, NO_ACTIONS
from odin_core.market.bars import BARS, resample_sessions
from odin_core.market.calendar import Hours
from odin_core.market.reference.actions import EFFECTIVE
from tests.labels.plainlabels import LENGTH, MINUTE, SYMBOLS, hours_of, plain_labels, random_minutes
from tests.realdata import market_file

SESSIONS = 32
PRICES = ("open", "high", "low", "close")


def days_of(minutes: pl.DataFrame, hours: Sequence[Hours]) -> pl.DataFrame:
    return resample_sessions(minutes, "day", hours).select(BARS.names())


def whole(minutes: pl.DataFrame, hours: Sequence[Hours], actions: pl.DataFrame = NO_ACTIONS) -> pl.DataFrame:
    """At once, over all sessions."""
    days = days_of(minutes, hours)
    return labels_of(minutes, days, hours, since=hours[0].open, as_of=hours[-1].close, actions=actions)


def ended_in(
    place: int, minutes: pl.DataFrame, hours: Sequence[Hours], actions: pl.DataFrame = NO_ACTIONS
) -> pl.DataFrame:
    """Of one session, from no more than the bars that it is said to need."""
    past = hours[max(0, place + 1 - HISTORY) : place + 1]
    recent = past[-6:]
    days = days_of(minutes.filter(pl.col("ts").is_between(past[0].open, past[-1].close, closed="left")), past)
    some = minutes.filter(pl.col("ts").is_between(recent[0].open, recent[-1].close, closed="left"))
    since = hours[place - 1].close if place else hours[0].open
    return labels_of(some, days, past, since=since, as_of=past[-1].close, actions=actions)


def action(symbol: str, session: Hours, kind: str, known_at: datetime | None = None, **facts: Any) -> dict[str, Any]:
    """One row of EFFECTIVE, in effect and known from the open of a session."""
    row = dict.fromkeys(EFFECTIVE.names()) | {"symbol": symbol, "ex_date": session.open.date(), "kind": kind}
    return row | {"ex_at": session.open, "known_at": known_at or session.open} | facts


def book(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=EFFECTIVE)


@settings(max_examples=4)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.5]))
def test_every_label_is_what_plain_python_says(seed: int, missing: float):
    hours = hours_of(20)
    minutes = random_minutes(hours, seed=seed, missing=missing, absent=0.2)
    mine = whole(minutes, hours)
    expected = plain_labels(minutes, hours)
    found = {row[:4]: row[4:] for row in mine.select(*KEY, "value", "label_end", "reason").iter_rows()}
    assert found.keys() == expected.keys()
    for key, (value, end, reason) in expected.items():
        assert found[key][1:] == (end, reason), key
        assert found[key][0] == (value if value is None else pytest.approx(value, abs=1e-12)), key


def test_every_label_and_every_reason_occurs_and_ends_after_its_decision():
    hours = hours_of(SESSIONS)
    rows = whole(random_minutes(hours, missing=0.3, absent=0.1), hours)
    assert rows.schema == LABELS
    assert rows["label"].unique().sort().to_list() == [
        "meta_long_5_sessions", "meta_short_5_sessions", "oi_change_1_session", "return_12_bars", "return_15m",
        "return_1_session", "return_30m", "return_3_sessions", "return_3m", "return_5_sessions", "return_5m",
        "return_60_bars", "triple_barrier_5_sessions", "triple_barrier_60m",
    ]  # fmt: skip
    assert (rows["label_end"] > rows["decided_at"]).all()
    assert set(rows["reason"]) == {None, "session_closed", "no_bars"}
    assert (rows["value"].is_null() == rows["reason"].is_not_null()).all()
    for label in ("triple_barrier_60m", "triple_barrier_5_sessions"):
        assert set(rows.filter(pl.col("label") == label)["value"].drop_nulls()) == {-1.0, 0.0, 1.0}
    assert not rows.select(pl.struct(KEY).is_duplicated()).to_series().any()


def test_in_a_halt_horizons_in_minutes_end_on_time_and_nothing_after_it_counts():
    hours = hours_of(8)
    minutes = random_minutes(hours, missing=0.0, absent=0.0).filter(pl.col("symbol") == "ITC")
    day = hours[-1].open
    after = (pl.col("ts") >= day + 20 * MINUTE) & (pl.col("ts") < day + 83 * MINUTE)
    jump = pl.when(pl.col("ts") >= day + 83 * MINUTE).then(2.0).otherwise(1.0)  # meets every barrier
    rows = whole(minutes.filter(~after).with_columns(pl.col(PRICES) * jump), hours)
    calm = whole(minutes.filter(~after), hours)

    def of(at: int, label: str, found: pl.DataFrame = rows) -> tuple[float | None, float, str | None]:
        key = (pl.col("decided_at") == day + at * MINUTE) & (pl.col("label") == label)
        value, end, reason = found.filter(key).select("value", "label_end", "reason").row(0)
        return value, (end - day) / MINUTE, reason

    assert of(20, "return_3m") == (None, 28, "no_bars")
    assert of(15, "return_15m") == (None, 35, "no_bars")
    assert of(20, "triple_barrier_60m") == (None, 80, "no_bars")
    for at in (5, 10, 15):  # what was traded before the halt counts
        value, end, reason = of(at, "triple_barrier_60m")
        assert (end <= 20) if value else (end == at + 60)
        assert (value, end, reason) == of(at, "triple_barrier_60m", calm)
    assert of(85, "return_3m")[1:] == (88, None)
    assert of(85, "return_5m")[1:] == (90, None)


def test_no_label_of_minutes_ends_later_than_it_says():
    hours = hours_of(20)
    rows = whole(random_minutes(hours, seed=11, missing=0.4), hours)
    asked = pl.col("label").str.extract(r"(\d+)m$").cast(pl.Float64)
    late = (pl.col("label_end") - pl.col("decided_at")) / MINUTE - asked
    timed = rows.with_columns(late=late).drop_nulls("late")
    returns = pl.col("label").str.starts_with("return")
    assert timed.filter(returns)["late"].max() == 5
    assert timed.filter(~returns)["late"].max() == 0
    unknown = timed.filter(returns & (pl.col("reason") == "no_bars"))
    closes = [session.close for session in hours]
    assert unknown.filter((pl.col("late") != 5) & ~pl.col("label_end").is_in(closes)).is_empty()
    assert unknown.height > 0


def many_actions(hours: Sequence[Hours]) -> pl.DataFrame:
    return book(
        action("ITC", hours[9], "split", ratio=2.0),
        action("ITC", hours[12], "dividend", amount=3.0),
        action("SBIN", hours[20], "bonus", ratio=1.5, known_at=hours[22].open + 7 * MINUTE),  # told two sessions late
        action("TCS", hours[15], "rename", other="TCSL"),
        action("TCSL", hours[18], "dividend", amount=1.0),
    )


def renamed(minutes: pl.DataFrame, hours: Sequence[Hours]) -> pl.DataFrame:
    later = (pl.col("symbol") == "TCS") & (pl.col("ts") >= hours[15].open)
    return minutes.with_columns(symbol=pl.when(later).then(pl.lit("TCSL")).otherwise("symbol"))


@pytest.mark.parametrize("acted", [False, True])
def test_session_by_session_and_at_once_give_the_same_bits(acted: bool):
    hours = hours_of(SESSIONS)
    minutes = random_minutes(hours, seed=3)
    actions = many_actions(hours) if acted else NO_ACTIONS
    minutes = renamed(minutes, hours) if acted else minutes
    parts = [ended_in(place, minutes, hours, actions) for place in range(len(hours))]
    at_once = whole(minutes, hours, actions)
    assert_frame_equal(pl.concat(parts).sort(KEY), at_once, check_exact=True)
    for part, session in zip(parts, hours, strict=True):
        assert part["label_end"].is_between(session.open, session.close).all()


def test_row_order_and_company_change_nothing():
    hours = hours_of(SESSIONS)
    minutes = random_minutes(hours, seed=5)
    expected = whole(minutes, hours)
    shuffled = minutes.sample(fraction=1, shuffle=True, seed=1)
    days = days_of(minutes, hours).sample(fraction=1, shuffle=True, seed=2)
    again = labels_of(shuffled, days, hours, since=hours[0].open, as_of=hours[-1].close)
    assert_frame_equal(again, expected, check_exact=True)
    alone = whole(minutes.filter(pl.col("symbol") == "SBIN"), hours)
    assert_frame_equal(alone, expected.filter(pl.col("symbol") == "SBIN"), check_exact=True)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "acted"])
def market(request: pytest.FixtureRequest) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Minute bars of SESSIONS sessions, their corporate actions and labels."""
    hours = hours_of(SESSIONS)
    minutes, actions = random_minutes(hours, seed=8), NO_ACTIONS
    if request.param:
        minutes, actions = renamed(minutes, hours), many_actions(hours)
    return minutes, actions, whole(minutes, hours, actions)


@settings(max_examples=10)
@given(place=st.integers(0, SESSIONS - 1), minute=st.integers(1, LENGTH))
def test_what_was_known_at_some_time_follows_from_what_was_known_then(
    market: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame], place: int, minute: int
):
    minutes, actions, labels = market
    hours = hours_of(SESSIONS)
    cut = hours[place].open + minute * MINUTE
    expected = labels.filter(pl.col("label_end") <= cut)
    later = pl.col("known_at") > cut
    scrambled = minutes.with_columns(pl.when(later).then(pl.col(p) * 1.7).otherwise(p).alias(p) for p in PRICES)
    known_actions = actions.filter(pl.col("known_at") <= cut)
    for frame, known in [(minutes.filter(~later), known_actions), (scrambled, actions)]:
        days = days_of(frame, hours)
        found = labels_of(frame, days, hours, since=hours[0].open, as_of=cut, actions=known)
        assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("scale", [0.5, 1024.0])
def test_prices_times_a_constant_change_nothing(scale: float):
    hours = hours_of(SESSIONS)
    minutes = random_minutes(hours, seed=4)
    scaled = minutes.with_columns(pl.col(PRICES) * scale, pl.col("volume") * 3)
    assert_frame_equal(whole(scaled, hours), whole(minutes, hours), check_exact=True)


def test_a_split_that_was_known_in_time_changes_no_label():
    hours = hours_of(SESSIONS)
    minutes = random_minutes(hours, seed=6)
    for ex in (3, 14, 25):
        after = (pl.col("symbol") == "ITC") & (pl.col("ts") >= hours[ex].open)
        split = minutes.with_columns(pl.when(after).then(pl.col(p) / 4).otherwise(p).alias(p) for p in PRICES)
        known = whole(split, hours, book(action("ITC", hours[ex], "split", ratio=4.0)))
        assert_frame_equal(known, whole(minutes, hours), check_exact=True)
        assert not whole(split, hours).equals(known)


def test_a_new_name_changes_nothing_but_the_name_and_not_the_other_company_that_had_it():
    hours = hours_of(SESSIONS)
    minutes = random_minutes(hours, seed=7)
    expected = whole(minutes, hours)
    mine = whole(renamed(minutes, hours), hours, book(action("TCS", hours[15], "rename", other="TCSL")))
    later = (pl.col("symbol") == "TCS") & (pl.col("decided_at") > hours[15].open)
    named = expected.with_columns(symbol=pl.when(later).then(pl.lit("TCSL")).otherwise("symbol")).sort(KEY)
    without = pl.col("label") == "triple_barrier_60m"  # a new name's five-minute bars are too few at first
    assert_frame_equal(mine.filter(~without), named.filter(~without), check_exact=True)

    other = minutes.filter((pl.col("symbol") == "SBIN") & (pl.col("ts") < hours[15].open))
    both = pl.concat([renamed(minutes, hours), other.with_columns(symbol=pl.lit("TCSL"))])
    met = whole(both, hours, book(action("TCS", hours[15], "rename", other="TCSL")))
    last = met.filter((pl.col("symbol") == "TCSL") & (pl.col("decided_at") == hours[14].close))
    assert set(last.filter(pl.col("label").str.starts_with("return"))["reason"]) == {"no_bars"}
    tcs = (pl.col("symbol") == "TCS") & ~without
    assert_frame_equal(met.filter(tcs), mine.filter(tcs), check_exact=True)


def test_a_dividend_counts_in_the_return_from_when_it_was_known():
    hours = hours_of(SESSIONS)
    minutes = random_minutes(hours, seed=9, absent=0.0)
    closes = days_of(minutes, hours).filter(pl.col("symbol") == "SBIN")["close"].to_list()

    def returned(known_at: datetime | None) -> dict[date, float]:
        actions = book(action("SBIN", hours[10], "dividend", amount=5.0, known_at=known_at))
        rows = whole(minutes, hours, actions).filter(
            (pl.col("symbol") == "SBIN") & (pl.col("label") == "return_3_sessions")
        )
        return {at.date(): value for at, value in rows.select("decided_at", "value").iter_rows()}

    scale = 1 - 5.0 / closes[9]
    in_time, late = returned(None), returned(hours[11].open + MINUTE)
    for i in (6, 7, 8, 9, 10):
        day = hours[i].open.date()
        raw = closes[i + 3] / closes[i] - 1
        paid = closes[i + 3] / (closes[i] * scale) - 1
        assert in_time[day] == pytest.approx(paid if 7 <= i <= 9 else raw)
        assert late[day] == pytest.approx(paid if i == 9 else raw)  # told in session 11: seen from 12 on


def test_real_minutes_of_the_exchange_agree_with_plain_python():
    bars = pl.read_parquet(market_file("nse_equity_1m_2021.parquet"))
    names = bars["symbol"].unique().sort()[3:5].to_list()
    bars = bars.filter(pl.col("symbol").is_in(names))
    bars = bars.with_columns(known_at=pl.col("ts") + MINUTE, oi=pl.lit(None, pl.Float64)).select(BARS.names())
    dates = bars["ts"].dt.date().unique().sort().head(17)
    hours = [Hours(*(datetime.fromisoformat(f"{d} {t}:00+00:00") for t in ("03:45", "10:00"))) for d in dates]
    inside = [pl.col("ts").is_between(*session, closed="left") for session in hours]  # not the pre-open
    bars = bars.filter(pl.any_horizontal(inside))
    mine = whole(bars, hours)
    found = {row[:4]: row[4:] for row in mine.select(*KEY, "value", "label_end", "reason").iter_rows()}
    expected = plain_labels(bars, hours)
    assert found.keys() == expected.keys()
    differing = [
        key for key, came in expected.items()
        if found[key][1:] != came[1:] or (came[0] is not None and abs(found[key][0] - came[0]) > 1e-12)
    ]  # fmt: skip
    assert not differing


def test_times_without_a_zone_and_bars_before_the_hours_are_refused():
    hours = hours_of(3)
    minutes = random_minutes(hours)
    days = days_of(minutes, hours)
    with pytest.raises(ValueError, match="need a time zone"):
        labels_of(minutes, days, hours, since=hours[0].open.replace(tzinfo=None), as_of=hours[-1].close)
    with pytest.raises(ValueError, match="before the first session"):
        labels_of(minutes.clear(), days, hours[1:], since=hours[1].open, as_of=hours[-1].close)
    with pytest.raises(ValueError, match="are not all inside"):
        labels_of(minutes, days.clear(), hours[1:], since=hours[1].open, as_of=hours[-1].close)


def test_sessions_without_any_bar_give_no_rows_and_the_labels_that_they_would_have_ended_say_so():
    hours = hours_of(4)
    assert whole(BARS.to_frame(), hours).is_empty()
    minutes = random_minutes(hours, absent=0.0).filter(pl.col("ts") < hours[2].close)
    rows = whole(minutes, hours).filter(pl.col("label_end") == hours[3].close)
    expected = {(s, label) for s in SYMBOLS for label in ("return_1_session", "return_3_sessions")}
    expected.add(("ITC", "oi_change_1_session"))
    assert set(rows.select("symbol", "label").iter_rows()) == expected
    assert set(rows["reason"]) == {"no_bars"}
    assert rows.filter(pl.col("label") == "return_1_session")["decided_at"].unique().to_list() == [hours[2].close]
    assert hours[3].close - hours[2].close == timedelta(days=1)
