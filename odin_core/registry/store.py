"""The model store and the pointer of one life: bundles by version, and which of them was put in charge last.

Artefacts are named by their content and only ever added; a damaged one is refused by its hash, and stored again by
whatever makes it again. A move of the pointer and its line in the log of deployments are one transaction. What the fold
itself decided, session by session, is in the life's table `registry_history` (`history`); the log follows it
(`following`)."""

import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from odin_core.policies.joint import JointPolicy
from odin_core.registry.bundle import HORIZON, NEEDED, Bundle, bundle_id, canonical, content_hash, model_of
from odin_core.registry.database import RegistryDatabase
from odin_core.registry.entries import Deployment, ModelCorrupt, Move, NoSuchModel, Pointer, Source
from odin_core.registry.tables import artefacts, bundles, deployments, pointers


class Registry:
    """The registry as one life and horizon sees it."""

    def __init__(
        self, database: RegistryDatabase, life: str, market: str, *, old: Path | None = None, horizon: str = HORIZON
    ) -> None:
        """`old`: the folder in which an earlier ODIN kept the life's models as files."""
        self.database, self.life, self.market, self.horizon, self._old = database, life, market, horizon, old

    def save(self, bundle: Bundle, at: datetime) -> None:
        """Store a bundle, unless it is there already; a damaged part of it is stored once more."""
        with self.database.writing() as connection:
            self._save(connection, bundle, at)

    def bundle(self, version: str) -> Bundle:
        """The bundle of that version, the one stored last, each part verified. Raises NoSuchModel, ModelCorrupt."""
        with self.database.reading() as connection:
            return self._bundle(connection, version)

    def model(self, version: str) -> JointPolicy:
        """The policy, verified against its name. Raises NoSuchModel, ModelCorrupt."""
        bundle = self.bundle(version)
        try:
            return model_of(bundle)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelCorrupt(self.database.where, version, f"{type(error).__name__}: {error}") from error

    def facts(self, version: str) -> dict[str, Any]:
        """Where a version came from: dataset, metrics, seed, code … Raises NoSuchModel."""
        with self.database.reading() as connection:
            return json.loads(self._row(connection, version).facts)

    def parts(self, version: str) -> dict[str, str]:
        """kind → SHA-256 of the parts of a version. Raises NoSuchModel."""
        with self.database.reading() as connection:
            return json.loads(self._row(connection, version).parts)

    def versions(self) -> list[str]:
        with self.database.reading() as connection:
            return self._versions(connection)

    def pointer(self) -> Pointer:
        with self.database.reading() as connection:
            return self._pointer(connection)

    def in_charge(self) -> tuple[Pointer, Bundle | None]:
        """The pointer and the bundle that it points to, from one state of the database."""
        with self.database.reading() as connection:
            pointer = self._pointer(connection)
            return pointer, self._bundle(connection, pointer.version) if pointer.version else None

    def log(self, *, effective: date | None = None, source: Source | None = None) -> list[Deployment]:
        """Deployments, oldest first; of one effective session or source where given."""
        query = select(deployments).where(*self._mine(deployments)).order_by(deployments.c.revision)
        query = query if effective is None else query.where(deployments.c.effective == effective)
        query = query if source is None else query.where(deployments.c.source == source)
        with self.database.reading() as connection:
            return [_deployment(row) for row in connection.execute(query)]

    def last(self) -> Deployment | None:
        """The deployment that moved the pointer last."""
        query = select(deployments).where(*self._mine(deployments)).order_by(deployments.c.revision.desc()).limit(1)
        with self.database.reading() as connection:
            row = connection.execute(query).first()
            return _deployment(row) if row is not None else None

    def deploy(self, move: Move, at: datetime, operator: str) -> Deployment:
        """Move the pointer and write the line in the log: both or neither."""
        with self.database.writing() as connection:
            return self._append(connection, self._pointer(connection), move, at, operator)

    def follow(
        self, seen: Pointer, moves: Sequence[Move], at: datetime, operator: str, generation: int, followed: date | None
    ) -> list[Deployment]:
        """Log moves that the fold made, those that the pointer does not show already, and note how far it was followed.
        Nothing is done where another process has followed since the pointer was `seen`."""
        with self.database.writing() as connection:
            pointer, done = self._pointer(connection), []
            if (pointer.generation, pointer.followed) != (seen.generation, seen.followed):
                return []
            for move in moves:
                if move.event == "rewound" or (pointer.version, pointer.effective) != (move.version, move.effective):
                    done.append(self._append(connection, pointer, move, at, operator))
                    pointer = self._pointer(connection)
            connection.execute(
                update(pointers).where(*self._mine(pointers)).values(generation=generation, followed=followed)
            )
            return done

    def begin(
        self,
        inherited: Sequence[tuple[Bundle, datetime]],
        decided: Sequence[tuple[Move, datetime, str]],
        seen: Pointer | None = None,
    ) -> None:
        """Make the pointer of a life that the database does not know, with what the life brings along: bundles and when
        they were made, decisions, when and by whom. `seen`: how far the life was followed where that comes from."""
        with self.database.writing() as connection:
            if self._knows(connection):
                return
            followed = {"generation": seen.generation, "followed": seen.followed} if seen else {"generation": 1}
            connection.execute(insert(pointers).values(**self._key(), revision=0, **followed))
            for bundle, made_at in inherited:
                self._save(connection, bundle, made_at)
            for move, decided_at, operator in decided:
                self._append(connection, self._pointer(connection), move, decided_at, operator)

    def saved(self) -> list[tuple[Bundle, datetime]]:
        """Every version's bundle and when it was made. Raises ModelCorrupt."""
        with self.database.reading() as connection:
            return [
                (self._bundle(connection, v), datetime.fromisoformat(self._row(connection, v).made_at))
                for v in self._versions(connection)
            ]

    def is_known(self) -> bool:
        """Whether the database knows this life."""
        with self.database.reading() as connection:
            return self._knows(connection)

    def verify(self) -> list[str]:
        """What is wrong: parts that do not fit their hash, versions their name, gaps in the log; else nothing."""
        findings = []
        for version in self.versions():
            try:
                self.model(version)
            except ModelCorrupt as error:
                findings.append(str(error))
        log, pointer = self.log(), self.pointer()
        before = None
        for number, entry in enumerate(log, start=1):
            if entry.revision != number:
                findings.append(f"the log goes on with revision {entry.revision} where {number} belongs")
            if entry.from_version != before:
                findings.append(
                    f"revision {entry.revision} begins at {entry.from_version}, the one before ended at {before}"
                )
            before = entry.to_version
        if (pointer.version, pointer.revision) != (before, log[-1].revision if log else 0):
            findings.append(
                f"the pointer says {pointer.version} at revision {pointer.revision}, the log ends at {before}"
            )
        return findings

    def _key(self) -> dict[str, str]:
        return {"life": self.life, "horizon": self.horizon}

    def _mine(self, table: Any) -> tuple[Any, ...]:
        return table.c.life == self.life, table.c.horizon == self.horizon

    def _knows(self, connection: Connection) -> bool:
        return connection.execute(select(pointers.c.revision).where(*self._mine(pointers))).first() is not None

    def _pointer(self, connection: Connection) -> Pointer:
        columns = [pointers.c[name] for name in Pointer.__dataclass_fields__]
        row = connection.execute(select(*columns).where(*self._mine(pointers))).first()
        return Pointer(*row) if row is not None else Pointer(None, None, 0, 1, None)

    def _versions(self, connection: Connection) -> list[str]:
        query = select(bundles.c.version).where(*self._mine(bundles)).distinct().order_by(bundles.c.version)
        return list(connection.execute(query).scalars())

    def _row(self, connection: Connection, version: str) -> Row[Any]:
        query = select(bundles).where(*self._mine(bundles), bundles.c.version == version)
        row = connection.execute(query.order_by(bundles.c.number.desc()).limit(1)).first()
        if row is None and self._old is not None and (path := self._old / f"{version}.json").is_file():
            raise ModelCorrupt(
                str(path), version, "it was not taken over: its content does not have the hash in its name"
            )
        if row is None:
            raise NoSuchModel(self.life, version, self._versions(connection))
        return row

    def _bundle(self, connection: Connection, version: str) -> Bundle:
        row = self._row(connection, version)
        try:
            hashes: dict[str, str] = json.loads(row.parts)
            facts = json.loads(row.facts)
        except ValueError as error:
            raise ModelCorrupt(self.database.where, version, f"its list of parts: {error}") from error
        missing = set(NEEDED) - set(hashes)
        if missing or bundle_id(row.market, row.horizon, row.version, hashes) != row.id:
            why = f"it lacks {', '.join(sorted(missing))}" if missing else "its list of parts was changed"
            raise ModelCorrupt(self.database.where, version, why)
        contents = _contents(connection, hashes.values())
        parts = {}
        for kind, wanted in hashes.items():
            if contents.get(wanted) is None:
                why = "does not have the hash in its name" if wanted in contents else "is missing"
                raise ModelCorrupt(self.database.where, version, f"the content of its part {kind} {why}")
            parts[kind] = contents[wanted]
        return Bundle(row.market, row.horizon, row.version, parts, facts)

    def _save(self, connection: Connection, bundle: Bundle, at: datetime) -> None:
        hashes = bundle.hashes
        _store_artefacts(connection, bundle.parts, hashes, at)
        query = select(bundles.c.id).where(*self._mine(bundles), bundles.c.version == bundle.version)
        if connection.execute(query.order_by(bundles.c.number.desc()).limit(1)).scalar() == bundle.id:
            return
        last = connection.execute(select(func.max(bundles.c.number)).where(*self._mine(bundles))).scalar() or 0
        connection.execute(
            insert(bundles).values(
                **self._key(), number=last + 1, id=bundle.id, market=bundle.market, version=bundle.version,
                parts=canonical(hashes), facts=canonical(bundle.facts), made_at=at.isoformat(),
            )
        )  # fmt: skip

    def _append(self, connection: Connection, pointer: Pointer, move: Move, at: datetime, operator: str) -> Deployment:
        metrics: dict[str, float] = {}
        if move.version is not None:
            told = json.loads(self._row(connection, move.version).facts).get("metrics", {})
            metrics = {name: value for name, value in told.items() if value is not None}
        line = Deployment(
            revision=pointer.revision + 1, at=at, operator=operator, event=move.event, source=move.source,
            from_version=pointer.version, to_version=move.version, effective=move.effective, why=move.why,
            metrics=metrics,
        )  # fmt: skip
        values = {**vars(line), "at": at.isoformat(), "metrics": canonical(metrics)}
        connection.execute(insert(deployments).values(**self._key(), market=self.market, **values))
        moved = {"version": move.version, "effective": move.effective, "revision": line.revision}
        if connection.execute(update(pointers).where(*self._mine(pointers)).values(**moved)).rowcount == 0:
            connection.execute(insert(pointers).values(**self._key(), **moved, generation=pointer.generation))
        return line


def _contents(connection: Connection, hashes: Iterable[str]) -> dict[str, str | None]:
    """The texts of artefacts by hash, the newest copy that is sound; None where none is."""
    query = select(artefacts.c.sha256, artefacts.c.content).where(artefacts.c.sha256.in_(sorted(set(hashes))))
    found: dict[str, str | None] = {}
    for name, content in connection.execute(query.order_by(artefacts.c.copy)):
        try:
            text = bytes(content).decode()
        except UnicodeDecodeError:
            text = None
        sound = text if text is not None and content_hash(text) == name else None
        found[name] = sound if sound is not None else found.get(name)
    return found


def _store_artefacts(connection: Connection, parts: dict[str, str], hashes: dict[str, str], at: datetime) -> None:
    sound = _contents(connection, hashes.values())
    for kind, text in sorted(parts.items()):
        name, content = hashes[kind], text.encode()
        if sound.get(name) is not None:
            continue
        copies = connection.execute(select(func.count()).where(artefacts.c.sha256 == name)).scalar_one()
        connection.execute(
            insert(artefacts).values(
                sha256=name, copy=copies, kind=kind, size=len(content), content=content, added_at=at.isoformat()
            )
        )
        sound[name] = text


def _deployment(row: Row[Any]) -> Deployment:
    values = dict(row._mapping)
    values |= {"at": datetime.fromisoformat(values["at"]), "metrics": json.loads(values["metrics"])}
    return Deployment(**{name: values[name] for name in Deployment.__dataclass_fields__})
