"""Starts: contexts of decision records to rows of a tape, nothing later than the decision; the curriculum's weights."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.rl.callbacks import Ended
from odin_core.rl.starts import Curriculum, NoStarts, Starts, rows_before_session, rows_known
from odin_core.rl.tape import FIRST_SESSION, Tape, planted

SESSIONS, BARS = 6, 20
TAPE = planted(1, symbols=2, sessions=SESSIONS, bars=BARS, state=5, heatmap=1)


def known_at(tape: Tape) -> np.ndarray:
    """Five-minute bars from 09:15 UTC on."""
    days = (tape.session - date(1970, 1, 1).toordinal()).astype("datetime64[D]").astype("datetime64[us]")
    inside = np.arange(tape.rows) - tape.session_start
    return days + np.timedelta64(9 * 60 + 15, "m") + (inside + 1) * np.timedelta64(5, "m")


KNOWN = known_at(TAPE)


def records(rows: list[tuple[str, date, datetime, str | None, str]]) -> pl.DataFrame:
    schema = {"symbol": pl.String(), "session": pl.Date(), "decided_at": pl.Datetime("us", "UTC"),
              "vol_regime": pl.String(), "status": pl.String()}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def day(n: int) -> date:
    return FIRST_SESSION + timedelta(days=n)


def at(n: int, hour: int, minute: int = 0) -> datetime:
    return datetime(*day(n).timetuple()[:3], hour, minute, tzinfo=UTC)


@given(
    st.lists(
        st.tuples(st.sampled_from(["PLANTED1", "PLANTED2", "OTHER"]), st.integers(0, (SESSIONS + 3) * 1440)),
        min_size=1,
        max_size=30,
    )
)
def test_a_row_is_the_last_that_was_known_as_a_search_through_all_rows_finds_it(asked: list[tuple[str, int]]):
    first = np.datetime64(FIRST_SESSION, "us")
    instants = np.array([first + np.timedelta64(minutes, "m") for _, minutes in asked])
    found = rows_known(TAPE, KNOWN, [name for name, _ in asked], instants)
    for (name, _), instant, row in zip(asked, instants, found, strict=True):
        mine = np.array([TAPE.symbols[i] == name for i in TAPE.symbol])
        known = np.flatnonzero(mine & (instant >= KNOWN) & (instant - KNOWN < np.timedelta64(1, "D")))
        assert row == (known[-1] if known.size else -1)


def test_a_daily_decision_begins_at_the_close_before_its_session():
    sessions = np.array([day(0), day(1), day(3), day(SESSIONS + 5), day(SESSIONS + 30)], "datetime64[D]")
    found = rows_before_session(TAPE, ["PLANTED2"] * 5, sessions)
    first = TAPE.starts[1]
    assert found.tolist() == [-1, first + BARS - 1, first + 3 * BARS - 1, first + SESSIONS * BARS - 1, -1]
    assert (TAPE.session_end[found[1:3]] == found[1:3]).all()


def test_contexts_taken_skipped_and_rejected_begin_episodes_once_each():
    replay = records([
        ("PLANTED1", day(2), at(1, 10, 40), "low", "taken"),
        ("PLANTED1", day(2), at(1, 10, 40), "low", "skipped"),  # a second decision of the same context
        ("PLANTED2", day(3), at(2, 10, 40), "high", "skipped"),
        ("PLANTED2", day(4), at(3, 10, 40), None, "rejected"),
        ("ELSEWHERE", day(2), at(1, 10, 40), "low", "taken"),
        ("PLANTED1", day(0), at(-1, 10, 40), "low", "taken"),  # before the tape
        ("PLANTED1", day(SESSIONS), at(SESSIONS - 1, 23), "low", "taken"),  # the tape's last row: nothing follows
    ])  # fmt: skip
    exact = Starts.of_replay(TAPE, replay, KNOWN)
    first = TAPE.starts[1]
    # 10:40 is the end of bar 17 of the day, row 16
    assert exact.rows.tolist() == [BARS + 16, first + 2 * BARS + 16, first + 3 * BARS + 16]
    assert exact.regime == ("low", "high", None)
    assert exact.taken.tolist() == [True, False, False]
    daily = Starts.of_replay(TAPE, replay)
    assert daily.rows.tolist() == [2 * BARS - 1, first + 3 * BARS - 1, first + 4 * BARS - 1]


def test_rows_in_which_nothing_may_be_entered_begin_no_episode():
    with pytest.raises(NoStarts, match="none of the 1 contexts lies on the tape of PLANTED1, PLANTED2"):
        Starts.of_replay(TAPE, records([("PLANTED1", day(0), at(0, 9, 30), "low", "taken")]), KNOWN)


STARTS = Starts(np.arange(10), ("low",) * 8 + ("high", None), np.ones(10, bool))


class Environments:
    def set_starts(self, rows: np.ndarray, weights: np.ndarray) -> None:
        self.rows, self.weights = rows, weights


def test_the_curriculum_goes_from_how_often_to_how_hard():
    environments = Environments()
    curriculum = Curriculum(environments, STARTS, hardness=1.0, reward_scale=100.0)
    curriculum.before_rollout(0.0)
    np.testing.assert_allclose(environments.weights[:9], 1 / 9)
    assert environments.weights[9] == 0
    curriculum.after_rollout([Ended(0.5, 10, None, 0), Ended(-0.1, 10, None, 8), Ended(9.0, 10, None, None)])
    curriculum.before_rollout(1.0)
    assert environments.weights[8] > 0.9 * environments.weights[:9].sum() > 0
    assert environments.weights.sum() == pytest.approx(1)


def test_the_curriculums_state_goes_through_a_checkpoint():
    one, other = (Curriculum(Environments(), STARTS, hardness=1.0) for _ in range(2))
    one.after_rollout([Ended(0.5, 10, None, 0), Ended(-0.1, 10, None, 8)])
    one.after_rollout([Ended(0.1, 10, None, 0)])
    other.set_state(one.state())
    np.testing.assert_array_equal(one.reward, other.reward)
    assert one.reward[0] == pytest.approx(0.9 * 0.05 + 0.1 * 0.01)


def test_without_any_regime_all_contexts_are_equal():
    blank = Starts(np.arange(4), (None,) * 4, np.ones(4, bool))
    np.testing.assert_allclose(blank.weights({}, 1.0, 1.0), 0.25)
