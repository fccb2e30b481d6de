"""Volatility indices: what a whole strip of options says about variance until expiry, and for a constant time.

The method of Cboe's VIX, which NSE's India VIX follows: options out of the money, weighted by 1/K², replicate a
variance swap. India VIX takes bids and asks, the future as forward, and splines for missing quotes; here a price is a
last trade, the forward is what put-call parity says, and a missing price is a quote of zero. So this checks India VIX
and is not it."""

import numpy as np
import polars as pl

from odin_core.market.options.chains import EXPIRY_KEY, KEY

STRIP = pl.Schema(
    {
        "underlying": pl.String(),
        "expiry": pl.Date(),
        "known_at": pl.Datetime("us", "UTC"),
        "strike": pl.Float64(),
        "call": pl.Float64(),  # price; null or 0 where nobody bids
        "put": pl.Float64(),
        "years": pl.Float64(),
        "forward": pl.Float64(),
    }
)
"""Columns that `expiry_variances` reads."""
MONTH = 30 / 365  # years


def expiry_variances(strip: pl.DataFrame, rate: float) -> pl.DataFrame:
    """Variance per year until each expiry: columns EXPIRY_KEY, years and variance (0.04 is a volatility of 20 %).

    σ² = 2/T · Σ ΔK/K² · e^(rate·T) · Q(K) − 1/T · (F/K0 − 1)², with K0 the highest strike at or below the forward F, Q
    the put below K0, the call above, and at K0 their mean (or the one there is). Going outwards from K0, strikes
    without a price are left out, and beyond two of them in a row everything is. ΔK is half the distance between the
    neighbours that are left, at the ends the whole distance to the one neighbour. `strip`: STRIP, any order, a strike
    once. No row where there is no time left, no forward, no K0, or no put or no call besides K0.
    Source: Cboe Volatility Index methodology, steps 1 and 2. Oracle: its worked example, tests/oracles.
    """
    usable = strip.filter((pl.col("years") > 0) & pl.col("forward").is_not_null()).sort(*EXPIRY_KEY, "strike")
    below = pl.col("strike").filter(pl.col("strike") <= pl.col("forward"))
    sided = usable.with_columns(below.max().over(EXPIRY_KEY).alias("k0")).filter(pl.col("k0").is_not_null())
    kept = _strip_of(sided)
    neighbours = kept.with_columns(
        pl.col("strike").shift(1).over(EXPIRY_KEY).alias("lower"),
        pl.col("strike").shift(-1).over(EXPIRY_KEY).alias("upper"),
        (pl.col("side") < 0).any().over(EXPIRY_KEY).alias("has_put"),
        (pl.col("side") > 0).any().over(EXPIRY_KEY).alias("has_call"),
    ).filter(pl.col("has_put") & pl.col("has_call"))
    inner = (pl.col("upper") - pl.col("lower")) / 2
    width = pl.coalesce(inner, pl.col("upper") - pl.col("strike"), pl.col("strike") - pl.col("lower"))
    part = width / pl.col("strike") ** 2 * (rate * pl.col("years")).exp() * pl.col("price")
    return _summed(neighbours.with_columns(part.alias("part")))


def constant_maturity(variances: pl.DataFrame, years: float = MONTH) -> pl.DataFrame:
    """Volatility per year for a constant time: columns underlying, known_at and volatility (0.2 is 20 %).

    Variance times time is interpolated linearly between the last expiry at or before that time and the first after it;
    no row where one of the two is missing. `variances`: columns of `expiry_variances`.
    Source: Cboe Volatility Index methodology, step 3."""
    total = pl.col("variance") * pl.col("years")
    group = ("underlying", "known_at")
    ordered = variances.filter(pl.col("variance") > 0).sort(*group, "years").with_columns(total.alias("total"))
    near, far = pl.col("years") <= years, pl.col("years") > years
    pairs = ordered.group_by(group, maintain_order=True).agg(
        pl.col("years", "total").filter(near).last().name.prefix("near_"),
        pl.col("years", "total").filter(far).first().name.prefix("far_"),
    )
    weight = (pl.col("far_years") - years) / (pl.col("far_years") - pl.col("near_years"))
    mixed = pl.col("near_total") * weight + pl.col("far_total") * (1 - weight)
    return pairs.select(*group, (mixed / years).sqrt().alias("volatility")).drop_nulls()


def _strip_of(sided: pl.DataFrame) -> pl.DataFrame:
    """The strikes that count, with `side` (-1 put, 0 at K0, 1 call) and `price`."""
    side = (pl.col("strike") - pl.col("k0")).sign()
    call, put = (pl.when(pl.col(name) > 0).then(name) for name in ("call", "put"))
    at_k0 = pl.mean_horizontal(call, put)
    price = pl.when(side < 0).then(put).when(side > 0).then(call).otherwise(at_k0)
    priced = sided.select(*KEY, "years", "forward", "k0", side.alias("side"), price.alias("price"))
    missing = pl.col("price").is_null() & (pl.col("side") != 0)
    is_put, is_call = pl.col("side") < 0, pl.col("side") > 0
    puts_end = is_put & missing & (is_put & missing).shift(-1, fill_value=False)  # here and one nearer to K0
    calls_end = is_call & missing & (is_call & missing).shift(1, fill_value=False)
    beyond = puts_end.cast(pl.Int32).cum_sum(reverse=True) + calls_end.cast(pl.Int32).cum_sum()
    return priced.filter((beyond.over(EXPIRY_KEY) == 0) & pl.col("price").is_not_null())


def _summed(parts: pl.DataFrame) -> pl.DataFrame:
    """Sums of `part` by expiry, in the order of the rows, so that threads do not show."""
    if parts.is_empty():
        return parts.select(*EXPIRY_KEY, "years", pl.col("part").alias("variance"))
    new = parts.select(pl.struct(EXPIRY_KEY).rle_id()).to_series().diff().fill_null(1) != 0
    first = np.flatnonzero(new.to_numpy())
    sums = np.add.reduceat(parts["part"].to_numpy(), first)
    each = parts[first].with_columns(pl.Series("sum", sums))
    offset = (pl.col("forward") / pl.col("k0") - 1) ** 2
    return each.select(*EXPIRY_KEY, "years", ((2 * pl.col("sum") - offset) / pl.col("years")).alias("variance"))
