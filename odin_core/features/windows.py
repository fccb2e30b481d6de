"""Windows for sequence models: the last `length` rows of one symbol up to a decision, in order, with what to mask.

In comes a frame of features of one interval, symbol after symbol. It is copied once, into one float32 array of all
rows; a window is a piece of that array, and only those asked for are copied out of it. How features are computed is
`provider`. What a model does with windows is not known here, nor is torch: `SequenceWindows` has the two methods that a
torch Dataset needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, Final, NamedTuple, Self, TypeAlias

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from odin_core.errors import OdinError, nearest
from odin_core.features.series import IntArray, compiled
from odin_core.market.bars import MICROSECOND, MINUTE, UTC, minutes_of
from odin_core.market.calendar import DAY, SessionCalendar
from odin_core.market.history import require_aware

Float32Array: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]
AnyArray: TypeAlias = NDArray[Any]

KEY: Final = ("symbol", "known_at")
BLOCK: Final = 16_384  # rows copied at a time, so that what lies between the frame and the array is small


class UnfitWindows(OdinError):
    """A length, step, minimum or tolerance with which there are no windows."""

    def __init__(self, name: str, value: int, rule: str) -> None:
        super().__init__(f"windows with {name}={value}: {name} must be {rule}; choose one that is")


class NotInWindows(OdinError):
    """A feature that the frame does not have as numbers, or a symbol without rows."""

    def __init__(self, kind: str, name: str, known: Sequence[str]) -> None:
        super().__init__(f"windows: there is no {kind} {name!r} among the rows; {nearest(name, known)}")


class Windows(NamedTuple):
    """Windows, oldest row first; the last row is the decision's. Shapes are of many windows (b); of one, b is absent.

    Padding, before a symbol's first row, and rows that are not usable look alike: values 0, `valid` False. A model that
    carries a state across rows may reset it where `after_gap` is set, and knows the night by `session_start`."""

    values: Float32Array
    """(b, length, features), finite"""
    valid: BoolArray
    """(b, length): the row exists and every one of its features is finite"""
    session_start: BoolArray
    """(b, length): the symbol's first row in its session"""
    after_gap: BoolArray
    """(b, length): bars are missing between the symbol's row before and this one; False on its first row"""


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceWindows:
    """All windows of a market's features; built by `of`, which says which ones there are. Arrays are read-only."""

    features: tuple[str, ...]
    never_known: tuple[str, ...]
    """Where no row is usable: the features that no row has a value of. Leave them out, or bring more history."""
    symbols: tuple[str, ...]
    length: int
    keys: pl.DataFrame
    """Of each window, symbol, known_at and session (date) of its last row: the decision that it belongs to. From
    known_at on the window may be used, since its other rows were known before."""
    rows: Windows
    """The rows themselves: `values` (rows, features), C-contiguous, the others (rows,)."""
    starts: IntArray
    """(symbols + 1,): where each symbol's rows begin"""
    last: IntArray
    """(windows,): each window's last row"""

    @classmethod
    def of(
        cls,
        frame: pl.DataFrame,
        features: Sequence[str],
        calendar: SessionCalendar,
        interval: str,
        *,
        length: int = 512,
        step: int = 1,
        minimum: int = 1,
        tolerance: int = 0,
        as_of: datetime | None = None,
    ) -> Self:
        """The windows of features of one `interval` ("1m", "5m", … or "day").

        frame: symbol, known_at (end of the bar, UTC), and numeric `features`, at least one, null or NaN where unknown;
        in any order; where it is not by symbol and known_at it is sorted first, which takes a copy. Nothing is kept.
        Every `step`-th row of a symbol, counted so that the end of its first full window is one, ends a window if it is
        usable and so are at least `minimum` of the `length` rows up to it, itself included. Windows go on across the
        night and across gaps, where rows are marked; never from one symbol to another.
        A gap: between two rows of a symbol more than `tolerance` bars are missing, be it inside a session, at its open
        or close, or whole sessions; none are missing inside a halt of the whole market.
        as_of: aware; rows with a later known_at do not exist. Windows up to an instant are the same bits whatever the
        frame holds after it.
        Memory: one copy of the features, 4 bytes a value, and about 70 bytes a row for a moment. Raises NotInWindows,
        UnfitWindows, NotAnInterval, NaiveMoment, OutsideCalendar, and ValueError for rows twice, without known_at, or
        outside every session's hours."""
        _require("length", length, 1)
        _require("step", step, 1)
        _require("minimum", minimum, 1, length)
        _require("tolerance", tolerance, 0)
        numeric = [name for name, dtype in frame.schema.items() if dtype.is_numeric() or dtype == pl.Boolean]
        features = [features] if isinstance(features, str) else features
        for name in features:
            if name not in numeric:
                raise NotInWindows("numeric feature", name, numeric)
        frame, symbols, starts = _by_symbol(frame, as_of)
        session, number = _bar_numbers(frame, calendar, minutes_of(interval))
        session_start, after_gap = np.zeros(frame.height, np.bool_), np.zeros(frame.height, np.bool_)
        session_start[1:] = np.diff(session.to_physical().to_numpy()) != 0
        after_gap[1:] = np.diff(number) > 1 + tolerance
        session_start[starts[:-1]], after_gap[starts[:-1]] = True, False
        values, valid = _matrix(frame, features)
        never_known = () if valid.any() else _never_known(frame, features)
        last = _window_ends(valid, starts, length, step, minimum)
        for array in (values, valid, session_start, after_gap, starts, last):
            array.flags.writeable = False
        return cls(
            features=tuple(features),
            never_known=never_known,
            symbols=symbols,
            length=length,
            keys=frame.select(*KEY, session)[last],
            rows=Windows(values, valid, session_start, after_gap),
            starts=starts,
            last=last,
        )

    def __len__(self) -> int:
        """How many windows there are."""
        return len(self.last)

    def __getitem__(self, index: int | Sequence[int]) -> Windows:
        """One window, or the batch of several. A torch `DataLoader(windows, batch_size=None, sampler=BatchSampler(…))`
        makes one call per batch and gives Windows of tensors."""
        if isinstance(index, Sequence | np.ndarray):
            return self.batch(index)
        if not -len(self) <= index < len(self):
            why = f": no row has a value of {', '.join(self.never_known)}" if self.never_known else ""
            raise IndexError(f"window {index} of {len(self)}{why}")
        return _each(self.batch([index]), lambda array: array[0])

    def batch(self, indices: Sequence[int] | IntArray) -> Windows:
        """Copies of the windows at `indices`, in their order, repetitions allowed: the caller's own, to be written to.
        They need their own size in memory and nothing beside it. Raises IndexError."""
        at = np.asarray(indices, dtype=np.int64 if len(indices) == 0 else None)
        if at.dtype.kind not in "iu":
            raise TypeError(f"windows are asked for by whole numbers, not by {at.dtype}")
        last = self.last[at]
        first = self.starts[np.searchsorted(self.starts, last, side="right") - 1]
        return _each(self.rows, lambda array: _gathered(array, first, last, self.length))

    def view(self, symbol: str) -> Windows:
        """All full windows of a symbol, of step 1 and whether or not their rows are usable: shapes
        (n - length + 1, length, …), its n rows seen through strides. Read-only, and none of it is copied. Empty where
        n < length. Raises NotInWindows."""
        if symbol not in self._place:
            raise NotInWindows("symbol", symbol, self.symbols)
        place = self._place[symbol]
        run = slice(self.starts[place], self.starts[place + 1])
        return _each(self.rows, lambda array: _strided(array[run], self.length))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {symbol: place for place, symbol in enumerate(self.symbols)}


def _require(name: str, value: int, low: int, high: int | None = None) -> None:
    if value < low or (high is not None and value > high):
        raise UnfitWindows(name, value, f"{low} or more" + (f" and at most the length, {high}" if high else ""))


def _each(windows: Windows, work: Callable[[AnyArray], AnyArray]) -> Windows:
    return Windows(*map(work, windows))


def _by_symbol(frame: pl.DataFrame, as_of: datetime | None) -> tuple[pl.DataFrame, tuple[str, ...], IntArray]:
    """The rows known by `as_of`, the symbols, and where their rows begin. A copy only where a symbol's rows did not lie
    together, ascending."""
    known = _instants(frame)
    runs = frame["symbol"].rle().struct.unnest()
    counts = runs["len"].to_numpy().astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    is_within = np.ones(len(known), np.bool_)
    is_within[starts[:-1]] = False
    if frame["known_at"].has_nulls():
        raise ValueError("windows: a row's known_at is null, so nobody knows where it belongs; drop such rows first")
    if runs["value"].n_unique() < len(runs) or (is_within[1:] & (np.diff(known) <= 0)).any():
        if frame.select("symbol", "known_at").is_duplicated().any():
            raise ValueError("windows: a symbol has several rows with the same known_at; keep one of them")
        return _by_symbol(frame.sort("symbol", "known_at"), as_of)
    if as_of is not None:
        require_aware("as_of", as_of)
        moment = pl.Series([as_of], dtype=UTC).to_physical()[0]
        kept = [int(np.searchsorted(known[a:b], moment, side="right")) for a, b in pairwise(starts)]
        parts = [frame.slice(start, count) for start, count in zip(starts[:-1].tolist(), kept, strict=True) if count]
        frame = pl.concat(parts, rechunk=False) if parts else frame.clear()
        runs = runs.filter(np.array(kept, np.int64) > 0)
        starts = np.concatenate([[0], np.cumsum([count for count in kept if count])]).astype(np.int64)
    return frame, tuple(runs["value"].cast(pl.String)), starts


def _matrix(frame: pl.DataFrame, features: Sequence[str]) -> tuple[Float32Array, BoolArray]:
    """The features as (rows, features), and which rows are usable; the others hold 0."""
    values = np.empty((frame.height, len(features)), np.float32)
    valid = np.empty(frame.height, np.bool_)
    numbers = pl.col(*features).cast(pl.Float32)
    for begin in range(0, frame.height, BLOCK):
        block = values[begin : begin + BLOCK]
        block[:] = frame.slice(begin, BLOCK).select(numbers).to_numpy()
        usable = np.isfinite(block).all(axis=1)
        block[~usable] = 0.0
        valid[begin : begin + BLOCK] = usable
    return values, valid


def _never_known(frame: pl.DataFrame, features: Sequence[str]) -> tuple[str, ...]:
    if frame.is_empty():
        return ()
    known = frame.select(pl.col(name).cast(pl.Float32).is_finite().any() for name in features).row(0)
    return tuple(name for name, is_known in zip(features, known, strict=True) if not is_known)


def _bar_numbers(rows: pl.DataFrame, calendar: SessionCalendar, width: int | None) -> tuple[pl.Series, IntArray]:
    """Of each row's bar of `width` minutes, None for whole sessions: its session (date), and its number among all bars
    that the market has when none is missing. There is no bar wholly inside a halt."""
    if rows.is_empty():
        return pl.Series("session", [], pl.Date), np.empty(0, np.int64)
    days = calendar.sessions(*_around(rows["known_at"], calendar))
    opens, closes = (_microseconds([calendar.hours(day)[edge] for day in days]) for edge in (0, 1))
    known = _instants(rows)
    session = np.searchsorted(opens, known) - 1
    outside = session < 0
    if days:
        outside |= known > closes[session]
    if outside.any():
        symbol, known_at = rows.select(KEY).row(int(outside.argmax()))
        raise ValueError(f"windows: {symbol} has a bar that ends {known_at}, in no session of {calendar.market!r}")
    width_of = closes - opens if width is None else np.full(len(days), width * (MINUTE // MICROSECOND))
    number, bars = _ceiling(known - opens[session], width_of[session]), _ceiling(closes - opens, width_of)
    for at, begin, end in ((at, *_microseconds(halt)) for at, day in enumerate(days) for halt in calendar.halts(day)):
        before = _ceiling(begin - opens[at], width_of[at])  # whole bars, or begun ones, up to the halt
        bars[at] -= max((end - opens[at]) // width_of[at] - before, 0)
        inside = np.flatnonzero(session == at)
        number[inside] -= np.maximum((np.minimum(end, known[inside]) - opens[at]) // width_of[at] - before, 0)
    return pl.Series("session", days)[session], (np.cumsum(bars) - bars)[session] + number


def _around(known_at: pl.Series, calendar: SessionCalendar) -> tuple[date, date]:
    """Dates between which all sessions lie that the instants can belong to, whatever the market's time zone."""
    first, last = (moment.date() for moment in (known_at.min(), known_at.max()) if isinstance(moment, datetime))
    return max(first - DAY, calendar.first), min(last + DAY, calendar.last)


def _ceiling(dividend: IntArray, divisor: IntArray) -> IntArray:
    return -(-dividend // divisor)


def _instants(rows: pl.DataFrame) -> IntArray:
    return rows["known_at"].cast(UTC).to_physical().to_numpy()


def _microseconds(moments: Sequence[datetime]) -> IntArray:
    return pl.Series(moments, dtype=UTC).to_physical().to_numpy().copy()


def _strided(array: AnyArray, length: int) -> AnyArray:
    if len(array) < length:
        return np.empty((0, length, *array.shape[1:]), array.dtype)
    return np.moveaxis(sliding_window_view(array, length, axis=0), -1, 1)


def _gathered(array: AnyArray, first: IntArray, last: IntArray, length: int) -> AnyArray:
    out = np.empty((len(last), length, *array.shape[1:]), array.dtype)
    width = prod(array.shape[1:])
    _gather(array.reshape(-1), first, last, out.reshape(len(last), length * width), width)
    return out


@compiled
def _gather(array: AnyArray, first: IntArray, last: IntArray, out: AnyArray, width: int) -> None:
    """out[w] = the rows of `array` up to last[w], from first[w] on at the earliest, padded with 0 on the left. Rows lie
    one after the other, `width` numbers each, since one stretch of memory is copied fastest."""
    length = out.shape[1] // width
    for w in range(len(last)):
        begin = max(first[w], last[w] - length + 1)
        rows = array[begin * width : (last[w] + 1) * width]
        padding = out.shape[1] - len(rows)
        window = out[w]
        window[:padding] = 0
        window = window[padding:]
        for i in range(len(rows)):
            window[i] = rows[i]


@compiled
def _window_ends(valid: BoolArray, starts: IntArray, length: int, step: int, minimum: int) -> IntArray:
    """Rows that end a window, see `SequenceWindows.of`; `starts` as there."""
    out = np.empty(len(valid), np.int64)
    found = 0
    for s in range(len(starts) - 1):
        usable = 0
        for i in range(starts[s], starts[s + 1]):
            usable += valid[i]
            if i - length >= starts[s]:
                usable -= valid[i - length]
            if valid[i] and usable >= minimum and (i - starts[s] - length + 1) % step == 0:
                out[found] = i
                found += 1
    return out[:found].copy()
