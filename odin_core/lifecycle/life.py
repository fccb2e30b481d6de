"""A life: (market, configuration, seed, first session) and everything that follows from it, under one folder.

    <home>/lives/<id>/life.json            what it is; the id is its hash
    <home>/lives/<id>/generation           which generation counts ("1" until a rewind)
    <home>/lives/<id>/generations/<n>/     its tables, one file per session, and commits/<session>.json
    <home>/lives/<id>/ledger.jsonl         when, how long, who: outside every digest
    <home>/lives/current/<market>          the id of the life that Dagit, schedules and commands drive
    <home>/registry.db                     its models, and what a person decided: an input of the life

A session counts from the moment its commit file is there, which is written last; whatever lies beyond the last commit
is overwritten by the next run with the same bytes."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from odin_core.errors import OdinError, nearest
from odin_core.home import Home
from odin_core.lake import FILE, Lake, PartitionMissing, PartitionUnreadable, write_text
from odin_core.lifecycle.config import LifeConfig, from_dict, identity

if TYPE_CHECKING:
    from odin_core.registry.store import Registry

REPORT = "life.html"  # in the folder `reports`: the page that people read


class StartsTooLate(OdinError):
    def __init__(self, market: str, asked: date, following: date) -> None:
        super().__init__(
            f"{market}: the range starts at {asked}, but the life has only come to the session before {following}. "
            f"Ask for a range that starts at {following} (or earlier: finished sessions are skipped)"
        )


class SessionDamaged(OdinError):
    def __init__(self, life: "Life", session: date, path: Path, why: str) -> None:
        before = max((s for s in life.commits() if s < session), default=life.first_session - timedelta(days=1))
        super().__init__(
            f"life {life.id}: session {session} is finished, but {path} is damaged ({why}). Restore the file from a "
            f"backup, or compute the session again from what came before it: "
            f"odin life rewind --market {life.market} --life {life.id} --to {before}, then run on"
        )


class LifeUnreadable(OdinError):
    def __init__(self, path: Path, why: Exception) -> None:
        super().__init__(
            f"{path} is damaged ({type(why).__name__}: {why}); restore it from a backup, or move its folder out of the "
            f"home and begin the life again (odin life new): the same settings give the same sessions"
        )


class BeforeTheLife(OdinError):
    def __init__(self, market: str, asked: date, first: date) -> None:
        super().__init__(
            f"{market}: the range starts at {asked}, before the life's first session {first}. An earlier start is "
            f"another life: odin life new --market {market} --start {asked}"
        )


class CurrentLifeLost(OdinError):
    def __init__(self, home: Home, market: str, life_id: str) -> None:
        known = sorted(p.parent.name for p in home.lives.glob("*/life.json"))
        super().__init__(
            f"{home.current(market)} names {life_id[:40]!r} as the current life of {market}, which is not there. "
            f"Choose one (odin life use ID; there are {', '.join(known) or 'none'}), or make one "
            f"(odin life new --market {market})"
        )


@dataclass(frozen=True)
class Commit:
    """Proof that a session is finished: what went in, what came out (logical hashes)."""

    session: date
    inputs: dict[str, str]
    tables: dict[str, str]
    code_version: str

    def to_json(self) -> str:
        return json.dumps(
            {
                "session": str(self.session),
                "inputs": self.inputs,
                "tables": self.tables,
                "code_version": self.code_version,
            },
            sort_keys=True,
        )


@dataclass(frozen=True)
class Life:
    home: Home
    market: str
    config: LifeConfig
    first_session: date
    made_as: str | None = field(default=None, compare=False)  # of one on disk, perhaps by code with fewer settings

    @cached_property
    def id(self) -> str:
        return self.made_as or identity(self.market, self.config.to_dict(), self.first_session)

    @property
    def folder(self) -> Path:
        return self.home.lives / self.id

    @cached_property
    def generation(self) -> int:
        return generation_on_disk(self)

    @property
    def lake(self) -> Lake:
        return Lake(self.folder / "generations" / str(self.generation))

    @cached_property
    def registry(self) -> "Registry":
        """Its models and who was put in charge of it, in the home's registry."""
        from odin_core.registry.following import registry_of  # brings SQLAlchemy

        return registry_of(self)

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    def commits(self) -> list[date]:
        return sorted(date.fromisoformat(p.stem) for p in (self.lake.root / "commits").glob("*.json"))

    @property
    def head(self) -> date | None:
        """The last finished session; None before the first."""
        return max(self.commits(), default=None)

    def commit(self, record: Commit) -> None:
        write_text(record.to_json(), self._commit_path(record.session))

    def committed(self, session: date) -> Commit | None:
        path = self._commit_path(session)
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text())
            return Commit(date.fromisoformat(data["session"]), data["inputs"], data["tables"], data["code_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise SessionDamaged(self, session, path, str(error)) from error

    def read(self, table: str, session: date) -> pl.DataFrame:
        """A table of a finished session. Raises SessionDamaged where it is missing or unreadable."""
        try:
            return self.lake.read(table, session)
        except (PartitionMissing, PartitionUnreadable) as error:
            why = "it is missing" if isinstance(error, PartitionMissing) else "it is no readable Parquet file"
            raise SessionDamaged(self, session, self.lake.path(table, session), why) from error

    def sessions_with(self, table: str) -> list[date]:
        """Finished sessions that left this table, ascending, by what their commits say."""
        commits = ((session, self.committed(session)) for session in self.commits())
        return [session for session, commit in commits if commit is not None and table in commit.tables]

    def read_many(self, table: str, sessions: Iterable[date]) -> pl.DataFrame:
        """A table of several finished sessions, one after another; no session gives an empty frame. Columns that older
        code did not write are null."""
        frames = [self.read(table, session) for session in sessions]
        return pl.concat(frames, how="diagonal") if frames else pl.DataFrame()

    def committed_at(self, session: date) -> int:
        """When a finished session was committed, in nanoseconds since 1970, by the file system's clock."""
        return self._commit_path(session).stat().st_mtime_ns

    def _commit_path(self, session: date) -> Path:
        return self.lake.root / "commits" / f"{session}.json"

    def note(self, at: datetime, event: str, **facts: Any) -> None:
        """One line in the ledger: clock time, durations, process. Never part of a digest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"at": at.isoformat(), "event": event, "pid": os.getpid(), **facts}, default=str)
        with (self.folder / "ledger.jsonl").open("a") as file:
            file.write(line + "\n")

    def notes(self, event: str) -> list[dict[str, Any]]:
        """The ledger's lines of one kind, oldest first. A line torn by a power cut is passed over."""
        path = self.folder / "ledger.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        return [entry for line in lines if (entry := _whole(line)).get("event") == event]


def _whole(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def generation_on_disk(life: Life) -> int:
    """The generation that counts now; a `Life` keeps the one that counted when it was first asked."""
    path = life.folder / "generation"
    return int(path.read_text()) if path.is_file() else 1


def create(home: Home, market: str, config: LifeConfig, first_session: date) -> Life:
    """The life with this identity: made, or found where it exists already. It becomes the market's current one."""
    life = Life(home, market, config, first_session)
    if not (life.folder / "life.json").is_file():
        text = json.dumps(
            {"market": market, "first_session": str(first_session), "config": config.to_dict()},
            indent=2,
            sort_keys=True,
        )
        write_text(text, life.folder / "life.json")
    use(home, life)
    return life


def is_current(life: Life) -> bool:
    return _current_id(life.home, life.market) == life.id


def describe(life: Life, *, current: bool) -> dict[str, Any]:
    """What a list of lives shows of one."""
    finished = life.commits()
    return {
        "life": life.id, "current": current, "market": life.market, "seed": life.config.seed, "edge": life.config.edge,
        "live": life.config.live, "first_session": life.first_session, "head": finished[-1] if finished else None,
        "sessions": len(finished), "generation": life.generation,
    }  # fmt: skip


def use(home: Home, life: Life) -> None:
    write_text(life.id, home.current(life.market))


def load(home: Home, life_id: str) -> Life:
    """A life by its id or an unambiguous beginning of it. Raises OdinError, LifeUnreadable."""
    known = [p.parent.name for p in home.lives.glob("*/life.json")]
    matches = [name for name in known if name.startswith(life_id)]
    if len(matches) != 1:
        what = "no life" if not matches else f"{len(matches)} lives"
        raise OdinError(f"{what} in {home.root} begin(s) with {life_id!r}; {nearest(life_id, known)}")
    path = home.lives / matches[0] / "life.json"
    try:
        data = json.loads(path.read_text())
        first = date.fromisoformat(data["first_session"])
        return Life(home, data["market"], from_dict(data["config"]), first, made_as=matches[0])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LifeUnreadable(path, error) from error


def lives(home: Home, market: str | None = None) -> list[Life]:
    found = [load(home, p.parent.name) for p in sorted(home.lives.glob("*/life.json"))]
    return [life for life in found if market in (None, life.market)]


def current(home: Home, market: str) -> Life | None:
    """The market's current life; None where there never was one. Raises CurrentLifeLost, LifeUnreadable."""
    life_id = _current_id(home, market)
    if life_id is not None and not (home.lives / life_id / "life.json").is_file():
        raise CurrentLifeLost(home, market, life_id)
    return load(home, life_id) if life_id is not None else None


def _current_id(home: Home, market: str) -> str | None:
    path = home.current(market)
    return path.read_text(errors="replace").strip() or "nothing" if path.is_file() else None


@dataclass(frozen=True)
class Rewind:
    """What a rewind would do, and does when applied: a new generation up to session `to`; nothing is deleted."""

    life: Life
    to: date
    kept: list[date]
    undone: list[date]

    @property
    def generation(self) -> int:
        existing = [int(p.name) for p in (self.life.folder / "generations").glob("[0-9]*")]
        return max(existing, default=1) + 1

    def to_text(self) -> str:
        span = f"{self.undone[0]} to {self.undone[-1]}" if self.undone else "none"
        return (
            f"life {self.life.id}: generation {self.life.generation} → {self.generation}; keeps {len(self.kept)} "
            f"sessions up to {self.to}; undoes {len(self.undone)} ({span}), which stay on disk in generation "
            f"{self.life.generation}"
        )

    def apply(self) -> None:
        root = self.life.folder / "generations"
        number = self.generation
        temporary = root / f".{number}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for source in self.life.lake.root.glob(f"*/session=*/{FILE}"):
            if date.fromisoformat(source.parent.name.removeprefix("session=")) <= self.to:
                _link(source, temporary / source.relative_to(self.life.lake.root))
        for session in self.kept:
            _link(self.life._commit_path(session), temporary / "commits" / f"{session}.json")
        os.replace(temporary, root / str(number))
        write_text(str(number), self.life.folder / "generation")
        self.life.__dict__.pop("generation", None)  # the cached property of the object that is in use


def plan_rewind(life: Life, to: date) -> Rewind:
    """Back to the finished session `to`; a date before the life's first session undoes all of it."""
    sessions = life.commits()
    if to not in sessions and not (sessions and to < life.first_session):
        span = f"{sessions[0]} to {sessions[-1]}" if sessions else "none yet"
        raise OdinError(f"life {life.id}: {to} is not one of its finished sessions ({span})")
    return Rewind(life, to, [s for s in sessions if s <= to], [s for s in sessions if s > to])


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
