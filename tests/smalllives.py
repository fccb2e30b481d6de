"""Small lives for tests: the demo exchange with few symbols, and a learner that is quick rather than good.

Every piece is the product's own; only the number of symbols and the settings are smaller, so that training, gate and
registry lie on the path of a life of three weeks that takes about a second."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from odin_core.home import Home, open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig, with_settings
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import SessionResult, run_sessions
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import MarketProfile, load_profile
from odin_core.market.synthetic import SyntheticExchange
from odin_core.policies.actions import FloatArray
from odin_core.randomness import stream

MARKET = "demo"
SYMBOLS = 12
FIRST, LAST = date(2023, 1, 2), date(2023, 1, 17)  # 12 sessions: two weeks of five, then two sessions
NOW = datetime(2030, 1, 1, tzinfo=UTC)
QUICK = (
    "learner.min_sessions=5", "learner.min_contexts=40", "learner.trees=6", "learner.leaves=5",
    "learner.walk_forward_folds=2", "guardrails.max_trades=6", "phases.executed_trades=20", "phases.candidates=2",
    "promotion.min_decisions=10",
)  # fmt: skip
CLIMBING = (  # gates low enough for five weeks, on `plain_edge`: phase 3 comes early in February
    "learner.learning_rate=0.4", "learner.trees=8", "promotion.alpha=0.99", "promotion.min_sessions=10",
    "phases.min_sessions=3", "phases.confidence=0.9", "phases.rank_agreement=-1.0", "phases.replay_rows=100",
    "phases.regime_rows=1", "phases.deflated_sharpe=0.0", "phases.max_drawdown=1.0", "seed=3", "edge=0.0",
)  # fmt: skip
CLIMBED = date(2023, 2, 8)  # a Wednesday, three sessions into phase 3
NO_BARS = date(2023, 2, 7)
Edit = Callable[[date, pl.DataFrame], pl.DataFrame]


def clock() -> datetime:
    return NOW


def quick(*assignments: str, **told: int | float) -> LifeConfig:
    """The quick configuration with `name=value` on top; seed and edge by keyword."""
    return with_settings(LifeConfig(), (*QUICK, *assignments, *(f"{name}={value}" for name, value in told.items())))


def small_profile(symbols: int = SYMBOLS) -> MarketProfile:
    profile = load_profile(MARKET)
    return replace(profile, source={**profile.source, "symbols": symbols})


def small_market(home: Home, config: LifeConfig, *, symbols: int = SYMBOLS, edit: Edit | None = None) -> MarketData:
    """The data of a small demo market; `edit(session, bars)` may change what the exchange says of a session."""
    profile = small_profile(symbols)
    exchange = SyntheticExchange(profile, seed=config.seed, edge=config.edge, symbols=symbols)
    made = exchange.bars if edit is None else lambda session: edit(session, exchange.bars(session))
    return MarketData(home.lake(f"{MARKET}-edge{config.edge:g}-seed{config.seed}"), profile, made)


def plain_edge(strength: float = 0.016) -> Edit:
    """An edge that no learner can miss: what a symbol does in a session's last 90 minutes (up or down by half of
    `strength`) it goes on doing in the first 200 of the next, twice as far."""
    calendar = session_calendar(load_profile(MARKET))
    first = load_profile(MARKET).first_partition

    @cache
    def flow(session: date) -> FloatArray:
        return stream(1, session, "plain_edge").choice([-1.0, 1.0], SYMBOLS)

    @cache
    def level(session: date) -> FloatArray:
        if session == first:
            return np.zeros(SYMBOLS)
        before = calendar.previous(session)
        return level(before) + inside(before, np.array([375.0]))[0]

    def inside(session: date, minute: FloatArray) -> FloatArray:
        """(minutes, symbols): what the edge has added to the logarithm of the price since the open."""
        carried = flow(calendar.previous(session)) * np.clip(minute / 200, 0, 1)[:, None]
        return strength * (carried + 0.5 * flow(session) * np.clip((minute - 285) / 90, 0, 1)[:, None])

    def edit(session: date, bars: pl.DataFrame) -> pl.DataFrame:
        minute = (bars["ts"] - calendar.hours(session).open).dt.total_minutes().to_numpy()
        symbol = bars["symbol"].rank("dense").to_numpy().astype(int) - 1
        shift = (level(session) + inside(session, minute.astype(float)))[np.arange(bars.height), symbol]
        return bars.with_columns(pl.col("open", "high", "low", "close") * np.exp(shift))

    return edit


def rough(edit: Edit) -> Edit:
    """`edit`, and then: on Tuesdays two symbols stop trading at 13:15, and NO_BARS has no bars at all."""

    def edited(session: date, bars: pl.DataFrame) -> pl.DataFrame:
        if session == NO_BARS:
            return bars.clear()
        halted = pl.col("symbol").is_in(bars["symbol"].unique().sort().head(2).implode()) & (session.weekday() == 1)
        late = pl.col("ts").dt.time() >= time(7, 45)
        return edit(session, bars).with_columns(volume=pl.when(halted & late).then(0.0).otherwise("volume"))

    return edited


def begin(folder: Path, config: LifeConfig | None = None, *, edit: Edit | None = None) -> tuple[Life, MarketData]:
    """A life in a home of its own, not run yet. The bars and features of the default market up to LAST lie there."""
    home, config = open_home(folder), config or quick()
    data = small_market(home, config, edit=edit)
    if edit is None and not data.lake.root.exists() and (config.seed, config.edge) == (7, 0.5):
        shutil.copytree(_made_before(), data.lake.root, copy_function=os.link)
    return lives.create(home, MARKET, config, FIRST), data


@cache
def _made_before() -> Path:
    """The market folder of the default exchange up to LAST: most lives of most tests need the same one."""
    data = small_market(open_home(folder_of_this_process() / "home"), quick())
    for session in data.calendar.sessions(data.calendar.previous(FIRST), LAST):
        data.decision_rows(session)
    return data.lake.root


def folder_of_this_process() -> Path:
    """A new folder that lasts as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="odin-small-lives-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def climbed() -> tuple[Life, MarketData]:
    """A life run to CLIMBED, in a folder of this process. For reading only: tests share it."""
    life, data = begin(folder_of_this_process() / "home", quick(*CLIMBING), edit=rough(plain_edge()))
    run_to(life, data, CLIMBED)
    return life, data


def run_to(life: Life, data: MarketData, last: date = LAST, *, first: date = FIRST) -> list[SessionResult]:
    """Run the sessions from `first` to `last`; finished ones are skipped."""
    return list(run_sessions(life, data, data.calendar.sessions(first, last), clock=clock))


def tables(life: Life, sessions: Iterable[date]) -> dict[tuple[str, date], pl.DataFrame]:
    """Every table of a life, by name and session."""
    return {(t, s): life.lake.read(t, s) for s in sessions for t in sorted(life.lake.tables_with(s))}
