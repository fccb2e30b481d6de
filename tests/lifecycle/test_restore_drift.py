"""A life in which the market changes: drift alarms, halts, retrains within a week, people, and a demotion; in one go
and in pieces it is the same life."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from smalllives import CLIMBING, FIRST, Edit, begin, clock, plain_edge, quick, rough, run_to, tables
from test_restore import differences

from odin_core.lifecycle import fold
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import day_of, loop_rules, restore, write_session
from odin_core.lifecycle.summary import phase_table
from odin_core.market.data import MarketData
from odin_core.registry.history import plan_promotion

CHANGES, LAST = date(2023, 2, 8), date(2023, 2, 24)
DRIFTING = (
    "drift.window_sessions=6", "drift.alarms=1", "drift.cooldown_sessions=2", "drift.demote_after=5",
    "learner.lookback_sessions=15",
)  # fmt: skip


def wider_bars(edit: Edit) -> Edit:
    """`edit`, and from CHANGES on every bar reaches one per cent further both ways."""

    def edited(session: date, bars: pl.DataFrame) -> pl.DataFrame:
        made = edit(session, bars)
        wide = made.with_columns(pl.col("high") * 1.01, pl.col("low") * 0.99)
        return wide if session >= CHANGES else made

    return edited


def drifting_life(folder: Path, *assignments: str) -> tuple[Life, MarketData]:
    return begin(folder / "home", quick(*CLIMBING, *DRIFTING, *assignments), edit=wider_bars(rough(plain_edge())))


def by_a_person(life: Life) -> None:
    """After the close of Monday 30 January: the first candidate of all, from Wednesday on."""
    plan_promotion(life, sorted(life.registry.versions())[0], None, "a test").apply(clock(), "me")


MONDAY = date(2023, 1, 30)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """One state carried in memory all the way; what a restart would find is compared on days that matter."""
    life, data = drifting_life(tmp_path_factory.mktemp("whole"))
    rules = loop_rules(life, data.profile)
    state = restore(life, data, rules)
    for session in data.calendar.sessions(FIRST, LAST):
        day = day_of(life, data, session)
        state, record = fold.advance(state, day, rules)
        write_session(life, data, day, record, state.window)
        if session == MONDAY:
            by_a_person(life)
        if session >= CHANGES or session.weekday() == 2:
            fresh = MarketData(data.lake, data.profile)
            assert differences(state, restore(life, fresh, rules)) == {}, session
    return life


def test_the_life_has_drift_retrains_within_a_week_a_person_and_a_demotion(whole: Life):
    states = phase_table(whole)
    assert states["drift_alarms"].max() == 4
    called = states.filter(pl.col("retrained_because").str.starts_with("drift: "))
    assert called.height >= 1
    assert called["session"].dt.weekday().is_in([1, 2, 3, 4]).all()
    assert "demoted: the champion's features have drifted for 5 sessions" in " ".join(states["reason"])
    events = whole.read_many("registry_history", whole.sessions_with("registry_history"))["event"]
    assert {"by_person", "promoted", "demoted"} <= set(events)
    halted = whole.read_many("recommendations", whole.commits()).filter(pl.col("reject_reason") == "drift")
    assert halted.height > 20


@pytest.mark.parametrize("ends", [[MONDAY, date(2023, 2, 15), date(2023, 2, 21), LAST]], ids=["at alarms"])
def test_in_pieces_every_table_is_the_same(whole: Life, tmp_path: Path, ends: list[date]):
    life, data = drifting_life(tmp_path)
    for end in ends:
        run_to(life, data, end)
        if end == MONDAY:
            by_a_person(life)
    mine, theirs = tables(life, life.commits()), tables(whole, whole.commits())
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if not mine[key].equals(theirs[key])] == []


def test_a_live_life_shows_a_call_on_its_session_only(tmp_path: Path):
    """Whoever answers calls reads each session's row; a row that repeats it would be answered again."""
    life, data = drifting_life(tmp_path, "live=true")
    run_to(life, data, LAST)
    calls = phase_table(life).filter(pl.col("retrain_because").is_not_null())
    assert calls["session"].to_list() == calls["drift_retrained"].to_list(), "a call was told on another session"
    assert calls.height >= 2
    assert calls["session"].dt.weekday().to_list() != [5] * calls.height
