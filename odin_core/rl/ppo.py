"""Proximal policy optimisation on any Stable-Baselines3 `VecEnv`, and on tapes: collect a rollout, update, repeat.

Networks, rollout buffer, advantages and update are Stable-Baselines3's. What is ours is around them: no process-wide
state is left changed, a training that was killed goes on from its checkpoint to the same weights, episodes cut by time
are bootstrapped in one pass, and what comes out is a `TradingPolicy` and a table. How good it is: `rl.evaluation`."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from odin_core.errors import OdinError
from odin_core.execution.costs import CostSchedule
from odin_core.execution.orders import ExecutionRules
from odin_core.rl.callbacks import Ended, Episodes, Progress, Row, curve_of, learner_row
from odin_core.rl.checkpoint import (
    Arrays,
    Checkpoint,
    NoEnvironmentState,
    generator_state,
    newest_checkpoint,
    optimizer_arrays,
    prefixed,
    set_generators,
    set_optimizer,
    under,
    write_checkpoint,
)
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.isolation import isolated
from odin_core.rl.learner_config import PPOConfig
from odin_core.rl.policy import ACTIVATIONS, Structure, TradingPolicy, of_sb3, to_sb3
from odin_core.rl.starts import Curriculum, Starts
from odin_core.rl.tape import Tape
from odin_core.rl.vector import TradingVecEnv


class NotTrainable(OdinError):
    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        super().__init__(
            f"observations {observation} with actions {action} cannot be trained on; a flat Box of observations and "
            f"Discrete or MultiDiscrete actions can"
        )


class WarmStartMismatch(OdinError):
    def __init__(self, version: str, found: Structure, needed: Structure) -> None:
        super().__init__(
            f"{version} has the structure {found}, the training needs {needed}; start from a policy of the same "
            f"environment and settings, or from none"
        )


class Diverged(OdinError):
    def __init__(self, update: int, what: list[str]) -> None:
        super().__init__(
            f"update {update} left numbers that are not finite in {', '.join(what)}; lower learning_rate or "
            f"reward_scale"
        )


class EnvironmentCount(OdinError):
    def __init__(self, found: int, needed: int) -> None:
        super().__init__(f"the batch has {found} environments, the settings say environments={needed}; make them equal")


class Trained(NamedTuple):
    """`curve` has the columns `callbacks.CURVE`, one row per update."""

    policy: TradingPolicy
    curve: pl.DataFrame


class Steering(Protocol):
    """What changes the environments between rollouts, say where episodes begin; its state goes into checkpoints."""

    def before_rollout(self, progress: float) -> None:
        """`progress`: share of the training that is done, 0 to below 1. Called before the first episodes as well."""
        ...

    def after_rollout(self, ended: Sequence[Ended]) -> None:
        """The episodes that ended in it."""
        ...

    def state(self) -> Arrays: ...
    def set_state(self, state: Arrays) -> None: ...


@dataclass
class _Run:
    """What a training has in hand between two updates."""

    model: PPO
    observations: npt.NDArray[np.float32]  # (environments, columns): what was seen last
    starts: npt.NDArray[np.bool_]  # (environments,): whether that began an episode
    episodes: Episodes
    updates: int = 0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


def train(
    venv: VecEnv,
    config: PPOConfig,
    *,
    seed: int,
    warm_start: TradingPolicy | None = None,
    steering: Steering | None = None,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trained:
    """The policy after `config.updates` updates on the environments, and its learning curve.

    The same arguments give the same weights on one machine, `config.threads` included. With a `folder`, the state goes
    there every `config.checkpoint_every` updates, and a training that was killed goes on from the newest checkpoint to
    the weights that it would have had; one that is finished is only read. `identity` (JSON) says what the environments
    are: with another identity, configuration, seed or warm start a folder is refused. `facts` (JSON) go into the
    policy. Environments that are not the trading ones need `state()` and `set_state()` for checkpoints (dicts of
    arrays). They are not closed.

    Raises NotTrainable, EnvironmentCount, WarmStartMismatch, NoEnvironmentState, CheckpointUnreadable,
    CheckpointOfAnother, Diverged."""
    structure = structure_of(venv, config)
    if venv.num_envs != config.environments:
        raise EnvironmentCount(venv.num_envs, config.environments)
    if warm_start is not None and warm_start.structure != structure:
        raise WarmStartMismatch(warm_start.version, warm_start.structure, structure)
    if folder is not None:
        environment_state(venv)
    whose = {"config": config.model_dump(mode="json"), "seed": seed, "structure": structure.told(),
             "warm_start": warm_start.version if warm_start else None, "environment": dict(identity or {})}  # fmt: skip
    with isolated(config.threads):
        if steering is not None:
            steering.before_rollout(0.0)  # of the first episodes, which begin before the first rollout
        run = _begun(venv, config, seed, warm_start)
        found = newest_checkpoint(folder, whose) if folder is not None else None
        if found is not None:
            _restore(run, found, steering)
        while run.updates < config.updates:
            since = clock()
            if steering is not None:
                steering.before_rollout(run.updates / config.updates)
            collect(run, config.reward_scale)
            if steering is not None:
                steering.after_rollout(run.episodes.ended)
            _update(run, config)
            run.seconds += clock() - since
            run.rows.append(_row(run))
            if folder is not None and (run.updates % config.checkpoint_every == 0 or run.updates == config.updates):
                write_checkpoint(folder, _checkpoint(run, steering), whose)
            if progress is not None:
                progress(run.rows[-1])
        weights = of_sb3(run.model.policy.state_dict(), structure)
    told = {"learner": "ppo", "seed": seed, "steps": run.model.num_timesteps, "reward_scale": config.reward_scale,
            "warm_start": whose["warm_start"], "config": whose["config"]}  # fmt: skip
    return Trained(TradingPolicy(structure, weights, told | dict(facts or {})), curve_of(run.rows))


def environment_state(venv: VecEnv) -> Arrays:
    """Everything that the environments remember from one bar to the next: the trading environments' accounts as bytes,
    else what `state()` of the environments gives, a dict of arrays. Raises NoEnvironmentState."""
    if isinstance(venv, TradingVecEnv):
        return {"accounts": venv.batch.accounts.view(np.uint8).reshape(venv.num_envs, -1).copy()}
    if not (hasattr(venv, "state") and hasattr(venv, "set_state")):
        raise NoEnvironmentState(venv)
    return venv.state()  # pyright: ignore[reportAttributeAccessIssue]


def set_environment_state(venv: VecEnv, state: Arrays) -> None:
    """Back from `environment_state`, on environments of the same kind, tape and settings."""
    if isinstance(venv, TradingVecEnv):
        venv.batch.accounts.view(np.uint8).reshape(venv.num_envs, -1)[:] = state["accounts"]
    else:
        venv.set_state(state)  # pyright: ignore[reportAttributeAccessIssue]


def train_ppo(
    tape: Tape,
    environment: EnvironmentConfig,
    config: PPOConfig,
    *,
    seed: int,
    rules: ExecutionRules | None = None,
    costs: CostSchedule | None = None,
    starts: Starts | None = None,
    warm_start: TradingPolicy | None = None,
    folder: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trained:
    """`train` on `config.environments` environments of one tape, from the rows of `starts` (None: anywhere).

    With `starts` and `config.curriculum`, rare regimes and those with low reward begin more episodes as the training
    goes on; without the curriculum each start is as likely as another. Two tapes, or other rules of the environment,
    are two trainings: `folder` then refuses. The policy's facts tell of the tape (symbols, first and last session,
    a digest) and of the environment's settings. Raises what `train` raises."""
    venv = TradingVecEnv(tape, environment, config.environments, rules=rules, costs=costs, seed=seed,
                         threads=config.threads)  # fmt: skip
    steering = None
    if starts is not None and config.curriculum:
        steering = Curriculum(venv, starts, config.hardness, config.reward_scale)
    elif starts is not None:
        venv.set_starts(starts.rows)
    told = {
        "tape": {"digest": tape_digest(tape), "symbols": len(tape.symbols),
                 "first_session": date.fromordinal(int(tape.session.min())).isoformat(),
                 "last_session": date.fromordinal(int(tape.session.max())).isoformat()},
        "environment": environment.model_dump(mode="json"),
    }  # fmt: skip
    identity = told | {"rules": repr(venv.batch.rules), "costs": repr(venv.batch.costs),
                       "starts": None if starts is None else starts.digest}  # fmt: skip
    try:
        return train(
            venv, config, seed=seed, warm_start=warm_start, steering=steering, folder=folder, identity=identity,
            facts=told | dict(facts or {}), progress=progress, clock=clock,
        )  # fmt: skip
    finally:
        venv.close()


def tape_digest(tape: Tape) -> str:
    """Twelve hex digits over everything on the tape."""
    digest = hashlib.sha256("\0".join(tape.symbols).encode())
    known = (tape.state, tape.heatmap, tape.volatility, tape.risk_unit, tape.lot, tape.decidable)
    for array in (*tape.bars, tape.starts, tape.session, *known):
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()[:12]


def structure_of(venv: VecEnv, config: PPOConfig) -> Structure:
    """The networks that these environments and settings call for. Raises NotTrainable."""
    seen, acted = venv.observation_space, venv.action_space
    if not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
        raise NotTrainable(seen, acted)
    if isinstance(acted, spaces.Discrete):
        dimensions: tuple[int, ...] = (int(acted.n),)
    elif isinstance(acted, spaces.MultiDiscrete) and acted.nvec.ndim == 1:
        dimensions = tuple(int(n) for n in acted.nvec)
    else:
        raise NotTrainable(seen, acted)
    return Structure(seen.shape[0], dimensions, config.hidden, config.activation)


def learner(venv: VecEnv, config: PPOConfig, seed: int) -> PPO:
    """Stable-Baselines3's PPO with these settings. Seeds the process's generators: call it inside `isolated`."""
    model = PPO(
        "MlpPolicy", venv, learning_rate=_schedule(config.learning_rate, config.learning_rate_schedule),
        n_steps=config.rollout, batch_size=config.batch, n_epochs=config.epochs, gamma=config.discount,
        gae_lambda=config.gae_lambda, clip_range=_schedule(config.clip, config.clip_schedule),
        ent_coef=config.entropy_weight, vf_coef=config.value_weight, max_grad_norm=config.max_gradient,
        target_kl=config.target_kl, seed=seed, device="cpu", verbose=0,
        policy_kwargs={"net_arch": {"pi": list(config.hidden), "vf": list(config.hidden)},
                       "activation_fn": ACTIVATIONS[config.activation]},
    )  # fmt: skip
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def _schedule(value: float, kind: str) -> Callable[[float], float]:
    """Of the share of the training that remains, 1 to 0."""
    return (lambda remaining: value * remaining) if kind == "linear" else (lambda remaining: value)


def _begun(venv: VecEnv, config: PPOConfig, seed: int, warm_start: TradingPolicy | None) -> _Run:
    model = learner(venv, config, seed)
    if warm_start is not None:
        model.policy.load_state_dict(to_sb3(warm_start.weights, warm_start.structure))
    observations = np.asarray(venv.reset(), dtype=np.float32)
    return _Run(model, observations, np.ones(venv.num_envs, bool), Episodes(venv.num_envs))


def collect(run: _Run, reward_scale: float) -> None:
    """`config.rollout` bars of every environment into the model's rollout buffer, with values, advantages, returns.

    Where an episode was cut by time, the reward gets the discounted value of what came next (Pardo et al. 2018), as in
    Stable-Baselines3's `collect_rollouts`, but all environments of a bar in one pass of the critic."""
    model, buffer, policy = run.model, run.model.rollout_buffer, run.model.policy
    environment, discrete = _environments(model), isinstance(model.action_space, spaces.Discrete)
    policy.set_training_mode(False)
    buffer.reset()
    dones = run.starts
    with torch.no_grad():
        for _ in range(model.n_steps):
            actions, values, log_probabilities = policy(torch.tensor(run.observations))
            taken = actions.numpy()
            seen, rewards, dones, infos = environment.step(taken)
            run.episodes.add(rewards, dones, infos)
            scaled = rewards.astype(np.float32) * np.float32(reward_scale)
            cut = [i for i in np.flatnonzero(dones).tolist() if infos[i].get("TimeLimit.truncated", False)]
            if cut:
                last = np.stack([infos[i]["terminal_observation"] for i in cut]).astype(np.float32, copy=False)
                scaled[cut] += model.gamma * policy.predict_values(torch.tensor(last)).numpy().ravel()
            taken = taken.reshape(-1, 1) if discrete else taken
            buffer.add(run.observations, taken, scaled, run.starts, values, log_probabilities)
            run.observations, run.starts = np.asarray(seen, dtype=np.float32), dones
        values = policy.predict_values(torch.tensor(run.observations))
    buffer.compute_returns_and_advantage(values, dones)
    model.num_timesteps += model.n_steps * environment.num_envs


def _environments(model: PPO) -> VecEnv:
    assert model.env is not None
    return model.env


def _update(run: _Run, config: PPOConfig) -> None:
    model = run.model
    whole = config.updates * config.rollout * config.environments
    model._update_current_progress_remaining(model.num_timesteps, whole)
    model.train()
    run.updates += 1
    wrong = [name for name, weight in model.policy.named_parameters() if not bool(torch.isfinite(weight).all())]
    if wrong:
        raise Diverged(run.updates, wrong)


def _row(run: _Run) -> Row:
    logged = learner_row(run.model.logger.name_to_value)
    run.model.logger.name_to_value.clear()
    head: Row = {"update": run.updates, "steps": run.model.num_timesteps, "seconds": run.seconds}
    return head | run.episodes.row() | logged


def _checkpoint(run: _Run, steering: Steering | None) -> Checkpoint:
    model, (generators, told) = run.model, generator_state()
    arrays = (
        prefixed("weights", {name: weight.numpy() for name, weight in model.policy.state_dict().items()})
        | prefixed("optimizer", optimizer_arrays(model.policy.optimizer))
        | prefixed("generators", generators)
        | prefixed("environment", environment_state(_environments(model)))
        | prefixed("episodes", run.episodes.state())
        | {"observations": run.observations, "starts": run.starts}
    )
    if steering is not None:
        arrays |= prefixed("steering", steering.state())
    return Checkpoint(run.updates, arrays, {
        "generators": told, "rows": run.rows, "seconds": run.seconds, "steps": model.num_timesteps,
    })  # fmt: skip


def _restore(run: _Run, found: Checkpoint, steering: Steering | None) -> None:
    model, arrays = run.model, found.arrays
    model.policy.load_state_dict({name: torch.tensor(array) for name, array in under("weights", arrays).items()})
    set_optimizer(model.policy.optimizer, under("optimizer", arrays))
    set_environment_state(_environments(model), under("environment", arrays))
    run.episodes.set_state(under("episodes", arrays))
    if steering is not None:
        steering.set_state(under("steering", arrays))
    run.observations, run.starts = arrays["observations"].copy(), arrays["starts"].copy()
    run.updates, run.seconds, run.rows = found.updates, found.told["seconds"], list(found.told["rows"])
    model.num_timesteps = found.told["steps"]
    set_generators(under("generators", arrays), found.told["generators"])
