"""The wall around the labels: what was known by a label's end is all that it follows from."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from leakyfeatures import WEEK

from odin_core.labels import labels_of
from odin_core.leaks import Verdict, cuts_of, future_perturbation, stamp_shift, truncate_and_recompute
from odin_core.market.bars import MINUTE, resample_sessions
from odin_core.market.calendar import Hours

MINUTES, SESSIONS = 150, 20
KEYS = ("symbol", "known_at", "decided_at", "interval", "label")
OPEN = datetime(2023, 1, 2, 3, 45, tzinfo=UTC)


def hours_between(first: datetime, last: datetime) -> list[Hours]:
    """Sessions of one day each, of which those count that began."""
    opens = [OPEN + timedelta(days=d) for d in range(SESSIONS + 2 * WEEK.days)]
    return [Hours(at, at + MINUTES * MINUTE) for at in opens if first < at + MINUTES * MINUTE and at <= last]


@pytest.fixture(scope="module")
def minutes() -> pl.DataFrame:
    rng, n = np.random.default_rng(3), MINUTES * SESSIONS
    ts = [h.open + i * MINUTE for h in hours_between(OPEN, OPEN + timedelta(days=SESSIONS - 1)) for i in range(MINUTES)]
    frames = []
    for symbol in ("ITC", "SBIN", "TCS"):
        close = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.001, n)))
        opened = np.concatenate([[100.0], close[:-1]])
        high, low = np.maximum(opened, close) * 1.0005, np.minimum(opened, close) * 0.9995
        bars = {"symbol": symbol, "ts": ts, "open": opened, "high": high, "low": low, "close": close}
        frame = pl.DataFrame(bars, schema_overrides={"ts": pl.Datetime("us", "UTC")})
        frames.append(frame.with_columns(volume=pl.Series(rng.uniform(1, 9, n)), oi=pl.Series(rng.uniform(1, 2, n))))
    every = pl.concat(frames).with_columns(known_at=pl.col("ts") + MINUTE)
    return every.select("symbol", "ts", "known_at", "open", "high", "low", "close", "volume", "oi").sort("ts", "symbol")


def labels(minutes: pl.DataFrame, early: timedelta = timedelta(0)) -> pl.DataFrame:
    """All labels known by the last bar; with `early`, they claim to have been known so long before."""
    first, as_of = minutes["ts"].min(), minutes["known_at"].max()
    assert isinstance(first, datetime)
    assert isinstance(as_of, datetime)
    hours = hours_between(first, as_of)
    days = resample_sessions(minutes, "day", hours).drop("interval").filter(pl.col("known_at") <= as_of)
    found = labels_of(minutes, days, hours, since=first, as_of=as_of)
    return found.with_columns(known_at=pl.col("label_end") - early).drop("label_end")


def by_reading(minutes: pl.DataFrame, early: timedelta) -> list[Verdict]:
    def compute(bars: pl.DataFrame) -> pl.DataFrame:
        return labels(bars, early)

    cuts = cuts_of(minutes, 3)
    return [
        *truncate_and_recompute(compute, minutes, cuts, keys=KEYS),
        *future_perturbation(compute, minutes, cuts, np.random.default_rng(1), keys=KEYS),
        *stamp_shift(compute, minutes, cuts, shift=WEEK, delay=timedelta(0), keys=KEYS),
    ]


def test_every_label_follows_from_what_was_known_at_its_end(minutes: pl.DataFrame):
    verdicts = by_reading(minutes, timedelta(0))
    assert [v for v in verdicts if not v.passed] == []
    assert min(v.numbers["defined"] for v in verdicts if v.subject == "value") > 10_000


def test_a_label_said_to_be_known_a_minute_early_is_caught_by_every_check(minutes: pl.DataFrame):
    verdicts = by_reading(minutes, MINUTE)
    assert [v.passed for v in verdicts if v.subject == "value"] == [False] * 3
