"""Synthetic shocks: what a session's minute bars would look like had the market jumped, crashed, dried up or gone dark.

What comes in and goes out is a frame of bars (BARS, `market.bars`), rows in any order, which stays; the frame that is
given is not changed. Bars stay valid: prices above zero, low ≤ open, close ≤ high, stamps ascending as before; a volume
that is unknown (null) stays unknown. Times are aware datetimes; a bar belongs to the shock by its *start*. `symbols`
limits a shock to some of them (None: all). Stress windows that really happened are in `robustness`; what a shock does
to a policy's trades is `lifecycle.examination`."""

from collections.abc import Collection
from datetime import datetime

import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import BARS, MINUTE

PRICES = ("open", "high", "low", "close")


class NotAShock(OdinError):
    """Raised for a size or a time that would leave bars nobody could trade on."""

    def __init__(self, name: str, value: object, rule: str) -> None:
        super().__init__(f"shock {name}={value} cannot be applied: it must be {rule}")


def gap(bars: pl.DataFrame, size: float, *, at: datetime, symbols: Collection[str] | None = None) -> pl.DataFrame:
    """Every price from the bar that starts at `at` on is moved by `size` (fraction, −0.05 is 5 % down), for good.

    Between the last bar before and the first one from `at` on nothing trades: a stop in between fills at the open.
    Raises NotAShock for a `size` of −1 or less, or an `at` without a time zone."""
    _require(size > -1, "size", size, "above −1: prices stay above zero")
    hit = _hit(symbols) & (pl.col("ts") >= _moment(at))
    return bars.with_columns(pl.when(hit).then(pl.col(p) * (1 + size)).otherwise(p).alias(p) for p in PRICES)


def crash(
    bars: pl.DataFrame,
    size: float,
    *,
    at: datetime,
    minutes: int,
    recovery: float = 0.0,
    symbols: Collection[str] | None = None,
) -> pl.DataFrame:
    """Prices slide by `size` (fraction, negative is down) along a straight line in log price over `minutes` from `at`
    on, and then take back the share `recovery` of it (in log price) over as many minutes; the rest stays.

    A bar's open moves by where the line is at its start, its close by where it is at its end, high and low by the
    higher and the lower of both. Raises NotAShock for a `size` of −1 or less, `minutes` below 1, a `recovery` outside
    0 to 1, or an `at` without a time zone."""
    _require(size > -1, "size", size, "above −1: prices stay above zero")
    _require(minutes >= 1, "minutes", minutes, "at least 1")
    _require(0 <= recovery <= 1, "recovery", recovery, "a share between 0 and 1")
    begin = (pl.col("ts") - _moment(at)).dt.total_seconds() / 60
    length = ((pl.col("known_at") - pl.col("ts")).dt.total_seconds() / 60).clip(1e-9)
    depth = (1 + pl.lit(size)).log()

    def along(minute: pl.Expr) -> pl.Expr:
        down, up = (minute / minutes).clip(0, 1), (minute / minutes - 1).clip(0, 1)
        return (depth * (down - recovery * up)).exp()

    first, last = along(begin), along(begin + length)
    hit = _hit(symbols)
    # the turning point of a line that recovers may lie inside a bar longer than a minute
    inside = (begin < minutes) & (begin + length > minutes)
    turn = pl.when(inside).then(depth.exp()).otherwise(first)
    factor = {
        "open": first,
        "high": pl.max_horizontal(first, last, turn),
        "low": pl.min_horizontal(first, last, turn),
        "close": last,
    }
    return bars.with_columns(pl.when(hit).then(pl.col(p) * factor[p]).otherwise(p).alias(p) for p in PRICES)


def liquidity_drought(
    bars: pl.DataFrame, share: float, *, at: datetime, minutes: int, symbols: Collection[str] | None = None
) -> pl.DataFrame:
    """The share `share` (0 to 1) of the volume of bars that start in [at, at + minutes) is gone; whole units are left,
    rounded down. 1 leaves bars with volume 0, in which nothing fills. Prices stay.

    Raises NotAShock for a `share` outside 0 to 1, `minutes` below 1, or an `at` without a time zone."""
    _require(0 <= share <= 1, "share", share, "between 0 and 1")
    hit = _hit(symbols) & _between(at, minutes)
    left = (pl.col("volume") * (1 - share) + 1e-9).floor()
    return bars.with_columns(volume=pl.when(hit).then(left).otherwise("volume"))


def feed_outage(
    bars: pl.DataFrame, *, at: datetime, minutes: int, symbols: Collection[str] | None = None
) -> pl.DataFrame:
    """Bars that start in [at, at + minutes) are missing, as where the feed was down: nothing fills or triggers there.

    Raises NotAShock for `minutes` below 1 or an `at` without a time zone."""
    return bars.filter(~(_hit(symbols) & _between(at, minutes)))


def _hit(symbols: Collection[str] | None) -> pl.Expr:
    return pl.lit(True) if symbols is None else pl.col("symbol").is_in(list(symbols))


def _between(at: datetime, minutes: int) -> pl.Expr:
    _require(minutes >= 1, "minutes", minutes, "at least 1")
    return (pl.col("ts") >= _moment(at)) & (pl.col("ts") < _moment(at + minutes * MINUTE))


def _moment(at: datetime) -> pl.Expr:
    _require(at.utcoffset() is not None, "at", at, "a moment with a time zone")
    return pl.lit(at).cast(BARS["ts"])


def _require(valid: bool, name: str, value: object, rule: str) -> None:
    if not valid:
        raise NotAShock(name, value, rule)
