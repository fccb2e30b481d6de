"""What the environment shows and pays up to a bar does not depend on any bar after it."""

import numpy as np
import pytest
from tradingcases import random_actions

from odin_core.execution.orders import Bars
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.environment import TradingEnv
from odin_core.rl.observation import flat_observations, layout, width
from odin_core.rl.tape import Tape, planted

TAPE = planted(2, symbols=2, sessions=6, bars=20, state=6, heatmap=2)
CONFIG = EnvironmentConfig(episode_bars=80)


def with_another_future(tape: Tape, row: int) -> Tape:
    """The same tape up to `row`, at the end of its symbol another one."""
    other = planted(77, symbols=2, sessions=6, bars=20, state=6, heatmap=2, depth=0.2)
    later = np.arange(tape.rows) > row
    mixed = lambda a, b: np.where(later.reshape(-1, *[1] * (a.ndim - 1)), b, a)  # noqa: E731
    return Tape.of(
        bars=Bars(*(mixed(a, b) for a, b in zip(tape.bars, other.bars, strict=True))),
        symbols=tape.symbols,
        starts=tape.starts,
        session=tape.session,
        state=mixed(tape.state, other.state),
        heatmap=mixed(tape.heatmap, other.heatmap),
        volatility=mixed(tape.volatility, other.volatility),
        risk_unit=mixed(tape.risk_unit, other.risk_unit),
        decidable=mixed(tape.decidable, ~tape.decidable),
    )


@pytest.mark.parametrize("cut", [31, 39, 40, 55])
def test_observations_and_rewards_up_to_a_bar_are_the_same_bits_whatever_comes_after(cut: int):
    told = []
    for tape in (TAPE, with_another_future(TAPE, cut)):
        env, actions = TradingEnv(tape, CONFIG, seed=3), random_actions(np.random.default_rng(cut), 60, 0.2)
        path, rest = [env.reset(options={"row": 25})[0]], []
        for row, action in enumerate(actions, start=26):
            seen, reward, *_, info = env.step(action)
            (path if row <= cut else rest).append(np.r_[seen, reward, list(info.values())])
        told.append((path, rest, env.episode().orders.side.size))
    for a, b in zip(told[0][0], told[1][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(told[0][1], told[1][1], strict=True))
    assert told[0][2] > 3


def test_the_sections_follow_each_other_without_a_gap_and_end_with_the_observation():
    places = list(layout(CONFIG, TAPE).values())
    assert [place.start for place in places] == [0, *[place.stop for place in places[:-1]]]
    assert places[-1].stop == width(TAPE) == TradingEnv(TAPE, CONFIG).observation_space.shape[0]


def test_a_flat_account_sees_what_flat_observations_tell():
    rows = np.flatnonzero(TAPE.decidable)[::17]
    rows = rows[~np.isin(rows, TAPE.starts[1:] - 1)]
    env = TradingEnv(TAPE, CONFIG)
    seen = np.array([env.reset(options={"row": int(row)})[0] for row in rows])
    np.testing.assert_array_equal(seen, flat_observations(TAPE, rows, CONFIG))
    assert len(rows) > 8
    assert (flat_observations(TAPE, np.array([5]), CONFIG)[0, layout(CONFIG, TAPE)["clock"]] == np.float32(0.06)).all()
