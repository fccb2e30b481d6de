"""Phase transitions as they were announced: one note each in the life's ledger, however often it is asked for."""

from datetime import date, datetime

from odin_core.lifecycle.life import Life

NOTE = "phase_transition"


def announce(life: Life, *, at: datetime, session: date, before: int, after: int, reason: str) -> bool:
    """Note a transition at the close of `session`, unless it is noted already. Whether it is new."""
    key = {"session": str(session), "before": before, "after": after, "generation": life.generation}
    if any(key.items() <= note.items() for note in life.notes(NOTE)):
        return False
    life.note(at, NOTE, **key, reason=reason)
    return True
