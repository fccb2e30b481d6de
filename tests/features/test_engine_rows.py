"""The engine's rows: which there are, what was known at each, and what missing and late bars do to them."""

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from histories import (
    PER_SESSION,
    History,
    assert_same_bits,
    differing,
    long_history,
    of_bars,
    random_history,
    scrambled,
)
from polars.testing import assert_frame_equal

from odin_core.features.catalogue import INTERVALS, Feature
from odin_core.features.filling import SESSIONS_MISSED

EVERY = of_bars()
OWN = [f for f in EVERY if f.definition.kind == "bars"]
SYMBOL_TIME = ("symbol", "known_at")
GRIDS = pytest.mark.parametrize("grid", INTERVALS)


def names(features: Iterable[Feature]) -> list[str]:
    return [f.name for f in features]


@GRIDS
def test_there_is_one_row_for_each_bar_of_the_grid_at_its_end(grid: str):
    history = long_history()
    rows = history.values(-2, -1, grid, EVERY[:3])
    expected = history.between(108, 109)[grid].select(*SYMBOL_TIME)
    assert_frame_equal(rows.select(*SYMBOL_TIME), expected)
    assert rows["session"].to_list() == [108 + (at > history.hours[-2].close) for at in expected["known_at"]]
    assert rows.schema["session"] == pl.Int64
    assert all(rows.schema[f.name] == pl.Float32 for f in EVERY[:3])


@GRIDS
def test_a_feature_of_another_interval_has_the_value_of_its_last_known_bar_of_this_session_or_the_one_before(grid: str):
    """By the plain way: the feature on its own grid, and the latest row of it that was known."""
    history = long_history().without((pl.col("symbol") == "SBIN") & long_history().in_sessions(104, 106, 107))
    found = history.values(-6, -1, grid, EVERY)
    for interval in INTERVALS:
        features = [f for f in EVERY if f.interval == interval]
        own = history.values(-8, -1, interval, features).rename({"session": "of_session"}).sort("known_at")
        keys = found.select("symbol", "known_at", "session").with_row_index().sort("known_at")
        shown = keys.join_asof(own, on="known_at", by="symbol", check_sortedness=False).sort("index")
        known = (pl.col("of_session") >= pl.col("session") - 1).fill_null(value=False)
        expected = shown.select(
            pl.when(known).then(pl.col(n)).otherwise(np.nan).cast(pl.Float32).alias(n) for n in names(features)
        )
        assert_same_bits(found.select(names(features)), expected)
    assert found.filter(pl.col("symbol") == "SBIN", pl.col("session") == 108)["sma_gap_20_day"][0] is not None


@GRIDS
@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
@pytest.mark.parametrize("future", ["scrambled", "removed"])
def test_no_row_sees_a_bar_that_became_known_after_it(grid: str, share: float, future: str):
    history = long_history()
    session = history.hours[-2]
    cut = session.open + share * (session.close - session.open)
    ahead = pl.col("known_at") > cut
    other = history.edited(lambda b: scrambled(b, ahead) if future == "scrambled" else b.filter(~ahead))
    whole, changed = history.values(-3, -1, grid, EVERY), other.values(-3, -1, grid, EVERY)
    assert_same_bits(whole.filter(~ahead), changed.filter(~ahead))
    assert not whole.filter(~ahead).is_empty()
    if future == "scrambled":
        assert len(differing(whole.filter(ahead), changed.filter(ahead))) > len(EVERY) / 2


def test_two_missed_sessions_are_made_up_by_older_ones_and_three_are_not():
    history = long_history()
    days = [f for f in OWN if f.interval == "day" and f.bars]
    last = len(history.hours) - 1

    def known(*missed: int) -> np.ndarray:
        places = (last - m for m in missed)
        halted = history.without((pl.col("symbol") == "CIPLA") & history.in_sessions(*places))
        row = halted.values(-1, -1, "day", days).filter(pl.col("symbol") == "CIPLA")
        return ~np.isnan(row.select(names(days)).to_numpy()[0])

    assert SESSIONS_MISSED == 2
    assert known(1).all()
    assert known(1, 2).all()
    assert not known(1, 2, 3).any()


def test_a_symbol_without_a_bar_in_the_session_has_no_row_and_others_are_as_they_were():
    history = long_history()
    halted = history.without((pl.col("symbol") == "ITC") & history.in_sessions(109))
    rows = halted.values(-1, -1, "5m", OWN)
    assert_same_bits(rows, history.values(-1, -1, "5m", OWN).filter(pl.col("symbol") != "ITC"))


@GRIDS
def test_a_session_without_bars_has_no_row_and_the_next_one_goes_on(grid: str):
    history = long_history().without(long_history().in_sessions(107))
    rows = history.values(-4, -1, grid, EVERY)
    assert rows["session"].unique().sort().to_list() == [106, 108, 109]
    assert_same_bits(rows.filter(pl.col("session") == 109), history.values(-1, -1, grid, EVERY))
    assert not any(rows.filter(pl.col("session") > 107)[f.name].is_nan().all() for f in OWN if f.interval == grid)
    nothing = history.without(history.in_sessions(109)).values(-1, -1, grid, EVERY)
    assert nothing.is_empty()
    assert nothing.schema == rows.schema
    assert history.without(pl.lit(True)).values(-1, -1, grid, EVERY).schema == rows.schema


@GRIDS
def test_where_an_interval_has_no_bars_its_features_are_unknown_and_its_grid_has_no_row(grid: str):
    history = long_history()
    without = history.edited(lambda bars: bars.clear(), "15m").values(-1, -1, grid, EVERY)
    if grid == "15m":
        assert without.is_empty()
        return
    lacking = [f.name for f in EVERY if f.interval == "15m"]
    assert without.select(pl.col(lacking).is_nan().all()).row(0) == (True,) * len(lacking)
    assert_same_bits(without.drop(lacking), history.values(-1, -1, grid, EVERY).drop(lacking))


def test_a_halt_is_bars_that_are_missing_and_shifts_nothing_behind_it():
    history = random_history(30, missing=0.0)
    opened = history.hours[-1].open
    halt = pl.col("ts").is_between(opened + timedelta(minutes=20), opened + timedelta(minutes=40), closed="left")
    rows = history.without(halt & (pl.col("symbol") == "AXIS")).values(-1, -1, "5m", of_bars("5m"))
    halted = rows.filter(pl.col("symbol") == "AXIS")
    assert halted.height == PER_SESSION["5m"] - 4
    before = pl.col("known_at") <= opened + timedelta(minutes=20)
    as_ever = history.values(-1, -1, "5m", OWN).filter(pl.col("symbol") == "AXIS", before)
    own = names(f for f in OWN if f.interval == "5m")
    assert_same_bits(halted.filter(before).select(own), as_ever.select(own))


@pytest.mark.parametrize("column", ["volume", "oi"])
def test_where_a_symbol_lacks_volume_or_open_interest_what_needs_it_is_unknown_and_nothing_else(column: str):
    history, itc = long_history(), pl.col("symbol") == "ITC"
    lacking = history.edited(lambda b: b.with_columns(pl.when(~itc).then(pl.col(column)).alias(column)))
    rows = lacking.values(-1, -1, "5m", OWN)
    needing = [f for f in OWN if column in f.definition.needs]
    assert needing
    assert rows.filter(itc).select(names(needing)).to_numpy().size > 0
    assert np.isnan(rows.filter(itc).select(names(needing)).to_numpy()).all()
    whole = history.values(-1, -1, "5m", OWN)
    others = [f.name for f in OWN if column not in f.definition.needs]
    assert_same_bits(rows.select(others), whole.select(others))
    assert_same_bits(rows.filter(~itc), whole.filter(~itc))


# Bars that are known late


def delayed(history: History, rows: pl.Expr, by: timedelta) -> History:
    return history.edited(
        lambda b: b.with_columns(known_at=pl.when(rows).then(pl.col("known_at") + by).otherwise("known_at"))
    )


@GRIDS
def test_a_bar_known_after_the_close_has_no_row_and_counts_from_the_next_session_on(grid: str):
    history, itc = long_history(), pl.col("symbol") == "ITC"
    last_ones = itc & (pl.col("known_at") == long_history().hours[-2].close)
    late = delayed(history, last_ones, timedelta(hours=2))
    rows = late.values(-2, -1, grid, OWN)
    assert_same_bits(rows.filter(pl.col("session") == 108), history.without(last_ones).values(-2, -2, grid, OWN))
    assert_same_bits(rows.filter(pl.col("session") == 109), late.values(-1, -1, grid, OWN))
    own = [f.name for f in OWN if f.interval == grid]
    assert_same_bits(rows.filter(pl.col("session") == 109).select(own), history.values(-1, -1, grid, OWN).select(own))


def test_a_bar_known_within_the_next_session_counts_from_that_instant_on():
    history = long_history()
    last_one = (pl.col("symbol") == "ITC") & (pl.col("known_at") == history.hours[-2].close)
    learnt = history.hours[-1].open + timedelta(minutes=30)
    late = delayed(history, last_one, learnt - history.hours[-2].close)
    features = of_bars("5m")
    rows = late.values(-1, -1, "5m", features)
    never, at_once = (h.values(-1, -1, "5m", features) for h in (history.without(last_one), history))
    before, itc = pl.col("known_at") < learnt, pl.col("symbol") == "ITC"
    assert differing(never.filter(itc), at_once.filter(itc))
    assert_same_bits(rows.filter(before), never.filter(before))
    assert_same_bits(rows.filter(~before), at_once.filter(~before))


def test_a_bar_known_after_a_later_one_of_its_session_has_no_row_and_counts_in_no_cross_section():
    history, features = random_history(12), of_bars("1m", "5m", "60m")
    start = history.hours[-1].open + timedelta(minutes=30)
    held_up = (pl.col("symbol") == "ITC") & (pl.col("ts") == start)
    late = delayed(history, held_up, timedelta(minutes=5))
    assert late.tables["5m"].filter(held_up).height == 1
    rows = late.values(-1, -1, "5m", features)
    assert_same_bits(rows, late.without(held_up).values(-1, -1, "5m", features))
    assert rows.select(SYMBOL_TIME).is_duplicated().sum() == 0
