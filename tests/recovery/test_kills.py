"""Kills at any moment, and the same command again: nothing lost, nothing twice, the same bytes, all of it recorded."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import drivers
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from drivers import FIRST

from odin_assets.assets import loop
from odin_assets.instance import environment, open_instance
from odin_core.home import Home, open_home
from odin_core.lifecycle import report
from odin_core.lifecycle.digest import Digest

WEEK_END = date(2023, 1, 6)  # the first session that trains: it writes a model, a report and every table
LAST = date(2023, 1, 12)  # a Thursday

DIES = """
import os, sys
from datetime import date
import drivers
from odin_core.home import open_home

calls, replace = int(sys.argv[3]), os.replace

def dies_half_way(source, target):
    global calls
    calls -= 1
    if calls == 0:
        with open(source, "r+b") as file:
            file.truncate(os.path.getsize(source) // 2)
        os._exit(9)
    replace(source, target)

os.replace = dies_half_way
drivers.in_python(open_home(sys.argv[1]), last=date.fromisoformat(sys.argv[2]))
"""

DIES_IN_DAGSTER = """
import os, sys
from datetime import date
import drivers
from odin_assets.assets import loop
from odin_core.home import open_home

log_session = loop._log_session

def dies(context, market, life, live, result):
    if str(result.session) == sys.argv[2]:
        os._exit(9)
    log_session(context, market, life, live, result)

loop._log_session = dies
drivers.bootstrap(open_home(sys.argv[1]), last=date.fromisoformat(sys.argv[3]))
"""


class Killed(BaseException):
    """Stands for a kill within this process; not an `Exception`, so nobody handles it."""


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> tuple[Home, Digest]:
    """The life up to LAST, run in one go, and its digest."""
    home = open_home(tmp_path_factory.mktemp("untouched"))
    drivers.in_python(home, last=LAST)
    return home, drivers.digest(home)


@pytest.fixture
def home(tmp_path: Path, untouched: tuple[Home, Digest]) -> Home:
    """A new home with the same bars and features."""
    home = open_home(tmp_path / "home")
    drivers.share_market(untouched[0], home)
    return home


def files(home: Home) -> int:
    """How many files of bars, features, tables and commits there are, half-written ones included."""
    return sum(len(names) for top in ("lake", "lives") for _, _, names in os.walk(home.root / top))


def kill_at(process: "subprocess.Popen[str]", home: Home, count: int) -> bool:
    """SIGKILL when the home holds `count` files; whether the process was still there."""
    while process.poll() is None:
        if files(home) >= count:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return process.returncode == -signal.SIGKILL
        time.sleep(0.002)
    return False


def killed_again_and_again(home: Home, counts: list[int], storage: str) -> int:
    """Start the command, kill it at each count of files, and let it end at last; how many kills there were."""
    kills = sum(kill_at(drivers.started(drivers.command(home, LAST, storage)), home, count) for count in sorted(counts))
    drivers.ended(drivers.started(drivers.command(home, LAST, storage)))
    return kills


@pytest.fixture
def empty(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def test_kills_at_random_moments_leave_no_trace(empty: Home, untouched: tuple[Home, Digest]):
    """From the first bar on: while bars, features and sessions are written."""
    among = files(untouched[0])
    kills = killed_again_and_again(empty, random.Random(7).sample(range(5, among), 2), "postgres")
    assert kills == 2
    assert drivers.digest(empty) == untouched[1]
    assert drivers.recorded(empty) == drivers.to_be_recorded(LAST)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("storage", ["sqlite", "postgres"])
def test_many_kills_at_random_moments_leave_no_trace(
    empty: Home, untouched: tuple[Home, Digest], seed: int, storage: str
):
    counts = random.Random(seed).sample(range(5, files(untouched[0])), 6)
    assert killed_again_and_again(empty, counts, storage) >= 3
    assert drivers.digest(empty) == untouched[1]
    assert drivers.recorded(empty) == drivers.to_be_recorded(LAST)


def test_a_kill_before_any_single_write_of_a_session_loses_only_that_session(
    home: Home, untouched: tuple[Home, Digest], monkeypatch
):
    """Attempt n dies at the nth file of the week's last session; the next one begins where the tables end."""
    before = date(2023, 1, 5)
    drivers.in_python(home, last=before)
    write = 0
    for write in range(1, 100):
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", dying_at(write))
            try:
                drivers.in_python(home, last=WEEK_END)
                break
            except Killed:
                assert drivers.digest(home) == drivers.digest(untouched[0], before)
    assert write > 13  # a model, a report, ten tables, the commit
    assert drivers.digest(home) == drivers.digest(untouched[0], WEEK_END)


def dying_at(call: int) -> Callable[[Path, Path], None]:
    """`os.replace` until its nth call, at which the process would be gone."""
    replace, calls = os.replace, count(1)

    def replaced(source: Path, target: Path) -> None:
        if next(calls) == call:
            raise Killed
        replace(source, target)

    return replaced


@pytest.mark.parametrize("writes", [9, 40])
def test_a_process_that_dies_in_the_middle_of_a_write_leaves_files_that_are_whole(
    writes: int, home: Home, untouched: tuple[Home, Digest]
):
    """The file under the temporary name is cut in half, and stays."""
    process = drivers.started([*drivers.odin_python(DIES), str(home.root), str(LAST), str(writes)])
    assert process.wait(60) == 9
    [torn] = (home.root / "lives").rglob("*.tmp")
    assert torn.stat().st_size > 0
    drivers.in_python(home, last=LAST)
    assert drivers.digest(home) == untouched[1]


def test_a_kill_while_bars_are_written_leaves_bars_that_are_whole(empty: Home, untouched: tuple[Home, Digest]):
    process = drivers.started([*drivers.odin_python(DIES), str(empty.root), str(FIRST), "12"])
    assert process.wait(60) == 9
    assert list((empty.root / "lake").rglob("*.tmp"))
    drivers.in_python(empty, last=FIRST)
    assert drivers.digest(empty) == drivers.digest(untouched[0], FIRST)


def test_dagster_hears_of_a_session_whose_run_died_between_the_commit_and_the_news_of_it(
    home: Home, untouched: tuple[Home, Digest]
):
    process = drivers.started([*drivers.odin_python(DIES_IN_DAGSTER), str(home.root), str(WEEK_END), str(LAST)])
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 9
    assert drivers.made(home).head == WEEK_END
    with environment(home):
        result = drivers.bootstrap(home, last=LAST)
        assert drivers.recorded(home) == drivers.to_be_recorded(LAST)
        with open_instance(home) as instance:
            facts = drivers.shown(instance, "phase_state", str(WEEK_END))
            assert (facts["did"], facts["phase_before"], facts["phase"]) == ("skipped", 0, 1)
            assert drivers.shown(instance, "executions", str(WEEK_END))["trades"] > 0
            assert [transition["session"] for transition in to_be_announced(instance)] == [str(WEEK_END)]
    assert result["did"] == "4 run now"
    assert drivers.digest(home) == untouched[1]


def stopped_at(monkeypatch, home: Home, module: ModuleType, function: str, call: int) -> None:
    """`odin bootstrap` in this process, stopped as by Ctrl-C when a function is called for the nth time."""
    called, calls = getattr(module, function), count(1)

    def stops(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return called(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, function, stops)
        with pytest.raises((KeyboardInterrupt, DagsterExecutionInterruptedError)):
            drivers.bootstrap(home, last=LAST)


def test_dagster_hears_of_a_week_whose_run_stopped_before_it_was_logged(home: Home, monkeypatch):
    with environment(home):
        stopped_at(monkeypatch, home, loop, "log_week", 1)
        assert drivers.made(home).head == WEEK_END
        drivers.bootstrap(home, last=LAST)
        assert drivers.recorded(home) == drivers.to_be_recorded(LAST)


def test_a_run_that_stopped_after_its_last_session_is_completed_by_the_same_command(home: Home, monkeypatch):
    """The fold was done; Dagster had not heard of the last session, and the report was not written."""
    with environment(home):
        stopped_at(monkeypatch, home, loop, "_log_session", len(drivers.sessions(FIRST, LAST)))
        assert drivers.made(home).head == LAST
        result = drivers.bootstrap(home, last=LAST)
        assert "nothing to do" in result["did"]
        assert result["notes"] == [f"finished before by a run that died, and recorded in Dagster now: {LAST}"]
        assert drivers.recorded(home) == drivers.to_be_recorded(LAST)
        assert str(LAST) in Path(result["report"]).read_text()
        assert drivers.bootstrap(home, last=LAST)["notes"] == []


def test_a_report_that_was_not_written_any_more_is_written_by_the_same_command(home: Home, monkeypatch):
    with environment(home):
        stopped_at(monkeypatch, home, report, "write_report", 1)
        result = drivers.bootstrap(home, last=LAST)
        assert "nothing to do" in result["did"]
        assert str(LAST) in Path(result["report"]).read_text()


def to_be_announced(instance: dg.DagsterInstance) -> list[dict[str, str]]:
    """What the phase sensor asks for on its first look."""
    sensor = drivers.definitions().resolve_sensor_def(f"{drivers.MARKET}_phase_transitions")
    with dg.build_sensor_context(instance=instance) as context:
        tick = sensor.evaluate_tick(context)
    return [request.run_config["ops"]["demo_announce_transition"]["config"] for request in tick.run_requests or []]


def test_files_of_a_session_that_was_never_committed_are_not_part_of_the_life(home: Home, untouched):
    """What a kill left of a session: tables that this run of it does not write, and tables that say something else."""
    drivers.in_python(home, last=date(2023, 1, 11))
    life = drivers.made(home)
    for table in ("evaluation_report", "registry_history", "executions"):
        life.lake.write(table, LAST, life.lake.read(table, WEEK_END))
    assert drivers.digest(home) == drivers.digest(untouched[0], date(2023, 1, 11))
    drivers.in_python(home, last=LAST)
    assert drivers.digest(home) == untouched[1]
    assert not life.lake.has("evaluation_report", LAST)


def test_two_runs_of_the_same_range_at_once_do_each_session_once(home: Home, untouched):
    running = [drivers.started(drivers.python_command(home, LAST)) for _ in range(2)]
    for process in running:
        drivers.ended(process)
    assert drivers.digest(home) == untouched[1]
    noted = [note["session"] for note in drivers.made(home).notes("session")]
    assert noted == [str(s) for s in drivers.sessions(FIRST, LAST)]


def test_a_life_with_a_commit_missing_is_refused_with_the_way_back(home: Home):
    from odin_core.lifecycle.run import SessionLost

    drivers.in_python(home, last=LAST)
    life = drivers.made(home)
    (life.lake.root / "commits" / "2023-01-10.json").unlink()
    with pytest.raises(SessionLost, match=r"without session 2023-01-10.*odin life rewind"):
        drivers.in_python(home, last=drivers.CALENDAR.next(LAST))


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """A test that fails must not leave its processes at work; those that were there before are others' business."""
    import psutil

    before = set(psutil.Process().children(recursive=True))
    yield
    for child in set(psutil.Process().children(recursive=True)) - before:
        child.kill()
