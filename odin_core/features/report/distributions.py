"""How complete a set of features is and how it is distributed, session by session: numbers, and why some are missing.

Rows come from `MarketData.features`, a few sessions at a time, and only counts and quantiles are kept."""

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from odin_core.features.catalogue import Feature, features_of, set_version
from odin_core.features.report.sample import sessions_with_bars
from odin_core.features.series import FloatArray, IntArray

if TYPE_CHECKING:
    from odin_core.market.data import MarketData

QUANTILES: Final = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
LOWEST, P1, P25, MEDIAN, P75, P99, HIGHEST = range(len(QUANTILES))
AT_ONCE: Final = 20  # sessions that are in memory together
OF_BARS: Final = ("volume", "oi")  # columns of bars that a source may lack
NO_FIGURES: Final = "the figures that they are made of are not known of any symbol"
TOO_FEW: Final = "symbols with fewer than N bars in the sessions before"
NONE_YET: Final = "no bar of their interval yet, in this session or the one before"


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """A set's columns over sessions that have rows.

    rows: (sessions,), how many. For every session and feature, arrays (sessions, features): `filled`, values not null;
    `silent`, rows of symbols without any value in the session; `at_bounds`, values on a finite bound of the definition;
    `quantiles` (7, sessions, features) by QUANTILES, linear between values as in numpy, NaN without any. before:
    (sessions,), how many sessions with bars lie before each. absent: intervals of bars, columns of bars and figures
    that features need and that are not there."""

    market: str
    set_name: str
    version: str
    interval: str
    features: tuple[Feature, ...]
    sessions: Sequence[date]
    rows: IntArray
    filled: IntArray
    silent: IntArray
    at_bounds: IntArray
    quantiles: FloatArray
    before: IntArray
    first_stored: date | None
    absent: frozenset[str]
    per_session: dict[str, int]

    @property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @cached_property
    def shares(self) -> FloatArray:
        """(sessions, features): share of values that are not null, 0 to 1."""
        return self.filled / self.rows[:, None]

    @cached_property
    def completeness(self) -> FloatArray:
        """(features,): share of all values that are not null; NaN without rows."""
        return _share(self.filled.sum(axis=0), np.full(len(self.features), self.rows.sum()))

    @cached_property
    def bound_share(self) -> FloatArray:
        """(features,): share of the known values that lie on a bound; NaN where none is known."""
        return _share(self.at_bounds.sum(axis=0), self.filled.sum(axis=0))

    @cached_property
    def constant(self) -> list[str]:
        """Features with one value only, in more than one row."""
        if not len(self.sessions):
            return []
        low, high = np.fmin.reduce(self.quantiles[LOWEST]), np.fmax.reduce(self.quantiles[HIGHEST])
        is_constant = (low == high) & (self.filled.sum(axis=0) > 1)
        return [name for name, is_one in zip(self.names, is_constant, strict=True) if is_one]

    @cached_property
    def shift(self) -> FloatArray:
        """(features,): how far the last session's median lies from the median of all sessions' medians, in usual
        interquartile ranges (the median session's); NaN where that range is zero or nothing is known."""
        if not len(self.sessions):
            return np.full(len(self.features), np.nan)
        middle, width = self.quantiles[MEDIAN], self.quantiles[P75] - self.quantiles[P25]
        usual = _quantiles(middle, (0.5,))[0]
        span = _quantiles(width, (0.5,))[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (middle[-1] - usual) / span
        return np.where(np.isfinite(found), found, np.nan)

    @cached_property
    def reasons(self) -> list["Reason"]:
        """Why values are null, what explains most of them first. A feature may have several reasons."""
        told: dict[str, dict[str, int]] = {}
        for column, feature in enumerate(self.features):
            for why, values in self._lost(feature, column).items():
                if values:
                    told.setdefault(why, {})[feature.name] = values
        return sorted((Reason(why, lost) for why, lost in told.items()), key=lambda reason: -reason.values)

    def _lost(self, feature: Feature, column: int) -> dict[str, int]:
        """The feature's null values by reason."""
        missing, silent = self.rows - self.filled[:, column], self.silent[:, column]
        absent = (needs_of(feature) | {feature.interval}) & self.absent
        if absent and not self.filled[:, column].any():
            if feature.interval in absent:
                return {f"there are no bars of {feature.interval}": int(missing.sum())}
            in_bars = [f"`{name}`" for name in sorted(absent) if name in OF_BARS]
            return {f"no bar has {', '.join(in_bars)}" if in_bars else NO_FIGURES: int(missing.sum())}
        needed = math.ceil(feature.bars / self.per_session[feature.interval]) if feature.interval else 0
        is_early, rule = self.before < needed, null_rule(feature)
        early, late = int(missing[is_early].sum()), int(missing[~is_early].sum())
        told = {f"warm-up, the lake begins on {self.first_stored}": early}
        if not rule:
            return told | {TOO_FEW if feature.bars else NONE_YET: late}
        whole = int(silent[~is_early].sum()) if feature.bars else 0
        return told | {TOO_FEW: whole, rule: late - whole}


@dataclass(frozen=True)
class Reason:
    """Why values are null. lost: features to how many of their values that explains."""

    why: str
    lost: dict[str, int]

    @property
    def values(self) -> int:
        return sum(self.lost.values())


def null_rule(feature: Feature) -> str:
    """What the docstring says of NaN, without the sentences that say never; empty where it says nothing else."""
    sentences = re.split(r"(?<=[.;:]) ", " ".join(feature.definition.says.split()))
    told = [s.rstrip(".;:") for s in sentences if "NaN" in s and "never nan" not in s.lower()]
    return "; ".join(told)


def needs_of(feature: Feature) -> frozenset[str]:
    """Columns beyond prices, or figures, that a feature and its inputs are made of."""
    return feature.definition.needs.union(*(needs_of(f) for f in feature.inputs))


def distributions(
    data: "MarketData", set_name: str, first: date, last: date, interval: str | None = None
) -> Distributions:
    """Count and measure a set's rows of all symbols in the sessions from `first` to `last` that have bars.

    interval: of the rows, as for `MarketData.features`; None: 5m where there are minute bars, else day. Features that
    are not in the lake are computed and stored. Raises UnknownSet, NoBarsOfFeatures, PartitionUnreadable."""
    features, stored = features_of(set_name), sessions_with_bars(data)
    ever = sorted({*stored, *data.sessions()})  # an exchange has its bars whether they are stored or not
    sessions = [session for session in stored if first <= session <= last]
    grid = interval or ("5m" if data.sessions(first, last) else "day")
    parts: list[tuple[date, Measured]] = []
    for begin in range(0, len(sessions), AT_ONCE):
        some = sessions[begin : begin + AT_ONCE]
        frame = data.features(None, grid, some[0], some[-1], set_name)
        found = frame.partition_by("session", as_dict=True, maintain_order=True)
        parts += [(s, measured(found[(s,)], features)) for s in some if (s,) in found]
    held = [session for session, _ in parts]
    rows, filled, silent, at_bounds, quantiles = _together([m for _, m in parts], len(features))
    return Distributions(
        market=data.profile.name, set_name=set_name, version=set_version(set_name), interval=grid, features=features,
        sessions=held, rows=rows, filled=filled, silent=silent, at_bounds=at_bounds, quantiles=quantiles,
        before=np.array([bisect_left(ever, session) for session in held], np.int64),
        first_stored=ever[0] if ever else None, absent=_absent(data, features, filled, held),
        per_session=data.per_session,
    )  # fmt: skip


class Measured(NamedTuple):
    """One session: its rows, and of each feature (features,) what `Distributions` holds; quantiles (7, features)."""

    rows: int
    filled: IntArray
    silent: IntArray
    at_bounds: IntArray
    quantiles: FloatArray


def measured(frame: pl.DataFrame, features: Sequence[Feature]) -> Measured:
    """Count and measure the rows of one session, at least one, symbol after symbol."""
    values = frame.select(pl.col(f.name).fill_null(np.nan) for f in features).to_numpy().astype(np.float64)
    bounds = np.array([f.definition.bounds for f in features]).T.astype(np.float32)
    is_known = np.isfinite(values)
    on_bound = ((values == bounds[0]) | (values == bounds[1])) & is_known
    lengths = frame["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    of_symbols = np.add.reduceat(is_known, np.cumsum(lengths) - lengths, axis=0, dtype=np.int64)
    silent = ((of_symbols == 0) * lengths[:, None]).sum(axis=0)
    return Measured(frame.height, is_known.sum(axis=0), silent, on_bound.sum(axis=0), _quantiles(values, QUANTILES))


def _quantiles(values: FloatArray, wanted: Sequence[float]) -> FloatArray:
    """(wanted, columns) quantiles of the known values of each column of (rows, columns)."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    known = np.isfinite(ordered).sum(axis=0)
    out = np.full((len(wanted), values.shape[1]), np.nan)
    if not len(values):
        return out
    for n, share in enumerate(wanted):
        place = share * np.maximum(known - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        low, high = (np.take_along_axis(ordered, at[None, :], axis=0)[0] for at in (below, above))
        out[n] = np.where(known > 0, low + (high - low) * (place - below), np.nan)
    return out


def _together(parts: Sequence[Measured], columns: int) -> tuple[IntArray, IntArray, IntArray, IntArray, FloatArray]:
    if not parts:
        none = np.empty((0, columns), np.int64)
        return np.empty(0, np.int64), none, none, none, np.empty((len(QUANTILES), 0, columns))
    filled, silent, at_bounds = (np.stack([part[n] for part in parts]).astype(np.int64) for n in range(1, 4))
    rows, quantiles = np.array([part.rows for part in parts]), np.stack([part.quantiles for part in parts], axis=1)
    return rows, filled, silent, at_bounds, quantiles


def _absent(
    data: "MarketData", features: Sequence[Feature], filled: IntArray, sessions: Sequence[date]
) -> frozenset[str]:
    """What features without any value need and is not there: intervals and columns of bars, by the last session; of
    figures all that they need."""
    empty = [f for f, known in zip(features, filled.sum(axis=0), strict=True) if not known]
    needed = frozenset[str]().union(*(needs_of(f) for f in empty))
    if not sessions:
        return frozenset()
    bars = data.bars_of(sessions[-1], "day")
    intervals = {f.interval for f in empty if f.interval}
    return frozenset(
        {name for name in needed if name not in OF_BARS or bars[name].fill_nan(None).null_count() == bars.height}
        | {i for i in intervals if data.bars_of(sessions[-1], i).is_empty()}
    )


def _share(part: IntArray, whole: IntArray) -> FloatArray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
