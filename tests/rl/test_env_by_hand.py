"""The compiled environment against its slow twin, term by term, and against the backtester, to the last bit."""

import numpy as np
import pytest
from environment_by_hand import Account
from hypothesis import given, settings
from hypothesis import strategies as st
from tradingcases import again, episode_of, random_actions

from odin_core.execution.costs import ChargeRates, CostSchedule
from odin_core.execution.fills import simulate
from odin_core.execution.orders import ExecutionRules, ExitReason, VolumeKind
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.environment import TradingEnv
from odin_core.rl.kernel_values import TERMS
from odin_core.rl.tape import Tape, planted

# Depth 1 fills at once; the others leave partial fills, carried positions and orders that never fill.
TAPES = {
    depth: planted(3, depth=depth, symbols=2, sessions=8, bars=15, state=4, heatmap=1) for depth in (1, 3e-3, 1e-4)
}
COSTS = CostSchedule(
    intraday=ChargeRates(brokerage_rate=0.0003, brokerage_cap=20, sell_tax_rate=0.0002, gst_rate=0.18),
    delivery=ChargeRates(buy_tax_rate=0.001, sell_tax_rate=0.001, fixed_per_sell=15.0),
)


@st.composite
def settings_of(draw: st.DrawFn, *, randomised: bool) -> EnvironmentConfig:
    wide = {"cost_factor": (0.5, 2.0), "slippage_factor": (0.0, 3.0), "latency_bars": (0, 2)}
    none = {"cost_factor": (1.0, 1.0), "slippage_factor": (1.0, 1.0), "latency_bars": (0, 0)}
    values = {
        "episode_bars": draw(st.sampled_from((20, 60, 200))),
        "max_position": draw(st.sampled_from((0.5, 1.0, 3.0))),
        "entry_bars": draw(st.integers(1, 4)),
        "capital": draw(st.sampled_from((20_000.0, 1e6))),
        "lambda_hold": 0.001,
        "efficiency": draw(st.sampled_from((0.0, 0.3))),
        "max_trades": draw(st.sampled_from((1, 2, 20))),
        "max_exposure": draw(st.sampled_from((0.8, 10.0))),
        "max_drawdown": draw(st.sampled_from((0.005, 1.0))),
    }
    return EnvironmentConfig(**values, **(wide if randomised else none))


@given(st.data(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_each_term_of_the_reward_is_what_the_slow_twin_computes(data: st.DataObject, seed: int):
    tape, config = TAPES[data.draw(st.sampled_from(list(TAPES)))], data.draw(settings_of(randomised=False))
    rules = ExecutionRules(noise=0.0, latency_bars=data.draw(st.integers(0, 2)))
    env = TradingEnv(tape, config, rules=rules, costs=COSTS, seed=seed)
    actions = random_actions(np.random.default_rng(seed), config.episode_bars, data.draw(st.sampled_from((0.1, 0.5))))
    _, rewards, infos = episode_of(env, actions)
    twin = Account(tape, config, rules, COSTS, env.episode().start)
    for action, reward, info in zip(actions, rewards, infos, strict=False):
        terms = twin.step(action.tolist())
        assert info["row"] == twin.row
        assert info["equity"] == pytest.approx(twin.equity, rel=1e-12)
        assert {name: info[name] for name in (*TERMS, "denied")} == pytest.approx(terms, rel=1e-6, abs=1e-12)
        assert reward == pytest.approx(sum(terms[name] for name in TERMS), rel=1e-5, abs=1e-9)
    assert twin.row == twin.end or infos[-1]["equity"] <= config.ruin * config.capital


@given(st.data(), st.integers(0, 1000), st.sampled_from(list(VolumeKind)))
@settings(max_examples=60, deadline=None)
def test_an_episode_run_again_by_the_backtester_has_the_same_equity_to_the_last_bit(
    data: st.DataObject, seed: int, volume: VolumeKind
):
    tape, config = TAPES[data.draw(st.sampled_from(list(TAPES)))], data.draw(settings_of(randomised=True))
    env = TradingEnv(tape, config, rules=ExecutionRules(noise=0.4, volume=volume), costs=COSTS, seed=seed)
    actions = random_actions(np.random.default_rng(seed), config.episode_bars, data.draw(st.sampled_from((0.1, 0.5))))
    _, _, infos = episode_of(env, actions)
    episode = env.episode()
    told = again(tape, episode)
    np.testing.assert_array_equal(told.equity, [config.capital] + [info["equity"] for info in infos])
    np.testing.assert_array_equal(told.equity, episode.equity)


def test_the_cases_hold_partial_fills_carried_positions_and_orders_that_never_fill():
    """Else the two tests above would say little."""
    config = EnvironmentConfig(episode_bars=110, cost_factor=(0.5, 2.0), latency_bars=(0, 2))
    carried, partly, unfilled = 0, 0, 0
    for tape in TAPES.values():
        env = TradingEnv(tape, config, seed=1)
        for seed in range(4):
            episode_of(env, random_actions(np.random.default_rng(seed), 110, 0.1))
            episode = env.episode()
            told, fills = again(tape, episode), simulate(tape.bars, episode.orders, episode.rules)
            carried += int((told.held[_session_ends(tape, episode.start, told.held.size)] != 0).sum())
            partly += int(((fills.entry_quantity > 0) & (fills.entry_quantity < episode.orders.quantity)).sum())
            unfilled += int((fills.reason == ExitReason.UNFILLED).sum())
    assert min(carried, partly, unfilled) > 5


def _session_ends(tape: Tape, start: int, n: int) -> np.ndarray:
    rows = start + np.arange(n)
    return tape.session_end[rows] == rows
