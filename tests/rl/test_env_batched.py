"""Many environments in one step: equal to single ones bit for bit, whatever their number and threads, in both forms."""

import copy
import gc
import json
import subprocess
import sys
import threading
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from tradingcases import again, random_actions

import odin_core.rl
from odin_core.execution.orders import ExecutionRules
from odin_core.rl import batch as module
from odin_core.rl.batch import ActionsInvalid, Batch, NotBegun, SeedsInvalid
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.environment import TradingEnv
from odin_core.rl.kernel_values import TERMS
from odin_core.rl.tape import planted
from odin_core.rl.vector import TradingVecEnv, TradingVectorEnv
from odin_core.rl.workers import Worker

TAPE = planted(2, depth=0.003, symbols=3, sessions=8, bars=20, state=6, heatmap=2)
CONFIG = EnvironmentConfig(episode_bars=45, cost_factor=(0.5, 2), latency_bars=(0, 2), max_trades=4)
N, STEPS = 7, 130


def actions(steps: int = STEPS, n: int = N) -> np.ndarray:
    return random_actions(np.random.default_rng(4), steps * n).reshape(steps, n, 4)


def test_n_in_one_step_equal_n_single_ones_bit_for_bit_over_several_episodes():
    many = TradingVecEnv(TAPE, CONFIG, N, seed=11, record=True)
    alone = [TradingEnv(TAPE, CONFIG, seed=11, index=i) for i in range(N)]
    seen, each, episodes = many.reset(), [env.reset()[0] for env in alone], 0
    np.testing.assert_array_equal(seen, each)
    for step in actions():
        seen, rewards, ended, infos = many.step(step)
        for i, env in enumerate(alone):
            observation, reward, terminated, truncated, info = env.step(step[i])
            assert (rewards[i], ended[i]) == (np.float32(reward), terminated or truncated)
            assert [info[name] for name in TERMS] == many.terms[i].tolist()
            assert info["denied"] == many.denied[i]
            if ended[i]:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], observation)
                np.testing.assert_array_equal(many.episode(i).equity, env.episode().equity)
                episodes += 1
                observation = env.reset()[0]
            np.testing.assert_array_equal(seen[i], observation)
    assert episodes >= 2 * N


def test_any_number_of_threads_gives_the_same_bits():
    told = []
    for threads in (1, 3):
        batch = Batch(TAPE, CONFIG, 200, seed=3, threads=threads)
        assert batch.threads == threads
        path = [batch.reset()]
        for step in actions(60, 200):
            path.append(batch.step(step, again=True))
            path.append(batch.out.terms.copy())
        told.append(path)
        batch.close()
    for a, b in zip(*told, strict=True):
        np.testing.assert_array_equal(a, b)


def test_finished_episodes_of_a_batch_run_again_by_the_backtester_have_the_same_equity():
    many, ended_of = TradingVecEnv(TAPE, CONFIG, N, seed=1, rules=ExecutionRules(noise=0.3), record=True), 0
    many.reset()
    for step in actions():
        _, _, ended, infos = many.step(step)
        for i in np.flatnonzero(ended):
            episode = many.episode(int(i))
            np.testing.assert_array_equal(again(TAPE, episode).equity, episode.equity)
            assert infos[i]["summary"]["equity"] == episode.equity[-1]
            assert infos[i]["episode"]["l"] == episode.equity.size - 1
            ended_of += 1
    assert ended_of >= 2 * N


def test_an_episode_that_is_not_kept_or_has_not_ended_is_refused():
    with pytest.raises(ValueError, match="record=True"):
        TradingVecEnv(TAPE, CONFIG, N).episode(0)
    many = TradingVecEnv(TAPE, CONFIG, N, record=True)
    many.reset()
    with pytest.raises(ValueError, match="environment 2 has not ended an episode"):
        many.episode(2)
    assert many.episode(2, finished=False).equity.tolist() == [CONFIG.capital]


def test_observations_that_were_given_out_stay_as_they_are():
    many = TradingVecEnv(TAPE, CONFIG, N)
    first = many.reset()
    kept, views, copies = [first], [first[2]], [first.copy()]
    for step in actions(40):
        seen = many.step(step)[0]
        kept.append(seen)
        views.append(seen[2:4, 1])
        copies.append(seen.copy())
    for a, b in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(a, b)
    del kept, a, seen, first
    for step in actions(20):
        many.step(step)
    np.testing.assert_array_equal(views[0], copies[0][2])
    np.testing.assert_array_equal(views[5], copies[5][2:4, 1])


def test_what_was_written_over_is_not_given_as_the_last_episode():
    many = TradingVecEnv(TAPE, CONFIG, 2, record=True)
    many.reset()
    for step in actions(50, 2):
        many.step(step)
    assert (many.batch.out.summary["episode"] == 0).all()
    kept = many.episode(0).equity
    many.reset()
    with pytest.raises(ValueError, match="environment 0 did in episode 0 has been written over"):
        many.episode(0)
    assert kept.size > 1


@pytest.mark.parametrize("shape", [(N - 1, 4), (N, 3), (N, 5), (4 * N,)])
def test_actions_of_another_shape_are_refused(shape: tuple[int, ...]):
    """Compiled code would read beyond them."""
    many = TradingVecEnv(TAPE, CONFIG, N)
    many.reset()
    with pytest.raises(ActionsInvalid, match=rf"it must be \({N}, 4\)"):
        many.step(np.zeros(shape, np.int64))


@pytest.mark.parametrize("action", [[-1, 0, 0, 0], [3, 0, 0, 0], [0, 4, 0, 0], [0, 0, -1, 0], [0, 0, 0, 4]])
def test_an_action_that_there_is_not_is_refused_before_anything_moves(action: list[int]):
    many = TradingVecEnv(TAPE, CONFIG, N)
    many.reset()
    rows = many.batch.accounts["row"].copy()
    with pytest.raises(IndexError, match="outside of the action space"):
        many.step(np.array([[0, 0, 0, 0]] * (N - 1) + [action]))
    np.testing.assert_array_equal(many.batch.accounts["row"], rows)


def test_a_step_of_what_has_not_begun_or_is_over_is_refused():
    """Else it would walk off the tape."""
    many = TradingVectorEnv(3, TAPE, CONFIG)
    with pytest.raises(NotBegun, match="environment 0 has no episode"):
        many.step(np.zeros((3, 4), np.int64))
    many.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(NotBegun, match="environment 1 has no episode"):
        many.step(np.zeros((3, 4), np.int64))
    batch = Batch(TAPE, CONFIG.model_copy(update={"episode_bars": 1}), 1)
    batch.reset()
    batch.step(np.zeros((1, 4), np.int64), again=False)
    with pytest.raises(NotBegun):
        batch.step(np.zeros((1, 4), np.int64), again=False)


# --- Stable-Baselines3 ------------------------------------------------------------------------------------------------


def test_it_is_a_vec_env_whose_seeds_masks_and_attributes_work():
    many = TradingVecEnv(TAPE, CONFIG, N)
    assert isinstance(many, VecEnv)
    assert many.seed(8) == [8] * N
    first = many.reset()
    second = many.reset()
    assert (first != second).any()
    many.seed(8)
    np.testing.assert_array_equal(many.reset(), first)
    masks = many.env_method("action_masks", indices=[1, 3])
    assert [mask.shape for mask in masks] == [(15,), (15,)]
    np.testing.assert_array_equal(np.array(many.env_method("action_masks")), many.action_masks())
    assert many.get_attr("num_envs", 0) == [N]
    assert many.env_is_wrapped(gymnasium.Wrapper) == [False] * N
    with pytest.raises(ValueError, match="moved as one"):
        many.set_attr("tuned", 1, indices=[0])
    many.set_options({"row": 30})
    np.testing.assert_array_equal(many.reset()[:, :6], np.tile(TAPE.state[30], (N, 1)))
    many.set_options([{"row": 31}, *[{}] * (N - 1)])
    many.reset()
    assert many.batch.accounts["row"][0] == 31
    assert np.unique(many.batch.accounts["row"]).size > 2


def test_rewards_of_an_episode_add_up_in_its_summary():
    many, sums = TradingVecEnv(TAPE, CONFIG, N), np.zeros(N)
    many.reset()
    for step in actions():
        _, rewards, ended, infos = many.step(step)
        sums += rewards
        for i in np.flatnonzero(ended):
            assert infos[i]["episode"]["r"] == pytest.approx(sums[i], abs=1e-5)
            assert sum(infos[i]["summary"][name] for name in TERMS) == pytest.approx(sums[i], abs=1e-5)
            assert infos[i]["TimeLimit.truncated"]
            sums[i] = 0
        assert not any(infos[i] for i in np.flatnonzero(~ended))


# --- Gymnasium --------------------------------------------------------------------------------------------------------


def test_gymnasium_makes_the_vector_form_which_begins_anew_in_the_same_step():
    made = gymnasium.make_vec(
        odin_core.rl.ENVIRONMENT, num_envs=N, vectorization_mode="vector_entry_point", tape=TAPE, config=CONFIG
    )
    many = TradingVecEnv(TAPE, CONFIG, N)
    assert isinstance(made.unwrapped, TradingVectorEnv)
    assert made.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert made.observation_space.contains(made.reset(seed=5)[0])
    many.seed(5)
    many.reset()
    ends = 0
    for step in actions():
        seen, rewards, terminated, truncated, info = made.step(step)
        same, theirs, ended, infos = many.step(step)
        np.testing.assert_array_equal(seen, same)
        np.testing.assert_array_equal(rewards, theirs)
        np.testing.assert_array_equal(terminated | truncated, ended)
        assert info["growth"].shape == (N,)
        if ended.any():
            np.testing.assert_array_equal(info["_final_obs"], ended)
            i = int(np.argmax(ended))
            np.testing.assert_array_equal(info["final_obs"][i], infos[i]["terminal_observation"])
            assert info["final_info"]["equity"][i] == infos[i]["summary"]["equity"]
            ends += 1
    assert ends


def test_a_list_of_seeds_and_a_mask_of_resets_are_taken():
    made = TradingVectorEnv(3, TAPE, CONFIG)
    seen, _ = made.reset(seed=[4, 4, 6])
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[2], TradingEnv(TAPE, CONFIG, seed=6).reset()[0])
    made.step(actions(1, 3)[0])
    rows = made.batch.accounts["row"].copy()
    made.reset(options={"reset_mask": np.array([False, True, False])})
    assert (made.batch.accounts["row"] == rows).tolist() == [True, False, True]
    assert made.batch.accounts["episode"].tolist() == [0, 1, 0]


def test_seeds_do_not_meet_and_none_leaves_an_environment_as_it_is():
    made, other = TradingVectorEnv(3, TAPE, CONFIG), TradingVectorEnv(3, TAPE, CONFIG)
    keys = made.batch.accounts["key"].copy()
    made.reset(seed=[None, 4, None])
    assert (made.batch.accounts["key"] == keys).tolist() == [True, False, True]
    other.reset(seed=5)
    assert not set(Batch(TAPE, CONFIG, 3, seed=2**32 + 5).accounts["key"]) & set(other.batch.accounts["key"])
    with pytest.raises(SeedsInvalid, match="2 seeds were given for 3 environments"):
        made.reset(seed=[1, 2])


# --- threads and caches -----------------------------------------------------------------------------------------------


def test_what_a_worker_s_call_raises_is_raised_to_the_caller():
    worker, done = Worker(), []
    worker.give(done.append, 3)
    worker.wait()
    worker.give(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        worker.wait()
    worker.close()
    assert done == [3]


def test_a_step_that_is_interrupted_leaves_nothing_behind_that_still_runs(monkeypatch: pytest.MonkeyPatch):
    compiled, ended = module.DOORS, []

    def interrupted(first: int, end: int, *rest: object) -> bool:
        if first == 0:
            raise KeyboardInterrupt
        time.sleep(0.2)
        compiled.advance(first, end, *rest)
        ended.append(first)
        return True

    batch, step = Batch(TAPE, CONFIG, 200, threads=3), actions(1, 200)[0]
    batch.reset()
    monkeypatch.setattr(module, "DOORS", compiled._replace(advance=interrupted))
    with pytest.raises(KeyboardInterrupt):
        batch.step(step, again=True)
    assert len(ended) == 2
    monkeypatch.setattr(module, "DOORS", compiled)
    fresh = Batch(TAPE, CONFIG, 200, threads=1)
    batch.seed(1)
    fresh.seed(1)
    np.testing.assert_array_equal(batch.reset(), fresh.reset())
    np.testing.assert_array_equal(batch.step(step, again=True), fresh.step(step, again=True))
    batch.close()


def test_threads_end_with_their_batch():
    def running() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "odin-environments"}

    before, batch = running(), Batch(TAPE, CONFIG, 200, threads=3)
    batch.reset()
    batch.step(actions(1, 200)[0], again=True)
    mine = running() - before
    assert len(mine) == 2
    del batch
    gc.collect()
    for thread in mine:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_a_copy_goes_its_own_way():
    batch, step = Batch(TAPE, CONFIG, 200, threads=3), actions(2, 200)
    batch.reset()
    batch.step(step[0], again=True)
    other = copy.deepcopy(batch)
    np.testing.assert_array_equal(batch.step(step[1], again=True), other.step(step[1], again=True))
    batch.step(step[0], again=True)
    assert (batch.accounts["row"] != other.accounts["row"]).all()
    batch.close()
    other.close()


def test_a_batch_goes_on_after_it_was_closed_and_in_a_fork():
    code = (
        "import os, numpy as np; from odin_core.rl.batch import Batch; from odin_core.rl.config import *;"
        "from odin_core.rl.tape import planted;"
        "b = Batch(planted(symbols=1, sessions=4), EnvironmentConfig(episode_bars=50), 128, threads=2);"
        "b.reset(); a = np.zeros((128, 4), np.int64); b.step(a, again=True); b.close(); b.step(a, again=True);"
        "pid = os.fork();"
        "b.step(a, again=True);"
        "os._exit(0) if not pid else print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "0", done.stderr


def test_a_change_of_the_fill_engine_is_not_answered_from_the_compiled_cache():
    """Numba watches the kernel's own file; the engine's digest is in the cache's key by a closure."""
    code = (
        "import json, odin_core.rl.kernel as k;"
        "key = lambda d: d._cache._index_key(None, d.targetctx.codegen())[2];"
        "print(json.dumps([[key(a) == key(b) for a, b in zip(k.DOORS, k._doors(other))]"
        " for other in (k.ENGINE, 'changed')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[True] * 3, [False] * 3]
