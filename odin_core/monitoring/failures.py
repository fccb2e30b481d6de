"""Failed runs, one JSON line each in `<home>/failures.jsonl`, once per run."""

from datetime import datetime
from typing import Any

from odin_core.home import Home
from odin_core.monitoring.lines import append_line, read_lines

FILE = "failures.jsonl"


def record_failure(home: Home, *, at: datetime, run_id: str, job: str, error: str) -> bool:
    """Append a failure unless this run's is there already: a sensor may be evaluated twice for one event.
    Whether it is new."""
    if any(entry.get("run_id") == run_id for entry in failures(home)):
        return False
    append_line(home.root / FILE, {"at": at.isoformat(), "run_id": run_id, "job": job, "error": error})
    return True


def failures(home: Home) -> list[dict[str, Any]]:
    """Every recorded failure, oldest first."""
    return read_lines(home.root / FILE)
