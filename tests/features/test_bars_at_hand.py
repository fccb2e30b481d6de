"""Features of bars at hand: the textbook's series by name, of frames with and without volume."""

import numpy as np
import polars as pl
import pytest
from histories import (
    SYMBOLS,
    age_before,
    by_warm_up,
    long_history,
    of_bars,
    random_history,
)
from polars.testing import assert_frame_equal

from odin_core.features.catalogue import INTERVALS, Feature, UnknownFeature
from odin_core.features.engine import NotComputable, compute
from odin_core.market.bars import MissingBarColumns, RepeatedBars

EVERY = of_bars()
OWN = [f for f in EVERY if f.definition.kind == "bars"]
SYMBOL_TIME = ("symbol", "known_at")
GRIDS = pytest.mark.parametrize("grid", INTERVALS)


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


def test_bars_that_lack_a_price_or_say_one_twice_are_refused_in_a_sentence():
    bars = random_history(2).tables["5m"]
    with pytest.raises(MissingBarColumns, match=r"lack the columns close; they have .*Close"):
        compute(bars.rename({"close": "Close"}), ["rsi_14"])
    with pytest.raises(MissingBarColumns, match="lack the columns symbol"):
        compute(bars.drop("symbol"), ["rsi_14"])
    with pytest.raises(RepeatedBars, match=r"several bars of .* start at"):
        compute(pl.concat([bars, bars.tail(1)]), ["rsi_14"])


def test_one_name_may_be_given_as_it_is():
    bars = random_history(2).tables["5m"]
    assert compute(bars, "log_return_1").equals(compute(bars, ["log_return_1"]))
