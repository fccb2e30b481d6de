"""The leak wall around a market: all checks over every feature of a set, and over the labels, on its own bars."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.features.catalogue import Feature, features_of
from odin_core.features.engine import evaluate, sessions_needed, with_inputs
from odin_core.features.filling import Span
from odin_core.labels.grids import HISTORY, labels_of
from odin_core.leaks.cutting import (
    Compute,
    cuts_of,
    future_perturbation,
    scrambled,
    stamp_shift,
    truncate_and_recompute,
)
from odin_core.leaks.learning import Fit, cheat_feature, sample_of, shuffled_labels
from odin_core.leaks.ranking import lag_sensitivity
from odin_core.leaks.verdict import Verdict
from odin_core.market.bars import BARS, MINUTE, minutes_of, resample_sessions
from odin_core.market.calendar import Hours

if TYPE_CHECKING:
    from odin_core.market.data import MarketData

DAY, WEEK = timedelta(days=1), timedelta(days=7)
CUTS: Final = 3
WANTED: Final = 2  # sessions that are computed again
AHEAD: Final = 12  # bars of the interval that rows are ranked on
LABEL_KEYS: Final = ("symbol", "known_at", "decided_at", "interval")


class TooLittleForTheWall(OdinError):
    def __init__(self, market: str, needed: int, have: int) -> None:
        super().__init__(
            f"{market} has {have} sessions of minute bars and the leak wall needs {needed}: import or fetch more"
        )


class NothingToCheck(OdinError):
    def __init__(self, set_name: str) -> None:
        super().__init__(
            f"no feature of the set {set_name!r} can be checked: they follow from published figures and not from bars, "
            f"or need more sessions than there are"
        )


class Wall(NamedTuple):
    """What the checks said, and the features that could not be checked."""

    verdicts: list[Verdict]
    left_out: list[str]


def wall_around_features(
    data: "MarketData",
    set_name: str,
    last: date,
    *,
    fit: Fit,
    interval: str = "5m",
    sessions: int = 20,
    symbols: int = 5,
    seed: int = 0,
) -> Wall:
    """Every check over those features of a set that follow from bars, on bars of `interval`. Left out is what needs
    more sessions before than there are.

    The first three compute them again from minute bars of `symbols` symbols, in the WANTED sessions up to `last`. The
    others look at the set's rows of all symbols in `sessions` sessions and returns AHEAD bars ahead, one feature at a
    time and with the learner `fit`; the alarm is the market's. What follows from stamps alone, as the hours to the
    close, is not ranked by itself: it cannot know a price, and hours of the day do differ. Raises
    TooLittleForTheWall, NothingToCheck, UnknownSet and NoBarsOfFeatures."""
    have = len(data.sessions(None, last))
    of_bars = [f for f in features_of(set_name) if f.definition.kind != "facts"]
    features = [f for f in of_bars if WANTED + sessions_needed([f], interval, data.per_session) <= have]
    if not features:
        raise NothingToCheck(set_name)
    needed = WANTED + sessions_needed(features, interval, data.per_session)
    days = _sessions(data, last, max(needed, sessions))
    minutes = _minutes(data, days[-needed:], symbols)
    compute = _recomputed(data, features, interval, minutes, days[-needed:])
    delay = MINUTE * (minutes_of(interval) or 1)
    verdicts = _of_the_future(compute, minutes, delay, ("symbol", "known_at"), seed)
    recent, alarm = days[-sessions:], data.profile.ic_alarm
    found = data.features(None, interval, recent[0], recent[-1], set_name)
    rows = found.select("symbol", "known_at", *(f.name for f in features))
    bars = pl.concat(data.bars_of(day, interval) for day in recent)
    verdicts += lag_sensitivity(rows.drop(_of_the_clock(compute, minutes, seed)), bars, alarm=alarm)
    sample, rng = sample_of(rows, bars, AHEAD), np.random.default_rng(seed)
    verdicts += [check(fit, sample, rng, alarm=alarm) for check in (shuffled_labels, cheat_feature)]
    return Wall(verdicts, [f.name for f in of_bars if f not in features])


def wall_around_labels(data: "MarketData", last: date, *, symbols: int = 5, seed: int = 0) -> list[Verdict]:
    """The first three checks over every label of decisions up to `last`, each against what was known by its end.
    Raises TooLittleForTheWall."""
    days = _sessions(data, last, HISTORY + 1)
    minutes = _minutes(data, days, symbols)
    begin, hours = _first(minutes), [data.calendar.hours(day) for day in days]

    def compute(bars: pl.DataFrame) -> pl.DataFrame:
        moved, as_of = _first(bars) - begin, _last_known(bars)
        then = [h for h in _moved(hours, moved) if h.open < as_of]
        whole = resample_sessions(bars, "day", then).select(*BARS).filter(pl.col("known_at") <= as_of)
        found = labels_of(bars, whole, then, since=then[0].open, as_of=as_of).rename({"label_end": "known_at"})
        return found.pivot("label", index=list(LABEL_KEYS), values="value", aggregate_function="first")

    return _of_the_future(compute, minutes, timedelta(0), LABEL_KEYS, seed)


def _of_the_future(
    compute: Compute, minutes: pl.DataFrame, delay: timedelta, keys: Sequence[str], seed: int
) -> list[Verdict]:
    """The checks that change what comes after a cut, at cuts among the last two sessions' bars."""
    cuts = cuts_of(minutes.filter(pl.col("known_at") > _last_known(minutes) - 2 * DAY), CUTS)
    return [
        *truncate_and_recompute(compute, minutes, cuts, keys=keys),
        *future_perturbation(compute, minutes, cuts, np.random.default_rng(seed), keys=keys),
        *stamp_shift(compute, minutes, cuts, shift=WEEK, delay=delay, keys=keys),
    ]


def _of_the_clock(compute: Compute, minutes: pl.DataFrame, seed: int) -> list[str]:
    """The features that stay the same when every price, volume and open interest is another one."""
    values, others = compute(minutes), compute(scrambled(minutes, pl.lit(True), np.random.default_rng(seed)))
    return [name for name in values.columns[2:] if values[name].equals(others[name])]


def _recomputed(
    data: "MarketData", features: Sequence[Feature], interval: str, minutes: pl.DataFrame, days: Sequence[date]
) -> Compute:
    """The features on bars of an interval in the last WANTED of `days`, out of minute bars that begin where `minutes`
    does; stamps may be moved, and bars known later than at their end."""
    begin, per_session = _first(minutes), data.per_session
    hours = [data.calendar.hours(day) for day in days]

    def compute(bars: pl.DataFrame) -> pl.DataFrame:
        moved = _first(bars) - begin
        late = pl.lit((bars["known_at"] - bars["ts"]).min()) - MINUTE
        span = Span(_moved(hours, moved), len(hours) - WANTED, per_session)
        tables = {"1m": bars} | {
            name: resample_sessions(bars, name, span.hours).select(*BARS).with_columns(pl.col("known_at") + late)
            for name in dict.fromkeys([interval, *(f.interval for f in with_inputs(features))])
            if name not in ("", "1m")
        }
        found = evaluate(tables, features, interval, span)
        values = pl.DataFrame(list(found.values), schema=[f.name for f in features], nan_to_null=True)
        return found.keys.select("symbol", "known_at").hstack(values)

    return compute


def _first(bars: pl.DataFrame) -> datetime:
    return bars.select(pl.col("ts").min()).item()


def _last_known(bars: pl.DataFrame) -> datetime:
    return bars.select(pl.col("known_at").max()).item()


def _moved(hours: Sequence[Hours], by: timedelta) -> list[Hours]:
    return [Hours(h.open + by, h.close + by) for h in hours]


def _sessions(data: "MarketData", last: date, count: int) -> list[date]:
    """The last `count` sessions up to one that have minute bars. Raises TooLittleForTheWall."""
    have = [day for day in data.sessions(None, last) if data.has(day)]
    if len(have) < count:
        raise TooLittleForTheWall(data.profile.name, count, len(have))
    return have[-count:]


def _minutes(data: "MarketData", days: Sequence[date], symbols: int) -> pl.DataFrame:
    """Minute bars of the sessions, of the symbols that have most of them in the last one, by symbol and time."""
    counts = data.bars(days[-1]).group_by("symbol").len().sort("len", "symbol", descending=[True, False])
    names = counts["symbol"].head(symbols).to_list()
    return data.read(names, days[0], days[-1]).sort("symbol", "ts")
