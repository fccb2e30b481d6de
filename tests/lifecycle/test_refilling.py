"""A model's choices filled again: the life's own outcomes where nothing changes, and what each footing takes away."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from smalllives import FIRST, SYMBOLS, begin, climbed, quick, run_to

from odin_core.evaluation.shocks import liquidity_drought
from odin_core.execution.costs import charges
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.outcomes import Venue
from odin_core.lifecycle.refilling import (
    AS_IT_WAS,
    Footing,
    Refill,
    Refiller,
    choices,
    chosen,
    crashed,
    dark,
    dearer,
    dried_up,
    gapped,
    later,
    learned_from,
    shocked,
)
from odin_core.lifecycle.run import loop_rules, restore
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile
from odin_core.policies.actions import ACTIONS, FLAT, Proposals, decode, encode

JUMP = 0.02  # what every symbol gains in the minute of each session of `jumpy` in which orders fill, the second


@dataclass(frozen=True)
class Always:
    """A policy that takes one side of everything, the nearest stop and the farthest target."""

    side: int  # 0 is long
    trained_through: date = FIRST

    def propose(self, X: np.ndarray) -> Proposals:
        n = len(X)
        same = lambda value: np.full(n, value)  # noqa: E731
        lean = encode(same(self.side), same(3), same(0), same(3))
        return Proposals(lean, lean, np.linspace(0.4, 0.6, n), np.zeros(n))


def jumpy(session: date, bars: pl.DataFrame) -> pl.DataFrame:
    """Every session's second bar closes JUMP above where it opened, and prices stay there."""
    calendar = session_calendar(load_profile("demo"))
    before = len(calendar.sessions(load_profile("demo").first_partition, session)) - 1
    level = (1 + JUMP) ** before
    minute = (pl.col("ts") - calendar.hours(session).open).dt.total_minutes()
    start = level * pl.when(minute > 1).then(1 + JUMP).otherwise(1.0)
    end = level * pl.when(minute > 0).then(1 + JUMP).otherwise(1.0)
    return bars.with_columns(
        open=pl.col("open") * start, low=pl.col("low") * start, high=pl.col("high") * end, close=pl.col("close") * end
    )


@pytest.fixture(scope="module")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> tuple[Life, MarketData]:
    life, data = begin(tmp_path_factory.mktemp("jumping"), quick(edge=0.0, seed=5), edit=jumpy)
    run_to(life, data, date(2023, 1, 9))
    return life, data


def filled(
    life: Life, data: MarketData, policy: object, *footings: Footing
) -> tuple[dict[str, pl.DataFrame], dict[str, list[Refill]]]:
    """All trades by footing, and all refills."""
    refiller = Refiller(life, data, footings)
    refills: dict[str, list[Refill]] = {footing.name: [] for footing in footings}
    for choice in choices(life, data, policy, life.commits()[1:]):
        for footing, refill in refiller.refill(choice):
            refills[footing.name].append(refill)
    return {name: pl.concat([r.trades for r in of]) for name, of in refills.items()}, refills


def champion() -> tuple[Life, MarketData, object]:
    life, data = climbed()
    state = restore(life, data, loop_rules(life, data.profile))
    return life, data, state.models[state.champion]


def after_training() -> Iterator[tuple[date, Refill, pl.DataFrame]]:
    life, data, model = champion()
    refiller = Refiller(life, data, [AS_IT_WAS])
    for choice in choices(life, data, model, [s for s in life.commits() if s > model.trained_through]):
        [(_, refill)] = refiller.refill(choice)
        yield choice.session, refill, choice.plan


def test_where_nothing_changes_every_action_has_the_outcome_that_the_life_wrote_down():
    life, _ = climbed()
    seen = 0
    for session, refill, _ in after_training():
        stored = life.read("action_outcomes", session)["net_return"].cast(pl.Array(pl.Float32, ACTIONS)).to_numpy()
        assert np.array_equal(refill.result.net_return, stored, equal_nan=True)
        seen += len(stored)
    assert seen > 50


def test_the_choices_are_those_that_the_gate_scored():
    life, _, model = champion()
    scores = life.read_many("candidate_scores", life.sessions_with("candidate_scores"))
    state = life.read("phase_state", life.head).row(0, named=True)
    mine = scores.filter(version=state["champion"]).unique("session").sort("session")
    rewards = {session: (refill, plan) for session, refill, plan in after_training()}
    compared = 0
    for row in mine.iter_rows(named=True):
        refill, plan = rewards[row["session"]]
        assert row["session"] > model.trained_through
        assert row["decisions"] == plan.filter(status="taken").height
        taken = np.flatnonzero(plan["status"] == "taken")
        reward = refill.reward[taken, plan["action"].to_numpy()[taken]]
        known = reward[np.isfinite(reward)]
        if row["reward"] is not None:
            assert known.mean() == pytest.approx(row["reward"], rel=1e-5)
            assert refill.random == pytest.approx(row["random"], rel=1e-5)
            compared += 1
    assert compared >= 5


def test_trades_cost_twice_as_much_and_earn_that_much_less(jumping):
    trades, refills = filled(*jumping, Always(0), AS_IT_WAS, dearer(2.0), dearer(1.0))
    was, twice, same = (trades[f"{name}"] for name in ("as_it_was", "costs_2x", "costs_1x"))
    assert same.equals(was)
    assert was.height == twice.height > 20
    assert twice["gross_return"].to_list() == pytest.approx(was["gross_return"].to_list())
    assert twice["cost"].mean() == pytest.approx(2 * was["cost"].mean(), rel=0.02)
    assert twice["net_return"].mean() == pytest.approx(was["net_return"].mean() - was["cost"].mean(), rel=0.02)
    pairs = zip(refills["as_it_was"], refills["costs_2x"], strict=True)
    assert all(dear.random < cheap.random for cheap, dear in pairs)


def test_every_charge_is_as_many_times_as_high():
    life, data = climbed()
    venue: Venue = loop_rules(life, data.profile).venue
    dear = dearer(3.0).venue(venue)
    for rates, dearer_rates in (
        (venue.costs.intraday, dear.costs.intraday),
        (venue.costs.delivery, dear.costs.delivery),
    ):
        for notional in (1e3, 1e5, 1e7):
            for buys in (True, False):
                told = charges(dearer_rates, buys, notional)
                assert told == pytest.approx(3 * charges(rates, buys, notional))


def test_an_edge_of_one_bar_is_gone_one_bar_later(jumping):
    trades, refills = filled(*jumping, Always(0), AS_IT_WAS, later(1))
    was, late = trades["as_it_was"]["gross_return"].mean(), trades["later_1"]["gross_return"].mean()
    assert was == pytest.approx(JUMP, abs=0.006)
    assert abs(late) < 0.2 * JUMP
    excess = {
        name: np.mean([r.trades["reward"].mean() - r.random for r in of if r.trades.height])
        for name, of in refills.items()
    }
    assert excess["later_1"] < 0.3 * excess["as_it_was"]


def test_a_gap_against_the_position_costs_what_it_jumps_whatever_the_stop(jumping):
    trades, _ = filled(*jumping, Always(0), AS_IT_WAS, gapped("gap_down", -0.2, 5), gapped("gap_up", 0.2, 5))
    held = trades["as_it_was"]
    still = held.filter(pl.col("exit_ts") > pl.col("entry_ts") + pl.duration(minutes=5))["decision_id"]
    assert len(still) > 10
    for name, sign in (("gap_down", -1), ("gap_up", 1)):
        moved = trades[name].filter(pl.col("decision_id").is_in(still.implode()))
        assert (sign * moved["gross_return"] > 0.15).all()


def test_a_crash_is_stopped_on_its_way_down_and_a_gap_of_its_size_is_not(jumping):
    crash, gap_down = crashed("crash", -0.2, 5, 30, 0.0), gapped("gap_down", -0.2, 5)
    trades, _ = filled(*jumping, Always(0), AS_IT_WAS, crash, gap_down)
    worse = trades["as_it_was"].join(trades["crash"], on="decision_id", suffix="_then")
    assert worse.height > 20
    assert worse["gross_return_then"].mean() < worse["gross_return"].mean()
    assert trades["crash"]["gross_return"].min() > -0.1 > trades["gap_down"]["gross_return"].min()


def test_without_volume_nothing_is_bought_and_with_little_of_it_less(jumping):
    trades, _ = filled(*jumping, Always(0), AS_IT_WAS, dried_up("dry", 1.0, 400), dried_up("drought", 0.999, 400))
    assert trades["dry"].is_empty() or trades["dry"]["complete"].sum() == 0
    both = trades["as_it_was"].join(trades["drought"], on="decision_id", suffix="_then")
    assert (both["quantity_then"] <= both["quantity"]).all()
    assert both["quantity_then"].sum() < both["quantity"].sum()


def test_in_the_dark_nothing_fills_and_what_is_open_waits(jumping):
    trades, _ = filled(*jumping, Always(0), AS_IT_WAS, dark("outage", 2, 30))
    minute = trades["outage"].select(
        pl.col(end).dt.hour().cast(int) * 60 + pl.col(end).dt.minute() - (3 * 60 + 45)
        for end in ("entry_ts", "exit_ts")
    )
    assert minute.height > 20
    for end in ("entry_ts", "exit_ts"):
        assert not minute[end].is_between(2, 31).any()
    was = trades["as_it_was"].filter(
        pl.col("exit_ts").dt.minute().is_between(47, 59) & (pl.col("exit_ts").dt.hour() == 3)
    )
    assert was.height > 0


def test_what_cannot_be_sold_is_sold_at_the_next_open_and_counts_for_its_own_session(jumping):
    halted = shocked("halted", "", 5, lambda bars, at: liquidity_drought(bars, 1.0, at=at, minutes=400))
    life, data = jumping
    refiller = Refiller(life, data, [AS_IT_WAS, halted])
    resolved: dict[str, list[pl.DataFrame]] = {"as_it_was": [], "halted": []}
    made = list(choices(life, data, Always(0), life.commits()[1:]))
    for choice in made:
        for footing, refill in refiller.refill(choice):
            resolved[footing.name].append(refill.trades.with_columns(on=pl.lit(choice.session)))
    late = pl.concat(resolved["halted"]).filter(pl.col("exit_reason") == "carried")
    assert late.height > 10
    assert (late["on"] > late["session"]).all()
    assert (late["exit_ts"].dt.date() == late["on"]).all()
    last = made[-1].plan.filter(status="taken").height
    assert refiller.stuck("halted") <= last
    assert refiller.stuck("halted") == last - resolved["halted"][-1].filter(pl.col("session") == pl.col("on")).height
    assert refiller.stuck("as_it_was") == 0


def test_trades_stay_within_what_the_life_may_do(jumping):
    life, data = jumping
    [choice, *_] = choices(life, data, Always(0), life.commits()[1:])
    assert choice.plan.height == SYMBOLS
    taken = choice.plan.filter(status="taken")
    assert taken.height == life.config.guardrails.max_trades
    assert taken["confidence"].min() > choice.plan.filter(status="skipped")["confidence"].max()
    tight = replace(life, config=replace(life.config, guardrails=replace(life.config.guardrails, max_exposure=0.025)))
    few = chosen(choice.plan, choice.proposals, tight).filter(status="taken")
    assert few["size"].sum() == pytest.approx(0.02)


def test_a_policy_that_stays_flat_has_no_trades(jumping):
    life, data = jumping
    flat = Always(0).propose(np.zeros((SYMBOLS, 1)))._replace(action=np.full(SYMBOLS, FLAT))
    [choice, *_] = choices(life, data, Always(0), life.commits()[1:2])
    plan = chosen(choice.plan, flat, life)
    assert set(plan["status"]) == {"skipped"}
    assert (decode(plan["action"].to_numpy().astype(int)).side > 0).all()


def test_the_window_that_a_model_learned_from_is_the_one_that_the_life_had():
    life, data = climbed()
    state = restore(life, data, loop_rules(life, data.profile))
    window = learned_from(life, data, life.head)
    had = [s for s in state.window if len(s.features)]
    assert [s.session for s in window.sessions] == [s.session for s in had]
    for mine, theirs in zip(window.sessions, had, strict=True):
        assert np.array_equal(mine.features, theirs.features, equal_nan=True)
        assert np.array_equal(mine.rewards, theirs.rewards, equal_nan=True)
    early = life.commits()[7]
    assert learned_from(life, data, early).last_session == early
