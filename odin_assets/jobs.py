"""Jobs: the session graph of a market as one job, and the two that sensors ask for."""

from datetime import date
from functools import lru_cache

import dagster as dg

from odin_assets.assets.features import RESEARCH
from odin_assets.assets.loop import OUTPUTS
from odin_assets.assets.reference import reference_names
from odin_assets.checks import check_keys
from odin_assets.instance import POOL
from odin_assets.resources import OdinHome, now, users_mistakes

LOOP_NAMES = tuple(OUTPUTS)
UPSTREAM = ("price_history", "data_quality", "features")


def session_job_name(market: str) -> str:
    return f"{market}_session"


def report_job_name(market: str) -> str:
    return f"{market}_report"


def market_jobs(market: str) -> list[dg.JobDefinition]:
    return [_announce(market), _retrain(market)]


@lru_cache(maxsize=16)  # the schedule and the definitions must name the same object
def session_job(market: str):
    """Everything that one session, or a range of them, needs: bars, quality, features and the loop, in one run."""
    keys = [dg.AssetKey([market, name]) for name in (*UPSTREAM, *reference_names(market), *LOOP_NAMES)]
    selection = dg.AssetSelection.assets(*keys)
    if of_the_day := check_keys(market):  # they have hours of their own
        selection -= dg.AssetSelection.checks(*of_the_day)
    return dg.define_asset_job(
        session_job_name(market),
        selection=selection,
        description="One more session, or a range: bars, quality, features, and the loop.",
    )


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

            life = lives.load(odin.open(), config.life)
            session = date.fromisoformat(config.session)
            new = transitions.announce(life, at=now(), session=session, before=config.phase_before,
                                       after=config.phase, reason=config.reason)  # fmt: skip
        text = f"{market}: phase {config.phase_before} → {config.phase} at {config.session}: {config.reason}"
        if not new:
            context.log.info(f"announced before: {text}")
            return
        context.log.info(text)
        facts = {"transition": text, "life": config.life}  # no numbers: Dagit would plot them among the sessions
        key = dg.AssetKey([market, "phase_state"])
        context.log_event(dg.AssetObservation(key, partition=config.session, metadata=facts))

    @dg.job(name=f"{market}_announce", description="Record and announce a phase transition.")
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

    @dg.job(name=f"{market}_retrain", description="Retrain the live life outside its weekly turn, through the gate.")
    def retrain_job() -> None:
        retrain()

    return retrain_job
