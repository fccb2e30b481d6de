"""What slow learners left in a life, week by week, and the newest of them as shadows.

    <life>/learners/<version>/           a policy as its own `save` writes it; named by its content, so that all
                                         generations of the life share it
    ppo_policy, ppo_curves               tables of the generation, a file for each week's last session
    reinforce_policy, distilled_policy   likewise
    explanations                         why a PPO chose what it was surest of, by session

How they are made is `learner_weeks`, who reads them `learners_at` and reports. They are no part of the life's commits
or digest: the fold never waits for a slow learner. None is champion by itself; a distilled policy is a joint one, which
a person may promote from the registry."""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.lake import write_bytes, write_folder
from odin_core.lifecycle.life import Life, generation_on_disk

if TYPE_CHECKING:
    from odin_core.lifecycle.shadow_choices import ShadowPolicy
    from odin_core.market.data import MarketData
    from odin_core.rl.policy import TradingPolicy
    from odin_core.rl.reinforce_policy import ReinforcePolicy

FOLDER: Final = "learners"
WAIT: Final = 600.0  # seconds for a range of sessions that is being run, whose writer a week's learner waits for
PPO, PPO_CURVES, REINFORCE, DISTILLED = "ppo_policy", "ppo_curves", "reinforce_policy", "distilled_policy"
EXPLANATIONS: Final = "explanations"
REINFORCE_FILE: Final = "policy.safetensors"
HEAD: Final = pl.Schema(
    {
        "version": pl.String(),  # of the candidate; null where nothing was trained
        "encoder": pl.String(),  # whose embeddings it reads; null for those that read decision features
        "outcome": pl.String(),  # passed, refused, insufficient, not_trained
        "reason": pl.String(),
        "made_from": pl.String(),  # what the week follows from: settings, encoder, bars
        "report": pl.String(),  # Markdown
    }
)


def weeks(life: Life, table: str, through: date | None = None) -> list[date]:
    """Last sessions of the weeks that a learner's table knows, ascending, up to `through`."""
    return [session for session in life.lake.sessions(table) if through is None or session <= through]


def folder_of(life: Life, version: str) -> Path:
    """Where a policy lies."""
    return life.folder / FOLDER / version


def checkpoints_of(life: Life, table: str, session: date, mark: str) -> Path:
    """Where the training of a week's learner keeps what it goes on from."""
    return life.folder / FOLDER / f".training-{table}-{session}-{mark}"


def store(life: Life, version: str, save: Callable[[Path], None]) -> None:
    """A policy's folder, whole or not at all; one that lies there stays."""
    write_folder(save, folder_of(life, version))


def write(life: Life, what: str, session: date, tables: Mapping[str, pl.DataFrame]) -> None:
    """Tables of a session, in this order; one that holds just these rows stays untouched. Raises HomeBusy after WAIT
    seconds, RewoundMeanwhile."""
    from odin_core.lifecycle.run import RewoundMeanwhile  # brings numba

    with life.home.writer(f"{what} of {life.market}, session {session}", wait=WAIT):
        if generation_on_disk(life) != life.generation:
            raise RewoundMeanwhile(life)
        for name, frame in tables.items():
            life.lake.write_changed(name, session, frame)


def found_again(life: Life, table: str, session: date, mark: str) -> pl.DataFrame | None:
    """The week of a learner, if it follows from just what `mark` says and its policy lies there still."""
    found = life.read(table, session) if life.lake.has(table, session) else None
    if found is None or found["made_from"][0] != mark:
        return None
    version = found["version"][0]
    if version is None:
        return found
    is_there = version in life.registry.versions() if table == DISTILLED else folder_of(life, version).is_dir()
    return found if is_there else None


def newest_ppo(life: Life, through: date) -> "TradingPolicy | None":
    """The PPO of the last week up to a session that has one. Raises PolicyUnreadable."""
    from odin_core.rl.policy import TradingPolicy

    found = _newest(life, PPO, through)
    return TradingPolicy.load(folder_of(life, found[1]["version"])) if found else None


def learners_at(life: Life, data: "MarketData", session: date) -> "tuple[list[ShadowPolicy], list[str]]":
    """The newest policy of each learner that was trained by the close of `session`, to be asked as a shadow there; and
    why one that should be there cannot be asked, since it must not keep the others from being."""
    policies, missing = [], []
    for find in (ppo_at, _reinforce_at):
        try:
            policy = find(life, data, session)
        except OdinError as error:
            missing.append(str(error))
        else:
            policies += [policy] if policy else []
    return policies, missing


def shadows_of(life: Life, data: "MarketData", session: date) -> dict[str, Any]:
    """Ask and carry out the shadows of a finished session, store them and the PPO's reasons; numbers to plot, and
    `missing` where a learner could not be asked. Raises what `shadow.shadow_session` raises."""
    from odin_core.lifecycle.shadow import shadow_session, write_shadow

    policies, missing = learners_at(life, data, session)
    made = shadow_session(life, data, session, policies)
    write_shadow(life, made, wait=WAIT)
    explained = 0
    if any(policy.name == "ppo" for policy in policies):
        explained = _explain(life, data, session, made.recommendations)
    known = made.replay.filter((pl.col("status") != "skipped") & pl.col("complete"))
    by_role = known.group_by("policy").agg(pl.col("reward").mean()).sort("policy")
    return {
        "versions": made.recommendations["version"].n_unique(),
        "choices": made.recommendations.height,
        "outcomes": made.replay.height,
        "explained": explained,
        **{f"reward_{policy}": reward for policy, reward in by_role.iter_rows()},
        **({"missing": missing} if missing else {}),
    }


def _explain(life: Life, data: "MarketData", session: date, choices: pl.DataFrame) -> int:
    """Store the PPO's reasons for what it chose at a close; how many there are."""
    from odin_core.encoder.store import stored
    from odin_core.rl.explained import explanations_of

    policy = newest_ppo(life, session)
    assert policy is not None, "it was asked"
    reasons = explanations_of(policy, stored(data.lake, policy.facts["encoder"]), data, session, choices)
    write(life, "the explanations", session, {EXPLANATIONS: reasons})
    return reasons.height


def ppo_at(life: Life, data: "MarketData", session: date) -> "ShadowPolicy | None":
    """The PPO of the last week up to `session`, as a shadow. Raises PolicyUnreadable, EncoderUnreadable."""
    from odin_core.lifecycle.shadow_learners import EnvironmentShadow, at_the_close

    found = _newest(life, PPO, session)
    if found is None:
        return None
    from odin_core.encoder.store import stored
    from odin_core.rl.config import EnvironmentConfig
    from odin_core.rl.market_tape import NothingOnTape, market_tape
    from odin_core.rl.policy import TradingPolicy

    through, row = found
    policy = TradingPolicy.load(folder_of(life, row["version"]))
    environment = EnvironmentConfig.of(policy.facts["environment"], row["version"])
    encoder = stored(data.lake, row["encoder"])

    def observe(contexts: pl.DataFrame, as_of: datetime) -> Any:
        asked = contexts["session"][0]
        try:
            tape = market_tape(data, asked, asked, encoder, as_of=as_of)
        except NothingOnTape:
            return np.full((contexts.height, policy.structure.observation), np.nan, np.float32)
        return at_the_close(tape, environment)(contexts, as_of)

    return EnvironmentShadow("ppo", policy.version, through, policy, observe)


def _reinforce_at(life: Life, data: "MarketData", session: date) -> "ShadowPolicy | None":
    from odin_core.lifecycle.shadow_learners import GridShadow

    found = _newest(life, REINFORCE, session)
    if found is None:
        return None
    policy = load_reinforce(life, found[1]["version"])
    return GridShadow("reinforce", policy.version, policy)


def save_reinforce(life: Life, policy: "ReinforcePolicy") -> None:
    content = policy.to_bytes()
    store(life, policy.version, lambda folder: write_bytes(content, folder / REINFORCE_FILE))


def load_reinforce(life: Life, version: str) -> "ReinforcePolicy":
    """Raises PolicyUnreadable."""
    from odin_core.rl.policy import PolicyUnreadable
    from odin_core.rl.reinforce_policy import ReinforcePolicy

    path = folder_of(life, version) / REINFORCE_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PolicyUnreadable(path, error.strerror or str(error)) from error
    return ReinforcePolicy.from_bytes(content)


def _newest(life: Life, table: str, through: date) -> tuple[date, dict[str, Any]] | None:
    """The last week up to a session that has a policy, and its table's first row."""
    for session in reversed(weeks(life, table, through)):
        row = life.read(table, session).row(0, named=True)
        if row["version"]:
            return session, row
    return None
