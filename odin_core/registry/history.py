"""The registry: which version is champion from when, which one before, and why.

Its history is a table of the life, one partition per session on which something happened; a promotion by a person is an
input of the life that the fold replays."""

import json
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from odin_core.errors import OdinError, nearest
from odin_core.lake import write_text
from odin_core.lifecycle.life import Life
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile
from odin_core.registry import store

HISTORY: Final = pl.Schema(
    {
        "event": pl.String(),  # promoted, refused, insufficient, by_person or demoted
        "version": pl.String(),  # the one that it is about
        "champion_before": pl.String(),
        "champion_after": pl.String(),
        "effective": pl.Date(),  # first session that the champion afterwards decides on
        "trained_through": pl.Date(),
        "hypothesis": pl.Int64(),
        "reason": pl.String(),
    }
)


def history(life: Life, *, as_of: date | None = None) -> pl.DataFrame:
    """Registry events up to and including session `as_of` (default: the head), with the session, oldest first."""
    sessions = [s for s in life.sessions_with("registry_history") if s <= (as_of or date.max)]
    frames = [life.read("registry_history", s).select(pl.lit(s).alias("session"), pl.all()) for s in sessions]
    return pl.concat(frames) if frames else pl.DataFrame(schema={"session": pl.Date(), **HISTORY})


@dataclass(frozen=True)
class Champion:
    version: str
    since: date  # first session that it decides on


def champion_as_of(life: Life, session: date) -> Champion | None:
    """The champion in force after the close of `session`; it decides on the sessions that follow."""
    events = history(life, as_of=session)
    changes = events.filter(pl.col("champion_after").ne_missing(pl.col("champion_before")))
    if changes.is_empty() or (last := changes.row(-1, named=True))["champion_after"] is None:
        return None
    return Champion(last["champion_after"], last["effective"])


def versions(life: Life) -> list[str]:
    return sorted(p.stem for p in life.models.glob("*.json"))


@dataclass(frozen=True)
class Promotion:
    """A promotion from outside the fold: what would change, and the way to make it so. `version` None takes the
    champion away. `event` as in HISTORY: by_person, or promoted where a live retrain passed the gate."""

    life: Life
    version: str | None
    effective: date
    before: Champion | None
    why: str
    event: str = "by_person"

    def to_text(self) -> str:
        return (
            f"life {self.life.id}, from session {self.effective}: champion "
            f"{self.before.version if self.before else 'none'} → {self.version or 'none'} ({self.why})"
        )

    def apply(self, at: datetime, operator: str) -> None:
        """Append to the life's input; the fold takes it up when it comes to the session before `effective`."""
        entry = {"effective": str(self.effective), "version": self.version, "why": self.why, "event": self.event}
        lines = [json.dumps(e, sort_keys=True) for e in (*_entries(self.life), entry)]
        write_text("\n".join(lines) + "\n", _inputs(self.life))
        facts = {name: value for name, value in entry.items() if name != "event"}
        self.life.note(at, "promotion", operator=operator, **facts)


def plan_promotion(
    life: Life, version: str, effective: date | None, why: str, *, event: str = "by_person"
) -> Promotion:
    """A promotion of a stored model, verified to load. `effective` None is the first session not planned yet.
    Refused for a model that has learned from `effective` or later: one of a generation that was rewound."""
    if version not in versions(life):
        raise OdinError(f"life {life.id} has no model {version!r}; {nearest(version, versions(life))}")
    return Promotion(life, version, _fit_for(life, version, _unplanned(life, effective)), _now(life), why, event)


def plan_rollback(life: Life, effective: date | None, why: str) -> Promotion:
    """Back to the champion before the present one."""
    events = history(life)
    changes = events.filter(pl.col("champion_after").ne_missing(pl.col("champion_before")))
    if changes.is_empty():
        raise OdinError(f"life {life.id} never had a champion: there is nothing to roll back")
    previous = changes.row(-1, named=True)["champion_before"]
    first = _unplanned(life, effective)
    return Promotion(
        life, previous, _fit_for(life, previous, first) if previous else first, _now(life), f"rollback: {why}"
    )


def describe_version(life: Life, version: str) -> dict[str, Any]:
    """What is known of a stored model: its training and each event that concerns it."""
    if version not in versions(life):
        raise OdinError(f"life {life.id} has no model {version!r}; {nearest(version, versions(life))}")
    model = store.load(life.models, version)
    events = history(life).filter(pl.col("version") == version)
    return {
        "version": version,
        "learner": model.name,
        "trained_through": model.trained_through,
        "features": list(model.features),
        "events": [f"{e['session']}: {e['event']} ({e['reason']})" for e in events.iter_rows(named=True)],
    }


def promotions_on(life: Life, effective: date) -> tuple[dict[str, str], ...]:
    """What was decided outside the fold to take effect on `effective`, in the order of entry."""
    return tuple(e for e in _entries(life) if e["effective"] == str(effective))


def _inputs(life: Life) -> Path:
    return life.folder / "promotions.jsonl"


def _entries(life: Life) -> list[dict[str, str]]:
    path = _inputs(life)
    try:
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        return [e | {"effective": str(e["effective"])} for e in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise OdinError(
            f"{path} is damaged ({type(error).__name__}: {error}); it holds promotions that the life depends on. "
            f"Mend the line or restore the file: the ledger beside it notes each promotion too"
        ) from error


def _fit_for(life: Life, version: str, effective: date) -> date:
    """`effective`, if the model loads and had learned from nothing as late."""
    through = store.load(life.models, version).trained_through
    if through >= effective:
        raise OdinError(
            f"{version} was trained on sessions up to {through}, in a generation that was rewound: it cannot decide on "
            f"{effective}. Promote it from a later session on (--effective), or another version"
        )
    return effective


def _now(life: Life) -> Champion | None:
    return champion_as_of(life, life.head) if life.head else None


def _unplanned(life: Life, effective: date | None) -> date:
    """The session on which a promotion takes effect; the plan for the one after the head was made at its close."""
    calendar = session_calendar(load_profile(life.market))
    earliest = calendar.next(life.head, 2) if life.head else calendar.next(life.first_session)
    if effective is None:
        return earliest
    if calendar.require(effective) < earliest:
        past = f"sessions up to {life.head} are finished" if life.head else "no session is finished"
        raise OdinError(
            f"a promotion on {effective} comes too late: {past} and the next one is planned; the earliest is {earliest}"
        )
    return effective
