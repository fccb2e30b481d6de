"""What the registry holds, as values: where the pointer stands, moves of it, lines of the log; and its refusals."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal

from odin_core.errors import OdinError, nearest

Event = Literal["promoted", "by_person", "rollback", "demoted", "rewound"]
Source = Literal["outside", "fold"]
OUTSIDE: Final = "outside"  # decided by a person or a live retrain: an input of the life, which the fold replays


class ModelCorrupt(OdinError):
    def __init__(self, where: str, version: str, why: str) -> None:
        super().__init__(
            f"{where}: model {version} is damaged ({why}) and is not used. Restore it from a backup (odin registry "
            f"restore FILE), or rewind the life to before it was trained (odin registry list says when; "
            f"odin life rewind --to SESSION) and run on: it will be trained again"
        )


class NoSuchModel(OdinError):
    def __init__(self, life: str, version: str, known: Iterable[str]) -> None:
        super().__init__(f"life {life} has no model {version!r}; {nearest(version, known)}")


@dataclass(frozen=True)
class Pointer:
    """`revision` 0: never moved. `effective`: first session that `version` decides on. `generation` and `followed`: how
    far the life's own history is in the log."""

    version: str | None
    effective: date | None
    revision: int
    generation: int
    followed: date | None


@dataclass(frozen=True, kw_only=True)
class Move:
    """What should become of the pointer; `version` None takes the champion away."""

    event: Event
    version: str | None
    effective: date
    why: str
    source: Source


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One line of the log. `revision` counts from 1 without holes; `from_version` is the one before's `to_version`."""

    revision: int
    at: datetime
    operator: str
    event: Event
    source: Source
    from_version: str | None
    to_version: str | None
    effective: date
    why: str
    metrics: dict[str, float] = field(default_factory=dict)
