"""Findings against earlier sessions, actions and other symbols: each defect is planted into sound sessions."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from weekdaybars import Weekdays

from odin_core.lake import Lake, logical_hash
from odin_core.market.bars import BARS, MINUTE
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.importing import Page, store_page
from odin_core.market.intake.storing import assess
from odin_core.market.profile import load_profile
from odin_core.market.quality.accepting import NoReason, NothingToAccept, accept
from odin_core.market.quality.assessing import (
    assess_session,
    assess_sessions,
    blocking,
    sessions_from,
)
from odin_core.market.quality.continuity import JUMP, NEWS_REACH, NEWS_TURNOVER, SCALE
from odin_core.market.reference.actionimport import import_actions
from odin_core.market.reference.actions import ACTIONS
from odin_core.market.sources.source import INSTRUMENTS, SOURCE_BARS

CALENDAR = Weekdays()
DAYS = [date(2021, 4, n) for n in (1, 2, 5, 6, 7)]
PRICES = ("open", "high", "low", "close")
Change = Callable[[pl.DataFrame], pl.DataFrame]


def session_of(day: date, symbols: Sequence[str] = ("A", "B", "C"), seed: int = 0) -> pl.DataFrame:
    """Sound bars: prices follow a common walk, so that the symbols move together."""
    rng = np.random.default_rng([seed, day.toordinal()])
    market = rng.normal(0, 5e-4, 375)
    frames = []
    for n, symbol in enumerate(symbols):
        close = 100.0 * (n + 1) * np.exp(np.cumsum(market + rng.normal(0, 3e-4, 375)))
        opened = np.append(100.0 * (n + 1), close[:-1])
        wick = np.abs(rng.normal(0, 2e-4, (2, 375)))
        high, low = np.maximum(opened, close) * (1 + wick[0]), np.minimum(opened, close) * (1 - wick[1])
        volume = rng.integers(50, 150, 375).astype(float)
        ts = [CALENDAR.hours(day)[0] + MINUTE * m for m in range(375)]
        columns = {"ts": ts, "open": opened, "high": high, "low": low, "close": close, "volume": volume, "oi": None}
        frames.append(pl.DataFrame({"symbol": symbol} | columns))
    bars = pl.concat(frames).with_columns(known_at=pl.col("ts") + MINUTE)
    return bars.select(pl.col(name).cast(dtype) for name, dtype in BARS.items())


def scaled(ratio: float, symbol: str = "A", first: int = 0, last: int = 375) -> Change:
    def change(bars: pl.DataFrame) -> pl.DataFrame:
        start = bars["ts"].min()
        here = (pl.col("symbol") == symbol) & pl.col("ts").is_between(
            start + MINUTE * first, start + MINUTE * (last - 1)
        )
        return bars.with_columns(pl.when(here).then(pl.col(p) * ratio).otherwise(p).alias(p) for p in PRICES)

    return change


def lake_of(folder: Path, changes: dict[date, Change] | None = None, days: Sequence[date] = DAYS) -> Lake:
    lake = Lake(folder)
    for day in days:
        lake.write("price_history", day, (changes or {}).get(day, lambda bars: bars)(session_of(day)))
    return lake


def assessed(lake: Lake) -> dict[date, list[tuple[str, str, str]]]:
    """Findings that matter here, by session; what tells of good bars is left out."""
    found = dict(assess_sessions(lake, CALENDAR, lake.sessions("price_history")))
    told = {day: frame.filter(pl.col("rule") != "large_move") for day, frame in found.items()}
    return {day: frame.select("symbol", "rule", "severity").rows() for day, frame in told.items() if frame.height}


def act(lake: Lake, day: date, kind: str, *, known: date | None = None, **values: Any) -> None:
    known_at = CALENDAR.hours(known or day)[0]
    row = {"symbol": "A", "ex_date": day, "known_at": known_at, "kind": kind, "origin": "test"} | values
    lake.write("corporate_actions", known or day, pl.DataFrame([row], schema=ACTIONS))


def test_sound_sessions_have_no_findings(tmp_path: Path):
    assert assessed(lake_of(tmp_path)) == {}


@pytest.mark.parametrize("ratio", [1 / 11, 1 / 2, 2.0, 100.0])
@pytest.mark.parametrize(("first", "last"), [(41, 375), (0, 41), (200, 210)])
def test_a_level_that_is_not_the_symbols_blocks_whether_or_not_it_has_the_majority(
    tmp_path: Path, ratio: float, first: int, last: int
):
    """The close before says which side is right, and the sessions around are not blamed."""
    lake = lake_of(tmp_path, {DAYS[2]: scaled(ratio, first=first, last=last)})
    assert assessed(lake) == {DAYS[2]: [("A", "wrong_magnitude", "error")]}
    finding = assess_session(lake, CALENDAR, DAYS[2]).filter(rule="wrong_magnitude").row(0, named=True)
    assert finding["count"] == last - first
    told, reference = finding["detail"].removeprefix("bars are at ").split(" times the level of ")
    assert float(told) == pytest.approx(ratio, rel=0.05)
    assert reference.startswith("the session before")


def test_without_a_close_before_the_majority_is_right(tmp_path: Path):
    lake = lake_of(tmp_path, {DAYS[0]: scaled(1 / 11, first=41)})
    finding = assess_session(lake, CALENDAR, DAYS[0]).filter(rule="wrong_magnitude").row(0, named=True)
    assert finding["count"] == 41
    assert "most of the session" in finding["detail"]


def test_a_jump_without_an_action_blocks_and_one_with_it_does_not(tmp_path: Path):
    halved = {day: scaled(0.5) for day in DAYS[2:]}
    lake = lake_of(tmp_path, halved)
    assert assessed(lake) == {DAYS[2]: [("A", "jump_without_action", "error")]}
    assert "a split of 2 for 1" in assess_session(lake, CALENDAR, DAYS[2]).filter(symbol="A")["detail"].item()
    act(lake, DAYS[2], "bonus", ratio=2.0)
    assert assessed(lake) == {}


@pytest.mark.parametrize(
    ("kind", "values", "explains"),
    [
        ("split", {"ratio": 2.0}, True),
        ("split", {"ratio": 5.0}, False),
        ("split", {"ratio": 0.5}, False),
        ("dividend", {"amount": 50.0}, True),
        ("dividend", {"amount": 5.0}, False),
        ("merger", {"ratio": 3.0, "other": "B"}, True),
    ],
)
def test_an_action_explains_a_jump_of_its_own_size_only(
    tmp_path: Path, kind: str, values: dict[str, Any], explains: bool
):
    lake = lake_of(tmp_path, {day: scaled(0.5) for day in DAYS[2:]})
    act(lake, DAYS[2], kind, **values)
    assert assessed(lake) == ({} if explains else {DAYS[2]: [("A", "jump_without_action", "error")]})


def test_an_action_that_takes_effect_on_a_day_without_bars_explains_the_next_session(tmp_path: Path):
    days = [DAYS[0], DAYS[1], DAYS[3], DAYS[4]]
    lake = lake_of(tmp_path, {day: scaled(0.5) for day in days[2:]}, days)
    act(lake, DAYS[2], "split", ratio=2.0)
    assert assessed(lake) == {DAYS[3]: [("*", "missing_sessions", "warning")]}


def test_an_action_that_became_known_after_the_close_does_not_block_and_is_said(tmp_path: Path):
    lake = lake_of(tmp_path, {day: scaled(0.5) for day in DAYS[2:]})
    act(lake, DAYS[2], "split", known=DAYS[3], ratio=2.0)
    assert assessed(lake) == {DAYS[2]: [("A", "action_known_late", "warning")]}


def test_an_action_that_no_price_shows_is_said(tmp_path: Path):
    lake = lake_of(tmp_path)
    act(lake, DAYS[2], "split", ratio=2.0)
    assert assessed(lake) == {DAYS[2]: [("A", "action_without_jump", "warning")]}
    act(lake, DAYS[2], "dividend", amount=1.0)
    assert assessed(lake) == {}


def test_a_jump_that_is_traded_like_news_does_not_block(tmp_path: Path):
    def busy(bars: pl.DataFrame) -> pl.DataFrame:
        volume = pl.when(pl.col("symbol") == "A").then(pl.col("volume") * NEWS_TURNOVER * 2.2).otherwise("volume")
        return scaled(0.5)(bars).with_columns(volume)

    def wild(bars: pl.DataFrame) -> pl.DataFrame:
        """It goes on falling for as much as it had fallen."""
        minute = pl.int_range(pl.len()).over("symbol") / 375
        fall = pl.when(pl.col("symbol") == "A").then(0.5 ** (1 + NEWS_REACH * 1.05 * minute)).otherwise(1.0)
        falling = bars.with_columns(pl.col(PRICES) * fall)
        return falling.with_columns(high=pl.max_horizontal(PRICES), low=pl.min_horizontal(PRICES))

    for n, change in enumerate((busy, wild)):
        lake = lake_of(tmp_path / str(n), {DAYS[4]: change})
        assert assessed(lake) == {DAYS[4]: [("A", "jump_on_news", "warning")]}


@pytest.mark.parametrize(("ratio", "found"), [(JUMP * 1.02, True), (JUMP / 1.02, False)])
def test_the_size_of_a_jump_decides(tmp_path: Path, ratio: float, found: bool):
    """Each session opens at 100, so only the ratio is over night."""
    first = scaled(1.0)
    flat = pl.when(pl.col("symbol") == "A").then(100.0)

    def still(bars: pl.DataFrame) -> pl.DataFrame:
        return first(bars).with_columns(flat.otherwise(pl.col(p)).alias(p) for p in PRICES)

    for direction in (ratio, 1 / ratio):
        lake = lake_of(tmp_path / f"{direction}", {DAYS[3]: still, DAYS[4]: lambda b, d=direction: scaled(d)(still(b))})
        rules = assess_session(lake, CALENDAR, DAYS[4])["rule"].to_list()
        assert ("jump_without_action" in rules) is found


def test_the_same_session_again_blocks(tmp_path: Path):
    again = session_of(DAYS[2]).with_columns(pl.col("ts", "known_at") + timedelta(days=1))
    lake = lake_of(tmp_path, {DAYS[3]: lambda _: again})
    assert assessed(lake)[DAYS[3]] == [(symbol, "repeated_session", "error") for symbol in "ABC"]


@pytest.mark.parametrize(("ratio", "found"), [(SCALE * 1.3, True), (1 / (SCALE * 1.3), True), (SCALE / 1.3, False)])
def test_volume_in_other_units_is_seen(tmp_path: Path, ratio: float, found: bool):
    volume = pl.when(pl.col("symbol") == "B").then(pl.col("volume") * ratio).otherwise("volume")
    lake = lake_of(tmp_path, {day: lambda bars: bars.with_columns(volume) for day in DAYS[2:]})
    assert assessed(lake) == ({DAYS[2]: [("B", "volume_scale", "warning")]} if found else {})


@pytest.mark.parametrize("minutes", [-60, -7, 7, 60])
def test_a_symbol_whose_clock_differs_from_the_others_blocks(tmp_path: Path, minutes: int):
    def shifted(bars: pl.DataFrame) -> pl.DataFrame:
        start = bars["ts"].min()
        end = start + MINUTE * 375
        off = pl.when(pl.col("symbol") == "A").then(MINUTE * minutes).otherwise(timedelta(0))
        return bars.with_columns(pl.col("ts", "known_at") + off).filter(pl.col("ts") >= start, pl.col("ts") < end)

    lake = lake_of(tmp_path, {DAYS[2]: shifted})
    finding = assess_session(lake, CALENDAR, DAYS[2]).filter(rule="clock_shift").row(0, named=True)
    assert (finding["symbol"], finding["severity"], finding["count"]) == ("A", "error", abs(minutes))
    assert ("behind" in finding["detail"]) is (minutes > 0)


@pytest.mark.parametrize("minutes", [-60, -330, 30, 60])
def test_a_session_that_lies_partly_outside_its_hours_has_a_shifted_clock(tmp_path: Path, minutes: int):
    """All symbols alike, so only the rows that were held back tell."""
    lake = lake_of(tmp_path, days=DAYS[:2])
    moved = session_of(DAYS[2]).with_columns(pl.col("ts") + MINUTE * minutes).select(*SOURCE_BARS)
    store_page(Page("late.csv", "0" * 16, moved, moved), lake=lake, calendar=CALENDAR)
    found = lake.read("data_quality", DAYS[2]).filter(rule="clock_shift")
    assert found.select("symbol", "severity", "count").rows() == [(s, "error", abs(minutes)) for s in "ABC"]
    assert (" late:" in found["detail"][0]) is (minutes > 0)


def test_prints_before_the_open_and_after_the_close_are_no_shifted_clock(tmp_path: Path):
    lake = lake_of(tmp_path, days=DAYS[:2])
    whole = session_of(DAYS[2]).select(*SOURCE_BARS)
    prints = whole.filter(pl.col("ts") < pl.col("ts").min() + MINUTE * 8)
    page = pl.concat(
        [whole, prints.with_columns(pl.col("ts") - MINUTE * 8), prints.with_columns(pl.col("ts") + MINUTE * 375)]
    )
    store_page(Page("prints.csv", "0" * 16, page, page), lake=lake, calendar=CALENDAR)
    assert set(lake.read("data_quality", DAYS[2])["rule"]) <= {"quarantined_outside_hours", "large_move"}


def test_sessions_and_symbols_that_are_missing_are_told_once_at_the_next_session(tmp_path: Path):
    lake = lake_of(tmp_path, {DAYS[4]: lambda bars: bars.filter(pl.col("symbol") != "B")}, [DAYS[0], DAYS[3], DAYS[4]])
    assert assessed(lake) == {
        DAYS[3]: [("*", "missing_sessions", "warning")],
        DAYS[4]: [("B", "no_bars", "warning")],
    }
    detail = assess_session(lake, CALENDAR, DAYS[3])["detail"][0]
    assert detail == "no bars of 2021-04-02 to 2021-04-05; the last session with bars is 2021-04-01"


def test_a_page_that_began_in_the_session_before_is_counted_whole(tmp_path: Path):
    class Around(Weekdays):
        """It never closes between two weekdays."""

        def hours(self, session: date) -> Any:
            start = super().hours(session)[0]
            return start, start + timedelta(days=1)

    def bars(day: date, minutes: Sequence[int]) -> pl.DataFrame:
        start = Around().hours(day)[0]
        rows = [{"symbol": "A", "ts": start + MINUTE * n, "known_at": start + MINUTE * (n + 1)} for n in minutes]
        prices = {p: [100.0 + n % 7 for n in minutes] for p in PRICES}
        return pl.DataFrame(rows).with_columns(
            *(pl.Series(p, v) for p, v in prices.items()), volume=1.0, oi=pl.lit(None, pl.Float64)
        ).cast(dict(BARS)).select(*BARS)  # fmt: skip

    lake = Lake(tmp_path)
    lake.write("price_history", DAYS[0], bars(DAYS[0], range(1340, 1440)))
    lake.write("price_history", DAYS[1], bars(DAYS[1], [*range(100), *range(900, 1440)]))
    assert "paging_holes" not in assess_session(lake, Around(), DAYS[0])["rule"]
    assert (
        "runs of exactly 200 bars"
        in assess_session(lake, Around(), DAYS[1]).filter(rule="paging_holes")["detail"].item()
    )


def test_an_accepted_error_is_a_warning_that_says_why(tmp_path: Path):
    lake = lake_of(tmp_path, {day: scaled(0.5) for day in DAYS[2:]})
    assert blocking(assess_session(lake, CALENDAR, DAYS[2])).select("symbol", "rule").rows() == [
        ("A", "jump_without_action")
    ]
    with pytest.raises(
        NothingToAccept, match=r"2021-04-05 has no error B jump_without_action; .*A jump_without_action"
    ):
        accept(lake, CALENDAR, DAYS[2], symbol="B", rule="jump_without_action", why="it fell")
    found = accept(lake, CALENDAR, DAYS[2], symbol="A", rule="jump_without_action", why="it fell")
    assert blocking(found).is_empty()
    assert found.filter(rule="jump_without_action")["detail"].item().endswith("(accepted: it fell)")
    assert_frame_equal(lake.read("data_quality", DAYS[2]), found)
    assert_frame_equal(assess_session(lake, CALENDAR, DAYS[2]), found)
    with pytest.raises(NothingToAccept, match=r"it was accepted before: it fell; the session has no error at all$"):
        accept(lake, CALENDAR, DAYS[2], symbol="A", rule="jump_without_action", why="once more")


@pytest.mark.parametrize("why", ["", " \t"])
def test_nothing_is_accepted_without_a_reason(tmp_path: Path, why: str):
    lake = lake_of(tmp_path, {day: scaled(0.5) for day in DAYS[2:]})
    with pytest.raises(NoReason, match="say why the data are right"):
        accept(lake, CALENDAR, DAYS[2], symbol="A", rule="jump_without_action", why=why)
    assert not blocking(assess_session(lake, CALENDAR, DAYS[2])).is_empty()


CHANGES = {
    "none": lambda bars: bars,
    "halved": scaled(0.5),
    "later": scaled(1 / 11, first=41),
    "without B": lambda bars: bars.filter(pl.col("symbol") != "B"),
    "short": lambda bars: bars.filter(pl.col("ts") < pl.col("ts").min() + MINUTE * 100),
}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.sampled_from(sorted(CHANGES))), min_size=5, max_size=5),
    st.lists(st.sampled_from(DAYS), unique=True, min_size=1),
    st.integers(0, 4),
)
def test_findings_are_the_same_alone_in_any_range_and_without_what_came_later(
    tmp_path_factory: pytest.TempPathFactory, changes: list[str | None], asked: list[date], cut: int
):
    folder = tmp_path_factory.mktemp("lakes")
    held = [day for day, name in zip(DAYS, changes, strict=True) if name is not None]
    lake = lake_of(folder / "whole", {d: CHANGES[n] for d, n in zip(DAYS, changes, strict=True) if n}, held)
    together = dict(assess_sessions(lake, CALENDAR, asked))
    followers = {min((h for h in held if h > day), default=day) for day in asked}
    assert set(together) == {*asked, *followers}
    until = DAYS[cut]
    earlier = Lake(folder / "cut")
    for day in held:
        if day <= until:
            earlier.write("price_history", day, lake.read("price_history", day))
    for day, frame in together.items():
        alone = assess_session(lake, CALENDAR, day)
        assert logical_hash(frame) == logical_hash(alone)
        if day <= until:
            assert_frame_equal(assess_session(earlier, CALENDAR, day), alone)


def test_contracts_that_expire_are_not_missed(tmp_path: Path):
    def without(*symbols: str) -> Change:
        return lambda bars: bars.filter(~pl.col("symbol").is_in(symbols))

    lake = lake_of(tmp_path, {DAYS[2]: without("A", "B")}, DAYS[:3])
    assert assessed(lake)[DAYS[2]] == [("A", "no_bars", "warning"), ("B", "no_bars", "warning")]
    kinds = pl.DataFrame({"symbol": ["A", "B", "C"], "kind": ["future", "equity", "option"]})
    lake.write("instruments", DAYS[1], pl.concat([INSTRUMENTS.to_frame(), kinds], how="diagonal"))
    assert assessed(lake)[DAYS[2]] == [("B", "no_bars", "warning")]


def test_prices_of_an_instrument_that_is_an_option_may_jump_whatever_its_name(tmp_path: Path):
    lake = lake_of(tmp_path, {day: scaled(0.05) for day in DAYS[2:]})
    kinds = pl.DataFrame({"symbol": ["A"], "kind": ["option"]})
    lake.write("instruments", DAYS[2], pl.concat([INSTRUMENTS.to_frame(), kinds], how="diagonal"))
    assert assessed(lake) == {}


def test_the_sessions_that_an_ex_date_shows_in_are_the_next_ones_with_bars(tmp_path: Path):
    lake = lake_of(tmp_path, days=[DAYS[0], DAYS[3]])
    assert sessions_from(lake, [DAYS[0], DAYS[1], DAYS[2], date(2021, 3, 30)]) == [DAYS[0], DAYS[3]]
    assert sessions_from(lake, [date(2021, 3, 1), DAYS[4]]) == []


def test_bringing_in_an_action_takes_the_block_away(tmp_path: Path):
    lake, calendar = Lake(tmp_path / "lake"), session_calendar(load_profile("nse"))
    days = calendar.sessions(date(2021, 4, 1), date(2021, 4, 8))
    for n, day in enumerate(days):
        lake.write("price_history", day, scaled(1.0 if n < 2 else 0.2)(session_of(day)))
    assess(lake, calendar, days)
    assert blocking(lake.read("data_quality", days[2])).height == 1
    (tmp_path / "actions.csv").write_text(f"symbol,ex_date,known_at,kind,ratio\nA,{days[2]},2021-03-20,split,5\n")
    import_actions([tmp_path / "actions.csv"], lake=lake, calendar=calendar, zone=ZoneInfo("Asia/Kolkata"))
    assert blocking(lake.read("data_quality", days[2])).is_empty()
