"""Alerts: the log that people read, `<home>/alerts.jsonl`, one JSON object a line, appended and never changed.

Two kinds come in. An *event* is told once (`raise_alert`). A *level* is what a rule found (`rules.judge`): it is told
when it is raised, told again after a while if it stays so or grows more severe, and its recovery is told once
(`take_up`). The log is the only memory, so a process that was killed goes on where it stood. Who is told besides the
log is `delivery`."""

import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from odin_core.home import Home
from odin_core.monitoring.lines import append_line, read_lines
from odin_core.monitoring.rules import SEVERITIES, AlertConfig, Facts, Finding, judge, load_config

FILE: Final = "alerts.jsonl"
EARLIER: Final = "alarms.jsonl"  # written by earlier versions; read, never written
STATES: Final = ("event", "raised", "recovered")


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One line of the log. `at` is aware; `id` names this line, `key` the thing that it is about."""

    market: str
    rule: str
    severity: str  # one of SEVERITIES
    text: str
    key: str
    at: datetime
    state: str = "event"  # one of STATES
    session: date | None = None
    value: float | None = None
    threshold: float | None = None

    @property
    def id(self) -> str:
        """Sixteen hex digits by content; a receiver that sees an id twice was told twice of one thing."""
        named = f"{self.key}\n{self.state}\n{self.at.astimezone(UTC).isoformat()}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """One line for people, e.g. `demo: drawdown (critical)`."""
        said = {"event": self.severity, "raised": self.severity, "recovered": "recovered"}[self.state]
        return f"{self.market}: {self.rule.replace('_', ' ')} ({said})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in the log."""
        return asdict(self) | {
            "id": self.id, "at": self.at.astimezone(UTC).isoformat(),
            "session": str(self.session) if self.session else None,
        }  # fmt: skip


def raise_alert(
    home: Home,
    *,
    at: datetime,
    market: str,
    rule: str,
    text: str,
    severity: str = "warning",
    session: date | None = None,
    key: str | None = None,
    value: float | None = None,
    threshold: float | None = None,
) -> bool:
    """Log an event unless it was logged before; whether it is new. `at` is aware.

    With a `key` it is told once for ever; without, the same market, rule and text are told once a day (UTC)."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity={severity!r}: one of {', '.join(SEVERITIES)}")
    about = key or f"{market}/{rule}/{at.astimezone(UTC).date()}/{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    alert = Alert(market=market, rule=rule, severity=severity, text=text, key=about, at=at, session=session,
                  value=value, threshold=threshold)  # fmt: skip
    with locked(home.root / "alerts.lock"):
        if any(before.key == about for before in alerts(home)):
            return False
        append_line(home.root / FILE, alert.to_dict())
    return True


def take_up(home: Home, findings: Iterable[Finding], *, at: datetime, config: AlertConfig) -> list[Alert]:
    """Log what is news among the findings, and return it. `at` is aware.

    Asked again with the same findings nothing is news until `reminder_hours` have passed. What is raised again within
    `cooldown_hours` of its last raising is held back until then, unless it grew more severe: something that goes up
    and down is told twice in that time, once each way."""
    with locked(home.root / "alerts.lock"):
        before = _by_key(alerts(home))
        fresh = [alert for finding in findings if (alert := _news(before.get(finding.key, []), finding, at, config))]
        for alert in fresh:
            append_line(home.root / FILE, alert.to_dict())
    return fresh


def check(home: Home, facts: Facts, *, at: datetime, config: AlertConfig | None = None) -> list[Alert]:
    """Look at every rule and take up what they find. `config` None reads the home's `alerts.yaml`, which raises
    OdinError where it is wrong."""
    settings = config or load_config(home)
    return take_up(home, judge(facts, settings), at=at, config=settings)


def alerts(home: Home) -> list[Alert]:
    """Every alert, oldest first. A line that a kill cut short is passed over."""
    earlier = [_earlier(line) for line in read_lines(home.root / EARLIER)]
    found = [*earlier, *(_alert(line) for line in read_lines(home.root / FILE))]
    return sorted((alert for alert in found if alert), key=lambda alert: alert.at)


def standing(home: Home) -> list[Alert]:
    """Levels that are raised and of which no recovery was told, oldest first; each as it was told last."""
    last = (told[-1] for told in _by_key(alerts(home)).values())
    return sorted((alert for alert in last if alert.state == "raised"), key=lambda alert: alert.at)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes and threads out while the block runs; the kernel frees the lock of one that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _news(before: list[Alert], finding: Finding, at: datetime, config: AlertConfig) -> Alert | None:
    """The line that a finding is worth after those told of its key; None where it is no news."""
    if finding.once:
        return None if before else _line(finding, at, "event")
    raisings = [alert for alert in before if alert.state == "raised"]
    stands = bool(before) and before[-1].state == "raised"
    if not finding.raised:
        return _line(finding, at, "recovered") if stands else None
    if not raisings:
        return _line(finding, at, "raised")
    last = raisings[-1]
    if SEVERITIES.index(finding.severity) > SEVERITIES.index(last.severity):
        return _line(finding, at, "raised")
    wait = timedelta(hours=config.reminder_hours if stands else config.cooldown_hours)
    return _line(finding, at, "raised") if at - last.at >= wait else None


def _line(finding: Finding, at: datetime, state: str) -> Alert:
    severity = "information" if state == "recovered" else finding.severity
    return Alert(
        market=finding.market, rule=finding.rule, severity=severity, text=finding.text, key=finding.key, at=at,
        state=state, session=finding.session, value=finding.value, threshold=finding.threshold,
    )  # fmt: skip


def _by_key(told: Iterable[Alert]) -> dict[str, list[Alert]]:
    found: dict[str, list[Alert]] = {}
    for alert in told:
        found.setdefault(alert.key, []).append(alert)
    return found


def _alert(line: dict[str, Any]) -> Alert | None:
    """A line of the log; None for one that is no alert, as somebody may have edited it."""
    try:
        given = {name: value for name, value in line.items() if name not in ("id", "at", "session")}
        session = date.fromisoformat(line["session"]) if line.get("session") else None
        alert = Alert(**given, at=_aware(line["at"]), session=session)
        valid = alert.state in STATES and alert.severity in SEVERITIES
    except (KeyError, TypeError, ValueError):
        return None
    return alert if valid else None


def _earlier(line: dict[str, Any]) -> Alert | None:
    try:
        key = json.dumps(line, sort_keys=True)
        return Alert(market=line["market"], rule=line["name"], severity="warning", text=line["detail"], key=key,
                     at=_aware(line["at"]))  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def _aware(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
