"""Speed of the batched environment: 256 at once, random actions, real fills, observations of 305 columns (state 256,
heatmap 32), on as many threads as there are cores. A second row goes through Stable-Baselines3's interface.

The peer is a trivial batched environment of the same shapes in numpy: it gathers the same rows, pays side · return,
and knows neither orders nor costs nor limits; it speaks no interface either."""

from typing import Any

import numpy as np
from timing import seconds

from odin_core.rl.choices import DIMENSIONS
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.tape import Tape, planted
from odin_core.rl.vector import TradingVecEnv

N, STEPS, REPEATS = 256, 1000, 7
EPISODE = 375


def run() -> list[dict[str, Any]]:
    """Two rows: environment steps per second, N a step; medians, compilation excluded."""
    tape = planted(symbols=20, sessions=60, state=256, heatmap=32)
    rng = np.random.default_rng(1)
    actions = np.stack([rng.integers(0, size, (64, N)) for size in DIMENSIONS], axis=2)
    env, peer = TradingVecEnv(tape, EnvironmentConfig(episode_bars=EPISODE), N), Trivial(tape, rng)
    env.reset()

    def through_the_interface() -> None:
        for k in range(STEPS):
            env.step(actions[k % 64])

    def the_batch_itself() -> None:
        for k in range(STEPS):
            env.batch.step(actions[k % 64], again=True)

    def trivial() -> None:
        for k in range(STEPS):
            peer.step(actions[k % 64])

    peer_rate = N * STEPS / seconds(trivial, REPEATS)
    rows = [("env_batched", the_batch_itself), ("env_batched_sb3", through_the_interface)]
    return [
        {
            "bench": name,
            "value": N * STEPS / seconds(work, REPEATS),
            "unit": "steps/s",
            "peer": f"trivial numpy environment, {N} at once",
            "peer_value": peer_rate,
        }
        for name, work in rows
    ]


class Trivial:
    """Position times return, over the same tape; an episode ends after EPISODE bars and begins anywhere."""

    def __init__(self, tape: Tape, rng: np.random.Generator) -> None:
        self.tape, self.rng = tape, rng
        self.moves = np.diff(np.log(tape.bars.close), append=0.0).astype(np.float32)
        self.rows = rng.integers(0, tape.rows - EPISODE - 1, N)
        self.age = np.zeros(N, np.int64)
        self.seen = np.zeros((N, tape.state.shape[1] + tape.heatmap.shape[1] + 17), np.float32)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        side = np.array([0, 1, -1], np.float32)[actions[:, 0]]
        reward = side * self.moves[self.rows]
        self.rows += 1
        self.age += 1
        done = self.age >= EPISODE
        if done.any():
            self.rows[done] = self.rng.integers(0, self.tape.rows - EPISODE - 1, int(done.sum()))
            self.age[done] = 0
        width = self.tape.state.shape[1]
        self.seen[:, :width] = self.tape.state[self.rows]
        self.seen[:, width:-17] = self.tape.heatmap[self.rows]
        self.seen[:, -1] = side
        return self.seen.copy(), reward, done, [{} for _ in range(N)]
