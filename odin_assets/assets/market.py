"""Group market: minute bars by session, and what is wrong with them."""

import dagster as dg
import polars as pl

from odin_assets.partitions import ONE_RUN, partitions_of, session_of
from odin_assets.resources import OdinHome, tell, users_mistakes
from odin_core.market.bars import BARS, KEY

OWNERS = ["team:market-data"]


def market_assets(market: str) -> list[dg.AssetsDefinition]:
    sessions = partitions_of(market).sessions

    @dg.asset(
        key_prefix=market,
        partitions_def=sessions,
        backfill_policy=ONE_RUN,
        group_name="market",
        owners=OWNERS,
        kinds={"parquet", "polars"},
        code_version="1",
        check_specs=[dg.AssetCheckSpec("bars_are_sound", asset=dg.AssetKey([market, "price_history"]), blocking=True,
                                       description="Schema, key and OHLC order hold in every session of the run.")],
    )  # fmt: skip
    def price_history(context: dg.AssetExecutionContext, odin: OdinHome) -> dg.MaterializeResult:
        """One-minute bars of the universe, raw, stamped with their start and usable from their end (`known_at`)."""
        with users_mistakes():
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

    @dg.asset(
        key_prefix=market,
        partitions_def=sessions,
        deps=[price_history],
        backfill_policy=ONE_RUN,
        group_name="market",
        owners=OWNERS,
        kinds={"parquet", "polars"},
        code_version="1",
    )
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
