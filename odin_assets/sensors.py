"""Sensors: what the loop, the registry and the runs tell, turned into runs that act on the live life and tell people.

Each keeps its own cursor and does no work of its own: what is to be written is written by the run that it asks for,
under a run key made of what happened, so that a tick evaluated twice asks once, and a session that came out
differently after a rewind asks again. Of several calls for one thing in one tick only the newest becomes a run: a
retrain learns from all sessions up to the head, whichever of them called. They act on the live life; a simulated one
reacts inside the fold."""

import zlib
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

import dagster as dg

from odin_assets.jobs import DeploymentTold, Retrain, Transition, job_names
from odin_assets.resources import OdinHome, around, cleared, market_of, now
from odin_core.errors import OdinError

AFTER_A_FAILURE = timedelta(minutes=15)  # until another delivery is asked for
PAGE = 200  # events looked at per tick; the rest waits for the next one
ON = dg.DefaultSensorStatus.RUNNING
LIFE = "odin/life"  # tag of a run that acts on a life
TOLD = frozenset({"life", "phase", "phase_before", "reason"})  # not by who reports a session in Dagit by hand
Requests = Callable[[dg.EventLogRecord, dict[str, Any]], list[dg.RunRequest]]


def market_sensors(market: str, jobs: dict[str, Any]) -> list[dg.SensorDefinition]:
    """All sensors of one market; `jobs` by name."""
    return [
        _phase_transitions(market, jobs),
        _calls_for_retrain(market, jobs),
        _registry_changes(market, jobs),
        _retrain_overdue(market, jobs),
    ]


def _phase_transitions(market: str, jobs: dict[str, Any]) -> dg.SensorDefinition:
    names = job_names(market)

    @dg.sensor(
        name=f"{market}_phase_transitions",
        jobs=[jobs[names.announce], jobs[names.retrain]],
        minimum_interval_seconds=30,
        default_status=ON,
        description="Announces each phase transition; in a live life it also asks for a retrain through the gate.",
    )
    def phases(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _following(context, market, "no change of phase", requests)

    def requests(record: dg.EventLogRecord, facts: dict[str, Any]) -> list[dg.RunRequest]:
        # Sessions that were skipped count too: the run that made them may have died before Dagster heard of them.
        if not facts.keys() >= TOLD or facts["phase"] == facts["phase_before"]:
            return []
        transition = Transition(
            life=str(facts["life"]), session=str(record.partition_key), phase=int(facts["phase"]),
            phase_before=int(facts["phase_before"]), reason=str(facts["reason"]),
        )  # fmt: skip
        moved = f"{transition.phase_before}-{transition.phase}"
        name = f"{transition.life}:{record.partition_key}:{moved}:{_mark(transition.reason)}"
        config = dg.RunConfig(ops={f"{market}_announce_transition": transition})
        wanted = [
            dg.RunRequest(run_key=f"announce:{name}", job_name=names.announce, run_config=config,
                          tags={LIFE: transition.life})
        ]  # fmt: skip
        if facts.get("live"):
            why = f"phase {transition.phase_before} → {transition.phase}"
            wanted.append(_retrain(market, transition.life, why, f"retrain:{name}"))
        return wanted

    return phases


def _calls_for_retrain(market: str, jobs: dict[str, Any]) -> dg.SensorDefinition:
    names = job_names(market)

    @dg.sensor(
        name=f"{market}_drift_and_drawdown",
        jobs=[jobs[names.retrain], jobs[names.drift_page]],
        minimum_interval_seconds=30,
        default_status=ON,
        description="In a live life: drift or drawdown has halted new entries, so it asks for a retrain through the "
        "gate, and for the drift page that says what moved. The fold's own cool-down lies between two of them.",
    )
    def calls(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _following(context, market, "nothing calls for a retrain", requests)

    def requests(record: dg.EventLogRecord, facts: dict[str, Any]) -> list[dg.RunRequest]:
        why = facts.get("retrain_because")
        if not (why and facts.get("live") and "life" in facts):
            return []
        life = str(facts["life"])
        name = f"{life}:{record.partition_key}:{_mark(str(why))}"
        wanted = [_retrain(market, life, str(why), f"retrain:{name}")]
        if str(why).startswith("drift"):
            wanted.append(dg.RunRequest(run_key=f"drift_page:{name}", job_name=names.drift_page, tags={LIFE: life}))
        return wanted

    return calls


def _registry_changes(market: str, jobs: dict[str, Any]) -> dg.SensorDefinition:
    names = job_names(market)

    @dg.sensor(
        name=f"{market}_registry_changes",
        jobs=[jobs[names.announce_deployment]],
        minimum_interval_seconds=30,
        default_status=ON,
        description="Announces each move of the registry's pointer, and tells the decision service to look again.",
    )
    def changes(context: dg.SensorEvaluationContext, odin: OdinHome) -> dg.SensorResult | dg.SkipReason:
        try:
            life = odin.life(market)
            if life is None:
                return dg.SkipReason(f"{market} has no life yet")
            after, log = _after(context.cursor, life.id), life.registry.log()
            # A log that ends before the cursor is of another database than the last look: told is where it stands.
            fresh = log[-1:] if log and log[-1].revision < after else [d for d in log if d.revision > after][:PAGE]
        except OdinError as mistake:
            return dg.SkipReason(str(mistake))
        if not fresh:
            return dg.SkipReason("the pointer has not moved since the last look")
        requests = [
            dg.RunRequest(
                run_key=f"deployment:{life.id}:{moved.revision}:{_mark(moved.at.isoformat())}",
                job_name=names.announce_deployment,
                run_config=dg.RunConfig(ops={f"{market}_tell_of_deployment": told}),
                tags={LIFE: life.id},
            )
            for moved in fresh
            for told in (DeploymentTold(life=life.id, revision=moved.revision),)
        ]
        return dg.SensorResult(run_requests=requests, cursor=f"{life.id}:{fresh[-1].revision}")

    return changes


def _after(cursor: str | None, life: str) -> int:
    """The revision up to which this life's moves were told."""
    of_life, _, revision = (cursor or "").rpartition(":")
    return int(revision) if of_life == life else 0


def _retrain_overdue(market: str, jobs: dict[str, Any]) -> dg.SensorDefinition:
    names = job_names(market)

    @dg.sensor(
        name=f"{market}_retrain_overdue",
        jobs=[jobs[names.retrain]],
        minimum_interval_seconds=1800,
        default_status=ON,
        description="Asks for a retrain of a live life whose last one lies too many sessions back; once per head.",
    )
    def overdue(odin: OdinHome) -> dg.RunRequest | dg.SkipReason:
        from odin_core.monitoring.facts import sessions_since_retrain
        from odin_core.monitoring.rules import load_config

        try:
            life = odin.life(market)
            if life is None or not life.config.live or life.head is None:
                return dg.SkipReason(f"{market} has no live life with a finished session")
            since = sessions_since_retrain(life, life.head)
            allowed = load_config(life.home).retrain_sessions
        except OdinError as mistake:
            return dg.SkipReason(str(mistake))
        if since <= allowed:
            return dg.SkipReason(f"{since} sessions since the last retrain, {allowed} are allowed")
        return _retrain(market, life.id, f"no retrain for {since} sessions", f"retrain:{life.id}:{life.head}:overdue")

    return overdue


def _retrain(market: str, life: str, why: str, run_key: str) -> dg.RunRequest:
    config = dg.RunConfig(ops={f"{market}_retrain_live": Retrain(life=life, why=why)})
    return dg.RunRequest(run_key=run_key, job_name=job_names(market).retrain, run_config=config, tags={LIFE: life})


def _mark(text: str) -> str:
    """Eight hex digits of a reason: the same event told again has the same, another one after a rewind has not."""
    return f"{zlib.crc32(text.encode()):08x}"


def _newest(requests: list[dg.RunRequest], each: str) -> list[dg.RunRequest]:
    """All requests for the job `each`; of those for any other one only the last of each life."""
    last = {(r.job_name, r.tags.get(LIFE)): r for r in requests}
    return [r for r in requests if r.job_name == each or last[r.job_name, r.tags.get(LIFE)] is r]


def _following(
    context: dg.SensorEvaluationContext, market: str, nothing: str, requests: Requests
) -> dg.SensorResult | dg.SkipReason:
    """What `requests` asks for after each materialisation of `phase_state` since the cursor, oldest first."""
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey([market, "phase_state"]), after_storage_id=int(context.cursor or "0")
        ),
        limit=PAGE,
        ascending=True,
    ).records
    if not found:
        return dg.SkipReason("no session since the last look")
    asked = [request for record in found for request in requests(record, _facts(record))]
    wanted = _newest(asked, each=job_names(market).announce)
    cursor = str(found[-1].storage_id)
    if not wanted:
        return dg.SensorResult(skip_reason=f"{len(found)} sessions, {nothing}", cursor=cursor)
    return dg.SensorResult(run_requests=wanted, cursor=cursor)


def _facts(record: dg.EventLogRecord) -> dict[str, Any]:
    event = record.asset_materialization
    return {name: value.value for name, value in event.metadata.items()} if event else {}


def delivery_sensor(job: Any) -> dg.SensorDefinition:
    @dg.sensor(
        name="alerts_to_deliver",
        job=job,
        minimum_interval_seconds=60,
        default_status=ON,
        description="Asks for a delivery, when it is due, of alerts that a webhook or an e-mail address has not got.",
    )
    def alerts_to_deliver(context: dg.SensorEvaluationContext, odin: OdinHome) -> dg.RunRequest | dg.SkipReason:
        from odin_core.monitoring.channels import channels
        from odin_core.monitoring.delivery import due

        try:
            using = channels(around().secrets)
            waiting = due(odin.open(), using, now()) if using else 0
        except OdinError as mistake:
            return dg.SkipReason(str(mistake))
        if not waiting:
            return dg.SkipReason("nothing is due" if using else "no channel is set: ODIN_SLACK_WEBHOOK, ODIN_SMTP_URL")
        wait = _wait_for(context.instance, job.name)
        if wait:
            return dg.SkipReason(wait)
        return dg.RunRequest(run_key=f"deliver:{now():%Y-%m-%dT%H:%M}")

    return alerts_to_deliver


def _wait_for(instance: dg.DagsterInstance, job: str) -> str:
    """Why no other run of `job` is asked for yet: one is under way, perhaps for hours behind a long run, or one has
    just failed. Nothing where nothing speaks against it."""
    for last in instance.get_run_records(dg.RunsFilter(job_name=job), limit=1):
        if not last.dagster_run.is_finished:
            return "a delivery is under way"
        if last.dagster_run.is_failure and now() - last.update_timestamp.replace(tzinfo=UTC) < AFTER_A_FAILURE:
            return f"the last delivery failed; another one {AFTER_A_FAILURE.total_seconds() / 60:.0f} minutes later"
    return ""


@dg.run_failure_sensor(
    name="failed_runs",
    monitor_all_code_locations=True,  # those of the command line belong to none
    default_status=ON,
    description="Records every failed run, with its error, in failures.jsonl of the home, and raises an alert.",
)
def failed_runs(context: dg.RunFailureSensorContext, odin: OdinHome) -> None:
    from odin_core.monitoring.alerts import raise_alert
    from odin_core.monitoring.failures import record_failure

    run, home, why = context.dagster_run, odin.open(), cleared(_why(context))  # it leaves this machine
    market = market_of(run)
    record_failure(home, at=now(), run_id=run.run_id, job=run.job_name, error=why)
    # Of a delivery once a day: each alert makes another delivery due.
    key = f"failed_run:{run.run_id}" if market else None
    text = f"run of {run.job_name} failed: {why}"
    raise_alert(home, at=now(), market=market or "odin", rule="failed_run", text=text, key=key)


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
