"""Bars of random sessions as arrays, their runs, and what every feature of a symbol's bars must keep."""

from dataclasses import replace

import numpy as np

from odin_core.features.catalogue import Feature, features_of
from odin_core.features.series import DAY, FIELDS, Bars, FloatArray, Runs, whole_series

ROWS = (*FIELDS, "ts", "known_at", "symbol", "session")
MINUTE = 60_000_000
OPEN, FIRST_DAY = 225 * MINUTE, 19_723 * DAY  # 03:45 UTC, on Monday 1 January 2024


def of_bars(*names: str) -> list[Feature]:
    """The features of these sets that follow from a symbol's bars, each once, whatever its intervals."""
    found = [f for name in names for f in features_of(name) if f.definition.kind == "bars"]
    return list({(f.definition.name, f.parameters): replace(f, interval="") for f in found}.values())


def random_bars(
    seed: int, *, symbols: int = 2, sessions: int = 4, per_session: int = 45, still: float = 0.0, unknown: float = 0.0
) -> Bars:
    """Consecutive sessions of minute bars with gaps over night. `still`: the share of bars in which nothing moves, and
    of nights; `unknown`: the share of rows without volume and open interest, each by itself."""
    rng = np.random.default_rng(seed)
    rows = symbols * sessions * per_session
    moves = np.where(rng.random((rows, 2)) < still, 0.0, rng.normal(0, 0.003, (rows, 2)))
    path = np.cumsum(moves.ravel()).reshape(rows, 2)
    open_, close = 250 * np.exp(path[:, 0]), 250 * np.exp(path[:, 1])
    quiet = (moves[:, 1] == 0.0) & (rng.random(rows) < still**0.25)
    upper, lower = (np.where(quiet, 1.0, 1 + rng.exponential(0.001, rows)) for _ in range(2))
    volume, oi = (np.where(rng.random(rows) < unknown, np.nan, rng.integers(1, 900, rows) * 1.0) for _ in range(2))
    opens = FIRST_DAY + OPEN + np.arange(sessions) * DAY
    ts = np.tile((opens[:, None] + np.arange(per_session) * MINUTE).ravel(), symbols)
    return Bars(
        open=open_,
        high=np.maximum(open_, close) * upper,
        low=np.minimum(open_, close) / lower,
        close=close,
        volume=volume,
        oi=oi,
        ts=ts,
        known_at=ts + MINUTE,
        symbol=np.repeat(np.arange(symbols), sessions * per_session),
        session=np.tile(np.repeat(np.arange(sessions), per_session), symbols),
        opens=opens,
        closes=opens + per_session * MINUTE,
    )


def by_session(bars: Bars, warm_up: int) -> Runs:
    """One run for each session of each symbol, from at most `warm_up` bars before it."""
    block = bars.symbol * len(bars.opens) + bars.session
    first = np.flatnonzero(np.diff(block, prepend=-1))
    reach = whole_series(bars).start[bars.symbol[first]]
    return Runs(np.maximum(first - warm_up, reach), first, np.append(first[1:], len(bars)))


def rows_of(bars: Bars, rows: slice) -> Bars:
    return replace(bars, **{name: getattr(bars, name)[rows].copy() for name in ROWS})


def values(feature: Feature, bars: Bars, runs: Runs | None = None) -> FloatArray:
    """Of a whole series, or in the rows that runs want; NumPy's warnings are errors."""
    runs = whole_series(bars) if runs is None else runs
    with np.errstate(all="raise", under="ignore"):
        return feature.definition.formula(bars, runs, *feature.parameters)


def alone(feature: Feature, bars: Bars, start: int, first: int, end: int) -> FloatArray:
    """The values of one run, [first, end), computed from nothing but its own rows [start, end)."""
    run = Runs(*(np.array([at - start]) for at in (start, first, end)))
    return values(feature, rows_of(bars, slice(start, end)), run)[first - start :]


def scaled(bars: Bars, prices: float, volume: float) -> Bars:
    changed = {name: getattr(bars, name) * prices for name in ("open", "high", "low", "close")}
    return replace(bars, **changed, volume=bars.volume * volume, oi=bars.oi * volume)


def upside_down(bars: Bars) -> Bars:
    """Prices on their head in logarithms, each p as 250² / p."""
    o, h, low, c = (250.0**2 / x for x in (bars.open, bars.high, bars.low, bars.close))
    return replace(bars, open=o, high=low, low=h, close=c)


def assert_each_run_follows_from_its_own_rows(feature: Feature, bars: Bars) -> None:
    runs = by_session(bars, feature.bars)
    together = values(feature, bars, runs)
    for start, first, end in zip(*(edge.tolist() for edge in runs), strict=True):
        np.testing.assert_array_equal(together[first:end], alone(feature, bars, start, first, end))


def assert_no_row_follows_from_later_ones(feature: Feature, bars: Bars, cut: int) -> None:
    """`cut`: how many rows of the last session are taken away."""
    runs = by_session(bars, feature.bars)
    start, first, end = (int(edge[-1]) for edge in runs)
    kept = values(feature, bars, runs)[first : end - cut]
    np.testing.assert_array_equal(kept, alone(feature, bars, start, first, end - cut))


def assert_warm_up_is_what_is_needed(feature: Feature, bars: Bars) -> None:
    """Of each symbol the first `bars` rows are NaN and the next one is not, on bars that all move and are known."""
    found = values(feature, bars)
    for first in whole_series(bars).first:
        assert np.isnan(found[first : first + feature.bars]).all()
        assert np.isfinite(found[first + feature.bars])
