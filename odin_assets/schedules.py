"""Schedules: after a market's close, one more session of its current life."""

from datetime import datetime, timedelta

import dagster as dg

from odin_assets.jobs import session_job, session_job_name
from odin_assets.resources import OdinHome
from odin_core.market.profile import load_profile

AFTER_CLOSE = timedelta(minutes=30)


def daily_schedule(market: str) -> dg.ScheduleDefinition:
    profile = load_profile(market)
    at = datetime.combine(datetime(2000, 1, 1), profile.close) + AFTER_CLOSE

    @dg.schedule(
        name=f"{market}_daily",
        job=session_job(market),
        cron_schedule=f"{at.minute} {at.hour} * * *",
        execution_timezone=profile.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Half an hour after the close: the session after the life's head, if it is over and has bars.",
    )
    def daily(context: dg.ScheduleEvaluationContext, odin: OdinHome) -> dg.RunRequest | dg.SkipReason:
        life = odin.life(market)
        if life is None or life.head is None:
            return dg.SkipReason(f"{market} has no life with a finished session yet: start one with `odin bootstrap`")
        data = odin.data(market)
        session = data.calendar.next(life.head)
        closes = data.calendar.hours(session).close
        if context.scheduled_execution_time < closes:
            return dg.SkipReason(f"{market}: the next session {session} closes at {closes:%Y-%m-%d %H:%M} UTC")
        if not data.has(session) and not any(data.sessions(session)):
            return dg.SkipReason(f"{market}: no bars for {session} yet: odin data import FILE --market {market}")
        return dg.RunRequest(
            run_key=f"{life.id}:{session}", partition_key=str(session), job_name=session_job_name(market)
        )

    return daily
