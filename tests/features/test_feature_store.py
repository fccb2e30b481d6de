"""Features in the lake with several processes at work, and with one that is killed: whole files, and the same ones."""

import json
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from smalllives import quick, small_market

from odin_core.home import open_home
from odin_core.market.data import MarketData

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = date(2022, 10, 17), date(2022, 11, 30)  # 31 sessions: two batches
ASKS = """
import hashlib, json, os, sys
sys.path.insert(0, "tests")
from datetime import date
from pathlib import Path
from smalllives import quick, small_market
from odin_core.home import open_home
from odin_core.lake import logical_hash

left, replace = int(sys.argv[2]), os.replace

def dies_half_way(source, target):
    global left
    is_ours = "features" in str(target)
    left -= is_ours
    if is_ours and left == 0:
        with open(source, "r+b") as file:
            file.truncate(os.path.getsize(source) // 2)
        os._exit(9)
    replace(source, target)

os.replace = dies_half_way
data = small_market(open_home(Path(sys.argv[1])), quick(), symbols=3)
print("ready", flush=True)
sys.stdin.readline()
first, last = (date.fromisoformat(word) for word in sys.argv[3:5])
print(json.dumps([logical_hash(data.features(None, "15m", first, last, name)) for name in sys.argv[5:]]))
"""
SETS = ("cross_section", "decision")


def market(home: Path) -> MarketData:
    return small_market(open_home(home), quick(), symbols=3)


def asking(home: Path, *, dies_at: int = 0, first: date = FIRST, last: date = LAST) -> subprocess.Popen[str]:
    """A process that asks for both sets as soon as it is told to; it dies half-way in its `dies_at`-th write."""
    words = [str(home), str(dies_at), str(first), str(last), *SETS]
    return subprocess.Popen(
        [sys.executable, "-c", ASKS, *words], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def together(*processes: subprocess.Popen[str]) -> list[list[str]]:
    """Tell all of them to go once each is ready, and what each answers."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [json.loads(answer) for answer in answers]


def files(home: Path) -> dict[str, bytes]:
    """Every file of features, temporary ones too."""
    found = (p for p in (home / "lake").rglob("*") if p.is_file() and "features" in str(p))
    return {str(p.relative_to(home)): p.read_bytes() for p in sorted(found)}


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the bars and no features; to be copied."""
    home = tmp_path_factory.mktemp("bars")
    data = market(home)
    data.generate(data.calendar.sessions(data.profile.first_partition, LAST))
    return home


@pytest.fixture(scope="module")
def alone(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[str]]:
    """The files of features that one process makes, and its answer."""
    home = copied(bars, tmp_path_factory.mktemp("alone") / "home")
    (answer,) = together(asking(home))
    return files(home), answer


def copied(bars: Path, to: Path) -> Path:
    """With the files' times, which the marks of features hold."""
    shutil.copytree(bars, to, copy_function=os.link)
    return to


def test_processes_that_ask_at_once_get_the_same_answer_and_leave_the_files_of_one(
    bars: Path, alone: tuple[dict[str, bytes], list[str]], tmp_path: Path
):
    home, (made, answer) = copied(bars, tmp_path / "home"), alone
    assert len(made) == 2 * 31
    middle = date(2022, 11, 7)
    third = asking(home, first=middle)
    answers = together(asking(home), asking(home), third)
    assert answers[:2] == [answer, answer]
    assert files(home) == made
    assert together(asking(home, first=middle)) == answers[2:]


def test_processes_that_ask_a_synthetic_market_at_once_get_what_one_gets(
    alone: tuple[dict[str, bytes], list[str]], tmp_path: Path
):
    """There are no bars yet either: each process makes what it misses."""
    answers = together(asking(tmp_path / "home"), asking(tmp_path / "home"))
    assert answers == [alone[1], alone[1]]
    assert files(tmp_path / "home").keys() == alone[0].keys()


@pytest.mark.parametrize("at", [1, 17, 45])
def test_a_kill_leaves_whole_files_and_the_next_asking_the_same_files_as_ever(
    bars: Path, alone: tuple[dict[str, bytes], list[str]], tmp_path: Path, at: int
):
    home, (made, answer) = copied(bars, tmp_path / "home"), alone
    died = asking(home, dies_at=at)
    died.communicate("\n", timeout=120)
    assert died.returncode == 9
    left = {name: content for name, content in files(home).items() if name.endswith("part.parquet")}
    assert len(left) == at - 1
    for name, content in left.items():
        assert pl.read_parquet(content).width > 3
        assert made[name] == content
    assert together(asking(home)) == [answer]
    assert {name: content for name, content in files(home).items() if not name.endswith(".tmp")} == made
