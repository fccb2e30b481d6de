"""Alarms: what somebody must look at, one JSON line each in `<home>/alarms.jsonl`, once a day for the same thing."""

from datetime import datetime
from typing import Any

from odin_core.home import Home
from odin_core.monitoring.lines import append_line, read_lines

FILE = "alarms.jsonl"


def raise_alarm(home: Home, *, at: datetime, market: str, name: str, detail: str) -> bool:
    """Append an alarm unless the same was raised on that day (UTC) already. Whether it is new."""
    entry = {"market": market, "name": name, "detail": detail}
    day = str(at.date())
    if any(entry.items() <= alarm.items() and str(alarm.get("at", "")).startswith(day) for alarm in alarms(home)):
        return False
    append_line(home.root / FILE, {"at": at.isoformat()} | entry)
    return True


def alarms(home: Home) -> list[dict[str, Any]]:
    """Every alarm, oldest first."""
    return read_lines(home.root / FILE)
