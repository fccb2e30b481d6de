"""Features of bars: from frames of bars to columns of values, on all cores, the same bits however it is asked.

`compute` gives the textbook's series of bars at hand. `evaluate` gives a set's rows session by session: every value of
session D follows from D's bars and the N before D's first one, on the scale of D's prices, as known at the row. No
formula, path or clock is known here; which tables hold the bars is the provider's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.features.catalogue import Feature, named
from odin_core.features.facts import Facts
from odin_core.features.filling import Matrix, Span, across, fill, sessions_before
from odin_core.features.intervals import IntervalRows
from odin_core.features.series import DAY, PRICES, Bars, FloatArray, whole_series
from odin_core.market.bars import UTC, MissingBarColumns, RepeatedBars
from odin_core.market.reference import actions as corporate

NO_ACTIONS: Final = corporate.EFFECTIVE.to_frame()
FACTS: Final = pl.Schema({"symbol": pl.String(), "known_at": UTC, "figure": pl.String(), "value": pl.Float64()})


class NotComputable(OdinError):
    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"feature {name!r} {why}")


def compute(bars: pl.DataFrame, names: Sequence[str] | str) -> pl.DataFrame:
    """The named features on bars of one interval: symbol, ts and one Float64 column per name, sorted by symbol and ts.

    bars: symbol, ts, open, high, low, close, volume, of any number of symbols; volume, oi and known_at may be missing.
    A name is written without an interval: `rsi_14`, `macd_12_26_9_signal`. Each symbol's series begins with its first
    bar, as in a textbook; null where it is not defined yet. For session-bound features a session is a day of `ts`.
    Raises UnknownFeature, BadParameter, MissingBarColumns, RepeatedBars, and NotComputable for what needs more than
    bars or names an interval."""
    names = [names] if isinstance(names, str) else names
    wanted = [_at_hand(name) for name in names]
    ordered = _in_order(bars)
    if ordered.is_empty():
        return pl.DataFrame(schema={"symbol": pl.String, "ts": bars.schema["ts"], **dict.fromkeys(names, pl.Float64)})
    made = _bars_by_day(ordered)
    runs = whole_series(made)
    columns: dict[Feature, FloatArray] = {}
    for feature in with_inputs(wanted):
        if feature.definition.kind == "bars":
            columns[feature] = feature.definition.formula(made, runs, *feature.parameters)
        else:
            inputs = [columns[f] for f in feature.inputs]
            columns[feature] = across(feature, inputs, made.known_at, made.symbol, np.zeros(len(made), np.bool_))
    values = {name: columns[feature] for name, feature in zip(names, wanted, strict=True)}
    return ordered.select("symbol", "ts").hstack(pl.DataFrame(values, nan_to_null=True))


def _in_order(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars by symbol and time. Raises MissingBarColumns, RepeatedBars."""
    if missing := [name for name in ("symbol", "ts", *PRICES) if name not in bars.columns]:
        raise MissingBarColumns(missing, bars.columns)
    twice = bars.filter(pl.struct("symbol", "ts").is_duplicated())
    if twice.height:
        raise RepeatedBars(*twice.select("symbol", "ts").row(0))
    return bars.sort("symbol", "ts")


def _at_hand(name: str) -> Feature:
    feature = named(name)
    if feature.interval:
        stem = feature.name.removesuffix(f"_{feature.interval}")
        raise NotComputable(name, f"names an interval, and these bars have their own; write {stem!r}")
    if feature.definition.kind == "facts":
        raise NotComputable(name, "follows from tables and not from bars; ask `MarketData.features` for its set")
    return feature


def _bars_by_day(ordered: pl.DataFrame) -> Bars:
    ts = ordered["ts"].cast(pl.Datetime("us")).to_physical().to_numpy()
    days = np.unique(ts // DAY) * DAY
    return Bars.of(ordered, days, days + DAY)


def with_inputs(features: Sequence[Feature]) -> list[Feature]:
    """The features and what they read, each once and after its inputs."""
    found: dict[Feature, None] = {}
    for feature in features:
        found |= dict.fromkeys(with_inputs(feature.inputs)) | {feature: None}
    return list(found)


def sessions_needed(features: Sequence[Feature], grid: str, per_session: Mapping[str, int]) -> int:
    """How many sessions before the first wanted one bars are needed of: a row may show what the bars of the session
    before said, where its own have none of that interval yet."""
    return max((sessions_before(f, per_session) + (f.interval not in ("", grid)) for f in features), default=0)


@dataclass(frozen=True)
class Rows:
    """Rows of a grid, by symbol and time. `keys`: symbol, known_at, session (its place in Span.hours); `close` (rows,)
    raw; `values` (features, rows) float32, NaN where unknown."""

    keys: pl.DataFrame
    close: FloatArray
    features: tuple[Feature, ...]
    values: Matrix


def evaluate(
    tables: Mapping[str, pl.DataFrame],
    features: Sequence[Feature],
    grid: str,
    span: Span,
    *,
    actions: pl.DataFrame = NO_ACTIONS,
    facts: pl.DataFrame | None = None,
    index: str | None = None,
    threads: int | None = None,
) -> Rows:
    """Values of `features` on every bar of interval `grid` of the wanted sessions, as known at the bar's end.

    tables: by interval, BARS of the span's sessions, raw, any order; those of the grid and of each feature's interval.
    A feature of another interval has the value of its last bar that was known, of this session or the one before.
    actions: EFFECTIVE; each row sees what was known at its instant. facts: FACTS, what is known of symbols besides
    bars. index: the symbol that relative strength is measured against. A bar that was not known before the next one of
    its session, or by the close, has no row and counts in later sessions only, from when it is known. The values do not
    depend on the number of threads (None: one per core)."""
    target = _rows_of(tables[grid], span, span.first_wanted)
    out = np.full((len(features), len(target)), np.nan, np.float32)
    needed = with_inputs(features)
    place = {feature: i for i, feature in enumerate(features)}
    for interval in dict.fromkeys(f.interval for f in needed if f.interval):
        own = [f for f in needed if f.interval == interval]
        rows = target if interval == grid else _rows_of(tables[interval], span, max(span.first_wanted - 1, 0))
        columns = [
            out[place[f]] if rows is target and f in place else np.full(len(rows), np.nan, np.float32) for f in own
        ]
        fill(columns, own, rows, span, actions=actions, index=index, threads=threads)
        if rows is not target and len(rows):
            latest = rows.latest_at(target, actions.filter(pl.col("kind") == "rename"))
            for feature, column in zip(own, columns, strict=True):
                if feature in place:
                    out[place[feature]] = np.where(latest >= 0, column[latest], np.float32(np.nan))
    keys, close = target.keys, target.bars.close
    close = close if target.wanted.all() else close[target.wanted]
    for i, feature in enumerate(features):
        if feature.definition.kind == "facts" and facts is not None:
            out[i] = feature.definition.formula(_facts_at(keys, close, facts, feature.definition.needs))
    if target.late.any():
        keep = ~target.late[target.wanted]
        return Rows(keys.filter(pl.Series(keep)), close[keep], tuple(features), out[:, keep])
    return Rows(keys, close, tuple(features), out)


def _rows_of(frame: pl.DataFrame, span: Span, wanted_from: int) -> IntervalRows:
    return IntervalRows.of(frame, *span.edges, wanted_from)


def _facts_at(keys: pl.DataFrame, close: FloatArray, facts: pl.DataFrame, needs: frozenset[str]) -> Facts:
    """What was known of each row's symbol at the row's instant."""
    columns, ages = {}, {}
    for name in sorted(needs):
        told = facts.filter(pl.col("figure") == name).sort("known_at", maintain_order=True)
        told = told.select("symbol", "known_at", "value", told_at="known_at")
        found = (
            keys.with_row_index("row")
            .sort("known_at")
            .join_asof(told, on="known_at", by="symbol", strategy="backward", check_sortedness=False)
            .sort("row")
        )
        age = (pl.col("known_at") - pl.col("told_at")).dt.total_microseconds() / DAY
        columns[name] = found["value"].fill_null(np.nan).to_numpy()
        ages[name] = found.select(age.cast(pl.Float64).fill_null(np.nan)).to_series().to_numpy()
    return Facts(columns=columns, age_days=ages, close=close)
