"""The catalogue: names, versions, and what every definition must say and keep, whichever there are."""

import inspect
import math
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from histories import PER_SESSION, History, long_history, made_of, of_bars
from hypothesis import given
from hypothesis import strategies as st
from realdata import market_file

from odin_core.features import catalogue, fundamental, price_action
from odin_core.features.catalogue import (
    DEFINITIONS,
    INTERVALS,
    MODULES,
    SELECTIONS,
    BadParameter,
    Feature,
    UnknownFeature,
    UnknownSet,
    all_features,
    feature,
    features_of,
    named,
    set_names,
    set_version,
)
from odin_core.features.decision import decision_version
from odin_core.features.engine import compute
from odin_core.features.recursive import wilder_rsi
from odin_core.features.series import Bars, FloatArray, Runs
from odin_core.market.bars import BARS
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile

EVERY = all_features()


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """The catalogue is as it was after each test."""
    definitions, selections = dict(DEFINITIONS), dict(SELECTIONS)
    yield
    DEFINITIONS.clear()
    DEFINITIONS.update(definitions)
    SELECTIONS.clear()
    SELECTIONS.update(selections)
    named.cache_clear()


def changed(name: str, **fields: object) -> None:
    DEFINITIONS[name] = replace(DEFINITIONS[name], **fields)  # pyright: ignore[reportArgumentType]
    named.cache_clear()


# Names


@pytest.mark.parametrize(
    ("name", "function", "parameters", "interval"),
    [
        ("rsi_14", "rsi", (14,), ""),
        ("rsi_14_5m", "rsi", (14,), "5m"),
        ("macd_12_26_9_signal", "macd_signal", (12, 26, 9), ""),
        ("macd_share_12_26_9_histogram_day", "macd_share_histogram", (12, 26, 9), "day"),
        ("macd_12_26_9", "macd", (12, 26, 9), ""),
        ("percent_b_20_2_60m", "percent_b", (20, 2), "60m"),
        ("percent_b_20_2.5", "percent_b", (20, 2.5), ""),
        ("gap_day", "gap", (), "day"),
        ("hours_to_close_1m", "hours_to_close", (), "1m"),
        ("rsi_21_15m", "rsi", (21,), "15m"),
        ("earnings_yield", "earnings_yield", (), ""),
    ],
)
def test_a_name_says_function_parameters_part_and_interval(
    name: str, function: str, parameters: tuple[float, ...], interval: str
):
    found = named(name)
    assert (found.definition.name, found.parameters, found.interval) == (function, parameters, interval)
    assert [type(p) for p in found.parameters] == [type(p) for p in parameters]


@pytest.mark.parametrize("name", EVERY)
def test_every_name_is_read_back_as_the_same_feature(name: str):
    assert named(name) == EVERY[name]
    assert named(name).name == name


def test_every_definition_is_found_with_its_own_parameters_whether_in_a_set_or_not():
    for definition in DEFINITIONS.values():
        for variant in definition.variants:
            own = Feature(definition, variant, "")
            assert named(own.name) == own


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("rsy_14", "rsi_14"),
        ("rsi_14_5min", "rsi_14_5m"),
        ("rsi", "rsi_14"),
        ("rsi_14_3", "rsi_14"),
        ("macd_12_26_signal", "macd_12_26_9"),
        ("earning_yield", "earnings_yield"),
    ],
)
def test_a_name_that_nothing_has_is_refused_with_one_that_is_near(name: str, near: str):
    with pytest.raises(UnknownFeature, match=near) as refused:
        named(name)
    assert repr(name) in str(refused.value)


@given(st.text(alphabet="abrsi_019.5mday-", max_size=14))
def test_any_text_is_a_feature_or_refused(text: str):
    try:
        found = named(text)
    except (UnknownFeature, BadParameter):
        return
    assert named(found.name) == found


@pytest.mark.parametrize(
    ("name", "same"), [("sma_20.0", "sma_20"), ("bb_upper_20.0_2.0", "bb_upper_20_2"), ("sma_100000.0", "sma_100000")]
)
def test_a_whole_number_may_be_written_with_decimals(name: str, same: str):
    assert named(name) == named(same)
    assert [type(number) for number in named(name).parameters] == [type(number) for number in named(same).parameters]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        pytest.param("sma_0", "window cannot be 0; write a whole number from 1 to 100,000", id="none"),
        pytest.param("sma_20.5", "window cannot be 20.5; write a whole number", id="part of a bar"),
        pytest.param("sma_100001", "window cannot be 100001; write a whole number", id="more than there are"),
        pytest.param("sma_99999999999", "window cannot be 1e.11; write a whole number", id="more than memory"),
        pytest.param("rsi_99999999999999999999", "period cannot be 1e.20", id="more than an integer"),
        pytest.param("ema_cross_12_100001", "slow cannot be 100001", id="the second one"),
        pytest.param(f"sma_{'9' * 400}", "window cannot be inf", id="more than a float"),
        pytest.param("bb_upper_20_0", "width cannot be 0; write a number above 0, up to 100,000", id="no width"),
    ],
)
def test_a_number_that_no_feature_can_have_is_refused(name: str, rule: str):
    with pytest.raises(BadParameter, match=f"{name!r}: its {rule}"):
        named(name)


@pytest.mark.parametrize("name", ["volume_z_1_1", "yang_zhang_1"])
def test_what_is_measured_in_deviations_of_one_bar_is_nan(name: str):
    bars = long_history().tables["day"].filter(pl.col("symbol") == "ITC")
    assert compute(bars, [name])[name].is_null().all()


def test_sets_are_the_modules_and_what_picks_from_them():
    assert set_names() == [*SELECTIONS, *MODULES]
    for name in MODULES:
        assert features_of(name), name
        assert {f.definition.set for f in features_of(name)} == {name}
    for name, chosen in SELECTIONS.items():
        assert [f.name for f in features_of(name)] == list(chosen)
    with pytest.raises(UnknownSet, match="technical"):
        features_of("tecnical")


def test_names_are_no_ones_twice():
    whole = [f.name for name in MODULES for f in features_of(name)]
    assert len(whole) == len(set(whole)) == len(EVERY)
    for name in SELECTIONS:
        chosen = [f.name for f in features_of(name)]
        assert len(chosen) == len(set(chosen))
    with pytest.raises(ValueError, match="feature rsi is defined twice"):
        feature(intervals=("5m",), unit="", source="", warm_up=lambda: 0)(DEFINITIONS["rsi"].formula)


# Versions


def forget() -> None:
    catalogue._meaning.cache_clear()
    catalogue._source.cache_clear()


def versions() -> dict[str, str]:
    forget()
    return {name: set_version(name) for name in set_names()}


def test_a_version_is_the_same_until_a_definition_changes_and_differs_between_sets():
    before = versions()
    assert versions() == before
    assert len(set(before.values())) == len(before)
    assert all(len(v) == 12 and set(v) <= set("0123456789abcdef") for v in before.values())


def _another_rsi(bars: Bars, runs: Runs, period: int = 14) -> FloatArray:
    """Relative strength index. NaN where no close has changed."""
    return wilder_rsi(bars.close, runs, period) + 0.0


@pytest.mark.parametrize(
    ("fields", "sets"),
    [
        ({"formula": _another_rsi}, {"technical", "decision"}),
        ({"warm_up": lambda period: 4 * period}, {"technical", "decision"}),
        ({"needs": frozenset({"volume"})}, {"technical", "decision"}),
        ({"variants": ((9,),)}, {"technical"}),
        ({"intervals": ("5m",)}, {"technical"}),
        ({"unit": "other words"}, set()),
        ({"source": "another book"}, set()),
        ({"bounds": (0.0, 101.0)}, set()),
    ],
    ids=lambda case: "+".join(case) if isinstance(case, dict) else "",
)
def test_a_version_changes_with_what_values_follow_from_and_with_nothing_else(
    fields: dict[str, object], sets: set[str]
):
    before = versions()
    changed("rsi", **fields)
    assert {name for name, version in versions().items() if version != before[name]} == sets


def test_a_feature_of_other_features_changes_with_what_it_reads():
    before, decided = versions(), decision_version()
    changed("sma_gap", warm_up=lambda window: window)  # read by `above_average`, not in the decision set
    after = versions()
    assert {name for name in before if before[name] != after[name]} == {"technical", "cross_section"}
    assert decision_version() == decided


@pytest.mark.parametrize("module", catalogue.ENGINE)
def test_every_version_changes_with_the_text_of_the_engine(module: str, monkeypatch: pytest.MonkeyPatch):
    before, decided, source = versions(), decision_version(), inspect.getsource

    def edited(thing: object) -> str:
        text = source(thing)  # pyright: ignore[reportArgumentType]
        return text + "# edited" if getattr(thing, "__name__", "").endswith(f"features.{module}") else text

    forget()
    monkeypatch.setattr(inspect, "getsource", edited)
    after = versions()
    assert all(after[name] != before[name] for name in before)
    assert decision_version() != decided
    forget()


@pytest.mark.parametrize(
    ("module", "name", "value", "sets"),
    [
        (fundamental, "_inverse", lambda x: 2.0 / x, {"fundamental"}),
        (fundamental, "PER_CENT", 1000.0, {"fundamental"}),
        (price_action, "HOUR", 3_600_000, {"price_action"}),
        (price_action, "business_hours", fundamental._inverse, {"price_action"}),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_version_changes_with_what_a_formula_uses_besides_the_kernels(
    module: ModuleType, name: str, value: object, sets: set[str], monkeypatch: pytest.MonkeyPatch
):
    before = versions()
    monkeypatch.setattr(module, name, value)
    assert {n for n, version in versions().items() if version != before[n]} == sets


# What a definition must say


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_definition_says_its_formula_unit_source_and_where_it_is_nan(name: str):
    definition = DEFINITIONS[name]
    assert definition.unit
    assert definition.source
    assert "NaN" in definition.says, "where it is NaN, or that it never is"
    assert len(definition.says.split()) >= 6
    low, high = definition.bounds
    assert low < high
    assert definition.mirror is None or low <= definition.mirror <= high
    assert definition.needs <= {"volume", "oi"} or definition.kind == "facts"
    assert set(definition.intervals) <= ({""} if definition.kind == "facts" else set(INTERVALS))
    numbers = [p for p in inspect.signature(definition.formula).parameters.values()][1:]
    count = len(numbers) - (definition.kind == "bars")
    for variant in definition.variants:
        assert len(variant) == count
        assert Feature(definition, variant, "").bars >= 0
    if definition.kind == "panel":
        assert all(Feature(definition, v, i).inputs for v in definition.variants for i in definition.intervals), (
            "a panel reads other features"
        )


@pytest.mark.parametrize("name", [n for n, d in DEFINITIONS.items() if d.kind == "panel"])
def test_a_feature_of_other_features_looks_back_as_far_as_they_do(name: str):
    definition = DEFINITIONS[name]
    for variant in definition.variants:
        whole = Feature(definition, variant, "day")
        assert whole.bars >= max(f.bars for f in whole.inputs)
        assert {f.interval for f in whole.inputs} == {"day"}


# What values keep


def assert_inside_bounds(history: History, first: int, last: int) -> None:
    features = of_bars()
    for grid in ("1m", "day"):
        own = [f for f in features if f.interval == grid or grid == "day"]
        values = history.values(first, last, grid, own)
        for f in own:
            low, high = f.definition.bounds
            found = values[f.name].to_numpy()
            known = found[~np.isnan(found)]
            slack = 1e-6 * max(abs(low), abs(high)) if math.isfinite(low + high) else 1e-9
            assert (known >= low - slack).all(), f.name
            assert (known <= high + slack).all(), f.name


def test_values_lie_within_their_bounds_on_random_bars():
    assert_inside_bounds(long_history(), -20, -1)


def test_values_lie_within_their_bounds_on_recorded_bars():
    calendar = session_calendar(load_profile("nse"))
    raw = pl.read_parquet(market_file("nse_equity_1m_2021.parquet"))
    some = raw.filter(pl.col("symbol").is_in(["TCS", "SBIN", "INFY", "RELIANCE"]), pl.col("ts").dt.month() == 4)
    found = some.select(pl.col("ts").dt.date().unique().sort())["ts"].to_list()
    days = [day for day in found if calendar.is_session(day)]
    hours = [calendar.hours(day) for day in days]
    inside = pl.any_horizontal(pl.col("ts").is_between(h.open, h.close, closed="left") for h in hours)
    known = {"known_at": pl.col("ts") + pl.duration(minutes=1), "oi": pl.lit(None, pl.Float64)}
    minutes = some.filter(inside).with_columns(**known).select(BARS.names()).cast(BARS)
    assert_inside_bounds(made_of(minutes, hours), 5, -1)


def test_bounds_that_are_told_are_reached_or_nearly_so():
    """A bound far from every value would test nothing: both ends of a closed range are seen within a tenth."""
    history = long_history()
    features = [
        f for f in of_bars("1m") if all(map(math.isfinite, f.definition.bounds)) and f.definition.kind == "bars"
    ]
    values = history.values(-20, -1, "1m", features)
    centres = {"asia_hours", "london_hours", "new_york_hours"}
    slow = {"adx", "plus_di", "minus_di", "obv_slope", "rsi"}
    for f in features:
        if f.definition.name in centres | slow:
            continue
        low, high = f.definition.bounds
        found = values[f.name].drop_nans()
        seen = np.array([found.min(), found.max()], float)
        assert (np.abs(seen - [low, high]) <= 0.1 * (high - low)).all(), (f.name, seen)


def test_how_many_bars_a_session_has_is_the_histories_own():
    assert set(PER_SESSION) == set(INTERVALS)
