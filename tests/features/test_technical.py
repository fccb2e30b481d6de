"""Kernels against slow twins and published numbers; the contract that every feature of the catalogue keeps."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odin_core.features import catalogue, kernels
from odin_core.features.catalogue import FEATURES, Feature, Window, feature, features_version

# StockCharts' worked example of Wilder's RSI(14), with its published values for the 15th to 20th close.
RSI_CLOSES = [44.3389, 44.0902, 44.1497, 43.6124, 44.3278, 44.8264, 45.0955, 45.4245, 45.8433, 46.0826,
              45.8931, 46.0328, 45.6140, 46.2820, 46.2820, 46.0028, 46.0328, 46.4116, 46.2222, 45.6439]  # fmt: skip
RSI_PUBLISHED = [70.53, 66.32, 66.55, 69.41, 66.36, 57.97]


def rsi_by_hand(close: list[float], period: int) -> float:
    changes = [b - a for a, b in itertools.pairwise(close)]
    gains, losses = [max(c, 0.0) for c in changes], [max(-c, 0.0) for c in changes]
    gain, loss = statistics.fmean(gains[:period]), statistics.fmean(losses[:period])
    for g, l in zip(gains[period:], losses[period:], strict=True):  # noqa: E741
        gain, loss = (gain * (period - 1) + g) / period, (loss * (period - 1) + l) / period
    return math.nan if gain + loss == 0 else 100.0 if loss == 0 else 100 - 100 / (1 + gain / loss)


def atr_by_hand(high: list[float], low: list[float], close: list[float], period: int) -> float:
    ranges = [max(h, before) - min(low_, before) for h, low_, before in zip(high[1:], low[1:], close, strict=False)]
    average = statistics.fmean(ranges[:period])
    for reach in ranges[period:]:
        average = (average * (period - 1) + reach) / period
    return average


def ema_by_hand(values: list[float], period: int) -> float:
    average = statistics.fmean(values[:period])
    for value in values[period:]:
        average = value * 2 / (period + 1) + average * (1 - 2 / (period + 1))
    return average


def z_by_hand(values: list[float], count: int) -> float:
    deviation = statistics.stdev(values)
    return sum(v - statistics.fmean(values) for v in values[-count:]) / (deviation * math.sqrt(count))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Random bars: some closes repeat, some bars have no range."""
    rows, bars = draw(st.integers(1, 4)), draw(st.integers(30, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    still = rng.random((rows, bars)) < draw(st.sampled_from([0.0, 0.3, 0.9]))
    close = 100 * np.exp(np.cumsum(np.where(still, 0, rng.normal(0, 0.01, (rows, bars))), axis=1))
    reach = np.where(still, 0, rng.exponential(0.005, (rows, bars)))
    return Window(
        close, close * (1 + reach), close * (1 - reach), close, rng.integers(0, 99, (rows, bars)).astype(float)
    )


def ordinary_window(bars: int, *, rows: int = 5) -> Window:
    rng = np.random.default_rng(bars)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (rows, bars)), axis=1))
    open_ = close * np.exp(rng.normal(0, 0.003, (rows, bars)))
    high, low = np.maximum(open_, close) * 1.002, np.minimum(open_, close) * 0.998
    return Window(open_, high, low, close, rng.integers(1, 10_000, (rows, bars)).astype(float))


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(1, 25))
def test_compiled_indicators_agree_with_plain_python(window: Window, period: int):
    high, low, close, volume = (x.tolist() for x in window[1:])
    expected = {
        "rsi": [rsi_by_hand(c, period) for c in close],
        "atr": [atr_by_hand(h, lo, c, period) for h, lo, c in zip(high, low, close, strict=True)],
        "ema": [ema_by_hand(c, period) for c in close],
        "sma": [statistics.fmean(c[-period:]) for c in close],
        "z": [z_by_hand(v, period) for v in volume],
        "rv": [math.sqrt(sum(math.log(b / a) ** 2 for a, b in itertools.pairwise(c))) for c in close],
        "parkinson": [
            math.sqrt(statistics.fmean([math.log(a / b) ** 2 for a, b in zip(h, lo, strict=True)]) / (4 * math.log(2)))
            for h, lo in zip(high, low, strict=True)
        ],
    }
    actual = {
        "rsi": kernels.wilder_rsi(window.close, period),
        "atr": kernels.wilder_atr(window.high, window.low, window.close, period),
        "ema": kernels.exponential_mean(window.close, period),
        "sma": kernels.tail_mean(window.close, period),
        "z": kernels.tail_z_score(window.volume, period),
        "rv": kernels.realised_volatility(window.close),
        "parkinson": kernels.parkinson_volatility(window.high, window.low),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("count", range(15, 21))
def test_rsi_gives_the_published_values_of_the_worked_example(count: int):
    close = np.array([RSI_CLOSES[:count]])
    assert kernels.wilder_rsi(close, 14)[0] == pytest.approx(RSI_PUBLISHED[count - 15], abs=0.005)


def test_average_true_range_of_four_bars_worked_by_hand():
    high, low, close = np.array([[11.0, 12, 15, 13]]), np.array([[9.0, 10, 13, 9]]), np.array([[10.0, 11, 14, 10]])
    # true ranges 12 − 10 = 2, 15 − 11 = 4, 14 − 9 = 5; seed (2 + 4) / 2 = 3, then (3 · 1 + 5) / 2 = 4
    assert kernels.wilder_atr(high, low, close, 2)[0] == 4.0


def test_exponential_mean_of_four_values_worked_by_hand():
    # seed (1 + 3) / 2 = 2, weight 2/3: 2 + 2/3 · (5 − 2) = 4, then 4 + 2/3 · (1 − 4) = 2
    assert kernels.exponential_mean(np.array([[1.0, 3, 5, 1]]), 2)[0] == pytest.approx(2.0)


def test_z_score_of_a_volume_spike_worked_by_hand():
    # values 1, 1, 1, 5: mean 2, squares 1 + 1 + 1 + 9 = 12, std √(12 / 3) = 2, so (5 − 2) / 2
    assert kernels.tail_z_score(np.array([[1.0, 1, 1, 5]]), 1)[0] == 1.5


@pytest.mark.parametrize("kernel", [kernels.wilder_rsi, kernels.exponential_mean], ids=["rsi", "ema"])
def test_an_indicator_without_bars_for_its_seed_is_nan(kernel):
    assert np.isnan(kernel(np.array([[1.0, 2, 3]]), 4)).all()


def test_a_session_cut_short_has_the_volatility_of_a_whole_one():
    """Ten bars that each move by 1 %, and three of them: 0.01 per √(5 minutes) both times, a missing bar included."""
    whole = 100 * 1.01 ** np.arange(11.0)
    bars = np.zeros((5, 13))
    bars[0], bars[3] = [*whole[:-1], *whole[:3]], [*whole[1:], *whole[1:4]]
    volatility = kernels.volatility_per_five_minutes(bars, np.array([0, 10, 13]), np.array([10.0, 3.0]))
    np.testing.assert_allclose(volatility, math.log(1.01), rtol=1e-12)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_finite_on_ordinary_bars_and_leaves_its_input_alone(name: str):
    entry, window = FEATURES[name], ordinary_window(FEATURES[name].bars)
    before = Window(*(field.copy() for field in window))
    values = entry.formula(window)
    assert values.shape == (5,)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    for field, copy in zip(window, before, strict=True):
        np.testing.assert_array_equal(field, copy)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_of_a_symbol_is_the_same_bits_in_any_company_and_order(name: str):
    entry, window = FEATURES[name], ordinary_window(FEATURES[name].bars)
    together = entry.formula(window)
    for rows in ([0], [4, 2], [3, 1, 0, 4, 2]):
        apart = entry.formula(Window(*(np.ascontiguousarray(field[rows]) for field in window)))
        assert apart.tobytes() == together[rows].tobytes()


@pytest.mark.parametrize("name", FEATURES)
def test_on_constant_prices_a_feature_is_a_number_or_nan_as_its_docstring_says(name: str):
    entry, still = FEATURES[name], np.full((2, FEATURES[name].bars), 100.0)
    with np.errstate(all="raise"):
        values = entry.formula(Window(still, still, still, still, still))
    assert not np.isinf(values).any()
    assert np.isnan(values).all() == ("Never NaN" not in docstring(entry))


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_nan_without_volume_exactly_where_it_says_that_it_needs_volume(name: str):
    entry, window = FEATURES[name], ordinary_window(FEATURES[name].bars)
    values = entry.formula(window._replace(volume=np.full_like(window.volume, np.nan)))
    assert np.isnan(values).all() == np.isnan(values).any() == entry.needs_volume


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_states_its_unit_and_its_nan_rule(name: str):
    assert FEATURES[name].unit
    assert "NaN" in docstring(FEATURES[name])


def docstring(entry: Feature) -> str:
    return " ".join(str(entry.formula.__doc__).split())


def test_position_in_the_range_is_zero_at_the_low_and_one_at_the_high():
    low, high = np.array([[9.0, 8.0]]), np.array([[10.0, 12.0]])
    assert [kernels.position(np.array([c]), high, low)[0] for c in (8.0, 10.0, 12.0)] == [0.0, 0.5, 1.0]


def test_the_version_changes_with_a_definition_and_with_nothing_else(monkeypatch: pytest.MonkeyPatch):
    version = features_version()
    assert features_version() == version
    gap = FEATURES["gap"]
    longer = Feature(**{**vars(gap), "bars": gap.bars + 1})
    monkeypatch.setitem(FEATURES, "gap", longer)
    assert features_version() != version
    monkeypatch.setitem(FEATURES, "gap", gap)
    assert features_version() == version


def test_a_name_can_be_taken_only_once_and_an_interval_must_exist():
    with pytest.raises(ValueError, match="gap is defined twice"):
        feature(interval="day", bars=2, unit="fraction")(FEATURES["gap"].formula)
    with pytest.raises(ValueError, match="0 bars of '5m'"):
        Feature(
            name="x", interval="5m", bars=0, unit="", needs_volume=False, mirror=None, formula=FEATURES["gap"].formula
        )


def test_the_windows_fit_into_the_sessions_that_are_searched():
    per_session = {"5m": 75, "15m": 25, "60m": 7, "day": 1}
    needed = {name: f.bars / per_session[f.interval] for name, f in FEATURES.items()}
    assert max(needed.values()) <= catalogue.SESSIONS_NEEDED - 2, "two sessions may be missed"
