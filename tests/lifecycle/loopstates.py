"""Pieces of the fold by hand: feature rows, decisions, score tables and states with just what a test is about."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.features.decision import decision_schema
from odin_core.lifecycle.state import SCORES, LoopState, completed
from odin_core.market.profile import MarketProfile, load_profile
from odin_core.policies.actions import FLAT, FloatArray, IntArray, Proposals

TODAY, TOMORROW = date(2023, 1, 2), date(2023, 1, 3)
CLOSE = datetime(2023, 1, 2, 10, tzinfo=UTC)
NSE: MarketProfile = load_profile("nse")
SESSION_BARS = 75  # of five minutes


def feature_rows(symbols: int | list[str], **columns: Any) -> pl.DataFrame:
    """Features of liquid, lively symbols at TODAY's close; `columns` replace values, a list row by row."""
    names = [f"S{i:03d}" for i in range(symbols)] if isinstance(symbols, int) else symbols
    schema = decision_schema()
    usual: dict[str, Any] = {name: 0.0 for name in schema} | {
        "session": TODAY, "decided_at": CLOSE, "bars_5m": SESSION_BARS, "market_volatility": 0.01,
        "volatility_ratio": 1.0, "vol_regime": "medium", "complete": True, "close": 200.0, "traded_value": 1e9,
        "realised_volatility_75_5m": 0.02, "natr_14_60m": 0.005, "rsi_14_15m": 50.0,
    }  # fmt: skip
    data = {k: v if isinstance(v, list) else [v] * len(names) for k, v in (usual | columns).items()}
    return pl.DataFrame(data | {"symbol": names}, schema=schema)


class Oracle:
    """A policy that proposes what it is told; it stands in for a champion."""

    name = "joint"

    def __init__(self, lean: IntArray, flat: NDArray[np.bool_], confidence: FloatArray) -> None:
        self.made = Proposals(np.where(flat, FLAT, lean), lean, confidence, np.zeros(len(lean)))

    def propose(self, X: NDArray[np.float32]) -> Proposals:
        return self.made

    def score(self, X: NDArray[np.float32]) -> FloatArray:
        return np.zeros(len(X))


def in_phase(phase: int, champion: Any = None, **fields: Any) -> LoopState:
    """A state in `phase`; a champion, if given, is in force under the name joint-0."""
    known = {"champion": "joint-0", "models": {"joint-0": champion}} if champion is not None else {}
    return replace(LoopState(), phase=phase, **(known | fields))


def scores(
    rewards: Sequence[float | None],
    *,
    random: float = 0.0,
    ic: Sequence[float | None] | None = None,
    version: str = "joint-0",
    first: date = date(2023, 2, 1),
    candidate: bool = False,
) -> pl.DataFrame:
    """One row of SCORES per reward, on consecutive days from `first`; `ic` is about 0.05 where it is not given."""
    n = len(rewards)
    known = pl.DataFrame(
        {
            "session": [first + timedelta(days=i) for i in range(n)], "version": [version] * n,
            "candidate": [candidate] * n, "champion": [True] * n, "trained_through": [first - timedelta(days=1)] * n,
            "decisions": [10] * n, "reward": rewards, "random": [random] * n, "rules": [0.0] * n,
            "ic": [0.05 + 0.01 * (-1) ** i for i in range(n)] if ic is None else ic,
        },
        schema_overrides=SCORES,
    )  # fmt: skip
    return completed(known, SCORES)
