"""The engine over every feature of every set: the same bits however it is asked, from the bars that it may read alone.

Nothing here knows a feature by name unless it says so; a new one is tested by being in the catalogue."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from histories import NUMBERS, PER_SESSION, SYMBOLS, History, long_history, of_bars, random_history, scrambled
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.features import filling
from odin_core.features.catalogue import INTERVALS, Feature, UnknownFeature, all_features, named
from odin_core.features.engine import NotComputable, compute
from odin_core.features.filling import SESSIONS_MISSED, sessions_before
from odin_core.lake import logical_hash

ROOT = Path(__file__).resolve().parents[2]
EVERY = of_bars()
OWN = [f for f in EVERY if f.definition.kind == "bars"]
SYMBOL_TIME = ("symbol", "known_at")
GRIDS = pytest.mark.parametrize("grid", INTERVALS)


def assert_same_bits(left: pl.DataFrame, right: pl.DataFrame) -> None:
    assert_frame_equal(left, right, check_exact=True)
    assert logical_hash(left) == logical_hash(right)


def names(features: Iterable[Feature]) -> list[str]:
    return [f.name for f in features]


def differing(left: pl.DataFrame, right: pl.DataFrame) -> set[str]:
    """Columns of two frames with equal keys that differ in any bit."""
    return {c for c in left.columns[3:] if left[c].to_numpy().tobytes() != right[c].to_numpy().tobytes()}


def by_warm_up(features: Iterable[Feature]) -> dict[int, list[Feature]]:
    groups = defaultdict(list)
    for feature in features:
        groups[feature.bars].append(feature)
    return groups


def age_before(history: History, session: int) -> pl.Expr:
    """How many bars of its symbol a bar lies before the session: 1 for the last one before it, 0 or less inside."""
    is_before = pl.col("ts") < history.hours[session].open
    return pl.when(is_before).then(pl.col("ts").rank("ordinal", descending=True).over("symbol", is_before)).otherwise(0)


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


# The rows of a grid


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


# Corporate actions

SPLIT = {"symbol": "ITC", "kind": "split", "ratio": 3.0}
IN_ITC = pl.col("symbol") == "ITC"


def before_split(history: History, session: int, ratio: float) -> History:
    """The raw bars of a share that is split into `ratio` at the open of a session: dearer and fewer before it."""
    rows = IN_ITC & (pl.col("ts") < history.hours[session].open)
    factors = {**dict.fromkeys(("open", "high", "low", "close"), ratio), "volume": 1 / ratio}
    return history.edited(
        lambda b: b.with_columns(pl.when(rows).then(pl.col(n) * f).otherwise(n).alias(n) for n, f in factors.items())
    )


def of_price(features: Iterable[Feature]) -> list[Feature]:
    return [f for f in features if "oi" not in f.definition.needs]


@GRIDS
def test_from_a_split_by_a_power_of_two_on_every_bit_is_as_without_it(grid: str):
    history = long_history()
    split = before_split(history, 106, 2.0).acted(SPLIT | {"session": 106, "ratio": 2.0})
    assert_same_bits(split.values(-4, -1, grid, EVERY), history.values(-4, -1, grid, EVERY))
    unknown = before_split(history, 106, 2.0).values(-2, -1, grid, EVERY)
    assert len(differing(unknown, history.values(-2, -1, grid, EVERY))) > 10


@given(ratio=st.floats(0.1, 20.0), session=st.integers(95, 109))
@settings(max_examples=8)
def test_a_split_leaves_no_trace_in_what_is_free_of_scale(ratio: float, session: int):
    history = long_history()
    split = before_split(history, session, ratio).acted(SPLIT | {"session": session, "ratio": ratio})
    found, expected = (h.values(-3, -1, "15m", of_price(OWN)) for h in (split, history))
    for name in found.columns[3:]:
        if not name.startswith("trend"):  # near zero where nothing moved: compared below in its own size
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_one_by_one_and_at_once_are_the_same_bits_across_ex_dates():
    history = long_history()
    mixed = before_split(history, 104, 3.0).acted(
        SPLIT | {"session": 104},
        {"symbol": "AXIS", "kind": "dividend", "amount": 3.0, "session": 106},
        {"symbol": "SBIN", "kind": "rename", "other": "STATEBANK", "session": 107},
        {"symbol": "CIPLA", "kind": "bonus", "ratio": 1.5, "session": 105, "known_at": history.hours[107].open},
    )
    renamed = mixed.edited(
        lambda b: b.with_columns(
            symbol=pl.when((pl.col("symbol") == "SBIN") & (pl.col("ts") >= history.hours[107].open))
            .then(pl.lit("STATEBANK"))
            .otherwise("symbol")
        )
    )
    for grid in ("5m", "day"):
        whole = renamed.values(-8, -1, grid, EVERY)
        each = [renamed.values(s, s, grid, EVERY) for s in range(102, 110)]
        assert_same_bits(pl.concat(each).sort(*SYMBOL_TIME), whole.sort(*SYMBOL_TIME))


def test_a_chain_of_names_is_one_series():
    history = long_history()
    at = pl.col("ts")
    new, newest = (history.hours[s].open for s in (103, 107))
    named_anew = history.edited(
        lambda b: b.with_columns(
            symbol=pl.when(IN_ITC & (at >= newest)).then(pl.lit("ITC LTD"))
            .when(IN_ITC & (at >= new)).then(pl.lit("ITCL")).otherwise("symbol")
        )
    ).acted(
        {"symbol": "ITC", "kind": "rename", "other": "ITCL", "session": 103},
        {"symbol": "ITCL", "kind": "rename", "other": "ITC LTD", "session": 107},
    )  # fmt: skip
    for grid in ("5m", "day"):
        own = [f for f in EVERY if f.interval == grid]
        found = named_anew.values(-1, -1, grid, own).filter(pl.col("symbol") == "ITC LTD")
        assert_same_bits(found.drop("symbol"), history.values(-1, -1, grid, own).filter(IN_ITC).drop("symbol"))


def test_what_becomes_known_within_a_session_is_seen_by_its_later_rows_alone():
    history = before_split(long_history(), 109, 2.0)
    learnt = history.hours[-1].open + timedelta(minutes=30)
    features = [f for f in EVERY if f.interval in ("1m", "5m")]
    told = history.acted(SPLIT | {"session": 109, "ratio": 2.0, "known_at": learnt}).values(-1, -1, "5m", features)
    before = pl.col("known_at") < learnt
    never, at_once = history.values(-1, -1, "5m", features), long_history().values(-1, -1, "5m", features)
    assert_same_bits(told.filter(before), never.filter(before))
    assert_same_bits(told.filter(~before), at_once.filter(~before))
    assert differing(never.filter(before), at_once.filter(before))


# Bars at hand


def test_bars_at_hand_give_the_series_that_a_session_begins_with_the_same_bars():
    """The textbook's series from N bars before the session on is the engine's, before it is rounded to float32."""
    history = long_history()
    last = len(history.hours) - 1
    for bars, features in by_warm_up(f for f in OWN if f.interval == "15m").items():
        cut = history.without(age_before(history, last) > bars)
        stems = [f.name.removesuffix("_15m") for f in features]
        series = compute(cut.tables["15m"], stems).filter(pl.col("ts") >= history.hours[last].open)
        expected = cut.values(-1, -1, "15m", features)
        calendars = {"vwap_gap", "gap", "session_return"}
        for stem, feature in zip(stems, features, strict=True):
            if stem not in calendars:
                found = series[stem].fill_null(np.nan).cast(pl.Float32)
                assert found.to_numpy().tobytes() == expected[feature.name].to_numpy().tobytes()


def test_bars_at_hand_need_no_volume_no_open_interest_and_no_order():
    bars = random_history(3).tables["5m"]
    wanted = [
        "rsi_14",
        "macd_12_26_9_signal",
        "macd_12_26_9",
        "mfi_14",
        "oi_change_1",
        "return_rank_1",
        "log_return_60",
    ]
    found = compute(bars.sample(fraction=1, shuffle=True, seed=1), wanted)
    assert found.columns == ["symbol", "ts", *wanted]
    assert_frame_equal(found.select("symbol", "ts"), bars.sort("symbol", "ts").select("symbol", "ts"))
    assert all(found.schema[name] == pl.Float64 for name in wanted)
    firsts = found.group_by("symbol", maintain_order=True).agg(pl.all().null_count())
    assert firsts["rsi_14"].to_list() == [14] * len(SYMBOLS)
    poor = compute(bars.drop("volume", "oi", "known_at"), wanted)
    assert_frame_equal(poor.drop("mfi_14", "oi_change_1"), found.drop("mfi_14", "oi_change_1"), check_exact=True)
    assert poor["mfi_14"].null_count() == poor["oi_change_1"].null_count() == poor.height
    nothing = compute(bars.clear(), wanted)
    assert nothing.schema == found.schema
    assert nothing.is_empty()


def test_every_feature_of_bars_computes_on_bars_at_hand_and_says_what_it_cannot():
    bars = random_history(8).tables["5m"]
    stems = sorted({Feature(f.definition, f.parameters, "").name for f in EVERY})
    found = compute(bars, stems)
    assert not any(found[name].is_null().all() for name in stems)
    with pytest.raises(NotComputable, match="names an interval, and these bars have their own; write 'rsi_14'"):
        compute(bars, ["rsi_14_5m"])
    with pytest.raises(NotComputable, match="follows from tables and not from bars"):
        compute(bars, ["earnings_yield"])
    with pytest.raises(UnknownFeature, match="rsi_14"):
        compute(bars, ["rsy_14"])


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
