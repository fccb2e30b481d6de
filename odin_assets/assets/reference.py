"""Group market: what is known of the instruments besides their bars, each row in the session at whose close it was
first known. Corporate actions and fundamentals are brought in by `odin data actions` and `odin data fundamentals`; open
interest follows from the bars of an options market."""

from typing import Any

import dagster as dg
import polars as pl

from odin_assets.assets.market import of_market
from odin_assets.partitions import session_of
from odin_assets.resources import OdinHome, users_mistakes
from odin_core.market.options.open_interest import open_interest_of, store_open_interest
from odin_core.market.profile import MarketProfile, load_profile
from odin_core.market.reference import actions, fundamentals

KNOWN = {
    actions.TABLE: "Splits, bonuses, dividends, mergers and new names, by when they became known.",
    fundamentals.TABLE: "Fundamental figures, by when they became known.",
}
KNOWN_ROWS = {actions.TABLE: actions.ACTIONS, fundamentals.TABLE: fundamentals.FUNDAMENTALS}


def reference_names(market: str) -> list[str]:
    """Which of these assets a market has: a synthetic one none, an options market open interest besides."""
    profile = load_profile(market)
    if profile.source["kind"] == "synthetic":
        return []
    return [*KNOWN, *(["open_interest"] if profile.underlyings_in else [])]


def reference_assets(market: str) -> list[dg.AssetsDefinition]:
    names = reference_names(market)
    found = [_known(market, table, says) for table, says in KNOWN.items() if table in names]
    return [*found, _open_interest(load_profile(market))] if "open_interest" in names else found


def _known(market: str, table: str, description: str) -> dg.AssetsDefinition:
    @dg.asset(**of_market(market), name=table, code_version="1", description=description)
    def known(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        with users_mistakes():
            lake = odin.open().lake(market)
            for key in context.partition_keys:
                rows = lake.read_or_empty(table, session_of(key), KNOWN_ROWS[table])
                numbers = {"rows": rows.height, "symbols": rows["symbol"].n_unique()}
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)

    return known


def _open_interest(profile: MarketProfile) -> dg.AssetsDefinition:
    market = profile.name

    @dg.asset(**of_market(market), code_version="1", deps=[dg.AssetKey([market, "price_history"])])
    def open_interest(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """Option chains and what they say of each underlying: put-call ratios, open interest and its change, implied
        volatility at the money, max pain, a variance index and India VIX, every five minutes and at the close."""
        with users_mistakes():
            home = odin.open()
            lake, calendar = home.lake(market), odin.data(market).calendar
            indices = [home.lake(name) for name in profile.underlyings_in]
            for key in context.partition_keys:
                session = session_of(key)
                with home.writer(f"open interest of {market}"):
                    tables = open_interest_of(lake, session, profile=profile, calendar=calendar, indices=indices)
                    store_open_interest(lake, session, tables)
                context.add_asset_metadata(_shown(tables.series), asset_key=context.asset_key, partition_key=key)

    return open_interest


def _shown(series: pl.DataFrame) -> dict[str, Any]:
    """The close's numbers of the underlying with the most open interest, for Dagit to plot."""
    if series.is_empty():
        return {"underlyings": 0}
    close = series.filter(pl.col("known_at") == pl.col("known_at").max())
    held = close.with_columns(held=pl.sum_horizontal("call_oi", "put_oi")).sort("held", descending=True)
    first = held.row(0, named=True)
    names = (
        "put_call_oi",
        "put_call_volume",
        "volatility",
        "max_pain",
        "max_pain_distance",
        "variance_index",
        "india_vix",
    )
    return {"underlyings": close.height} | {n: first[n] for n in names if first.get(n) is not None}
