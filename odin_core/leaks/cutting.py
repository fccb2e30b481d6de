"""Checks that change what a computation may not read, and look whether anything moves that was known before.

All take a `Compute`, a function from bars to rows, so that they fit features, labels, levels and regimes alike. They
prove a leak wherever a cut falls between a value and what it read too early; a leak that no cut separates from its
value is not seen, so give several cuts, inside sessions too. Whether values are *too good* is asked in `ranking`."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
import polars.selectors as cs

from odin_core.errors import OdinError
from odin_core.leaks.verdict import Verdict
from odin_core.market.history import require_aware

Compute: TypeAlias = Callable[[pl.DataFrame], pl.DataFrame]
"""From bars (the columns of BARS) to rows with the columns `symbol`, `known_at` and one per value. `known_at` is when
the row was known: of a feature the decision it is for, of a label its end. It must follow from the bars' `known_at`."""

KEYS: Final = ("symbol", "known_at")


class CutOutside(OdinError):
    def __init__(self, cut: datetime, first: datetime, last: datetime) -> None:
        super().__init__(
            f"the cut at {cut} does not separate the bars, which became known from {first} to {last}: choose one from "
            f"the first instant up to, and without, the last"
        )


def cuts_of(bars: pl.DataFrame, count: int) -> list[datetime]:
    """At most `count` instants at which bars became known, evenly spread over those of `bars` without the first tenth,
    most of it warm-up, and the last, so that there is something to change after each. Ascending, UTC;
    none where the bars became known at once."""
    instants = bars["known_at"].unique().sort()
    if len(instants) < 2:
        return []
    margin = len(instants) // 10
    places = np.linspace(margin, len(instants) - 2 - margin, count).astype(np.int64)
    return instants.gather(np.unique(places[places >= 0])).to_list()


def truncate_and_recompute(
    compute: Compute, bars: pl.DataFrame, cuts: Sequence[datetime], *, keys: Sequence[str] = KEYS
) -> list[Verdict]:
    """Rows known by a cut are the same when the bars that became known after it are removed. One verdict per value.

    `cuts`: aware, each between the bars' first and last `known_at`. `keys`: columns that tell one row from another,
    `known_at` among them; all others are values. Equal is: bit for bit, except that 0.0 equals −0.0 and NaN equals NaN;
    null is not NaN, and a row that is there on one side only differs in every value.
    `numbers`: rows compared over all cuts, how many of them are not null or NaN (`defined`) and how many differ. With
    no row known by any cut the check fails: it has shown nothing. Raises CutOutside, and ValueError for a naive cut or
    where `keys` do not tell rows apart."""
    whole = compute(bars)
    pairs = [
        _Pair("differing", cut, _known(whole, cut), _known(compute(_known(bars, cut)), cut))
        for cut in _inside(cuts, bars)
    ]
    return _verdicts("truncate_and_recompute", "once the bars known later are removed", pairs, keys)


def future_perturbation(
    compute: Compute,
    bars: pl.DataFrame,
    cuts: Sequence[datetime],
    rng: np.random.Generator,
    *,
    keys: Sequence[str] = KEYS,
) -> list[Verdict]:
    """`truncate_and_recompute` with the later bars scrambled instead of removed: they are where they were, with other
    prices, volumes and open interest. So it also finds what reads a later bar only if there is one."""
    whole = compute(bars)
    pairs = [
        _Pair(
            "differing", cut, _known(whole, cut), _known(compute(scrambled(bars, pl.col("known_at") > cut, rng)), cut)
        )
        for cut in _inside(cuts, bars)
    ]
    return _verdicts("future_perturbation", "once the bars known later are scrambled", pairs, keys)


def stamp_shift(
    compute: Compute,
    bars: pl.DataFrame,
    cuts: Sequence[datetime],
    *,
    shift: timedelta,
    delay: timedelta,
    keys: Sequence[str] = KEYS,
) -> list[Verdict]:
    """The same bars on other stamps, seen up to each cut. Two histories, one verdict per value over both:

    - *shifted*: `ts` and `known_at` of every bar move by `shift`, and bars after the moved cut do not exist yet. The
      rows are those of the true stamps up to the cut, moved by `shift`. Give a `shift` under which nothing changes that
      the values may know: whole weeks where the time of day or the weekday counts, and of a length that puts no session
      on a holiday where a calendar is read. Finds clocks, dates and positions, and whatever reads a later bar.
    - *delayed*: every bar becomes known `delay` (one bar) later than it did, its start unchanged. The rows known by a
      cut are the same with and without the bars known after it. Finds values that take a bar's start, or its start
      and a fixed length, for the time at which it was known.

    `numbers`: rows and `defined` as in `truncate_and_recompute`, over both; `differing_shifted`, `differing_delayed`.
    All columns of rows that are dates or times are taken to move with the stamps."""
    late = bars.with_columns(pl.col("known_at") + delay)
    whole, whole_late = compute(bars), compute(late)
    pairs = []
    for cut in _inside(cuts, bars):
        moved = _known(bars, cut).with_columns(pl.col("ts", "known_at") + shift)
        back = compute(moved).with_columns(cs.temporal() - shift)
        pairs.append(_Pair("differing_shifted", cut, _known(whole, cut), _known(back, cut)))
    for cut in _inside([cut + delay for cut in cuts], late):
        pairs.append(_Pair("differing_delayed", cut, _known(whole_late, cut), _known(compute(_known(late, cut)), cut)))
    return _verdicts("stamp_shift", "on shifted or delayed stamps", pairs, keys)


def scrambled(bars: pl.DataFrame, rows: pl.Expr, rng: np.random.Generator) -> pl.DataFrame:
    """The same bars with other numbers in `rows`: each such bar at 0.5 to 2 times its price, with another shape, volume
    and open interest; high and low still enclose open and close, and what was null stays null."""
    n = bars.height
    level = pl.Series(np.exp(rng.uniform(np.log(0.5), np.log(2.0), n)))
    opened, closed, above, below = (pl.Series(x) for x in np.exp(rng.uniform(0.0, 0.02, (4, n))))
    other = {
        "open": pl.col("close") * level * opened,
        "close": pl.col("close") * level * closed,
        "high": pl.col("close") * level * pl.max_horizontal(opened, closed) * above,
        "low": pl.col("close") * level * pl.min_horizontal(opened, closed) / below,
        "volume": (pl.col("volume") + 1.0) * pl.Series(rng.uniform(0.1, 10.0, n)),
        "oi": (pl.col("oi") + 1.0) * pl.Series(rng.uniform(0.1, 10.0, n)),
    }
    return bars.with_columns(pl.when(rows).then(new).otherwise(pl.col(name)).alias(name) for name, new in other.items())


class _Pair(NamedTuple):
    """Rows known by a cut, as they are and as they were recomputed; differing values count under `count_as`."""

    count_as: str
    cut: datetime
    rows: pl.DataFrame
    recomputed: pl.DataFrame


def _known(frame: pl.DataFrame, cut: datetime) -> pl.DataFrame:
    return frame.filter(pl.col("known_at") <= cut)


def _inside(cuts: Iterable[datetime], bars: pl.DataFrame) -> list[datetime]:
    instants, listed = bars["known_at"].unique().sort().to_list(), list(cuts)
    if not (instants and listed):
        raise ValueError(f"{len(instants)} instants and {len(listed)} cuts: nothing can be compared")
    first, last = instants[0], instants[-1]
    for cut in listed:
        require_aware("cut", cut)
        if not first <= cut < last:
            raise CutOutside(cut, first, last)
    return listed


def _verdicts(check: str, change: str, pairs: Sequence[_Pair], keys: Sequence[str]) -> list[Verdict]:
    names = [name for name in pairs[0].rows.columns if name not in keys]
    joined = [_joined(pair, names, keys) for pair in pairs]
    return [_verdict(check, change, name, list(zip(pairs, joined, strict=True)), keys) for name in names]


def _joined(pair: _Pair, names: Sequence[str], keys: Sequence[str]) -> pl.DataFrame:
    """All keys of both sides; of each value, its two versions and whether they differ ("name ≠")."""
    sides = []
    for frame, suffix in ((pair.rows, ""), (pair.recomputed, " again")):
        if frame.select(keys).is_duplicated().any():
            raise ValueError(f"rows are not told apart by {', '.join(keys)}: name all columns of their key in `keys`")
        renamed = {name: f"{name}{suffix}" for name in names}
        sides.append(frame.select(*keys, *names).rename(renamed).with_columns(pl.lit(True).alias(f"there{suffix}")))
    both = (
        sides[0].join(sides[1], on=list(keys), how="full", coalesce=True).sort(list(dict.fromkeys(("known_at", *keys))))
    )
    there = pl.col("there").ne_missing(pl.col("there again"))
    return both.with_columns((there | pl.col(n).ne_missing(pl.col(f"{n} again"))).alias(f"{n} ≠") for n in names)


def _verdict(
    check: str, change: str, name: str, compared: Sequence[tuple[_Pair, pl.DataFrame]], keys: Sequence[str]
) -> Verdict:
    numbers = {"rows": 0.0, "defined": 0.0} | {pair.count_as: 0.0 for pair, _ in compared}
    first = ""
    for pair, both in compared:
        differing = both.filter(pl.col(f"{name} ≠"))
        numbers["rows"] += both.height
        numbers["defined"] += _defined(both[name])
        numbers[pair.count_as] += differing.height
        if differing.height and not first:
            row = differing.row(0, named=True)
            where = ", ".join(str(row[key]) for key in keys)
            first = f"; the first is {where}: {row[name]} became {row[f'{name} again']}, cut at {pair.cut}"
    rows, defined = int(numbers["rows"]), int(numbers["defined"])
    if first:
        total = sum(int(value) for key, value in numbers.items() if key.startswith("differing"))
        return Verdict(check, False, name, numbers, f"{total} of {rows} known values differ {change}{first}")
    if rows == 0:
        return Verdict(check, False, name, numbers, "no row was known by any cut, so nothing was shown: cut later")
    return Verdict(check, True, name, numbers, f"{rows} known values, {defined} of them defined, are the same {change}")


def _defined(values: pl.Series) -> int:
    return len(values) - (values.fill_nan(None) if values.dtype.is_float() else values).null_count()
