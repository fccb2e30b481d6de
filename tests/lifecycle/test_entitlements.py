"""Positions, plans and closes over an ex-date: value kept, dividends got and paid, other names, equal to no action."""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopstates import CLOSE, TOMORROW, feature_rows
from test_outcomes import NEXT, VENUE, decisions, halted, minute_bars, run

from odin_core.lifecycle.entitlements import entitled, restated
from odin_core.lifecycle.fold import _hold_return
from odin_core.lifecycle.outcomes import Result, carry_out
from odin_core.lifecycle.state import CLOSES
from odin_core.market.reference.actions import EFFECTIVE
from odin_core.policies.actions import GRID
from odin_core.replay.record import validate

OPENS = datetime(2023, 1, 4, 3, 45, tzinfo=UTC)  # of NEXT
PRICES = ("open", "high", "low", "close")


def acted(kind: str, symbol: str = "B", *, ratio: float | None = None, amount: float | None = None,
          other: str | None = None, ex_at: datetime = OPENS) -> pl.DataFrame:  # fmt: skip
    row = {"symbol": symbol, "ex_date": ex_at.date(), "known_at": ex_at, "kind": kind, "ratio": ratio,
           "amount": amount, "other": other, "origin": "by hand", "origin_id": "0" * 16, "ex_at": ex_at}  # fmt: skip
    return pl.DataFrame([row], schema=EFFECTIVE)


def held(side: int) -> Result:
    """B is bought (or sold short) and halted for the rest of the session; the stop lies far away."""
    chosen = (GRID.side == side) & (GRID.size == 0.01) & (GRID.stop == 3) & (GRID.target == 3)
    plan = decisions({"B": int(np.flatnonzero(chosen)[0])}).with_columns(risk_unit=pl.lit(0.2))
    return run(plan, halted(minute_bars(TOMORROW), "B", 10))


def go_on(first: Result, bars: pl.DataFrame, actions: pl.DataFrame | None = None) -> Result:
    nothing = decisions({}, session=NEXT)
    told = () if actions is None else (actions,)
    return carry_out(nothing, first.positions, np.empty(0), bars, VENUE, 7, NEXT, *told)


def in_new_shares(bars: pl.DataFrame, ratio: float, symbol: str = "B") -> pl.DataFrame:
    mine = pl.col("symbol") == symbol
    return bars.with_columns(
        *(pl.when(mine).then(pl.col(p) / ratio).otherwise(p).alias(p) for p in PRICES),
        volume=pl.when(mine).then(pl.col("volume") * ratio).otherwise("volume"),
    )


@pytest.mark.parametrize("kind", ["split", "bonus"])
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("ratio", [2.0, 10.0, 0.1, 4 / 3])
def test_a_position_over_a_split_earns_what_it_would_have_earned_without_one(kind: str, side: int, ratio: float):
    first, bars = held(side), minute_bars(NEXT)
    (plain,) = go_on(first, bars).resolved.to_dicts()
    result = go_on(first, in_new_shares(bars, ratio), acted(kind, ratio=ratio))
    (row,) = result.resolved.to_dicts()
    validate(result.resolved)
    assert row["quantity"] == pytest.approx(plain["quantity"] * ratio)
    assert row["entry_price"] == pytest.approx(plain["entry_price"] / ratio)
    assert row["gross_return"] == pytest.approx(plain["gross_return"], rel=1e-9)
    assert row["net_return"] == pytest.approx(plain["net_return"], rel=1e-9)
    assert result.profit == pytest.approx(go_on(first, bars).profit, rel=1e-9)


def test_without_the_split_being_known_the_same_position_would_have_lost_half():
    first, bars = held(1), in_new_shares(minute_bars(NEXT), 2.0)
    assert go_on(first, bars).resolved["gross_return"].item() < -0.4
    assert abs(go_on(first, bars, acted("split", ratio=2.0)).resolved["gross_return"].item()) < 0.1


@pytest.mark.parametrize("side", [1, -1])
def test_a_long_position_gets_the_dividend_and_a_short_one_pays_it(side: int):
    first, bars = held(side), minute_bars(NEXT)
    plain, paid = go_on(first, bars), go_on(first, bars, acted("dividend", amount=3.0))
    entry = first.executions.row(0, named=True)
    cash = side * 3.0 * entry["quantity"]
    assert paid.profit - plain.profit == pytest.approx(cash, abs=1e-6)
    gain = paid.resolved["gross_return"].item() - plain.resolved["gross_return"].item()
    assert gain == pytest.approx(side * 3.0 / entry["reference"])
    assert paid.resolved["cost"].item() == plain.resolved["cost"].item()
    (leg,) = paid.executions.filter(leg="dividend").to_dicts()
    assert (leg["price"], leg["quantity"], leg["charges"], leg["ts"]) == (3.0, entry["quantity"], 0.0, OPENS)
    assert leg["side"] == ("long" if side > 0 else "short")


def test_cash_of_all_legs_is_the_profit():
    first = held(1)
    result = go_on(first, minute_bars(NEXT), acted("dividend", amount=3.0))
    legs = pl.concat([first.executions, result.executions])
    sign = pl.when(pl.col("leg") == "entry").then(-1.0).otherwise(1.0)
    cash = legs.select((sign * pl.col("price") * pl.col("quantity") - pl.col("charges")).sum()).item()
    assert result.profit == pytest.approx(cash, abs=1e-6)


def test_what_was_not_taken_is_paid_nothing_but_its_return_counts_the_dividend():
    first = held(1)
    skipped = first._replace(positions=first.positions.with_columns(status=pl.lit("skipped")))
    plain, paid = (go_on(skipped, minute_bars(NEXT), a) for a in (None, acted("dividend", amount=3.0)))
    assert paid.executions.is_empty()
    assert paid.profit == 0.0
    assert paid.resolved["net_return"].item() > plain.resolved["net_return"].item()


def test_a_position_waits_over_an_ex_date_without_bars_and_is_worth_the_same():
    first, later = held(1), date(2023, 1, 5)
    waiting = go_on(
        first, minute_bars(NEXT, "AC"), pl.concat([acted("split", ratio=5.0), acted("dividend", amount=2.0)])
    )
    assert waiting.resolved.is_empty()
    (position,) = waiting.positions.to_dicts()
    quantity = first.positions["quantity"].item()
    assert (position["quantity"], position["dividends"]) == (quantity * 5, pytest.approx(2.0 * quantity))
    bars = in_new_shares(minute_bars(later), 5.0)
    nothing = decisions({}, session=later)
    sold = carry_out(nothing, waiting.positions, np.empty(0), bars, VENUE, 7, later)
    plain = carry_out(nothing, first.positions, np.empty(0), minute_bars(later), VENUE, 7, later)
    gain = sold.resolved["gross_return"].item() - plain.resolved["gross_return"].item()
    assert gain == pytest.approx(2.0 / first.executions["reference"].item(), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "ratio", "amount"), [("rename", None, None), ("merger", 1.68, None), ("merger", 0.5, 9.0)]
)
def test_after_a_rename_or_a_merger_a_position_is_sold_under_the_other_name(
    kind: str, ratio: float | None, amount: float | None
):
    first, shares = held(1), ratio or 1.0
    bars = in_new_shares(minute_bars(NEXT, "B"), shares).with_columns(symbol=pl.lit("Z"))
    result = go_on(first, bars, acted(kind, ratio=ratio, amount=amount, other="Z"))
    (row,) = result.resolved.to_dicts()
    assert (row["symbol"], row["complete"]) == ("B", True)  # what was decided on
    sold = result.executions.filter(leg="exit").row(0, named=True)
    assert (sold["symbol"], sold["quantity"]) == ("Z", pytest.approx(first.positions["quantity"].item() * shares))
    expected = go_on(first, minute_bars(NEXT, "B")).resolved["gross_return"].item()
    expected += (amount or 0.0) / first.executions["reference"].item()
    assert row["gross_return"] == pytest.approx(expected, abs=2e-3)  # the noise of another symbol's fill


def test_an_action_before_the_entry_does_nothing_to_a_position():
    first, bars = held(1), minute_bars(NEXT)
    stale = acted("split", ratio=2.0, ex_at=datetime(2023, 1, 3, 3, 45, tzinfo=UTC))
    assert go_on(first, bars, stale).resolved.equals(go_on(first, bars).resolved)


def test_a_plan_made_before_a_split_buys_for_the_same_money_and_with_the_same_stops():
    ex = datetime(2023, 1, 3, 3, 45, tzinfo=UTC)
    plan, bars = decisions({"A": 5, "B": 70}), minute_bars(TOMORROW)
    volatility = np.full(2, 0.001)
    plain = run(plan, bars)
    split = carry_out(
        plan, held(1).positions.clear(), volatility, in_new_shares(bars, 10.0), VENUE, 7, TOMORROW,
        acted("split", ratio=10.0, ex_at=ex),
    )  # fmt: skip
    for was, now in zip(plain.resolved.to_dicts(), split.resolved.to_dicts(), strict=True):
        times = 10.0 if was["symbol"] == "B" else 1.0
        assert now["exit_reason"] == was["exit_reason"]
        assert now["exit_ts"] == was["exit_ts"]
        assert now["quantity"] == pytest.approx(was["quantity"] * times, rel=0.01)  # whole shares of another price
        assert now["gross_return"] == pytest.approx(was["gross_return"], rel=1e-6)


def test_a_plan_for_a_symbol_that_opens_under_another_name_is_carried_out():
    ex = datetime(2023, 1, 3, 3, 45, tzinfo=UTC)
    bars, plan = minute_bars(TOMORROW, "B"), decisions({"B": 70})
    plain, other = run(plan, bars), bars.with_columns(symbol=pl.lit("Z"))
    rename = acted("rename", other="Z", ex_at=ex)
    renamed = carry_out(plan, held(1).positions.clear(), np.full(1, 0.001), other, VENUE, 7, TOMORROW, rename)
    assert renamed.resolved.equals(plain.resolved)
    assert set(renamed.executions["symbol"]) == {"Z"}


def test_holding_everything_earns_no_jump_over_a_split_and_the_dividend():
    closes = pl.DataFrame(
        {"symbol": ["A", "B", "C"], "close": [100.0, 100.0, 100.0], "decided_at": [CLOSE] * 3}, schema=CLOSES
    )
    rows = pl.concat(
        [acted("split", "A", ratio=4.0), acted("dividend", "B", amount=2.0), acted("rename", "C", other="D")]
    )
    today = feature_rows(["A", "B", "D"], close=[25.0, 98.0, 110.0])
    assert _hold_return(restated(closes, rows), today) == pytest.approx(0.1 / 3)
    assert restated(closes, rows.clear()).equals(closes)


SINCE = pl.Series([CLOSE], dtype=CLOSES["decided_at"])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["split", "dividend"]), st.floats(0.2, 20.0), st.integers(0, 20)), max_size=6)
)
def test_what_a_share_becomes_does_not_depend_on_whether_its_actions_come_together(told: list[tuple[str, float, int]]):
    """All at once, or session after session with what it has become in between: the same shares and cash."""
    rows = pl.concat([EFFECTIVE.to_frame(), *(
        acted(kind, "B", ex_at=OPENS.replace(day=4 + day), **({"ratio": x} if kind == "split" else {"amount": x}))
        for kind, x, day in told
    )])  # fmt: skip
    together = entitled(["B"], SINCE, rows)
    shares, cash = 1.0, 0.0
    for day in range(4, 25):
        step = entitled(["B"], SINCE, rows.filter(pl.col("ex_at").dt.day() == day))
        cash += shares * float(step.cash[0])
        shares *= float(step.shares[0])
    assert together.shares[0] == pytest.approx(shares)
    assert together.cash[0] == pytest.approx(cash)
