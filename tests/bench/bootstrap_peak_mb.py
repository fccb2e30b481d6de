"""Memory of the demo bootstrap: the highest sum over `odin bootstrap` and its children, PostgreSQL included. It is flat
in the number of sessions if the whole range needs no more than half of it."""

from typing import Any

from demo_life import HALF, through_dagster


def run() -> list[dict[str, Any]]:
    """One row: MB, one run each."""
    return [
        {
            "bench": "bootstrap_peak_mb",
            "value": through_dagster().peak_mb,
            "unit": "MB",
            "peer": f"half the range, to {HALF}",
            "peer_value": through_dagster(HALF).peak_mb,
        }
    ]
