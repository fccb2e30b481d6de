"""Bars as arrays, and runs: which rows of them one session's values may read. What every formula gets.

A *run* is one session of one symbol. Its values follow from the session's own bars up to each row, and from at most the
N bars before the session's first one, N being the feature's warm-up. Recursions and running sums begin anew in every
run, so a value is the same bits whichever range is computed, in whatever company, with any number of threads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Self, TypeAlias

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
MovedCloses: TypeAlias = Mapping[int, tuple[int, int]]

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
"""How every kernel is compiled: in one thread, without fast-math, so that sums keep their order."""

PRICES = ("open", "high", "low", "close")
FIELDS = (*PRICES, "volume", "oi")
DAY = 86_400_000_000  # microseconds


class Runs(NamedTuple):
    """Int64 arrays (runs,), rows of `Bars`: values are wanted for [first, end) and may read [start, end).
    The rows of one run are of one symbol and ascend in time; no row is wanted by two runs."""

    start: IntArray
    first: IntArray
    end: IntArray


@dataclass(frozen=True)
class Bars:
    """Bars of one interval, symbol after symbol, each symbol's ascending in time; arrays (rows,).

    Float64, NaN where the source has none; prices of a run are on the scale of its own session. `ts` is the start and
    `known_at` the end, microseconds since 1970; `session` is a row's place in `opens` and `closes` (sessions,), the
    hours of the sessions; `symbol` is a row's symbol as a number. `moved_closes`: of the few sessions whose close was
    moved after their open, by place, when that was announced, and the close until then."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    oi: FloatArray
    ts: IntArray
    known_at: IntArray
    symbol: IntArray
    session: IntArray
    opens: IntArray
    closes: IntArray
    moved_closes: MovedCloses = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        frame: pl.DataFrame,
        opens: IntArray,
        closes: IntArray,
        moved_closes: MovedCloses | None = None,
    ) -> Self:
        """Out of rows sorted by symbol and ts, all inside the sessions; `volume`, `oi`, `known_at` may be missing:
        unknown, and known at once."""
        ts = frame["ts"].cast(pl.Datetime("us")).to_physical().to_numpy()
        known_at = frame["known_at"].cast(pl.Datetime("us")).to_physical().to_numpy() if "known_at" in frame else ts
        rows = len(ts)
        values = [
            np.ascontiguousarray(frame[f].cast(pl.Float64).fill_null(np.nan).to_numpy())
            if f in frame
            else np.full(rows, np.nan)
            for f in FIELDS
        ]
        runs = frame["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
        return cls(
            *values,
            ts=ts,
            known_at=known_at,
            symbol=np.repeat(np.arange(len(runs)), runs),
            session=np.searchsorted(opens, ts, side="right") - 1,
            opens=opens,
            closes=closes,
            moved_closes=moved_closes or {},
        )

    def __len__(self) -> int:
        return len(self.ts)

    @cached_property
    def log_open(self) -> FloatArray:
        return np.log(self.open)

    @cached_property
    def log_high(self) -> FloatArray:
        return np.log(self.high)

    @cached_property
    def log_low(self) -> FloatArray:
        return np.log(self.low)

    @cached_property
    def log_close(self) -> FloatArray:
        return np.log(self.close)


def whole_series(bars: Bars) -> Runs:
    """One run for each symbol, from its first row to its last: the textbook's series."""
    first = np.flatnonzero(np.diff(bars.symbol, prepend=-1))
    return Runs(first, first, np.append(first[1:], len(bars)))
