"""Choices settled by themselves: as the whole grid's pass tells them, each alone, over nights and ex-dates."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from loopstates import TOMORROW
from polars.testing import assert_frame_equal
from test_entitlements import acted
from test_outcomes import NEXT, SEED, VENUE, decisions, halted, minute_bars, run

from odin_core.lifecycle.outcomes import NO_ACTIONS, Settled, carry_out, settle
from odin_core.lifecycle.state import POSITIONS
from odin_core.market.bars import BARS
from odin_core.policies.actions import ACTIONS
from odin_core.replay.record import REPLAY

WHO = {"version": pl.String()}
NOTHING_OPEN = pl.DataFrame(schema=WHO | POSITIONS)
FRESH = minute_bars(TOMORROW, volume=2e4)
STUCK = halted(FRESH, "B", 12)


def choices(*parts: dict[str, int], off: float = 0.0) -> pl.DataFrame:
    """Decisions as the planner writes them, a version for each of `parts`; stops and targets `off` what they were."""
    frames = [decisions(part).with_columns(version=pl.lit(f"v{i}")) for i, part in enumerate(parts)]
    moved = pl.col("stop_atr", "target_mult") + off
    return pl.concat(frames).select("version", pl.exclude("version")).with_columns(moved, volatility=pl.lit(0.001))


def settled(
    rows: pl.DataFrame,
    bars: pl.DataFrame = FRESH,
    before: pl.DataFrame = NOTHING_OPEN,
    actions: pl.DataFrame = NO_ACTIONS,
) -> Settled:
    day = bars["ts"].dt.date()[0] if bars.height else NEXT
    return settle(rows, before, bars, VENUE, SEED, day, actions)


grid = st.integers(0, ACTIONS - 1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.fixed_dictionaries({"A": grid, "B": grid, "C": grid}), min_size=1, max_size=4), st.booleans())
def test_each_choice_is_told_as_the_grids_own_pass_tells_it(parts: list[dict[str, int]], is_stuck: bool):
    bars = STUCK if is_stuck else FRESH
    found = settled(choices(*parts), bars)
    for i, part in enumerate(parts):
        alone = run(decisions(part), bars)
        mine = found.resolved.filter(version=f"v{i}").drop("version").sort("decision_id")
        assert_frame_equal(mine, alone.resolved.sort("decision_id"), check_exact=True)
        still = found.positions.filter(version=f"v{i}").drop("version")
        assert_frame_equal(still, alone.positions, check_exact=True)
        for symbol, at in part.items():
            told = mine.filter(symbol=symbol)["net_return"].to_list() or [None]
            expected = alone.net_return[list(part).index(symbol), at]
            assert np.array_equal(np.float32(np.nan if told[0] is None else told[0]), expected, equal_nan=True)


def test_an_action_that_lies_on_the_grid_is_not_read():
    rows = choices({"A": 5, "B": 70, "C": 127})
    blind = rows.with_columns(action=pl.lit(None, pl.Int16))
    assert_frame_equal(settled(blind).resolved.drop("action"), settled(rows).resolved.drop("action"), check_exact=True)


def test_a_wider_stop_and_a_farther_target_are_another_choice():
    rows = {"A": 64, "B": 64, "C": 64}
    near, far = settled(choices(rows)).resolved, settled(choices(rows, off=40.0)).resolved
    assert set(near["exit_reason"]) <= {"stop", "target"}
    assert set(far["exit_reason"]) == {"time"}
    assert not near["net_return"].equals(far["net_return"])


def test_what_is_held_off_the_grid_goes_on_at_the_next_open_and_says_whose_it_is():
    first = settled(choices({"B": 15}, {"B": 79}, off=30.25), STUCK)
    assert first.resolved.is_empty()
    assert first.positions["version"].to_list() == ["v0", "v1"]
    assert first.positions["side"].to_list() == ["long", "short"]
    tomorrow = minute_bars(NEXT)
    second = settled(choices({"B": 15}).clear(), tomorrow, first.positions)
    told = second.resolved.sort("version")
    assert told["exit_reason"].to_list() == ["carried"] * 2
    assert told["exit_ts"].to_list() == [tomorrow.filter(symbol="B")["ts"][0]] * 2
    long, short = told["gross_return"]
    moved = told["exit_price"] / told["entry_price"]
    assert np.sign(long) == np.sign(moved[0] - 1) == -np.sign(short)
    assert second.positions.is_empty()
    assert (second.resolved.schema, second.positions.schema) == (WHO | REPLAY, WHO | POSITIONS)


def test_a_split_overnight_changes_nothing_of_what_a_choice_earns():
    first = settled(choices({"B": 15}, off=30.0), STUCK).positions
    tomorrow, nothing = minute_bars(NEXT), choices({"B": 15}).clear()
    halved = tomorrow.with_columns(
        pl.when(pl.col("symbol") == "B").then(pl.col(c) / 2).otherwise(c).alias(c)
        for c in ("open", "high", "low", "close")
    ).with_columns(volume=pl.when(pl.col("symbol") == "B").then(pl.col("volume") * 2).otherwise("volume"))
    plain = settled(nothing, tomorrow, first).resolved
    split = settled(nothing, halved, first, acted("split", ratio=2.0)).resolved
    assert abs(plain["net_return"][0] - split["net_return"][0]) < 1e-6
    assert abs(plain["net_return"][0] - settled(nothing, halved, first).resolved["net_return"][0]) > 0.4


def test_without_bars_nothing_fills_and_what_is_held_waits():
    first = settled(choices({"B": 15}, off=30.0), STUCK).positions
    dark = settled(choices({"A": 5, "B": 70}), BARS.to_frame(), first)
    assert dark.resolved["exit_reason"].to_list() == ["unfilled"] * 2
    assert_frame_equal(dark.positions, first)
    nobody = settled(choices({"A": 5}).clear(), FRESH)
    assert nobody.resolved.is_empty()
    assert nobody.positions.is_empty()


def test_inputs_come_back_untouched():
    rows, before = choices({"A": 5, "B": 15}, off=0.25), settled(choices({"B": 15}, off=30.0), STUCK).positions
    kept = rows.clone(), before.clone()
    settled(rows, STUCK, before)
    carry_out(decisions({"A": 5}), before.drop("version"), np.array([0.001]), FRESH, VENUE, SEED, TOMORROW)
    assert rows.equals(kept[0])
    assert before.equals(kept[1])
