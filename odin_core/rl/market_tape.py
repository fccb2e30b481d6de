"""A market's data as a tape: its bars, and at the end of each what an encoder and the features say.

One encoder for the whole tape, since state vectors of two encoders have nothing in common. What an encoder was trained
on may lie inside a tape that is learned from; decisions that count as evidence come after both."""

import math
from collections.abc import Sequence
from datetime import date, datetime
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.execution.orders import Bars
from odin_core.features.series import Runs
from odin_core.rl.tape import Tape
from odin_core.structure.heatmap import BINS, rolling_heatmap

if TYPE_CHECKING:
    from odin_core.encoder.model import TrainedEncoder
    from odin_core.market.data import MarketData

VOLATILITY, BARS_IN_IT = "realised_volatility_75_5m", 75  # of 5-minute bars
RISK_UNIT = "natr_14_60m"
MINUTES_IN_IT: Final = 5 * BARS_IN_IT
HEATMAP_SESSIONS: Final = 8  # before a row's own, in whose bars its heatmap looks for pivots


class NothingOnTape(OdinError):
    def __init__(self, market: str, first: date, last: date) -> None:
        super().__init__(
            f"{market}: no bar between {first} and {last} has a state vector and a known volatility; choose a range "
            f"with bars and with some weeks of history before it (`odin data show --market {market}`)"
        )


def market_tape(
    data: "MarketData",
    first: date,
    last: date,
    encoder: "TrainedEncoder",
    *,
    symbols: Sequence[str] | None = None,
    as_of: datetime | None = None,
) -> Tape:
    """Bars of the encoder's interval from session `first` to `last`, by symbol (None: all), as a tape.

    State: the encoder's embedding at the bar's end. Heatmap: `structure.heatmap.rolling_heatmap`, which reads the bars
    of the row's session and of HEATMAP_SESSIONS before it. Volatility: of one bar, from the last 75 five-minute bars.
    Risk unit: the 60-minute ATR over the close. Rows where one of them is unknown are not decidable and hold 0. Prices
    are raw, since no position outlives its session. `as_of` (aware): only bars known by then. A row follows from bars
    up to it alone. Raises NothingOnTape."""
    from odin_core.encoder.store import kept_embeddings

    interval = encoder.config.interval
    bars = data.read(symbols, first, last, interval, as_of=as_of)
    if bars.is_empty():
        raise NothingOnTape(data.profile.name, first, last)
    sessions = [s for s in data.calendar.sessions(first, last) if data.has_any(s)]
    vectors = pl.concat([kept_embeddings(data, encoder, session) for session in sessions])
    scale = data.features(symbols, interval, first, last, "decision", as_of).select(
        "symbol", "known_at", "session", risk=pl.col(RISK_UNIT), volatility=pl.col(VOLATILITY)
    )
    heat = pl.concat([_heatmaps(data, symbols, part, interval, as_of) for part in _of_one_scale(data, sessions)])
    rows = bars.join(vectors.drop("session"), on=["symbol", "known_at"], how="left")
    rows = rows.join(heat, on=["symbol", "known_at"], how="left")
    rows = rows.join(scale, on=["symbol", "known_at"], how="inner").sort("symbol", "known_at")
    runs = rows["symbol"].rle().struct.unnest()
    starts = np.concatenate([[0], np.cumsum(runs["len"].to_numpy())]).astype(np.int64)
    names = runs["value"].to_list()
    known = _known(rows)
    if not known.any():
        raise NothingOnTape(data.profile.name, first, last)
    return Tape.of(
        bars=_in_units(rows, data, names, starts, last),
        symbols=names,
        starts=starts,
        session=rows["session"].dt.epoch("d").to_numpy() + date(1970, 1, 1).toordinal(),
        state=_vectors(rows["embedding"], encoder.config.embedding),
        heatmap=_vectors(rows["heatmap"], BINS),
        volatility=rows["volatility"].cast(pl.Float64).to_numpy() * math.sqrt(_minutes(interval) / MINUTES_IN_IT),
        risk_unit=rows["risk"].cast(pl.Float64).to_numpy(),
        lot=np.array(data.profile.lot_sizes(names, last), float),
        decidable=known,
    )


def _known(rows: pl.DataFrame) -> np.ndarray:
    positive = [(pl.col(name) > 0).fill_null(value=False) & pl.col(name).is_finite() for name in ("risk", "volatility")]
    return rows.select(pl.all_horizontal(pl.col("embedding").is_not_null(), *positive)).to_series().to_numpy()


def _vectors(column: pl.Series, width: int) -> np.ndarray:
    """(rows, width) float32; 0 where there is no vector."""
    filled = column.fill_null(pl.lit([0.0] * width, pl.Array(pl.Float32, width)))
    return filled.to_numpy().astype(np.float32, copy=False)


def _of_one_scale(data: "MarketData", sessions: list[date]) -> list[list[date]]:
    """Consecutive sessions at whose closes the same corporate actions had been felt, so that prices and names at the
    last of these closes are what they were at each."""
    felt = data.actions.rows.select(pl.max_horizontal("known_at", "ex_at")).to_series()
    groups = groupby(sessions, lambda session: (felt <= data.calendar.hours(session).close).sum())
    return [list(group) for _, group in groups]


def _heatmaps(
    data: "MarketData", symbols: Sequence[str] | None, sessions: list[date], interval: str, as_of: datetime | None
) -> pl.DataFrame:
    """symbol (its name in its session), known_at and heatmap of the bars of `sessions`. Each session's rows read that
    session and the HEATMAP_SESSIONS with bars before it, as they looked at its close, whatever else is on the tape."""
    close = data.calendar.hours(sessions[-1]).close
    as_of = min(close, as_of) if as_of else close
    earlier = data.calendar.sessions(data.calendar.first, sessions[0])[:-1]
    before = list(islice((s for s in reversed(earlier) if data.has_any(s)), HEATMAP_SESSIONS))[::-1]
    days = [*before, *sessions]
    bars = pl.concat([data.bars_of(day, interval).with_columns(place=pl.lit(place)) for place, day in enumerate(days)])
    bars = bars.filter(pl.col("known_at") <= as_of).with_columns(name="symbol")
    bars = data.actions.adjusted(bars, as_of).sort("symbol", "known_at")
    if symbols is not None:
        bars = bars.filter(pl.col("name").is_in(list(symbols)).any().over("symbol"))
    own = (
        bars.with_row_index("row")
        .group_by("symbol", "place")
        .agg(first=pl.col("row").min(), end=pl.col("row").max() + 1)
    )
    own = own.sort("place")
    earliest = own.select("symbol", "place", start="first")
    runs = own.with_columns(pl.col("place") - HEATMAP_SESSIONS).join_asof(
        earliest, on="place", by="symbol", strategy="forward", check_sortedness=False
    )
    runs = runs.sort("first").select(pl.col("start", "first", "end").cast(pl.Int64))
    high, low, close = (bars[name].to_numpy() for name in ("high", "low", "close"))
    share = rolling_heatmap(high, low, close, Runs(*(runs[name].to_numpy() for name in runs.columns)))
    column = pl.Series(np.nan_to_num(share), dtype=pl.Array(pl.Float32, BINS))
    known = bars.select("known_at", symbol="name", heatmap=column)
    return known.filter(bars["place"] >= len(before))


def _in_units(rows: pl.DataFrame, data: "MarketData", names: Sequence[str], starts: np.ndarray, session: date) -> Bars:
    """Bars whose volume counts what orders count."""
    units = np.repeat(np.array(data.profile.volume_units(names, session), float), np.diff(starts))
    bars = Bars.from_frame(rows)
    return bars._replace(volume=bars.volume * units)


def _minutes(interval: str) -> int:
    from odin_core.market.bars import minutes_of

    minutes = minutes_of(interval)
    if minutes is None:
        raise ValueError(f"a tape is of bars within a session, and not of {interval!r}")
    return minutes
