"""Sensors: phase transitions and failed runs.

Each keeps its own cursor over the event log and does no I/O of its own: what is to be written is written by the run
that it asks for, under a deterministic run key, so that a tick evaluated twice asks once."""

from typing import Any

import dagster as dg

from odin_assets.jobs import Retrain, Transition
from odin_assets.resources import OdinHome, now

PAGE = 200  # events looked at per tick; the rest waits for the next one


def phase_sensor(market: str, jobs: dict[str, dg.JobDefinition]) -> dg.SensorDefinition:
    announce, retrain = jobs[f"{market}_announce"], jobs[f"{market}_retrain"]
    key = dg.AssetKey([market, "phase_state"])

    @dg.sensor(
        name=f"{market}_phase_transitions",
        jobs=[announce, retrain],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Announces each phase transition; in a live life it also asks for a retrain through the gate.",
    )
    def phases(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        after = int(context.cursor or "0")
        found = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, after_storage_id=after), limit=PAGE, ascending=True
        ).records
        if not found:
            return dg.SkipReason("no session since the last look")
        requests = [r for record in found for r in _requests(market, record, announce.name, retrain.name)]
        cursor = str(found[-1].storage_id)
        if not requests:
            return dg.SensorResult(skip_reason=f"{len(found)} sessions, no change of phase", cursor=cursor)
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return phases


def _requests(market: str, record: dg.EventLogRecord, announce: str, retrain: str) -> list[dg.RunRequest]:
    event = record.asset_materialization
    facts: dict[str, Any] = {name: value.value for name, value in event.metadata.items()} if event else {}
    # Sessions that were skipped count too: the run that made them may have been killed before Dagster heard of them.
    if event is None or facts.get("phase") == facts.get("phase_before"):
        return []
    transition = Transition(
        life=str(facts["life"]), session=str(event.partition), phase=int(facts["phase"]),
        phase_before=int(facts["phase_before"]), reason=str(facts["reason"]),
    )  # fmt: skip
    name = f"{transition.life}:{event.partition}:{transition.phase_before}-{transition.phase}"
    wanted = [dg.RunRequest(run_key=f"announce:{name}", job_name=announce,
                            run_config=dg.RunConfig(ops={f"{market}_announce_transition": transition}))]  # fmt: skip
    if facts.get("live"):
        order = Retrain(life=transition.life, why=f"phase {transition.phase_before} → {transition.phase}")
        wanted.append(dg.RunRequest(run_key=f"retrain:{name}", job_name=retrain,
                                    run_config=dg.RunConfig(ops={f"{market}_retrain_live": order})))  # fmt: skip
    return wanted


@dg.run_failure_sensor(
    name="failed_runs",
    monitor_all_code_locations=True,  # those of the command line belong to none
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records every failed run, with its error, in failures.jsonl of the home.",
)
def failed_runs(context: dg.RunFailureSensorContext, odin: OdinHome) -> None:
    from odin_core.monitoring.failures import record_failure

    run = context.dagster_run
    record_failure(odin.open(), at=now(), run_id=run.run_id, job=run.job_name, error=_why(context))


def _why(context: dg.RunFailureSensorContext) -> str:
    """What each failed step said, or the run where it never came to a step."""
    said = []
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        error = data.error
        while error and error.cause:
            error = error.cause
        described = data.user_failure_data.description if data.user_failure_data else None
        said.append(f"{event.step_key}: {described or (error.message.strip() if error else 'failed')}")
    return "; ".join(said) or context.failure_event.message or "the run failed"
