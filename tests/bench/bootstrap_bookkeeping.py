"""What Dagster costs: the demo bootstrap through `odin bootstrap` less the same sessions, report, catalog and digest
without Dagster. Its import, the embedded PostgreSQL (created, started, stopped) and every recorded event are in it."""

import statistics
from typing import Any

from demo_life import LAST, through_dagster, without_dagster

REPEATS = 3


def run() -> list[dict[str, Any]]:
    """One row: seconds, median less median of three runs each, taken in turn."""
    pairs = [(through_dagster(LAST, n).seconds, without_dagster(LAST, n).seconds) for n in range(REPEATS)]
    plain = statistics.median(seconds for _, seconds in pairs)
    return [
        {
            "bench": "bootstrap_bookkeeping",
            "value": statistics.median(seconds for seconds, _ in pairs) - plain,
            "unit": "s",
            "peer": "the same sessions and reports without Dagster",
            "peer_value": plain,
        }
    ]
