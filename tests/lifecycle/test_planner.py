"""The planner: who is let in, whether choices are as frequent as their propensity says, what the guards refuse."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopstates import CLOSE, NSE, SESSION_BARS, TOMORROW, Oracle, feature_rows, in_phase

from odin_core.lifecycle.config import FilterConfig, LifeConfig, with_settings
from odin_core.lifecycle.fold import inputs
from odin_core.lifecycle.planner import _exploration_chance, admit, plan_session
from odin_core.lifecycle.state import LoopState
from odin_core.market.profile import MarketProfile
from odin_core.policies import rules
from odin_core.policies.actions import ACTIONS, FLAT, decode
from odin_core.replay.record import DECISION, VOCABULARY

FREE = ("guardrails.max_trades=1000000", "guardrails.max_exposure=100.0")  # nothing is ever rejected


def plan(
    state: LoopState,
    contexts: pl.DataFrame,
    *assignments: str,
    epsilon: float = 0.3,
    seed: int = 7,
    profile: MarketProfile = NSE,
) -> pl.DataFrame:
    config = with_settings(LifeConfig(), (*assignments, f"seed={seed}"))
    return plan_session(state, contexts, inputs(contexts), TOMORROW, profile, config, epsilon, "f1")


def admitted(
    rows: pl.DataFrame, profile: MarketProfile = NSE, config: FilterConfig | None = None, widening: int = 0
) -> pl.DataFrame:
    return admit(rows, profile, config or FilterConfig(), widening, SESSION_BARS, pl.DataFrame()).contexts


def let_in(
    *, widening: int = 0, profile: MarketProfile = NSE, config: FilterConfig | None = None, **columns: Any
) -> bool:
    rows = feature_rows(1, **columns)
    return admitted(rows, profile, config, widening).height == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"complete": False}, {"complete": None}, {"vol_regime": None}, {"bars_5m": 44}, {"bars_5m": None},
        {"realised_volatility_75_5m": 0.0039}, {"realised_volatility_75_5m": None}, {"traded_value": 4.9e6},
        {"traded_value": None}, {"natr_14_60m": 0.0}, {"natr_14_60m": None},
    ],
)  # fmt: skip
def test_what_is_unknown_too_quiet_or_too_thin_is_denied(columns: dict[str, Any]):
    assert let_in()
    assert not let_in(**columns)


def test_an_index_and_a_market_that_takes_no_orders_are_denied():
    rows = feature_rows(["AAA", "NIFTY"])
    assert admitted(rows)["symbol"].to_list() == ["AAA"]
    closed = admitted(rows, replace(NSE, tradable=False))
    assert closed.is_empty()
    assert closed.schema == rows.schema


def test_volume_is_asked_for_only_where_it_counts_shares():
    ticks = replace(NSE, volume="ticks")
    assert let_in(traded_value=None, profile=ticks)
    assert not let_in(traded_value=None)


def test_each_step_of_widening_halves_the_thresholds_of_trading_and_volatility_and_nothing_else():
    for steps in range(4):
        at: dict[str, Any] = {"traded_value": 5e6 * 0.5**steps, "realised_volatility_75_5m": 0.004 * 0.5**steps}
        assert let_in(widening=steps, **at)
        assert not let_in(widening=steps, **(at | {"traded_value": at["traded_value"] * 0.999}))
        assert not let_in(
            widening=steps, **(at | {"realised_volatility_75_5m": at["realised_volatility_75_5m"] * 0.999})
        )
    assert not let_in(widening=3, bars_5m=44)
    assert not let_in(widening=3, complete=False)


def test_the_universe_comes_by_symbol_and_an_empty_session_has_none():
    assert admitted(feature_rows(["B", "A"]))["symbol"].to_list() == ["A", "B"]
    assert admitted(feature_rows(0)).is_empty()


def test_rules_over_fundamentals_keep_out_who_breaks_one_or_is_unknown_and_both_are_counted():
    rows = feature_rows(["CHEAP", "DEAR", "NEW", "QUIET"], realised_volatility_75_5m=[0.02, 0.02, 0.02, 0.0])
    figures = pl.DataFrame({"symbol": ["CHEAP", "DEAR", "QUIET"], "pe": [9.0, 90.0, 90.0]})
    config = replace(FilterConfig(), fundamentals="pe <= 60")
    found = admit(rows, NSE, config, 0, SESSION_BARS, figures)
    assert (found.contexts["symbol"].to_list(), found.failed, found.unknown) == (["CHEAP"], 1, 1)
    assert admit(rows, NSE, config, 3, SESSION_BARS, figures).contexts.height == 1  # widening leaves the rules alone
    free = admit(rows, NSE, FilterConfig(), 0, SESSION_BARS, figures)
    assert (free.contexts.height, free.barred) == (3, 0)


def mixed(n: int) -> pl.DataFrame:
    """Contexts of which the rules take two of three: long, short, flat, and so on."""
    return feature_rows(n, sma_cross_5_20_15m=[(0.02, -0.02, 0.0)[i % 3] for i in range(n)])


def oracle(n: int, confidence: float = 0.6) -> Oracle:
    """A champion that stays flat in every third context."""
    lean = np.arange(n) * 37 % ACTIONS
    return Oracle(lean, np.arange(n) % 3 == 2, np.linspace(confidence, 0.9, n))


STATES = {
    "phase 0": in_phase(0),
    "phase 1": in_phase(1),
    "phase 2": in_phase(2, oracle(60)),
    "phase 3": in_phase(3, oracle(60)),
    "phase 2 without champion": in_phase(2),  # a person took it away: the rules stand in
}


@pytest.mark.parametrize("case", sorted(STATES))
def test_the_written_propensity_is_the_frequency_of_the_choice(case: str):
    """By Horvitz and Thompson: for a set of actions, the mean of (chosen in the set) / propensity is the set's size."""
    state, contexts, seeds = STATES[case], mixed(60), 200
    epsilon = 1.0 if state.phase == 0 else 0.3
    plans = [plan(state, contexts, *FREE, epsilon=epsilon, seed=seed) for seed in range(seeds)]
    action = np.array([np.where(p["status"] == "skipped", FLAT, p["action"].to_numpy()) for p in plans])
    propensity = np.array([p["propensity"].to_numpy() for p in plans])
    own = base_of(state, contexts)
    flat, base = action == FLAT, action == own
    for chosen, size in (
        (flat, np.ones(60)),
        (base & ~flat, own >= 0),
        (~base & ~flat, ACTIONS - (own >= 0)),
    ):
        weights = chosen / propensity
        assert weights.mean() == pytest.approx(np.mean(size), abs=5 * weights.std() / np.sqrt(weights.size) + 1e-12)
    for i in range(60):  # what is written for each kind of choice is one number, and over the grid they sum to one
        kinds = [set(propensity[kind[:, i], i].round(12)) for kind in (flat, base & ~flat, ~base & ~flat)]
        assert all(len(kind) <= 1 for kind in kinds)
        counts = (1, int(own[i] >= 0), ACTIONS - int(own[i] >= 0))
        assert sum(n * max(kind, default=0.0) for n, kind in zip(counts, kinds, strict=True)) == pytest.approx(
            1, abs=1e-9
        )


def base_of(state: LoopState, contexts: pl.DataFrame) -> np.ndarray:
    """What the phase's own policy would do; phase 0 has none, so an action that does not exist."""
    if state.phase == 0:
        return np.full(contexts.height, -2)
    champion: Any = state.models.get("joint-0")
    return champion.made.action if champion else rules.propose(contexts).action


@given(st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_exploration_in_phase_3_is_a_probability_and_highest_where_confidence_is_nearest_to_even(
    epsilon: float, confidences: list[float]
):
    base = Oracle(np.zeros(len(confidences), int), np.zeros(len(confidences), bool), np.array(confidences)).made
    chance = _exploration_chance(3, epsilon, base)
    assert ((chance >= 0) & (chance <= 1)).all()
    doubt = np.abs(np.array(confidences) - 0.5)
    assert chance[np.argmin(doubt)] == chance.max()
    if (chance < 1).all():
        assert chance.mean() == pytest.approx(epsilon, abs=1e-9)
    assert (_exploration_chance(2, epsilon, base) == epsilon).all()


@pytest.mark.parametrize("case", sorted(STATES))
def test_a_plan_says_who_decided_what_and_the_same_again_for_the_same_seed(case: str):
    state, contexts = STATES[case], mixed(60)
    made = plan(state, contexts, *FREE, epsilon=1.0 if state.phase == 0 else 0.3)
    assert made.equals(plan(state, contexts, *FREE, epsilon=1.0 if state.phase == 0 else 0.3))
    assert made.schema == DECISION
    meaning = decode(made["action"].to_numpy().astype(int))
    assert (np.where(made["side"] == "long", 1, -1) == meaning.side).all()
    for column, values in (("size", meaning.size), ("stop_atr", meaning.stop), ("target_mult", meaning.target)):
        assert made[column].to_list() == values.tolist()
    own = {"phase 0": "random", "phase 2": "joint", "phase 3": "joint"}.get(case, "rule")
    kind = {0: "uniform", 3: "uncertainty"}.get(state.phase, "epsilon")
    explored = made["source"] == "random"
    assert set(made["source"]) == {"random", own}
    assert (made["exploration_type"] == pl.Series(np.where(explored, kind, "none"))).all()
    assert made["policy"].to_list() == [{"random": "uniform", "rule": "rules"}.get(s, s) for s in made["source"]]
    joint = made["source"] == "joint"
    assert (made["model_version"].is_not_null() == joint).all()
    assert (made["confidence"].is_not_null() == joint).all()
    assert made["decision_id"].to_list() == [f"{TOMORROW}/{s}/1000" for s in contexts["symbol"]]
    assert set(made["decided_at"]) == {CLOSE}
    for column, words in VOCABULARY.items():
        if column in made.columns:
            assert set(made[column].drop_nulls()) <= set(words)


def test_nothing_is_planned_where_nobody_may_be_decided_on():
    assert plan(in_phase(0), feature_rows(0)).equals(DECISION.to_frame())


def open_positions(size: float) -> pl.DataFrame:
    return pl.DataFrame({"status": ["taken", "skipped"], "size": [size, 5.0]})


@settings(max_examples=60, deadline=None)
@given(
    phase=st.sampled_from([0, 1, 2, 3]),
    trades=st.integers(0, 30),
    exposure=st.floats(0, 0.3),
    held=st.floats(0, 0.2),
    seed=st.integers(0, 1000),
)
def test_guards_never_let_caps_be_exceeded_and_refuse_only_with_a_reason(
    phase: int, trades: int, exposure: float, held: float, seed: int
):
    state = in_phase(phase, oracle(60) if phase > 1 else None, positions=open_positions(held))
    told = (f"guardrails.max_trades={trades}", f"guardrails.max_exposure={exposure!r}")
    made = plan(state, mixed(60), *told, seed=seed, epsilon=1.0 if phase == 0 else 0.3)
    taken = made.filter(pl.col("status") == "taken")
    assert taken.height <= trades
    assert taken["size"].sum() <= max(exposure - held, 0) + 1e-9
    reasons = dict(made.group_by("reject_reason").len().iter_rows())
    assert (made["reject_reason"].is_not_null() == (made["status"] == "rejected")).all()
    assert set(reasons) <= {None, "max_trades", "max_exposure"}
    if "max_trades" in reasons:
        assert taken.height == trades
    if "max_exposure" in reasons:
        smallest = min(made.filter(pl.col("reject_reason") == "max_exposure")["size"].to_list())
        assert sum(taken["size"].to_list()) + held + smallest > exposure


def test_the_most_confident_are_served_first_and_ties_by_lot():
    state = in_phase(2, oracle(60))
    made = plan(state, mixed(60), "guardrails.max_trades=5", epsilon=0.0)
    wanted = made.filter(pl.col("status") != "skipped").sort("confidence", descending=True)
    assert wanted["status"].to_list() == ["taken"] * 5 + ["rejected"] * 35
    served = {tuple(plan(in_phase(1), mixed(60), "guardrails.max_trades=5", epsilon=0.0, seed=s).filter(
        pl.col("status") == "taken")["symbol"]) for s in range(5)}  # fmt: skip
    assert len(served) > 1


def test_a_drawdown_halt_refuses_every_entry():
    made = plan(in_phase(1, halt_left=2), mixed(60))
    assert set(made["status"]) == {"skipped", "rejected"}
    assert set(made["reject_reason"].drop_nulls()) == {"drawdown"}
    assert "taken" in set(plan(in_phase(1, halt_left=0), mixed(60))["status"])


def test_a_share_dearer_than_the_position_is_too_small_to_trade():
    small = replace(NSE, capital=100_000.0)
    made = plan(in_phase(0), feature_rows(200, close=180.0), *FREE, epsilon=1.0, profile=small)
    too_small = made["reject_reason"] == "too_small"
    wanted = made["status"] != "skipped"
    assert (too_small.fill_null(False) == (wanted & (made["size"] * 100_000 < 180.0))).all()
    assert too_small.any()
    assert made.filter(pl.col("status") == "taken").height == int((wanted & ~too_small.fill_null(False)).sum())


def test_decided_at_is_before_the_session_that_is_planned():
    made = plan(in_phase(0), mixed(5), epsilon=1.0)
    assert (made["decided_at"].dt.date() < made["session"]).all()
    assert made["session"][0] - timedelta(days=1) == CLOSE.date()
