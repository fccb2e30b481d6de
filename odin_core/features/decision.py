"""What a life decides on: one row per symbol and close, the features of the set `decision` and what filters need."""

import hashlib
import importlib
import inspect
from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from odin_core.features import regime
from odin_core.features.catalogue import features_of, set_version
from odin_core.features.provider import FeatureProvider
from odin_core.market.bars import UTC

SET, GRID = "decision", "day"
VALUE_SESSIONS = 5


def decision_version() -> str:
    """Twelve hex digits that change with any definition of the set, with the regime and with this module."""
    parts = [set_version(SET), *(inspect.getsource(importlib.import_module(m)) for m in (regime.__name__, __name__))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def decision_schema() -> pl.Schema:
    """Columns of a session's rows. Units of the features (Float32) are in the catalogue.

    decided_at: the session's close. close: raw, the last bar's. traded_value: median of close × volume over its last
    five sessions, in the market's currency per unit of the bars' volume. bars_5m: 5-minute bars that the symbol has in
    this session. market_volatility, volatility_ratio, vol_regime: of the market, equal in all rows (`regime`), null in
    warm-up. complete: every feature and the ratio are known; features that need volume, and traded_value, are exempt
    for a symbol without any volume, or with none but 0, in the sessions searched."""
    head = {"symbol": pl.String(), "session": pl.Date(), "decided_at": UTC}
    tail = {
        "close": pl.Float64(),
        "traded_value": pl.Float64(),
        "bars_5m": pl.Int64(),
        "market_volatility": pl.Float64(),
        "volatility_ratio": pl.Float64(),
        "vol_regime": pl.String(),
        "complete": pl.Boolean(),
    }
    return pl.Schema(head | {f.name: pl.Float32() for f in features_of(SET)} | tail)


class DecisionRows:
    """Decision rows of one market, session by session; what sessions have in common is read once."""

    def __init__(self, provider: FeatureProvider) -> None:
        self._provider = provider
        self._volatility: dict[date, tuple[pl.DataFrame, float]] = {}

    def history(self, session: date) -> list[date]:
        """The sessions that a session's rows follow from, itself included."""
        before = self._provider.sessions_before(session, features_of(SET), GRID)
        return [*before, session]

    def mark(self, session: date) -> str:
        """What the session's rows follow from, as `FeatureProvider.mark` says it."""
        return self._provider.mark(session, features_of(SET), GRID)

    def of(self, session: date) -> pl.DataFrame:
        """Columns of `decision_schema`, sorted by symbol; one row per symbol that has a bar in the session."""
        features, history = features_of(SET), self.history(session)
        rows = self._provider.computed([session], features, GRID)[0]
        schema = decision_schema()
        if rows.is_empty():
            return schema.to_frame()
        known = rows.rename({"known_at": "decided_at"}).join(self._of_bars(history), on="symbol", how="left")
        ratio = regime.volatility_ratio(np.array([self._market_volatility(s) for s in history]))
        has_volume = pl.col("any_volume")
        exempt = ["traded_value", *(f.name for f in features if "volume" in f.definition.needs)]
        needed = [f.name for f in features if f.name not in exempt]
        complete = pl.all_horizontal(
            *(pl.col(name).is_not_null() for name in needed),
            *(pl.col(name).is_not_null() | ~has_volume for name in exempt),
            pl.lit(ratio is not None),
        )
        return (
            known.with_columns(
                market_volatility=pl.lit(self._market_volatility(session), pl.Float64),
                volatility_ratio=pl.lit(ratio, pl.Float64),
                vol_regime=pl.lit(regime.regime_of(ratio), pl.String),
                complete=complete,
            )
            .select(*schema)
            .cast(schema)
            .sort("symbol")
        )

    def _of_bars(self, history: Sequence[date]) -> pl.DataFrame:
        """What the filter needs of the bars: symbol, close, traded_value, bars_5m, any_volume."""
        bars, session = self._provider.bars, history[-1]
        days = self._provider.under_names_of(session, pl.concat([bars(s, "day") for s in history]))
        last = (pl.col("close") * pl.col("volume")).tail(VALUE_SESSIONS)
        is_whole = (last.len() == VALUE_SESSIONS) & (last.null_count() == 0)
        value = days.group_by("symbol").agg(traded_value=pl.when(is_whole).then(last.median()))
        volume = days.group_by("symbol").agg(any_volume=(pl.col("volume") > 0).any())
        today = bars(session, "day").select("symbol", "close")
        counted = bars(session, "5m").group_by("symbol").agg(bars_5m=pl.len().cast(pl.Int64))
        for frame in (value, volume, counted):
            today = today.join(frame, on="symbol", how="left")
        return today.with_columns(pl.col("bars_5m").fill_null(0))

    def _market_volatility(self, session: date) -> float:
        bars = self._provider.bars(session, "5m")
        if session not in self._volatility or self._volatility[session][0] is not bars:
            self._volatility[session] = (bars, regime.market_volatility(bars))
        return self._volatility[session][1]
