"""The registry: which version is champion from when, which one before, and why.

Its history is a table of the life, one partition per session on which something happened; a promotion by a person is an
input of the life that the fold replays, kept in the log of deployments (`store`)."""

from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from odin_core.errors import OdinError
from odin_core.lifecycle.life import Life
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile
from odin_core.policies.joint import JointPolicy
from odin_core.registry.bundle import Bundle, model_of
from odin_core.registry.entries import OUTSIDE, Deployment, Event, Move

if TYPE_CHECKING:
    from odin_core.registry.difference import Applied, Difference

HISTORY_TABLE: Final = "registry_history"
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
    sessions = [s for s in life.sessions_with(HISTORY_TABLE) if s <= (as_of or date.max)]
    frames = [life.read(HISTORY_TABLE, s).select(pl.lit(s).alias("session"), pl.all()) for s in sessions]
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


@dataclass(frozen=True)
class Promotion:
    """A promotion from outside the fold: what would change, and the way to make it so. `version` None takes the
    champion away. `event` as in the log of deployments: by_person, rollback, or promoted where a live retrain passed
    the gate. `before`: who was put in charge last."""

    life: Life
    version: str | None
    effective: date
    before: Champion | None
    why: str
    event: Event = "by_person"
    bundle: Bundle | None = field(default=None, repr=False)  # from a backup, to be stored first

    def to_text(self) -> str:
        return (
            f"life {self.life.id}, from session {self.effective}: champion "
            f"{self.before.version if self.before else 'none'} → {self.version or 'none'} ({self.why})"
        )

    def difference(self, operator: str) -> "Difference":
        """What it would change, for people to read first."""
        from odin_core.registry.difference import difference_of

        return difference_of(self, operator)

    def apply(self, at: datetime, operator: str) -> "Applied":
        """Move the pointer. The fold takes it up when it comes to the session before `effective`; the state before is
        kept as a file, and the change as a patch."""
        from odin_core.registry.difference import applied

        done = applied(self, at, operator)
        self.life.note(
            at, "promotion", operator=operator, effective=str(self.effective), version=self.version, why=self.why
        )
        return done

    @property
    def move(self) -> Move:
        return Move(event=self.event, version=self.version, effective=self.effective, why=self.why, source=OUTSIDE)


def plan_promotion(
    life: Life, version: str, effective: date | None, why: str, *, event: Event = "by_person"
) -> Promotion:
    """A promotion of a stored model, verified to load. `effective` None is the first session not planned yet.
    Refused for a model that has learned from `effective` or later: one of a generation that was rewound."""
    first = _unplanned(life, effective)
    _require_fit(version, life.registry.model(version), first)
    return Promotion(life, version, first, _in_charge(life), why, event)


def plan_rollback(life: Life, effective: date | None, why: str) -> Promotion:
    """Back to the champion before the present one, or before a promotion that is still to take effect."""
    to_come = pending(life)
    if to_come is not None:
        previous = to_come.from_version
    else:
        events = history(life)
        changes = events.filter(pl.col("champion_after").ne_missing(pl.col("champion_before")))
        if changes.is_empty():
            raise OdinError(f"life {life.id} never had a champion: there is nothing to roll back")
        previous = changes.row(-1, named=True)["champion_before"]
    first = _unplanned(life, effective)
    if previous is not None:
        _require_fit(previous, life.registry.model(previous), first)
    return Promotion(life, previous, first, _in_charge(life), f"rollback: {why}", "rollback")


def plan_restore(life: Life, backup: Path, effective: date | None, why: str) -> Promotion:
    """Back to what was in charge when a backup was written; its parts are stored again where they are damaged.
    Raises NoBackup."""
    from odin_core.registry.difference import read_backup

    version, bundle = read_backup(life, backup)
    first = _unplanned(life, effective)
    if version is not None and bundle is not None:
        _require_fit(version, model_of(bundle), first)
    reason = f"restored from {backup.name}: {why}"
    return Promotion(life, version, first, _in_charge(life), reason, "rollback", bundle)


def pending(life: Life) -> Deployment | None:
    """The last decision from outside, where the pointer stands on it and no plan was made with it yet."""
    last = life.registry.last()
    if last is None or last.source != OUTSIDE or last.effective < _unplanned(life, None):
        return None
    return last


def describe_version(life: Life, version: str) -> dict[str, Any]:
    """What is known of a stored model: its training, its parts and each event that concerns it.
    Raises NoSuchModel, ModelCorrupt."""
    model, bundle = life.registry.model(version), life.registry.bundle(version)
    events = history(life).filter(pl.col("version") == version)
    return {
        "version": version,
        "bundle": bundle.id,
        "learner": model.name,
        "trained_through": model.trained_through,
        "features": list(model.features),
        "parts": bundle.hashes,
        "facts": bundle.facts,
        "events": [f"{e['session']}: {e['event']} ({e['reason']})" for e in events.iter_rows(named=True)],
    }


def promotions_on(life: Life, effective: date) -> tuple[dict[str, Any], ...]:
    """What was decided outside the fold to take effect on `effective`, in the order of entry. `event` as the fold
    writes it: a rollback is a decision by a person."""
    return tuple(
        {"effective": str(d.effective), "version": d.to_version, "why": d.why,
         "event": "by_person" if d.event == "rollback" else d.event}
        for d in life.registry.log(effective=effective, source=OUTSIDE)
    )  # fmt: skip


def _require_fit(version: str, model: JointPolicy, effective: date) -> None:
    """Refuse a model that had learned from `effective` or later."""
    through = model.trained_through
    if through >= effective:
        raise OdinError(
            f"{version} was trained on sessions up to {through}, in a generation that was rewound: it cannot decide on "
            f"{effective}. Promote it from a later session on (--effective), or another version"
        )


def _in_charge(life: Life) -> Champion | None:
    """Who was put in charge last: by a decision that is still to take effect, or as of the head."""
    to_come = pending(life)
    if to_come is not None:
        return Champion(to_come.to_version, to_come.effective) if to_come.to_version else None
    if life.head is None:
        return None
    state = life.read("phase_state", life.head).row(0, named=True)
    return Champion(state["champion"], state["champion_since"]) if state["champion"] else None


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
