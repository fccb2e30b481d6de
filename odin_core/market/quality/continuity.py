"""What is said about a session against what surrounds it: the close before, corporate actions, the other symbols, and
the rows that were held back. Findings and severities are as in `quality.defects`.

A finding follows from the session, from the bars of earlier sessions and from corporate actions; nothing later."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from odin_core.market.quality.measures import lags_behind_others
from odin_core.market.quality.seen import Action, Finding, Known, Seen, apart

JUMP = 1.32  # over night; a split of 3 for 4 or more
NEWS_REACH, NEWS_TURNOVER = 0.7, 8.0  # after a real jump: range of the session, share of the jump; turnover, multiple
SCALE = 50.0  # of the mean volume of a bar, from one session to the next
SCALE_BARS = 20
SHIFT_LEAST = 5  # bars by which a clock must be off to be noticed
SHIFT_CORRELATION, SHIFT_SIGMA = 0.20, 5.5  # without a shift the largest of 3,900 symbol-days was 3.9
SHIFT_IN_STEP = 0.15  # correlation without delay from which nobody asks for a delay
SHIFT_BARS = 100
HELD_SHARE, EDGE_SLACK = 0.8, 2  # share of the bars beyond the session that must be there; bars of tolerance
REPEATED_BARS = 20


def wrong_magnitude(seen: Seen) -> Iterator[Finding]:
    for at in dict.fromkeys(level.symbol for level in seen.levels):
        mine = [level for level in seen.levels if level.symbol == at]
        worst = max(mine, key=lambda level: level.length)
        start = seen.clock(seen.rows.ts, worst.first)
        detail = (
            f"bars are at {worst.ratio:.3g} times the level of {worst.reference}, from {start}; "
            "correct them at their source and bring them in again"
        )
        yield Finding(seen.rows.symbols[at], "wrong_magnitude", "error", sum(level.length for level in mine), detail)


def jumps(seen: Seen) -> Iterator[Finding]:
    """A jump over night that no corporate action explains, and an action that no jump follows."""
    r = seen.rows
    wrong = {level.first for level in seen.levels}
    for at, symbol in enumerate(r.symbols):
        known = seen.before.get(symbol)
        if known is None or int(r.first[at]) in wrong:
            continue
        opened = float(r.open[r.first[at]])
        actions = [action for day, action in seen.actions.get(symbol, ()) if day > known.session]
        jumped = min(apart(opened, known.close), apart(opened, known.open)) > JUMP
        if (jumped or actions) and not seen.is_option(symbol):
            yield from _explained(seen, at, opened / known.close, jumped, actions)


def _explained(seen: Seen, at: int, ratio: float, jumped: bool, actions: Sequence[Action]) -> Iterator[Finding]:
    symbol = seen.rows.symbols[at]
    known = seen.before[symbol]
    expected = float(np.prod([a.price_factor or 1.0 for a in actions]))
    expected -= sum(a.amount or 0.0 for a in actions) / known.close
    unsized = any(a.price_factor is None and a.kind != "dividend" for a in actions)
    told = f"opens at {ratio:.3g} times the close of {known.session}"
    if jumped and (unsized or apart(ratio, expected) <= JUMP):
        late = [a.kind for a in actions if not a.known]
        if late:
            yield Finding(
                symbol, "action_known_late", "warning", 1, f"{told}; the {late[0]} became known after the close"
            )
    elif jumped:
        told += f"; no corporate action says so (nearest: {_split(ratio)})"
        if _is_news(seen, at, ratio, known):
            yield Finding(symbol, "jump_on_news", "warning", 1, f"{told}, but it is traded as after news")
        else:
            yield Finding(symbol, "jump_without_action", "error", 1, told)
    elif apart(expected, 1.0) > JUMP and apart(ratio, expected) > JUMP:
        kinds = " and ".join(dict.fromkeys(a.kind for a in actions))
        detail = f"{told}, but its {kinds} asks for {expected:.3g}: a wrong action, or bars that are adjusted already"
        yield Finding(symbol, "action_without_jump", "warning", 1, detail)


def _is_news(seen: Seen, at: int, ratio: float, known: Known) -> bool:
    """Whether the symbol is traded as after a real jump: it goes on moving nearly as far, or turnover explodes. After
    a split neither happens. Of 56 jumps of NSE shares and 24 of US ones, 1998 to 2026, this mistakes one real jump
    (WM on 2008-09-26, the day after its bank was seized) and no split."""
    span = slice(int(seen.rows.first[at]), int(seen.rows.first[at] + seen.rows.count[at]))
    reach = np.log(seen.rows.high[span].max() / seen.rows.low[span].min())
    turnover = seen.known[seen.rows.symbols[at]].turnover
    return bool(reach >= NEWS_REACH * abs(np.log(ratio)) or turnover >= NEWS_TURNOVER * known.turnover > 0)


def _split(ratio: float) -> str:
    """The nearest split in simple numbers, new shares for old ones."""
    new, old = min(
        ((p, q) for p in (1, 2, 3, 4, 5, 10, 20, 25, 50, 100) for q in (1, 2, 3, 4, 5, 10, 20, 25, 50, 100) if p != q),
        key=lambda pair: (round(apart(pair[0] / pair[1], 1 / ratio), 9), sum(pair)),
    )
    return f"a split of {new} for {old}"


def repeated_sessions(seen: Seen) -> Iterator[Finding]:
    """A session whose bars are those of the session before once more; symbols whose price hardly moves are left out."""
    if not seen.before:
        return
    for symbol, known in seen.known.items():
        before, moved = seen.before.get(symbol), known.mark[1] > known.mark[2]  # highs above lows
        if before is not None and before.mark == known.mark and moved and known.bars >= REPEATED_BARS:
            detail = f"all bars are those of {before.session} again"
            yield Finding(symbol, "repeated_session", "error", known.bars, detail)


def volume_scales(seen: Seen) -> Iterator[Finding]:
    """The mean volume of a bar is another order of magnitude: units changed, or the source."""
    if not seen.before:
        return
    for symbol, known in seen.known.items():
        before = seen.before.get(symbol)
        if before is None or min(known.volume, before.volume) <= 0 or min(known.bars, before.bars) < SCALE_BARS:
            continue
        ratio = known.volume / before.volume
        if apart(ratio, 1.0) > SCALE and not seen.is_option(symbol):
            detail = f"mean volume of a bar is {ratio:.3g} times that of {before.session}"
            yield Finding(symbol, "volume_scale", "warning", 1, detail)


def shifted_clocks(seen: Seen) -> Iterator[Finding]:
    """A symbol whose returns are those of the others some time later or earlier: its clock is off. Half of the shares
    of a market move with it closely enough to be noticed in a day, and an index always."""
    if len(seen.rows.symbols) < 2 or int(np.sort(seen.rows.count)[-2]) < SHIFT_BARS:
        return
    for lag in lags_behind_others(seen.rows, seen.grid, SHIFT_IN_STEP, SHIFT_BARS):
        sigma = lag.correlation * np.sqrt(lag.returns)
        if abs(lag.slots) >= SHIFT_LEAST and lag.correlation >= SHIFT_CORRELATION and sigma >= SHIFT_SIGMA:
            span, way = abs(lag.slots) * (seen.minutes or 1), "behind" if lag.slots > 0 else "ahead of"
            detail = f"its returns run {span} minutes {way} the other symbols' (correlation {lag.correlation:.2f})"
            yield Finding(seen.rows.symbols[lag.symbol], "clock_shift", "error", span, detail)


def shifted_hours(seen: Seen, quarantine: pl.DataFrame) -> Iterator[Finding]:
    """A symbol that lacks as many bars at one edge of the session as were held back beyond the other: its stamps are
    late or early by so much. `quarantine`: the session's rows of that table."""
    g, c, r = seen.grid, seen.coverage, seen.rows
    ts = pl.col("ts").to_physical()
    beyond = quarantine.filter(
        (pl.col("rule") == "outside_hours") & (pl.col("interval") == seen.interval) & pl.col("ts").is_not_null()
    )
    edges = beyond.group_by("symbol").agg(
        ts.min().alias("first"), ts.max().alias("last"), late=(ts >= g.close_at).sum(), early=(ts < g.open_at).sum()
    )
    for symbol, first, last, late, early in edges.sort("symbol").iter_rows():
        if symbol not in r.symbols:
            continue
        at = r.symbols.index(symbol)
        after, before = (last - g.close_at) // g.step + 1, (g.open_at - first) // g.step
        for way, span, rows, lacking, other in (
            ("late", after, late, c.at_start[at], c.at_end[at]),
            ("early", before, early, c.at_end[at], c.at_start[at]),
        ):
            whole = rows >= HELD_SHARE * span and abs(span - lacking) <= EDGE_SLACK >= other
            if span >= SHIFT_LEAST and whole:
                minutes = int(lacking) * (seen.minutes or 1)
                detail = f"stamps are {minutes} minutes {way}: {rows} bars lie beyond the session, as many are missing"
                yield Finding(symbol, "clock_shift", "error", minutes, detail)


RULES_OF_CONTINUITY = (wrong_magnitude, jumps, repeated_sessions, volume_scales, shifted_clocks)
