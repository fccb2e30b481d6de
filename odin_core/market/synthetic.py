"""The synthetic exchange: minute bars of a market that does not exist, with a planted edge whose strength is known.

It is the embedded default source and the system's end-to-end oracle: with an edge a learner must find it, without one
nothing may be promoted. `market.synthetic_path` says what happens in a session; here a session becomes minutes. Bars of
a session depend on (seed, edge, symbols, session) and on the profile's sessions from `first_partition` to that one."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import BARS
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import MarketProfile
from odin_core.market.synthetic_path import (
    REGULAR_MINUTES,
    FloatArray,
    MarketModel,
    SessionPath,
    SessionPaths,
    Universe,
    draw_universe,
)
from odin_core.randomness import stream

FLOW_SPAN = 90 / REGULAR_MINUTES  # share of a session, at its end, in which its flow is seen
DRIFT_SPAN = (2 / REGULAR_MINUTES, 200 / REGULAR_MINUTES)  # share of a session in which the edge is realised
BURST = 1.0  # added volume per unit of |flow| in the flow's span
ACTIVITY_BLOCK = 15  # minutes that share a level of activity
BOUNCE = 0.15  # of a bar's open around the previous close, in standard deviations of a minute
WICK = 0.40  # of high and low beyond open and close, likewise
MAX_SYMBOLS = 999


class BadExchange(OdinError):
    def __init__(self, option: str, value: object, rule: str) -> None:
        super().__init__(f"synthetic exchange: {option} is {value}, but it must be {rule}")


class BeforeTheExchange(OdinError):
    def __init__(self, session: date, market: str, first: date) -> None:
        super().__init__(
            f"the synthetic exchange of market {market!r} opened on {first}, so {session} has no bars; "
            f"choose a later session, or an earlier first_partition in its profile"
        )


class SyntheticExchange:
    """An exchange with `symbols` symbols. `edge` 0 is a market without any signal, 1 has the strongest; the seed alone
    decides regimes, flows and noise, so exchanges that differ in `edge` only are the same market otherwise."""

    def __init__(
        self, profile: MarketProfile, *, seed: int, edge: float, symbols: int = 50, model: MarketModel | None = None
    ) -> None:
        """Raises BadExchange for an edge outside 0..1, a negative seed, or a number of symbols outside 1..999."""
        if not 0 <= edge <= 1:
            raise BadExchange("edge", edge, "between 0 and 1")
        if not 1 <= symbols <= MAX_SYMBOLS:
            raise BadExchange("symbols", symbols, f"between 1 and {MAX_SYMBOLS}")
        if seed < 0:
            raise BadExchange("seed", seed, "0 or more")
        self.market = profile.name
        self.seed = seed
        self.edge = edge
        self._tick = profile.tick_size
        self._epoch = profile.first_partition
        self._calendar = session_calendar(profile)
        self._model = model or MarketModel()
        self._universe = draw_universe(seed, self._epoch, symbols, self._model)
        self._paths = SessionPaths(self._calendar, self._epoch, self._universe, seed, edge, self._model)

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._universe.symbols

    def bars(self, session: date) -> pl.DataFrame:
        """One-minute bars of a session, schema BARS, sorted by symbol and ts; halted and missing minutes have no row.

        A bar without a trade repeats the last price with volume 0. Raises NotASession, OutsideCalendar and
        BeforeTheExchange."""
        path = self._path(session)
        prices = _fill_minutes(
            path, self._universe, self._model, self._tick, stream(self.seed, session, "exchange.minutes")
        )
        start = int(self._calendar.hours(session).open.timestamp()) * 1_000_000
        ts = np.tile(start + 60_000_000 * np.arange(path.minutes), len(self.symbols))[prices.present]
        code = np.repeat(np.arange(len(self.symbols), dtype=np.uint32), path.minutes)[prices.present]
        return pl.DataFrame(
            {
                "symbol": pl.Series(self.symbols, dtype=pl.String).gather(code),
                "ts": pl.Series(ts).cast(BARS["ts"]),
                "known_at": pl.Series(ts + 60_000_000).cast(BARS["known_at"]),
                "open": prices.open,
                "high": prices.high,
                "low": prices.low,
                "close": prices.close,
                "volume": prices.volume,
                "oi": pl.repeat(None, ts.size, dtype=pl.Float64, eager=True),
            },
            schema=BARS,
        )

    def regime(self, session: date) -> str:
        """'calm', 'normal' or 'volatile'. Hidden from the market's participants, who see only its volatility."""
        self._path(session)
        return self._paths.regime(session)

    def oracle(self, session: date) -> pl.DataFrame:
        """What nobody can see at a session's close: one row per symbol with `flow` (standard normal) and `signal`, the
        next session's planted open-to-close drift at edge 1, in standard deviations of that return. For tests."""
        path = self._path(session)
        return pl.DataFrame({"symbol": self.symbols, "flow": path.flow, "signal": path.signal})

    def _path(self, session: date) -> SessionPath:
        self._calendar.require(session)
        if session not in self._paths:
            raise BeforeTheExchange(session, self.market, self._paths.sessions[0])
        return self._paths.path(session)


@dataclass(frozen=True, kw_only=True)
class _Minutes:
    """Columns of one session's rows, symbol by symbol; `present` (symbols · minutes,) marks which minutes have one."""

    present: np.ndarray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray


def _fill_minutes(
    path: SessionPath, universe: Universe, model: MarketModel, tick: float, rng: np.random.Generator
) -> _Minutes:
    shape = (len(universe.symbols), path.minutes)
    activity = _activity(rng, shape)
    curve = _curve(path.minutes, base=0.7, early=4.0, early_span=0.03, late=0.4, late_span=0.06)
    deviation = path.scale[:, None] * np.sqrt(curve * activity)
    log_close = path.log_open[:, None] + _log_path(path, universe, model, curve, activity, rng)
    traded, present = _trading(path.minutes, universe, model, rng)
    return _round_off(
        path, log_close, deviation, _volume(path, universe, model, activity, rng), traded, present, tick, rng
    )


def _log_path(
    path: SessionPath,
    universe: Universe,
    model: MarketModel,
    curve: FloatArray,
    activity: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """Log price at the end of each minute over the session's open, shape (symbols, minutes): bridges that end where the
    session ends. The noise of a minute is the same for every edge; only the end that it is bent to differs."""
    ends = np.concatenate([[path.market], path.sector])
    factors = _bridge(rng.standard_normal((ends.size, path.minutes)), np.tile(curve, (ends.size, 1)), ends)
    own_share = 1 - universe.market_loading**2 - model.sector_share
    steps = _bridge(rng.standard_normal(activity.shape), own_share[:, None] * curve * activity, path.own)
    steps += universe.market_loading[:, None] * factors[0] + model.sector_share**0.5 * factors[1:][universe.sector]
    steps += (model.flow_loading * path.flow)[:, None] * _ramp(path.minutes, 1 - FLOW_SPAN, 1.0)
    steps += path.drift[:, None] * _ramp(path.minutes, *DRIFT_SPAN)
    steps *= path.scale[:, None]
    steps -= (path.scale**2 / (2 * path.minutes))[:, None]
    return np.cumsum(steps, axis=1)


def _bridge(normal: FloatArray, variance: FloatArray, end: FloatArray) -> FloatArray:
    """Steps of shape (series, minutes) with the variances given, shifted in proportion to them so that each series sums
    to its end: Brownian bridges."""
    steps = normal * np.sqrt(variance)
    missing = (end - steps.sum(axis=1)) / variance.sum(axis=1)
    return steps + variance * missing[:, None]


def _activity(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Positive, mean 1: bursts of a quarter of an hour times bursts of a minute, common to variance and volume."""
    blocks = -(-shape[1] // ACTIVITY_BLOCK)
    slow = np.repeat(rng.standard_normal((shape[0], blocks)), ACTIVITY_BLOCK, axis=1)[:, : shape[1]]
    return np.exp(0.35 * (slow + rng.standard_normal(shape)) - 0.35**2)


def _curve(minutes: int, *, base: float, early: float, early_span: float, late: float, late_span: float) -> FloatArray:
    """A session's U shape, shape (minutes,), sum 1. Spans are shares of the session."""
    x = (np.arange(minutes) + 0.5) / minutes
    curve = base + early * np.exp(-x / early_span) + late * np.exp((x - 1) / late_span)
    return curve / curve.sum()


def _ramp(minutes: int, start: float, end: float) -> FloatArray:
    """Equal steps from one share of the session to another, sum 1."""
    x = np.arange(minutes) / minutes
    inside = ((x >= start) & (x < end)).astype(np.float64)
    return inside / inside.sum()


def _volume(
    path: SessionPath, universe: Universe, model: MarketModel, activity: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Shares traded by minute where anything trades, shape (symbols, minutes): whole and at least 1."""
    curve = _curve(path.minutes, base=0.6, early=3.0, early_span=0.04, late=1.0, late_span=0.05)
    level = universe.shares * (path.minutes / REGULAR_MINUTES) * model.regime_volume[path.regime]
    day = np.exp(0.25 * rng.standard_normal(level.size))
    noise = np.exp(0.45 * rng.standard_normal(activity.shape) - 0.45**2 / 2)
    volume = (level * day)[:, None] * curve * activity * noise
    in_flow = _ramp(path.minutes, 1 - FLOW_SPAN, 1.0) > 0
    volume[:, in_flow] *= 1 + BURST * np.abs(path.flow)[:, None]
    return np.maximum(np.rint(volume), 1.0)


def _trading(
    minutes: int, universe: Universe, model: MarketModel, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which minutes saw a trade and which have a row, both of shape (symbols, minutes). A halt has neither; it starts
    after the fifth minute and ends before the last five. The first minute always trades, though its row may be lost."""
    draw = rng.random((len(universe.symbols), minutes))
    missing = draw < universe.missing[:, None]
    idle = ~missing & (draw < (universe.missing + universe.zero)[:, None])
    idle[:, 0] = False
    halted = _halts(minutes, len(universe.symbols), model, rng)
    return ~(idle | halted), ~(missing | halted)


def _halts(minutes: int, count: int, model: MarketModel, rng: np.random.Generator) -> np.ndarray:
    shortest, longest = model.halt_minutes
    hit = rng.random(count) < model.halt_probability
    length = np.minimum(shortest + np.floor(rng.random(count) * (longest + 1 - shortest)), minutes // 3)
    start = 5 + np.floor(rng.random(count) * (minutes - 10 - length))
    t = np.arange(minutes)
    return hit[:, None] & (t >= start[:, None]) & (t < (start + length)[:, None])


def _round_off(
    path: SessionPath,
    log_close: FloatArray,
    deviation: FloatArray,
    volume: FloatArray,
    traded: np.ndarray,
    present: np.ndarray,
    tick: float,
    rng: np.random.Generator,
) -> _Minutes:
    """Bars on the tick grid from latent log closes; a minute without a trade repeats the last traded close."""
    bounce = BOUNCE * deviation[:, 1:] * rng.standard_normal(deviation[:, 1:].shape)
    wicks = np.abs(rng.standard_normal((2, *deviation.shape))) * deviation * WICK
    close = np.exp(log_close)
    open_ = np.concatenate([np.exp(path.log_open)[:, None], close[:, :-1] * (1 + bounce)], axis=1)
    high = np.maximum(open_, close) * (1 + wicks[0])
    low = np.minimum(open_, close) * (1 - wicks[1])
    last = np.maximum.accumulate(np.where(traded, np.arange(path.minutes), 0), axis=1)
    close = np.take_along_axis(_to_tick(close, tick), last, axis=1)
    columns = {
        name: np.where(traded, _to_tick(values, tick), close)[present]
        for name, values in (("open", open_), ("high", high), ("low", low))
    }
    return _Minutes(
        present=present.ravel(), close=close[present], volume=np.where(traded, volume, 0.0)[present], **columns
    )


def _to_tick(price: FloatArray, tick: float) -> FloatArray:
    """The nearest multiple of the tick, at least one tick; 0.05 gives the double that prints as 123.45."""
    per_unit = 1 / tick
    return np.maximum(np.rint(price * per_unit), 1.0) / per_unit
