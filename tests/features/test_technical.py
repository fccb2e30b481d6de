"""The contract that every function of the technical set keeps, whichever there are, and examples worked by hand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from runcases import assert_follows_from_its_run_alone, bars_and_runs, bars_of, runs_of, sessions_of_bars

from odin_core.features.catalogue import DEFINITIONS, Feature, features_of, named
from odin_core.features.series import Bars, FloatArray, Runs, whole_series

ORDINARY = sessions_of_bars([90, 40, 120, 7, 1, 75, 100])
SETS = list({f.definition.name + str(f.parameters): replace(f, interval="") for f in features_of("technical")}.values())
BY_NAME = [
    Feature(d, variant, "")
    for d in DEFINITIONS.values()
    if d.set == "technical" and not d.intervals
    for variant in d.variants
]
DECISIONS = ["volume_z_18_75", "volume_z_2_60", "volume_z_1_10"]  # with other parameters than those of the set
FEATURES = {f.name: f for f in [*SETS, *BY_NAME, *map(named, DECISIONS)]}
SCALE_FREE = [*(f.name for f in SETS), *DECISIONS]


def values_of(feature: Feature, bars: Bars, runs: Runs) -> FloatArray:
    return feature.definition.formula(bars, runs, *feature.parameters)


def whole(name: str, bars: Bars) -> FloatArray:
    return values_of(FEATURES[name], bars, whole_series(bars))


def after_warm_up(feature: Feature, bars: Bars) -> tuple[FloatArray, np.ndarray]:
    """The values by session, and the rows of the sessions that have the whole warm-up before them."""
    runs = runs_of(bars, feature.bars)
    return values_of(feature, bars, runs), np.repeat(runs.first >= feature.bars, runs.end - runs.first)


def says(name: str) -> str:
    return " ".join(FEATURES[name].definition.says.split())


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_finite_wherever_its_warm_up_lies_before_and_leaves_its_input_alone(name: str):
    before = {field: getattr(ORDINARY, field).copy() for field in ("open", "high", "low", "close", "volume")}
    values, ready = after_warm_up(FEATURES[name], ORDINARY)
    assert values.shape == (len(ORDINARY),)
    assert values.dtype == np.float64
    assert ready.sum() > 100
    assert np.isfinite(values[ready]).all()
    for field, copy in before.items():
        np.testing.assert_array_equal(getattr(ORDINARY, field), copy)


@pytest.mark.parametrize("name", FEATURES)
def test_a_session_follows_from_its_warm_up_and_its_own_past_alone_to_the_bit(name: str):
    feature = FEATURES[name]
    runs = runs_of(ORDINARY, feature.bars)
    assert_follows_from_its_run_alone(lambda bars, runs: values_of(feature, bars, runs), ORDINARY, runs)


@pytest.mark.parametrize("name", FEATURES)
@settings(max_examples=8)
@given(case=bars_and_runs())
def test_any_run_follows_from_its_own_rows_alone_to_the_bit(name: str, case):
    assert_follows_from_its_run_alone(lambda bars, runs: values_of(FEATURES[name], bars, runs), *case)


@pytest.mark.parametrize("name", FEATURES)
def test_another_symbol_in_front_changes_nothing(name: str):
    other = sessions_of_bars([33, 50], seed=9)
    both = replace(
        ORDINARY,
        **{
            field: np.concatenate([getattr(other, field), getattr(ORDINARY, field)])
            for field in ("open", "high", "low", "close", "volume", "oi", "ts", "known_at", "session")
        },
        symbol=np.repeat([0, 1], [len(other), len(ORDINARY)]),
    )
    assert whole(name, both)[len(other) :].tobytes() == whole(name, ORDINARY).tobytes()


@pytest.mark.parametrize("name", FEATURES)
@settings(max_examples=15)
@given(case=bars_and_runs())
def test_a_feature_stays_within_its_bounds_and_is_never_infinite(name: str, case):
    (bars, _), feature = case, FEATURES[name]
    low, high = feature.definition.bounds
    values = whole(name, bars)
    assert not np.isinf(values).any()
    assert ((values >= low) & (values <= high) | np.isnan(values)).all()


@pytest.mark.parametrize("name", SCALE_FREE)
def test_a_feature_of_the_set_does_not_depend_on_the_units_of_price_and_volume(name: str):
    c, k = 7.3, 0.013
    o, h, l, p = (getattr(ORDINARY, field) * c for field in ("open", "high", "low", "close"))  # noqa: E741
    scaled = replace(ORDINARY, open=o, high=h, low=l, close=p, volume=ORDINARY.volume * k)
    np.testing.assert_allclose(whole(name, scaled), whole(name, ORDINARY), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in FEATURES if FEATURES[n].definition.mirror is not None])
def test_prices_upside_down_mirror_the_value_as_far_as_moves_are_small(name: str):
    """Each price p becomes K − p, high and low exchanged. Ten times smaller moves, ten times smaller errors."""
    centre = FEATURES[name].definition.mirror
    assert centre is not None
    errors = []
    for size in (1e-4, 1e-5):
        price = {f: 1 + size * (getattr(ORDINARY, f) / 100 - 1) for f in ("open", "high", "low", "close")}
        level = price["close"].mean()
        turned = {"open": "open", "high": "low", "low": "high", "close": "close"}
        upright = replace(ORDINARY, **price)
        upside_down = replace(ORDINARY, **{f: 2 * level - price[g] for f, g in turned.items()})
        values, mirrored = whole(name, upright), whole(name, upside_down)
        unit = np.nanstd(values)
        assert unit > 0
        errors.append(np.nanmax(np.abs(2 * centre - values - mirrored)) / unit)
    assert errors[0] < 0.01
    assert errors[1] < max(errors[0] / 5, 1e-5)


@pytest.mark.parametrize("name", ["natr_14", "adx_14", "bandwidth_20_2"])
def test_size_without_direction_is_the_same_upside_down(name: str):
    price = {f: 1e4 + getattr(ORDINARY, f) for f in ("open", "high", "low", "close")}
    turned = {"open": "open", "high": "low", "low": "high", "close": "close"}
    upside_down = replace(ORDINARY, **{f: 20_200 - price[g] for f, g in turned.items()})
    np.testing.assert_allclose(whole(name, upside_down), whole(name, replace(ORDINARY, **price)), rtol=0.1)


def test_upward_direction_is_downward_direction_upside_down():
    upside_down = replace(
        ORDINARY, **{f: 1e4 - getattr(ORDINARY, g) for f, g in {"high": "low", "low": "high", "close": "close"}.items()}
    )
    np.testing.assert_allclose(whole("plus_di_14", upside_down), whole("minus_di_14", ORDINARY), rtol=1e-7)


@pytest.mark.parametrize("name", FEATURES)
def test_on_constant_prices_a_feature_is_a_number_or_nan_as_its_docstring_says(name: str):
    sizes, still = [100, 100], np.full(200, 100.1)
    bars = bars_of(sizes, still, still, still, still, np.full(200, 7.0))
    with np.errstate(all="raise"):
        values, ready = after_warm_up(FEATURES[name], bars)
    assert not np.isinf(values).any()
    assert np.isnan(values[ready]).all() == np.isnan(values[ready]).any() == ("Never NaN" not in says(name))


@pytest.mark.parametrize("name", FEATURES)
def test_without_volume_a_feature_is_nan_exactly_where_it_says_that_it_needs_volume(name: str):
    feature = FEATURES[name]
    with np.errstate(all="raise"):
        values, ready = after_warm_up(feature, replace(ORDINARY, volume=np.full(len(ORDINARY), np.nan)))
    after_first = np.diff(ORDINARY.session, prepend=-1) == 0  # an accumulation's first row counts as zero in any case
    unknown = np.isnan(values[ready & after_first])
    assert unknown.all() == unknown.any() == ("volume" in feature.definition.needs)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_states_its_unit_its_source_and_its_nan_rule(name: str):
    definition = FEATURES[name].definition
    assert definition.unit
    assert definition.source
    assert "NaN" in says(name)


@pytest.mark.parametrize("interval", ["1m", "5m", "15m", "60m", "day"])
def test_the_usual_indicators_are_in_the_set_of_every_interval_with_their_usual_parameters(interval: str):
    usual = ["rsi_14", "sma_gap_20", "ema_gap_20", "sma_cross_5_20", "ema_cross_12_26", "macd_share_12_26_9",
             "macd_share_signal_12_26_9", "macd_share_histogram_12_26_9", "percent_b_20_2", "bandwidth_20_2", "natr_14",
             "adx_14", "plus_di_14", "minus_di_14", "stoch_k_14_3_3", "stoch_d_14_3_3", "cci_20", "willr_14", "mfi_14",
             "obv_slope_20", "volume_z_1_20", *(["vwap_gap"] if interval != "day" else ["gap"])]  # fmt: skip
    assert {f"{name}_{interval}" for name in usual} <= {f.name for f in features_of("technical")}


@pytest.mark.parametrize(
    ("name", "mirror"),
    [
        *((f"rsi_14_{interval}", 50.0) for interval in ("5m", "15m", "60m")),
        ("sma_cross_5_20_15m", 0.0),
        ("sma_cross_5_20_60m", 0.0),
        ("ema_cross_12_26_15m", 0.0),
        *((f"natr_14_{interval}", None) for interval in ("5m", "15m", "60m")),
        ("volume_z_18_75_5m", None),
        ("volume_z_2_60_15m", None),
        ("volume_z_1_10_day", None),
        *((name, 0.0) for name in ("gap_day", "simple_return_18_5m", "trend_18_5m", "session_return_day")),
        ("simple_return_3_day", 0.0),
        ("simple_return_5_day", 0.0),
        ("range_position_1_day", 0.5),
        ("range_position_5_day", 0.5),
    ],
)
def test_what_decisions_read_is_in_the_catalogue_with_its_value_upside_down(name: str, mirror: float | None):
    assert named(name).definition.mirror == mirror


def small(close: list[float], *, spread: float = 0.0, volume: list[float] | None = None) -> Bars:
    c = np.array(close)
    return bars_of([len(c)], c, c + spread, c - spread, c, np.array(volume or [1.0] * len(c)))


def days(*bars: tuple[float, float]) -> Bars:
    """One bar a session: its open and its close."""
    o, c = np.array(bars).T
    return bars_of([1] * len(bars), o, np.maximum(o, c), np.minimum(o, c), c, np.ones(len(bars)))


def last(name: str, bars: Bars) -> float:
    feature = named(name)
    return values_of(feature, bars, whole_series(bars))[-1]


HAND_WORKED: dict[str, tuple[Callable[[], float], float]] = {
    "gap of a day": (lambda: last("gap", days((10, 20), (25, 30))), 0.25),
    "return of a session": (lambda: last("session_return", days((10, 20), (25, 30))), 0.2),
    "return over two bars": (lambda: last("simple_return_2", small([10, 16, 8])), -0.2),
    # every bar one percent up: √n · 1 % of volatility against 1.01ⁿ − 1 of return
    "trend of a straight line": (
        lambda: last("trend_4", small([100 * 1.01**i for i in range(5)])),
        (1.01**4 - 1) / (2 * np.log(1.01)),
    ),
    # 20 and 22 within 19 to 23
    "position in the range of two bars": (lambda: last("range_position_2", small([20, 22], spread=1)), 0.75),
    "williams r of two bars": (lambda: last("willr_2", small([20, 22], spread=1)), -25.0),
    # closes 1 and 3: mean 2, deviation 1, bands 0 and 4
    "percent b": (lambda: last("percent_b_2_2", small([1, 3])), 0.75),
    "bandwidth": (lambda: last("bandwidth_2_2", small([1, 3])), 2.0),
    # 1, 2, 6: mean 3, mean deviation (2 + 1 + 3) / 3 = 2
    "cci": (lambda: last("cci_3", small([1, 2, 6])), 3 / (0.015 * 2)),
    # rises with 2 · 20 = 40, falls with 3 · 10 = 30
    "money flow": (lambda: last("mfi_2", small([10, 20, 10], volume=[9, 2, 3])), 100 * 40 / 70),
    "on-balance volume": (lambda: last("obv", small([10, 20, 10, 10], volume=[9, 2, 3, 4])), -1.0),
    "slope of on-balance volume": (
        lambda: last("obv_slope_3", small([10, 20, 10, 10], volume=[9, 2, 3, 4])),
        -1 / 9,
    ),
    # (10 · 1 + 20 · 3) / 4 = 17.5
    "distance to the average price": (lambda: last("vwap_gap", small([10, 20], volume=[1, 3])), 20 / 17.5 - 1),
    # 20 within 9 to 21 gives 11/12, 10 within 9 to 21 gives 1/12, 12 within 9 to 13 gives 3/4
    "slow stochastic": (
        lambda: last("stoch_k_2_3_1", small([10, 20, 10, 12], spread=1)),
        100 * (11 / 12 + 1 / 12 + 3 / 4) / 3,
    ),
    "distance to the mean": (lambda: last("sma_gap_2", small([1, 3])), 0.5),
    "cross of two means": (lambda: last("sma_cross_1_2", small([1, 3])), 0.5),
    # the average is seeded with 2 and moves two thirds of the way to 5
    "distance to the exponential mean": (lambda: last("ema_gap_2", small([1, 3, 5])), 0.25),
    "cross of two exponential means": (lambda: last("ema_cross_1_2", small([1, 3, 5])), 0.25),
}


@pytest.mark.parametrize("case", HAND_WORKED)
def test_an_example_worked_by_hand(case: str):
    value, expected = HAND_WORKED[case]
    assert value() == pytest.approx(expected, rel=1e-12)


def test_the_gap_is_told_in_every_bar_of_its_session():
    c = np.array([10.0, 20, 30, 40])
    bars = bars_of([2, 2], c + 1, c + 2, c - 2, c, np.ones(4))
    values = values_of(named("gap_5m"), bars, runs_of(bars, 1))
    np.testing.assert_allclose(values, [np.nan, np.nan, 31 / 20 - 1, 31 / 20 - 1])
