"""The fold, session by session: days without bars, halts, widening, demotion, a person's promotions, baselines."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopstates import feature_rows, in_phase, scores
from smalllives import CLIMBED, FIRST, NO_BARS, begin, climbed, quick, run_to

from odin_core.lifecycle import fold
from odin_core.lifecycle.config import LifeConfig, with_settings
from odin_core.lifecycle.fold import LoopRules, _halt, _hold_return, _random_portfolios, advance
from odin_core.lifecycle.run import day_of, loop_rules, restore
from odin_core.lifecycle.state import Day, DayRecord, LoopState
from odin_core.policies.actions import ACTIONS, GRID


@pytest.fixture(scope="module")
def ready() -> tuple[LoopState, Day, LoopRules]:
    """The life that climbed, at its head, and the next session with its bars."""
    life, data = climbed()
    rules = loop_rules(life, data.profile)
    return restore(life, data, rules), day_of(life, data, data.calendar.next(CLIMBED)), rules


def row(record: DayRecord) -> dict[str, Any]:
    return record.tables["phase_state"].row(0, named=True)


def test_advance_is_pure_and_says_the_same_twice(ready: tuple[LoopState, Day, LoopRules]):
    state, day, rules = ready
    frames = {name: getattr(state, name).clone() for name in ("plan", "positions", "contexts", "closes", "scores")}
    bars, features = day.bars.clone(), day.features.clone()
    first, second = advance(state, day, rules), advance(state, day, rules)
    assert all(a.equals(second[1].tables[name]) for name, a in first[1].tables.items())
    assert all(getattr(state, name).equals(frame) for name, frame in frames.items())
    assert day.bars.equals(bars)
    assert day.features.equals(features)
    assert first[0].session == day.session
    assert row(first[1])["session"] == day.session


def test_a_session_without_bars_is_carried_through_as_no_data():
    life, _ = climbed()
    state = life.read("phase_state", NO_BARS).row(0, named=True)
    assert state["status"] == "no_data"
    assert state["reason"].startswith("no bars on this session: nothing fills and nothing is planned")
    planned = life.read("recommendations", date(2023, 2, 6))
    replay = life.read("replay_buffer", NO_BARS)
    assert set(replay.filter(~pl.col("complete"))["decision_id"]) == set(planned["decision_id"])
    assert replay["exit_reason"].unique().to_list() == ["unfilled"]
    assert life.read("recommendations", NO_BARS).is_empty()
    assert (state["trades"], state["session_return"], state["hold_return"]) == (0, 0.0, None)
    after = life.read("phase_state", CLIMBED).row(0, named=True)
    assert after["status"] == "ok"
    assert after["sessions"] == state["sessions"] + 1
    assert life.read("recommendations", CLIMBED).height == 12
    # Buy and hold goes on from the last closes that there were.
    closes = {d: climbed()[1].decision_rows(d).select("symbol", "close") for d in (date(2023, 2, 6), CLIMBED)}
    both = closes[CLIMBED].join(closes[date(2023, 2, 6)], on="symbol")
    assert after["hold_return"] == pytest.approx((both["close"] / both["close_right"] - 1).mean())


def test_a_plan_meets_the_bars_of_the_next_session_only(ready: tuple[LoopState, Day, LoopRules]):
    state, day, _ = ready
    assert set(state.plan["session"]) == {day.session}
    assert set(advance(*ready)[0].plan["session"]) == {day.next_session}
    assert (state.plan["decided_at"] < day.opens).all()


def test_drawdown_halts_entries_for_as_many_sessions_as_told_and_the_peak_is_set_anew(
    ready: tuple[LoopState, Day, LoopRules],
):
    state, day, rules = ready
    rules = replace(rules, config=with_settings(rules.config, ["guardrails.halt_sessions=3"]))
    sunk, halted = replace(state, peak=state.equity + 0.2), []
    for _ in range(5):  # the same day again and again without a trade: what counts here is the counting
        idle = replace(sunk, plan=sunk.plan.clear(), contexts=sunk.contexts.clear(), positions=sunk.positions.clear())
        sunk, record = advance(idle, day, rules)
        halted.append((row(record)["halt_left"], set(sunk.plan["reject_reason"].drop_nulls())))
        assert row(record)["drawdown"] <= 0
    assert [left for left, _ in halted] == [3, 2, 1, 0, 0]
    assert [reasons == {"drawdown"} for _, reasons in halted] == [True, True, True, False, False]
    assert sunk.peak < state.equity + 0.1


@given(st.lists(st.floats(-0.03, 0.03), max_size=60))
def test_a_halt_begins_at_the_cap_and_drawdown_is_never_above_zero(returns: list[float]):
    config, state, halts = with_settings(LifeConfig(), ["guardrails.halt_sessions=4"]), LoopState(), 0
    for value in returns:
        equity, before = state.equity + value, state
        peak, left = _halt(before, equity, config)
        state = replace(state, equity=equity, peak=peak, halt_left=left)
        assert state.drawdown <= 0
        if before.halt_left:
            assert left == before.halt_left - 1
        elif left:
            halts += 1
            assert left == 4
            assert peak - equity >= config.guardrails.max_drawdown
        else:
            assert peak - equity < config.guardrails.max_drawdown


def test_drawdown_in_phase_3_demotes_takes_the_champion_away_and_writes_why(ready: tuple[LoopState, Day, LoopRules]):
    state, day, rules = ready
    assert (state.phase, state.champion is not None) == (3, True)
    after, record = advance(replace(state, peak=state.equity + 0.2), day, rules)
    learned, event = record.tables["registry_history"].to_dicts()
    assert learned["event"] in ("refused", "insufficient")
    assert record.tables["phase_state"]["retrained_because"][0].startswith("drawdown")
    assert (event["event"], event["version"], event["champion_after"]) == ("demoted", state.champion, None)
    assert event["effective"] == day.next_session
    assert event["reason"] == row(record)["reason"]
    assert "demoted: drawdown" in event["reason"]
    assert (after.phase, after.champion, after.champion_since, after.champion_through) == (1, None, None, None)
    assert (after.hypothesis, after.hypothesis_since) == (state.hypothesis + 1, day.next_session)
    assert (after.phase_since, after.phase_rows, after.returns) == (day.session, 0, ())
    assert set(after.plan["source"]) <= {"random", "rule"}
    assert state.champion not in set(after.models) - set(after.candidates)


def test_a_champion_worse_than_random_is_demoted_by_the_fold_too(ready: tuple[LoopState, Day, LoopRules]):
    state, day, rules = ready
    worse = scores([-0.5 + 0.05 * (-1) ** i for i in range(40)], version=state.champion or "", first=date(2023, 3, 1))
    after, record = advance(replace(state, scores=worse), day, rules)
    assert after.phase == 1
    assert "surely below random's" in row(record)["reason"]


def test_a_persons_promotions_are_taken_up_in_order_and_written_down(ready: tuple[LoopState, Day, LoopRules]):
    state, day, rules = ready
    life, _ = climbed()
    early = life.read("evaluation_report", date(2023, 1, 6))["version"][0]
    assert early not in state.models
    wanted = [
        {"version": None, "model": None, "why": "holiday"},
        {"version": early, "model": life.registry.model(early), "why": "I like it"},
    ]
    after, record = advance(state, replace(day, promotions=tuple(wanted)), rules)
    events = record.tables["registry_history"].to_dicts()
    assert [(e["event"], e["champion_before"], e["champion_after"], e["reason"]) for e in events] == [
        ("by_person", state.champion, None, "holiday"), ("by_person", None, early, "I like it"),
    ]  # fmt: skip
    assert (after.champion, after.champion_since) == (early, day.next_session)
    assert after.champion_through == date(2023, 1, 6)
    assert after.hypothesis == state.hypothesis + 2
    assert set(after.plan.filter(pl.col("source") == "joint")["model_version"]) == {early}
    assert set(after.models) == {*after.candidates, early}


def test_without_a_champion_phase_3_goes_on_by_rules(ready: tuple[LoopState, Day, LoopRules]):
    state, day, rules = ready
    gone = ({"version": None, "model": None, "why": "holiday"},)
    after, _ = advance(state, replace(day, promotions=gone), rules)
    assert (after.phase, after.champion, after.champion_since) == (3, None, None)
    assert set(after.plan["source"]) <= {"random", "rule"}


def test_a_narrow_universe_widens_step_by_step_up_to_the_setting_and_says_so(tmp_path: Path):
    config = quick("filter.min_volatility=5.0", "filter.max_widening=2")
    life, data = begin(tmp_path / "home", config)
    results = run_to(life, data, date(2023, 1, 5))
    states = life.read_many("phase_state", life.commits())
    assert states["widening"].to_list() == [2, 2, 2, 2]  # the warm-up's close was the first step
    assert states["filtered"].to_list() == [0] * 4
    assert all(r.summary["status"] == "ok" for r in results)
    assert all("only 0 symbols pass the filter" in reason for reason in states["reason"])
    assert all("loosen the filter" in ways.to_list() for ways in states["suggestions"])


def test_widening_stays_off_where_it_is_told_to(tmp_path: Path):
    life, data = begin(tmp_path / "home", quick("filter.min_volatility=5.0", "filter.adaptive=false"))
    run_to(life, data, date(2023, 1, 3))
    assert life.read("phase_state", date(2023, 1, 3))["widening"].to_list() == [0]


def test_a_widened_filter_lets_more_symbols_in(tmp_path: Path):
    volatility = (
        begin(tmp_path / "a")[1].decision_rows(date(2022, 12, 30))["realised_volatility_75_5m"].sort().to_list()
    )
    told = f"filter.min_volatility={1.9 * volatility[6]!r}"  # six of twelve after one halving
    life, data = begin(tmp_path / "b", quick(told, "filter.min_symbols=12", "filter.max_widening=1"))
    state = restore(life, data, loop_rules(life, data.profile))
    assert state.plan.height < 6
    assert state.widening == 1
    run_to(life, data, FIRST)
    assert life.read("phase_state", FIRST)["filtered"][0] > state.plan.height


def test_a_phase_transition_is_in_the_table_of_its_session_with_its_numbers():
    life, _ = climbed()
    for state in life.read_many("phase_state", life.commits()).iter_rows(named=True):
        distance = json.loads(state["distance"])
        if state["phase"] > state["phase_before"]:
            assert state["phase_since"] == state["session"]
            assert all(name in state["reason"] for name in distance)
        elif state["phase"] < 3:
            assert any(value is None or value != needed for value, needed in distance.values())


def test_random_portfolios_have_as_many_trades_of_the_same_sizes():
    n, count = 5, 4000
    config = with_settings(LifeConfig(), [f"exploration.random_portfolios={count}"])
    sizes = np.array([0.01, 0.001, 0.0025])
    flat = _random_portfolios(np.ones((n, ACTIONS), np.float32), sizes, FIRST, config)
    assert flat == pytest.approx([sizes.sum()] * count)
    by_size = _random_portfolios(np.tile(GRID.size.astype(np.float32), (n, 1)), sizes, FIRST, config)
    assert by_size == pytest.approx([(sizes**2).sum()] * count)
    drawn = np.random.default_rng(1).standard_normal((n, ACTIONS)).astype(np.float32)
    drawn[0, :] = np.nan  # unknown: earns nothing
    mean = sum(s * np.nan_to_num(drawn)[:, GRID.size == s].mean() for s in sizes)
    returns = np.array(_random_portfolios(drawn, sizes, FIRST, config))
    assert returns.mean() == pytest.approx(mean, abs=4 * returns.std() / np.sqrt(count))
    assert _random_portfolios(drawn, np.empty(0), FIRST, config) == [0.0] * count
    assert _random_portfolios(np.empty((0, ACTIONS), np.float32), sizes, FIRST, config) == [0.0] * count


def test_holding_everything_earns_the_mean_from_close_to_close_of_what_has_both():
    today = feature_rows(["A", "B", "C"], close=[110.0, 90.0, 50.0])
    before = pl.DataFrame({"symbol": ["B", "A", "D"], "close": [100.0, 100.0, 1.0]})
    assert _hold_return(before, today) == pytest.approx(0.0)
    assert _hold_return(before.filter(pl.col("symbol") != "B"), today) == pytest.approx(0.1)
    assert _hold_return(before.clear(), today) is None
    assert _hold_return(before, today.clear()) is None


def test_regimes_are_counted_by_session_and_rows_by_the_regime_of_their_decision():
    assert fold._add((1, 2, 3), "medium", 1) == (1, 3, 3)
    assert fold._add((1, 2, 3), None, 1) == (1, 2, 3)
    life, _ = climbed()
    replay = life.read_many("replay_buffer", life.commits())
    counts = dict(replay["vol_regime"].value_counts().iter_rows())
    last = life.read("phase_state", CLIMBED).row(0, named=True)
    assert last["regime_rows"] == [counts.get(r, 0) for r in ("low", "medium", "high")]


def test_a_summary_shows_what_the_session_did(ready: tuple[LoopState, Day, LoopRules]):
    record = advance(*ready)[1]
    replay, state = record.tables["replay_buffer"], row(record)
    for status in ("taken", "skipped", "rejected"):
        assert record.summary[status] == replay.filter(pl.col("status") == status).height
    assert record.summary["drawdown"] == state["drawdown"]
    assert record.summary["phase"] == state["phase"]
    assert None not in record.summary.values()


def test_phase_0_states_begin_with_a_plan_of_pure_chance(tmp_path: Path):
    life, data = begin(tmp_path / "home")
    rules = loop_rules(life, data.profile)
    state = restore(life, data, rules)
    assert state.phase == in_phase(0).phase == 0
    assert set(state.plan["source"]) == {"random"}
    assert set(state.plan["exploration_type"]) == {"uniform"}
