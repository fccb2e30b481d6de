"""Bars and runs for tests of kernels and features, and the slow way to a value: row by row, from the run alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from odin_core.features.series import DAY, FIELDS, Bars, FloatArray, Runs

MINUTE = 60_000_000


def sessions_of_bars(sizes: list[int], *, seed: int = 1, still: float = 0.0) -> Bars:
    """One symbol's minute bars, `sizes` of them in each session: a random walk that often stays where it is with the
    probability `still`, then without a range; every so often it jumps by far."""
    rng, rows = np.random.default_rng(seed), sum(sizes)
    rests = rng.random(rows) < still
    steps = np.where(rests, 0.0, rng.normal(0, 0.01, rows) * rng.choice([1.0, 30.0], rows, p=[0.97, 0.03]))
    close = np.round(100 * np.exp(np.cumsum(steps)), 2) + 0.01
    open_ = np.where(rests, close, close * np.exp(rng.normal(0, 0.003, rows)))
    spread = np.where(rests, 0.0, rng.exponential(0.005, rows))
    high, low = np.maximum(open_, close) * (1 + spread), np.minimum(open_, close) / (1 + spread)
    return bars_of(sizes, open_, high, low, close, rng.integers(1, 10_000, rows).astype(float))


def bars_of(sizes: list[int], *fields: FloatArray) -> Bars:
    """Open, high, low, close and volume as bars of one symbol, in sessions of these sizes."""
    opens = np.arange(len(sizes)) * DAY
    session = np.repeat(np.arange(len(sizes)), sizes)
    rows = len(session)
    ts = opens[session] + MINUTE * (np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes))
    return Bars(
        *fields,
        oi=np.full(rows, np.nan),
        ts=ts,
        known_at=ts + MINUTE,
        symbol=np.zeros(rows, np.int64),
        session=session,
        opens=opens,
        closes=opens + DAY,
    )


def part(bars: Bars, rows: slice) -> Bars:
    """Only these rows."""
    return replace(
        bars, **{name: getattr(bars, name)[rows].copy() for name in (*FIELDS, "ts", "known_at", "symbol", "session")}
    )


def runs_of(bars: Bars, warm_up: int) -> Runs:
    """One run per session, which may read `warm_up` bars before its own."""
    first = np.flatnonzero(np.diff(bars.session, prepend=-1))
    return Runs(np.maximum(first - warm_up, 0), first, np.append(first[1:], len(bars)))


@st.composite
def bars_and_runs(draw: st.DrawFn) -> tuple[Bars, Runs]:
    """Sessions of uneven size, and runs that overlap by any look-back; prices may rest, all of them even."""
    sizes = draw(st.lists(st.integers(1, 25), min_size=1, max_size=6))
    still = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    bars = sessions_of_bars(sizes, seed=draw(st.integers(0, 2**32)), still=still)
    return bars, runs_of(bars, draw(st.integers(0, 40)))


def row_by_row(runs: Runs, formula: Callable[[slice], float], rows: int) -> FloatArray:
    """formula(the rows from the run's start to the wanted one) for each wanted row; NaN elsewhere."""
    out = np.full(rows, np.nan)
    for start, first, end in zip(*(edge.tolist() for edge in runs), strict=True):
        for i in range(first, end):
            out[i] = formula(slice(start, i + 1))
    return out


def assert_follows_from_its_run_alone(compute: Callable[[Bars, Runs], FloatArray], bars: Bars, runs: Runs) -> None:
    """Each run computed from a copy of its own rows, and cut off after any of them, gives the same bits."""
    together = compute(bars, runs)
    for start, first, end in zip(*(edge.tolist() for edge in runs), strict=True):
        for cut in {end, (first + end + 1) // 2}:
            alone = compute(part(bars, slice(start, cut)), Runs(*(np.array([x - start]) for x in (start, first, cut))))
            assert alone[first - start :].tobytes() == together[first:cut].tobytes()
