"""A small life with an encoder and slow learners that take seconds: the product's own pieces, only smaller."""

from datetime import date
from functools import cache
from pathlib import Path

import smalllives

from odin_core.encoder.config import EncoderConfig
from odin_core.encoder.store import train_month
from odin_core.home import Home
from odin_core.lifecycle.life import Life
from odin_core.market.data import MarketData

MONTH = date(2022, 12, 1)  # of the encoder, before the life
ENCODER = EncoderConfig.small(
    length=32, embedding=8, width=8, levels=4, horizons=(1, 6), turn_bars=6, range_bars=12, batch=4, steps=6,
    warm_up=2, validate_every=3, checkpoint_every=3, threads=1,
)  # fmt: skip
SETTINGS = {
    "encoder": ENCODER.documented(),
    "week": "lookback_sessions: 6\njudged_sessions: 3\ndraws: 4\n",
    "ppo": "environments: 8\nrollout: 16\nbatch: 64\nepochs: 1\nsteps: 256\nhidden: [8]\nthreads: 1\n"
    "checkpoint_every: 1\n",
    "environment": "episode_bars: 20\nlambda_trade: 0.0\n",
    "reinforce": "min_decisions: 20\nmin_sessions: 5\nsteps: 20\nevaluate_every: 10\n",
}
"""YAML of each component, as a home's folder `settings` holds it."""


def settle(home: Home) -> None:
    """Write SETTINGS into a home."""
    for component, text in SETTINGS.items():
        path = home.settings(component)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def begin(folder: Path) -> tuple[Life, MarketData]:
    """A small life of two whole weeks with SETTINGS and an encoder trained before it."""
    life, data = smalllives.begin(folder)
    settle(life.home)
    smalllives.run_to(life, data)
    train_month(data, MONTH, ENCODER)
    return life, data


@cache
def learned() -> tuple[Life, MarketData]:
    """`begin` in a folder of this process. For reading only: tests share it."""
    return begin(smalllives.folder_of_this_process() / "home")
