"""Option chains: what of every strike was known at a time, and what its prices imply.

`chain_snapshots` sets bars of single contracts side by side, one row per underlying, expiry and strike; `priced` adds
the forward that puts and calls agree on, and implied volatilities. Series of a whole underlying are made of chains in
`series`, the formula is in `black76`, names of contracts are read in `contracts`. Nothing here knows a bid: the price
of an option is its last trade, and how old that is stands beside it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from odin_core.market.bars import MICROSECOND, UTC
from odin_core.market.options import black76

KEY = ("underlying", "expiry", "strike", "known_at")
EXPIRY_KEY = ("underlying", "expiry", "known_at")
SIDES = {"C": "call", "P": "put"}

PREVIOUS = pl.Schema({"symbol": pl.String(), "oi": pl.Float64()})  # last known before the session
CHAIN = pl.Schema(
    {
        "underlying": pl.String(),
        "expiry": pl.Date(),
        "strike": pl.Float64(),
        "known_at": UTC,  # time of the snapshot
        **{
            f"{side}_{column}": pl.Float64()
            for side in SIDES.values()
            for column in (
                "price",  # of the last trade in the session; null before the first
                "age",  # minutes since the end of the bar of the last trade; null before the first
                "volume",  # of the session so far; null where the source has none
                "oi",  # last known, from before the session where that is the last; null where never known
                "oi_change",  # since the close before; null where either is unknown
            )
        },
    }
)
PRICED = pl.Schema(
    {
        **CHAIN,
        "years": pl.Float64(),  # to the expiry, in years of 365 days; null from the expiry on
        "forward": pl.Float64(),  # of the expiry, by put-call parity; null where no strike has two fresh prices
        "volatility": pl.Float64(),  # implied by the option out of the money; null where its price is not fresh
        "delta": pl.Float64(),  # of that option, with respect to the forward: call 0 to ½, put -½ to 0, about
    }
)

YEAR = timedelta(days=365)
FRESH_MINUTES = 15.0  # an older price says nothing about now
PARITY_STRIKES = 5  # strikes that the forward is the median of


def chain_snapshots(
    bars: pl.DataFrame, instruments: pl.DataFrame, at: Sequence[datetime], previous: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Chains at each of the times `at` (aware, UTC, ascending): schema CHAIN, sorted by KEY with known_at first.

    `bars` (BARS) are those of ONE session, minutes or larger; `instruments` (INSTRUMENTS) say which are options.
    `previous` (PREVIOUS) holds the open interest at the close before. A snapshot sees bars with `known_at` at or before
    it and nothing else: a contract has a row once it has a bar, or from the start where `previous` has it. Bars of
    volume 0 repeat a price and are no trade. A contract under two names is taken as the one that traded last."""
    before = PREVIOUS.to_frame() if previous is None else previous
    options = instruments.filter(pl.col("right").is_in(list(SIDES)) & pl.col("strike").is_not_null()).select(
        "symbol", "underlying", "expiry", "strike", "right"
    )
    times = pl.DataFrame({"known_at": pl.Series(at, dtype=UTC)}).sort("known_at")
    seen = (
        times.join(options, how="cross")
        .sort("known_at")
        .join_asof(_running(bars, options), on="known_at", by="symbol", check_sortedness=False)
        .join(before.select("symbol", before="oi"), on="symbol", how="left", maintain_order="left")
        .filter(pl.col("has_bar").fill_null(False) | pl.col("before").is_not_null())
    )
    oi = pl.coalesce("oi", "before")
    rows = seen.select(
        *KEY,
        "symbol",
        "right",
        "traded_at",
        pl.col("close").alias("price"),
        ((pl.col("known_at") - pl.col("traded_at")).dt.total_microseconds() / 60e6).alias("age"),
        pl.when(pl.col("has_bar")).then("volume").otherwise(0.0).alias("volume"),
        oi.alias("oi"),
        (oi - pl.col("before")).alias("oi_change"),
    )
    ordered = rows.sort("known_at", "underlying", "expiry", "strike", "traded_at", "symbol", nulls_last=False)
    sides = {side: ordered.filter(pl.col("right") == right) for right, side in SIDES.items()}
    values = ("price", "age", "volume", "oi", "oi_change")
    call, put = (
        frame.group_by(KEY, maintain_order=True).agg(pl.col(v).last().alias(f"{side}_{v}") for v in values)
        for side, frame in sides.items()
    )
    both = call.join(put, on=KEY, how="full", coalesce=True, nulls_equal=True)
    return both.select(*CHAIN).sort("known_at", "underlying", "expiry", "strike")


def chain_snapshot(
    bars: pl.DataFrame, instruments: pl.DataFrame, at: datetime, previous: pl.DataFrame | None = None
) -> pl.DataFrame:
    """`chain_snapshots` at one time."""
    return chain_snapshots(bars, instruments, [at], previous)


def priced(chain: pl.DataFrame, expiries: pl.DataFrame, rate: float) -> pl.DataFrame:
    """A chain (CHAIN) with what its prices imply: schema PRICED, rows as given.

    `expiries`: columns expiry and expires_at (UTC), the instant until which its options can be traded; an expiry that
    is missing there has no time left. `rate`: per year, continuously compounded. Prices older than FRESH_MINUTES are
    left out. Volatility is that of the put at strikes below the forward, else of the call."""
    left = (pl.col("expires_at") - pl.col("known_at")).dt.total_microseconds() / (YEAR // MICROSECOND)
    timed = chain.join(expiries.select("expiry", "expires_at"), on="expiry", how="left", maintain_order="left")
    timed = timed.with_columns(pl.when(left > 0).then(left).alias("years"))
    with_forward = timed.join(forwards(timed, rate), on=EXPIRY_KEY, how="left", maintain_order="left", nulls_equal=True)
    is_call = pl.col("strike") >= pl.col("forward")
    option = pl.when(is_call).then(fresh("call")).otherwise(fresh("put"))
    columns = with_forward.select("forward", "strike", "years", is_call.alias("is_call"), option.alias("price"))
    numbers = {name: columns[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in columns.columns}
    call = numbers["is_call"] == 1.0
    terms = (numbers["forward"], numbers["strike"], numbers["years"])
    volatility = black76.implied_volatility(numbers["price"], *terms, rate, call)
    delta = black76.delta(*terms, volatility, call)
    return with_forward.with_columns(
        pl.Series("volatility", volatility).fill_nan(None), pl.Series("delta", delta).fill_nan(None)
    ).select(*PRICED)


def forwards(chain: pl.DataFrame, rate: float) -> pl.DataFrame:
    """The forward of every expiry and time: columns EXPIRY_KEY and forward (null-free; no row where there is none).

    K + e^(rate·years) · (call − put), which is the same at every strike K, at the PARITY_STRIKES strikes where call and
    put are closest to each other, and of these the median: one price that is a trade behind does not show.
    `chain`: CHAIN and years. Oracle: the future in the same minutes, tests/market/options/test_open_interest.py."""
    gap = (pl.col("call") - pl.col("put")).abs()
    parity = pl.col("strike") + (rate * pl.col("years")).exp() * (pl.col("call") - pl.col("put"))
    pairs = chain.select(*KEY, "years", fresh("call").alias("call"), fresh("put").alias("put")).drop_nulls()
    nearest = pairs.select(*EXPIRY_KEY, gap.alias("gap"), parity.alias("forward")).sort("gap", maintain_order=True)
    return nearest.group_by(EXPIRY_KEY, maintain_order=True).agg(pl.col("forward").head(PARITY_STRIKES).median())


def fresh(side: str) -> pl.Expr:
    """The price of one side, "call" or "put", of a chain; null where its last trade is older than FRESH_MINUTES."""
    return pl.when(pl.col(f"{side}_age") <= FRESH_MINUTES).then(f"{side}_price")


def _running(bars: pl.DataFrame, options: pl.DataFrame) -> pl.DataFrame:
    """Bars of the options with volume as the sum of the session so far, open interest as last known, and the end of the
    bar in which they last traded."""
    traded = pl.col("volume").is_null() | (pl.col("volume") > 0)
    known = pl.col("volume").is_not_null().cum_max()
    own = bars.join(options.select("symbol"), on="symbol", how="semi").sort("symbol", "known_at")
    return own.select(
        "symbol",
        "known_at",
        pl.col("close"),
        pl.when(known.over("symbol")).then(pl.col("volume").fill_null(0.0).cum_sum().over("symbol")).alias("volume"),
        pl.col("oi").forward_fill().over("symbol"),
        pl.when(traded).then("known_at").forward_fill().over("symbol").alias("traded_at"),
        pl.lit(True).alias("has_bar"),
    ).sort("known_at", maintain_order=True)
