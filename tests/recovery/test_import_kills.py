"""Kills while a file is imported, at any moment: no half partition, and the same lake after the same command again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import nsefiles
import polars as pl
import pytest

from odin_core.lake import Lake, logical_hash
from odin_core.market.intake.importing import import_files

LONG = """
import sys
from odin_core.market.intake import barfiles, spilling
barfiles.BATCH = spilling.BATCH = 3000  # so that the file counts as long
sys.argv[0] = "odin"
from odin_core.cli import main
main()
"""
KILLS = 6


def contents(lake: Lake) -> dict[str, str]:
    """Logical content of every partition; a half one cannot be read and raises."""
    return {f"{t} {s}": logical_hash(lake.read(t, s)) for t in lake.tables() for s in lake.sessions(t)}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bars of two symbols on 12 sessions by symbol and time, some outside the hours, some twice, one without a time."""
    folder = tmp_path_factory.mktemp("bars")
    sessions = nsefiles.CALENDAR.sessions()[200:212]
    days = []
    for symbol in ("INFY", "TCS"):
        for session in sessions:
            opened = nsefiles.CALENDAR.hours(session).open
            ts = pl.datetime_range(opened, opened + timedelta(minutes=380), "1m", eager=True, time_zone="UTC")
            days.append(pl.DataFrame({"ts": ts.cast(pl.Datetime("us", "UTC"))}).with_columns(symbol=pl.lit(symbol)))
    frame = pl.concat(days).with_columns(
        **dict.fromkeys(("open", "high", "low", "close"), pl.int_range(pl.len()) % 97 + 100.0), volume=pl.lit(5.0)
    )
    odd = pl.concat([frame, frame[50:60], frame[:1].with_columns(ts=pl.lit(None, frame.schema["ts"]))])
    return nsefiles.written(odd, folder / "bars.parquet")


def started(file: Path, home: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", LONG, "data", "import", str(file), "--market", "nse", "--home", str(home)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(process: "subprocess.Popen[bytes]") -> None:
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()


def files_in(lake: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(lake))


def killed_at(process: "subprocess.Popen[bytes]", lake: Path, count: int) -> bool:
    """SIGKILL when the lake holds `count` files, temporary ones included; whether the process was still there."""
    while process.poll() is None:
        if files_in(lake) >= count:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.001)
    process.communicate()
    return False


def test_kills_while_a_long_file_is_imported_leave_whole_partitions_and_the_same_lake(tmp_path: Path, file: Path):
    ended(started(file, tmp_path / "untouched"))
    expected = contents(Lake(tmp_path / "untouched" / "lake" / "nse"))
    assert len(expected) > 4 * 12
    counts, kills = random.Random(3).sample(range(1, len(expected)), KILLS), 0
    lake = Lake(tmp_path / "home" / "lake" / "nse")
    for count in sorted(counts):
        kills += killed_at(started(file, tmp_path / "home"), lake.root, count)
        assert contents(lake).keys() <= expected.keys()  # each of them whole
    ended(started(file, tmp_path / "home"))
    assert kills >= KILLS // 2
    assert contents(lake) == expected
    assert [path for path in lake.root.rglob("*") if path.name.startswith(".import-")] == []


class Killed(BaseException):
    """Stands for a kill within this process; not an `Exception`, so nobody handles it."""


def test_an_import_killed_before_any_single_write_is_healed_by_the_same_command(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = Lake(tmp_path / "whole")
    import_files([file], lake=whole, calendar=nsefiles.CALENDAR)
    expected = contents(whole)
    replace: Callable[..., None] = os.replace
    for dies_at in range(1, len(expected), 9):
        lake, calls = Lake(tmp_path / f"killed{dies_at}"), iter(range(1, dies_at))

        def dying(source: Path, target: Path, calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise Killed
            replace(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", dying)
            with pytest.raises(Killed):
                import_files([file], lake=lake, calendar=nsefiles.CALENDAR)
        import_files([file], lake=lake, calendar=nsefiles.CALENDAR)
        assert contents(lake) == expected
