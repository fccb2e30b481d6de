"""Group encoder: the sequence encoder of each month, the state vectors of each session, and what one looks at.

`embeddings` has no declared dependency on `encoder`: a session would ask for its month, and an encoder of its own month
has seen the session. It reads the encoder in force, trained on earlier sessions alone. The thinking is in
`odin_core.encoder`."""

from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from odin_assets.instance import TRAINING
from odin_assets.partitions import ONE_RUN, by_session, partitions_of, session_of
from odin_assets.resources import OdinHome, now, reported, tell, users_mistakes
from odin_assets.versions import code_version

if TYPE_CHECKING:
    from odin_core.encoder.model import TrainedEncoder
    from odin_core.encoder.store import EncoderMonth

STEPS_BETWEEN = 25  # steps of a training between two lines of the log


class EncoderReport(dg.Config):
    """What is looked at."""

    version: str = Field(default="", description="An encoder's version; empty: the one trained last.")
    sessions: int = Field(default=20, description="The last so many sessions with bars.")


def encoder_assets(market: str) -> list[dg.AssetsDefinition]:
    def key(name: str) -> dg.AssetKey:
        return dg.AssetKey([market, name])

    @dg.asset(
        key_prefix=market,
        partitions_def=partitions_of(market).months,
        deps=[key("features"), key("labels")],
        backfill_policy=ONE_RUN,
        pool=TRAINING,
        group_name="encoder",
        owners=["team:research"],
        kinds={"pytorch"},
        code_version=code_version("odin_core.encoder"),
    )
    def encoder(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """The market's sequence encoder, trained on all bars up to the month's end; in force from the month after."""
        from odin_core.configuration import settings_at
        from odin_core.encoder.config import EncoderConfig
        from odin_core.encoder.store import stored, train_month

        with users_mistakes():
            home, data = odin.open(), odin.data(market)
            config = settings_at(home, "encoder", EncoderConfig.small())
            for month in context.partition_keys:
                with home.trainer(f"the training of the encoder of {market}, {month[:7]}"):
                    found = train_month(data, date.fromisoformat(month), config, _telling(context, month), now=now())
                shown = _shown(found, stored(data.lake, found.version)) if found else {"status": "incomplete"}
                context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=month)

    @dg.asset(
        **by_session(market, "encoder", "team:research", "parquet", "pytorch"),
        deps=[key("features")],
        code_version=code_version("odin_core.encoder"),
    )
    def embeddings(context: dg.AssetExecutionContext, odin: OdinHome) -> None:
        """State vectors of every bar of the session by the encoder in force: 256 numbers each."""
        from odin_core.encoder.store import in_force, kept_embeddings, stored

        with users_mistakes():
            data = odin.data(market)
            for partition in context.partition_keys:
                session = session_of(partition)
                encoder = in_force(data.lake, session)
                shown: dict[str, Any] = {"status": "no encoder in force"}
                if encoder:
                    rows = kept_embeddings(data, stored(data.lake, encoder.version), session)
                    shown = {"status": "found", "encoder": encoder.version, "rows": rows.height}
                    shown |= {"symbols": rows["symbol"].n_unique(), "trained_through": str(encoder.trained_through)}
                context.add_asset_metadata(shown, asset_key=context.asset_key, partition_key=partition)
                tell("embeddings", partition)

    @dg.asset(
        key_prefix=market,
        deps=[dg.AssetDep(encoder, partition_mapping=dg.AllPartitionMapping())],
        group_name="encoder",
        owners=["team:research"],
        kinds={"matplotlib"},
        code_version=code_version("odin_core.encoder"),
    )
    def encoder_report(config: EncoderReport, odin: OdinHome) -> dg.MaterializeResult:
        """What an encoder has learned, on sessions after its training: embedding map by regime, reconstructed candles,
        coverage of its quantiles, loss curves."""
        from odin_core.encoder.review import NothingToReview, review

        with users_mistakes():
            data = odin.data(market)
            try:
                found = review(data, config.version or None, sessions=config.sessions)
            except NothingToReview as why:
                if config.version:
                    raise
                return dg.MaterializeResult(metadata={"status": str(why)})
            page = odin.open().reports / f"encoder_{market}_{found.version}.html"
            return reported(page, markdown=found.markdown, html=found.html, picture=found.picture, rows=found.rows)

    return [encoder, embeddings, encoder_report]


def _telling(context: dg.AssetExecutionContext, month: str):
    def told(done: int, total: int, at: str) -> None:
        if done % STEPS_BETWEEN == 0 or done == total:
            context.log.info(f"{month[:7]}: step {done} of {total}, {at}")

    return told


def _shown(found: "EncoderMonth", model: "TrainedEncoder") -> dict[str, Any]:
    """What Dagit shows of a month's encoder; the numbers are plotted."""
    numbers = {name: value for name, value in model.facts.items() if isinstance(value, int | float)}
    return {"status": "found", "encoder": found.version, "trained_through": str(found.trained_through)} | numbers
