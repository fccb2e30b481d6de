"""The demo life as several benches need it: through `odin bootstrap`, or without Dagster, in a process of its own on a
fresh home that is removed afterwards. As a program (`demo_life.py HOME FIRST LAST`) it is the run without Dagster."""

import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

FIRST, HALF, LAST = date(2023, 1, 2), date(2023, 3, 31), date(2023, 6, 30)
ODIN = Path(sys.executable).with_name("odin")
SAMPLE_SECONDS = 0.2


class Run(NamedTuple):
    seconds: float  # of the whole process
    peak_mb: float  # its memory and its children's, those of the embedded PostgreSQL included


def through_dagster(last: date = LAST) -> Run:
    """`odin bootstrap` of FIRST..last with the defaults of `make demo`."""
    _warm()
    return _fresh([str(ODIN), "bootstrap", "--market", "demo", "--edge", "0.5", "--json"], "--home", last)


def without_dagster(last: date = LAST) -> Run:
    """The same sessions, tables, report, catalog and digest, by calling `odin_core` alone."""
    _warm()
    return _fresh([sys.executable, __file__], None, last)


@cache
def _warm() -> None:
    """One short life, so that nothing measured compiles."""
    _fresh([sys.executable, __file__], None, date(2023, 2, 3))


def _fresh(command: list[str], home_option: str | None, last: date) -> Run:
    with tempfile.TemporaryDirectory(prefix="odin-bench-") as home:
        if home_option:
            command = [*command, home_option, home, "--start", str(FIRST), "--end", str(last)]
        else:
            command = [*command, home, str(FIRST), str(last)]
        return watch(command)


def watch(command: list[str]) -> Run:
    """Run a command to its end. Raises RuntimeError with what it printed where it fails."""
    started, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as errors:
        with psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process:
            while True:
                try:
                    status = process.wait(timeout=SAMPLE_SECONDS)
                    break
                except psutil.TimeoutExpired:
                    peak = max(peak, _memory_mb(process))
        seconds = time.perf_counter() - started
        if status != 0:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {status}:\n{errors.read().decode()}")
    return Run(seconds, peak)


def _memory_mb(process: psutil.Process) -> float:
    """Of a process and all below it; pages that several share count once."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            try:
                memory = one.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
            except psutil.Error:
                continue
    except psutil.Error:
        return 0.0
    return total / 1e6


def main(root: str, first: str, last: str) -> None:
    from odin_core.catalog import build_catalog
    from odin_core.home import open_home
    from odin_core.lifecycle import life as lives
    from odin_core.lifecycle.config import LifeConfig
    from odin_core.lifecycle.digest import life_digest
    from odin_core.lifecycle.report import write_report
    from odin_core.lifecycle.run import run_sessions
    from odin_core.lifecycle.summary import summarise
    from odin_core.market.data import MarketData

    home = open_home(root)
    config = LifeConfig(edge=0.5)
    life = lives.create(home, "demo", config, date.fromisoformat(first))
    data = MarketData.of(home, "demo", config)
    sessions = data.calendar.sessions(life.first_session, date.fromisoformat(last))
    for session in sessions:
        data.bars(session)
        data.defects(session)
        data.decision_rows(session)
    for _ in run_sessions(life, data, sessions, clock=lambda: datetime.now(UTC)):
        pass
    build_catalog(home)
    write_report(life)
    summarise(life)
    life_digest(life)


if __name__ == "__main__":
    main(*sys.argv[1:])
