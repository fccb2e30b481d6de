"""How long a fresh process needs until it has the whole graph, which every run and every code server waits for.
The peer is a process that imports Dagster and nothing else."""

import statistics
import subprocess
import sys
import time
from typing import Any

REPEATS = 5
LOAD = "from odin_assets.definitions import defs; defs.get_repository_def()"


def run() -> list[dict[str, Any]]:
    """One row: seconds of the whole process, interpreter included; medians of five, taken in turn."""
    seconds(LOAD)
    pairs = [(seconds(LOAD), seconds("import dagster")) for _ in range(REPEATS)]
    return [
        {
            "bench": "definitions_load",
            "value": statistics.median(ours for ours, _ in pairs),
            "unit": "s",
            "peer": "a process that only imports dagster",
            "peer_value": statistics.median(bare for _, bare in pairs),
        }
    ]


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started
