"""The earlier name of `alerts`: the same log under the words `name` and `detail`."""

from datetime import datetime
from typing import Any

from odin_core.home import Home
from odin_core.monitoring import alerts as log


def raise_alarm(home: Home, *, at: datetime, market: str, name: str, detail: str) -> bool:
    """`alerts.raise_alert`, once a day for the same thing."""
    return log.raise_alert(home, at=at, market=market, rule=name, text=detail)


def alarms(home: Home) -> list[dict[str, Any]]:
    """`alerts.alerts` in the earlier words, oldest first."""
    return [{"at": a.at.isoformat(), "market": a.market, "name": a.rule, "detail": a.text} for a in log.alerts(home)]
