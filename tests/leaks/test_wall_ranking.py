"""The one-bar lag: coefficients and their width by hand, leaks of every horizon found, chance left alone."""

import leakyfeatures as toys
import numpy as np
import polars as pl
import pytest
from leakyfeatures import change, random_walks, rows_of

from odin_core.evaluation.metrics import information_coefficient
from odin_core.leaks import lag_sensitivity, next_returns

BARS = random_walks(12)


def thinned(bars: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    return bars.filter(np.random.default_rng(seed).random(bars.height) < share)


@pytest.mark.parametrize(("horizon", "lag"), [(1, 0), (1, 1), (5, 0), (5, 1)])
def returns_by_hand(rows: pl.DataFrame, bars: pl.DataFrame, horizon: int, lag: int) -> list[float | None]:
    """Row by row: the first open after the decision, the last close known at the end."""
    expected = []
    for symbol, at in rows.iter_rows():
        decided = rows.filter(pl.col("symbol") == symbol)["known_at"].sort().to_list()
        own = bars.filter(pl.col("symbol") == symbol).sort("known_at")
        place = decided.index(at) + lag
        end = decided[place + horizon] if place + horizon < len(decided) else None
        between = own.filter(pl.col("known_at") > decided[place], pl.col("known_at") <= end) if end else own.clear()
        known = place < len(decided) and (own["known_at"] <= decided[place]).any()
        expected.append(np.log(between["close"][-1] / between["open"][0]) if known and between.height else None)
    return expected


@pytest.mark.parametrize(("horizon", "lag"), [(1, 0), (1, 1), (5, 0), (5, 1)])
def test_next_returns_are_those_of_a_loop_whatever_the_order_of_rows_and_the_gaps(horizon: int, lag: int):
    walks = random_walks(2, symbols=("A", "B"))
    bars = thinned(walks, 0.6, 1)
    rows = thinned(walks, 0.7, 2).select("symbol", "known_at").sample(fraction=1.0, shuffle=True, seed=3)
    got, expected = next_returns(rows, bars, horizon, lag).to_list(), returns_by_hand(rows, bars, horizon, lag)
    assert [x is None for x in got] == [x is None for x in expected]
    np.testing.assert_allclose([x for x in got if x is not None], [x for x in expected if x is not None], atol=1e-12)
    assert sum(x is not None for x in got) > 50


def test_the_bounce_between_bid_and_ask_is_no_leak():
    """Trades at either side of a mid that cannot be forecast: closes turn round by half of what they moved."""
    side = np.random.default_rng(3).choice([-1.0, 1.0], (2, BARS.height)) * 0.002
    traded = BARS.with_columns(pl.col("open") * np.exp(side[0]), pl.col("close") * np.exp(side[1]))
    honest = rows_of(change_1=change(1))(traded)
    closes = rows_of(next=-change(-1))(traded)["next"].fill_null(np.nan)
    assert information_coefficient(honest["change_1"].fill_null(np.nan), closes) < -0.3
    assert lag_sensitivity(honest, traded)[0].passed


def test_the_numbers_are_the_metrics_coefficients_now_and_one_row_later():
    bars = BARS.filter(pl.col("symbol").is_in(toys.SYMBOLS[:4]))  # too few to rank them against each other
    rows = rows_of(leak=toys.LEAKS["centred_mean"])(bars)
    (verdict,) = lag_sensitivity(rows, bars, horizons=(1,))
    assert verdict.numbers["by_time"] == 0
    for number, lag in (("ic", 0), ("ic_lagged", 1)):
        ahead = next_returns(rows, bars, 1, lag).fill_null(np.nan)
        by_hand = information_coefficient(rows["leak"].fill_null(np.nan), ahead)
        assert verdict.numbers[number] == pytest.approx(by_hand, abs=1e-12)


def test_symbols_are_ranked_against_each_other_at_each_time():
    """A leak of the next change, under noise that all symbols have in common: no use when rows are ranked together."""
    common = np.random.default_rng(1).normal(0, 0.05, BARS["ts"].n_unique())
    noise = BARS.select(pl.col("ts").rank("dense").cast(pl.Int64) - 1).to_series()
    drowned = rows_of(leak=-change(-1) + pl.col("noise"))(BARS.with_columns(noise=pl.Series(common[noise])))
    (verdict,) = lag_sensitivity(drowned, BARS)
    assert not verdict.passed
    assert (verdict.numbers["by_time"], verdict.numbers["horizon"]) == (1, 1)
    frame = drowned.with_columns(next_returns(drowned, BARS, 1).alias("next")).drop_nulls()
    each = [information_coefficient(f["leak"], f["next"]) for f in frame.partition_by("known_at")]
    assert verdict.numbers["ic"] == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize("symbols", [toys.SYMBOLS, ("ITC",)], ids=["six symbols", "one symbol"])
@pytest.mark.parametrize("name", toys.LEAKS)
def test_a_leak_is_found_and_one_of_the_next_bar_is_gone_one_bar_later(name: str, symbols: tuple[str, ...]):
    bars = random_walks(40, symbols=symbols, seed=4)
    (verdict,) = lag_sensitivity(rows_of(**{name: toys.LEAKS[name]})(bars), bars)
    assert not verdict.passed
    assert abs(verdict.numbers["ic"]) > 0.1
    assert "Too good to be known" in verdict.detail
    if name.startswith("next_change"):
        assert abs(verdict.numbers["ic_lagged"]) < 0.1 < 0.8 < abs(verdict.numbers["ic"])


def test_a_leak_under_the_alarm_is_found_by_what_is_lost_with_one_bar():
    bars = random_walks(60, symbols=tuple("ABCDEFGHIJ"))
    noise = pl.Series(np.random.default_rng(2).normal(0, 0.0014 * 11, bars.height))
    weak = rows_of(leak=-change(-1) + pl.col("noise"))(bars.with_columns(noise=noise))
    (verdict,) = lag_sensitivity(weak, bars)
    assert abs(verdict.numbers["ic"]) < 0.1
    assert not verdict.passed
    slow = rows_of(leak=-change(-1).rolling_sum(3).shift(-2) + pl.col("noise"))(bars.with_columns(noise=noise))
    assert lag_sensitivity(slow, bars, horizons=(1,))[0].passed  # as large, and it stays


def test_a_start_taken_for_the_end_is_too_good():
    assert not lag_sensitivity(toys.stamped_at_the_start(BARS), BARS)[0].passed


@pytest.mark.parametrize("seed", range(6))
def test_features_of_random_walks_raise_no_alarm_however_few_the_rows(seed: int):
    bars = random_walks(2 + 3 * (seed % 3), seed=seed)
    noise = {f"noise_{i}": pl.Series(np.random.default_rng([seed, i]).normal(size=bars.height)) for i in range(8)}
    momentum = {f"change_{n}": change(n) for n in (2, 3, 5, 8, 20)}
    honest = rows_of(**toys.HONEST, **momentum, **{name: pl.col(name) for name in noise})
    verdicts = lag_sensitivity(honest(bars.with_columns(**noise)), bars)
    assert len(verdicts) == 20
    assert [v for v in verdicts if not v.passed] == []


@pytest.mark.parametrize("horizon", [1, 12])
@pytest.mark.parametrize("feature", ["change_12", "high_so_far"])
def test_sigma_is_the_spread_of_the_coefficient_over_histories(feature: str, horizon: int):
    found = []
    for seed in range(50):
        bars = random_walks(6, seed=1000 + seed, symbols=("A", "B", "C"))
        found += lag_sensitivity(rows_of(x=toys.HONEST[feature])(bars), bars, horizons=(horizon,))
    ic, sigma = (np.array([v.numbers[number] for v in found]) for number in ("ic", "sigma"))
    assert np.std(ic / sigma) == pytest.approx(1.0, abs=0.25)
    assert np.mean(sigma) == pytest.approx(np.std(ic), rel=0.3)


def test_the_alarm_can_be_raised_for_a_market_with_a_planted_edge():
    noise = pl.Series(np.random.default_rng(2).normal(0, 0.0014 * 3, BARS.height))
    edge = rows_of(edge=-change(-1).rolling_sum(2).shift(-1) + pl.col("noise"))(BARS.with_columns(noise=noise))
    assert not lag_sensitivity(edge, BARS, horizons=(1,))[0].passed
    assert lag_sensitivity(edge, BARS, horizons=(1,), alarm=0.4)[0].passed


def test_what_cannot_be_ranked_passes_and_says_so():
    rows = rows_of(constant=pl.lit(1.0), unknown=pl.lit(None, pl.Float64), word=pl.lit("x"))(BARS)
    verdicts = lag_sensitivity(rows, BARS)
    assert [(v.subject, v.passed) for v in verdicts] == [("constant", True), ("unknown", True)]
    assert all("nothing to rank" in v.detail for v in verdicts)
    assert lag_sensitivity(rows.clear(), BARS)[0].passed
