"""Schedules: after a market's close, the session of the day for its current life; around it, the checks of its data.

A tick only asks: the run it requests is the same partition run as in Dagit, and the fold refuses what may not be run. A
live life that missed evenings catches up in one run; a simulated one is carried on only where the day's session is
next, so that a life of January to June 2023 stays what it is."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from odin_assets.jobs import checks_job, evening_job, evening_job_name, job_names
from odin_assets.resources import OdinHome
from odin_core.errors import OdinError
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.life import Life
from odin_core.market.data import MarketData
from odin_core.market.intake.fetching import can_fetch
from odin_core.market.profile import MarketProfile, load_profile

AFTER_CLOSE = timedelta(minutes=30)
CHECK_AFTER_CLOSE = timedelta(minutes=90)  # by then the evening's run should have brought the session in
WATCH_AFTER_CLOSE = timedelta(minutes=120)
CHECK_BEFORE_OPEN = timedelta(minutes=60)  # early enough for a person to log in at the broker


def daily_schedule(market: str) -> dg.ScheduleDefinition:
    profile = load_profile(market)
    at = datetime.combine(datetime(2000, 1, 1), profile.close) + AFTER_CLOSE

    @dg.schedule(
        name=f"{market}_daily",
        job=evening_job(market),
        cron_schedule=f"{at.minute} {at.hour} * * *",
        execution_timezone=profile.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Half an hour after the close: the session after the life's head, if it is over and has bars.",
    )
    def daily(context: dg.ScheduleEvaluationContext, odin: OdinHome) -> dg.RunRequest | dg.SkipReason:
        try:
            life = odin.life(market)
            if life is None or life.head is None:
                return dg.SkipReason(
                    f"{market} has no life with a finished session yet; start one: odin bootstrap --market {market}"
                )
            return next_run(life, odin.data(market), context.scheduled_execution_time)
        except OdinError as mistake:
            return dg.SkipReason(str(mistake))

    return daily


def next_run(life: Life, data: MarketData, now: datetime) -> dg.RunRequest | dg.SkipReason:
    """The run that carries `life` on at `now` (UTC), or why there is none and what to do about it."""
    market, head = life.market, life.head
    assert head is not None
    following = data.calendar.next(head)
    closes = data.calendar.hours(following).close
    if now < closes:
        return dg.SkipReason(f"{market}: the next session {following} closes at {closes:%Y-%m-%d %H:%M} UTC")
    end = data.profile.last_partition or data.profile.calendar_last
    if following >= end:
        return dg.SkipReason(
            f"{market}: life {life.id} has come to the end of the market's partitions; a later last_partition in its "
            f"profile carries it on"
        )
    last = min(now.date(), end - timedelta(days=1))
    over = [s for s in data.calendar.sessions(following, last) if data.calendar.hours(s).close <= now]
    if len(over) > 1 and not life.config.live:
        return dg.SkipReason(
            f"life {life.id} of {market} is simulated and {len(over)} sessions behind, so it is left as it is. Run on: "
            f"odin bootstrap --market {market} --end {over[-1]}. A live life catches up by itself: "
            f"odin life new --market {market} --set live=true"
        )
    have = over if can_fetch(data.profile) else data.sessions(over[0], over[-1])
    if not have:
        return dg.SkipReason(
            f"{market}: no bars from {over[0]} on yet. Import them (odin data import FILE --market {market}), then "
            f"odin bootstrap --market {market}, or wait for the next evening"
        )
    return _request(life, over[0], have[-1])


def _request(life: Life, first: date, last: date) -> dg.RunRequest:
    job = evening_job_name(life.market)
    if first == last:
        return dg.RunRequest(run_key=f"{life.id}:{first}", partition_key=str(first), job_name=job)
    tags = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
    return dg.RunRequest(run_key=f"{life.id}:{first}:{last}", tags=tags, job_name=job)


def live_schedules(market: str) -> list[dg.ScheduleDefinition]:
    """What happens to a live life by the clock, besides its sessions: the alert rules every evening; on Saturdays the
    drift page; once a week is over its slow learners, once a month is over its encoder."""
    names = job_names(market)
    evening = datetime.combine(datetime(2000, 1, 1), load_profile(market).close) + WATCH_AFTER_CLOSE
    return [
        _live_schedule(
            market,
            "watch",
            names.watch,
            f"{evening.minute} {evening.hour} * * *",
            "Every evening, the alert rules of a live life: late data, overdue retrains, failed runs, drift.",
        ),
        _live_schedule(
            market,
            "weekly_drift_page",
            names.drift_page,
            "0 12 * * 6",
            "On Saturdays, the drift page of a live life.",
        ),
        _live_schedule(
            market,
            "weekly_learners",
            names.learners,
            "0 6 * * *",
            "Once for each week, the morning after its last session: PPO, REINFORCE and what is distilled.",
            _week_over,
        ),
        _live_schedule(
            market,
            "monthly_encoder",
            names.encoder,
            "0 4 * * *",
            "Once for each month, the morning after its last session has bars: the sequence encoder.",
            _month_over,
        ),
    ]


def _week_over(life: Life, data: MarketData, at: datetime) -> str | dg.SkipReason:
    """The partition of the last week whose last session the life has finished: Friday's in one market, Sunday's in one
    that never closes."""
    calendar = data.calendar
    for session in reversed(life.commits()):
        if calendar.hours(session).close <= at and calendar.is_last_session_of_week(session):
            return str(calendar.week_of(session))
    return dg.SkipReason(f"life {life.id} of {life.market} has not finished a week's last session yet")


def _month_over(life: Life, data: MarketData, at: datetime) -> str | dg.SkipReason:
    """The partition of the month before this one, once its last session has bars."""
    from odin_core.encoder.store import last_session

    month = (at.replace(day=1) - timedelta(days=1)).date().replace(day=1)
    if month < data.profile.first_partition.replace(day=1) or last_session(data, month, at) is None:
        return dg.SkipReason(f"{life.market}: the last session of {month:%Y-%m} is not over or has no bars")
    return str(month)


def _live_schedule(
    market: str,
    name: str,
    job: str,
    cron: str,
    description: str,
    over: Callable[[Life, MarketData, datetime], str | dg.SkipReason] | None = None,
) -> dg.ScheduleDefinition:
    """`over`: the partition that is asked for, once, at a tick in the market's own time, or why there is none."""
    zone = load_profile(market).timezone

    @dg.schedule(
        name=f"{market}_{name}",
        job_name=job,
        cron_schedule=cron,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def scheduled(context: dg.ScheduleEvaluationContext, odin: OdinHome) -> dg.RunRequest | dg.SkipReason:
        at, what = context.scheduled_execution_time, job.removeprefix(f"{market}_")
        try:
            life = odin.life(market)
            if life is None or not life.config.live or life.head is None:
                return dg.SkipReason(f"{market} has no live life with a finished session")
            if over is None:
                return dg.RunRequest(run_key=f"{what}:{at:%Y-%m-%d}")
            key = over(life, odin.data(market), at.astimezone(ZoneInfo(zone)))
        except OdinError as mistake:
            return dg.SkipReason(str(mistake))
        if isinstance(key, dg.SkipReason):
            return key
        return dg.RunRequest(run_key=f"{what}:{life.id}:{life.generation}:{key}", partition_key=key)

    return scheduled


def check_schedules(market: str) -> list[dg.ScheduleDefinition]:
    """Of a market whose source is asked for bars: is the token fresh before the open, the history after the close?"""
    profile = load_profile(market)
    if not can_fetch(profile):
        return []
    moments = {
        "token_is_fresh": (profile.open, -CHECK_BEFORE_OPEN),
        "is_up_to_date": (profile.close, CHECK_AFTER_CLOSE),
    }
    return [_check_schedule(profile, name, edge, shift) for name, (edge, shift) in moments.items()]


def _check_schedule(profile: MarketProfile, name: str, edge: time, shift: timedelta) -> dg.ScheduleDefinition:
    at = datetime.combine(datetime(2000, 1, 2), edge) + shift

    @dg.schedule(
        name=f"{profile.name}_{name}",
        job=checks_job(profile.name, name),
        cron_schedule=f"{at.minute} {at.hour} * * *",
        execution_timezone=profile.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Looks whether {name.replace('_', ' ')}, on days of a session, once the market has any bars.",
    )
    def check(context: dg.ScheduleEvaluationContext, odin: OdinHome) -> dg.RunRequest | dg.SkipReason:
        data = MarketData.of(odin.open(), profile.name, LifeConfig())
        if not data.sessions():
            return dg.SkipReason(f"{profile.name} has no bars yet: odin data fetch --market {profile.name} --start …")
        day = context.scheduled_execution_time.astimezone(ZoneInfo(profile.timezone)).date()
        if not (data.calendar.first <= day <= data.calendar.last and data.calendar.is_session(day)):
            return dg.SkipReason(f"{day} is no session of {profile.name}")
        return dg.RunRequest(run_key=f"{name}:{day}")

    return check
