"""What an encoder says of one session: an embedding of each bar of each symbol, known at the bar's end.

An embedding follows from the session's own bars up to its own, and from the `length` − 1 rows of its symbol before the
session's first bar, as far as they lie within a number of sessions that the configuration fixes. So it is the same
numbers whichever sessions, symbols or later bars there are: windows go through the network in groups of one shape."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from odin_core.encoder.model import TrainedEncoder
from odin_core.encoder.samples import sequence_rows
from odin_core.encoder.training import repeatable
from odin_core.errors import OdinError
from odin_core.features.series import IntArray
from odin_core.features.windows import SequenceWindows
from odin_core.market.bars import MINUTE, UTC, minutes_of
from odin_core.market.calendar import SessionCalendar
from odin_core.market.history import require_aware

if TYPE_CHECKING:
    from odin_core.market.data import MarketData

AT_ONCE: Final = 8
"""Symbols that go through the network together, fewer being filled up with empty ones."""
SPARE_SESSIONS: Final = 3
"""Sessions that are read beyond those that hold `length` bars if none is missing."""


class ColumnsMissing(OdinError):
    def __init__(self, version: str, missing: Sequence[str]) -> None:
        super().__init__(
            f"{version} reads {', '.join(missing)}, which the rows do not have; it was trained on another version of "
            f"the features: train it again"
        )


def embeddings_schema(size: int) -> pl.Schema:
    """symbol, known_at (end of the bar, UTC), session, embedding: `size` float32 of order 1."""
    return pl.Schema(
        {"symbol": pl.String(), "known_at": UTC, "session": pl.Date(), "embedding": pl.Array(pl.Float32, size)}
    )


def session_embeddings(
    data: "MarketData", model: TrainedEncoder, session: date, *, as_of: datetime | None = None
) -> pl.DataFrame:
    """`embeddings` of all symbols of a market for one session, as known at its close or, if that is earlier, at `as_of`
    (aware). Empty for a session without bars. Raises NotASession, NaiveMoment and what `MarketData.features` raises."""
    close = data.calendar.hours(data.calendar.require(session)).close
    if as_of is not None:
        require_aware("as_of", as_of)
        close = min(close, as_of)
    return embeddings(model, session_rows(data, model, session, close), data.calendar, session)


def session_rows(data: "MarketData", model: TrainedEncoder, session: date, as_of: datetime) -> pl.DataFrame:
    """`sequence_rows` of a session and of those before it that its embeddings may follow from, as known at `as_of`."""
    interval = model.config.interval
    sessions = sessions_read(data.calendar, session, data.per_session[interval], model.config.length)
    first = max(sessions[0], min(data.profile.first_partition, session))
    return sequence_rows(data, first, session, interval, as_of=as_of)


def sessions_read(calendar: SessionCalendar, session: date, per_session: int, length: int) -> list[date]:
    """The sessions that a session's embeddings may follow from, itself last: those that hold length − 1 bars before it
    in a market of so many bars a session, and SPARE_SESSIONS more for bars that are missing."""
    before = -(-(length - 1) // per_session) + SPARE_SESSIONS
    return calendar.sessions(calendar.first, session)[-before - 1 :]


def embeddings(model: TrainedEncoder, frame: pl.DataFrame, calendar: SessionCalendar, session: date) -> pl.DataFrame:
    """The embedding of each row of `session` that has all its features: `embeddings_schema`, by symbol and known_at.

    frame: symbol, known_at, session and the encoder's features, of the session and the ones before it; earlier rows
    than the `length` − 1 before a symbol's first row of the session have no part, nor have later sessions. A row that
    lacks a feature is a gap to the network and has no embedding. Raises ColumnsMissing."""
    schema = embeddings_schema(model.config.embedding)
    if missing := [name for name in model.features if name not in frame.columns]:
        raise ColumnsMissing(model.version, missing)
    known = frame.filter(pl.col("session") <= session).sort("symbol", "known_at")
    if known.is_empty():
        return schema.to_frame()
    windows = SequenceWindows.of(known, model.features, calendar, model.config.interval, length=model.config.length)
    values, valid = windows.rows.values, windows.rows.valid
    begins = _first_rows(known, windows.starts, session)
    bars = _bars_of(calendar, session, model.config.interval)
    at, exists = _window_rows(windows.starts, begins, model.config.length, bars)
    found = _encoded(model, values, valid, at, exists, bars)
    of_session, is_there = at[:, -bars:], exists[:, -bars:] & valid[at[:, -bars:]]
    keys = known.select("symbol", "known_at", "session")[of_session[is_there]]
    return keys.with_columns(embedding=pl.Series(found[is_there], dtype=schema["embedding"])).match_to_schema(schema)


def _first_rows(known: pl.DataFrame, starts: IntArray, session: date) -> IntArray:
    """Of each symbol, its first row of the session; the row after its last one where it has none."""
    own = (known["session"] == session).to_numpy().astype(np.int64)
    counted = np.concatenate([[0], np.cumsum(own)])
    return starts[1:] - (counted[starts[1:]] - counted[starts[:-1]])


def _bars_of(calendar: SessionCalendar, session: date, interval: str) -> int:
    """How many bars the session has where none is missing and the market never halts."""
    opens, closes = calendar.hours(session)
    minutes = -(-(closes - opens) // MINUTE)
    return -(-minutes // (minutes_of(interval) or minutes))


def _window_rows(starts: IntArray, begins: IntArray, length: int, bars: int) -> tuple[IntArray, NDArray[np.bool_]]:
    """Of each symbol that has a row in the session, (symbols, length − 1 + bars): rows, the session's first one always
    in the same place, and which of them there are; those there are not are numbered 0."""
    ends = starts[1:]
    traded = begins < ends
    rows = begins[traded][:, None] + np.arange(1 - length, bars)
    exists = (rows >= starts[:-1][traded][:, None]) & (rows < ends[traded][:, None])
    return np.where(exists, rows, 0), exists


def _encoded(
    model: TrainedEncoder,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    at: IntArray,
    exists: NDArray[np.bool_],
    bars: int,
) -> NDArray[np.float32]:
    """(symbols, bars, embedding), AT_ONCE windows at a time, so that the arithmetic has one shape."""
    out = np.empty((len(at), bars, model.config.embedding), np.float32)
    scaled = model.scaling.of(values, valid)
    rows = np.zeros((AT_ONCE, at.shape[1], values.shape[1]), np.float32)
    seen = np.zeros((AT_ONCE, at.shape[1]), np.bool_)
    with torch.inference_mode(), repeatable(model.config.threads, "cpu"):
        for begin in range(0, len(at), AT_ONCE):
            chosen = slice(begin, begin + AT_ONCE)
            count = len(at[chosen])
            rows[:count], seen[:count] = scaled[at[chosen]], valid[at[chosen]] & exists[chosen]
            rows[count:], seen[count:] = 0.0, False
            found = model.encoder(torch.from_numpy(rows), torch.from_numpy(seen), bars)
            out[chosen] = found[:count].numpy()
    return out
