"""The graph of a market, and of several, put together from their profiles. `definitions` does it for all there are."""

import dagster as dg

from odin_assets.assets.catalog import catalog_assets
from odin_assets.assets.encoder import encoder_assets
from odin_assets.assets.evaluation import evaluation_assets
from odin_assets.assets.features import feature_assets
from odin_assets.assets.leaks import leak_assets
from odin_assets.assets.learners import learner_assets
from odin_assets.assets.learning import weekly_assets
from odin_assets.assets.loop import loop_asset
from odin_assets.assets.market import market_assets
from odin_assets.assets.monitoring import monitoring_assets
from odin_assets.assets.reference import reference_assets
from odin_assets.checks import market_checks
from odin_assets.jobs import delivery_job, evening_job, market_jobs, report_job, research_job, session_job
from odin_assets.resources import OdinHome, duckdb_in_memory
from odin_assets.schedules import check_schedules, daily_schedule, live_schedules
from odin_assets.sensors import delivery_sensor, failed_runs, market_sensors


def market_definitions(market: str) -> dg.Definitions:
    """All assets, jobs, schedules and sensors of one market, from its profile."""
    jobs = market_jobs(market)
    assets = [
        *market_assets(market),
        *reference_assets(market),
        *feature_assets(market),
        *leak_assets(market),
        *encoder_assets(market),
        loop_asset(market),
        *weekly_assets(market),
        *learner_assets(market),
        *evaluation_assets(market),
        *monitoring_assets(market),
        *catalog_assets(market),
    ]
    return dg.Definitions(
        assets=assets,
        jobs=[session_job(market), evening_job(market), research_job(market), report_job(market), *jobs],
        asset_checks=market_checks(market),
        schedules=[
            daily_schedule(market),
            *live_schedules(market),
            *check_schedules(market),
        ],
        sensors=market_sensors(market, {job.name: job for job in jobs}),
    )


def build_definitions(markets: list[str]) -> dg.Definitions:
    delivery = delivery_job()
    return dg.Definitions.merge(
        *map(market_definitions, markets),
        dg.Definitions(
            jobs=[delivery],
            sensors=[failed_runs, delivery_sensor(delivery)],
            resources={"odin": OdinHome(path=dg.EnvVar("ODIN_HOME")), "duckdb": duckdb_in_memory()},
            executor=dg.in_process_executor,
        ),
    )
