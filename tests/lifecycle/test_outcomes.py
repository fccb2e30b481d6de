"""Outcomes of decisions: the engine stepped by hand, decisions not taken, and positions that nobody would buy."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from loopstates import CLOSE, NSE, TODAY, TOMORROW

from odin_core.execution.costs import CostSchedule, charges
from odin_core.execution.fills import end_session, step
from odin_core.execution.orders import NEW, Bars, ExecutionRules, Orders, State
from odin_core.lifecycle.outcomes import ENTRY_BARS, EXECUTIONS, Result, Venue, carry_out
from odin_core.lifecycle.state import POSITIONS
from odin_core.market.bars import BARS
from odin_core.policies.actions import ACTIONS, GRID, decode
from odin_core.randomness import stream
from odin_core.replay.record import DECISION, OUTCOME, validate

SEED = 7
MINUTES = 40
VENUE = Venue(
    rules=ExecutionRules.from_mapping(NSE.execution),
    costs=CostSchedule.from_mapping(NSE.costs),
    capital=NSE.capital,
    lot_sizes=NSE.lot_sizes,
    volume_units=NSE.volume_units,
)
NEXT = date(2023, 1, 4)


def minute_bars(session: date, symbols: str = "ABC", volume: float = 1e5, seed: int = 1) -> pl.DataFrame:
    """MINUTES bars per symbol from 09:15 in Mumbai, lively enough for stops and targets to be reached."""
    rng = np.random.default_rng([seed, session.toordinal()])
    start = datetime(session.year, session.month, session.day, 3, 45, tzinfo=UTC)
    parts = []
    for symbol in symbols:
        close = 200 * np.exp(np.cumsum(0.002 * rng.standard_normal(MINUTES)))
        opened = close * np.exp(0.0005 * rng.standard_normal(MINUTES))
        wick = np.abs(0.001 * rng.standard_normal((2, MINUTES)))
        ts = [start + timedelta(minutes=i) for i in range(MINUTES)]
        parts.append(pl.DataFrame({
            "symbol": symbol, "ts": ts, "known_at": [t + timedelta(minutes=1) for t in ts], "open": opened,
            "high": np.maximum(opened, close) * np.exp(wick[0]), "low": np.minimum(opened, close) * np.exp(-wick[1]),
            "close": close, "volume": rng.uniform(0.5, 1.5, MINUTES) * volume, "oi": None,
        }, schema=BARS))  # fmt: skip
    return pl.concat(parts)


def halted(bars: pl.DataFrame, symbol: str, first: int, last: int = MINUTES) -> pl.DataFrame:
    """Nothing trades in `symbol` from minute `first` on, before `last`."""
    minute = pl.int_range(pl.len()).over("symbol")
    quiet = (pl.col("symbol") == symbol) & (minute >= first) & (minute < last)
    return bars.with_columns(volume=pl.when(quiet).then(0.0).otherwise("volume"))


def decisions(actions: dict[str, int], status: str = "taken", session: date = TOMORROW) -> pl.DataFrame:
    """One decision per symbol, as the planner writes it."""
    index = np.array(list(actions.values()), int)
    meaning, n = decode(index), len(actions)
    rejected = status == "rejected"
    data: dict[str, Any] = dict.fromkeys(DECISION) | {
        "decision_id": [f"{session}/{s}" for s in actions], "session": [session] * n, "symbol": list(actions),
        "decided_at": [CLOSE] * n, "phase": [0] * n, "source": ["random"] * n, "exploration_type": ["uniform"] * n,
        "vol_regime": ["low"] * n, "policy": ["uniform"] * n, "side": np.where(meaning.side > 0, "long", "short"),
        "size": meaning.size, "stop_atr": meaning.stop, "target_mult": meaning.target, "propensity": [0.1] * n,
        "status": [status] * n, "reject_reason": ["max_trades" if rejected else None] * n,
        "features_version": ["f1"] * n, "action": index, "risk_unit": [0.004 + 0.001 * i for i in range(n)],
        "reference_close": [200.0] * n,
    }  # fmt: skip
    return pl.DataFrame({k: [None] * n if v is None else v for k, v in data.items()}, schema=DECISION)


NOTHING_OPEN = pl.DataFrame(schema=POSITIONS)


def run(
    plan: pl.DataFrame, bars: pl.DataFrame, positions: pl.DataFrame = NOTHING_OPEN, session: date = TOMORROW
) -> Result:
    return carry_out(plan, positions, np.full(plan.height, 0.001), bars, VENUE, SEED, session)


def by_hand(plan: dict[str, Any], action: int, bars: pl.DataFrame) -> State:
    """The engine's own step, bar after bar, over the symbol's bars alone."""
    mine = Bars.from_frame(bars.filter(pl.col("symbol") == plan["symbol"]))
    meaning, last = decode(np.array([action])), len(mine.open) - 1
    stop = plan["risk_unit"] * plan["reference_close"] * meaning.stop
    noise = stream(SEED, TOMORROW, f"fills/{plan['symbol']}").standard_normal(2)
    order = Orders.of(
        side=meaning.side, quantity=np.floor(meaning.size * NSE.capital / plan["reference_close"]), first=0, last=last,
        due=last, volatility=0.001, stop_distance=stop, target_distance=stop * meaning.target, entry_bars=ENTRY_BARS,
        noise_entry=noise[0], noise_exit=noise[1],
    ).order(0)  # fmt: skip
    state = NEW
    for row in range(last + 1):
        state, _ = step(state, order, mine.bar(row), VENUE.rules.compiled)
    return end_session(state, order)


def returns(side: float, state: State, schedule: str = "intraday") -> tuple[float, float]:
    """(gross, cost) of a closed position, fractions of the entry's notional."""
    entry, exit_ = state.entry, state.exit
    rates, bought = getattr(VENUE.costs, schedule), side > 0
    fees = charges(rates, bought, entry.price * entry.quantity) + charges(
        rates, not bought, exit_.price * entry.quantity
    )
    lost = entry.half_spread + entry.slippage + exit_.half_spread + exit_.slippage
    notional = entry.reference * entry.quantity
    return side * (exit_.reference - entry.reference) / entry.reference, lost / entry.reference + float(fees) / notional


def test_every_action_of_the_grid_ends_as_the_engine_stepped_by_hand_on_that_symbol():
    bars = halted(minute_bars(TOMORROW, volume=2e4), "B", 30)
    plan = decisions({"A": 5, "B": 70, "C": 127})
    net = run(plan, bars).net_return
    assert net.shape == (3, ACTIONS)
    reasons = set()
    for i, row in enumerate(plan.iter_rows(named=True)):
        for action in range(ACTIONS):
            state = by_hand(row, action, bars)
            closed = 0 < state.entry.quantity <= state.exit.quantity
            reasons.add((state.leaving, closed))
            expected = np.subtract(*returns(float(GRID.side[action]), state)) if closed else np.nan
            assert net[i, action] == pytest.approx(expected, abs=1e-7, nan_ok=True), (row["symbol"], action)
    assert {reason for reason, closed in reasons if closed} == {1, 2, 3}  # stops, targets and the last bar
    assert any(not closed for _, closed in reasons)


def test_a_decision_gets_the_outcome_of_its_own_action_and_its_times_prices_and_costs():
    bars, plan = minute_bars(TOMORROW), decisions({"A": 5, "B": 70, "C": 127})
    result = run(plan, bars)
    validate(result.resolved)
    for row in result.resolved.iter_rows(named=True):
        state = by_hand(row, row["action"], bars)
        gross, cost = returns(float(GRID.side[row["action"]]), state)
        stamps = bars.filter(pl.col("symbol") == row["symbol"])["ts"]
        assert (row["entry_ts"], row["exit_ts"]) == (stamps[state.entry.row], stamps[state.exit.row])
        assert (row["entry_price"], row["exit_price"]) == (state.entry.price, state.exit.price)
        assert row["quantity"] == state.entry.quantity
        assert row["gross_return"] == pytest.approx(gross, abs=1e-12)
        assert row["cost"] == pytest.approx(cost, abs=1e-12)
        assert row["reward"] == pytest.approx((gross - cost) / row["risk_unit"], abs=1e-9)
        assert row["exit_reason"] == {1: "stop", 2: "target", 3: "time"}[state.leaving]


@pytest.mark.parametrize("bars", [minute_bars(TOMORROW), minute_bars(TOMORROW).clear()], ids=["bars", "none"])
def test_where_nothing_is_planned_or_open_the_tables_are_those_of_a_session_with_trades_without_rows(bars):
    some = run(decisions({"A": 5}), minute_bars(TOMORROW))
    none = run(decisions({}), bars)
    for name in ("resolved", "executions", "positions"):
        assert getattr(none, name).equals(getattr(some, name).clear()), name
        assert getattr(none, name).schema == getattr(some, name).schema
    assert (none.net_return.shape, none.net_return.dtype) == ((0, ACTIONS), some.net_return.dtype)
    assert (none.profit, none.traded) == (0.0, 0.0)


def test_taken_skipped_and_rejected_decisions_have_the_same_outcome_for_the_same_action():
    bars = minute_bars(TOMORROW)
    results = {s: run(decisions({"A": 5, "B": 70, "C": 127}, s), bars) for s in ("taken", "skipped", "rejected")}
    outcomes = [r.resolved.select(OUTCOME.names()).drop("counterfactual") for r in results.values()]
    assert outcomes[0].equals(outcomes[1])
    assert outcomes[0].equals(outcomes[2])
    assert [r.resolved["counterfactual"].unique().to_list() for r in results.values()] == [[False], [True], [True]]
    for status in ("skipped", "rejected"):
        assert results[status].executions.equals(EXECUTIONS.to_frame())
        assert (results[status].profit, results[status].traded) == (0.0, 0.0)


def test_profit_and_turnover_are_those_of_taken_trades_and_executions_add_up_to_their_rows():
    bars = minute_bars(TOMORROW)
    taken, skipped = decisions({"A": 5, "B": 70}), decisions({"C": 127}, "skipped")
    result = run(pl.concat([taken, skipped]), bars)
    rows = result.resolved.filter(pl.col("status") == "taken")
    legs = result.executions
    assert set(legs["symbol"]) == {"A", "B"}
    assert legs["leg"].to_list() == ["entry", "exit"] * 2
    sign = pl.when((pl.col("side") == "long") == (pl.col("leg") == "exit")).then(1.0).otherwise(-1.0)
    cash = legs.select((sign * pl.col("price") * pl.col("quantity") - pl.col("charges")).sum()).item()
    assert result.profit == pytest.approx(cash, abs=1e-6)
    turnover = legs.select(
        (pl.col("quantity") * pl.when(pl.col("leg") == "entry").then("reference").otherwise("price")).sum()
    )
    assert result.traded == pytest.approx(turnover.item(), abs=1e-6)
    away = (legs["price"] - legs["reference"]).abs() - legs["half_spread"] - legs["slippage"]
    assert away.abs().max() == pytest.approx(0, abs=1e-9)
    assert rows["net_return"].is_not_null().all()


def test_volume_that_counts_contracts_is_worth_its_lots():
    """Contracts of 50 units: a tenth of 20 contracts a minute is two of them, not a fiftieth."""
    of_fifty = replace(VENUE, lot_sizes=lambda symbols, on: [50.0] * len(list(symbols)))
    contracts = replace(of_fifty, volume_units=of_fifty.lot_sizes)
    bars, plan = minute_bars(TOMORROW, "A", volume=20), decisions({"A": 5})
    units = bars.with_columns(pl.col("volume") * 50)
    expected = carry_out(plan, NOTHING_OPEN, np.full(1, 0.001), units, of_fifty, SEED, TOMORROW)
    found = carry_out(plan, NOTHING_OPEN, np.full(1, 0.001), bars, contracts, SEED, TOMORROW)
    np.testing.assert_array_equal(found.net_return, expected.net_return)
    assert np.isfinite(found.net_return).any()
    assert (found.resolved["quantity"] % 50 == 0).all()


def test_outcomes_do_not_depend_on_which_other_symbols_are_there():
    bars, actions = minute_bars(TOMORROW), {"A": 5, "B": 70, "C": 127}
    whole = run(decisions(actions), bars)
    alone = run(decisions({"B": 70}).with_columns(risk_unit=0.005), bars.filter(pl.col("symbol") == "B"))
    assert alone.resolved.equals(whole.resolved.filter(pl.col("symbol") == "B"))
    assert (alone.net_return[0] == whole.net_return[1]).all()


def stuck() -> tuple[Result, int]:
    """Symbol B is bought and then halted for the rest of the session. Stops far away, so that nothing else happens."""
    action = int(np.flatnonzero((GRID.side > 0) & (GRID.size == 0.01) & (GRID.stop == 3) & (GRID.target == 3))[0])
    plan = decisions({"A": 5, "B": action}).with_columns(risk_unit=pl.lit(0.2))
    return run(plan, halted(minute_bars(TOMORROW), "B", 10)), action


def test_what_cannot_be_sold_stays_open_and_is_known_only_when_it_was_sold():
    first, action = stuck()
    assert first.resolved["symbol"].to_list() == ["A"]
    assert first.positions["symbol"].to_list() == ["B"]
    assert first.positions.schema == POSITIONS
    assert np.isnan(first.net_return[1, action])
    assert first.executions.filter(pl.col("symbol") == "B")["leg"].to_list() == ["entry"]
    entry, row = first.executions.filter(symbol="A", leg="entry").row(0, named=True), first.resolved.row(0, named=True)
    assert first.profit == pytest.approx(row["net_return"] * entry["quantity"] * entry["reference"])

    tomorrow = minute_bars(NEXT)
    second = run(decisions({}, session=NEXT), tomorrow, first.positions, NEXT)
    (row,) = second.resolved.to_dicts()
    validate(second.resolved)
    assert (row["symbol"], row["session"], row["exit_reason"], row["complete"]) == ("B", TOMORROW, "carried", True)
    assert row["entry_ts"].date() == TOMORROW
    assert row["exit_ts"] == tomorrow.filter(pl.col("symbol") == "B")["ts"][0]
    assert second.positions.is_empty()
    assert second.executions["leg"].to_list() == ["exit"]


def test_what_was_carried_overnight_pays_delivery_on_both_sides_and_its_legs_add_up():
    first, action = stuck()
    second = run(decisions({}, session=NEXT), minute_bars(NEXT), first.positions, NEXT)
    (row,) = second.resolved.to_dicts()
    entry = first.executions.filter(symbol="B").to_dicts()[0]
    exit_ = second.executions.to_dicts()[0]
    bought, sold = entry["price"] * entry["quantity"], exit_["price"] * exit_["quantity"]
    assert entry["charges"] == pytest.approx(float(charges(VENUE.costs.delivery, True, bought)))
    assert exit_["charges"] == pytest.approx(float(charges(VENUE.costs.delivery, False, sold)))
    assert exit_["charges"] > float(charges(VENUE.costs.intraday, False, sold))
    profit = sold - bought - entry["charges"] - exit_["charges"]
    assert second.profit == pytest.approx(profit, abs=1e-6)
    assert row["net_return"] * entry["reference"] * entry["quantity"] == pytest.approx(profit, abs=1e-6)
    assert row["quantity"] == entry["quantity"] == exit_["quantity"]
    assert GRID.size[action] == row["size"]


def test_a_position_waits_through_sessions_without_bars_of_its_symbol():
    first, _ = stuck()
    without = run(decisions({}, session=NEXT), minute_bars(NEXT, "AC"), first.positions, NEXT)
    nothing = run(decisions({}, session=NEXT), BARS.to_frame(), first.positions, NEXT)
    quiet = run(decisions({}, session=NEXT), halted(minute_bars(NEXT), "B", 0), first.positions, NEXT)
    for waiting in (without, nothing):
        assert waiting.resolved.is_empty()
        assert waiting.executions.is_empty()
        assert waiting.positions.equals(first.positions)
    assert quiet.resolved.is_empty()
    later = date(2023, 1, 5)
    expected = run(decisions({}, session=later), minute_bars(later), first.positions, later)
    for waiting in (without, nothing, quiet):
        assert run(decisions({}, session=later), minute_bars(later), waiting.positions, later).resolved.equals(
            expected.resolved
        )


def test_a_stop_that_the_next_open_jumps_is_told_as_a_stop_when_it_was_under_way():
    action = int(np.flatnonzero((GRID.side > 0) & (GRID.size == 0.01) & (GRID.stop == 1) & (GRID.target == 3))[0])
    bars = minute_bars(TOMORROW)
    minute = pl.int_range(pl.len()).over("symbol")
    falls = (pl.col("symbol") == "B") & (minute == 9)
    crash = bars.with_columns(
        low=pl.when(falls).then(pl.col("low") * 0.5).otherwise("low"),
        volume=pl.when(falls).then(100.0).otherwise("volume"),
    )
    first = run(decisions({"B": action}).with_columns(risk_unit=pl.lit(0.1)), halted(crash, "B", 10))
    assert first.resolved.is_empty()
    second = run(decisions({}, session=NEXT), minute_bars(NEXT), first.positions, NEXT)
    assert second.resolved["exit_reason"].to_list() == ["stop"]


def test_a_decision_whose_symbol_never_trades_again_is_closed_as_incomplete_after_two_weeks():
    first, _ = stuck()
    last = TOMORROW + timedelta(days=14)
    kept = run(decisions({}, session=last), BARS.to_frame(), first.positions, last)
    assert kept.positions.height == 1
    after = last + timedelta(days=1)
    gone = run(decisions({}, session=after), BARS.to_frame(), kept.positions, after)
    (row,) = gone.resolved.to_dicts()
    validate(gone.resolved)
    assert gone.positions.is_empty()
    assert (row["complete"], row["exit_ts"], row["net_return"]) == (False, None, None)
    assert gone.profit == 0.0


def test_an_entry_that_finds_no_volume_in_its_minutes_is_unfilled_and_incomplete():
    bars = halted(minute_bars(TOMORROW), "B", 0, ENTRY_BARS + 1)  # one bar of latency before the five
    plan = decisions({"A": 5, "B": 70, "X": 5})  # X has no bars at all
    result = run(plan, bars)
    validate(result.resolved)
    unfilled = result.resolved.filter(~pl.col("complete"))
    assert unfilled["symbol"].to_list() == ["B", "X"]
    assert unfilled["exit_reason"].to_list() == ["unfilled"] * 2
    assert unfilled["quantity"].to_list() == [0.0, 0.0]
    nulls = ("entry_ts", "entry_price", "exit_ts", "exit_price", "gross_return", "cost", "net_return", "reward")
    assert all(unfilled[column].is_null().all() for column in nulls)
    assert set(result.executions["symbol"]) == {"A"}
    assert np.isnan(result.net_return[1:]).all()


def test_a_session_without_any_bars_leaves_every_decision_unfilled():
    result = run(decisions({"A": 5, "B": 70}), BARS.to_frame())
    validate(result.resolved)
    assert result.resolved["exit_reason"].to_list() == ["unfilled"] * 2
    assert result.executions.is_empty()
    assert np.isnan(result.net_return).all()
    assert (result.profit, result.traded) == (0.0, 0.0)


def test_a_share_dearer_than_the_position_fills_nothing():
    dear = decisions({"A": 0}).with_columns(reference_close=pl.lit(20_000.0))  # 0.1 % of the capital is 10,000
    assert GRID.size[0] == 0.001
    assert run(dear, minute_bars(TOMORROW)).resolved["exit_reason"].to_list() == ["unfilled"]


def test_nothing_planned_and_nothing_open_is_nothing():
    result = run(decisions({}), minute_bars(TOMORROW))
    assert result.resolved.is_empty()
    assert result.net_return.shape == (0, ACTIONS)


def test_inputs_come_back_untouched():
    first, _ = stuck()
    plan, bars = decisions({"A": 5}, session=NEXT), minute_bars(NEXT)
    copies = plan.clone(), bars.clone(), first.positions.clone()
    run(plan, bars, first.positions, NEXT)
    assert all(a.equals(b) for a, b in zip((plan, bars, first.positions), copies, strict=True))


def test_the_entry_never_lies_before_the_decision_was_made():
    assert TODAY < TOMORROW
    result = run(decisions({"A": 5, "B": 70}), minute_bars(TOMORROW))
    assert (result.resolved["decided_at"] < result.resolved["entry_ts"]).all()
