"""The single environment: Gymnasium's contract, seeds, what an action does, limits and masks, ends."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from tradingcases import again, episode_of, random_actions

import odin_core.rl
from odin_core.errors import OdinError
from odin_core.execution.orders import NEVER, ExecutionRules
from odin_core.rl.batch import StartsInvalid
from odin_core.rl.choices import DIMENSIONS, STOPS, TARGETS
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.environment import TradingEnv
from odin_core.rl.kernel_values import TERMS
from odin_core.rl.observation import POSITION, layout
from odin_core.rl.tape import planted
from odin_core.rl.vector import TradingVecEnv

TAPE = planted(1, symbols=2, sessions=10, bars=20, state=5, heatmap=2)
PLAIN = EnvironmentConfig(episode_bars=60).without_randomisation()
SIZE = slice(DIMENSIONS[0], DIMENSIONS[0] + DIMENSIONS[1])


def made(config: EnvironmentConfig = PLAIN, **rest: object) -> TradingEnv:
    return TradingEnv(TAPE, config, rules=ExecutionRules(noise=0.0), **rest)  # type: ignore[arg-type]


# --- Gymnasium --------------------------------------------------------------------------------------------------------


def test_it_is_made_by_name_without_arguments_and_passes_gymnasium_s_checker():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(odin_core.rl.ENVIRONMENT)
        check_env(env.unwrapped)
    assert env.spec is not None
    assert gymnasium.make(env.spec).reset(seed=4)[0].tolist() == env.reset(seed=4)[0].tolist()


def test_it_passes_the_checker_of_stable_baselines():
    from stable_baselines3.common.env_checker import check_env as check_for_stable_baselines

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_for_stable_baselines(TradingEnv(TAPE))


def test_options_travel_through_make():
    env = gymnasium.make(odin_core.rl.ENVIRONMENT, tape=TAPE, config=EnvironmentConfig(episode_bars=3), seed=9)
    env.reset()
    ends = [env.step(np.zeros(4, np.int64))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_to_register_it_loads_no_compiler_no_torch_and_no_learner_and_to_make_it_no_torch():
    code = (
        "import sys, odin_core.rl, odin_core.rl.config, odin_core.rl.tape, odin_core.rl.observation;"
        "heavy = {'numba', 'torch', 'stable_baselines3'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "import gymnasium; gymnasium.make('odin/Trading-v0').reset();"
        "assert not {'torch', 'stable_baselines3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_examples_of_the_documentation_run():
    text = (Path(__file__).parents[2] / "docs" / "environment.md").read_text()
    blocks, names = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL), {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2
    assert names["told"].equity.size == 2


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_episodes_and_another_other_ones():
    config, actions = EnvironmentConfig(episode_bars=40), random_actions(np.random.default_rng(0), 40)
    told = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        env = made(config)
        first = episode_of(env, actions, seed=seed)
        told[name] = np.array(first[1]), first[0][-1], np.array(episode_of(env, actions)[1])
    for a, b, c in zip(told["a"], told["b"], told["c"], strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape != c.shape or (a != c).any()


def test_conditions_are_drawn_within_their_ranges_and_differ_between_episodes():
    config = EnvironmentConfig(episode_bars=20, cost_factor=(0.5, 2.0), slippage_factor=(0.0, 3.0), latency_bars=(1, 3))
    env, drawn, symbols, starts = made(config), [], set(), set()
    for _ in range(200):
        env.reset()
        episode = env.episode()
        drawn.append((episode.cost_factor, episode.rules.impact, episode.rules.latency_bars))
        symbols.add(episode.symbol)
        starts.add(episode.start)
        assert episode.rules.half_spread_bps == episode.cost_factor * 1.0
        assert TAPE.decidable[episode.start]
    factor, impact, latency = np.array(drawn).T
    assert (factor.min(), factor.max()) == pytest.approx((0.5, 2.0), abs=0.05)
    assert (impact.min(), impact.max()) == pytest.approx((0.0, 3.0), abs=0.1)
    assert np.abs(np.corrcoef(factor, impact)[0, 1]) < 0.25
    assert set(latency) == {1, 2, 3}
    assert symbols == set(TAPE.symbols)
    assert len(starts) > 100


def test_the_noise_of_orders_is_standard_normal_and_independent():
    many = TradingVecEnv(TAPE, EnvironmentConfig(episode_bars=60, max_trades=100), 64, record=True)
    many.reset()
    for action in random_actions(np.random.default_rng(0), 59, 0.5):
        many.step(np.tile(action, (64, 1)))
    orders = [many.episode(i, finished=False).orders for i in range(64)]
    entry, out = (np.concatenate([getattr(o, f"noise_{leg}") for o in orders]) for leg in ("entry", "exit"))
    assert entry.size > 500
    for noise in (entry, out):
        assert noise.mean() == pytest.approx(0, abs=4 / np.sqrt(noise.size))
        assert noise.std() == pytest.approx(1, abs=0.15)
        assert (np.abs(noise) > 1.96).mean() == pytest.approx(0.05, abs=0.035)
        assert np.unique(noise).size == noise.size
    assert abs(np.corrcoef(entry, out)[0, 1]) < 0.15
    assert abs(np.corrcoef(entry[1:], entry[:-1])[0, 1]) < 0.15


def test_without_randomisation_episodes_differ_in_their_start_alone_and_not_even_there_if_so_wished():
    env = made(PLAIN)
    env.reset()
    assert env.episode().rules == ExecutionRules(noise=0.0)
    assert env.episode().cost_factor == 1
    fixed = made(PLAIN.model_copy(update={"random_start": False, "random_symbol": False}))
    starts = {fixed.reset()[1]["row"] for _ in range(5)}
    assert starts == {int(np.flatnonzero(TAPE.decidable)[0])}


# --- what an action does ----------------------------------------------------------------------------------------------


def test_an_entry_works_from_the_next_bar_with_distances_in_atr_and_ends_with_the_session():
    env = made()
    env.reset(options={"row": 25})
    env.step(np.array([2, 1, 2, 3]))
    order = env.episode().orders.order(0)
    close, unit = TAPE.bars.close[25], TAPE.risk_unit[25] * TAPE.bars.close[25]
    assert (order.side, order.first, order.last, order.due, order.leave) == (-1, 26, 39, 39, NEVER)
    assert order.quantity == np.floor(0.5 * 1e6 / close)
    assert order.stop_distance == STOPS[2] * unit
    assert order.target_distance == TARGETS[3] * order.stop_distance


def test_an_entry_decided_at_the_last_bar_belongs_to_the_next_session():
    env = made()
    env.reset(options={"row": 39})
    env.step(np.array([1, 3, 3, 3]))
    assert (env.episode().orders.first[0], env.episode().orders.due[0]) == (40, 59)


def test_the_same_side_holds_and_flat_or_the_other_side_leaves_at_the_next_open():
    for action in ([0, 0, 0, 0], [2, 3, 3, 3]):
        env = made()
        env.reset(options={"row": 25})
        env.step(np.array([1, 3, 3, 3]))
        env.step(np.array([1, 0, 0, 0]))
        orders = env.episode().orders
        assert (orders.side.size, orders.leave[0], orders.stop_distance[0]) == (1, NEVER, STOPS[3] * env_unit(25))
        env.step(np.array(action))
        assert env.episode().orders.leave[0] == 28
        told = again(TAPE, env.episode())
        assert told.held.tolist() == [0, *[orders.quantity[0]] * 2, 0]


def test_to_leave_takes_as_long_as_to_enter():
    for latency in (0, 1, 2):
        env = TradingEnv(TAPE, PLAIN, rules=ExecutionRules(noise=0.0, latency_bars=latency))
        env.reset(options={"row": 25})
        env.step(np.array([1, 3, 3, 3]))
        for _ in range(2):
            env.step(np.array([1, 0, 0, 0]))
        for _ in range(4):
            env.step(np.zeros(4, np.int64))
        held = np.flatnonzero(again(TAPE, env.episode()).held)
        assert (held[0], held[-1]) == (1 + latency, 3 + latency)  # the decisions were at bars 0 and 3
        assert env.episode().orders.leave.tolist() == [25 + 3 + 1 + latency]


def env_unit(row: int) -> float:
    return float(TAPE.risk_unit[row] * TAPE.bars.close[row])


def test_positions_end_with_their_session():
    env = made()
    actions = np.tile([1, 0, 3, 3], (60, 1))
    episode_of(env, actions, options={"row": 20})
    told = again(TAPE, env.episode())
    ends = np.flatnonzero(TAPE.session_end[20:81] == np.arange(20, 81))
    assert (told.held[ends] == 0).all()
    assert np.count_nonzero(told.held) > 40


def test_the_position_is_seen_in_units_of_risk():
    env = made()
    env.reset(options={"row": 25})
    place = layout(PLAIN, TAPE)["position"]
    seen, *_ = env.step(np.array([2, 1, 1, 2]))
    position = dict(zip(POSITION, seen[place], strict=True))
    account = env.batch.accounts[0]
    moved = -(TAPE.bars.close[26] - account["entry_reference"]) / env_unit(25)
    assert position["side"] == -1
    assert position["filled"] == 1
    assert position["unrealised"] == pytest.approx(moved, rel=1e-5)
    assert position["to_stop"] == pytest.approx(moved + STOPS[1], rel=1e-5)
    assert position["to_target"] == pytest.approx(STOPS[1] * TARGETS[2] - moved, rel=1e-5)
    assert position["time_in_trade"] == pytest.approx(0.01)
    assert position["size"] == pytest.approx(0.5, rel=0.02)
    assert position["leaving"] == 0


# --- limits -----------------------------------------------------------------------------------------------------------


def test_after_the_last_trade_of_a_session_entries_are_denied_until_the_next():
    env = made(PLAIN.model_copy(update={"max_trades": 1}))
    env.reset(options={"row": 25})
    enter, leave = np.array([1, 0, 0, 0]), np.zeros(4, np.int64)
    env.step(enter)
    env.step(leave)
    assert env.action_masks()[:3].tolist() == [True, False, False]
    *_, info = env.step(enter)
    assert info["denied"]
    assert env.episode().orders.side.size == 1
    while info["row"] < 39:
        *_, info = env.step(leave)
    assert env.action_masks()[:3].all()  # an order now would work in the next session
    *_, info = env.step(enter)
    assert not info["denied"]
    assert env.episode().orders.side.size == 2


def test_a_drawdown_beyond_its_limit_halts_entries_and_never_exits():
    env = made(PLAIN.model_copy(update={"max_drawdown": 0.0001, "max_trades": 1000}))
    env.reset(options={"row": 25})
    env.step(np.array([1, 3, 3, 3]))
    assert env.action_masks()[:3].all()  # costs alone are beyond the limit, yet it may leave
    *_, info = env.step(np.zeros(4, np.int64))
    assert not info["denied"]
    seen, *_, info = env.step(np.array([1, 3, 3, 3]))
    assert info["denied"]
    assert env.episode().orders.side.size == 1
    assert seen[layout(PLAIN, TAPE)["portfolio"]][-1] == 1


def test_sizes_beyond_the_largest_exposure_or_below_a_lot_become_the_nearest_allowed():
    env = made(PLAIN.model_copy(update={"max_exposure": 0.5}))
    env.reset(options={"row": 25})
    assert env.action_masks()[SIZE].tolist() == [True, True, False, False]
    *_, info = env.step(np.array([1, 3, 0, 0]))
    assert info["denied"]
    assert env.episode().orders.quantity[0] == np.floor(0.5 * 1e6 / TAPE.bars.close[25])
    close = float(TAPE.bars.close[25])
    poor = made(PLAIN.model_copy(update={"capital": 1.5 * close}))
    poor.reset(options={"row": 25})
    assert poor.action_masks()[SIZE].tolist() == [False, False, True, True]
    poor.step(np.array([1, 0, 0, 0]))
    assert poor.episode().orders.quantity.tolist() == [1.0]
    none = made(PLAIN.model_copy(update={"capital": 0.5 * close}))
    none.reset(options={"row": 25})
    assert none.action_masks()[:3].tolist() == [True, False, False]


def test_limits_under_which_nothing_could_ever_be_entered_are_refused():
    with pytest.raises(OdinError, match="forbids every position"):
        EnvironmentConfig.of({"max_exposure": 0.2}, "here")
    assert EnvironmentConfig(max_exposure=0.25).max_exposure == 0.25


def test_a_mask_says_what_is_denied():
    """In any state: an action of the mask is never denied, a position or size outside of it always."""
    config = EnvironmentConfig(episode_bars=100, max_trades=3, max_drawdown=0.01, max_exposure=0.6, max_position=0.9)
    rng, allowed, denied = np.random.default_rng(3), 0, 0
    for seed in range(10):
        env = made(config, seed=seed)
        env.reset()
        for _ in range(100):
            mask = np.split(env.action_masks(), np.cumsum(DIMENSIONS)[:-1])
            action = random_actions(rng, 1)[0]
            live = bool(env.batch.accounts["live"][0])
            right = mask[0][action[0]] and (live or action[0] == 0 or mask[1][action[1]])
            *_, terminated, truncated, info = env.step(action)
            assert info["denied"] != right
            allowed, denied = allowed + right, denied + (not right)
            if terminated or truncated:
                break
    assert min(allowed, denied) > 100


# --- ends -------------------------------------------------------------------------------------------------------------


def test_ruin_terminates_and_a_step_beyond_the_end_is_refused():
    env = made(EnvironmentConfig(episode_bars=100, max_position=10.0, ruin=0.98, max_exposure=10.0))
    for seed in range(20):
        env.reset(seed=seed)
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, info = env.step(np.array([1, 3, 0, 3]))
        if terminated:
            break
    assert terminated
    assert not truncated
    assert info["equity"] <= 0.98e6
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(np.zeros(4, np.int64))


def test_an_episode_ends_with_its_symbol_s_bars():
    env = made()
    env.reset(options={"row": 190})
    steps = [env.step(np.zeros(4, np.int64))[2:4] for _ in range(9)]
    assert steps == [(False, False)] * 8 + [(False, True)]


def test_starts_may_be_given_with_weights_or_in_order():
    env = made()
    env.set_starts([30, 70, 110], [1, 0, 3])
    starts = [env.reset()[1]["row"] for _ in range(200)]
    assert set(starts) == {30, 110}
    assert 0.65 < np.mean(np.array(starts) == 110) < 0.85
    env.set_starts([30, 70, 110], in_order=True)
    env.reset(seed=1)
    assert [env.reset()[1]["row"] for _ in range(4)] == [70, 110, 30, 70]


@pytest.mark.parametrize(
    ("rows", "weights", "told"),
    [
        ([], None, "rows=0 .* at least one"),
        ([5, 400], None, r"rows\[1\]=400 .* 400 rows"),
        ([5, 199], None, r"rows\[1\]=199 .* not the last of a symbol"),
        ([5, 6], [0, 0], "weights=0.0 .* not all 0"),
        ([5, 6], [1], "rows=2 .* 1 as of weights"),
    ],
)
def test_starts_that_cannot_be_used_are_refused(rows: list[int], weights: list[float] | None, told: str):
    with pytest.raises(StartsInvalid, match=told):
        made().set_starts(rows, weights)


def test_a_start_asked_for_that_is_no_row_is_refused():
    with pytest.raises(StartsInvalid, match="row="):
        made().reset(options={"row": -1})


def test_each_term_of_the_reward_is_in_the_info_and_their_sum_is_the_reward():
    _, rewards, infos = episode_of(made(EnvironmentConfig()), random_actions(np.random.default_rng(0), 60))
    assert [sum(info[name] for name in TERMS) for info in infos] == pytest.approx(rewards, rel=1e-5, abs=1e-9)
