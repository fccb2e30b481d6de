"""Entitlements: what corporate actions make of a plan, of what is held over an ex-date, and of yesterday's closes.

A share held before an ex-date is worth the shares and the cash that it becomes. A split or bonus keeps a position's
value; a long position gets a dividend and a short one pays it; after a rename or a merger a position goes on under
another name (`held_as`), and `symbol` stays what was decided on. Quantities and prices of such a row, its reference
close included, are on the scale of the shares after. Fractions of shares are kept; an exchange would pay them in cash.
Which actions a session feels is said by `reference.actions.ActionBook.taking_effect`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from odin_core.execution.orders import Fills
from odin_core.policies.actions import FloatArray

COUNTED = ("entry_quantity", "exit_quantity")
PRICED = tuple(
    f"{leg}_{part}" for leg in ("entry", "exit") for part in ("reference", "half_spread", "slippage", "price")
)
CASH_FIRST = ("dividend", "split", "bonus", "merger", "rename")  # an amount is per share held before the ex-date


class Entitled(NamedTuple):
    """Of one share held since some time: what it is now. Each has an entry per share asked about."""

    names: list[str]
    shares: FloatArray
    cash: FloatArray  # paid since, currency


class Payment(NamedTuple):
    """Cash of one session for positions that were held over an ex-date: an entry per position."""

    per_share: FloatArray
    quantity: FloatArray  # shares held before the ex-date


def entitled(symbols: Sequence[str], since: pl.Series, actions: pl.DataFrame) -> Entitled:
    """What a share of each of `symbols`, held since its instant, becomes by `actions` (EFFECTIVE, any order)."""
    names, shares, cash = np.array(symbols, dtype=object), np.ones(len(symbols)), np.zeros(len(symbols))
    if actions.is_empty():
        return Entitled(names.tolist(), shares, cash)
    order = pl.col("kind").replace_strict(CASH_FIRST, range(len(CASH_FIRST)))
    for action in actions.sort("ex_at", order, "symbol").iter_rows(named=True):
        mine = (names == action["symbol"]) & (since < action["ex_at"]).fill_null(False).to_numpy()
        cash[mine] += shares[mine] * (action["amount"] or 0.0)
        shares[mine] *= action["ratio"] or 1.0
        names[mine] = action["other"] or action["symbol"]
    return Entitled(names.tolist(), shares, cash)


def planned(plan: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """A plan (DECISION) on the session's own scale: `reference_close` restated, with `held_as` (the name that it trades
    under) and `dividends` (0)."""
    now = entitled(plan["symbol"].to_list(), plan["decided_at"], actions)
    return plan.with_columns(
        pl.col("reference_close") / pl.Series(now.shares),
        held_as=pl.Series(now.names, dtype=pl.String),
        dividends=pl.lit(0.0),
    )


def held(positions: pl.DataFrame, actions: pl.DataFrame) -> tuple[pl.DataFrame, Payment]:
    """Open positions (POSITIONS) after `actions`, and what was paid for them. The entry's notional stays; `dividends`
    grows by the cash, positive for a long position."""
    if actions.is_empty() or positions.is_empty():
        nothing = np.zeros(positions.height)
        return positions, Payment(nothing, nothing)
    now = entitled(positions["held_as"].to_list(), positions["entry_ts"], actions)
    columns = dict(zip(Fills._fields, _columns(positions["engine"], len(Fills._fields)), strict=True))
    quantity = columns["entry_quantity"] - columns["exit_quantity"]
    for name in COUNTED:
        columns[name] = columns[name] * now.shares
    for name in PRICED:
        columns[name] = columns[name] / now.shares
    side = np.where(positions["side"].to_numpy() == "long", 1.0, -1.0)
    engine = [list(row) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
    return positions.with_columns(
        pl.col("reference_close") / pl.Series(now.shares),
        pl.col("quantity") * pl.Series(now.shares),
        pl.col("dividends") + pl.Series(side * now.cash * quantity),
        held_as=pl.Series(now.names, dtype=pl.String),
        engine=pl.Series(engine, dtype=pl.List(pl.Float64)),
    ), Payment(now.cash, quantity)


def restated(closes: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Closes (symbol, close, decided_at) as what one has to compare a later price with: per share of now, without the
    cash that was paid since, under the name of now."""
    now = entitled(closes["symbol"].to_list(), closes["decided_at"], actions)
    after = (closes["close"].to_numpy() - now.cash) / now.shares
    named = closes.with_columns(symbol=pl.Series(now.names, dtype=pl.String), close=pl.Series(after, dtype=pl.Float64))
    taken_over = pl.Series(now.names, dtype=pl.String) != closes["symbol"]
    return named.filter((pl.col("close") > 0) & ~(taken_over & pl.col("symbol").is_in(closes["symbol"].implode())))


def _columns(engine: pl.Series, fields: int) -> list[FloatArray]:
    """The lists of one column per field of the fill engine."""
    return [engine.list.get(i).to_numpy().astype(np.float64) for i in range(fields)]
