"""Group market: minute bars by session, what is wrong with them, and what else is known of the instruments.

A market whose source can be asked brings in what is missing when `price_history` is materialised; others show what
`odin data import` brought. Which assets a market has follows from its profile: a synthetic one has no corporate
actions, and only one with `options` has an option chain."""

import dagster as dg
import polars as pl

from odin_assets.partitions import ONE_RUN, partitions_of, session_of
from odin_assets.resources import OdinHome, around, tell, users_mistakes
from odin_core.market.bars import BARS, KEY
from odin_core.market.fetching import FetchProgress, can_fetch, fetch_market
from odin_core.market.profile import load_profile

OWNERS = ["team:market-data"]


def market_assets(market: str) -> list[dg.AssetsDefinition]:
    profile = load_profile(market)
    shared = {
        "key_prefix": market,
        "partitions_def": partitions_of(market).sessions,
        "backfill_policy": ONE_RUN,
        "group_name": "market",
        "owners": OWNERS,
        "kinds": {"parquet", "polars"},
    }
    sound = dg.AssetCheckSpec(
        "bars_are_sound",
        asset=dg.AssetKey([market, "price_history"]),
        blocking=True,
        description="Schema, key and OHLC order hold in every session of the run.",
    )

    @dg.asset(**shared, code_version="2", check_specs=[sound])
    def price_history(context: dg.AssetExecutionContext, odin: OdinHome) -> dg.MaterializeResult:
        """One-minute bars of the universe, raw, stamped with their start and usable from their end (`known_at`).

        Where the market's source can be asked, what is missing of the sessions is fetched first."""
        with users_mistakes():
            if can_fetch(profile):
                _fetch(context, market, odin)
            data = odin.data(market)
            unsound: dict[str, str] = {}
            for key in context.partition_keys:
                bars = data.bars(session_of(key))
                if fault := fault_of(bars):
                    unsound[key] = fault
                numbers = {
                    "rows": bars.height,
                    "symbols": bars["symbol"].n_unique(),
                    "volume": float(bars["volume"].sum() or 0),
                }
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)
                tell("price_history", key)
        check = dg.AssetCheckResult(check_name="bars_are_sound", passed=not unsound, metadata={"sessions": unsound})
        return dg.MaterializeResult(check_results=[check])

    @dg.asset(**shared, code_version="1", deps=[price_history])
    def data_quality(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """Gaps, stale repeats, outliers, few bars: one row per finding and session."""
        with users_mistakes():
            data = odin.data(market)
            for key in context.partition_keys:
                findings = data.defects(session_of(key)) if data.has(session_of(key)) else None
                numbers = {
                    "findings": 0 if findings is None else findings.height,
                    "has_bars": int(findings is not None),
                }
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)

    return [price_history, data_quality]


def _fetch(context: dg.AssetExecutionContext, market: str, odin: OdinHome) -> None:
    """Ask the source for what is missing of the run's sessions, and say in the run's log how far it is."""
    home = odin.open()

    def say(step: FetchProgress) -> None:
        context.log.info(f"{step.window} {step.symbol}: {step.done} of {step.total}")

    with home.writer(f"fetching {market}"):
        sessions = [session_of(key) for key in context.partition_keys]
        report = fetch_market(home, load_profile(market), around(), sessions, progress=say)
    context.log.info(report.to_text())
    for symbol, why in report.refused.items():
        context.log.warning(f"{symbol}: {why}")


def fault_of(bars: pl.DataFrame) -> str | None:
    """The first rule that a session's bars break; None where they are sound or there are none."""
    if bars.schema != BARS:
        return f"columns are {dict(bars.schema)}"
    rules = {
        "(symbol, ts) is unique": ~pl.struct(KEY).is_duplicated(),
        "prices are positive": pl.min_horizontal("open", "high", "low", "close") > 0,
        "high and low enclose open and close": (pl.col("high") >= pl.max_horizontal("open", "close"))
        & (pl.col("low") <= pl.min_horizontal("open", "close")),
        "known_at is after ts": pl.col("known_at") > pl.col("ts"),
    }
    holds = bars.select(**{rule: condition.all() for rule, condition in rules.items()}).row(0, named=True)
    return next((rule for rule, ok in holds.items() if not ok), None)
