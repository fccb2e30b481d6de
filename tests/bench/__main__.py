"""`make bench`: speed and memory, each with a plain alternative measured beside it in the same run.

One module here per bench; its `run` gives rows of bench, value, unit, peer, peer_value: rates in units per second,
times in seconds, memory in MB, medians of what the module says. The table is printed and written to `bench.json`."""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

BENCHES = (
    "fill_engine",
    "bootstrap",
    "bootstrap_bookkeeping",
    "bootstrap_scaling",
    "bootstrap_peak_mb",
    "definitions_load",
    "postgres_load",
    "resample",
    "lake_read",
    "import_bars",
    "features",
    "features_one_session",
    "triple_barrier",
    "windows",
    "metrics",
    "combinatorial_folds",
    "block_bootstrap",
    "psi",
    "gate",
    "registry_read",
    "registry_promote",
    "env_batched",
    "env_single",
    "ppo",
    "encoder_small",
    "embeddings",
)
RESULT = Path(__file__).resolve().parents[2] / "bench.json"


def chosen(names: str) -> list[str]:
    """The benches of a comma-separated list, all for an empty one. Exits with what there is on an unknown name."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in BENCHES]
    if unknown:
        sys.exit(f"there is no bench {', '.join(unknown)}; ONLY= takes one or more of {','.join(BENCHES)}")
    return wanted or list(BENCHES)


def table(rows: list[dict[str, Any]]) -> str:
    head = ("bench", "value", "unit", "peer", "peer_value", "value / peer_value")
    cells = [head, *((r["bench"], _number(r["value"]), r["unit"], r["peer"], _number(r["peer_value"]),
                      f"{r['value'] / r['peer_value']:.3g}") for r in rows)]  # fmt: skip
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    names = chosen(os.environ.get("ONLY", ""))
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if load > cores / 2:
        print(f"This machine is busy (load {load:.1f} on {cores} cores): times will come out longer.", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows += import_module(name).run()
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
