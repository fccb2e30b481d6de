"""Jobs: the session graph of a market as one job, what people ask for, and what sensors and schedules ask for."""

from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

import dagster as dg

from odin_assets.assets.features import RESEARCH
from odin_assets.assets.loop import OUTPUTS
from odin_assets.assets.reference import reference_names
from odin_assets.checks import check_keys
from odin_assets.instance import POOL
from odin_assets.resources import OdinHome, around, now, users_mistakes

LOOP_NAMES = tuple(OUTPUTS)
UPSTREAM = ("price_history", "data_quality", "features")
MONITORING = ("drift_report", "performance_report")
SHADOWS = ("embeddings", "shadow_decisions")
LEARNERS = ("ppo_policy", "reinforce_policy", "distilled_policy")


class JobNames(NamedTuple):
    """Of the jobs that sensors ask for."""

    announce: str
    retrain: str
    announce_deployment: str
    drift_page: str
    watch: str
    encoder: str
    learners: str


def job_names(market: str) -> JobNames:
    return JobNames(*(f"{market}_{name}" for name in JobNames._fields))


def session_job_name(market: str) -> str:
    return f"{market}_session"


def report_job_name(market: str) -> str:
    return f"{market}_report"


def market_jobs(market: str) -> list[Any]:
    """Those that sensors and schedules ask for, in the order of JobNames."""
    page = dg.define_asset_job(
        job_names(market).drift_page,
        selection=dg.AssetSelection.assets(dg.AssetKey([market, "drift_page"])),
        description="What the champion learned from beside what it meets now, feature by feature.",
    )
    month = dg.define_asset_job(
        job_names(market).encoder,
        selection=dg.AssetSelection.assets(dg.AssetKey([market, "encoder"])),
        description="The sequence encoder of a month that is over.",
    )
    week = dg.define_asset_job(
        job_names(market).learners,
        selection=dg.AssetSelection.assets(*(dg.AssetKey([market, name]) for name in LEARNERS)),
        description="The slow learners of a week that is over: PPO, REINFORCE, the policy distilled of PPO.",
    )
    return [_announce(market), _retrain(market), _announce_deployment(market), page, _watch(market), month, week]


@lru_cache(maxsize=16)  # the schedule and the definitions must name the same object
def session_job(market: str):
    """Everything that one session, or a range of them, needs: bars, quality, features and the loop, in one run."""
    return dg.define_asset_job(
        session_job_name(market),
        selection=_session_selection(market),
        description="One more session, or a range: bars, quality, features, and the loop.",
    )


@lru_cache(maxsize=16)
def evening_job(market: str):
    """What the daily schedule runs: the session, then what people read of it, with its alerts, and the shadows."""
    besides = dg.AssetSelection.assets(*(dg.AssetKey([market, name]) for name in (*MONITORING, *SHADOWS)))
    return dg.define_asset_job(
        evening_job_name(market),
        selection=_session_selection(market) | besides,
        description="One more session, its drift, the evening summary, and what all shadows would have done.",
    )


def evening_job_name(market: str) -> str:
    return f"{market}_evening"


def _session_selection(market: str) -> dg.AssetSelection:
    keys = [dg.AssetKey([market, name]) for name in (*UPSTREAM, *reference_names(market), *LOOP_NAMES)]
    selection = dg.AssetSelection.assets(*keys)
    of_the_day = check_keys(market)  # they have hours of their own
    return selection - dg.AssetSelection.checks(*of_the_day) if of_the_day else selection


@lru_cache(maxsize=16)
def checks_job(market: str, *names: str):
    """Checks of a market's history that no session's run makes."""
    return dg.define_asset_job(
        f"{market}_{'_'.join(names)}",
        selection=dg.AssetSelection.checks(*(key for key in check_keys(market) if key.name in names)),
        description="Looks whether " + " and ".join(name.replace("_", " ") for name in names) + ".",
    )


def research_job(market: str):
    """What learners and people need of a session besides what the loop reads."""
    keys = [dg.AssetKey([market, name]) for name in RESEARCH]
    return dg.define_asset_job(
        f"{market}_research",
        selection=dg.AssetSelection.assets(*keys),
        description="Feature sets, structure and labels of sessions whose bars are there.",
    )


def report_job(market: str):
    """What people read: the catalog and the report."""
    keys = [dg.AssetKey([market, name]) for name in ("catalog", "life_report")]
    return dg.define_asset_job(
        report_job_name(market),
        selection=dg.AssetSelection.assets(*keys),
        description="Catalog and report of the current life.",
    )


class Transition(dg.Config):
    """A phase transition as the event log told it."""

    life: str
    session: str
    phase_before: int
    phase: int
    reason: str


def _announce(market: str) -> dg.JobDefinition:
    @dg.op(name=f"{market}_announce_transition")
    def announce(context: dg.OpExecutionContext, config: Transition, odin: OdinHome) -> None:
        """Record the transition in the life's ledger; say it in the run's log and on the asset in Dagit."""
        with users_mistakes():
            from odin_core.lifecycle import life as lives
            from odin_core.monitoring import transitions
            from odin_core.monitoring.alerts import raise_alert

            life = lives.load(odin.open(), config.life)
            session = date.fromisoformat(config.session)
            text = f"{market}: phase {config.phase_before} → {config.phase} at {config.session}: {config.reason}"
            # First, because it is told once by its key, and nobody asks again after the note.
            raise_alert(life.home, at=now(), market=market, rule="phase_change", severity="information",
                        session=session, text=text, key=f"phase:{config.life}:{life.generation}:{session}")  # fmt: skip
            new = transitions.announce(life, at=now(), session=session, before=config.phase_before,
                                       after=config.phase, reason=config.reason)  # fmt: skip
        if not new:
            context.log.info(f"announced before: {text}")
            return
        context.log.info(text)
        facts = {"transition": text, "life": config.life}  # no numbers: Dagit would plot them among the sessions
        key = dg.AssetKey([market, "phase_state"])
        context.log_event(dg.AssetObservation(key, partition=config.session, metadata=facts))

    @dg.job(name=job_names(market).announce, description="Record and announce a phase transition.")
    def announce_job() -> None:
        announce()

    return announce_job


class Retrain(dg.Config):
    life: str
    why: str


def _retrain(market: str) -> dg.JobDefinition:
    @dg.op(name=f"{market}_retrain_live", pool=POOL)
    def retrain(context: dg.OpExecutionContext, config: Retrain, odin: OdinHome) -> None:
        """Train on everything up to the head and, if the gate passes it, promote for the sessions after the head."""
        with users_mistakes():
            from odin_core.lifecycle import life as lives
            from odin_core.lifecycle.live import retrain_live
            from odin_core.market.data import MarketData

            home = odin.open()
            life = lives.load(home, config.life)
            outcome = retrain_live(life, MarketData.of(home, market, life.config), why=config.why, clock=now)
        context.log.info(f"{market}: {outcome}")

    @dg.job(
        name=job_names(market).retrain, description="Retrain the live life outside its weekly turn, through the gate."
    )
    def retrain_job() -> None:
        retrain()

    return retrain_job


class DeploymentTold(dg.Config):
    """A move of the registry's pointer."""

    life: str
    revision: int


def _announce_deployment(market: str) -> dg.JobDefinition:
    @dg.op(name=f"{market}_tell_of_deployment")
    def announce(context: dg.OpExecutionContext, config: DeploymentTold, odin: OdinHome) -> None:
        """Say who is in charge now and why; ask the decision service, where there is one, to look again."""
        with users_mistakes():
            from odin_core.lifecycle import life as lives
            from odin_core.monitoring.alerts import raise_alert
            from odin_core.monitoring.service import refresh_service

            home = odin.open()
            life = lives.load(home, config.life)
            moved = life.registry.log()[config.revision - 1]
            text = (
                f"{market}: champion {moved.from_version or 'none'} → {moved.to_version or 'none'} from session "
                f"{moved.effective} on ({moved.event} by {moved.operator}: {moved.why})"
            )
            raise_alert(home, at=now(), market=market, rule="registry", severity="information",
                        session=moved.effective, text=text,
                        key=f"deployment:{life.id}:{moved.revision}:{moved.at.isoformat()}")  # fmt: skip
            context.log.info(text)
            context.log.info(refresh_service(around().secrets, market=market, version=moved.to_version))
        facts = {"deployment": text, "life": life.id}
        context.log_event(dg.AssetObservation(dg.AssetKey([market, "registry_pointer"]), metadata=facts))

    @dg.job(name=job_names(market).announce_deployment, description="Announce a move of the registry's pointer.")
    def announce_deployment_job() -> None:
        announce()

    return announce_deployment_job


def _watch(market: str) -> dg.JobDefinition:
    """Alert rules by the clock: they speak also when no session was run."""

    @dg.op(name=f"{market}_look_around")
    def look_around(context: dg.OpExecutionContext, odin: OdinHome) -> None:
        """Judge every alert rule of the current life, with data that are late and runs that failed."""
        from odin_assets.assets.monitoring import facts_now
        from odin_core.monitoring.alerts import check

        with users_mistakes():
            home, life = odin.open(), odin.life(market)
            if life is None:
                context.log.info(f"{market} has no life yet")
                return
            fresh = check(home, facts_now(context.instance, life, odin.data(market), now()), at=now())
        for alert in fresh:
            context.log.warning(f"{alert.rule}: {alert.text}")

    @dg.job(name=job_names(market).watch, description="Judge the alert rules of the current life.")
    def watch() -> None:
        look_around()

    return watch


def delivery_job() -> dg.JobDefinition:
    @dg.op(name="deliver")
    def deliver_alerts(context: dg.OpExecutionContext, odin: OdinHome) -> None:
        """Send what the channels have not got yet. A channel that fails is tried again later, and fails no run."""
        from odin_core.monitoring.channels import channels
        from odin_core.monitoring.delivery import deliver

        with users_mistakes():
            done = deliver(odin.open(), channels(around().secrets), now)
        context.log.info(done.to_text())

    @dg.job(name="deliver_alerts", description="Send alerts to the webhook and e-mail addresses that are set.")
    def deliver_alerts_job() -> None:
        deliver_alerts()

    return deliver_alerts_job
