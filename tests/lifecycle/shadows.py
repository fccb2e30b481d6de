"""Shadowed lives for tests, and a policy that is trained on nothing and chooses off the grid."""

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from smalllives import FIRST, LAST, begin, climbed, quick, run_to

from odin_core.home import open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.shadow import ShadowSession, shadow_session, write_shadow
from odin_core.lifecycle.shadow_choices import ShadowChoices
from odin_core.market.data import MarketData
from odin_core.policies.actions import SIZES, STOPS, TARGETS

PPO_SIZES, PPO_STOPS, PPO_TARGETS = (0.25, 0.5, 0.75, 1.0), (1.0, 1.5, 2.0, 2.5), (1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Drawing:
    """A policy that draws from axes of its own, leaving alone what it has no side for, and remembers nothing."""

    version: str = "ppo-1"
    trained_through: date = FIRST
    name: str = "ppo"
    sizes: tuple[float, ...] = tuple(SIZES[-1] * share for share in PPO_SIZES)
    stops: tuple[float, ...] = PPO_STOPS
    targets: tuple[float, ...] = PPO_TARGETS
    sides: tuple[int, ...] = (-1, 0, 1)

    def choose(self, contexts: pl.DataFrame, as_of: datetime) -> ShadowChoices:
        assert contexts["decided_at"].max() <= as_of
        rng = np.random.default_rng([int(as_of.timestamp()), len(self.version)])
        side, size, stop, target = (
            rng.choice(axis, contexts.height) for axis in (self.sides, self.sizes, self.stops, self.targets)
        )
        return ShadowChoices.of(side=side, size=size, stop=stop, target=target, propensity=0.2, score=side * 0.1)


GRID_ONLY = Drawing("grid-1", name="grid", sizes=SIZES, stops=STOPS, targets=TARGETS, sides=(-1, 1))


def shadowed(life: Life, data: MarketData, *policies: Any, sessions: list[date] | None = None) -> list[ShadowSession]:
    """Shadows of a life, session after session, written as they come."""
    made = []
    for session in sessions or life.commits():
        made.append(shadow_session(life, data, session, policies))
        write_shadow(life, made[-1])
    return made


def copied(folder: Path, life: Life, data: MarketData) -> tuple[Life, MarketData]:
    """A life of one's own to write to."""
    shutil.copytree(life.home.root, folder)
    home = open_home(folder)
    return lives.load(home, life.id), MarketData(home.lake(data.lake.root.name), data.profile, data.bars)


@cache
def grown() -> tuple[Life, MarketData, list[ShadowSession]]:
    """Five weeks with promotions, halts on Tuesdays and a session without bars, all of it shadowed. For reading."""
    life, data = copied(_folder() / "home", *climbed())
    return life, data, shadowed(life, data, Drawing(), GRID_ONLY)


@cache
def young() -> tuple[Life, MarketData]:
    """Two weeks and a bit with two trainings, without shadows. For reading; `copied` gives one to write to."""
    life, data = begin(_folder() / "home", quick(edge=0.5, seed=7))
    run_to(life, data, LAST)
    return life, data


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="odin-shadows-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def replay(shadows: list[ShadowSession]) -> pl.DataFrame:
    return pl.concat([shadow.replay for shadow in shadows])


def asked(shadows: list[ShadowSession]) -> pl.DataFrame:
    return pl.concat([shadow.recommendations for shadow in shadows])
