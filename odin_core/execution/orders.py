"""Orders, bars, rules, states and fills: the values that the fill engine (`execution.fills`) takes and gives.

A *row* is a position in the flat arrays of one `Bars`; the bars of one symbol and session lie in contiguous rows, and a
minute without trade has no row. Sizes are decided in `risk`, fees in `execution.costs`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError, nearest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEVER = np.iinfo(np.int64).max  # `due` of an order without a time exit


class OrderKind(IntEnum):
    """How an entry is worked. A stop entry becomes a market order once its price has been touched."""

    MARKET = 0
    LIMIT = 1
    STOP = 2


class ExitReason(IntEnum):
    """Why a position ended. OPEN: it has not. UNFILLED: the entry never filled."""

    OPEN = 0
    STOP = 1
    TARGET = 2
    TIME = 3
    UNFILLED = 4


class VolumeKind(StrEnum):
    """What a market's volume counts: shares TRADED; TICKS, which say nothing of size; or NONE (volume is NaN)."""

    TRADED = "traded"
    TICKS = "ticks"
    NONE = "none"


class ExecutionRuleInvalid(OdinError):
    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"execution rule {field}={value!r} cannot be used: {rule}; change it in the market's profile")


class Rules(NamedTuple):
    """`ExecutionRules` in the form that compiled code takes; made by `ExecutionRules.compiled`."""

    half_spread: float  # fraction of the reference price
    slippage_volatility: float
    impact: float
    noise: float
    max_participation: float
    lot: float
    latency_bars: int
    traded: bool


@dataclass(frozen=True, kw_only=True)
class ExecutionRules:
    """What a fill costs beside fees, and how much of a bar may be taken.

    Slippage, as a fraction of the reference price, is
    `volatility · (slippage_volatility + impact · √participation) · max(0, 1 + noise · z)` with the order's per-bar
    volatility, participation = filled / bar volume (0 where volume is not `traded`) and z the order's standard normal.
    Volatility and √(1 / volume) scale with the bar's length inversely, so `impact` is the coefficient of order one that
    is measured on days.
    Source: Tóth et al. 2011, "Anomalous price impact and the critical nature of liquidity", Phys. Rev. X 1, 021006
    (Almgren et al. 2005, "Direct estimation of equity market impact", find the power 0.6 instead of 0.5).

    `noise` also moves the reference of a market order away from the open, by `noise · volatility · z` of it, inside
    the bar. Raises ExecutionRuleInvalid."""

    half_spread_bps: float = 1.0  # half the quoted spread, basis points of the reference price
    slippage_volatility: float = 0.1  # slippage of an order of no size, in per-bar standard deviations
    impact: float = 1.0  # slippage of an order as large as the bar's volume, in per-bar standard deviations
    noise: float = 0.2  # weight of the order's standard normal; 0 = none
    max_participation: float = 0.1  # share of a bar's traded volume that one order may take, entry and exit together
    lot: float = 1.0  # a partial fill is a whole multiple of it; 0 = any fraction
    latency_bars: int = 0  # bars that pass between `Order.first` and the first bar in which the entry works
    volume: VolumeKind = VolumeKind.TRADED

    def __post_init__(self) -> None:
        for field in ("half_spread_bps", "slippage_volatility", "impact", "noise", "lot", "latency_bars"):
            self._require(field, lambda v: 0 <= v < float("inf"), "it must be a finite number, 0 or more")
        self._require("max_participation", lambda v: 0 < v <= 1, "it must be a number above 0, at most 1")
        self._require("latency_bars", lambda v: v == int(v), "it must be a whole number of bars")
        if self.volume not in list(VolumeKind):
            raise ExecutionRuleInvalid("volume", self.volume, f"it must be one of {', '.join(VolumeKind)}")

    def _require(self, field: str, valid: Callable[[float], bool], rule: str) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not valid(value):
            raise ExecutionRuleInvalid(field, value, rule)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """From a market profile's mapping; what it leaves out keeps its default. Raises ExecutionRuleInvalid."""
        known = [field.name for field in fields(cls)]
        for name in mapping:
            if name not in known:
                raise ExecutionRuleInvalid(name, mapping[name], f"no such rule; {nearest(name, known)}")
        return cls(**mapping)

    @property
    def compiled(self) -> Rules:
        return Rules(
            half_spread=self.half_spread_bps * 1e-4,
            slippage_volatility=float(self.slippage_volatility),
            impact=float(self.impact),
            noise=float(self.noise),
            max_participation=float(self.max_participation),
            lot=float(self.lot),
            latency_bars=int(self.latency_bars),
            traded=VolumeKind(self.volume) is VolumeKind.TRADED,
        )


class Bar(NamedTuple):
    """One bar; prices positive and finite with low <= open, close <= high. Python floats and ints only."""

    row: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class Bars(NamedTuple):
    """Bars of any number of symbols and sessions, end to end: float64, shape (n,) each. Volume NaN where unknown."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Self:
        """Columns of these names (others are ignored), rows in the frame's order; null becomes NaN."""
        columns = frame.select(pl.col(cls._fields).cast(pl.Float64).fill_null(float("nan")))
        return cls(*(np.ascontiguousarray(columns[name].to_numpy()) for name in cls._fields))

    def bar(self, row: int) -> Bar:
        return Bar(row, *(float(column[row]) for column in self))


class Order(NamedTuple):
    """One order; the fields are those of `Orders`. Python floats and ints only."""

    side: int
    kind: int
    quantity: float
    price: float
    stop_distance: float
    target_distance: float
    first: int
    last: int
    entry_bars: int
    due: int
    volatility: float
    noise_entry: float
    noise_exit: float
    lot: float = float("nan")
    leave: int = NEVER


class Orders(NamedTuple):
    """Orders as columns of shape (n,), int64 or float64. Make them with `Orders.of` or `Orders.from_frame`."""

    side: Ints  # +1 buys first, -1 sells first
    kind: Ints  # OrderKind
    quantity: Floats  # shares or contracts, 0 or more
    price: Floats  # of a limit or stop entry; NaN for market
    stop_distance: Floats  # price units from the mean entry reference, above 0; inf = no protective stop
    target_distance: Floats  # likewise; inf = no target
    first: Ints  # row of the first bar that starts at or after the decision
    last: Ints  # row of the session's last bar
    entry_bars: Ints  # bars in which the entry may fill, counted from first + latency_bars; then it is cancelled
    due: Ints  # row at whose close the position is left; beyond `last` = carried; NEVER = no time exit
    volatility: Floats  # standard deviation of a bar's return, fraction
    noise_entry: Floats  # standard normal, drawn by the caller
    noise_exit: Floats  # standard normal, drawn by the caller
    lot: Floats  # a partial fill is a whole multiple of it, 0 = any fraction; NaN: the rules' lot
    leave: Ints  # row from whose open on the position is left at market, and the entry works no more; NEVER = not so

    @classmethod
    def of(
        cls,
        *,
        side: npt.ArrayLike,
        quantity: npt.ArrayLike,
        first: npt.ArrayLike,
        last: npt.ArrayLike,
        volatility: npt.ArrayLike,
        kind: npt.ArrayLike = OrderKind.MARKET,
        price: npt.ArrayLike = float("nan"),
        stop_distance: npt.ArrayLike = float("inf"),
        target_distance: npt.ArrayLike = float("inf"),
        entry_bars: npt.ArrayLike = 1,
        due: npt.ArrayLike = NEVER,
        noise_entry: npt.ArrayLike = 0.0,
        noise_exit: npt.ArrayLike = 0.0,
        lot: npt.ArrayLike = float("nan"),
        leave: npt.ArrayLike = NEVER,
    ) -> Self:
        """Columns or scalars, broadcast against each other. Raises ValueError where shapes do not fit, or where a
        column of integers holds something else."""
        values = (side, kind, quantity, price, stop_distance, target_distance, first, last, entry_bars, due)
        numbers = (volatility, noise_entry, noise_exit, lot, leave)
        columns = np.broadcast_arrays(*(np.atleast_1d(v) for v in (*values, *numbers)))
        for name, column, dtype in zip(cls._fields, columns, DTYPES, strict=True):
            if dtype is np.int64 and column.dtype.kind == "f" and not (np.floor(column) == column).all():
                raise ValueError(f"order column {name} must hold integers, without NaN or null")
        return cls._make(np.array(c, dtype=d) for c, d in zip(columns, DTYPES, strict=True))

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Self:
        """Columns of these names; those with a default in `of` may be missing. Nulls are a ValueError."""
        return cls.of(**{name: frame[name].to_numpy() for name in cls._fields if name in frame.columns})

    def order(self, index: int) -> Order:
        return Order(*(column[index].item() for column in self))


DTYPES: tuple[type[np.generic], ...] = (
    *(np.int64,) * 2, *(np.float64,) * 4, *(np.int64,) * 4, *(np.float64,) * 4, np.int64,
)  # fmt: skip


class Leg(NamedTuple):
    """One execution, or the quantity-weighted mean of several. Prices and costs per share, NaN for quantity 0.
    price = reference ± (half_spread + slippage), plus for a buy; costs are never negative."""

    quantity: float
    reference: float
    half_spread: float
    slippage: float
    price: float
    row: int  # of the first execution of an entry, of the last one of an exit; -1 for none


class State(NamedTuple):
    """One order's life so far: a value, made by `step` from the one before; the first is `NEW`."""

    entry: Leg
    exit: Leg
    leaving: int  # ExitReason of the exit that has begun; OPEN while none has
    triggered: bool  # the price of a stop entry has been touched
    entry_over: bool  # the session of the entry has ended


class Fill(NamedTuple):
    """What one bar did; quantity 0 where it did nothing."""

    entry: Leg
    exit: Leg


NO_LEG = Leg(0.0, float("nan"), float("nan"), float("nan"), float("nan"), -1)
NO_FILL = Fill(NO_LEG, NO_LEG)
NEW = State(NO_LEG, NO_LEG, int(ExitReason.OPEN), False, False)


class Fills(NamedTuple):
    """What became of n orders: columns of shape (n,). Given back to `simulate` as `state`, they are carried on.

    Prices and costs are per share and quantity-weighted means, NaN for quantity 0; a row is -1 for none and belongs to
    the bars of the run in which it was written. Costs are price units, 0 or more; price = reference ± both."""

    entry_quantity: Floats
    entry_reference: Floats
    entry_half_spread: Floats
    entry_slippage: Floats
    entry_price: Floats
    entry_row: Ints  # first execution
    exit_quantity: Floats
    exit_reference: Floats
    exit_half_spread: Floats
    exit_slippage: Floats
    exit_price: Floats
    exit_row: Ints  # last execution
    reason: Ints  # ExitReason: OPEN while anything is held, UNFILLED when nothing was ever bought or sold
    leaving: Ints  # ExitReason of an exit that has begun, though not ended; OPEN = none has
    open: npt.NDArray[np.bool_]  # something is still held

    @classmethod
    def none(cls, n: int) -> Self:
        """`n` orders before their first bar."""
        start: dict[str, float | int | bool] = {
            "entry_quantity": 0.0,
            "exit_quantity": 0.0,
            "entry_row": -1,
            "exit_row": -1,
        }
        start |= {"reason": int(ExitReason.UNFILLED), "leaving": int(ExitReason.OPEN), "open": False}
        return cls._make(np.full(n, start.get(name, np.nan)) for name in cls._fields)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Self:
        """The inverse of `frame`."""
        return cls._make(frame[name].to_numpy() for name in cls._fields)

    def frame(self) -> pl.DataFrame:
        """One row per order, columns of these names; NaN stays NaN."""
        return pl.DataFrame(self._asdict())

    def take(self, index: Ints | npt.NDArray[np.bool_]) -> Self:
        """The orders chosen by an index or a mask."""
        return self._make(column[index] for column in self)


def require_valid(orders: Orders, rows: int) -> None:
    """Raise ValueError, naming field, index and value, unless the engine can run `orders` over `rows` bars."""
    no_price = orders.kind == OrderKind.MARKET
    rules: dict[str, tuple[npt.NDArray[np.bool_], str]] = {
        "side": (np.abs(orders.side) == 1, "+1 or -1"),
        "kind": ((orders.kind >= OrderKind.MARKET) & (orders.kind <= OrderKind.STOP), "an OrderKind"),
        "quantity": ((orders.quantity >= 0) & np.isfinite(orders.quantity), "finite, 0 or more"),
        "price": (no_price | ((orders.price > 0) & np.isfinite(orders.price)), "finite and above 0 unless market"),
        "stop_distance": (orders.stop_distance > 0, "above 0; inf for none"),
        "target_distance": (orders.target_distance > 0, "above 0; inf for none"),
        "first": ((orders.first >= 0) & (orders.first <= orders.last), "a row, at most `last`"),
        "last": (orders.last < rows, f"a row of the {rows} bars"),
        "entry_bars": (orders.entry_bars >= 0, "0 or more"),
        "volatility": ((orders.volatility >= 0) & np.isfinite(orders.volatility), "finite, 0 or more"),
        "noise_entry": (np.isfinite(orders.noise_entry), "finite"),
        "noise_exit": (np.isfinite(orders.noise_exit), "finite"),
        "lot": (np.isnan(orders.lot) | ((orders.lot >= 0) & (orders.lot < np.inf)), "finite, 0 or more, or NaN"),
        "leave": (orders.leave >= 0, "a row, 0 or more; NEVER for not before `due`"),
    }
    for field, (valid, rule) in rules.items():
        if not valid.all():
            index = int(np.argmin(valid))
            raise ValueError(f"order {index}: {field}={getattr(orders, field)[index]}; it must be {rule}")
