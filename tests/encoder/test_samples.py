"""Labels against their definitions row by row, and divisions of samples that share nothing."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from smalllives import quick, small_market

from odin_core.encoder import targets
from odin_core.encoder.config import REGIMES, TURNS, EncoderConfig
from odin_core.encoder.samples import (
    NoUsableRows,
    Samples,
    TooFewSessions,
    market_samples,
    masked_spans,
    samples_from,
    sequence_rows,
    split,
    window_rows,
)
from odin_core.encoder.targets import BarRows, forward_returns, row_targets, session_regimes, trailing_volatility
from odin_core.features.catalogue import features_of, set_version
from odin_core.features.series import FloatArray
from odin_core.home import open_home
from odin_core.market.data import MarketData
from odin_core.structure.heatmap import rolling_heatmap

FIRST, LAST = date(2022, 10, 31), date(2022, 11, 11)
CONFIG = EncoderConfig.small(length=64, levels=5, turn_bars=6, range_bars=10, horizons=(1, 3, 8))


def random_bars(seed: int, runs: tuple[tuple[int, ...], ...]) -> BarRows:
    """Walks of symbols; `runs` says how many bars each session of each symbol has. Some sessions stand still, some are
    wild, and now and then a price is not known."""
    rng = np.random.default_rng(seed)
    steps, session = [], []
    for sessions in runs:
        for day, count in enumerate(sessions):
            scale = rng.choice([0.0, 0.002, 0.003, 0.01], p=[0.05, 0.45, 0.4, 0.1])
            steps.append(rng.normal(rng.choice([0.0, scale]), scale, count))
            session += [738_000 + day] * count
    close = 100.0 * np.exp(np.cumsum(np.concatenate([*steps, np.empty(0)])))
    high, low = (close * np.exp(sign * rng.exponential(0.001, len(close))) for sign in (1, -1))
    for column in (high, low, close):
        column[rng.random(len(close)) < 0.002] = math.nan
    starts = np.concatenate([[0], np.cumsum([sum(sessions) for sessions in runs])]).astype(np.int64)
    return BarRows(high, low, close, np.array(session, np.int64), starts)


RUNS = st.lists(st.lists(st.integers(1, 9), max_size=16).map(tuple), max_size=4).map(tuple)


def rows_of(bars: BarRows, part: slice) -> BarRows:
    """Some rows of one symbol."""
    starts = np.array([0, part.stop - part.start])
    return BarRows(bars.high[part], bars.low[part], bars.close[part], bars.session[part], starts)


def symbol_slices(bars: BarRows) -> list[slice]:
    return [slice(a, b) for a, b in zip(bars.starts[:-1], bars.starts[1:], strict=True)]


# Labels


def test_the_classes_are_numbered_as_the_configuration_lists_them():
    assert [TURNS[n] for n in (targets.NONE, targets.BREAKOUT_UP, targets.BREAKOUT_DOWN)] == list(TURNS[:3])
    assert [TURNS[n] for n in (targets.REVERSAL_UP, targets.REVERSAL_DOWN)] == ["reversal_up", "reversal_down"]
    assert [REGIMES[n] for n in (targets.TREND, targets.RANGE, targets.VOLATILE)] == ["trend", "range", "volatile"]


@given(st.integers(0, 10_000), RUNS, st.integers(1, 8))
@example(6306, ((1, 1, 2, 7, 6, 1, 1, 1, 1, 1, 2, 4, 6, 9, 9),), 1)  # a change so small that its logarithms round
def test_returns_are_in_units_of_trailing_volatility_and_end_with_the_symbol(
    seed: int, runs: tuple[tuple[int, ...], ...], window: int
):
    bars = random_bars(seed, runs)
    volatility = trailing_volatility(bars.close, bars.starts, window)
    found = forward_returns(bars.close, volatility, bars.starts, (1, 4))
    for part in symbol_slices(bars):
        close = bars.close[part]
        change = np.diff(np.log(close), prepend=np.nan)
        for i in range(len(close)):
            usual = math.sqrt(np.mean(change[i - window + 1 : i + 1] ** 2)) if i >= window else math.nan
            np.testing.assert_allclose(volatility[part][i], usual, rtol=1e-9, atol=1e-14)
            for column, h in enumerate((1, 4)):
                known = i + h < len(close) and usual > 0
                expected = math.log(close[i + h] / close[i]) / (usual * math.sqrt(h)) if known else math.nan
                np.testing.assert_allclose(found[part][i, column], expected, rtol=1e-5, atol=1e-6)


@given(st.integers(0, 10_000), RUNS, st.integers(1, 6), st.integers(1, 6))
def test_turns_are_those_of_the_definition(seed: int, runs: tuple[tuple[int, ...], ...], ahead: int, behind: int):
    bars = random_bars(seed, runs)
    volatility = trailing_volatility(bars.close, bars.starts, 5)
    found = targets.turns(bars, volatility, ahead, behind)
    for part in symbol_slices(bars):
        high, low, close, usual = bars.high[part], bars.low[part], bars.close[part], volatility[part]
        for i in range(len(close)):
            assert found[part][i] == turn_by_hand(high, low, close, usual, i, ahead, behind)


def turn_by_hand(
    high: FloatArray, low: FloatArray, close: FloatArray, usual: FloatArray, i: int, ahead: int, behind: int
) -> int:
    if i < behind or i + ahead >= len(close) or not usual[i] > 0:
        return -1
    window = slice(i - behind + 1, i + 1)
    read = [*high[window], *low[window], close[i - behind], close[i], close[i + ahead]]
    if np.isnan(read).any():
        return -1
    if close[i + ahead] > high[window].max():
        return targets.BREAKOUT_UP
    if close[i + ahead] < low[window].min():
        return targets.BREAKOUT_DOWN
    before = math.log(close[i] / close[i - behind]) / usual[i] / behind**0.5
    after = math.log(close[i + ahead] / close[i]) / usual[i] / ahead**0.5
    if before < -1 and after > 1:
        return targets.REVERSAL_UP
    return targets.REVERSAL_DOWN if before > 1 and after < -1 else targets.NONE


def test_a_price_that_leaves_its_range_and_one_that_comes_back_are_told_apart():
    walk = np.concatenate([np.zeros(20), np.linspace(0, 0.05, 6), np.full(6, 0.05), [0.04, 0.03, 0.02, 0.01]])
    close = 100 * np.exp(walk)
    bars = BarRows(close * 1.0001, close * 0.9999, close, np.full(len(close), 738_000), np.array([0, len(close)]))
    found = targets.turns(bars, np.full(len(close), 0.004), 4, 12)
    assert found[19] == targets.BREAKOUT_UP
    assert found[len(close) - 5] == targets.REVERSAL_DOWN
    assert (found[:12] == -1).all()
    assert (found[-4:] == -1).all()


@settings(max_examples=50)
@given(st.integers(0, 10_000), RUNS)
def test_regimes_are_of_whole_sessions_and_of_the_symbols_own_last_ten(seed: int, runs: tuple[tuple[int, ...], ...]):
    bars = random_bars(seed, runs)
    found = session_regimes(bars)
    for part in symbol_slices(bars):
        day, close = bars.session[part], bars.close[part]
        changes = [np.diff(np.log(close[day == d])) for d in np.unique(day)]
        spread = [math.sqrt(np.mean(c**2)) if len(c) else 0.0 for c in changes]
        for k, (d, change) in enumerate(zip(np.unique(day), changes, strict=True)):
            expected = -1
            if k >= 9 and (change**2).sum() > 0 and not np.isnan(spread[k - 9 : k + 1]).any():
                calm = targets.TREND if abs(change.sum()) > math.sqrt((change**2).sum()) else targets.RANGE
                expected = targets.VOLATILE if spread[k] > 1.2 * np.median(spread[k - 9 : k + 1]) else calm
            assert (found[part][day == d] == expected).all()


def test_the_heatmap_is_the_structures_as_known_at_the_row_and_labels_of_symbols_do_not_touch():
    bars = random_bars(3, ((60,) * 12, (50,) * 12))
    both = row_targets(bars, (1, 5), 6, 10)
    for part in symbol_slices(bars):
        alone = rows_of(bars, part)
        for name, whole in both._asdict().items():
            np.testing.assert_array_equal(whole[part], getattr(row_targets(alone, (1, 5), 6, 10), name), name)
        heat = rolling_heatmap(alone.high, alone.low, alone.close)
        np.testing.assert_allclose(both.heatmap[part], heat, atol=1e-12)
    assert np.nanmin(both.heatmap) >= 0.0


def test_labels_change_nothing_before_the_last_rows_when_the_future_is_cut_off():
    """What a label says follows from its own span alone: sessions after it may be there or not."""
    bars = random_bars(5, ((40,) * 14,))
    whole = row_targets(bars, (1, 8), 6, 10)
    cut = 40 * 11
    part = row_targets(rows_of(bars, slice(0, cut)), (1, 8), 6, 10)
    for name in ("regime", "heatmap", "volatility"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:cut])
    np.testing.assert_array_equal(part.returns[: cut - 8], whole.returns[: cut - 8])
    np.testing.assert_array_equal(part.turns[: cut - 6], whole.turns[: cut - 6])
    assert np.isnan(part.returns[cut - 8 :, 1]).all()
    assert (part.turns[cut - 6 :] == -1).all()


# Rows of a market


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    return small_market(open_home(tmp_path_factory.mktemp("home")), quick(), symbols=3)


@pytest.fixture(scope="module")
def samples(data: MarketData) -> Samples:
    return market_samples(data, CONFIG, LAST, FIRST)


def test_samples_are_the_markets_rows_with_the_labels_of_its_bars(data: MarketData, samples: Samples):
    bars = data.read(None, FIRST, LAST, "5m").sort("symbol", "known_at")
    frame = data.features(None, "5m", FIRST, LAST, "sequence").sort("symbol", "known_at")
    assert samples.features == tuple(f.name for f in features_of("sequence"))
    assert samples.symbols == tuple(bars["symbol"].unique().sort())
    assert len(samples) == bars.height
    np.testing.assert_array_equal(samples.session, [d.toordinal() for d in frame["session"]])
    known = frame["log_return_1_5m"].is_not_null().to_numpy()
    assert samples.valid[-500:].all()
    both = samples.valid & known
    np.testing.assert_array_equal(samples.values[both, 0], frame["log_return_1_5m"].to_numpy()[both])
    high, low, close = (bars[c].to_numpy() for c in ("high", "low", "close"))
    rows = BarRows(high, low, close, samples.session, samples.starts)
    for name, array in row_targets(rows, (1, 3, 8), 6, 10)._asdict().items():
        np.testing.assert_array_equal(getattr(samples.targets, name), array)


def test_nothing_later_than_the_last_session_has_a_part_in_samples(data: MarketData, samples: Samples, tmp_path: Path):
    data.features(None, "5m", FIRST, LAST + timedelta(days=7), "sequence")
    again = market_samples(data, CONFIG, LAST, FIRST)
    assert again.fingerprint == samples.fingerprint
    fresh = small_market(open_home(tmp_path), quick(), symbols=3)
    assert market_samples(fresh, CONFIG, LAST, FIRST).fingerprint == samples.fingerprint
    assert market_samples(data, CONFIG, LAST - timedelta(days=1), FIRST).fingerprint != samples.fingerprint


def test_a_bar_without_range_has_shares_of_zero_and_is_known(tmp_path: Path):
    def still(session: date, bars: pl.DataFrame) -> pl.DataFrame:
        is_first = pl.col("symbol") == bars["symbol"].min()
        flat = pl.when(is_first).then(pl.lit(100.0))
        return bars.with_columns(flat.otherwise(c).alias(c) for c in ("open", "high", "low", "close"))

    data = small_market(open_home(tmp_path), quick(), symbols=2, edit=still)
    close = data.calendar.hours(LAST).close
    frame = sequence_rows(data, FIRST, LAST, "5m", as_of=close)
    flat = frame.filter(symbol=frame["symbol"].min())
    assert (flat.select(pl.col("^(body|upper_wick|lower_wick)_.*$")).tail(100).to_numpy() == 0).all()
    raw = data.features(None, "5m", LAST, LAST, "sequence").filter(symbol=frame["symbol"].min())
    assert raw["body_5m"].null_count() == raw.height


@pytest.mark.parametrize("volume", [None, 0])
def test_a_market_without_volume_has_the_same_samples(samples: Samples, volume: int | None, tmp_path: Path):
    def silent(_: date, bars: pl.DataFrame) -> pl.DataFrame:
        return bars.with_columns(volume=pl.lit(volume, bars.schema["volume"]))

    data = small_market(open_home(tmp_path), quick(), symbols=3, edit=silent)
    assert market_samples(data, CONFIG, LAST, FIRST).fingerprint == samples.fingerprint


def test_a_bar_that_ends_as_its_symbol_is_renamed_goes_on_under_the_new_name():
    """In a market that never closes a session's last bar ends at the next one's open, when the new name begins."""
    ex_at = datetime(2023, 5, 2, tzinfo=UTC)
    known_at = [ex_at - timedelta(minutes=5), ex_at, ex_at + timedelta(minutes=5)]
    names = [f.name for f in features_of("sequence")]
    frame = pl.DataFrame(
        {"symbol": ["OLD", "OLD", "NEW"], "known_at": known_at, "session": [date(2023, 5, 1)] * 2 + [date(2023, 5, 2)]}
        | {name: [0.5] * 3 for name in names}
    ).cast({"known_at": pl.Datetime("us", "UTC")})
    rename = {"symbol": "OLD", "other": "NEW", "kind": "rename", "ex_at": ex_at, "known_at": ex_at - timedelta(days=9)}
    actions = pl.DataFrame([rename], schema_overrides={c: pl.Datetime("us", "UTC") for c in ("ex_at", "known_at")})
    data = SimpleNamespace(features=lambda *_: frame, actions=SimpleNamespace(rows=actions))
    for as_of, of_last in ((known_at[2], ["NEW"] * 3), (known_at[0], ["OLD", "OLD", "NEW"])):
        rows = sequence_rows(cast(Any, data), date(2023, 5, 1), date(2023, 5, 2), "5m", as_of=as_of)
        assert rows["symbol"].to_list() == of_last
        assert rows.columns == frame.columns


def test_a_market_without_bars_and_rows_without_features_are_refused(data: MarketData):
    with pytest.raises(NoUsableRows, match="up to"):
        market_samples(data, CONFIG, date(2022, 10, 3), date(2022, 10, 4))
    frame = data.features(None, "5m", FIRST, FIRST, "sequence").with_columns(body_5m=pl.lit(None, pl.Float32))
    bars = data.read(None, FIRST, FIRST, "5m")
    with pytest.raises(NoUsableRows, match="body_5m"):
        samples_from(frame, bars, data.calendar, CONFIG, as_of=datetime(2023, 1, 1, tzinfo=UTC))
    with pytest.raises(NoUsableRows, match="known by 2022-01-01"):
        samples_from(frame, bars, data.calendar, CONFIG, as_of=datetime(2022, 1, 1, tzinfo=UTC))


def test_the_set_of_the_encoder_reads_price_action_alone_and_has_its_own_version():
    assert {f.definition.set for f in features_of("sequence")} == {"price_action"}
    assert {f.interval for f in features_of("sequence")} == {"5m", "15m", "60m"}
    assert not any(f.definition.needs for f in features_of("sequence"))
    assert len({set_version(name) for name in ("sequence", "decision", "price_action")}) == 3


# Divisions


@settings(max_examples=25)
@given(st.floats(0.05, 0.6), st.integers(0, 4))
def test_training_and_validation_share_no_row_and_no_label_crosses(samples: Samples, share: float, embargo: int):
    newest = math.ceil(share * len(samples.sessions))
    assume(newest + embargo < len(samples.sessions))
    training, validation = split(samples, share, embargo)
    assert validation.sessions == samples.sessions[-newest:]
    assert training.sessions == samples.sessions[: len(samples.sessions) - newest - embargo]
    for part in (training, validation):
        for s in range(len(part.symbols)):
            rows = slice(part.starts[s], part.starts[s + 1])
            span = rows.stop - rows.start
            for column, h in enumerate(part.horizons):
                assert np.isnan(part.targets.returns[rows][max(span - h, 0) :, column]).all()
            assert (part.targets.turns[rows][max(span - part.turn_bars, 0) :] == -1).all()
    keep = np.isin(samples.session, [d.toordinal() for d in training.sessions])
    kept = np.isfinite(training.targets.returns)
    np.testing.assert_array_equal(training.targets.returns[kept], samples.targets.returns[keep][kept])
    assert kept.any() or len(training.sessions) < 3


def test_samples_too_short_to_divide_are_refused(samples: Samples):
    with pytest.raises(TooFewSessions, match="lower validation_share or embargo"):
        split(samples, 0.5, 6)


def test_windows_end_where_they_may_and_stay_in_their_symbol(samples: Samples):
    ends = samples.window_ends(1)
    at, exists = window_rows(samples, ends)
    assert (samples.valid[at] & exists).sum(axis=1).min() >= samples.length // 2
    assert samples.valid[ends].all()
    symbol = np.searchsorted(samples.starts, at, side="right")
    assert ((symbol == symbol[:, -1:]) | ~exists).all()
    np.testing.assert_array_equal(at[:, -1], ends)
    stepped = samples.window_ends(16)
    assert set(stepped) <= set(ends)
    place = stepped - samples.first[stepped]
    assert ((place - (samples.length - 1)) % 16 == 0).all()


def test_tiles_cover_each_row_once(samples: Samples):
    at, exists = window_rows(samples, samples.tiles)
    np.testing.assert_array_equal(np.sort(at[exists]), np.arange(len(samples)))


@given(st.integers(0, 1000), st.integers(1, 200), st.floats(0.01, 0.6), st.integers(1, 12))
def test_masks_hide_about_their_share_in_whole_spans(seed: int, length: int, share: float, span: int):
    masks = masked_spans(np.random.default_rng(seed), 20, length, share, span)
    assert masks.shape == (20, length)
    again = masked_spans(np.random.default_rng(seed), 20, length, share, span)
    np.testing.assert_array_equal(masks, again)
    for row in masks:
        inner = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        starts, stops = inner[::2], inner[1::2]
        touches_edge = (starts == 0) | (stops == length)
        assert (((stops - starts) % span == 0) | touches_edge).all()
    if length >= 20 * span:
        assert abs(masks.mean() - share) < 0.05 + 1.5 * span / length


def test_a_share_of_zero_hides_nothing():
    assert not masked_spans(np.random.default_rng(1), 8, 128, 0.0, 4).any()


def test_masks_of_one_window_are_not_those_of_the_next():
    masks = masked_spans(np.random.default_rng(1), 8, 128, 0.2, 8)
    assert len({row.tobytes() for row in masks}) == 8


def test_a_fingerprint_changes_with_any_value(samples: Samples):
    values = samples.values.copy()
    values[-1, -1] += 1e-6
    assert replace(samples, values=values).fingerprint != samples.fingerprint
    assert replace(samples, values=samples.values.copy()).fingerprint == samples.fingerprint
