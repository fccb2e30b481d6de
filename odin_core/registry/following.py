"""How the registry keeps up with a life: what an older life left in files, and what its fold decided since.

A life's table `registry_history` is the truth of what its fold did. `follow` writes it into the log of deployments and
moves the pointer; it can be called at any time, by several processes, and again after a kill."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from odin_core.errors import OdinError
from odin_core.lifecycle.life import SessionDamaged
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile
from odin_core.policies.joint import JointPolicy, version_of
from odin_core.registry.bundle import Bundle, bundle_of, facts_of_report
from odin_core.registry.entries import OUTSIDE, Deployment, Move, Pointer
from odin_core.registry.history import HISTORY_TABLE

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.registry.store import Registry

OPERATOR = "the fold"
UNKNOWN = "unknown"


class PromotionsDamaged(OdinError):
    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(
            f"{path} is damaged ({type(error).__name__}: {error}); it holds promotions that the life depends on. "
            f"Mend the line or restore the file: the ledger beside it notes each promotion too"
        )


def registry_of(life: "Life") -> "Registry":
    """The registry as this life sees it. A life that the database does not know begins with what earlier versions of
    ODIN kept in `models/` and `promotions.jsonl` of its folder; on a server, with what the home's own file holds.
    Raises PromotionsDamaged, and ModelCorrupt for a damaged model in that file."""
    from odin_core.registry.database import open_registry  # they bring SQLAlchemy
    from odin_core.registry.store import Registry

    models = life.folder / "models"
    registry = Registry(open_registry(life.home), life.id, life.market, old=models)
    if not registry.is_known() and life.home.registry_url is not None and life.home.registry.is_file():
        before = Registry(open_registry(replace(life.home, registry_url=None)), life.id, life.market, old=models)
        if before.is_known():
            registry.begin(before.saved(), [_as_decided(d) for d in before.log()], before.pointer())
    if not registry.is_known():
        registry.begin(list(_old_models(life, models)), list(_old_promotions(life)))
    return registry


def follow(life: "Life", at: datetime) -> list[Deployment]:
    """Bring pointer and log to what the life's history says; the deployments that were added."""
    registry = life.registry
    pointer = registry.pointer()
    head = life.head
    same = pointer.generation == life.generation
    if not same and pointer.revision:
        moves = [_rewound(life, pointer, head)]
    else:  # where nothing was ever logged, there is nothing to go back from, whichever generation it is
        since = pointer.followed if same and pointer.followed else date.min
        sessions = [s for s in life.lake.sessions(HISTORY_TABLE) if s > since and life.committed(s) is not None]
        moves = [move for session in sessions for move in _moves(life, session)]
        if not sessions:
            return []
        head = sessions[-1]
    return registry.follow(pointer, moves, at, OPERATOR, life.generation, head)


def _as_decided(line: Deployment) -> tuple[Move, datetime, str]:
    move = Move(
        event=line.event, version=line.to_version, effective=line.effective, why=line.why, source=line.source
    )  # fmt: skip
    return move, line.at, line.operator


def _moves(life: "Life", session: date) -> Iterator[Move]:
    events = life.read(HISTORY_TABLE, session)
    for row in events.filter(pl.col("champion_after").ne_missing(pl.col("champion_before"))).iter_rows(named=True):
        yield Move(
            event=row["event"],
            version=row["champion_after"],
            effective=row["effective"],
            why=row["reason"],
            source="fold",
        )


def _rewound(life: "Life", pointer: Pointer, head: date | None) -> Move:
    """To the champion of the generation that counts now."""
    champion = life.read("phase_state", head)["champion"][0] if head else None
    calendar = session_calendar(load_profile(life.market))
    return Move(
        event="rewound",
        version=champion,
        effective=calendar.next(head) if head else life.first_session,
        why=f"rewound to {head or 'the beginning'}: generation {pointer.generation} → {life.generation}",
        source="fold",
    )


def _old_models(life: "Life", folder: Path) -> Iterator[tuple[Bundle, datetime]]:
    """Models that were files, with when they were written. A damaged one stays behind; loading it says so."""
    reports = dict(_reports(life)) if folder.is_dir() else {}
    for path in sorted(folder.glob("*.json")):
        try:
            model = JointPolicy.from_json(path.read_text())
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if version_of(model) == path.stem:
            yield bundle_of(life, path.stem, model, None, reports.get(path.stem)), _written(path)


def _reports(life: "Life") -> Iterator[tuple[str, dict[str, Any]]]:
    """What the weeks' reports say of their candidates, up to the first session that cannot be read: a life that must be
    mended first must still have its models."""
    try:
        for session in life.sessions_with("evaluation_report"):
            report = life.read("evaluation_report", session)
            if report.height and report["version"][0] is not None:
                yield report["version"][0], facts_of_report(report)
    except SessionDamaged:
        return


def _old_promotions(life: "Life") -> Iterator[tuple[Move, datetime, str]]:
    path = life.folder / "promotions.jsonl"
    noted = {(n.get("effective"), n.get("version"), n.get("why")): n for n in life.notes("promotion")}
    try:
        for line in path.read_text().splitlines() if path.is_file() else ():
            entry = json.loads(line)
            version, why, effective = entry["version"], entry["why"], date.fromisoformat(str(entry["effective"]))
            note = noted.get((str(effective), version, why), {})
            at = datetime.fromisoformat(note["at"]) if note else _written(path)
            event = entry.get("event", "by_person")
            move = Move(event=event, version=version, effective=effective, why=why, source=OUTSIDE)
            yield move, at, note.get("operator", UNKNOWN)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PromotionsDamaged(path, error) from error


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
