"""Policies learned on planted tapes, once per test process, and the tapes they are tried on."""

from functools import cache

from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.learner_config import PPOConfig
from odin_core.rl.policy import TradingPolicy
from odin_core.rl.ppo import train_ppo
from odin_core.rl.tape import Tape, planted

BARS = 60
TASK = EnvironmentConfig(episode_bars=BARS)
QUICK = PPOConfig(environments=64, rollout=32, batch=512, steps=80_000, learning_rate=3e-3, hidden=(32, 32), threads=1)


@cache
def tape(seed: int, edge: float, *, cheat: bool = False) -> Tape:
    """Forty sessions of four symbols; another seed is another market."""
    return planted(seed, edge=edge, sessions=40, bars=BARS, state=6, heatmap=1, cheat=cheat)


@cache
def learned(config: PPOConfig, seed: int, edge: float, *, cheat: bool = False) -> TradingPolicy:
    """A cheat is trained at the market's own latency: what the next bar brings is gone a bar later."""
    task = TASK.model_copy(update={"latency_bars": (0, 0)}) if cheat else TASK
    return train_ppo(tape(1, edge, cheat=cheat), task, config, seed=seed).policy
