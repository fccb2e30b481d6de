"""Partitions of a market: exactly one definition of sessions, one of weeks and one of months, shared by all its assets.

Differing start dates split single runs and break windows, so nobody builds a second one. `end_offset=1` makes today's
session, this week and this month exist before they are over. Bars and symbols are rows, never partitions."""

from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from typing import TypedDict

import dagster as dg

from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile


@dataclass(frozen=True)
class MarketPartitions:
    sessions: dg.TimeWindowPartitionsDefinition
    weeks: dg.WeeklyPartitionsDefinition
    months: dg.MonthlyPartitionsDefinition


BEFORE = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
ONE_RUN = dg.BackfillPolicy.single_run()


@lru_cache(maxsize=16)
def partitions_of(market: str) -> MarketPartitions:
    """Sessions (key YYYY-MM-DD), weeks (key: the Monday) and months (key: the first) of a market, from its first
    partition to the calendar's."""
    profile = load_profile(market)
    calendar = session_calendar(profile)
    first, last = profile.first_partition, profile.last_partition or profile.calendar_last
    monday = calendar.week_of(first)
    sessions = dg.TimeWindowPartitionsDefinition(
        start=_midnight(first),
        end=_midnight(last),
        cron_schedule="0 0 * * *",
        fmt="%Y-%m-%d",
        timezone=profile.timezone,
        exclusions=[_midnight(day) for day in calendar.non_sessions(first, last)],
        end_offset=1,
    )
    weeks = dg.WeeklyPartitionsDefinition(
        start_date=_midnight(monday), end_date=_midnight(last), timezone=profile.timezone, day_offset=1, end_offset=1
    )
    months = dg.MonthlyPartitionsDefinition(
        start_date=_midnight(first.replace(day=1)), end_date=_midnight(last), timezone=profile.timezone, end_offset=1
    )
    return MarketPartitions(sessions, weeks, months)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())


class BySession(TypedDict):
    key_prefix: str
    partitions_def: dg.PartitionsDefinition
    backfill_policy: dg.BackfillPolicy
    group_name: str
    owners: list[str]
    kinds: set[str]


def by_session(market: str, group: str, owner: str, *kinds: str) -> BySession:
    """What every asset with a partition per session says of itself: a range of sessions is one run."""
    return {
        "key_prefix": market,
        "partitions_def": partitions_of(market).sessions,
        "backfill_policy": ONE_RUN,
        "group_name": group,
        "owners": [owner],
        "kinds": {*kinds},
    }


def session_of(key: str) -> date:
    return date.fromisoformat(key)
