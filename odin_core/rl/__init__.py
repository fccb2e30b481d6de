"""Reinforcement learning: the environment, its tapes, and what learns in it.

Importing this registers `odin/Trading-v0` with Gymnasium, by name only: neither numba, torch nor Stable-Baselines3 is
loaded before an environment is made."""

import gymnasium

ENVIRONMENT = "odin/Trading-v0"

gymnasium.register(
    id=ENVIRONMENT,
    entry_point="odin_core.rl.environment:TradingEnv",
    vector_entry_point="odin_core.rl.gymnasium_vector:TradingVectorEnv",
)
