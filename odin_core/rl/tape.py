"""The tape: bars of one interval with what is known at each bar's end, the whole world of an environment.

A row's state, heatmap, volatility and risk unit are known at the end of its bar; a decision there works from the next
row on. Tapes of a market's data are made in `rl.market_tape`; `planted` makes one whose answer is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from odin_core.errors import OdinError, nearest
from odin_core.execution.orders import Bars
from odin_core.randomness import stream

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]

BOUND = 1e6  # of what is observed
FIRST_SESSION = date(2024, 1, 1)  # of a planted tape; every day is a session
SIGNAL = 0  # column of a planted tape's state that tells of the next bars
SIGMA = 0.0015  # standard deviation of a planted tape's returns per bar, in the middle regime at the middle of a day
REGIMES = (0.6, 1.0, 1.8)  # a planted tape's regimes: multiples of SIGMA
PERSISTENCE = 0.95  # of a planted signal from bar to bar
WARM_UP = 24  # first rows of a planted symbol, in which nothing may be entered
DECAY = 0.94  # weight of the past in a planted tape's estimate of volatility


class TapeInvalid(OdinError):
    def __init__(self, column: str, where: str, value: object, rule: str) -> None:
        super().__init__(f"tape: {column}{where}={value} cannot be used: {rule}")


class NotOnTape(OdinError):
    def __init__(self, symbol: str, symbols: Sequence[str]) -> None:
        super().__init__(f"the tape has no symbol {symbol!r}; {nearest(symbol, symbols)}")


@dataclass(frozen=True, eq=False)
class Tape:
    """Made by `Tape.of`, which checks it. Rows of a symbol are contiguous and ascend in time; arrays are read-only."""

    bars: Bars  # float64 (rows,); volume NaN where unknown
    symbols: tuple[str, ...]
    starts: IntArray  # (symbols + 1,): rows of symbol i are starts[i] … starts[i + 1] − 1
    session: IntArray  # (rows,) ordinal day
    session_end: IntArray  # (rows,) last row of the row's session
    state: Float32Array  # (rows, E), within ±BOUND
    heatmap: Float32Array  # (rows, H), within ±BOUND
    volatility: FloatArray  # (rows,) standard deviation of one bar's return, fraction; above 0 where decidable
    risk_unit: FloatArray  # (rows,) ATR / close; above 0 where decidable
    lot: FloatArray  # (symbols,) whole multiples of it are traded
    decidable: NDArray[np.bool_]  # (rows,) whether a position may be entered at the end of this bar

    @classmethod
    def of(
        cls,
        *,
        bars: Bars,
        symbols: Sequence[str],
        starts: ArrayLike,
        session: ArrayLike,
        state: ArrayLike,
        heatmap: ArrayLike,
        volatility: ArrayLike,
        risk_unit: ArrayLike,
        lot: ArrayLike = 1.0,
        decidable: ArrayLike = True,
    ) -> Self:
        """Arrays of the fields' shapes; `lot` and `decidable` may be scalars. Columns of the right type are not copied.

        Raises TapeInvalid, naming column, row and value. Prices must be positive and finite with low ≤ open, close ≤
        high in every row, since positions are valued at each close. What is unknown of a state is 0, not NaN, in rows
        that are not decidable; volatility and risk unit may be NaN there."""
        columns = Bars._make(_read_only(column, np.float64) for column in bars)
        rows = columns.open.size
        first = _read_only(starts, np.int64)
        day = _read_only(session, np.int64)
        tape = cls(
            bars=columns,
            symbols=tuple(symbols),
            starts=first,
            session=day,
            session_end=_read_only(_session_ends(_shaped("session", day, (rows,)), _bounds(first, len(symbols), rows))),
            state=_read_only(state, np.float32),
            heatmap=_read_only(heatmap, np.float32),
            volatility=_read_only(volatility, np.float64),
            risk_unit=_read_only(risk_unit, np.float64),
            lot=_read_only(np.broadcast_to(np.asarray(lot, np.float64), len(symbols))),
            decidable=_read_only(np.broadcast_to(np.asarray(decidable, np.bool_), rows)),
        )
        _require_sound(tape)
        return tape

    @property
    def rows(self) -> int:
        return self.session.size

    @cached_property
    def symbol(self) -> IntArray:
        """(rows,) place of each row's symbol in `symbols`."""
        return _read_only(np.repeat(np.arange(len(self.symbols)), np.diff(self.starts)))

    @cached_property
    def session_start(self) -> IntArray:
        """(rows,) first row of the row's session."""
        first = np.r_[0, self.session_end[:-1] + 1]
        return _read_only(np.maximum.accumulate(np.where(first == np.arange(self.rows), first, 0)))

    def rows_of(self, symbol: str) -> tuple[int, int]:
        """(first row, last row + 1) of a symbol. Raises NotOnTape."""
        if symbol not in self.symbols:
            raise NotOnTape(symbol, self.symbols)
        place = self.symbols.index(symbol)
        return int(self.starts[place]), int(self.starts[place + 1])


def _read_only(values: ArrayLike, dtype: type[np.generic] | None = None) -> NDArray:
    view = np.ascontiguousarray(values, dtype).view()
    view.flags.writeable = False
    return view


def _shaped(name: str, column: NDArray, shape: tuple[int, ...]) -> NDArray:
    if column.shape != shape:
        raise TapeInvalid(name, ".shape", column.shape, f"it must be {shape}")
    return column


def _bounds(starts: IntArray, symbols: int, rows: int) -> IntArray:
    _shaped("starts", starts, (symbols + 1,))
    if symbols == 0 or starts[0] != 0 or starts[-1] != rows or (np.diff(starts) < 1).any():
        raise TapeInvalid("starts", "", starts.tolist(), f"it must ascend from 0 to the {rows} rows, a symbol at least")
    return starts


def _session_ends(session: IntArray, starts: IntArray) -> IntArray:
    rows = session.size
    inside = np.ones(rows, np.bool_)
    inside[starts[:-1]] = False
    back = np.flatnonzero(inside[1:] & (np.diff(session) < 0)) + 1
    if back.size:
        raise TapeInvalid("session", f"[{back[0]}]", session[back[0]], "a symbol's sessions must ascend")
    last = np.r_[(np.diff(session) != 0) | ~inside[1:], True]
    ends = np.flatnonzero(last)
    return ends[np.searchsorted(ends, np.arange(rows))]


def _require_sound(tape: Tape) -> None:
    """Raise TapeInvalid for the first column that cannot be used."""
    rows, (open_, high, low, close, volume) = tape.rows, tape.bars
    for name, column in tape.bars._asdict().items():
        _shaped(name, column, (rows,))
    for name in ("state", "heatmap"):
        column = getattr(tape, name)
        if column.ndim != 2 or column.shape[0] != rows:
            raise TapeInvalid(name, ".shape", column.shape, f"it must be ({rows}, width)")
    for name in ("volatility", "risk_unit"):
        _shaped(name, getattr(tape, name), (rows,))

    def usable(column: FloatArray) -> NDArray[np.bool_]:
        return (column > 0) & (column < np.inf)

    def where_decidable(column: FloatArray) -> NDArray[np.bool_]:
        return usable(column) | ~tape.decidable

    def bounded(table: Float32Array) -> NDArray[np.bool_]:
        return np.all(np.abs(table) <= BOUND, axis=1)

    within = f"it must lie within ±{BOUND:,.0f}; put 0 for what is unknown and decidable=False"
    rules: dict[str, tuple[NDArray[np.bool_], str]] = {
        "open": (usable(open_) & (open_ <= high), "a price is finite, above 0 and not above the high"),
        "low": (usable(low) & (low <= np.minimum(open_, close)), "a low is above 0 and not above open or close"),
        "high": (high < np.inf, "a price is finite"),
        "close": (usable(close) & (close <= high), "a price is finite, above 0 and not above the high"),
        "volume": (~(volume < 0) & (volume != np.inf), "a volume is finite, 0 or more, or NaN where it is unknown"),
        "state": (bounded(tape.state), within),
        "heatmap": (bounded(tape.heatmap), within),
        "volatility": (where_decidable(tape.volatility), "where decidable it must be finite and above 0"),
        "risk_unit": (where_decidable(tape.risk_unit), "where decidable it must be finite and above 0"),
        "lot": (usable(tape.lot), "it must be finite and above 0"),
    }
    for name, (sound, rule) in rules.items():
        if not sound.all():
            row = int(np.argmin(sound))
            column = getattr(tape.bars, name) if name in Bars._fields else getattr(tape, name)
            raise TapeInvalid(name, f"[{row}]", column[row], rule)


def planted(
    seed: int = 0,
    *,
    edge: float = 0.3,
    symbols: int = 4,
    sessions: int = 40,
    bars: int = 75,
    state: int = 32,
    heatmap: int = 8,
    depth: float = 1.0,
    cheat: bool = False,
) -> Tape:
    """A synthetic tape of `symbols` × `sessions` × `bars` rows of five minutes, whose answer is known.

    Column SIGNAL of the state is a standard normal signal s with persistence 0.95 from bar to bar; `edge` in [0, 1) is
    its correlation with the next bar's standardised return: with 0 nothing can be known. With `cheat` that column holds
    instead what the next bar brings from open to close, in units of σ. The next three columns are the logarithm of
    the regime's volatility, the last standardised return and the share of the session that has passed; all others, and
    the heatmap, are noise. Volatility follows regimes that last days and a day's shape (more at open and close), volume
    follows volatility, times `depth`. Same arguments, same bytes. Raises TapeInvalid for arguments out of range."""
    counts = {"symbols": symbols, "sessions": sessions, "bars": bars, "state": state - 3, "heatmap": heatmap}
    for name, count in counts.items():
        if count < 1:
            raise TapeInvalid(name, "", count, "it must be at least 1 (a state has four columns or more)")
    if not 0 <= edge < 1:
        raise TapeInvalid("edge", "", edge, "it is a correlation, at least 0 and below 1")
    n, rng = sessions * bars, stream(seed, FIRST_SESSION, "planted tape")
    shape = 1.0 + 0.8 * np.tile(np.linspace(-1, 1, bars) ** 2, sessions)
    regime = np.array([_regimes(rng, sessions) for _ in range(symbols)]).repeat(bars, axis=1)
    sigma = SIGMA * np.array(REGIMES)[regime] * shape
    signal = _autoregression(rng.standard_normal((symbols, n)), PERSISTENCE)
    known = np.concatenate([np.zeros((symbols, 1)), signal[:, :-1]], axis=1)
    standard = edge * known + np.sqrt(1 - edge**2) * rng.standard_normal((symbols, n))
    gap = rng.standard_normal((symbols, n)) * sigma * np.where(np.arange(n) % bars == 0, 3.0, 0.05)
    move = standard * sigma
    first_price = np.exp(rng.uniform(np.log(50), np.log(2000), (symbols, 1)))
    close = first_price * np.exp(np.cumsum(gap + move, axis=1))
    open_ = close * np.exp(-move)
    wick = np.exp(np.abs(rng.standard_normal((2, symbols, n))) * sigma * 0.5)
    volume = np.round(3e7 * depth / close * shape * np.exp(0.4 * rng.standard_normal((symbols, n))) * (sigma / SIGMA))
    volatility = np.sqrt(_smoothed((gap + move) ** 2, SIGMA**2, DECAY))
    ahead = np.concatenate([standard[:, 1:], np.zeros((symbols, 1))], axis=1)
    told = np.stack(
        [
            ahead if cheat else signal,
            np.log(np.array(REGIMES))[regime],
            standard,
            np.broadcast_to(np.arange(n) % bars / bars, (symbols, n)),
        ],
        axis=2,
    )
    noise = rng.standard_normal((symbols * n, state - 4), np.float32)
    return Tape.of(
        bars=Bars(*(column.ravel() for column in (
            open_, np.maximum(open_, close) * wick[0], np.minimum(open_, close) / wick[1], close, volume,
        ))),
        symbols=[f"PLANTED{i + 1}" for i in range(symbols)],
        starts=np.arange(symbols + 1) * n,
        session=np.tile(FIRST_SESSION.toordinal() + np.arange(n) // bars, symbols),
        state=np.concatenate([told.reshape(symbols * n, 4).astype(np.float32), noise], axis=1),
        heatmap=rng.standard_normal((symbols * n, heatmap), np.float32),
        volatility=volatility.ravel(),
        risk_unit=(4.0 * volatility).ravel(),  # about the range of an hour
        decidable=np.tile(np.arange(n) >= min(WARM_UP, n // 4), symbols),
    )  # fmt: skip


def _regimes(rng: np.random.Generator, sessions: int) -> IntArray:
    """A regime for each session: it stays with probability 0.9, else any is drawn."""
    change, drawn = rng.random(sessions) > 0.9, rng.integers(0, len(REGIMES), sessions)
    change[0] = True
    return drawn[np.maximum.accumulate(np.where(change, np.arange(sessions), 0))]


def _autoregression(shocks: FloatArray, persistence: float) -> FloatArray:
    """Unit variance, along the second axis, from standard normal shocks."""
    values = np.empty_like(shocks)
    values[:, 0] = shocks[:, 0]
    scale = np.sqrt(1 - persistence**2)
    for t in range(1, shocks.shape[1]):
        values[:, t] = persistence * values[:, t - 1] + scale * shocks[:, t]
    return values


def _smoothed(values: FloatArray, first: float, decay: float) -> FloatArray:
    """Exponentially weighted mean of what is known so far, along the second axis, from `first` on."""
    means, mean = np.empty_like(values), np.full(values.shape[0], first)
    for t in range(values.shape[1]):
        mean = decay * mean + (1 - decay) * values[:, t]
        means[:, t] = mean
    return means
