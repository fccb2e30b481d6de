"""Group features: one row per symbol as known at each session's close."""

import dagster as dg

from odin_assets.assets.reference import reference_names
from odin_assets.partitions import ONE_RUN, partitions_of, session_of
from odin_assets.resources import OdinHome, tell, users_mistakes
from odin_core.features.catalogue import features_version


def feature_assets(market: str) -> list[dg.AssetsDefinition]:
    actions = [name for name in reference_names(market) if name == "corporate_actions"]  # earlier prices are adjusted

    @dg.asset(
        key_prefix=market,
        partitions_def=partitions_of(market).sessions,
        deps=[dg.AssetKey([market, name]) for name in ("price_history", "data_quality", *actions)],
        backfill_policy=ONE_RUN,
        group_name="features",
        owners=["team:research"],
        kinds={"parquet", "numba"},
        code_version=features_version(),
    )
    def features(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """Technical features over 5, 15, 60 minutes and the day, and the volatility regime, as known at the close."""
        with users_mistakes():
            data = odin.data(market)
            for key in context.partition_keys:
                frame = data.features(session_of(key))
                numbers = {"symbols": frame.height, "complete": int(frame["complete"].sum() or 0)}
                ratio = frame["volatility_ratio"][0] if frame.height else None
                numbers |= {"volatility_ratio": ratio} if ratio is not None else {}
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)
                tell("features", key)

    return [features]
