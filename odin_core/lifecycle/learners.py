"""What slow learners left in a life, week by week, and the newest of them as shadows.

    <generation>/learners/<version>/     a policy as its own `save` writes it; named by its content
    ppo_policy, ppo_curves               tables of the generation, a file for each week's last session
    reinforce_policy                     likewise

They are no part of the life's commits or digest: the fold never waits for a slow learner, and none is champion."""

import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from odin_core.errors import OdinError
from odin_core.lifecycle.life import Life
from odin_core.rl.weekly_config import WeekConfig

if TYPE_CHECKING:
    from odin_core.lifecycle.shadow_choices import ShadowPolicy
    from odin_core.market.data import MarketData
    from odin_core.rl.policy import TradingPolicy
    from odin_core.rl.reinforce_policy import ReinforcePolicy
    from odin_core.rl.weekly import PPOWeek

FOLDER: Final = "learners"
PPO, PPO_CURVES, REINFORCE = "ppo_policy", "ppo_curves", "reinforce_policy"
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


class NotFinishedYet(OdinError):
    def __init__(self, life: Life, session: date) -> None:
        super().__init__(
            f"life {life.id} has not finished session {session}, and a learner learns at a close; run it there first: "
            f"odin bootstrap --market {life.market} --end {session}"
        )


def weeks(life: Life, table: str, through: date | None = None) -> list[date]:
    """Last sessions of the weeks that a learner's table knows, ascending, up to `through`."""
    return [session for session in life.lake.sessions(table) if through is None or session <= through]


def ppo_week(
    life: Life, data: "MarketData", session: date, progress: Callable[[int, int, str], None] | None = None
) -> pl.DataFrame:
    """The PPO of the week that ends with `session`: the one that lies there, or trained, judged and stored. Settings
    are the home's `settings/week.yaml`, `ppo.yaml` and `environment.yaml`. A killed training goes on.
    Raises NotFinishedYet and what `rl.weekly.train_week` raises."""
    from odin_core.configuration import settings_at
    from odin_core.lifecycle.config import identity
    from odin_core.rl.config import EnvironmentConfig
    from odin_core.rl.learner_config import PPOConfig
    from odin_core.rl.weekly import encoder_for, train_week

    if life.committed(session) is None:
        raise NotFinishedYet(life, session)
    week = settings_at(life.home, "week", WeekConfig())
    config = settings_at(life.home, "ppo", PPOConfig.small(steps=WEEKLY_STEPS))
    environment = settings_at(life.home, "environment", EnvironmentConfig.of({}))
    encoder = encoder_for(data, session, week.encoder)
    mark = identity(*(s.model_dump(mode="json") for s in (week, config, environment)), encoder and encoder.version)
    if life.lake.has(PPO, session) and (found := life.read(PPO, session))["made_from"][0] == mark:
        return found
    incumbent = newest_ppo(life, data.calendar.previous(session))
    checkpoints = life.lake.root / FOLDER / f".training-{session}-{mark}"
    made = train_week(
        life, data, session, week=week, environment=environment, config=config, incumbent=incumbent,
        folder=checkpoints, progress=progress,
    )  # fmt: skip
    if made.policy is not None:
        store(life, made.policy.version, made.policy.save)
    with life.home.writer(f"the PPO of {life.market}, week to {session}"):
        life.lake.write(PPO_CURVES, session, made.curves)
        life.lake.write(PPO, session, _rows(made, encoder.version if encoder else None, mark))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return life.read(PPO, session)


WEEKLY_STEPS: Final = 300_000  # bars of one seed's training where the home says nothing else


def _rows(made: "PPOWeek", encoder: str | None, mark: str) -> pl.DataFrame:
    """HEAD, then the numbers of each seed; one row without numbers where nothing was trained."""
    from odin_core.evaluation.gate_report import report_markdown
    from odin_core.rl.weekly import SEEDS

    told = report_markdown(made.verdict, {"session": made.session}) if made.verdict else made.reason
    head: dict[str, Any] = {
        "version": made.policy.version if made.policy else None,
        "encoder": encoder if made.policy else None,
        "outcome": made.outcome,
        "reason": made.reason,
        "made_from": mark,
        "report": told,
    }
    seeds = made.seeds if made.seeds.height else pl.DataFrame({name: [None] for name in SEEDS}, schema=SEEDS)
    return seeds.select(*(pl.lit(value, HEAD[name]).alias(name) for name, value in head.items()), pl.all())


def store(life: Life, version: str, save: Callable[[Path], None]) -> None:
    """A policy's folder, whole or not at all; one that lies there stays."""
    folder = life.lake.root / FOLDER / version
    if folder.is_dir():
        return
    half = folder.with_name(f".{version}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    save(half)
    os.replace(half, folder)


def newest_ppo(life: Life, through: date) -> "TradingPolicy | None":
    """The PPO of the last week up to a session that has one. Raises PolicyUnreadable."""
    from odin_core.rl.policy import TradingPolicy

    found = _newest(life, PPO, through)
    return TradingPolicy.load(life.lake.root / FOLDER / found[1]["version"]) if found else None


def learners_at(life: Life, data: "MarketData", session: date) -> "list[ShadowPolicy]":
    """The newest policy of each learner that was trained by the close of `session`, to be asked as a shadow there."""
    return [policy for policy in (_ppo_at(life, data, session), _reinforce_at(life, session)) if policy]


def _ppo_at(life: Life, data: "MarketData", session: date) -> "ShadowPolicy | None":
    from odin_core.lifecycle.shadow_learners import EnvironmentShadow, at_the_close

    found = _newest(life, PPO, session)
    if found is None:
        return None
    from odin_core.encoder.store import stored
    from odin_core.rl.config import EnvironmentConfig
    from odin_core.rl.market_tape import market_tape
    from odin_core.rl.policy import TradingPolicy

    through, row = found
    policy = TradingPolicy.load(life.lake.root / FOLDER / row["version"])
    environment = EnvironmentConfig.of(policy.facts["environment"], row["version"])
    encoder = stored(data.lake, row["encoder"])

    def observe(contexts: pl.DataFrame, as_of: Any) -> Any:
        asked = contexts["session"][0]
        return at_the_close(market_tape(data, asked, asked, encoder, as_of=as_of), environment)(contexts, as_of)

    return EnvironmentShadow("ppo", policy.version, through, policy, observe)


def _reinforce_at(life: Life, session: date) -> "ShadowPolicy | None":
    from odin_core.lifecycle.shadow_learners import GridShadow

    found = _newest(life, REINFORCE, session)
    if found is None:
        return None
    policy = load_reinforce(life, found[1]["version"])
    return GridShadow("reinforce", policy.version, policy)


def load_reinforce(life: Life, version: str) -> "ReinforcePolicy":
    from odin_core.rl.reinforce_policy import ReinforcePolicy

    return ReinforcePolicy.from_bytes((life.lake.root / FOLDER / version / "policy.safetensors").read_bytes())


def _newest(life: Life, table: str, through: date) -> tuple[date, dict[str, Any]] | None:
    """The last week up to a session that has a policy, and its table's first row."""
    for session in reversed(weeks(life, table, through)):
        row = life.read(table, session).row(0, named=True)
        if row["version"]:
            return session, row
    return None
