"""Groups features and labels: what is known of each symbol at a session's close, and what became of earlier decisions.

The loop needs `features` alone. The others are for research and for learners: a job of their own makes them, and so
does a click. What they hold is the answer of `odin_core.market.data`, `structure.table` and `labels.table`, which a
notebook gets too."""

from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from odin_assets.assets.reference import reference_names
from odin_assets.partitions import by_session, session_of
from odin_assets.resources import OdinHome, reported, tell, users_mistakes
from odin_assets.versions import code_version

RESEARCH = ("feature_sets", "structure", "labels")
"""Assets of these groups that no session's run makes."""


class FeatureSets(dg.Config):
    """What is computed and stored."""

    sets: list[str] = Field(
        default=["technical", "price_action", "cross_section"], description="Sets of `odin features list`."
    )
    interval: str = Field(default="day", description="On bars of 1m, 5m, 15m, 60m or day.")


class FeaturesReport(dg.Config):
    """What the report is about."""

    set: str = Field(default="decision", description="A set of `odin features list`.")
    sessions: int = Field(default=60, description="The last so many that have bars.")


def feature_assets(market: str) -> list[dg.AssetsDefinition]:
    def upstream(*besides: str) -> list[dg.AssetKey]:
        has = reference_names(market)
        names = ["price_history", "data_quality", *(name for name in besides if name in has)]
        return [dg.AssetKey([market, name]) for name in names]

    in_features = by_session(market, "features", "team:research", "parquet", "numba")

    @dg.asset(**in_features, deps=upstream("corporate_actions"), code_version=code_version("odin_core.features"))
    def features(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """What the loop decides on: the set `decision` as known at the close, and the market's volatility regime."""
        with users_mistakes():
            data = odin.data(market)
            for key in context.partition_keys:
                frame = data.decision_rows(session_of(key))
                numbers: dict[str, Any] = {"symbols": frame.height, "complete": int(frame["complete"].sum() or 0)}
                ratio = frame["volatility_ratio"][0] if frame.height else None
                numbers |= {"volatility_ratio": ratio} if ratio is not None else {}
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)
                tell("features", key)

    @dg.asset(
        **in_features,
        deps=upstream("corporate_actions", "fundamentals", "open_interest"),
        code_version=code_version("odin_core.features"),
    )
    def feature_sets(context: dg.AssetExecutionContext, config: FeatureSets, odin: OdinHome) -> None:
        """Whole sets of the catalogue on bars of an interval, for learners and research; the launchpad says which."""
        with users_mistakes():
            data = odin.data(market)
            for key in context.partition_keys:
                numbers: dict[str, Any] = {"interval": config.interval}
                for name in config.sets:
                    rows = data.features(None, config.interval, session_of(key), session_of(key), name)
                    numbers |= {f"{name}_rows": rows.height, f"{name}_known": _known(rows)}
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)

    @dg.asset(**in_features, deps=upstream("corporate_actions"), code_version=code_version("odin_core.structure"))
    def structure(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """Regimes, change points, support and resistance of each symbol, as known at the close."""
        from odin_core.structure.table import structure_at

        with users_mistakes():
            data = odin.data(market)
            for key in context.partition_keys:
                found = structure_at(data, session_of(key))
                shares = {
                    f"share_{name}": found.rows[f"p_{name}"].mean()
                    for name in ("trend", "range", "volatile", "low", "medium", "high")
                }
                numbers = {"symbols": found.rows.height, "levels": found.levels.height}
                numbers |= {name: share for name, share in shares.items() if share is not None}
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)

    @dg.asset(
        **by_session(market, "labels", "team:research", "parquet", "numba"),
        deps=upstream("corporate_actions"),
        code_version=code_version("odin_core.labels"),
    )
    def labels(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """What became of decisions of this session and earlier ones, each in the session in which it became known."""
        from odin_core.labels.table import labels_at

        with users_mistakes():
            data = odin.data(market)
            for key in context.partition_keys:
                found = labels_at(data, session_of(key))
                numbers: dict[str, Any] = {"labels": found.height, "without_value": found["value"].null_count()}
                numbers |= {
                    f"hit_{n}": share
                    for n, share in found.filter(pl.col("label").str.starts_with("triple_barrier"))
                    .group_by("label")
                    .agg((pl.col("value") > 0).mean())
                    .sort("label")
                    .iter_rows()
                    if share is not None
                }
                context.add_asset_metadata(numbers, asset_key=context.asset_key, partition_key=key)

    @dg.asset(
        key_prefix=market,
        deps=[dg.AssetDep(features, partition_mapping=dg.AllPartitionMapping())],
        group_name="features",
        owners=["team:research"],
        kinds={"matplotlib"},
        code_version=code_version("odin_core.features.report"),
    )
    def features_report(config: FeaturesReport, odin: OdinHome) -> dg.MaterializeResult:
        """How complete a set is by session, how its values are distributed, and why some are unknown, with pictures."""
        from odin_core.features.report.features_report import features_report as write_up
        from odin_core.features.report.sample import sessions_with_bars

        with users_mistakes():
            data = odin.data(market)
            recent = sessions_with_bars(data)[-config.sessions :]
            report = write_up(data, config.set, recent[0], recent[-1])
            page = odin.open().reports / f"features_{market}_{config.set}.html"
            picture = ("completeness", report.picture)
            return reported(page, markdown=report.markdown, html=report.html, picture=picture, sessions=len(recent))

    return [features, feature_sets, structure, labels, features_report]


def _known(rows: pl.DataFrame) -> float:
    """The share of a set's values that are known."""
    values = rows.drop("symbol", "known_at", "session")
    cells = values.height * values.width
    return 1.0 - sum(values.null_count().row(0)) / cells if cells else 0.0
