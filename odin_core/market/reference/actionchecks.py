"""Which events of a file are real: the same event told twice, on a wrong day, or not borne out by raw prices.

Vendors repeat an event a few days apart and apply both, so a price is adjusted twice. A split or bonus moves the open
from the close before by its ratio, so raw prices say on which day it was; where there are none, closeness decides.
A dividend is too small to be seen in prices, but below the price that it is paid out of. Nothing is decided about
mergers and renames but exact repetitions."""

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from math import log
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.market.reference.actions import ACTIONS, KEY, SHARES

NEAR: Final = timedelta(days=10)  # how far from its date a split is looked for in prices; a put-off date lies within
SAME_SPLIT: Final = timedelta(days=45)  # two splits of one ratio within this are one
SAME_DIVIDEND: Final = timedelta(days=7)
NIGHT: Final = timedelta(days=7)  # a close further back says nothing about an open
VISIBLE: Final = 0.05  # |ln ratio| below which a split cannot be told from an ordinary night
CLEAR: Final = 0.15  # how near, in ln, a move must come to the ratio on a day that is not the split's own
OFF: Final = 0.25  # beyond this, in ln, the prices' ratio is told as another
EQUAL: Final = 0.01  # relative difference below which two ratios or amounts are the same

PRICES = pl.Schema({"symbol": pl.String(), "session": pl.Date(), "open": pl.Float64(), "close": pl.Float64()})
NOTHING_TOLD: Final = ACTIONS.to_frame()


class Checked(NamedTuple):
    """`events`: the columns as they came in, with what is broken in `rule` and corrected dates and amounts. `notes`:
    what was done and seen, for people. `unseen`: splits and bonuses around which there are no prices."""

    events: pl.DataFrame
    notes: list[str]
    unseen: int


class _Nights(NamedTuple):
    """One symbol's sessions, ascending, and ln(open / close before), NaN where that close is too old."""

    sessions: npt.NDArray[np.datetime64]
    moves: npt.NDArray[np.float64]


def check_events(events: pl.DataFrame, prices: pl.DataFrame, told: pl.DataFrame = NOTHING_TOLD) -> Checked:
    """Judge EVENTS (`actionfiles`) that break no rule yet. prices: PRICES, raw, whatever there is of them. told:
    ACTIONS of other files, of which splits and bonuses on the day of one of these are part of what prices show.

    1. Of rows with one symbol, ex-date and kind the first stays (`duplicate`, `conflict`).
    2. A split or bonus stays where the night before its date moved by its ratio. Otherwise it is the same as one of
       its ratio that did (`repeated`), or moves to the one night within NEAR that shows it, or is `contradicted`.
       Without prices, of two with one ratio within SAME_SPLIT the later stays if they lie within NEAR, since a date may
       be put off, otherwise the earlier.
    3. Amounts per share of the file's end become amounts per share held before the ex-date, by the splits that stay.
    4. Of two dividends within SAME_DIVIDEND whose amounts are equal, or, where they were per share of the file's end,
       differ by a ratio that the symbol was split with, the later stays, with the smaller amount.
    5. A dividend of the last close before it or more is `above_price`, where that close is known."""
    sound = events.filter(pl.col("rule").is_null()).sort("row", "kind")
    unique, copies = _exact(sound)
    shares = unique.filter(pl.col("kind").is_in(SHARES))
    settled, notes, unseen = _settle_splits(shares, _nights(prices), _ratios(told, shares))
    stay = settled.filter(pl.col("rule").is_null())
    paid = _settle_dividends(_per_share_held(unique.filter(pl.col("kind") == "dividend"), stay), stay)
    paid = _below_price(paid, prices)
    rest = unique.filter(~pl.col("kind").is_in([*SHARES, "dividend"]))
    moved, collided = _exact(stay)  # a date that was moved may have met another
    parts = [events.filter(pl.col("rule").is_not_null()), copies, settled.filter(pl.col("rule").is_not_null()),
             moved, collided, paid, rest]  # fmt: skip
    return Checked(pl.concat(parts).sort("row", "kind"), notes, unseen)


def windows(events: pl.DataFrame) -> pl.DataFrame:
    """Where prices are wanted: symbol, first, last (dates) around each sound split and bonus, before each dividend."""
    sound = events.filter(pl.col("rule").is_null())
    splits = sound.filter(pl.col("kind").is_in(SHARES))
    paid = sound.filter(pl.col("kind") == "dividend")
    return pl.concat([
        splits.select("symbol", first=pl.col("ex_date") - NEAR - NIGHT, last=pl.col("ex_date") + NEAR),
        paid.select("symbol", first=pl.col("ex_date") - NIGHT, last=pl.col("ex_date") - timedelta(days=1)),
    ])  # fmt: skip


def _exact(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first row of each KEY, and the others with their rule."""
    values = ("ratio", "amount", "other")
    first = pl.all_horizontal(pl.col(v).eq_missing(pl.col(v).first().over(KEY)) for v in values)
    again = pl.int_range(pl.len()).over(KEY) > 0
    rule = pl.when(first).then(pl.lit("duplicate")).otherwise(pl.lit("conflict"))
    marked = events.with_columns(pl.when(again).then(rule).otherwise("rule").alias("rule"))
    return marked.filter(pl.col("rule").is_null()), marked.filter(pl.col("rule").is_not_null())


def _nights(prices: pl.DataFrame) -> dict[str, _Nights]:
    ordered = prices.sort("symbol", "session")
    before = {name: pl.col(name).shift().over("symbol") for name in ("close", "session")}
    move = pl.when(pl.col("session") - before["session"] <= NIGHT).then((pl.col("open") / before["close"]).log())
    moved = ordered.select("symbol", "session", move=move.cast(pl.Float64).fill_null(float("nan")))
    return {
        str(key[0]): _Nights(part["session"].to_numpy(), part["move"].to_numpy())
        for key, part in moved.partition_by("symbol", as_dict=True).items()
    }


class _Split:
    """One split or bonus while it is judged."""

    def __init__(self, event: dict[str, object], nights: _Nights | None) -> None:
        self.row, self.kind = event["row"], event["kind"]
        self.symbol, self.given, self.ratio = str(event["symbol"]), event["ex_date"], float(str(event["ratio"]))
        assert isinstance(self.given, date)
        self.date: date = self.given
        self.rule: str | None = None
        self.nights = nights
        self.expected = -log(self.ratio)  # of the night's move, in ln
        self.move = self._move()
        self.shown: date | None = None

    def _move(self) -> float:
        """Of the night before its date, or before the first session within a week of it; NaN where nobody knows."""
        if self.nights is None or abs(self.expected) < VISIBLE:
            return float("nan")
        at = int(np.searchsorted(self.nights.sessions, np.datetime64(self.date)))
        if at == len(self.nights.sessions) or self.nights.sessions[at] > np.datetime64(self.date + NIGHT):
            return float("nan")
        return float(self.nights.moves[at])

    def elsewhere(self, taken: set[date]) -> date | None:
        """The session near its date whose night comes nearest to the ratio, if it comes near enough."""
        assert self.nights is not None
        sessions, moves = self.nights
        low, high = np.searchsorted(sessions, [np.datetime64(self.date - NEAR), np.datetime64(self.date + NEAR)])
        free = [i for i in range(low, high) if sessions[i].item() not in taken]
        miss = {i: abs(float(moves[i]) - self.expected) for i in free if not np.isnan(moves[i])}
        best = min(miss, key=lambda i: miss[i], default=None)
        if best is None or miss[best] > min(CLEAR, abs(self.expected) / 3):
            return None
        return sessions[best].item()

    def says(self, text: str) -> str:
        return f"{self.symbol}: {self.kind} of ratio {self.ratio:g} on {self.given} {text}"


def _ratios(told: pl.DataFrame, shares: pl.DataFrame) -> dict[tuple[str, date], float]:
    """Product of the ratios told elsewhere by symbol and day, of events that `shares` do not tell themselves."""
    others = told.filter(pl.col("kind").is_in(SHARES)).join(shares, on=KEY, how="anti")
    products = others.group_by("symbol", "ex_date").agg(pl.col("ratio").product())
    return {(symbol, day): ratio for symbol, day, ratio in products.iter_rows()}


def _settle_splits(
    shares: pl.DataFrame, nights: dict[str, _Nights], ratios: dict[tuple[str, date], float]
) -> tuple[pl.DataFrame, list[str], int]:
    splits = [_Split(row, nights.get(row["symbol"])) for row in shares.sort("symbol", "ex_date", "row").to_dicts()]
    notes: list[str] = []
    for symbol in dict.fromkeys(split.symbol for split in splits):
        mine = [split for split in splits if split.symbol == symbol]
        elsewhere = {day: -log(ratio) for (told, day), ratio in ratios.items() if told == symbol}
        notes += _by_prices(mine, elsewhere)
        notes += _by_closeness(mine)
    result = pl.DataFrame(
        {"row": [s.row for s in splits], "kind": [s.kind for s in splits], "date": [s.date for s in splits],
         "found": [s.rule for s in splits]},
        schema={"row": pl.Int64, "kind": pl.String, "date": pl.Date, "found": pl.String},
    )  # fmt: skip
    joined = shares.join(result, on=["row", "kind"], how="left", maintain_order="left")
    judged = joined.with_columns(ex_date="date", rule="found").select(shares.columns)
    return judged, notes, sum(np.isnan(s.move) and s.rule is None for s in splits)


def _by_prices(mine: list[_Split], elsewhere: dict[date, float]) -> Iterator[str]:
    """Judge one symbol's splits, ascending, by what prices show; says what was done. `elsewhere`: what other files
    expect of a day, in ln."""
    days = {s.date for s in mine}
    together = {d: sum(s.expected for s in mine if s.date == d) + elsewhere.get(d, 0.0) for d in days}
    for split in mine:
        if _closer(split.move, together[split.date]) or _closer(split.move, split.expected):
            split.shown = split.date
            if abs(split.move - together[split.date]) > OFF and abs(split.move - split.expected) > OFF:
                yield split.says(f"stays, but the price went to {np.exp(split.move):.4f} of the close before")
    for split in mine:
        if split.shown is not None or np.isnan(split.move):
            continue
        twin = next((s for s in mine if s.shown and _same(s, split) and abs(s.date - split.date) <= SAME_SPLIT), None)
        found = split.elsewhere({s.shown for s in mine if s.shown})
        if twin is not None:
            split.rule = "repeated"
            yield split.says(f"is the one of {twin.date}, where prices show it")
        elif found is not None:
            split.date = split.shown = found
            yield split.says(f"was moved to {found}, where prices show it")
        else:
            split.rule = "contradicted"
            yield split.says("is not in the prices")


def _by_closeness(mine: list[_Split]) -> Iterator[str]:
    """Of those left, one of each pair with one ratio that lies close together; one that prices show stays."""
    left = [split for split in mine if split.rule is None]
    for i, first in enumerate(left):
        for second in left[i + 1 :]:
            if first.rule or second.rule or not _same(first, second) or second.date - first.date > SAME_SPLIT:
                continue
            if first.shown and second.shown and first.shown != second.shown:
                continue
            if first.date == second.date and _closer(first.move, 2 * first.expected, first.expected):
                continue  # the price moved by both
            later_stays = timedelta(0) < second.date - first.date <= NEAR
            stays, goes = (second, first) if (second.shown or later_stays) and not first.shown else (first, second)
            goes.rule = "repeated"
            yield goes.says(f"is taken for the {stays.kind} of {stays.date}, which stays")


def _closer(move: float, expected: float, rival: float = 0.0) -> bool:
    """Whether a move is nearer to what is expected than to the rival; not where it is unknown."""
    return abs(move - expected) < abs(move - rival)


def _same(one: _Split, other: _Split) -> bool:
    return abs(one.ratio / other.ratio - 1) <= EQUAL


def _per_share_held(dividends: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Amounts of the file's last shares times the ratios of the splits on and after their date."""
    after = dividends.filter("per_last_share").select("row", "symbol", day="ex_date")
    ratios = splits.select("symbol", "ex_date", "ratio")
    times = after.join(ratios, on="symbol").filter(pl.col("ex_date") >= pl.col("day"))
    product = times.group_by("row").agg(pl.col("ratio").sort().product().alias("times"))
    return (
        dividends.join(product, on="row", how="left", maintain_order="left")
        .with_columns(pl.col("amount") * pl.col("times").fill_null(1.0))
        .select(dividends.columns)
    )


def _below_price(dividends: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """Dividends with `above_price` where the last close before one, of the NIGHT before it, is not above the amount."""
    closes = prices.select("symbol", "session", "close").sort("session")
    before = dividends.sort("ex_date").join_asof(
        closes, left_on="ex_date", right_on="session", by="symbol", tolerance=NIGHT, allow_exact_matches=False,
        check_sortedness=False,
    )  # fmt: skip
    broken = pl.col("rule").is_null() & (pl.col("amount") >= pl.col("close"))
    judged = pl.when(broken).then(pl.lit("above_price")).otherwise("rule")
    return before.with_columns(rule=judged).select(dividends.columns)


def _settle_dividends(dividends: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    ratios = {key[0]: [1.0, *part["ratio"]] for key, part in splits.partition_by("symbol", as_dict=True).items()}
    rows = dividends.sort("symbol", "ex_date", "row").to_dicts()
    for before, now in pairwise(rows):
        if before["symbol"] != now["symbol"] or now["ex_date"] - before["ex_date"] > SAME_DIVIDEND:
            continue
        near = ratios.get(now["symbol"], [1.0]) if now["per_last_share"] and before["per_last_share"] else [1.0]
        quotient = max(now["amount"], before["amount"]) / min(now["amount"], before["amount"])
        if any(abs(quotient / ratio - 1) <= EQUAL for ratio in near):
            before["rule"], now["amount"] = "repeated", min(now["amount"], before["amount"])
    return pl.DataFrame(rows, schema=dividends.schema)
