"""How the cost of a life grows: seconds for once, twice and four times the sessions, and symbols; linear beside it.

Without Dagster: bars, quality, features and fold. Sessions are counted in one life from the moment its training
look-back is full: before that a week's training grows with the life, afterwards it does not. Symbols are counted over
the first sessions of a life each, its first trainings included."""

import tempfile
import time
from datetime import UTC, date, datetime
from typing import Any

from odin_core.home import open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.run import run_sessions
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile
from odin_core.market.synthetic import SyntheticExchange

TIMES = (1, 2, 4)
FIRST = date(2023, 1, 2)
SESSIONS, SYMBOLS_OF_SESSIONS = 50, 25
SYMBOLS, SESSIONS_OF_SYMBOLS = 50, 35


def run() -> list[dict[str, Any]]:
    """Three rows for sessions and three for symbols; seconds, one run each."""
    config = LifeConfig()
    before = config.learner.lookback_sessions
    ends = seconds_by_session(config, SYMBOLS_OF_SESSIONS, before + max(TIMES) * SESSIONS)
    by_sessions = [ends[before + k * SESSIONS - 1] - ends[before - 1] for k in TIMES]
    by_symbols = [seconds_by_session(config, k * SYMBOLS, SESSIONS_OF_SYMBOLS)[-1] for k in TIMES]
    return [
        *_rows(by_sessions, [f"{k * SESSIONS} sessions × {SYMBOLS_OF_SESSIONS} symbols" for k in TIMES]),
        *_rows(by_symbols, [f"{SESSIONS_OF_SYMBOLS} sessions × {k * SYMBOLS} symbols" for k in TIMES]),
    ]


def _rows(seconds: list[float], sizes: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "bench": "bootstrap_scaling",
            "value": value,
            "unit": "s",
            "peer": f"{size}: {k} × the first",
            "peer_value": k * seconds[0],
        }
        for k, value, size in zip(TIMES, seconds, sizes, strict=True)
    ]


def seconds_by_session(config: LifeConfig, symbols: int, sessions: int) -> list[float]:
    """Seconds from the start of a life until each of its first `sessions` was finished."""
    profile = load_profile("demo")
    exchange = SyntheticExchange(profile, seed=config.seed, edge=config.edge, symbols=symbols)
    with tempfile.TemporaryDirectory(prefix="odin-bench-") as root:
        home = open_home(root)
        data = MarketData(home.lake("demo"), profile, exchange.bars)
        life = lives.create(home, "demo", config, FIRST)
        wanted = data.calendar.sessions(FIRST)[:sessions]
        started, ends = time.perf_counter(), []
        for result in run_sessions(life, data, wanted, clock=lambda: datetime.now(UTC)):
            data.defects(result.session)
            ends.append(time.perf_counter() - started)
    return ends
