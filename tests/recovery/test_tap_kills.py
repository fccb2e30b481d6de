"""A tap and its compacting under kill -9, at any moment: what was written is whole, what is missing is said."""

import os
import random
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from odin_core.lake import Lake, logical_hash
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.tap import Tap, compact
from odin_core.market.profile import load_profile
from odin_core.market.sources.source import TICKS

NSE = session_calendar(load_profile("nse"))
SESSION = date(2024, 12, 2)
SECONDS = 0.05  # between two batches
TABLES = ("price_history", "quarantine", "arrivals", "data_quality")

OFFERS = """
import sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
import polars as pl
from odin_core.market.sources.source import TICKS
from odin_core.market.intake.tap import Tap

folder, first, number = Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2]), int(sys.argv[3])
with Tap(folder, "nse", "NSE", now=lambda: first, seconds=float(sys.argv[4])) as tap:
    print("ready", flush=True)
    while True:
        rows = [("AAA", first + timedelta(milliseconds=20 * (number + i)), 100.0, 1.0) for i in range(10)]
        tap.offer(pl.DataFrame(rows, TICKS, orient="row"))
        number += 10
        print(number, tap.counts().written, time.monotonic(), flush=True)
        time.sleep(0.002)
"""

COMPACTS = """
import sys
from datetime import date
from pathlib import Path
from odin_core.lake import Lake
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile
from odin_core.market.intake.tap import compact

calendar = session_calendar(load_profile("nse"))
print("ready", flush=True)
folder, lake, session = Path(sys.argv[1]), Lake(Path(sys.argv[2])), date.fromisoformat(sys.argv[3])
compact(folder, "nse", lake=lake, calendar=calendar, session=session)
"""

DIES = """
import os
calls, replace = {calls}, os.replace

def dies_half_way(source, target):
    global calls
    calls -= 1
    if calls == 0:
        with open(source, "r+b") as file:
            file.truncate(os.path.getsize(source) // 2)
        os._exit(9)
    replace(source, target)

os.replace = dies_half_way
"""


def started(script: str, *arguments: object) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def killed(process: "subprocess.Popen[str]") -> str:
    """What it said until it is killed, now."""
    os.kill(process.pid, signal.SIGKILL)
    return process.communicate()[0]


def batches_of(folder: Path) -> list[Path]:
    files = folder.glob("nse/date=*/exchange=NSE/*.parquet")
    return sorted(files, key=lambda file: int(file.stem))


def wait_for_batches(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(batches_of(folder)) < count:
        assert time.monotonic() < deadline, "the tap writes nothing"
        time.sleep(0.005)


def tapped(folder: Path) -> pl.DataFrame:
    """Every batch, in the order of the numbers; each must be readable."""
    files = batches_of(folder)
    assert [int(file.stem) for file in files] == list(range(1, len(files) + 1))
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])


def digest(lake: Lake) -> dict[str, str]:
    return {table: logical_hash(lake.read(table, SESSION)) for table in TABLES if lake.has(table, SESSION)}


def test_a_killed_tap_has_lost_no_more_than_its_last_seconds_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance, first, kept = random.Random(7), NSE.hours(SESSION).open, 0
    for kill in range(3):
        process = started(OFFERS, tmp_path, first.isoformat(), kept, SECONDS)
        wait_for_batches(tmp_path, len(batches_of(tmp_path)) + 3)
        time.sleep(chance.uniform(0, 0.2) if kill else 2.5)
        at = time.monotonic()
        said = [line.split() for line in killed(process).splitlines()[:-1]]  # the last line may be cut
        there = tapped(tmp_path)
        numbers = ((there["ts"] - first).dt.total_milliseconds() // 20).to_list()
        assert numbers == list(range(len(numbers)))  # nothing is missing before the end, and nothing is there twice
        assert len(numbers) >= kept + int(said[-1][1])  # what counted as written is
        old = [int(number) for number, _, moment in said if float(moment) < at - 2]  # a busy machine's few seconds
        assert len(numbers) >= max(old, default=0)
        assert old or kill
        kept = len(numbers)
    Tap(tmp_path, "nse", "NSE", now=lambda: NSE.hours(SESSION).close).close()
    assert f"the tap was killed and wrote every 0.05 s: rows after {tapped(tmp_path)['ts'].max()}" in caplog.text


def test_what_a_kill_may_have_cost_is_told_with_its_session(tmp_path: Path, lake: Lake) -> None:
    open_at, close_at = NSE.hours(SESSION)
    process = started(OFFERS, tmp_path, open_at.isoformat(), 0, SECONDS)
    wait_for_batches(tmp_path, 2)
    killed(process)
    newest = tapped(tmp_path)["ts"].max()
    Tap(tmp_path, "nse", "NSE", now=lambda: close_at).close()
    report = compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)
    assert report.notes == (
        f"NSE: the tap was killed and wrote every 0.05 s: rows after {newest} may be missing, "
        f"and until {close_at} it was off",
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session's worth of batches, some rows of which lie after the close."""
    folder, hours = tmp_path_factory.mktemp("tap"), NSE.hours(SESSION)
    with Tap(folder, "nse", "NSE", now=lambda: hours.open, seconds=3600) as tap:
        for symbol in ("AAA", "BBB", "CCC"):
            rows = [
                (symbol, hours.open + timedelta(seconds=i), 100 + i % 7 / 10, float(i % 5)) for i in range(0, 23_000, 5)
            ]
            tap.offer(pl.DataFrame(rows, TICKS, orient="row"))
    return folder


@pytest.fixture(scope="module")
def untouched(batches: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    lake = Lake(tmp_path_factory.mktemp("untouched"))
    compact(batches, "nse", lake=lake, calendar=NSE, session=SESSION)
    assert set(digest(lake)) == set(TABLES)
    return digest(lake)


@pytest.mark.parametrize("calls", range(1, len(TABLES) + 1))
def test_compacting_that_dies_within_any_of_its_writes_is_healed_by_compacting_again(
    batches: Path, untouched: dict[str, str], lake: Lake, calls: int
) -> None:
    process = started(DIES.format(calls=calls) + COMPACTS, batches, lake.root, SESSION)
    process.communicate()
    assert process.returncode == 9
    held = digest(lake)
    assert len(held) < len(TABLES)
    assert held.items() <= untouched.items()  # what is there is whole
    compact(batches, "nse", lake=lake, calendar=NSE, session=SESSION)
    assert digest(lake) == untouched


def test_compacting_killed_at_random_moments_ends_with_the_same_bytes(
    batches: Path, untouched: dict[str, str], lake: Lake
) -> None:
    chance = random.Random(11)
    for _ in range(3):
        process = started(COMPACTS, batches, lake.root, SESSION)
        time.sleep(chance.uniform(0, 0.15))
        killed(process)
        assert digest(lake).items() <= untouched.items()
    compact(batches, "nse", lake=lake, calendar=NSE, session=SESSION)
    assert digest(lake) == untouched
