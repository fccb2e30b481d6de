"""What Dagster costs: the demo bootstrap through `odin bootstrap` less the same sessions, report, catalog and digest
without Dagster. Its import, the embedded PostgreSQL (created, started, stopped) and every recorded event are in it."""

import statistics
from typing import Any

from demo_life import through_dagster, without_dagster

PAIRS = 3


def run() -> list[dict[str, Any]]:
    """One row: seconds, the median difference of pairs of runs, one after the other so that both meet the same load."""
    pairs = [(through_dagster().seconds, without_dagster().seconds) for _ in range(PAIRS)]
    return [
        {
            "bench": "bootstrap_bookkeeping",
            "value": statistics.median(with_it - without for with_it, without in pairs),
            "unit": "s",
            "peer": "the same sessions and reports without Dagster",
            "peer_value": statistics.median(without for _, without in pairs),
        }
    ]
