"""No feature changes when what lies after its decision, or before its window, is scrambled or removed."""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from odin_core.features.catalogue import FEATURES
from odin_core.features.provider import FeatureStream, feature_schema, session_features
from tests.features.histories import Day, random_days

SESSIONS = 14
NUMBERS = ("open", "high", "low", "close", "volume")


@pytest.fixture(scope="module")
def days() -> list[Day]:
    return random_days(SESSIONS, seed=2, missing=0.05)


def scrambled(bars: pl.DataFrame, rows: pl.Expr) -> pl.DataFrame:
    """The same bars with other prices and volumes in `rows`."""
    return bars.with_columns(
        pl.when(rows).then(pl.col(n) * (pl.col("ts").hash(seed) % 1000 / 500 + 0.1)).otherwise(pl.col(n))
        for seed, n in enumerate(NUMBERS)
    )


def features_of(days: list[Day]) -> pl.DataFrame:
    return session_features([day.bars for day in days], days[-1].session, days[-1].close_at)


@pytest.mark.parametrize("cut", [1, 6, 10, 13])
@pytest.mark.parametrize("future", ["scrambled", "removed"])
def test_nothing_up_to_a_cut_changes_with_what_comes_after_it(days: list[Day], cut: int, future: str):
    everything = pl.lit(True)
    after = [
        day._replace(bars=scrambled(day.bars, everything) if future == "scrambled" else day.bars.clear())
        for day in days[cut:]
    ]
    whole, changed = FeatureStream(), FeatureStream()
    for i, (day, other) in enumerate(zip(days, [*days[:cut], *after], strict=True)):
        left = whole.advance(day.bars, day.session, day.close_at)
        right = changed.advance(other.bars, other.session, other.close_at)
        if i < cut:
            assert_frame_equal(left, right, check_exact=True)
        else:
            assert not left.equals(right)


@pytest.mark.parametrize("minutes", [5, 140, 370])
@pytest.mark.parametrize("future", ["scrambled", "removed"])
def test_a_decision_inside_a_session_sees_no_bar_that_ends_later(days: list[Day], minutes: int, future: str):
    decided_at = days[-1].close_at - timedelta(minutes=375 - minutes)
    unknown = pl.col("known_at") > decided_at
    bars = days[-1].bars
    other = scrambled(bars, unknown) if future == "scrambled" else bars.filter(~unknown)
    history = [day.bars for day in days[:-1]]
    rows = session_features([*history, bars], days[-1].session, decided_at)
    assert_frame_equal(rows, session_features([*history, other], days[-1].session, decided_at), check_exact=True)
    assert len(rows) > 0
    assert rows["bars_5m"].max() == minutes // 5


def test_a_session_of_which_nothing_is_known_yet_has_no_rows(days: list[Day]):
    decided_at = days[-1].close_at - timedelta(minutes=375)
    rows = session_features([day.bars for day in days], days[-1].session, decided_at)
    assert rows.is_empty()
    assert rows.schema == feature_schema()


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_depends_on_its_last_bars_and_on_no_older_one(days: list[Day], name: str):
    entry = FEATURES[name]
    every = pl.concat([day.bars.with_columns(session=pl.lit(day.session)) for day in days])
    age = pl.col("ts").rank("ordinal", descending=True).over("symbol", "interval")
    own = pl.col("interval") == entry.interval

    def value_on(bars: pl.DataFrame) -> pl.Series:
        parts = bars.partition_by("session", as_dict=True)
        return features_of([day._replace(bars=parts[(day.session,)].drop("session")) for day in days])[name]

    value, in_window = features_of(days)[name], own & (age <= entry.bars)
    assert value.null_count() == 0
    assert value_on(scrambled(every, ~in_window)).equals(value)
    assert value_on(every.filter(~own | in_window)).equals(value)
    assert not (value_on(scrambled(every, in_window)) == value).any()
