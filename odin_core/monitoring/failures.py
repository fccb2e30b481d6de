"""Failed runs, one JSON line each in `<home>/failures.jsonl`, once per run."""

import json
from datetime import datetime
from typing import Any

from odin_core.home import Home


def record_failure(home: Home, *, at: datetime, run_id: str, job: str, error: str) -> None:
    """Append a failure unless this run's is there already: a sensor may be evaluated twice for one event."""
    if any(entry["run_id"] == run_id for entry in failures(home)):
        return
    line = json.dumps({"at": at.isoformat(), "run_id": run_id, "job": job, "error": error})
    with (home.root / "failures.jsonl").open("a") as file:
        file.write(line + "\n")


def failures(home: Home) -> list[dict[str, Any]]:
    path = home.root / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
