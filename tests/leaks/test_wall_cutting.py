"""The checks that change the future or the stamps: what each finds, what it leaves alone, and what it says."""

from datetime import datetime, timedelta

import leakyfeatures as toys
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leakyfeatures import FIVE_MINUTES, WEEK, change, random_walks, rows_of
from polars.testing import assert_frame_equal

from odin_core.leaks import (
    Compute,
    CutOutside,
    Verdict,
    cuts_of,
    future_perturbation,
    scrambled,
    stamp_shift,
    truncate_and_recompute,
)
from odin_core.market.history import NaiveMoment

BARS = random_walks(4, symbols=("ITC", "SBIN", "TCS"))
CUTS = cuts_of(BARS, 3)


def truncated(compute: Compute, bars: pl.DataFrame = BARS, cuts: list[datetime] = CUTS) -> list[Verdict]:
    return truncate_and_recompute(compute, bars, cuts)


def perturbed(compute: Compute, bars: pl.DataFrame = BARS, cuts: list[datetime] = CUTS) -> list[Verdict]:
    return future_perturbation(compute, bars, cuts, np.random.default_rng(5))


def shifted(compute: Compute, bars: pl.DataFrame = BARS, cuts: list[datetime] = CUTS) -> list[Verdict]:
    return stamp_shift(compute, bars, cuts, shift=WEEK, delay=FIVE_MINUTES)


CHECKS = pytest.mark.parametrize("check", [truncated, perturbed, shifted])


@CHECKS
def test_values_of_the_past_alone_pass_and_each_of_them_has_a_verdict(check):
    verdicts = check(rows_of(**toys.HONEST))
    assert [v.subject for v in verdicts] == list(toys.HONEST)
    assert all(v.passed for v in verdicts)
    assert all(v.numbers["rows"] >= v.numbers["defined"] > 100 for v in verdicts)


@CHECKS
def test_only_the_column_that_leaks_fails(check):
    verdicts = check(rows_of(**toys.HONEST, leak=change(-1)))
    assert [v.subject for v in verdicts if not v.passed] == ["leak"]


@CHECKS
@given(ahead=st.integers(-6, 6))
@settings(max_examples=10)
def test_a_value_read_from_a_neighbouring_bar_passes_unless_that_bar_lies_ahead(check, ahead: int):
    (verdict,) = check(rows_of(volume=pl.col("volume").shift(-ahead)))
    assert verdict.passed == (ahead <= 0)
    differing = sum(n for name, n in verdict.numbers.items() if name.startswith("differing"))
    histories = 2 if check is shifted else 1
    assert differing == max(ahead, 0) * BARS["symbol"].n_unique() * len(CUTS) * histories


@CHECKS
def test_a_leak_too_weak_to_forecast_anything_is_found(check):
    assert [v.passed for v in check(toys.standardised_over_everything)] == [False]


def test_what_only_another_future_shows_is_found_by_scrambling_and_what_only_its_absence_shows_by_removing():
    assert truncated(toys.warned_of_crashes)[0].passed
    assert not perturbed(toys.warned_of_crashes)[0].passed
    assert perturbed(toys.only_before_a_next_bar)[0].passed
    assert not truncated(toys.only_before_a_next_bar)[0].passed


def test_a_start_taken_for_the_end_is_found_by_every_check():
    assert not any(check(toys.stamped_at_the_start)[0].passed for check in (truncated, perturbed, shifted))


def test_a_fixed_length_added_to_the_start_is_found_by_the_delayed_stamps_alone():
    assert truncated(toys.known_after_five_minutes)[0].passed
    assert perturbed(toys.known_after_five_minutes)[0].passed
    (verdict,) = shifted(toys.known_after_five_minutes)
    assert not verdict.passed
    assert verdict.numbers["differing_shifted"] == 0 < verdict.numbers["differing_delayed"]


def test_a_date_in_the_formula_is_found_by_the_shifted_stamps_alone():
    bars = random_walks(7, symbols=("ITC", "TCS"))
    cuts = cuts_of(bars, 2)
    assert truncated(toys.by_the_clock, bars, cuts)[0].passed
    (verdict,) = shifted(toys.by_the_clock, bars, cuts)
    assert not verdict.passed
    assert verdict.numbers["differing_shifted"] > 0 == verdict.numbers["differing_delayed"]


def test_a_verdict_names_the_first_row_that_differs_and_its_two_values():
    (verdict,) = truncated(rows_of(next_close=pl.col("close").shift(-1)), cuts=CUTS[:1])
    first = BARS.filter(pl.col("symbol") == "ITC", pl.col("known_at") <= CUTS[0])[-1, "known_at"]
    assert f"3 of {verdict.numbers['rows']:.0f} known values differ" in verdict.detail
    assert f"the first is ITC, {first}" in verdict.detail
    assert "became None" in verdict.detail


def test_equal_is_bit_for_bit_nan_is_nan_and_null_is_not_nan():
    def flips(before: float | None, after: float | None) -> Compute:
        def compute(bars: pl.DataFrame) -> pl.DataFrame:
            value = before if bars.height == BARS.height else after
            return bars.select("symbol", "known_at", value=pl.lit(value, pl.Float64))

        return compute

    assert truncated(flips(float("nan"), float("nan")))[0].passed
    assert truncated(flips(None, None))[0].passed
    assert not truncated(flips(float("nan"), None))[0].passed
    assert not truncated(flips(1.0, 1.0 + 2**-52))[0].passed


def test_a_row_that_is_there_on_one_side_only_differs_even_where_its_value_is_unknown():
    def compute(bars: pl.DataFrame) -> pl.DataFrame:
        return toys.only_before_a_next_bar(bars).with_columns(change_1=pl.lit(None, pl.Float64))

    (verdict,) = truncated(compute)
    assert (verdict.passed, verdict.numbers["defined"]) == (False, 0)
    assert verdict.numbers["differing"] == 3 * len(CUTS)


@CHECKS
def test_a_check_that_compared_no_row_fails(check):
    (verdict,) = check(lambda bars: bars.select("symbol", "known_at", "close").filter(pl.col("close") < 0))
    assert not verdict.passed
    assert "nothing was shown" in verdict.detail


def test_words_and_flags_are_values_too():
    ahead = rows_of(flag=change(-1) > 0, word=pl.when(change(-1) > 0).then(pl.lit("up")).otherwise(pl.lit("down")))
    assert [v.passed for v in perturbed(ahead)] == [False, False]


def labels(bars: pl.DataFrame, *, peek: int = 0) -> pl.DataFrame:
    """Returns over one and three bars, known with the bar that ends them; with `peek`, of that many bars later."""
    by_symbol = bars.sort("symbol", "ts")
    frames = []
    for bars_ahead in (1, 3):
        label = by_symbol.select(
            "symbol",
            pl.col("known_at").alias("decided_at"),
            known_at=pl.col("known_at").shift(-bars_ahead).over("symbol"),
            horizon=pl.lit(bars_ahead),
            value=change(-bars_ahead - peek).over("symbol"),
        )
        frames.append(label.drop_nulls("known_at"))
    return pl.concat(frames)


@pytest.mark.parametrize("peek", [0, 1])
def test_labels_are_compared_by_when_they_became_known(peek: int):
    keys = ("symbol", "known_at", "decided_at", "horizon")

    def compute(bars: pl.DataFrame) -> pl.DataFrame:
        return labels(bars, peek=peek)

    verdicts = [
        *truncate_and_recompute(compute, BARS, CUTS, keys=keys),
        *future_perturbation(compute, BARS, CUTS, np.random.default_rng(5), keys=keys),
        *stamp_shift(compute, BARS, CUTS, shift=WEEK, delay=FIVE_MINUTES, keys=keys),
    ]
    assert [(v.subject, v.passed) for v in verdicts] == [("value", peek == 0)] * 3


def test_rows_that_their_key_does_not_tell_apart_are_refused():
    with pytest.raises(ValueError, match="not told apart by symbol, known_at"):
        truncate_and_recompute(labels, BARS, CUTS)


def test_a_cut_that_separates_nothing_is_refused():
    last = BARS["known_at"].max()
    assert isinstance(last, datetime)
    first = BARS["known_at"].min()
    assert isinstance(first, datetime)
    honest = rows_of(**toys.HONEST)
    for cut in (last, first - timedelta(minutes=1)):
        with pytest.raises(CutOutside, match="choose one from the first instant"):
            truncated(honest, cuts=[cut])
    with pytest.raises(NaiveMoment):
        truncated(honest, cuts=[CUTS[0].replace(tzinfo=None)])
    with pytest.raises(ValueError, match="nothing can be compared"):
        truncated(honest, cuts=[])


@given(st.integers(2, 40), st.integers(1, 12))
def test_cuts_leave_bars_on_both_sides(instants: int, count: int):
    bars = BARS.filter(pl.col("known_at").rank("dense") <= instants)
    cuts = cuts_of(bars, count)
    assert 1 <= len(cuts) <= count
    assert cuts == sorted(set(cuts))
    assert all(0 < bars.filter(pl.col("known_at") <= cut).height < bars.height for cut in cuts)


def test_bars_that_became_known_at_once_cannot_be_cut():
    assert cuts_of(BARS.head(1), 3) == cuts_of(BARS.clear(), 3) == []


def test_scrambled_bars_are_other_bars_of_the_same_kind():
    rows = pl.col("known_at") > CUTS[1]
    thin = BARS.with_columns(volume=pl.when(pl.col("ts").dt.minute() == 50).then(None).otherwise("volume"))
    other = scrambled(thin, rows, np.random.default_rng(1))
    assert other.schema == thin.schema
    assert_frame_equal(other.filter(~rows), thin.filter(~rows), check_exact=True)
    changed, was = other.filter(rows), thin.filter(rows)
    for name in ("open", "high", "low", "close"):
        assert (changed[name] != was[name]).all()
    shape = changed["close"] / changed["open"]
    assert (shape != was["close"] / was["open"]).all()
    assert shape.n_unique() > 0.9 * changed.height  # what is the same for every bar cannot show a leak
    assert (changed["high"] >= changed.select(pl.max_horizontal("open", "close")).to_series()).all()
    assert (changed["low"] <= changed.select(pl.min_horizontal("open", "close")).to_series()).all()
    assert (changed["volume"].is_null() == was["volume"].is_null()).all()
    assert (changed["volume"].drop_nulls() != was["volume"].drop_nulls()).all()
    assert changed["oi"].null_count() == changed.height


@CHECKS
def test_bars_are_left_as_they_were(check):
    before = BARS.clone()
    check(rows_of(**toys.HONEST))
    assert_frame_equal(BARS, before, check_exact=True)
