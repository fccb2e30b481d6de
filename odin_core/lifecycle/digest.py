"""Hashes of what a life says: one per table, over the sessions up to a given one, and one over all tables.

Read from the files themselves, not from what a commit claims, so that a digest also notices damage."""

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import polars as pl

from odin_core.lake import logical_hash
from odin_core.lifecycle.life import Life
from odin_core.market.data import PRICES, MarketData

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "executions": ("decision_id", "leg"),
    "replay_buffer": ("decision_id",),
    "action_outcomes": ("symbol",),
    "recommendations": ("decision_id",),
    "open_decisions": ("decision_id",),
    "phase_state": ("session",),
    "candidate_scores": ("session", "version"),
    "training_dataset": ("session", "table"),
    "evaluation_report": ("criterion",),
    "registry_history": (),
    "drift_report": ("subject",),
    "price_history": ("symbol", "ts"),
    "features": ("symbol",),
}


@dataclass(frozen=True)
class Digest:
    life: str
    through: date | None
    sessions: int
    tables: dict[str, str]
    inputs: dict[str, str]  # shared by lives, so no part of `digest`

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(sorted(self.tables.items())).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {
            "life": self.life, "through": str(self.through) if self.through else None, "sessions": self.sessions,
            "tables": self.tables, "inputs": self.inputs, "digest": self.digest,
        }  # fmt: skip


def life_digest(life: Life, through: date | None = None) -> Digest:
    """Digest of a life's finished sessions up to `through` (default: the head)."""
    sessions = [s for s in life.commits() if s <= (through or date.max)]
    tables: dict[str, Any] = {}
    for session in sessions:
        commit = life.committed(session)
        for table in sorted(commit.tables) if commit else ():
            _absorb(tables.setdefault(table, hashlib.sha256()), life.read(table, session), session, KEYS[table])
    data = MarketData.of(life.home, life.market, life.config)
    inputs = {PRICES: hashlib.sha256(), "features": hashlib.sha256()}
    for session in sessions:
        for name, table in ((PRICES, PRICES), ("features", data.features_table)):
            if data.lake.has(table, session):
                _absorb(inputs[name], data.lake.read(table, session), session, KEYS[name])
    return Digest(life.id, sessions[-1] if sessions else None, len(sessions), _hex(tables), _hex(inputs))


def _absorb(digest: Any, frame: pl.DataFrame, session: date, key: tuple[str, ...]) -> None:
    digest.update(f"{session}:{logical_hash(frame, key)};".encode())


def _hex(digests: dict[str, Any]) -> dict[str, str]:
    return {name: digest.hexdigest() for name, digest in sorted(digests.items())}
