"""PPO on any batch of environments: advantages by hand, the rollout beside Stable-Baselines3's own, the same seed the
same bits, resumed the same bits, warm starts, and what is refused."""

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from polars.testing import assert_frame_equal
from rlbatches import Script, Signals
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.env_util import make_vec_env

from odin_core.rl.callbacks import CURVE, Episodes
from odin_core.rl.checkpoint import (
    Checkpoint,
    CheckpointOfAnother,
    CheckpointUnreadable,
    NoEnvironmentState,
    checkpoints,
    newest_checkpoint,
    write_checkpoint,
)
from odin_core.rl.isolation import isolated
from odin_core.rl.learner_config import PPOConfig
from odin_core.rl.policy import TradingPolicy
from odin_core.rl.ppo import (
    Diverged,
    EnvironmentCount,
    NotTrainable,
    Trained,
    WarmStartMismatch,
    _begun,
    collect,
    learner,
    train,
)

TINY = PPOConfig(environments=4, rollout=16, batch=32, epochs=2, steps=6 * 64, hidden=(8,), reward_scale=1.0,
                 checkpoint_every=2)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(config: PPOConfig = TINY, seed: int = 3, **options: Any) -> Trained:
    return train(Signals(config.environments), config, seed=seed, **options)


def assert_same_weights(a: TradingPolicy, b: TradingPolicy) -> None:
    assert a.version == b.version
    for name, weight in a.weights.items():
        assert torch.equal(weight, b.weights[name]), name


def advantages(rewards: list[float], ends: dict[int, bool], *, gamma: float, trace: float, scale: float) -> Any:
    """What `collect` makes of a script, where the critic says 1 + 0.5 × the bar's number."""
    config = TINY.model_copy(update={"environments": 1, "rollout": 3, "batch": 3, "discount": gamma, "hidden": (),
                                     "gae_lambda": trace})  # fmt: skip
    with isolated(1):
        run = _begun(Script(rewards, ends), config, 0, None)
        critic = run.model.policy.value_net
        with torch.no_grad():
            critic.weight.fill_(0.5)
            critic.bias.fill_(1.0)
        collect(run, scale)
    return run.model.rollout_buffer


def test_advantages_of_three_bars_follow_the_closed_form():
    found = advantages([1.0, 2.0, 3.0], {}, gamma=0.9, trace=0.8, scale=2.0)
    # values 1, 1.5, 2 and after the last bar 2.5; rewards doubled: 2, 4, 6
    deltas = [2 + 0.9 * 1.5 - 1, 4 + 0.9 * 2 - 1.5, 6 + 0.9 * 2.5 - 2]
    expected = [deltas[0] + 0.72 * deltas[1] + 0.72**2 * deltas[2], deltas[1] + 0.72 * deltas[2], deltas[2]]
    np.testing.assert_allclose(found.advantages[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.returns[:, 0], np.add(expected, [1, 1.5, 2]), rtol=1e-6)


def test_nothing_flows_over_an_end_and_a_cut_by_time_is_worth_what_came_next():
    ended = advantages([1.0, 2.0, 3.0], {1: False}, gamma=0.9, trace=0.8, scale=1.0)
    np.testing.assert_allclose(ended.advantages[:, 0], [1.35 + 0.72 * 0.5, 2 - 1.5, 3 + 0.9 * 2.5 - 2], rtol=1e-6)
    cut = advantages([1.0, 2.0, 3.0], {1: True}, gamma=0.9, trace=0.8, scale=1.0)
    beyond = 1 + 0.5 * 50  # the critic on the last observation of the episode that was cut
    second = 2 + 0.9 * beyond - 1.5
    np.testing.assert_allclose(cut.advantages[:, 0], [1.35 + 0.72 * second, second, 3.25], rtol=1e-6)


def test_a_rollout_is_that_of_stable_baselines():
    config = TINY.model_copy(update={"rollout": 40, "batch": 40})
    with isolated(1):
        ours = _begun(Signals(4), config, 5, None)
        collect(ours, 1.0)
    with isolated(1):
        theirs = learner(Signals(4), config, 5)
        _, callback = theirs._setup_learn(1000, ConvertCallback(None))
        assert theirs.env is not None
        theirs.collect_rollouts(theirs.env, callback, theirs.rollout_buffer, config.rollout)
    for name in ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages"):
        np.testing.assert_allclose(
            getattr(ours.model.rollout_buffer, name), getattr(theirs.rollout_buffer, name), rtol=1e-5, atol=1e-6
        )
    assert ours.model.num_timesteps == theirs.num_timesteps == 160


def test_what_pays_is_learned_and_what_costs_is_left():
    config = TINY.model_copy(update={"environments": 16, "rollout": 32, "batch": 128, "steps": 30_000,
                                     "learning_rate": 3e-3, "hidden": (16,), "discount": 0.0})  # fmt: skip
    found = train(Signals(16), config, seed=1)
    seen = np.random.default_rng(9).normal(size=(500, 5)).astype(np.float32)
    first, second = found.policy.actions(seen).T
    assert (first == seen[:, :3].argmax(axis=1)).mean() > 0.9
    assert (second == 0).mean() > 0.9
    assert found.curve["reward"][-1] > 0.7 > 0.3 > found.curve["reward"][0]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    once, again, other = trained(), trained(), trained(seed=4)
    assert_same_weights(once.policy, again.policy)
    assert_frame_equal(once.curve.drop("seconds"), again.curve.drop("seconds"))
    assert once.policy.to_bytes() == again.policy.to_bytes()
    assert once.policy.version != other.policy.version


def test_the_curve_has_one_row_per_update_in_its_schema():
    rows: list[Any] = []
    ticks = iter(range(100))
    found = trained(progress=rows.append, clock=lambda: float(next(ticks)))
    assert found.curve.schema == CURVE
    assert found.curve["update"].to_list() == list(range(1, 7))
    assert found.curve["steps"].to_list() == [64 * n for n in range(1, 7)]
    assert found.curve["seconds"].to_list() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert found.curve["episode_length"][1] == 7
    assert found.curve["episode_equity"].is_between(100, 103).all()
    assert found.curve.select("entropy", "value_loss", "kl", "clip_fraction").null_count().sum_horizontal()[0] == 0
    assert [row["update"] for row in rows] == found.curve["update"].to_list()


def test_nothing_of_the_process_is_changed():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = (torch.rand(1).item(), np.random.random(), random.random())
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    trained(TINY.model_copy(update={"threads": 2, "steps": 64}))
    assert torch.get_num_threads() == 1
    assert (torch.rand(1).item(), np.random.random(), random.random()) == expected


class Killed(Exception):
    pass


def killed_after(update: int) -> Any:
    def progress(row: Any) -> None:
        if row["update"] == update:
            raise Killed

    return progress


@pytest.mark.parametrize("update", [1, 3, 4])
def test_a_training_that_was_stopped_and_resumed_ends_in_the_same_bits(tmp_path: Path, update: int):
    whole = trained()
    with pytest.raises(Killed):
        trained(folder=tmp_path, progress=killed_after(update))
    resumed = trained(folder=tmp_path)
    assert_same_weights(whole.policy, resumed.policy)
    assert_frame_equal(whole.curve.drop("seconds"), resumed.curve.drop("seconds"))
    assert [path.name for path in checkpoints(tmp_path)] == [
        "checkpoint-00000004.safetensors", "checkpoint-00000006.safetensors",
    ]  # fmt: skip


def _die(folder: str) -> None:
    def progress(row: Any) -> None:
        if row["update"] == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    trained(folder=Path(folder), progress=progress)


def test_a_process_that_was_killed_is_resumed_to_the_same_bits(tmp_path: Path):
    process = multiprocessing.get_context("spawn").Process(target=_die, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert checkpoints(tmp_path)[-1].name == "checkpoint-00000004.safetensors"
    assert_same_weights(trained().policy, trained(folder=tmp_path).policy)


def test_a_finished_training_is_read_not_repeated(tmp_path: Path):
    whole = trained(folder=tmp_path)
    rows: list[Any] = []
    again = trained(folder=tmp_path, progress=rows.append)
    assert rows == []
    assert_same_weights(whole.policy, again.policy)
    assert_frame_equal(whole.curve, again.curve)


def test_checkpoints_of_another_training_or_damaged_ones_are_refused(tmp_path: Path):
    trained(folder=tmp_path)
    with pytest.raises(CheckpointOfAnother, match="seed is 3 there and 4 here"):
        trained(folder=tmp_path, seed=4)
    with pytest.raises(CheckpointOfAnother, match="config is"):
        trained(TINY.model_copy(update={"discount": 0.5}), folder=tmp_path)
    with pytest.raises(CheckpointOfAnother, match="environment is"):
        trained(folder=tmp_path, identity={"tape": "another"})
    newest = checkpoints(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    with pytest.raises(CheckpointUnreadable, match="checksum"):
        trained(folder=tmp_path)
    newest.unlink()  # as the message advises
    assert_same_weights(trained(folder=tmp_path).policy, trained().policy)


def test_a_checkpoint_gives_every_array_back_as_it_was(tmp_path: Path):
    arrays = {"steps": np.float32(3).reshape(()), "moments": np.arange(6.0).reshape(2, 3).T, "none": np.empty((0, 4))}
    write_checkpoint(tmp_path, Checkpoint(1, arrays, {"a": 1}), {"seed": 2})
    found = newest_checkpoint(tmp_path, {"seed": 2})
    assert found is not None
    assert found.told == {"a": 1}
    for name, array in arrays.items():
        assert (found.arrays[name].shape, found.arrays[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found.arrays[name], array)


def test_a_warm_start_begins_as_the_incumbent_and_moves_on():
    incumbent = trained().policy
    still = TINY.model_copy(update={"learning_rate": 1e-30})
    assert_same_weights(train(Signals(4), still, seed=8, warm_start=incumbent).policy, incumbent)
    moved = train(Signals(4), TINY, seed=8, warm_start=incumbent).policy
    assert moved.version != incumbent.version
    assert moved.facts["warm_start"] == incumbent.version
    seen = np.random.default_rng(2).normal(size=(50, 5)).astype(np.float32)
    fresh = trained(seed=8).policy
    near, far = (np.abs(p.probabilities(seen)[0] - incumbent.probabilities(seen)[0]).mean() for p in (moved, fresh))
    assert near < far


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, on the way to numbers that are not finite
def test_what_cannot_be_trained_is_refused():
    wider = train(Signals(4, columns=6), TINY, seed=1).policy
    with pytest.raises(WarmStartMismatch, match=r"observation=6.*observation=5"):
        trained(warm_start=wider)
    with pytest.raises(EnvironmentCount, match=r"5 environments.*environments=4"):
        train(Signals(5), TINY, seed=1)
    with pytest.raises(NotTrainable, match="MultiDiscrete"):
        train(make_vec_env("Pendulum-v1", 4), TINY, seed=1)
    with pytest.raises(Diverged, match="update 1"):
        trained(TINY.model_copy(update={"reward_scale": 1e38}))


def test_an_environment_without_state_takes_no_checkpoints(tmp_path: Path):
    with pytest.raises(NoEnvironmentState, match="DummyVecEnv has no state"):
        train(make_vec_env("CartPole-v1", 4), TINY, seed=1, folder=tmp_path)


def test_episodes_are_summed_by_environment():
    episodes = Episodes(2)
    for bar in range(3):
        episodes.add(np.array([1.0, 10.0]), np.array([bar == 1, False]), [{"summary": {"equity": 7.0}}, {}])
    assert episodes.row() == {"reward": 5.5, "episodes": 1, "episode_reward": 2.0, "episode_length": 2.0,
                              "episode_equity": 7.0}  # fmt: skip
    assert episodes.reward.tolist() == [1.0, 30.0]
    assert episodes.row()["episode_reward"] is None
