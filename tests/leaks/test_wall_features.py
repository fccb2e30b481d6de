"""The wall around the catalogue: every feature that follows from bars, and one leaky feature entered on purpose."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from leakyfeatures import FIVE_MINUTES, WEEK, linear, random_walks

from odin_core.features.catalogue import DEFINITIONS, Feature, all_features, feature
from odin_core.features.engine import compute
from odin_core.features.series import Bars, FloatArray, Runs
from odin_core.leaks import (
    Compute,
    Verdict,
    cheat_feature,
    cuts_of,
    future_perturbation,
    lag_sensitivity,
    sample_of,
    shuffled_labels,
    stamp_shift,
    truncate_and_recompute,
)

NAMES = list(
    dict.fromkeys(
        Feature(f.definition, f.parameters, "").name for f in all_features().values() if f.definition.kind != "facts"
    )
)


def of(names: Sequence[str]) -> Compute:
    def rows(bars: pl.DataFrame) -> pl.DataFrame:
        return compute(bars, names).join(bars.select("symbol", "ts", "known_at"), on=["symbol", "ts"]).drop("ts")

    return rows


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    walks = random_walks(10, symbols=tuple("ABCDE"))
    return walks.with_columns(oi=pl.Series(np.random.default_rng(1).uniform(1e3, 2e3, walks.height)))


@pytest.fixture(scope="module")
def recorded(market_file: Callable[[str], Path]) -> pl.DataFrame:
    """Five-minute bars of ten shares over two weeks of 2021."""
    minutes = pl.scan_parquet(market_file("nse_equity_1m_2021.parquet")).with_columns(oi=pl.lit(None, pl.Float64))
    some = minutes.filter(pl.col("ts").dt.date() < date(2021, 4, 17)).collect()
    shares = some["symbol"].unique().sort().head(10)
    larger = some.filter(pl.col("symbol").is_in(shares.implode())).sort("symbol", "ts")
    made = larger.group_by_dynamic("ts", every="5m", group_by="symbol").agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
        pl.col("oi").last(),
    )
    return made.with_columns(known_at=pl.col("ts") + FIVE_MINUTES)


def truncated(compute: Compute, bars: pl.DataFrame) -> list[Verdict]:
    return truncate_and_recompute(compute, bars, cuts_of(bars, 3))


def perturbed(compute: Compute, bars: pl.DataFrame) -> list[Verdict]:
    return future_perturbation(compute, bars, cuts_of(bars, 3), np.random.default_rng(1))


def shifted(compute: Compute, bars: pl.DataFrame) -> list[Verdict]:
    return stamp_shift(compute, bars, cuts_of(bars, 3), shift=WEEK, delay=FIVE_MINUTES)


def lagged(compute: Compute, bars: pl.DataFrame) -> list[Verdict]:
    return lag_sensitivity(compute(bars), bars)


def learned(check: Callable[..., Verdict]) -> Callable[[Compute, pl.DataFrame], list[Verdict]]:
    def run(compute: Compute, bars: pl.DataFrame) -> list[Verdict]:
        return [check(linear, sample_of(compute(bars), bars, 1), np.random.default_rng(2))]

    return run


SINGLE = {"truncated": truncated, "perturbed": perturbed, "shifted": shifted, "lagged": lagged}
TOGETHER = {"shuffled labels": learned(shuffled_labels), "cheat": learned(cheat_feature)}


@pytest.mark.parametrize("check", SINGLE.values(), ids=SINGLE)
def test_every_feature_of_the_catalogue_that_follows_from_bars_passes(check, bars: pl.DataFrame):
    verdicts = check(of(NAMES), bars)
    assert [v.subject for v in verdicts] == NAMES
    assert [v for v in verdicts if not v.passed] == []
    assert all(v.numbers.get("defined", 1) > 0 for v in verdicts)


@pytest.mark.parametrize("check", SINGLE.values(), ids=SINGLE)
def test_every_feature_passes_on_recorded_bars_that_turn_round_between_bid_and_ask(check, recorded: pl.DataFrame):
    assert recorded["symbol"].n_unique() == 10
    assert [v for v in check(of(NAMES), recorded) if not v.passed] == []


@pytest.fixture
def peeking() -> Iterator[str]:
    @feature(intervals=("5m",), unit="fraction", source="a leak, on purpose", warm_up=lambda bars: bars)
    def peeking(bars: Bars, runs: Runs, ahead: int = 1) -> FloatArray:
        """The change to the bar `ahead` bars later."""
        out = np.full(len(bars), np.nan)
        for first, end in zip(runs.first, runs.end, strict=True):
            out[first : end - ahead] = bars.log_close[first + ahead : end] - bars.log_close[first : end - ahead]
        return out

    yield "peeking_1"
    DEFINITIONS.pop("peeking")


@pytest.mark.parametrize("check", (SINGLE | TOGETHER).values(), ids=SINGLE | TOGETHER)
def test_a_leaky_feature_entered_into_the_catalogue_is_caught_by_every_check(check, bars: pl.DataFrame, peeking: str):
    verdicts = check(of(["rsi_14", peeking, "gap"]), bars)
    failed = [v.subject for v in verdicts if not v.passed]
    assert failed == [peeking] or failed == [f"rsi_14, {peeking}, gap"]


@pytest.mark.parametrize("check", TOGETHER.values(), ids=TOGETHER)
def test_the_learner_finds_nothing_in_honest_features_of_random_walks(check, bars: pl.DataFrame):
    (verdict,) = check(of(["rsi_14", "gap", "log_return_1", "log_return_12", "upper_wick", "volume_z_1_20"]), bars)
    assert verdict.passed
