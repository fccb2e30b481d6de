"""What became of a plan: the fill engine run over the whole action grid of every context on the session's bars.

A decision's action is one of the grid, so taken, skipped and rejected decisions get their outcome from the same fills
as the learner's full-information rewards. What could not be sold by the last bar stays open and goes on at the next
open; what a corporate action makes of it in between is in `entitlements`. `settle` does the same for choices that no
plan holds, on the grid or off it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.execution.costs import CostSchedule, charges
from odin_core.execution.fills import Fills, simulate
from odin_core.execution.orders import Bars, ExecutionRules, ExitReason, Orders
from odin_core.lifecycle import entitlements
from odin_core.lifecycle.entitlements import Payment
from odin_core.lifecycle.state import POSITIONS
from odin_core.market.bars import UTC
from odin_core.market.reference.actions import EFFECTIVE
from odin_core.policies.actions import ACTIONS, GRID, Action, FloatArray, IntArray
from odin_core.randomness import stream
from odin_core.replay.record import DECISION, OUTCOME, REPLAY

ENTRY_BARS = 5  # minutes in which an entry may fill
FORGET_AFTER = timedelta(days=14)  # an open decision whose symbol never trades again is closed as incomplete
DETAILS = tuple(f"{leg}_{part}" for leg in ("entry", "exit") for part in ("reference", "half_spread", "slippage"))
NO_ACTIONS = EFFECTIVE.to_frame()
EXIT_NAME = {ExitReason.STOP: "stop", ExitReason.TARGET: "target", ExitReason.TIME: "time"}

EXECUTIONS = pl.Schema(
    {
        "decision_id": pl.String(),
        "symbol": pl.String(),
        "leg": pl.String(),  # entry, exit or dividend: cash for what was held over an ex-date
        "side": pl.String(),  # of the position
        "ts": UTC,  # start of the bar: the first of an entry, the last of an exit
        "quantity": pl.Float64(),
        "reference": pl.Float64(),  # inside the bar; of a dividend, like `price`: cash per share
        "half_spread": pl.Float64(),  # per share, on top of the reference
        "slippage": pl.Float64(),  # per share, on top of the reference
        "price": pl.Float64(),
        "charges": pl.Float64(),  # commission and taxes, currency
        "reason": pl.String(),  # of an exit
    }
)


@dataclass(frozen=True, kw_only=True)
class Venue:
    """How orders are filled and charged in one market."""

    rules: ExecutionRules
    costs: CostSchedule
    capital: float
    lot_sizes: Callable[[Iterable[str], date], Sequence[float]]  # of each symbol on a session
    volume_units: Callable[[Iterable[str], date], Sequence[float]]  # likewise: units in one count of a bar's volume


class Result(NamedTuple):
    """Outcomes of one session."""

    resolved: pl.DataFrame  # REPLAY, rows whose outcome became known
    executions: pl.DataFrame
    positions: pl.DataFrame  # POSITIONS, what is still open
    net_return: NDArray[np.float32]  # (contexts, ACTIONS), NaN where unknown
    profit: float  # realised, currency
    traded: float  # notional of entries and exits, currency


class Settled(NamedTuple):
    """What became of choices on one session."""

    resolved: pl.DataFrame  # REPLAY, rows whose outcome became known
    positions: pl.DataFrame  # POSITIONS, what is still open


class _Ground(NamedTuple):
    """What the orders of one session meet."""

    bars: Bars
    spans: dict[str, tuple[int, int]]  # first and last row of each symbol
    stamps: pl.Series
    venue: Venue
    seed: int
    session: date

    @classmethod
    def of(cls, bars: pl.DataFrame, venue: Venue, seed: int, session: date) -> "_Ground":
        spans = _rows_by_symbol(bars)
        return cls(_in_units(Bars.from_frame(bars), spans, venue, session), spans, bars["ts"], venue, seed, session)


class _Values(NamedTuple):
    """Per order, float64 (n,), NaN unless closed."""

    gross: FloatArray
    cost: FloatArray
    notional: FloatArray  # at the entry's reference
    charges_entry: FloatArray
    charges_exit: FloatArray


def carry_out(
    plan: pl.DataFrame,
    positions: pl.DataFrame,
    volatility: FloatArray,
    bars: pl.DataFrame,
    venue: Venue,
    seed: int,
    session: date,
    actions: pl.DataFrame = NO_ACTIONS,
) -> Result:
    """Run `plan` (DECISION) and the open `positions` (POSITIONS) over the session's `bars`; `volatility` (n,) is each
    planned symbol's expected standard deviation of a one-minute return. `actions` (EFFECTIVE) are those that the
    session feels; what is held over their ex-date keeps its value and gets or pays what is due before the first bar."""
    if plan.is_empty() and positions.is_empty():
        none = np.empty((0, ACTIONS), np.float32)
        return Result(REPLAY.to_frame(), EXECUTIONS.to_frame(), POSITIONS.to_frame(), none, 0.0, 0.0)
    plan = entitlements.planned(plan, actions)
    positions, paid = entitlements.held(positions, actions)
    ground, n = _Ground.of(bars, venue, seed, session), plan.height
    every = Action(*(np.broadcast_to(column, (n, ACTIONS)) for column in GRID))
    grid_fills, grid = _enter(plan, every, volatility, ground)
    rows = np.arange(n) * ACTIONS + plan["action"].to_numpy().astype(np.int64)
    decided = plan.with_columns(volatility=pl.Series(volatility, dtype=pl.Float64))
    fresh = _outcomes(decided, grid_fills.take(rows), _Values(*(v[rows] for v in grid)), ground.stamps)
    old = _outcomes(positions, *_resume(positions, ground), ground.stamps)
    done, still_open = _parted(pl.concat([fresh, old]), session)
    taken = pl.col("status") == "taken"
    return Result(
        resolved=done.select(REPLAY.names()).cast(REPLAY),
        executions=_legs(fresh.filter(taken), old.filter(taken), _payments(positions, paid, actions)),
        positions=still_open.select(POSITIONS.names()).cast(POSITIONS),
        net_return=(grid.gross - grid.cost).reshape(n, ACTIONS).astype(np.float32),
        profit=float(
            done.filter(taken & pl.col("complete")).select((pl.col("net_return") * pl.col("notional")).sum()).item()
            or 0.0
        ),
        traded=float(
            fresh.filter(taken)["notional"].fill_nan(None).sum()
            + done.filter(taken & pl.col("complete")).select((pl.col("exit_price") * pl.col("quantity")).sum()).item()
        ),
    )


def settle(
    choices: pl.DataFrame,
    positions: pl.DataFrame,
    bars: pl.DataFrame,
    venue: Venue,
    seed: int,
    session: date,
    actions: pl.DataFrame = NO_ACTIONS,
) -> Settled:
    """`carry_out` of each row's own choice and nothing else: the same fills, noise, charges and entitlements. Read are
    `side`, `size`, `stop_atr` and `target_mult`, which may lie off the grid, and not `action`.

    `choices` is DECISION with `volatility`, `positions` is POSITIONS; columns that both have besides, in one order, go
    along into both answers. Several rows of a symbol do not see each other."""
    besides = [name for name in choices.columns if name not in POSITIONS]
    plan = entitlements.planned(choices, actions)
    held, _ = entitlements.held(positions, actions)
    ground = _Ground.of(bars, venue, seed, session)
    own = Action(_sides(plan)[:, None], *(plan[c].to_numpy()[:, None] for c in ("size", "stop_atr", "target_mult")))
    fresh = _outcomes(plan, *_enter(plan, own, plan["volatility"].to_numpy(), ground), ground.stamps, besides)
    old = _outcomes(held, *_resume(held, ground), ground.stamps, besides)
    done, still_open = _parted(pl.concat([fresh, old]), session)
    return Settled(
        done.select(*besides, *REPLAY.names()).cast(REPLAY),
        still_open.select(*besides, *POSITIONS.names()).cast(POSITIONS),
    )


def _parted(outcomes: pl.DataFrame, session: date) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is over, and what is still open."""
    forgotten = (pl.lit(session) - pl.col("session") > FORGET_AFTER) & pl.col("open")
    done = outcomes.filter(~pl.col("open") | forgotten).with_columns(complete=pl.col("complete") & ~pl.col("open"))
    return done, outcomes.filter(pl.col("open") & ~forgotten)


def _rows_by_symbol(bars: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """First and last row of each symbol; bars lie symbol after symbol."""
    runs = bars["symbol"].rle().struct.unnest()
    ends = np.cumsum(runs["len"].to_numpy())
    return {s: (int(e - n), int(e - 1)) for s, n, e in zip(runs["value"], runs["len"], ends, strict=True)}


def _in_units(bars: Bars, spans: Mapping[str, tuple[int, int]], venue: Venue, session: date) -> Bars:
    """Bars whose volume counts what orders count."""
    rows = [last - first + 1 for first, last in spans.values()]
    return bars._replace(volume=bars.volume * np.repeat(np.array(venue.volume_units(spans, session), float), rows))


def _enter(plan: pl.DataFrame, action: Action, volatility: FloatArray, ground: _Ground) -> tuple[Fills, _Values]:
    """Every `action` (n, m) of the n rows of `plan`; the answers are (n·m,), a row's actions side by side."""
    n, m = action.side.shape
    venue = ground.venue
    span = np.array([ground.spans.get(s, (0, -1)) for s in plan["held_as"]], np.int64).reshape(n, 2)
    noise = _noise(plan["symbol"].to_list(), ground.seed, ground.session)
    close, unit = plan["reference_close"].to_numpy(), plan["risk_unit"].to_numpy()
    lot = np.array(venue.lot_sizes(plan["symbol"], ground.session), float)
    quantity = np.floor(action.size * venue.capital / close[:, None] / lot[:, None]) * lot[:, None]
    each = lambda column: np.repeat(column, m)  # noqa: E731
    side, stop = action.side.ravel(), ((unit * close)[:, None] * action.stop).ravel()
    orders = Orders.of(
        side=side,
        quantity=np.where(each(span[:, 1] >= 0), quantity.ravel(), 0.0),
        first=each(np.maximum(span[:, 0], 0)),
        last=each(np.maximum(span[:, 1], 0)),
        due=each(np.maximum(span[:, 1], 0)),
        volatility=each(volatility),
        stop_distance=stop,
        target_distance=stop * action.target.ravel(),
        entry_bars=ENTRY_BARS,
        noise_entry=each(noise[:, 0]),
        noise_exit=each(noise[:, 1]),
        lot=each(lot),
    )
    fills = simulate(ground.bars, orders, venue.rules) if n and len(ground.bars.open) else _nothing(orders)
    return fills, _values(side, fills, venue, carried=False, dividends=np.zeros(n * m))


def _sides(decisions: pl.DataFrame) -> FloatArray:
    """+1 long, −1 short."""
    return np.where(decisions["side"].to_numpy() == "long", 1.0, -1.0)


def _resume(positions: pl.DataFrame, ground: _Ground) -> tuple[Fills, _Values]:
    """Go on with what is open; a symbol without bars today stays as it is."""
    held = [np.array(column) for column in zip(*positions["engine"].to_list(), strict=True)] or [np.empty(0)] * len(
        Fills._fields
    )
    state = Fills._make(c.astype(t) for c, t in zip(held, _DTYPES, strict=True))
    side, venue = _sides(positions), ground.venue
    span = np.array([ground.spans.get(s, (0, -1)) for s in positions["held_as"]], np.int64).reshape(len(side), 2)
    here = np.flatnonzero(span[:, 1] >= 0)
    if here.size:
        noise = _noise(positions["held_as"].to_list(), ground.seed, ground.session)[here]
        stop = (positions["risk_unit"] * positions["reference_close"] * positions["stop_atr"]).to_numpy()[here]
        orders = Orders.of(
            side=side[here], quantity=positions["quantity"].to_numpy()[here], first=span[here, 0], last=span[here, 1],
            due=span[here, 0] - 1, volatility=positions["volatility"].to_numpy()[here], stop_distance=stop,
            target_distance=stop * positions["target_mult"].to_numpy()[here], entry_bars=0,
            noise_entry=noise[:, 0], noise_exit=noise[:, 1],
            lot=np.array(venue.lot_sizes(positions["held_as"], ground.session), float)[here],
        )  # fmt: skip
        resumed = simulate(ground.bars, orders, venue.rules, state=state.take(here))
        for column, new in zip(state, resumed, strict=True):
            column[here] = new
    return state, _values(side, state, venue, carried=True, dividends=positions["dividends"].to_numpy())


def _noise(symbols: list[str], seed: int, session: date) -> FloatArray:
    """(n, 2) standard normals, addressed by symbol, so that they do not depend on which other symbols are there."""
    draws = [stream(seed, session, f"fills/{symbol}").standard_normal(2) for symbol in symbols]
    return np.array(draws).reshape(len(symbols), 2)


def _values(side: FloatArray, fills: Fills, venue: Venue, *, carried: bool, dividends: FloatArray) -> _Values:
    """`carried`: from a session before. What is open now will be, so its entry is charged as delivery already.
    `dividends`: got since the entry, currency."""
    intraday, delivery = venue.costs.intraday, venue.costs.delivery
    closed = (fills.entry_quantity > 0) & ~fills.open
    entry, exit_ = fills.entry_reference, fills.exit_reference
    with np.errstate(invalid="ignore", divide="ignore"):
        notional = entry * fills.entry_quantity
        buying = side > 0
        bought_or_sold, left = fills.entry_price * fills.entry_quantity, fills.exit_price * fills.exit_quantity
        charges_entry = np.where(
            carried | fills.open,
            charges(delivery, buying, bought_or_sold),
            charges(intraday, buying, bought_or_sold),
        )
        charges_exit = charges(delivery if carried else intraday, ~buying, left)
        gross = side * (exit_ - entry) / entry + dividends / notional
        friction = side * ((fills.entry_price - entry) + (exit_ - fills.exit_price)) / entry
        cost = friction + (charges_entry + charges_exit) / notional
    hide = lambda values: np.where(closed, values, np.nan)  # noqa: E731
    return _Values(hide(gross), hide(cost), notional, charges_entry, charges_exit)


def _outcomes(
    decisions: pl.DataFrame, fills: Fills, values: _Values, stamps: pl.Series, besides: Sequence[str] = ()
) -> pl.DataFrame:
    """Decisions with their outcome, `notional`, `open`, the engine's state and both legs' details, and before them the
    columns `besides`."""
    complete = np.isfinite(values.gross)
    unfilled = fills.entry_quantity == 0
    reason = [EXIT_NAME.get(ExitReason(r)) for r in fills.reason]
    resumed = "entry_ts" in decisions.columns
    entry_ts = decisions["entry_ts"] if resumed else _stamp(stamps, fills.entry_row)
    names = ["carried" if resumed and r == "time" else r for r in reason]
    frame = decisions.select(*besides, *DECISION.names()).with_columns(
        entry_ts=entry_ts,
        entry_price=fills.entry_price,
        exit_ts=_stamp(stamps, np.where(complete, fills.exit_row, -1)),
        exit_price=np.where(complete, fills.exit_price, np.nan),
        exit_reason=pl.Series(["unfilled" if u else n for u, n in zip(unfilled, names, strict=True)], dtype=pl.String),
        quantity=fills.entry_quantity,
        gross_return=values.gross,
        cost=values.cost,
        net_return=values.gross - values.cost,
        reward=(values.gross - values.cost) / decisions["risk_unit"].to_numpy(),
        counterfactual=pl.col("status") != "taken",
        complete=complete,
        notional=values.notional,
        open=fills.open,
        volatility=decisions["volatility"],
        held_as=decisions["held_as"],
        dividends=decisions["dividends"],
        engine=pl.Series([[float(c[i]) for c in fills] for i in range(len(unfilled))], dtype=pl.List(pl.Float64)),
        entry_charges=values.charges_entry,
        exit_charges=values.charges_exit,
        **{name: getattr(fills, name) for name in DETAILS},
    )
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def _stamp(stamps: pl.Series, rows: IntArray) -> pl.Series:
    index = pl.Series(np.where(rows < 0, 0, rows), dtype=pl.UInt32)
    if stamps.is_empty():
        return pl.Series([None] * len(rows), dtype=UTC)
    known = pl.Series(rows >= 0)
    return pl.select(pl.when(known).then(stamps.gather(index))).to_series()


def _payments(positions: pl.DataFrame, paid: Payment, actions: pl.DataFrame) -> pl.DataFrame:
    """What was paid for taken positions, as rows of EXECUTIONS."""
    at = pl.lit(actions["ex_at"].max(), dtype=UTC)
    rows = positions.with_columns(price=pl.Series(paid.per_share), shares=pl.Series(paid.quantity))
    free = pl.lit(0.0)
    return rows.filter((pl.col("price") != 0) & (pl.col("status") == "taken")).select(
        "decision_id", pl.col("held_as").alias("symbol"), pl.lit("dividend").alias("leg"), "side", at.alias("ts"),
        pl.col("shares").alias("quantity"), pl.col("price").alias("reference"), free.alias("half_spread"),
        free.alias("slippage"), "price", free.alias("charges"), pl.lit(None, pl.String).alias("reason"),
    ).cast(EXECUTIONS)  # fmt: skip


def _legs(fresh: pl.DataFrame, old: pl.DataFrame, payments: pl.DataFrame) -> pl.DataFrame:
    def legs(frame: pl.DataFrame, leg: str, reason: pl.Expr) -> pl.DataFrame:
        return frame.filter(pl.col(f"{leg}_ts").is_not_null()).select(
            "decision_id", pl.col("held_as").alias("symbol"), pl.lit(leg).alias("leg"), "side",
            pl.col(f"{leg}_ts").alias("ts"), "quantity",
            pl.col(f"{leg}_reference").alias("reference"), pl.col(f"{leg}_half_spread").alias("half_spread"),
            pl.col(f"{leg}_slippage").alias("slippage"), pl.col(f"{leg}_price").alias("price"),
            pl.col(f"{leg}_charges").alias("charges"), reason.alias("reason"),
        )  # fmt: skip

    none = pl.lit(None, pl.String)
    parts = [
        legs(fresh, "entry", none),
        legs(fresh, "exit", pl.col("exit_reason")),
        legs(old, "exit", pl.col("exit_reason")),
        payments,
    ]
    return pl.concat(parts).cast(EXECUTIONS).sort("decision_id", "leg")


def _nothing(orders: Orders) -> Fills:
    """What becomes of orders on a session without bars."""
    n = orders.side.size
    unknown, zero, never = np.full(n, np.nan), np.zeros(n), np.full(n, -1)
    leg = (zero, unknown, unknown, unknown, unknown, never)
    return Fills(*leg, *leg, np.full(n, int(ExitReason.UNFILLED)), np.zeros(n, np.int64), np.zeros(n, np.bool_))


_DTYPES = (*(np.float64,) * 5, np.int64, *(np.float64,) * 5, np.int64, np.int64, np.int64, np.bool_)
assert len(_DTYPES) == len(Fills._fields)
assert set(OUTCOME.names()) < set(REPLAY.names())
