"""Real ticks of sensors, for tests: what the daemon would ask for, and the runs that it would start."""

from datetime import date
from typing import Any

import dagster as dg
from grownhomes import resource

from odin_assets.build import build_definitions
from odin_core.home import Home

DEFINITIONS = build_definitions(["demo"])


def tick(name: str, instance: dg.DagsterInstance, home: Home, cursor: str | None) -> Any:
    """One evaluation as the daemon makes it: requests or a reason, and the cursor for the next one."""
    repository = DEFINITIONS.get_repository_def()
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, repository_def=repository, resources=resource(home), sensor_name=name
    )
    return repository.get_sensor_def(name).evaluate_tick(context)


def keys(ticked: list[Any]) -> list[str]:
    return [request.run_key for one in ticked for request in one.run_requests]


def told(ticked: list[Any]) -> list[str]:
    """The keys without the mark of the reason at their end."""
    return [key.rpartition(":")[0] for key in keys(ticked)]


def execute(request: Any, instance: dg.DagsterInstance, home: Home) -> dg.ExecuteInProcessResult:
    job = DEFINITIONS.resolve_job_def(request.job_name)
    return job.execute_in_process(
        instance=instance, run_config=request.run_config, resources=resource(home), raise_on_error=False
    )


def materialised(instance: dg.DagsterInstance, session: int, before: int, after: int, **facts: Any) -> None:
    """What the loop tells Dagster of one session."""
    metadata = {"did": "ran", "life": "abc", "phase": after, "phase_before": before, "reason": "why", "live": False}
    partition = date.fromordinal(date(2023, 1, 2).toordinal() + session).isoformat()
    key = dg.AssetKey(["demo", "phase_state"])
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, metadata=metadata | facts))
