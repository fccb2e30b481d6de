"""Group loop: the fold as one asset of four outputs.

Decisions need the champion, the champion comes from replay, replay from decisions: acyclic by date, a cycle to Dagster.
So the loop is one multi-asset that cannot be subset, with self-dependencies one session back and nothing else across
time; the champion is asked of the registry, not declared. The thinking is in `odin_core.lifecycle`.

Each session's materialisations are logged as it ends, not yielded for the whole range at the run's end: a run that dies
has told what it finished, one can watch it, and Dagit's plots, which put events of one millisecond into one point, show
every session. The outputs are therefore `skippable`: nothing is left to yield."""

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from odin_assets.assets.learning import log_week
from odin_assets.assets.monitoring import log_drift
from odin_assets.assets.reference import reference_names
from odin_assets.instance import POOL
from odin_assets.partitions import BEFORE, ONE_RUN, partitions_of, session_of
from odin_assets.resources import OdinHome, now, tell, users_mistakes

if TYPE_CHECKING:
    from odin_core.lifecycle.run import SessionResult

# What each holds and what it needs of the same session. All that the step needs from outside comes in at its first
# output: with a second way in, Dagster 1.13 finds the targets of the outputs unequal (it compares subsets with
# `tuple.__ne__`, in which a count that is not computed yet differs from the count) and refuses most backfills.
OUTPUTS = {
    "executions": (
        "What happened in the session: it carries out yesterday's recommendations. One row per leg.",
        ("price_history", "features"),
    ),
    "replay_buffer": (
        "Decisions whose outcome became known: taken, skipped and rejected, in one schema.",
        ("executions",),
    ),
    "phase_state": ("Phase, exploration, equity and the reasons for all of it; one row.", ("replay_buffer",)),
    "recommendations": ("The plan made at this close for the next session.", ("phase_state",)),
}
REFERENCE = ("corporate_actions", "fundamentals")  # and where the market has it
SHOWN = {
    "executions": ("trades", "session_return"),
    "replay_buffer": ("taken", "skipped", "rejected", "reward"),
    "phase_state": (
        "phase",
        "phase_before",
        "epsilon",
        "drawdown",
        "equity",
        "trades",
        "reward",
        "status",
        "reason",
        "drift_score",
        "drift_alarms",
        "retrain_because",
        "retrained_because",
    ),
    "recommendations": ("filtered",),
}


def loop_asset(market: str) -> dg.AssetsDefinition:
    def key(name: str) -> dg.AssetKey:
        return dg.AssetKey([market, name])

    besides = {"executions": [key(name) for name in REFERENCE if name in reference_names(market)]}
    specs = [
        dg.AssetSpec(
            key(name),
            deps=[*map(key, same_session), *besides.get(name, []), dg.AssetDep(key(name), partition_mapping=BEFORE)],
            description=description,
            group_name="loop",
            owners=["team:trading"],
            kinds={"parquet", "numba"},
            code_version="1",
            skippable=True,
        )
        for name, (description, same_session) in OUTPUTS.items()
    ]

    @dg.multi_asset(
        name=f"{market}_loop",
        specs=specs,
        partitions_def=partitions_of(market).sessions,
        backfill_policy=ONE_RUN,
        can_subset=False,
        pool=POOL,
    )
    def loop(context: dg.AssetExecutionContext, odin: OdinHome) -> Iterator[dg.MaterializeResult]:
        from odin_core.lifecycle.run import run_sessions  # brings numba

        sessions = [session_of(k) for k in context.partition_keys]
        with users_mistakes():
            life = odin.life_or_new(market, sessions[0])
            data = odin.data(market)
            is_told = False
            for result in run_sessions(life, data, sessions, clock=now):
                # The week first: a session that is recorded tells a resumed run that all before it was recorded.
                if data.calendar.is_last_session_of_week(result.session):
                    log_week(context, market, life, data.calendar.week_of(result.session), fresh=result.did == "ran")
                _log_session(context, market, life.id, life.config.live, result)
                log_drift(context, market, life, result.session)
                if result.did == "outdated" and not is_told:
                    _say_outdated(context, market, result.session)
                    is_told = True
                tell("loop", str(result.session))
        yield from ()  # a generator, because Dagster expects several outputs of anything else

    return loop


def _log_session(
    context: dg.AssetExecutionContext, market: str, life: str, live: bool, result: "SessionResult"
) -> None:
    """Materialise each output for the session, with the numbers that Dagit plots and sensors read."""
    for name, shown in SHOWN.items():
        numbers = {k: result.summary[k] for k in shown if k in result.summary}
        facts = {"did": result.did, "life": life} | ({"live": live} if name == "phase_state" else {})
        context.log_event(
            dg.AssetMaterialization(
                dg.AssetKey([market, name]), partition=str(result.session), metadata=numbers | facts
            )
        )


def _say_outdated(context: dg.AssetExecutionContext, market: str, session: date) -> None:
    context.log.warning(
        f"the inputs of {session} changed after it was decided on, so it and all sessions after it are outdated; "
        f"nothing was recomputed. To recompute: odin life rewind --market {market} --to <the session before>"
    )
