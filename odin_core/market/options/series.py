"""Market-level series out of option chains: one row per underlying and time, ready to be joined to features.

In: chains as `options.chains.priced` makes them, of one time or many. Each row follows from its own time's chain alone.
Where chains, spot prices and India VIX are read is `options.open_interest`."""

import polars as pl

from odin_core.market.bars import MINUTE, UTC
from odin_core.market.options.chains import EXPIRY_KEY, YEAR, fresh
from odin_core.market.options.variance_index import constant_maturity, expiry_variances

SERIES_KEY = ("underlying", "known_at")
OPTION_SERIES = pl.Schema(
    {
        "underlying": pl.String(),
        "known_at": UTC,
        "expiry": pl.Date(),  # the next one
        "forward": pl.Float64(),  # of that expiry
        "call_oi": pl.Float64(),  # units of the underlying, all expiries; null where unknown at every strike
        "put_oi": pl.Float64(),
        "call_oi_change": pl.Float64(),  # since the close before, over the contracts of which both are known
        "put_oi_change": pl.Float64(),
        "call_volume": pl.Float64(),  # of the session so far
        "put_volume": pl.Float64(),
        "put_call_oi": pl.Float64(),  # put over call; null where no call is held
        "put_call_volume": pl.Float64(),
        "max_pain": pl.Float64(),  # strike of the next expiry
        "max_pain_distance": pl.Float64(),  # of that strike from the forward, fraction of the forward
        "volatility_expiry": pl.Date(),  # the next one that is not about to end
        "volatility": pl.Float64(),  # implied at the money, per √year, 0.2 is 20 %
        "skew": pl.Float64(),  # put of delta -¼ minus call of delta ¼, in volatility
        "volatility_30d": pl.Float64(),  # at the money, for 30 days
        "variance_index": pl.Float64(),  # own index in the manner of VIX, for 30 days, in per cent as VIX is
    }
)

ENDING = 60 * MINUTE  # with less time left a tick is worth whole points of volatility
WING_DELTA = 0.25


def option_series(chain: pl.DataFrame, rate: float) -> pl.DataFrame:
    """Series of each underlying in a chain (PRICED, of one time or many): schema OPTION_SERIES, sorted by known_at,
    underlying. `rate` is the one the chain was priced with.

    What has expired counts nowhere, so at the close of an expiry day the next expiry is meant. Ratios and sums are over
    all expiries. Null is what cannot be said: no strike with a fresh price on either side of the forward, no two
    expiries around 30 days, no open interest."""
    live = chain.filter(pl.col("years") > 0).sort(*EXPIRY_KEY, "strike")
    by_expiry = _volatilities(live).join(_max_pain(live), on=EXPIRY_KEY, how="left", maintain_order="left")
    result = _totals(live)
    for columns in (
        _next_expiry(by_expiry),
        _next_volatility(by_expiry),
        _thirty_days(by_expiry),
        _variance_index(live, rate),
    ):
        result = result.join(columns, on=SERIES_KEY, how="left", maintain_order="left")
    return result.select(*OPTION_SERIES).sort("known_at", "underlying")


def max_pain_strike(strikes: pl.Series, call_oi: pl.Series, put_oi: pl.Series) -> float | None:
    """The strike at which, were it the price at expiry, holders of all options would get least: the lowest of those
    that minimise Σ call_oi·max(S − K, 0) + put_oi·max(K − S, 0) over the strikes S. Null counts as none held; None
    without any. `strikes`: each once. Oracle: all payoffs one by one, tests/market/options/test_option_series.py."""
    one = pl.DataFrame({"strike": strikes, "call_oi": call_oi, "put_oi": put_oi})
    held = one.with_columns(
        pl.lit("").alias("underlying"), pl.lit(None, pl.Date).alias("expiry"), pl.lit(None, UTC).alias("known_at")
    )
    found = _max_pain(held)["max_pain"]
    return found.item() if len(found) else None


def _totals(live: pl.DataFrame) -> pl.DataFrame:
    columns = [f"{side}_{what}" for what in ("oi", "oi_change", "volume") for side in ("call", "put")]
    total = [pl.when(pl.col(c).is_not_null().any()).then(pl.col(c).sum()).alias(c) for c in columns]
    sums = live.group_by(SERIES_KEY, maintain_order=True).agg(total)
    ratios = {
        f"put_call_{what}": pl.when(pl.col(f"call_{what}") > 0).then(pl.col(f"put_{what}") / pl.col(f"call_{what}"))
        for what in ("oi", "volume")
    }
    return sums.with_columns(**ratios)


def _volatilities(live: pl.DataFrame) -> pl.DataFrame:
    """By expiry: years, forward, volatility at the money (linear in strike between the two around it), skew."""
    volatility, strike, forward = pl.col("volatility"), pl.col("strike"), pl.col("forward").first()
    below, above = pl.col("strike") < pl.col("forward"), pl.col("strike") >= pl.col("forward")
    size = pl.col("delta").abs()
    outer, inner = size <= WING_DELTA, size > WING_DELTA
    at_the_money = _line(
        forward,
        (strike.filter(below).last(), volatility.filter(below).last()),
        (strike.filter(above).first(), volatility.filter(above).first()),
    )
    put_wing = _line(
        pl.lit(WING_DELTA),
        (size.filter(below & outer).last(), volatility.filter(below & outer).last()),
        (size.filter(below & inner).first(), volatility.filter(below & inner).first()),
    )
    call_wing = _line(
        pl.lit(WING_DELTA),
        (size.filter(above & outer).first(), volatility.filter(above & outer).first()),
        (size.filter(above & inner).last(), volatility.filter(above & inner).last()),
    )
    smile = live.filter(volatility.is_not_null()).group_by(EXPIRY_KEY, maintain_order=True)
    found = smile.agg(at_the_money.alias("volatility"), (put_wing - call_wing).alias("skew"))
    own = live.group_by(EXPIRY_KEY, maintain_order=True).agg(pl.col("years", "forward").first())
    return own.join(found, on=EXPIRY_KEY, how="left", maintain_order="left")


def _line(x: pl.Expr, start: tuple[pl.Expr, pl.Expr], end: tuple[pl.Expr, pl.Expr]) -> pl.Expr:
    """Value at x of the straight line through two points (x, y); null where one is."""
    return start[1] + (end[1] - start[1]) * (x - start[0]) / (end[0] - start[0])


def _max_pain(live: pl.DataFrame) -> pl.DataFrame:
    """By expiry: max_pain; no row where nothing is held. Sums of open interest times strike are exact below 2⁵³."""
    strike = pl.col("strike")
    calls, puts = pl.col("call_oi").fill_null(0.0), pl.col("put_oi").fill_null(0.0)
    paid_to_calls = strike * calls.cum_sum() - (calls * strike).cum_sum()
    paid_to_puts = (puts * strike).cum_sum(reverse=True) - strike * puts.cum_sum(reverse=True)
    groups = live.sort(*EXPIRY_KEY, "strike").group_by(EXPIRY_KEY, maintain_order=True)
    found = groups.agg(
        strike.get((paid_to_calls + paid_to_puts).arg_min()).alias("max_pain"), (calls + puts).sum().alias("held")
    )
    return found.filter(pl.col("held") > 0).drop("held")


def _next_expiry(by_expiry: pl.DataFrame) -> pl.DataFrame:
    distance = (pl.col("max_pain") / pl.col("forward") - 1).alias("max_pain_distance")
    first = by_expiry.sort("expiry").unique(SERIES_KEY, keep="first", maintain_order=True)
    return first.select(*SERIES_KEY, "expiry", "forward", "max_pain", distance)


def _next_volatility(by_expiry: pl.DataFrame) -> pl.DataFrame:
    lasting = by_expiry.filter(pl.col("years") >= ENDING / YEAR).sort("expiry")
    first = lasting.unique(SERIES_KEY, keep="first", maintain_order=True)
    return first.select(*SERIES_KEY, pl.col("expiry").alias("volatility_expiry"), "volatility", "skew")


def _thirty_days(by_expiry: pl.DataFrame) -> pl.DataFrame:
    variances = by_expiry.select(*EXPIRY_KEY, "years", (pl.col("volatility") ** 2).alias("variance"))
    return constant_maturity(variances).rename({"volatility": "volatility_30d"})


def _variance_index(live: pl.DataFrame, rate: float) -> pl.DataFrame:
    strip = live.select(
        *EXPIRY_KEY, "strike", fresh("call").alias("call"), fresh("put").alias("put"), "years", "forward"
    )
    found = constant_maturity(expiry_variances(strip, rate))
    return found.select(*SERIES_KEY, (100 * pl.col("volatility")).alias("variance_index"))
