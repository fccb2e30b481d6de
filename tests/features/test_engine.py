"""The engine over every feature of every set: the same bits however it is asked, from the bars that it may read alone.

Nothing here knows a feature by name unless it says so; a new one is tested by being in the catalogue."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from histories import (
    NUMBERS,
    PER_SESSION,
    age_before,
    assert_same_bits,
    by_warm_up,
    differing,
    long_history,
    of_bars,
    random_history,
    scrambled,
)
from polars.testing import assert_frame_equal

from odin_core.features import filling
from odin_core.features.catalogue import INTERVALS, Feature, all_features, named
from odin_core.features.filling import SESSIONS_MISSED, sessions_before

ROOT = Path(__file__).resolve().parents[2]
EVERY = of_bars()
OWN = [f for f in EVERY if f.definition.kind == "bars"]
SYMBOL_TIME = ("symbol", "known_at")
GRIDS = pytest.mark.parametrize("grid", INTERVALS)


def names(features: Iterable[Feature]) -> list[str]:
    return [f.name for f in features]


# The same bits


@GRIDS
def test_one_session_at_a_time_gives_the_same_bits_as_twenty_at_once(grid: str):
    history = long_history()
    whole = history.values(-20, -1, grid, EVERY)
    last = len(history.hours)
    each = [history.values(s, s, grid, EVERY) for s in range(last - 20, last)]
    assert_same_bits(pl.concat(each).sort(*SYMBOL_TIME), whole.sort(*SYMBOL_TIME))
    assert whole["session"].unique().sort().to_list() == list(range(last - 20, last))


@GRIDS
def test_a_longer_history_than_is_needed_changes_nothing(grid: str):
    history = long_history()
    assert_same_bits(history.values(-1, -1, grid, EVERY, before=1000), history.values(-1, -1, grid, EVERY))


@GRIDS
def test_what_follows_from_a_symbols_own_bars_is_the_same_in_whatever_company(grid: str):
    history, few = long_history(), pl.col("symbol").is_in(["AXIS", "SBIN"])
    alone = history.without(~few).values(-3, -1, grid, OWN)
    assert_same_bits(alone, history.values(-3, -1, grid, OWN).filter(few))
    assert_same_bits(alone, history.values(-3, -1, grid, EVERY).filter(few).select(alone.columns))


def test_the_order_of_rows_and_chunks_does_not_matter_and_bars_come_back_untouched():
    history = random_history(12)
    shuffled = history.edited(lambda bars: bars.sample(fraction=1, shuffle=True, seed=3))
    pieces = history.edited(lambda bars: pl.concat([bars[7::2], bars[:7], bars[8::2]], rechunk=False))
    for other in (shuffled, pieces):
        copies = {interval: bars.clone() for interval, bars in other.tables.items()}
        for grid in ("1m", "60m"):
            assert_same_bits(other.values(-2, -1, grid, EVERY), history.values(-2, -1, grid, EVERY))
        for interval, bars in other.tables.items():
            assert_frame_equal(bars, copies[interval], check_exact=True)


def test_the_number_of_threads_in_a_process_does_not_change_a_bit(monkeypatch: pytest.MonkeyPatch):
    history = long_history()
    whole = history.values(-2, -1, "1m", EVERY, threads=1)
    for rows in (1, 300):
        monkeypatch.setattr(filling, "CHUNK", rows)  # many pieces of work, where one would do
        for threads in (1, 2, 4):
            assert_same_bits(history.values(-2, -1, "1m", EVERY, threads=threads), whole)


THREADS = """
import sys
sys.path.insert(0, "tests/features")
from histories import of_bars, random_history
from odin_core.features import filling
from odin_core.lake import logical_hash
filling.CHUNK = 300
print(logical_hash(random_history(8).values(-2, -1, "1m", of_bars("1m", "5m", "day"))))
"""


def test_the_number_of_threads_of_the_libraries_does_not_change_a_bit():
    prints = []
    for threads in ("1", "4"):
        told = dict.fromkeys(("POLARS_MAX_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), threads)
        command = [sys.executable, "-c", THREADS]
        done = subprocess.run(command, env=os.environ | told, cwd=ROOT, capture_output=True, text=True, check=True)
        prints.append(done.stdout)
    assert prints[0] == prints[1] != ""


# Exactly the last N bars


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_session_follows_from_exactly_the_n_bars_before_it(interval: str):
    """Cut to N bars or with scrambled older ones the bits are the same; with other bars among the N they are not."""
    history = long_history()
    last = len(history.hours) - 1
    blind = set()
    for bars, features in by_warm_up(f for f in EVERY if f.interval == interval).items():
        value, age = history.values(-1, -1, interval, features), age_before(history, last)
        older, within = age > bars, (age >= 1) & (age <= bars)
        assert_same_bits(history.without(older).values(-1, -1, interval, features), value)
        with_others = history.edited(lambda b, rows=older: scrambled(b, rows))
        assert_same_bits(with_others.values(-1, -1, interval, features), value)
        seen = set()
        for seed in range(4 if bars else 0):  # a rank among four may chance to stay as it was
            changed = history.edited(lambda b, rows=within, seed=seed: scrambled(b, rows, seed))
            seen |= differing(value, changed.values(-1, -1, interval, features))
        blind |= set(names(features)) - seen if bars else set()
    assert not blind


@pytest.mark.parametrize("interval", INTERVALS)
def test_with_one_bar_less_than_n_a_sessions_first_row_is_unknown_and_its_second_known(interval: str):
    history = random_history(len(long_history().hours), symbols=("AXIS",))
    last = len(history.hours) - 1
    for bars, features in by_warm_up(f for f in OWN if f.interval == interval and f.bars).items():
        short = history.without(age_before(history, last) > bars - 1).values(-1, -1, interval, features)
        assert all(np.isnan(short[f.name][0]) for f in features)
        on_time = [f for f in features if len(short) > 1 and f.definition.name != "gap"]  # of the session's first bar
        assert not any(np.isnan(short[f.name][1]) for f in on_time)


def test_a_late_starter_is_unknown_until_its_own_warm_up_is_over_and_then_as_if_it_had_always_begun_there():
    history = long_history()
    begins = len(history.hours) - 12
    late = history.without((pl.col("symbol") == "ITC") & (pl.col("ts") < history.hours[begins].open))
    own = late.values(begins, -1, "5m", EVERY).filter(pl.col("symbol") == "ITC")
    for feature in (f for f in OWN if f.interval == "5m"):
        unknown = own[feature.name].is_nan().to_numpy()
        assert unknown[: feature.bars].all()
        assert not unknown[feature.bars + PER_SESSION["5m"] :].any()
    assert own["sma_gap_50_day"].is_nan().all()  # twelve day bars are not fifty


def test_how_far_a_feature_looks_back_is_said_in_whole_sessions_and_two_more():
    assert sessions_before(named("log_return_60_1m"), PER_SESSION) == 1 + SESSIONS_MISSED
    assert sessions_before(named("log_return_60_day"), PER_SESSION) == 60 + SESSIONS_MISSED
    assert sessions_before(named("session_elapsed_5m"), PER_SESSION) == 0
    assert sessions_before(named("return_rank_12_5m"), PER_SESSION) == 1 + SESSIONS_MISSED
    assert {f.definition.kind for f in all_features().values() if not f.interval} == {"facts"}


def test_numbers_of_bars_are_those_that_scrambling_changes():
    """The tests above rest on it: nothing of a scrambled bar stays as it was."""
    bars = random_history(2).tables["5m"]
    other = scrambled(bars, pl.lit(True))
    assert all((other[name] == bars[name]).sum() < 0.05 * bars.height for name in NUMBERS)
