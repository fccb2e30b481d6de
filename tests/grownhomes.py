"""A home that the real graph has run on: three weeks of a small live life on the demo exchange, Dagster on SQLite.

Made once per test process; a test works on a copy. The bars of twelve symbols lie in the lake beforehand, so that the
exchange of the profile, which has fifty, is never asked within the range."""

import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any

import smalllives

from odin_assets.drive import bootstrap
from odin_assets.resources import OdinHome
from odin_core.home import Home, open_home
from odin_core.lifecycle.config import LifeConfig

FIRST, HEAD, NEXT = smalllives.FIRST, date(2023, 1, 19), date(2023, 1, 20)  # the head is a Thursday
BARS_TO = date(2023, 2, 3)
LIVE = (*smalllives.QUICK, "live=true")


def prefill(home: Home, *, last: date = BARS_TO) -> None:
    """Bars of the small market for the warm-up and for every session to `last`."""
    data = smalllives.small_market(home, LifeConfig())
    for session in data.calendar.sessions(date(2022, 12, 1), last):
        data.bars(session)


def run(
    home: Home,
    *,
    start: date | None = FIRST,
    end: date = HEAD,
    seed: int | None = None,
    edge: float | None = None,
    assignments: tuple[str, ...] = LIVE,
    at: datetime = smalllives.NOW,
    market: str = smalllives.MARKET,
) -> dict[str, Any]:
    """What `odin bootstrap` does, with a clock of one's own."""
    return bootstrap(
        home, market, start=start, end=end, seed=seed, edge=edge, assignments=assignments, storage="sqlite",
        progress=False, clock=lambda: at,
    )  # fmt: skip


def grow(folder: Path) -> Path:
    home = open_home(folder)
    prefill(home)
    run(home)
    return folder


def copied(grown: Path, folder: Path) -> Home:
    shutil.copytree(grown, folder)
    return open_home(folder)


def resource(home: Home) -> dict[str, OdinHome]:
    return {"odin": OdinHome(path=str(home.root))}
