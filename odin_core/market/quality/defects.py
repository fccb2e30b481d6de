"""What is said about one session's bars: one function a rule, each giving findings. The numbers come from
`quality.measures`, the tables and the rules of single rows are `quality.assessing`.

**Severity.** `error`: the data lie, so a fill or a feature made from them would be false; it blocks. `warning`: the
data lack something or look odd, and what is there can be used. `info`: what one should know. A hole is never an error:
no bar means no fill, which is honest. A price at a tenth of its level is one: it would fill a stop.

To add a rule, write a function here and name it in RULES_OF_A_SESSION; what needs another session is a rule of
`quality.continuity`."""

from collections.abc import Iterator

import numpy as np

from odin_core.market.quality.measures import excursions, still_runs, unbroken_runs, uncovered
from odin_core.market.quality.seen import WHOLE, Finding, Seen

FEW_BARS = 0.60  # a symbol with a smaller share of the session's bars
MISSING_NOTED = 0.05  # missing bars up to this share are `info`
MARKET_HOLE = 3  # bars in a row that no symbol has: from here on the feed was interrupted
EDGE = 30  # bars missing at the open or the close that are worth a finding of their own
STALE = 15  # bars that repeat one another
QUIET = 0.10  # share of bars without volume that is worth a finding
MOVE_FLOOR, MOVE_MULTIPLE = 1.03, 15.0  # a large true range: ratio, and multiple of the symbol's median in logarithms
TICK_FLOOR, TICK_MULTIPLE = 1.02, 12.0  # the same for a bar that goes beyond both neighbours alone
TICK_LIES = 3.0  # no crash that was taken back in one bar went so far; ETHUSDT of 2017-08-22 halved for a while
PAGES = (100, 200, 300, 500, 1000, 1500, 2000)  # bars in a page of common vendors
PAGE_HOLE = 30  # bars missing on both sides of a full page
COARSE_BARS = 20


def repeated_times(seen: Seen) -> Iterator[Finding]:
    for _, symbol, count in seen.each(seen.coverage.repeated):
        yield Finding(symbol, "duplicate", "error", count, "bars share their time with another")


def bad_prices(seen: Seen) -> Iterator[Finding]:
    r = seen.rows
    with np.errstate(invalid="ignore"):
        sound = (r.low > 0) & (r.low <= r.open) & (r.low <= r.close) & (r.open <= r.high) & (r.close <= r.high)
        sound &= np.isfinite(r.high) & ~(r.volume < 0) & ~(r.oi < 0)
    for _, symbol, count in seen.each(r.sums(~sound)):
        yield Finding(symbol, "bad_price", "error", count, "prices missing, not positive or out of their range")


def outside_hours(seen: Seen) -> Iterator[Finding]:
    for _, symbol, count in seen.each(seen.rows.count - seen.coverage.inside):
        yield Finding(symbol, "outside_hours", "error", count, "bars before the open or after the close")


def known_too_early(seen: Seen) -> Iterator[Finding]:
    """A bar that may be used before its end is a look into the future."""
    length = np.minimum(seen.rows.ts + seen.grid.step, seen.grid.close_at) - seen.rows.ts
    early = (seen.rows.known_at - seen.rows.ts) < np.maximum(length, 1)
    for _, symbol, count in seen.each(seen.rows.sums(early)):
        yield Finding(symbol, "known_too_early", "error", count, "bars are marked as known before they end")


def missing_bars(seen: Seen) -> Iterator[Finding]:
    c, total = seen.coverage, seen.grid.total
    for at, symbol, count in seen.each(c.missing):
        poor = count > MISSING_NOTED * total
        detail = f"of {total} bars; longest gap {c.longest[at]}, from {seen.clock(c.longest_from, at)}"
        yield Finding(symbol, "missing_bars", "warning" if poor else "info", count, detail)
        have = total - count
        if have < FEW_BARS * total:
            share = f"{have * 100 / total:.1f} % of the session's bars"
            yield Finding(symbol, "few_bars", "warning", have, share)


def late_start_and_early_stop(seen: Seen) -> Iterator[Finding]:
    """A gap at an edge that is long for this symbol: three times its longest between two bars."""
    c = seen.coverage
    usual = np.maximum(3 * c.longest_between, EDGE)
    for _, symbol, count in seen.each(np.where(c.at_start >= usual, c.at_start, 0)):
        yield Finding(symbol, "late_start", "warning", count, "bars are missing from the open on")
    last = seen.rows.known_at[seen.rows.first + seen.rows.count - 1]
    for at, symbol, count in seen.each(np.where(c.at_end >= usual, c.at_end, 0)):
        detail = f"bars are missing up to the close; the last one ends at {seen.clock(last, at)}"
        yield Finding(symbol, "early_stop", "warning", count, detail)


def feed_holes(seen: Seen) -> Iterator[Finding]:
    """Bars that no symbol has. Said of two symbols or more: of one it would be what `missing_bars` says."""
    count, longest, start = uncovered(seen.rows, seen.grid)
    if count and len(seen.rows.symbols) > 1:
        severity = "warning" if longest >= MARKET_HOLE else "info"
        since = seen.clock(seen.grid.begins, start)
        detail = f"of {seen.grid.total} bars no symbol has any; longest hole {longest}, from {since}"
        yield Finding(WHOLE, "feed_hole", severity, count, detail)


def full_pages(seen: Seen) -> Iterator[Finding]:
    """Runs of bars exactly as long as a vendor's page with holes on both sides: the next page was never asked for."""
    if not (seen.coverage.longest >= PAGE_HOLE).any():
        return
    runs, r, g = unbroken_runs(seen.rows), seen.rows, seen.grid
    ends = runs.first + runs.length - 1
    gap_after = np.where(r.is_last[ends], g.expected[-1], g.expected[r.slot[np.minimum(ends + 1, len(r.ts) - 1)]])
    gap_after = gap_after - g.expected[np.minimum(r.slot[ends] + 1, len(g.trades))]
    gap_before = np.where(r.is_first[runs.first], g.expected[r.slot[runs.first]], np.append(0, gap_after[:-1]))
    for at, symbol in enumerate(r.symbols):
        mine = np.flatnonzero(runs.symbol == at)
        length, before = runs.length[mine].copy(), gap_before[mine].copy()
        known = seen.before.get(symbol)
        if known is not None and before[0] == 0:  # the run began in the session before; it had a hole before that
            length[0], before[0] = length[0] + known.tail, PAGE_HOLE * (known.tail > 0)
        full = np.isin(length, PAGES) & (before >= PAGE_HOLE) & (gap_after[mine] >= PAGE_HOLE)
        if full.any():
            detail = f"runs of exactly {length[full][0]} bars between holes: pages of a download that skipped some"
            yield Finding(symbol, "paging_holes", "warning", int(full.sum()), detail)


def coarse_bars(seen: Seen) -> Iterator[Finding]:
    c, r = seen.coverage, seen.rows
    for at, symbol, count in seen.each(np.where((c.closest > 1) & (r.count >= COARSE_BARS), r.count, 0)):
        mine = r.slot[r.first[at] : r.first[at] + r.count[at]]
        apart = int(np.gcd.reduce(np.diff(mine)))
        if apart > 1 and seen.minutes:
            detail = (
                f"all bars lie {apart * seen.minutes} minutes or a multiple apart: they are no {seen.minutes}m bars"
            )
            yield Finding(symbol, "coarse_bars", "warning", count, detail)


def bars_in_halt(seen: Seen) -> Iterator[Finding]:
    for _, symbol, count in seen.each(seen.coverage.halted):
        yield Finding(symbol, "bars_in_halt", "info", count, "bars in a halt of the exchange")


def without_volume(seen: Seen) -> Iterator[Finding]:
    r = seen.rows
    for at, symbol, count in seen.each(r.sums(np.isnan(r.volume))):
        yield Finding(symbol, "no_volume", "info", count, f"of {r.count[at]} bars have no volume")
    for at, symbol, count in seen.each(r.sums(r.volume == 0)):
        if count > QUIET * r.count[at]:
            yield Finding(symbol, "zero_volume", "info", count, f"of {r.count[at]} bars have volume 0")


def stale_bars(seen: Seen) -> Iterator[Finding]:
    runs = still_runs(seen.rows, STALE)
    for at in np.unique(runs.symbol).tolist():
        mine = runs.symbol == at
        longest = int(np.flatnonzero(mine)[runs.length[mine].argmax()])
        start = seen.clock(seen.rows.ts, runs.first[longest])
        detail = f"bars repeat one before them; longest run {runs.length[longest]}, from {start}"
        yield Finding(seen.rows.symbols[at], "stale", "warning", int(runs.length[mine].sum()), detail)


def large_moves(seen: Seen) -> Iterator[Finding]:
    """A range far beyond the symbol's own: real as a rule, so it is only told."""
    m, r = seen.moves, seen.rows
    limit = np.maximum(m.median**MOVE_MULTIPLE, MOVE_FLOOR)
    for at, symbol, count in seen.each(r.sums(m.ratio > np.repeat(limit, r.count))):
        row = m.largest[at]
        detail = f"largest range {(m.ratio[row] - 1) * 100:.2f} % of price, at {seen.clock(r.ts, row)}"
        yield Finding(symbol, "large_move", "info", count, detail)


def bad_ticks(seen: Seen) -> Iterator[Finding]:
    """A bar that leaves the range of both neighbours far and alone; bars at a wrong level are not told twice."""
    r, beyond = seen.rows, excursions(seen.rows)
    limit = np.maximum(seen.moves.median**TICK_MULTIPLE, TICK_FLOOR)
    suspects = np.flatnonzero(beyond > np.repeat(limit, r.count))
    owner = np.searchsorted(r.first, suspects, side="right") - 1
    wrong = {row for level in seen.levels for row in range(level.first, level.first + level.length)}
    for at in np.unique(owner).tolist():
        symbol = r.symbols[at]
        rows = [row for row in suspects[owner == at].tolist() if row not in wrong]
        if rows and not seen.is_option(symbol):
            worst = max(rows, key=lambda row: beyond[row])
            severity = "error" if beyond[worst] >= TICK_LIES else "warning"
            detail = f"bars leave both neighbours' range and return; by {(beyond[worst] - 1) * 100:.1f} % at {{}}"
            yield Finding(symbol, "bad_tick", severity, len(rows), detail.format(seen.clock(r.ts, worst)))


RULES_OF_A_SESSION = (
    repeated_times,
    bad_prices,
    outside_hours,
    known_too_early,
    missing_bars,
    late_start_and_early_stop,
    feed_holes,
    full_pages,
    coarse_bars,
    bars_in_halt,
    without_volume,
    stale_bars,
    large_moves,
    bad_ticks,
)
