"""Rules: what somebody should be told of. Pure: facts of one market in, one finding per thing looked at out.

What comes in is a `Facts`, put together by `facts` (a life's tables), `drift`, and whoever knows the runs and the
calendar. A fact that is not known is None (or NaN), and its rule then says nothing: it neither raises nor recovers.
When a finding is told again, and where it is kept, is `alerts`; who is told is `delivery`."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

from odin_core.errors import OdinError, nearest
from odin_core.home import Home

SEVERITIES: Final = ("information", "warning", "critical")
FILE: Final = "alerts.yaml"


@dataclass(frozen=True, kw_only=True)
class AlertConfig:
    """Thresholds of all rules. `<home>/alerts.yaml` may set any of them, as `name: value` lines."""

    drift_sessions: int = 2  # sessions in a row on which the drift's tripwire must have been set off
    drawdown_share: float = 0.8  # of the cap at which the life halts entries; at the whole cap it is critical
    win_rate: float = 0.35  # lowest share of winning trades among the last sessions'
    win_rate_trades: int = 100  # fewer trades than this say nothing
    error_rate: float = 0.2  # highest share of failed runs among the last day's
    error_runs: int = 2  # fewer failed runs than this are no rate
    stale_sessions: int = 1  # sessions that are over and that bars, or a live life, lack
    retrain_sessions: int = 10  # since the last training; a week has five
    reminder_hours: float = 72.0  # until what stays raised is told again
    cooldown_hours: float = 12.0  # until what was raised, and recovered, may be told again
    mute: tuple[str, ...] = ()  # rules that are not looked at

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise BadAlertSetting(name, getattr(self, name), f"a number from {low:g} to {high:g}")


BOUNDS: Final[dict[str, tuple[float, float]]] = {  # both ends allowed
    "drift_sessions": (1, 1000), "drawdown_share": (0.01, 1), "win_rate": (0, 1), "win_rate_trades": (1, 1e6),
    "error_rate": (0, 1), "error_runs": (1, 1e6), "stale_sessions": (1, 1000), "retrain_sessions": (1, 1000),
    "reminder_hours": (0, 1e5), "cooldown_hours": (0, 1e5),
}  # fmt: skip


class UnknownAlertSetting(OdinError):
    def __init__(self, path: Path, name: object) -> None:
        known = [f.name for f in fields(AlertConfig)]
        super().__init__(f"{path}: there is no setting {name!r}, see `odin alerts rules`; {nearest(str(name), known)}")


class UnknownRule(OdinError):
    def __init__(self, name: object) -> None:
        super().__init__(f"mute: there is no rule {name!r}; {nearest(str(name), RULES)}")


class BadAlertSetting(OdinError):
    def __init__(self, name: str, value: object, rule: str) -> None:
        super().__init__(f"alert setting {name}={value!r}: expected {rule}, see `odin alerts rules`")


class BadAlertFile(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be read as settings of alerts ({why}); write one `name: value` a line")


def load_config(home: Home) -> AlertConfig:
    """The home's settings: the defaults, with what `alerts.yaml` says where that file exists.
    Raises BadAlertFile, UnknownAlertSetting, UnknownRule, BadAlertSetting."""
    import yaml

    path = home.root / FILE
    if not path.is_file():
        return AlertConfig()
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # no UTF-8, or a number of too many digits
        raise BadAlertFile(path, " ".join(str(error).split())) from error
    if given is None:
        return AlertConfig()
    if not isinstance(given, dict):
        raise BadAlertFile(path, f"it holds a {type(given).__name__}")
    known = {f.name: f.default for f in fields(AlertConfig)}
    for name in given:
        if name not in known:
            raise UnknownAlertSetting(path, name)
    return AlertConfig(**{name: _read(name, value, known[name]) for name, value in given.items()})


def _read(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list):
            raise BadAlertSetting(name, value, "a list of rules")
        for rule in listed:
            if str(rule) not in RULES:
                raise UnknownRule(rule)
        return tuple(map(str, listed))
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(default, int) and not whole):
        raise BadAlertSetting(name, value, "a whole number" if isinstance(default, int) else "a number")
    return int(value) if whole else float(value)  # a whole number may be too long for a float; BOUNDS sees to it


class Demotion(NamedTuple):
    """A champion that lost its place, or a life that fell back to an earlier phase."""

    session: date
    version: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one market, and of the life that it drives, when the rules are looked at."""

    market: str
    life: str = ""
    session: date | None = None  # the last finished one
    drift_score: float | None = None  # largest population stability index over features
    drift_threshold: float | None = None
    drift_in_a_row: int | None = None  # sessions up to this one on which the tripwire was set off
    drift_subject: str = ""  # the feature with the largest score
    drawdown: float | None = None  # from the peak, fraction of capital, ≥ 0
    drawdown_cap: float | None = None
    wins: int | None = None
    trades: int | None = None  # complete ones of the sessions that `wins` counts
    runs: int | None = None  # that ended within the last day
    failed_runs: int | None = None
    last_error: str = ""
    sessions_behind: int | None = None  # sessions that are over and lacking: of bars, or of a live life
    sessions_since_retrain: int | None = None
    live_reward: float | None = None  # sum of the champion's session means since its promotion
    band_lower: float | None = None  # of that sum, by the backtest
    band_upper: float | None = None
    band_sessions: int | None = None
    demotions: tuple[Demotion, ...] = field(default=())  # recent ones; each is told once


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule says now. `key` names the thing: findings of one key are the same thing at other times.
    `once`: an event, told once for ever and never recovered from; otherwise a level, raised or not."""

    market: str
    rule: str
    key: str
    raised: bool
    severity: str
    text: str
    session: date | None = None
    value: float | None = None
    threshold: float | None = None
    once: bool = False


def judge(facts: Facts, config: AlertConfig | None = None) -> tuple[Finding, ...]:
    """What every rule that has its facts says of them; rules that are muted are left out."""
    told = config or AlertConfig()
    return tuple(finding for name, rule in RULES.items() if name not in told.mute for finding in rule.look(facts, told))


def _known(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def _finding(facts: Facts, rule: str, raised: bool, text: str, **more: Any) -> Finding:
    about = f"{facts.market}/{facts.life}/{rule}" if facts.life else f"{facts.market}/{rule}"
    part = more.pop("part", "")
    given: dict[str, Any] = {"severity": "warning", "session": facts.session} | more
    key = f"{about}/{part}" if part else about
    return Finding(market=facts.market, rule=rule, key=key, raised=raised, text=text, **given)


def _drift(facts: Facts, config: AlertConfig) -> Iterator[Finding]:
    if facts.drift_in_a_row is None:
        return
    raised = facts.drift_in_a_row >= config.drift_sessions
    score, limit = facts.drift_score, facts.drift_threshold
    numbers = f" (score {score:.3g}, threshold {limit:.3g})" if _known(score, limit) else ""
    where = f", most in {facts.drift_subject}" if facts.drift_subject else ""
    text = (
        f"features have drifted from the champion's training window for {facts.drift_in_a_row} sessions in a row"
        f"{where}{numbers}"
        if raised
        else f"features are within the champion's training window again{numbers}"
    )
    yield _finding(facts, "drift", raised, text, severity="critical", value=score, threshold=limit)


def _drawdown(facts: Facts, config: AlertConfig) -> Iterator[Finding]:
    depth, cap = facts.drawdown, facts.drawdown_cap
    if depth is None or cap is None or not _known(depth, cap):
        return
    level = config.drawdown_share * cap
    text = f"drawdown {depth:.2%} of capital; warned from {level:.2%} on, entries halt at {cap:.2%}"
    yield _finding(facts, "drawdown", depth >= level, text, severity="critical" if depth >= cap else "warning",
                   value=depth, threshold=level)  # fmt: skip


def _low_win_rate(facts: Facts, config: AlertConfig) -> Iterator[Finding]:
    if facts.wins is None or facts.trades is None or facts.trades < config.win_rate_trades:
        return
    rate = facts.wins / facts.trades
    text = f"{facts.wins} of the last {facts.trades} trades won ({rate:.0%}); the least is {config.win_rate:.0%}"
    yield _finding(facts, "low_win_rate", rate < config.win_rate, text, value=rate, threshold=config.win_rate)


def _failing_runs(facts: Facts, config: AlertConfig) -> Iterator[Finding]:
    if facts.failed_runs is None or not facts.runs:
        return
    rate = facts.failed_runs / facts.runs
    raised = facts.failed_runs >= config.error_runs and rate >= config.error_rate
    why = f"; the last error: {facts.last_error}" if facts.last_error and facts.failed_runs else ""
    text = f"{facts.failed_runs} of {facts.runs} runs of the last day failed ({rate:.0%}){why}"
    yield _finding(facts, "failing_runs", raised, text, severity="critical" if rate >= 0.5 else "warning",
                   value=rate, threshold=config.error_rate)  # fmt: skip


def _stale_data(facts: Facts, config: AlertConfig) -> Iterator[Finding]:
    if facts.sessions_behind is None:
        return
    behind = facts.sessions_behind
    text = f"{behind} sessions are over and missing" if behind else "every session that is over is there"
    yield _finding(facts, "stale_data", behind >= config.stale_sessions, text, value=float(behind),
                   threshold=float(config.stale_sessions))  # fmt: skip


def _retrain_overdue(facts: Facts, config: AlertConfig) -> Iterator[Finding]:
    age = facts.sessions_since_retrain
    if age is None:
        return
    text = f"the last training was {age} sessions ago; at most {config.retrain_sessions} are usual"
    yield _finding(facts, "retrain_overdue", age > config.retrain_sessions, text, value=float(age),
                   threshold=float(config.retrain_sessions))  # fmt: skip


def _outside_expectation(facts: Facts, config: AlertConfig) -> Iterator[Finding]:
    total, lower, upper = facts.live_reward, facts.band_lower, facts.band_upper
    if total is None or lower is None or upper is None or not _known(total, lower, upper):
        return
    band = f"rewards since the champion's promotion sum to {total:+.2f}; its backtest leads one to expect {lower:+.2f} "
    text = f"{band}to {upper:+.2f} after {facts.band_sessions} sessions"
    yield _finding(facts, "outside_expectation", total < lower, text, value=total, threshold=lower, part="below")
    yield _finding(facts, "outside_expectation", total > upper, text, value=total, threshold=upper, part="above",
                   severity="information")  # fmt: skip


def _champion_demoted(facts: Facts, config: AlertConfig) -> Iterator[Finding]:
    for lost in facts.demotions:
        text = f"{lost.version} was demoted at the close of {lost.session}: {lost.reason}"
        yield _finding(facts, "champion_demoted", True, text, severity="critical", session=lost.session,
                       part=f"{lost.session}/{lost.version}", once=True)  # fmt: skip


class Rule(NamedTuple):
    meaning: str
    settings: tuple[str, ...]
    look: Callable[[Facts, AlertConfig], Iterator[Finding]]


RULES: Final[dict[str, Rule]] = {
    "drift": Rule("features left the champion's training window", ("drift_sessions",), _drift),
    "drawdown": Rule("equity fell far below its peak", ("drawdown_share",), _drawdown),
    "low_win_rate": Rule("too few trades win", ("win_rate", "win_rate_trades"), _low_win_rate),
    "failing_runs": Rule("too many runs fail", ("error_rate", "error_runs"), _failing_runs),
    "stale_data": Rule("sessions that are over are missing", ("stale_sessions",), _stale_data),
    "retrain_overdue": Rule("nothing was trained for too long", ("retrain_sessions",), _retrain_overdue),
    "outside_expectation": Rule("live rewards left the band of the backtest", (), _outside_expectation),
    "champion_demoted": Rule("a champion lost its place, or a phase was gone back", (), _champion_demoted),
}
