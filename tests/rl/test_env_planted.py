"""Where the answer is known: who reads the planted signal earns, who guesses pays about the costs, and where nothing
can be known nobody earns."""

import numpy as np
import pytest
from tradingcases import Policy, oracle, random_actions

from odin_core.rl.choices import FLAT, LONG, SHORT
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.kernel_values import TERMS
from odin_core.rl.tape import SIGNAL, Tape, planted
from odin_core.rl.vector import TradingVecEnv

N, BARS = 64, 375
CONFIG = EnvironmentConfig(episode_bars=BARS, max_trades=1000, max_drawdown=1.0).without_randomisation()


def played(tape: Tape, policy: Policy, config: EnvironmentConfig = CONFIG) -> dict[str, float]:
    """Per episode of five sessions, means over N: net growth, growth before costs, costs, trades; and the standard
    error of the net growth."""
    many = TradingVecEnv(tape, config, N, seed=3)
    seen, totals = many.reset(), np.zeros((N, len(TERMS)))
    for _ in range(BARS):
        seen, _, ended, infos = many.step(policy(seen))
        totals += many.terms
    assert ended.all()
    growth, costs = totals[:, TERMS.index("growth")], totals[:, TERMS.index("costs")]
    net = np.log([infos[i]["summary"]["equity"] / config.capital for i in range(N)])
    return {
        "net": net.mean(),
        "error": net.std() / np.sqrt(N),
        "growth": growth.mean(),
        "costs": -costs.mean(),
        "trades": float(np.mean([info["summary"]["entered"] for info in infos])),
    }


def random_policy(seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return lambda seen: random_actions(rng, len(seen))


def one_bar_cheat(seen: np.ndarray) -> np.ndarray:
    """Enters for what the next bar brings, and stays while the one after brings it too."""
    signal = seen[:, SIGNAL]
    position = np.where(signal > 0.5, LONG, np.where(signal < -0.5, SHORT, FLAT))
    return np.stack([position, *np.full((3, len(seen)), 3)], axis=1)


def test_with_an_edge_the_oracle_earns_and_more_with_more():
    weak, strong = (played(planted(1, edge=edge, symbols=8), oracle()) for edge in (0.2, 0.4))
    assert weak["net"] > 5 * weak["error"]
    assert strong["net"] > 2 * weak["net"]
    assert strong["trades"] > 20


def test_without_an_edge_the_oracle_pays_its_costs_and_earns_nothing():
    out = played(planted(1, edge=0.0, symbols=8), oracle())
    assert abs(out["growth"]) < 3 * out["error"]
    assert out["net"] == pytest.approx(-out["costs"], abs=3 * out["error"])
    assert out["net"] < -3 * out["error"]


@pytest.mark.parametrize("edge", [0.0, 0.4])
def test_a_random_policy_loses_about_its_costs_whatever_the_edge(edge: float):
    out = played(planted(1, edge=edge, symbols=8), random_policy(5))
    assert out["costs"] > 0.02
    assert out["net"] == pytest.approx(-out["costs"], abs=4 * out["error"])


def test_staying_flat_earns_and_costs_nothing():
    out = played(planted(1), lambda seen: np.zeros((len(seen), 4), np.int64))
    assert set(out.values()) == {0.0}


def test_who_knows_the_next_bar_earns_in_nearly_every_episode():
    """Far more than the strongest signal brings: costs of five to ten basis points against moves of thirty."""
    out = played(planted(1, edge=0.0, cheat=True, symbols=8), one_bar_cheat)
    assert out["net"] > 10 * out["error"]
    assert out["growth"] > 2 * out["costs"]
