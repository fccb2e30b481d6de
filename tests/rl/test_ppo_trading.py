"""PPO on tapes whose answer is known: it finds an edge that is there, earns nothing from one that is not, and takes
what a cheating column tells; a training on a tape is resumed to the same bits, its curriculum with it.

All seeds and longer trainings: tests/slow/test_planted_edge.py."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from learnedtapes import QUICK, TASK, learned, tape

from odin_core.rl.checkpoint import CheckpointOfAnother, checkpoints
from odin_core.rl.evaluation import evaluate
from odin_core.rl.learner_config import PPOConfig
from odin_core.rl.policy import TradingPolicy
from odin_core.rl.ppo import Trained, train, train_ppo
from odin_core.rl.starts import Curriculum, Starts
from odin_core.rl.vector import TradingVecEnv

TINY = PPOConfig(environments=16, rollout=32, batch=128, epochs=2, steps=5 * 512, hidden=(8,), checkpoint_every=2)


def test_an_edge_is_found_out_of_sample_after_costs():
    found = evaluate(learned(QUICK, seed=0, edge=0.4), tape(2, 0.4), TASK)
    policy, random = found.summary.row(0, named=True), found.summary.row(1, named=True)
    assert policy["net_return"] > 0.003 > 0 > random["net_return"]
    assert policy["hit_rate"] > 0.55
    assert found.p_value == pytest.approx(1 / 21)


def test_without_an_edge_nothing_is_earned():
    found = evaluate(learned(QUICK, seed=0, edge=0.0), tape(2, 0.0), TASK, draws=2)
    returns = found.sessions["net_return"].to_numpy()
    assert returns.mean() <= 2 * returns.std() / np.sqrt(len(returns))


class Killed(Exception):
    pass


def killed_after(update: int) -> Any:
    def progress(row: Any) -> None:
        if row["update"] == update:
            raise Killed

    return progress


def some_starts() -> Starts:
    rows = np.flatnonzero(tape(1, 0.3).decidable)[::37][:-1]
    regimes = tuple(("low", "medium", "high", None)[i % 4] for i in range(rows.size))
    return Starts(rows, regimes, np.ones(rows.size, bool))


def trained(folder: Path | None = None, **options: Any) -> Trained:
    return train_ppo(tape(1, 0.3), TASK, TINY, seed=2, folder=folder, starts=some_starts(), **options)


def test_a_killed_training_on_a_tape_is_resumed_to_the_same_bits(tmp_path: Path):
    whole = trained()
    with pytest.raises(Killed):
        trained(tmp_path, progress=killed_after(3))
    assert checkpoints(tmp_path)[-1].name == "checkpoint-00000002.safetensors"
    resumed = trained(tmp_path)
    assert resumed.policy.to_bytes() == whole.policy.to_bytes()
    assert resumed.curve.drop("seconds").equals(whole.curve.drop("seconds"))
    assert whole.curve["episodes"].sum() > 0
    with pytest.raises(CheckpointOfAnother, match="environment is"):
        train_ppo(tape(3, 0.3), TASK, TINY, seed=2, folder=tmp_path, starts=some_starts())
    with pytest.raises(CheckpointOfAnother, match="environment is"):
        train_ppo(tape(1, 0.3), TASK, TINY, seed=2, folder=tmp_path)


def test_episodes_begin_where_the_starts_say_and_the_facts_tell_of_the_tape():
    whole = trained(facts={"trained_through": "2024-02-01"})
    assert whole.policy.facts["trained_through"] == "2024-02-01"
    assert whole.policy.facts["tape"]["first_session"] == "2024-01-01"
    assert whole.policy.facts["environment"]["episode_bars"] == TASK.episode_bars
    anywhere = train_ppo(tape(1, 0.3), TASK, TINY, seed=2)
    assert anywhere.policy.version != whole.policy.version
    assert whole.curve["episode_equity"].drop_nulls().is_between(0.5e6, 2e6).all()


def test_the_first_episodes_too_begin_where_the_curriculum_says():
    task = TASK.model_copy(update={"episode_bars": 20})
    venv, starts = TradingVecEnv(tape(1, 0.3), task, TINY.environments), some_starts()
    once = TINY.model_copy(update={"steps": 512})  # 32 bars of each environment: one whole episode
    train(venv, once, seed=2, steering=Curriculum(venv, starts, 1.0))
    ended = venv.batch.out.summary
    assert np.count_nonzero(ended["episode"] == 0) > 12
    assert set(ended["start"]) <= set(starts.rows)


def test_the_incumbent_is_improved_on_not_forgotten():
    incumbent = learned(QUICK, seed=0, edge=0.4)
    still = QUICK.model_copy(update={"learning_rate": 1e-30, "steps": 4096})
    same = train_ppo(tape(1, 0.4), TASK, still, seed=9, warm_start=incumbent)
    assert same.policy.version == incumbent.version
    short = QUICK.model_copy(update={"steps": 4 * 2048, "learning_rate": 1e-4})
    warm = train_ppo(tape(1, 0.4), TASK, short, seed=9, warm_start=incumbent)
    cold = train_ppo(tape(1, 0.4), TASK, short, seed=9)
    earned = [_earned(one) for one in (warm.policy, cold.policy)]
    assert earned[0] > 0.003 > earned[1]
    assert warm.curve["reward"][0] > cold.curve["reward"][0]


def _earned(policy: TradingPolicy) -> float:
    returns: pl.Series = evaluate(policy, tape(2, 0.4), TASK, draws=0).sessions["net_return"]
    return float(returns.to_numpy().mean())
